"""Make the LR images that models are judged on: clean, through JPEG, or through a video encoder.

The conditions are those of published tables, so that anyone can repeat them: MATLAB's antialiased bicubic first, then
Pillow's JPEG, or the fifth of six equal frames through FFmpeg's encoder, with FFmpeg's own conversion to 4:2:0.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from repsr_cli.errors import UsageError
from repsr_cli.image.resize import downscale
from repsr_cli.training.degradations import through_jpeg
from repsr_cli.training.metrics import Pixels

_FRAMES, _KEPT = 6, 4
# Encoder, its default quality option and the largest value of it.
_ENCODERS = {"x264": ("libx264", 51), "x265": ("libx265", 51), "vp9": ("libvpx-vp9", 63)}
# Options by which an encoder works at a constant quality, and gives the same frames in every run.
REPEATABLE = {
    # x264's macroblock tree was measured to code the same frames differently in one run out of five; this cures it.
    "libx264": {"x264-params": "cpu-independent=1"},
    "libx265": {"x265-params": "log-level=none:pools=none:frame-threads=1"},
    "libvpx-vp9": {"b": "0"},
}


@dataclass(frozen=True, slots=True)
class Condition:
    """One way to make LR images.

    Attributes:
        name: as typed, e.g. ``jpeg:75``.
        kind: ``clean``, ``jpeg``, ``x264``, ``x265`` or ``vp9``.
        quality: JPEG quality or crf; 0 for ``clean``.
    """

    name: str
    kind: str
    quality: int = 0

    def lr(self, hr: Pixels, scale: int) -> Pixels:
        """The LR version of an image.

        Args:
            hr: (height, width, 3), both multiples of the scale.
        """
        small = downscale(hr, scale)
        if self.kind == "clean":
            return small
        if self.kind == "jpeg":
            return through_jpeg(small, self.quality)
        return _through_video(small, *encoder_of(self))


def parse_condition(text: str) -> Condition:
    """A condition from ``clean``, ``jpeg:75``, ``x264:26`` and the like.

    Raises:
        UsageError: it is none of them, or the quality is out of bounds.
    """
    kind, _, quality = text.partition(":")
    known = f"Known: clean, jpeg:QUALITY, {', '.join(f'{name}:CRF' for name in _ENCODERS)}."
    if text == "clean":
        return Condition(text, kind)
    if kind not in ("jpeg", *_ENCODERS) or not re.fullmatch("[0-9]{1,3}", quality):
        raise UsageError(f"--degrade {text}", "is not a degradation", known)
    least, most = (1, 95) if kind == "jpeg" else (0, _ENCODERS[kind][1])
    if not least <= int(quality) <= most:
        raise UsageError(f"--degrade {text}", f"the quality must lie between {least} and {most}", known)
    return Condition(text, kind, int(quality))


def encoder_of(condition: Condition) -> tuple[str, dict[str, str]]:
    """The video encoder of a condition and its options, so that every run gives the same frames."""
    codec = _ENCODERS[condition.kind][0]
    return codec, {"crf": str(condition.quality)} | REPEATABLE[codec]


def _through_video(image: Pixels, codec: str, options: Mapping[str, str]) -> Pixels:
    # Not imported above: training's loop, which shares this package, runs without PyAV.
    import av

    file = io.BytesIO()
    # 4:2:0 needs even sides; what is added is cut off again.
    height, width = image.shape[:2]
    even = np.ascontiguousarray(np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream(codec, rate=25, options=dict(options))
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = even.shape[1], even.shape[0], "yuv420p"
        for _ in range(_FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even, "rgb24")))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r") as decoded:
        frames = [frame.to_ndarray(format="rgb24") for frame in decoded.decode(video=0)]
    return np.ascontiguousarray(frames[_KEPT][:height, :width])


def parse_conditions(texts: Sequence[str]) -> list[Condition]:
    """Conditions in the order given, ``clean`` where none is given; errors as ``parse_condition``."""
    return [parse_condition(text) for text in texts or ("clean",)]
