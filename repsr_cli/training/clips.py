"""Evaluate models on compressed clips: fidelity, VMAF, how single frames look, and how much still parts flicker."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from repsr_cli.engine.pixels import to_8_bit, to_tensor
from repsr_cli.engine.planes import PlaneUpscaler, planes_from_rgb, rgb_from_planes
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import UsageError
from repsr_cli.image.resize import downscale, imresize
from repsr_cli.training.conditions import Condition, encoder_of
from repsr_cli.training.evaluate import BICUBIC, ImageScore, check_scales, mean_scores
from repsr_cli.training.frame_sampling import frames_at
from repsr_cli.training.metrics import Pixels, psnr_rgb, ssim_y
from repsr_cli.training.perceptual import looks_beside
from repsr_cli.training.vmaf import vmaf
from repsr_cli.video.planes import Planes
from repsr_cli.video.roundtrip import through_codec
from repsr_cli.video.timeline import read_video
from repsr_cli.yuv.formats import PlaneFormat

Plane = NDArray[np.uint8]

CLIPS = "clips"
# Meaning of the planes between encoder and model.
FORMAT = PlaneFormat("bt709", False, 8, (2, 2), "left")
MIN_LR_SIDE = 16  # px; a macroblock
# Slow measures look at one frame in this many.
_EVERY = 8


def clip_frames(video: Path, scale: int, count: int, start: float = 1 / 3) -> list[Pixels]:
    """RGB frames of a clip, cropped so that they shrink to even sizes.

    Args:
        start: the share of the clip that is left out at its beginning.

    Raises:
        UsageError: it has a single frame, or is too small.
    """
    source, timeline = read_video(video)
    first = int(len(timeline.pts) * start)
    wanted = tuple(timeline.pts[first : first + count])
    frames = [rgb for _pts, rgb in frames_at(source, timeline, wanted, 2 * scale)]
    if len(frames) < 2:
        raise UsageError(video, "has too few frames to measure", "Give clips of several seconds.")
    height, width = frames[0].shape[:2]
    if min(height, width) < MIN_LR_SIDE * scale:
        happened = f"is {width}x{height}, too small to shrink by {scale} and encode"
        raise UsageError(video, happened, "Give clips in high definition.")
    return frames


def flicker(frames: Sequence[Plane], still: Sequence[NDArray[np.bool_]]) -> float | None:
    """Mean absolute change of luma between neighbouring frames, in code values, where the original does not change.

    Args:
        frames: luma planes of the result.
        still: for each pair of neighbouring frames, where the original's luma is the same in both.

    Returns:
        None where the original changes everywhere.
    """
    changes = [np.abs(b.astype(float) - a)[mask] for (a, b), mask in zip(pairwise(frames), still, strict=True)]
    found = np.concatenate(changes)
    return float(found.mean()) if found.size else None


def compressed(frames: Sequence[Pixels], scale: int, condition: Condition) -> list[Planes]:
    """LR frames as 4:2:0 planes, shrunk, and encoded and decoded as a condition says.

    Raises:
        UsageError: the condition is one of still images.
    """
    shrunk = [planes_from_rgb(to_tensor(downscale(frame, scale)), FORMAT) for frame in frames]
    if condition.kind == "clean":
        return shrunk
    if condition.kind == "jpeg":
        raise UsageError(f"--degrade {condition.name}", "is not for clips", "Use x264:CRF, x265:CRF or vp9:CRF.")
    return through_codec(shrunk, "yuv420p", *encoder_of(condition))


def evaluate_clips(
    models: Sequence[tuple[str, Upscaler]],
    videos: Sequence[Path],
    scale: int,
    conditions: Sequence[Condition],
    count: int = 48,
    *,
    perceptual: bool = False,
) -> Iterator[ImageScore]:
    """Evaluate models and bicubic interpolation on clips, by the planes that an encoder reads.

    Args:
        models: (name, upscaler) of models of this scale.
        scale: enlargement factor; also the border cropped before measuring.
        perceptual: whether to measure VMAF and how results look, too.

    Yields:
        One row per clip, condition and model, bicubic first; figures are means over frames.

    Raises:
        UsageError: a model of another scale, a clip that cannot be used, or a missing package.
    """
    check_scales(models, scale)
    for video in videos:
        frames = clip_frames(video, scale, count)
        hr = [planes_from_rgb(to_tensor(frame), FORMAT) for frame in frames]
        for condition in conditions:
            lr = compressed(frames, scale, condition)
            results = [[_bicubic(planes, scale) for planes in lr]]
            for _name, upscaler in models:
                upscale = PlaneUpscaler(upscaler, FORMAT, FORMAT)
                results.append([upscale(planes) for planes in lr])
            looks = _looks(results, frames) if perceptual else [{} for _ in results]
            for name, sr, seen in zip([BICUBIC, *(name for name, _ in models)], results, looks, strict=True):
                figures = _fidelity(sr, hr, scale) | seen | (vmaf(sr, hr) if perceptual else {})
                yield ImageScore(name, CLIPS, condition.name, video.name, figures)


def _bicubic(planes: Planes, scale: int) -> Planes:
    return tuple(imresize(plane, (plane.shape[0] * scale, plane.shape[1] * scale)) for plane in planes)


def _fidelity(sr: Sequence[Planes], hr: Sequence[Planes], border: int) -> dict[str, float]:
    grey = [(a[0][..., None], b[0][..., None]) for a, b in zip(sr, hr, strict=True)]
    still = [a[0] == b[0] for a, b in pairwise(hr)]
    figures = {
        "psnr_y": statistics.mean(psnr_rgb(a, b, border) for a, b in grey),
        "ssim_y": statistics.mean(ssim_y(a, b, border) for a, b in grey[::_EVERY]),
    }
    moved = flicker([frame[0] for frame in sr], still)
    return figures if moved is None else figures | {"flicker": moved}


def _looks(results: Sequence[Sequence[Planes]], frames: Sequence[Pixels]) -> list[dict[str, float]]:
    """How each result looks, in the mean over some frames; one original's features are held at a time."""
    seen: list[list[Mapping[str, float]]] = [[] for _ in results]
    for index in range(0, len(frames), _EVERY):
        measure = looks_beside(frames[index])
        for result, found in zip(results, seen, strict=True):
            found.append(measure(to_8_bit(rgb_from_planes(result[index], FORMAT))))
    return [mean_scores(found) for found in seen]
