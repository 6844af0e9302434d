"""Show a few frames as several models and encoders render them, on one page, before a long job."""

from __future__ import annotations

import html
import io
import itertools
import json
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from repsr_cli.compare.images import shown
from repsr_cli.compare.options import PreviewOptions
from repsr_cli.compare.page import PAGE_LIMIT, data_url, filled
from repsr_cli.compare.videos import frame_at
from repsr_cli.engine.threads import torch_threads
from repsr_cli.errors import MediaError, UsageError
from repsr_cli.files import check_target, write_text
from repsr_cli.image.resize import imresize
from repsr_cli.options import declared_options, default_of
from repsr_cli.reporting import Reporter
from repsr_cli.upscale.batch import executor_for, plan_job, run_plan, settle_scale
from repsr_cli.upscale.estimate import trial
from repsr_cli.upscale.inputs import PIPE, Found, find_inputs
from repsr_cli.upscale.jobs import Job, plan_jobs
from repsr_cli.upscale.models import ModelCache
from repsr_cli.upscale.plan_image import plan_image
from repsr_cli.upscale.request import GROUPS, Naming, Request
from repsr_cli.video.image_sequence import is_pattern
from repsr_cli.video.open import main_stream, open_video
from repsr_cli.video.probe import probe
from repsr_cli.video.timeline import read_video

