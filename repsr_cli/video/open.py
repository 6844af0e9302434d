"""Open videos for reading, and translate the errors of PyAV.

No file name is interpreted as an address, and no playlist may lead to another file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.logging
from av.codec import CodecContext
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from repsr_cli.cores import usable_cores
from repsr_cli.errors import MediaError
from repsr_cli.video.image_sequence import is_motion_jpeg, is_pattern, numbered

# Demuxers that accept nearly anything, such as text and single images.
_NOT_VIDEO = frozenset({"tty", "lrc", "srt", "ass", "webvtt", "concat", "hls", "dash", "bin", "ico", "image2"})

# Documents, archives and programs, in which demuxers that look for images find some.
_DOCUMENTS = (
    b"%PDF", b"%!PS", b"PK\x03\x04", b"{\\rtf", b"\xd0\xcf\x11\xe0", b"7z\xbc\xaf", b"Rar!", b"\x1f\x8b", b"BZh",
    b"\xfd7zXZ", b"\x7fELF", b"MZ", b"8BPS", b"SQLite f", b"<?xml", b"<!DOCTYP", b"<html",
)  # fmt: skip
# What is near the beginning of streams without a container, which demuxers also find in the middle of anything.
_BEGINS = {"mjpeg": b"\xff\xd8"} | dict.fromkeys(
    ("h264", "hevc", "vvc", "evc", "m4v", "mpegvideo", "vc1", "cavsvideo", "avs2", "avs3"), b"\0\0\1"
)

# Larger frames are not decoded: a few kilobytes can claim to be 16384x16384. A frame of 16K video has 133 million.
MAX_PIXELS = 1 << 27

# Each thread of a decoder holds a frame; more threads than this are no faster, because the network is slower.
DECODER_THREADS = 8

# What a decoder needs from the container besides the packets.
_SETTINGS = (
    "codec_tag",
    "extradata",
    "bits_per_coded_sample",
    "width",
    "height",
    "pix_fmt",
    "profile",
    "level",
    "framerate",
    "sample_aspect_ratio",
    "color_range",
    "color_primaries",
    "color_trc",
    "colorspace",
    "field_order",
    "reorder_depth",
)


@contextmanager
def translated(subject: object) -> Iterator[None]:
    """Turn PyAV's errors into a ``MediaError`` about a file."""
    try:
        yield
    except FileNotFoundError as error:
        raise MediaError(subject, "no such file", "Check the path, and quote names with spaces.") from error
    except IsADirectoryError as error:
        raise MediaError(subject, "a folder, not a file") from error
    except PermissionError as error:
        raise MediaError(subject, "may not be read or written", "Check the permissions.") from error
    except (av.InvalidDataError, av.EOFError, av.PatchWelcomeError) as error:
        remedy = "If it is cut off or damaged, get it again."
        raise MediaError(subject, f"not a video that can be read ({reason(error)})", remedy) from error
    except av.FFmpegError as error:
        raise MediaError(subject, reason(error)) from error
    except OSError as error:
        raise MediaError(subject, error.strerror or str(error)) from error


@contextmanager
def logged(level: int) -> Iterator[list[tuple[int, str, str]]]:
    """FFmpeg's messages from a level on, while this lasts: (level, name, message). Nothing is printed.

    No decoder with threads may run meanwhile. PyAV needs Python's lock to pass a message on, but keeps it while it
    frees a decoder and waits for the threads: one that has something to log would wait for ever.
    """
    usual = av.logging.get_level()
    av.logging.set_level(level)
    try:
        with av.logging.Capture() as log:
            yield log
    finally:
        av.logging.set_level(usual)


def reason(error: av.FFmpegError) -> str:
    """FFmpeg's message for an error, without the file name, which precedes it anyway."""
    # (level, name, message), or None if FFmpeg logged nothing.
    log: Any = error.log
    message = log[2].strip() if log else ""
    return (message or error.strerror or "no reason given").rstrip(".").replace("\n", " ")


