"""Exchange frames on an NVIDIA GPU between decoder, network and encoder, without copies through the host."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import av
import av.logging
from av.codec import Codec
from av.codec.hwaccel import HWAccel, hwdevices_available
from av.video.frame import CudaContext, VideoFrame
from av.video.reformatter import VideoReformatter

from repsr_cli.errors import DeviceError
from repsr_cli.video.open import logged
from repsr_cli.yuv.device_planes import DevicePlanes

# DLPack's number for memory of CUDA.
_CUDA = 2
# The formats that PyAV exports from a GPU and imports on one: Y, then U and V interleaved at half the size.
ON_GPU = frozenset({"nv12", "p010le", "p016le"})

_own = threading.local()


class _Exported:
    """A plane of a decoded frame for consumers that pass a stream, which PyAV refuses."""

    def __init__(self, plane: Any) -> None:
        self._plane = plane

    def __dlpack__(self, **_: object) -> Any:
        return self._plane.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        device: tuple[int, int] = self._plane.__dlpack_device__()
        return device


def device_planes(frame: VideoFrame, depth: int) -> DevicePlanes:
    """The planes of a decoded frame, on its device.

    Args:
        frame: in a format in ``ON_GPU``, height and width even.
        depth: bits per sample.
    """
    pix_fmt = (frame.sw_format or frame.format).name
    shift = 0 if pix_fmt == "nv12" else 16 - depth
    return DevicePlanes(tuple(map(_Exported, frame.planes)), pix_fmt, frame.height, frame.width, shift)


def frame_of(planes: DevicePlanes) -> VideoFrame:
    """A frame for NVENC that shares the memory of planes.

    NVENC gets the address of Y only, and reads UV right after its last line at the same pitch.
    """
    kind, index = planes.planes[0].__dlpack_device__()
    layout = (planes.planes, planes.pix_fmt, planes.width, planes.height)
    if kind == _CUDA:
        with torch_context(index):
            frame = VideoFrame.from_dlpack(*layout, cuda_context=_context(index))
    else:
        frame = VideoFrame.from_dlpack(*layout)
    luma, chroma = frame.planes
    if (chroma.buffer_ptr, chroma.line_size) != (luma.buffer_ptr + luma.line_size * frame.height, luma.line_size):
        raise ValueError("planes for an encoder lie in one allocation of (height * 3 / 2, pitch), UV right behind Y")
    return frame


def downloaded(frame: VideoFrame, pix_fmt: str) -> VideoFrame:
    """A copy of a frame in system memory, with its side data.

    Args:
        pix_fmt: planar format of the same samples; the conversion is exact (``tests/unit/video/test_cuda_planes.py``).
    """
    # In one thread: where swscale separates interleaved chroma of 10 bits, it writes past the ends of lines. The next
    # line then overwrites that, but with several threads it may have been written before.
    return _reformatter().reformat(frame, format=pix_fmt, threads=1)


def missing_device(index: int) -> str | None:
    """Why FFmpeg cannot use a CUDA device, in FFmpeg's or torch's words; None if it can."""
    if "cuda" not in hwdevices_available():
        return "this build of PyAV has no CUDA support"

    def attempt() -> None:
        with nvdec_accel(index) as accel:
            accel.create(Codec("h264", "r"))

    return refusal(attempt)


def need_device(subject: str, index: int, otherwise: str) -> None:
    """Check that there is a GPU.

    Args:
        subject: what needs it.
        index: CUDA's number of the GPU.
        otherwise: what the user can do without one, as the end of a sentence.
    """
    why = missing_device(index)
    if why is not None:
        happened = f"needs an NVIDIA GPU, and cuda:{index} cannot be used ({why})"
        raise DeviceError(subject, happened, f"Install the GPU's driver, or {otherwise}.")


def refusal(attempt: Callable[[], object]) -> str | None:
    """FFmpeg's or torch's reason why a call fails; None if it succeeds. Nothing is printed.

    Args:
        attempt: a call during which FFmpeg runs no threads, as ``logged`` asks.
    """
    with logged(av.logging.ERROR) as log:
        try:
            attempt()
        except (av.FFmpegError, RuntimeError, ValueError) as error:  # RuntimeError: torch cannot use the GPU
            # The first message is the cause of the others.
            message = log[0][2] if log else getattr(error, "strerror", None) or str(error)
            return message.strip().rstrip(".")
    return None


@contextmanager
def torch_context(index: int) -> Iterator[bool]:
    """While this lasts, torch's context of a device is current on this thread, if torch can use the device.

    FFmpeg and torch share the device's primary context. FFmpeg refuses it if torch has opened it with other flags, but
    accepts whichever context is current.

    Yields:
        Whether it is current.

    Raises:
        RuntimeError: torch finds the device, but cannot use it.
    """
    import torch  # only where a GPU is wanted: it takes a second

    if not torch.cuda.is_available() or index >= torch.cuda.device_count():
        yield False
        return
    current: set[int] = _own.__dict__.setdefault("current", set())
    with torch.cuda.device(index):
        if index not in current:
            torch.cuda.mem_get_info(index)  # a thread's first call to a device makes its context current
            current.add(index)
        yield True


@contextmanager
def nvdec_accel(index: int) -> Iterator[HWAccel]:
    """Settings with which a decoder runs on a device, in the context that torch uses; it is opened while this lasts.

    Raises:
        RuntimeError: as ``torch_context``.
    """
    with torch_context(index) as shared:
        options: dict[str, object] = {"primary_ctx": "0", "current_ctx": "1"} if shared else {"primary_ctx": "1"}
        yield HWAccel("cuda", device=str(index), allow_software_fallback=False, options=options, is_hw_owned=True)


@cache
def _context(index: int) -> CudaContext:
    """FFmpeg's handle of a device: the context that is current when it is first used, which is torch's."""
    return CudaContext(index, primary_ctx=False, current_ctx=True)


def _reformatter() -> VideoReformatter:
    """One for each thread, because it is not thread-safe and PyAV before 19 leaks megabytes with each."""
    if not hasattr(_own, "reformatter"):
        _own.reformatter = VideoReformatter()
    found: VideoReformatter = _own.reformatter
    return found
