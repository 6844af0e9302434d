"""Two images or videos held against each other: one image, still or blinking, one video, or one page."""

from __future__ import annotations

import base64
import html
import io
import re
import string
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from repsr_cli.errors import MediaError, UsageError
from repsr_cli.upscale.jobs import Kind, kind_of, neither, source_size
from repsr_cli.upscale.request import Outcome, Reporter

Form = Literal["beside", "split", "blink", "page"]

GAP = 4  # px of white between the two sides
BLINK = 700  # milliseconds that each of two blinking images stays
BLINKING = (".png", ".apng", ".webp", ".gif")
PAGE_LIMIT = 200 << 20  # bytes that a browser still opens gladly
BROWSER_IMAGES = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "AVIF": "image/avif",
}
BROWSER_VIDEOS = {".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/mp4", ".webm": "video/webm"}


@dataclass(frozen=True, slots=True)
class Crop:
    """A window into the larger of the two, in its pixels."""

    width: int
    height: int
    left: int
    top: int


def parse_crop(text: str) -> Crop:
    """A window from ``WxH+LEFT+TOP``.

    Raises:
        UsageError: it is not of that form, or empty.
    """
    match = re.fullmatch(r"([0-9]+)x([0-9]+)\+([0-9]+)\+([0-9]+)", text)
    if match is None or not (int(match[1]) and int(match[2])):
        raise UsageError(f"--crop {text}", "not a window", "Try --crop 640x360+100+50: width, height, left, top.")
    return Crop(*map(int, match.groups()))


