"""Read and write YUV4MPEG2, on standard input and output.

Source: the format as mjpegtools' yuv4mpeg(5) describes it, with the names for more than 8 bits that FFmpeg reads.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
from av.container import InputContainer

from repsr_cli.errors import MediaError
from repsr_cli.video.colour_tags import ColourTags, override_tags, resolve_tags
from repsr_cli.video.encoders import Encoding
from repsr_cli.video.open import main_stream, translated
from repsr_cli.video.planes import Planes, planar_name
from repsr_cli.video.probe import VideoSource, stream_info

PIPE = Path("-")

_LAYOUTS = {
    "yuv420p": "420mpeg2",
    "yuv422p": "422",
    "yuv444p": "444",
    "gray": "mono",
    "gray10le": "mono10",
    "gray12le": "mono12",
    "yuv420p10le": "420p10 XYSCSS=420P10",
    "yuv422p10le": "422p10 XYSCSS=422P10",
    "yuv444p10le": "444p10 XYSCSS=444P10",
    "yuv420p12le": "420p12 XYSCSS=420P12",
    "yuv422p12le": "422p12 XYSCSS=422P12",
    "yuv444p12le": "444p12 XYSCSS=444P12",
}
PIXEL_FORMATS = tuple(_LAYOUTS)


def open_pipe() -> InputContainer:
    """Open standard input as a video.

    Raises:
        MediaError: it is not y4m.
    """
    try:
        with translated("standard input"):
            return av.open(sys.stdin.buffer, "r", format="yuv4mpegpipe")
    except MediaError as error:
        raise MediaError("standard input", "not y4m", "Give it YUV4MPEG2, or name a file.") from error


def describe_pipe(container: InputContainer, matrix: str | None, full_range: bool | None) -> VideoSource:
    """Describe a video by its header; no frame is read, because it could not be read again.

    Raises:
        MediaError: it is not y4m.
    """
    stream = main_stream(container, PIPE)
    context = stream.codec_context
    pix_fmt = context.pix_fmt
    if pix_fmt is None or not context.width:
        raise MediaError("standard input", "not y4m", "Give it YUV4MPEG2, or name a file.")
    rate = Fraction(stream.average_rate or stream.base_rate or 25)
    found = ColourTags(context.colorspace, context.color_range, context.color_primaries, context.color_trc)
    tags, notes = resolve_tags(override_tags(found, matrix, full_range), pix_fmt, context.height, context.width, rate)
    return VideoSource(
        path=PIPE,
        container="yuv4mpegpipe",
        index=stream.index,
        codec="rawvideo",
        height=context.height,
        width=context.width,
        pix_fmt=pix_fmt,
        planar=planar_name(pix_fmt),
        time_base=Fraction(stream.time_base) if stream.time_base else 1 / rate,
        start=0,
        rate=rate,
        sar=Fraction(stream.sample_aspect_ratio) if stream.sample_aspect_ratio else None,
        found=found,
        tags=tags,
        streams=(stream_info(stream),),
        notes=notes,
    )


def header(encoding: Encoding) -> bytes:
    """The header line of a stream."""
    layout = _LAYOUTS[encoding.pix_fmt]
    if layout == "420mpeg2":
        layout = {"center": "420jpeg", "topleft": "420paldv"}.get(encoding.tags.siting or "left", layout)
    rate, sar = encoding.rate, encoding.sar
    aspect = f"{sar.numerator}:{sar.denominator}" if sar else "0:0"
    span = "FULL" if encoding.tags.range == 2 else "LIMITED"
    start = f"YUV4MPEG2 W{encoding.width} H{encoding.height} F{rate.numerator}:{rate.denominator} Ip A{aspect}"
    return f"{start} C{layout} XCOLORRANGE={span}\n".encode()


def write_frame(file: BinaryIO, planes: Planes) -> None:
    """Write a frame."""
    file.write(b"FRAME\n")
    for plane in planes:
        file.write(plane.tobytes())


def is_steady(pts: Iterable[int], time_base: Fraction, rate: Fraction | None) -> bool:
    """Whether timestamps have a constant rate, except for rounding by containers."""
    times = tuple(pts)
    if rate is None or len(times) < 3:
        return True
    slack = max(time_base, Fraction(1, 1000)) * Fraction(3, 2)
    step = Fraction(times[-1] - times[0], len(times) - 1) * time_base
    return all(abs((time - times[0]) * time_base - number * step) <= slack for number, time in enumerate(times))