# Of larger images a window from the middle is shown, (height, width) px.
WINDOW = (480, 640)
# Frames that are looked at to find different scenes, and how many are decoded at most to reach one.
_LOOKED_AT = 12
_DECODED = 250
_QUALITY = 95  # of the JPEG images on the page
MOST = 24  # inputs of a page
_GOP = 250  # frames between keyframes, where an encoder has no reason for one


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to upscale an input.

    Attributes:
        name: what it is called on the page.
        request: with its model, encoder and quality.
        command: the command line that does it.
    """

    name: str
    request: Request
    command: str


def preview(inputs: Sequence[str], request: Request, options: PreviewOptions, say: Callable[[str], None]) -> Path:
    """Write a page on which results of several models and encoders are compared with bicubic interpolation.

    Args:
        inputs: images and videos, folders of them, patterns, and ``@list.txt`` with one path per line.

    Returns:
        The page.

    Raises:
        RepsrError: an input cannot be read, there are too many, a model or encoder does not exist, or the page exists
            or is too large.
    """
    found = _found(inputs, say)
    target = options.output or found[0].path.with_name(f"{found[0].path.stem}_preview.html")
    check_target(target, overwrite=request.run.overwrite)
    models = ModelCache()
    with tempfile.TemporaryDirectory(prefix="repsr-preview-") as folder:
        shows = [_show(each, request, options, models, Path(folder), say) for each in found]
    text = json.dumps(shows).replace("<", "\\u003c")
    if len(text) > PAGE_LIMIT:
        raise UsageError(target, f"a page of {len(text) >> 20} MiB is too large for browsers", "Show less at a time.")
    title = html.escape(f"Preview of {', '.join(each.path.name for each in found)}")
    write_text(target, filled("preview.html", title=title, shows=text), overwrite=request.run.overwrite)
    return target


def _found(inputs: Sequence[str], say: Callable[[str], None]) -> list[Found]:
    """The files that a page is to show."""
    inside = find_inputs(inputs, Naming())
    if inside.failures:
        raise inside.failures[0].error
    for note in inside.notes():
        say(note)
    for each in inside.files:
        if each.path == PIPE or is_pattern(each.path):
            happened = "a preview needs files, not frames from a pipe or numbered images"
            raise UsageError(each.path, happened, "Name a video, or some of the images.")
    if not inside.files:
        raise UsageError(" ".join(inputs), "no image or video found", "Name a file, or a folder that holds some.")
    if len(inside.files) > MOST:
        happened = f"{len(inside.files)} images and videos; a page shows up to {MOST}"
        raise UsageError(" ".join(inputs), happened, "Name those that matter.")
    return inside.files


def _show(
    found: Found,
    request: Request,
    options: PreviewOptions,
    models: ModelCache,
    folder: Path,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """What the page shows of one input."""
    path, kind = found.path, found.kind
    choices = _choices(path, kind == "video", request, options)
    say(f"{path.name}: {len(choices)} choices")
    if kind == "image":
        return _image(path, choices, models, folder)
    times = list(options.at) or scenes(path, options.frames)
    return _video(path, times, choices, models, folder)


def _choices(path: Path, video: bool, request: Request, options: PreviewOptions) -> list[Choice]:
    made = []
    codecs, crfs = (options.codecs, options.crfs) if video else ((None,), (None,))
    models = options.models or (("fast", "balanced") if options.details == (None,) else ("balanced",))
    for model, detail, codec, crf in itertools.product(models, options.details, codecs, crfs):
        asked = settle_scale(request.having(model=model, detail=detail, codec=codec, crf=crf))
        numbers = {"detail": detail, "crf": crf}
        words = [f"{name} {value:g}" for name, value in numbers.items() if value is not None]
        name = " ".join([model, *([codec] if codec else []), *words])
        made.append(Choice(name, asked, shlex.join(["repsr", "upscale", _typed(path), *_words(asked)])))
    return made


def _typed(path: Path) -> str:
    """A path as it is typed: neither an option nor a list, whatever its name begins with."""
    return f"./{path}" if str(path).startswith(("-", "@")) else str(path)


def target_of(path: Path, choice: Choice, folder: Path) -> Path:
    """Where the result of an input would go, were it made in a folder.

    Raises:
        RepsrError: it cannot be made.
    """
    plan = plan_jobs([str(path)], choice.request, Naming(output=f"{folder}/x/"))
    if plan.failures:
        raise plan.failures[0].error
    return plan.jobs[0].target


def _words(request: Request) -> Iterator[str]:
    """The options that make a request, as they are typed."""
    for name, group in GROUPS.items():
        for each, declared in declared_options(group):
            value, flag = getattr(getattr(request, name), each.name), declared.flags[0]
            if value == default_of(each) or each.name == "overwrite":
                continue
            if isinstance(value, bool):
                on, _, off = flag.partition("/")
                yield on if value else off
            elif isinstance(value, dict):
                for key, text in value.items():
                    yield from (flag, f"{key}={text}")
            elif isinstance(value, tuple):  # height and width
                yield from (flag, f"{value[1]}x{value[0]}")
            else:
                yield from (flag, f"{value:.15g}" if isinstance(value, float) else str(value))


def scenes(path: Path, count: int) -> list[float]:
    """Times in seconds of frames that differ most from each other.

    Args:
        count: how many, at most.

    Raises:
        MediaError: it cannot be decoded.
    """
    source = probe(path)
    begin, looks, times = float(source.start * source.time_base), [], []
    try:
        with open_video(path) as container:
            stream = main_stream(container, path)
            length = float(container.duration or 0) / av.time_base
            for number in range(_LOOKED_AT):
                wanted = length * number / _LOOKED_AT
                if number:
                    container.seek(int((begin + wanted) * av.time_base))
                for frame in itertools.islice(container.decode(stream), _DECODED):
                    at = (frame.time or 0.0) - begin
                    if at >= wanted:
                        break
                else:
                    continue
                if at not in times:
                    times.append(at)
                    looks.append(frame.to_ndarray(format="gray", width=32, height=18).astype(np.float32).ravel())
    except (av.FFmpegError, IndexError) as error:
        raise MediaError(path, f"cannot be decoded ({error})") from error
    if not times:
        raise MediaError(path, "has no frames")
    # Black frames and titles have little contrast: they are left out where there are others. The first frame is the one
    # with the most contrast, each further one the most different.
    contrast = [float(look.std()) for look in looks]
    kept = [number for number, each in enumerate(contrast) if each >= max(contrast) / 4]
    times, looks = [times[number] for number in kept], [looks[number] for number in kept]
    chosen = [int(np.argmax([look.std() for look in looks]))]
    while len(chosen) < min(count, len(times)):
        apart = [min(float(np.abs(look - looks[other]).mean()) for other in chosen) for look in looks]
        chosen.append(int(np.argmax(apart)))
    return sorted({times[number] for number in chosen})


def _video(
    path: Path, times: Sequence[float], choices: Sequence[Choice], models: ModelCache, folder: Path
) -> dict[str, Any]:
    source, timeline = read_video(path)
    begin, step = float(source.start * source.time_base), 1 / float(source.rate or 25)
    before = [frame_at(path, at) for at in times]
    # A time after the last frame, where only sound is left, shows that frame.
    times = [min(at, float(timeline.pts[-1] * source.time_base) - begin) for at in times]
    results: list[list[NDArray[np.uint8]]] = [[] for _ in times]
    rows: list[dict[str, Any]] = []
    rates: dict[tuple[str | None, str | None], float] = {}
    for choice in choices:
        target = target_of(path, choice, folder)
        whole = plan_job(Job("video", path, target), choice.request)
        assert whole.kind == "video"
        upscaler = models.upscaler(whole.compute, whole.compute.devices[0])
        key = (choice.request.model.model, choice.request.video.codec)
        if key not in rates:
            with torch_threads(whole.compute.threads):
                rates[key] = trial(whole, upscaler, lambda _line: None).seconds
        weights: list[list[int]] = []
        for number, at in enumerate(times):
            part = folder / f"{len(rows)}-{number}{target.suffix}"
            short = choice.request.having(
                start=max(0.0, at - step / 2), end=at + 2 * step, resume=False, allow_loss=True
            )
            plan = plan_job(Job("video", path, part), short)
            run_plan(plan, executor_for(plan, models), Reporter())
            results[number].append(frame_at(part, 0.0))
            weights.append(_packet_sizes(part))
            part.unlink()
        size = whole.size[::-1] if source.rotation % 180 else whole.size
        rows.append(_row(choice, size, _bytes(weights, whole.frames or 0) + whole.bytes_copied, rates[key]))
    frames_shown = [
        _scene(f"{at:.2f} s", small, large) for at, small, large in zip(times, before, results, strict=True)
    ]
    return {"name": path.name, "choices": rows, "scenes": frames_shown}


def _packet_sizes(path: Path) -> list[int]:
    with open_video(path) as container:
        return [packet.size for packet in container.demux(main_stream(container, path)) if packet.size]


def _bytes(weights: Sequence[Sequence[int]], frames: int) -> float:
    """About how many bytes a video's frames are encoded to, from short stretches that each begin with a keyframe."""
    keys = float(np.mean([sizes[0] for sizes in weights]))
    between = [size for sizes in weights for size in sizes[1:]]
    mean = float(np.mean(between)) if between else keys
    return mean * frames + (keys - mean) * -(-frames // _GOP)


def _image(path: Path, choices: Sequence[Choice], models: ModelCache, folder: Path) -> dict[str, Any]:
    from PIL import Image

    whole = shown(path)
    height, width = whole.shape[:2]
    top, left = max(0, (height - WINDOW[0]) // 2), max(0, (width - WINDOW[1]) // 2)
    window = whole[top : top + WINDOW[0], left : left + WINDOW[1]]
    share = window.shape[0] * window.shape[1] / (height * width)
    source = path
    if share < 1:
        source = folder / "window.png"
        Image.fromarray(window).save(source)
    rows: list[dict[str, Any]] = []
    results = []
    for choice in choices:
        real = target_of(path, choice, folder)
        factor = plan_job(Job("image", path, real), choice.request)
        scaled = choice.request.having(
            scale=factor.factor, width=None, height=None, size=None, fit=None, short_side=None, allow_loss=True
        )
        part = folder / f"{len(rows)}{real.suffix}"
        # The window is not judged: its pixels are those of the source, which was.
        plan = plan_image(source, part, scaled, factor.compute.model)
        models.upscaler(plan.compute, plan.compute.devices[0])
        began = time.perf_counter()
        run_plan(plan, executor_for(plan, models), Reporter())
        seconds = (time.perf_counter() - began) / share
        size = round(height * factor.factor), round(width * factor.factor)
        rows.append(_row(choice, size, part.stat().st_size / share, seconds))
        results.append(shown(part))
        part.unlink()
    name = "whole image" if share == 1 else f"{window.shape[1]}x{window.shape[0]} px from the middle"
    return {"name": path.name, "choices": rows, "scenes": [_scene(name, window, results)]}


def _row(choice: Choice, size: tuple[int, int], nbytes: float, seconds: float) -> dict[str, Any]:
    return {
        "name": choice.name,
        "pixels": f"{size[1]}x{size[0]}",
        "bytes": round(nbytes),
        "seconds": seconds,
        "command": choice.command,
    }


def _scene(name: str, before: NDArray[np.uint8], results: Sequence[NDArray[np.uint8]]) -> dict[str, Any]:
    height, width = results[0].shape[:2]
    large = imresize(before, (height, width))
    images = [_jpeg(large), *(_jpeg(result) for result in results)]
    return {"name": name, "width": width, "height": height, "images": images}


def _jpeg(pixels: NDArray[np.uint8]) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=_QUALITY, subsampling=0)
    return data_url("image/jpeg", file.getvalue())