@dataclass(frozen=True, slots=True)
class Probing:
    """How far to read a file to find its streams, where FFmpeg's usual 5 MB or 5 s are not enough.

    Attributes:
        nbytes: from the beginning.
        seconds: likewise.
    """

    nbytes: int
    seconds: float

    @property
    def options(self) -> dict[str, str]:
        """As FFmpeg calls them."""
        return {
            "probesize": str(self.nbytes),
            "analyzeduration": str(round(self.seconds * 1e6)),
            # FFmpeg stops when it knows the streams there are so far, and the rate of their frames.
            "fpsprobesize": str(round(self.seconds * 60)),
        }


def open_video(path: Path, probing: Probing | None = None) -> InputContainer:
    """Open a video for reading; numbered images are a video of 25 frames per second.

    Tags that are not UTF-8 are kept byte for byte. Frames of more than ``MAX_PIXELS`` do not decode.

    Args:
        probing: how far to look for streams; None: as usual.
    """
    options = {"max_pixels": str(MAX_PIXELS)}
    if is_pattern(path):
        options |= {"pattern_type": "sequence", "start_number": str(next(iter(numbered(path))))}
    kind = "image2" if is_pattern(path) else "mjpeg" if is_motion_jpeg(path) else None
    with translated(path):
        # "file:" prevents FFmpeg from interpreting a colon in a name as a protocol.
        return av.open(
            f"file:{path}",
            "r",
            metadata_errors="surrogateescape",
            format=kind,
            container_options={"protocol_whitelist": "file"} | ({} if probing is None else probing.options),
            options=options,
        )


def moving_stream(container: InputContainer) -> VideoStream | None:
    """The first video stream that is not cover art; None if there is none."""
    names = set(container.format.name.split(","))
    if names == {"image2"} and is_pattern(Path(container.name.removeprefix("file:"))):
        return container.streams.video[0]
    if _is_document(container) or names & _NOT_VIDEO or any(name.endswith("_pipe") for name in names):
        return None
    moving = (stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic)
    return next(moving, None)


def _is_document(container: InputContainer) -> bool:
    """Whether a demuxer took something else for a video, e.g. a PDF with a JPEG in it."""
    path = Path(container.name.removeprefix("file:"))
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError:  # a pipe, or numbered images
        return False
    if head.startswith(_DOCUMENTS):
        return True
    begin = _BEGINS.get(container.format.name)
    return begin is not None and begin not in head[:5]


def main_stream(container: InputContainer, path: Path) -> VideoStream:
    """The stream that is upscaled.

    Raises:
        MediaError: there is none, or FFmpeg has no decoder for it.
    """
    stream = moving_stream(container)
    if stream is None:
        kinds = sorted({stream.type for stream in container.streams} - {"video"})
        found = f"no video stream, only {', '.join(kinds)}" if kinds else "no video stream"
        raise MediaError(path, found, "upscale takes images and videos.")
    if stream.codec_context is None:
        raise MediaError(path, "no decoder for its video stream")
    if not stream.codec_context.is_open:
        _configure(stream.codec_context)
    return stream


def decoder_settings(context: VideoCodecContext) -> dict[str, Any]:
    """What another decoder of a stream needs besides the packets."""
    found = {name: getattr(context, name) for name in _SETTINGS}
    return {name: value for name, value in found.items() if value is not None}


def new_decoder(codec: str, settings: dict[str, Any], hwaccel: HWAccel | None = None) -> VideoCodecContext:
    """A decoder that does not belong to a container.

    Args:
        codec: FFmpeg's name of the decoder.
        settings: from ``decoder_settings``.
        hwaccel: the device to decode on.
    """
    context = CodecContext.create(codec, "r", hwaccel)
    assert isinstance(context, VideoCodecContext)
    for name, value in settings.items():
        setattr(context, name, value)
    _configure(context)
    return context


def _configure(context: VideoCodecContext) -> None:
    """Set a decoder's threads, and the limit on its frames."""
    context.thread_type = "AUTO"
    context.thread_count = min(DECODER_THREADS, usable_cores())
    context.options = {"max_pixels": str(MAX_PIXELS)}


def too_large(path: Path, what: str) -> MediaError:
    """The error for frames of more than ``MAX_PIXELS``."""
    limit = f"{MAX_PIXELS / 1e6:.0f} million pixels"
    return MediaError(path, f"{what} of more than {limit}, or damaged", "Scale it down with another tool first.")