def compare(
    before: Path,
    after: Path,
    target: Path | None,
    form: Form,
    *,
    crop: Crop | None = None,
    at: float | None = None,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> Outcome:
    """Hold two images, or two videos, against each other; the smaller is enlarged by bicubic interpolation.

    Args:
        before: shown at the left.
        after: shown at the right.
        target: file to write; None: ``BEFORE_vs_AFTER`` beside ``after``.
        form: ``beside`` each other, ``split`` in the middle, ``blink`` in turns at one place (images only), or a
            ``page`` with a slider that needs no other file.
        crop: show only this window of two images.
        at: take the frames of two videos at this time, in seconds, and make an image of them.
        overwrite: replace an existing target.
        reporter: told how far a video is.

    Raises:
        UsageError: one image and one video, a target that exists, a window outside.
        MediaError: one cannot be read, or the target cannot be written.
    """
    started = time.monotonic()
    kinds = {_kind(before), _kind(after)}
    if len(kinds) > 1:
        raise UsageError(f"{before} and {after}", "one is an image, one a video", "Give two of a kind.")
    kind = kinds.pop()
    still = kind == "image" or at is not None
    if kind == "image" and at is not None:
        raise UsageError("--at", "is for two videos", "Leave it out.")
    if target is None:
        extension = ".html" if form == "page" else ".png" if still else ".mp4"
        target = after.with_name(f"{before.stem}_vs_{after.stem}{extension}")
    if target.exists() and (not overwrite or target.samefile(before) or target.samefile(after)):
        raise UsageError(target, "exists", "Add -y to replace it, or choose another name with -o.")
    if form == "page" and (crop is not None or at is not None):
        raise UsageError("--crop" if crop else "--at", "is for an image", "Leave it out, or leave out --html.")
    if form == "blink" and not still:
        raise UsageError("--blink", "is for images", "Leave it out, or add --at for an image of one frame.")
    if form == "blink" and target.suffix.lower() not in BLINKING:
        raise UsageError(target, "this format shows no animation", f"Choose one of {' '.join(BLINKING)}.")
    if crop is not None and not still:
        raise UsageError("--crop", "is for an image", "Leave it out, or add --at for an image of one frame.")
    with _whole(target) as partial:
        if form == "page":
            partial.write_text(_page(before, after, kind), encoding="utf-8")
        elif still:
            sides = (_rgb(before), _rgb(after)) if at is None else (_frame(before, at), _frame(after, at))
            _compare_images(*sides, partial, form, crop)
        else:
            from repsr_cli.compare.videos import compare_videos

            compare_videos(before, after, partial, split=form == "split", reporter=reporter or Reporter())
    return Outcome(after, target, time.monotonic() - started, {"before": str(before), "form": form, "kind": kind})


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """A name to write to, beside the target; it takes the target's place only when all went well."""
    partial = target.with_name(f".{target.stem}.partial{target.suffix}")
    try:
        yield partial
        partial.replace(target)
    except OSError as error:
        raise MediaError(target, f"cannot be written ({error.strerror or error})", "Choose another place.") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _kind(path: Path) -> Kind:
    if not path.exists():
        raise MediaError(path, "no such file", "Check the path.")
    kind = kind_of(path)
    if kind is None:
        raise neither(path)
    return kind


def _compare_images(
    left: NDArray[np.uint8], right: NDArray[np.uint8], target: Path, form: Form, crop: Crop | None
) -> None:
    from PIL import Image

    from repsr_cli.image.resize import imresize

    size = (max(left.shape[0], right.shape[0]), max(left.shape[1], right.shape[1]))
    left, right = (side if side.shape[:2] == size else imresize(side, size) for side in (left, right))
    if crop is not None:
        if crop.top + crop.height > size[0] or crop.left + crop.width > size[1]:
            raise UsageError("--crop", f"reaches outside the image of {size[1]}x{size[0]}", "Choose a smaller window.")
        window = np.s_[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
        left, right = left[window], right[window]
    height, width = left.shape[:2]
    if form == "blink":
        import imageio.v3 as iio

        sides = np.stack([left, right])
        iio.imwrite(target, sides, plugin="pillow", is_batch=True, duration=BLINK, loop=0, lossless=True)
        return
    if form == "split":
        whole = right.copy()
        whole[:, : width // 2] = left[:, : width // 2]
        whole[:, max(0, width // 2 - GAP // 4) : width // 2 + GAP // 4] = 255
    else:
        whole = np.concatenate([left, np.full((height, GAP, 3), 255, np.uint8), right], axis=1)
    Image.fromarray(whole).save(target)


def _rgb(path: Path) -> NDArray[np.uint8]:
    """An image as a screen shows it: 8-bit RGB, transparency over grey. (H, W, 3)."""
    from repsr_cli.image.files import read_image

    image = read_image(path)
    peak = np.iinfo(image.pixels.dtype).max if image.pixels.dtype.kind == "u" else 1.0
    pixels = image.pixels.astype(np.float32) / peak
    if image.alpha is not None:
        alpha = image.alpha[..., None].astype(np.float32) / peak
        pixels = pixels * alpha + 0.5 * (1 - alpha)
    rgb = np.clip(np.floor(pixels * 255 + 0.5), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(rgb, (*rgb.shape[:2], 3)))


def _frame(path: Path, at: float) -> NDArray[np.uint8]:
    from repsr_cli.compare.videos import frame_at

    return frame_at(path, at)


def _page(before: Path, after: Path, kind: Kind) -> str:
    """One HTML file with both inside, so that it can be sent and kept."""
    weight = before.stat().st_size + after.stat().st_size
    if weight > PAGE_LIMIT:
        happened = f"a page with {weight >> 20} MiB inside is more than browsers like"
        raise UsageError(after, happened, "Compare a shorter video, or use --split.")
    sizes = [source_size(kind, path) for path in (before, after)]
    height, width = max(sizes, key=lambda size: size[0] * size[1])
    template = string.Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    element = _image_element if kind == "image" else _video_element
    return template.substitute(
        title=html.escape(f"{before.name} and {after.name}"),
        before=html.escape(before.name),
        after=html.escape(after.name),
        width=width,
        height=height,
        before_media=element(before, "before"),
        after_media=element(after, "after"),
        play='<button id="play" type="button">Play</button>' if kind == "video" else "",
    )


def _image_element(path: Path, role: str) -> str:
    from PIL import Image

    from repsr_cli.image.files import read_image

    kind = BROWSER_IMAGES.get(read_image(path).format)
    data = path.read_bytes()
    if kind is None:  # a browser cannot show it: a TIFF, a BMP
        file = io.BytesIO()
        Image.fromarray(_rgb(path)).save(file, "PNG")
        kind, data = "image/png", file.getvalue()
    return f'<img class="{role}" alt="{html.escape(path.name)}" draggable="false" src="{_data_url(kind, data)}">'


def _video_element(path: Path, role: str) -> str:
    kind = BROWSER_VIDEOS.get(path.suffix.lower())
    if kind is None:
        raise UsageError(path, "browsers show mp4 and webm only", "Use --split, which writes an mp4.")
    source = _data_url(kind, path.read_bytes())
    return f'<video class="{role}" muted loop playsinline preload="auto" src="{source}"></video>'


def _data_url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
