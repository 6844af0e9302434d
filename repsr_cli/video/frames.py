"""Decoded frames <-> planes of numpy arrays, without a conversion wherever the bytes allow it."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from repsr_cli.errors import MediaError
from repsr_cli.video.cuda_planes import DevicePlanes

Planes = tuple[NDArray[Any], ...]

# What encoders read from the frames they are given.
CARRIED = frozenset({"A53_CC", "S12M_TIMECODE"})


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One frame of a video, in planes.

    Attributes:
        planes: Y, U, V or R, G, B or Y alone; (height, width) each, uint8 at 8 bit, uint16 above. Read only. Where the
            decoder was asked to leave frames on its GPU: planes there.
        pts: presentation time in units of ``time_base``.
        duration: in the same units; 0 if unknown.
        time_base: seconds per unit.
        origin: the decoded frame that the planes lie in; its side data travels with it.
        repeats: whether this is the frame before once more, in place of one that could not be decoded.
    """

    planes: Planes | DevicePlanes
    pts: int
    duration: int
    time_base: Fraction
    origin: VideoFrame | None = field(default=None, repr=False)
    repeats: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes in the planes."""
        return nbytes(self.planes)


def nbytes(planes: Planes | DevicePlanes) -> int:
    """Bytes in planes, wherever they are."""
    return planes.nbytes if isinstance(planes, DevicePlanes) else sum(plane.nbytes for plane in planes)


def planar_name(pix_fmt: str) -> str:
    """The planar pixel format that holds another's values without loss: ``nv12`` -> ``yuv420p``, ``rgb24`` -> ``gbrp``.

    Alpha is not part of it. Formats of JPEG (``yuvj420p``) differ from others by a tag only, which is kept apart.

    Raises:
        MediaError: more than 16 bits, floating point, or a mosaic.
    """
    layout = VideoFormat(pix_fmt)
    depth = 8 if layout.has_palette else max(component.bits for component in layout.components)
    if "f16" in pix_fmt or "f32" in pix_fmt or depth > 16 or pix_fmt.startswith("bayer"):
        raise MediaError(pix_fmt, "a pixel format with more than 16 bits, or raw sensor data, is not supported")
    # monob, rgb565 and the like have fewer than eight bits; swscale widens them without loss.
    suffix = "" if depth <= 8 else f"{depth}le"
    if layout.is_rgb or layout.has_palette:
        return f"gbrp{suffix}"
    if len(layout.components) - layout_has_alpha(layout) == 1:
        return f"gray{suffix}"
    v, h = 16 // layout.chroma_height(16), 16 // layout.chroma_width(16)
    # With a quarter of the chroma on an axis (DV, old Indeo) it is enlarged: the exception to "without loss".
    names = {(1, 1): "444", (1, 2): "422", (2, 2): "420", (2, 1): "440", (1, 4): "422", (4, 4): "420"}
    return f"yuv{names[v, h]}p{suffix}"


def layout_has_alpha(layout: VideoFormat) -> bool:
    """Whether a pixel format has an alpha component."""
    return layout.has_palette or any(component.is_alpha for component in layout.components)


class PlaneReader:
    """Reads the planes of one stream's frames.

    One reformatter serves all frames: PyAV before 19 keeps megabytes of every one that is made.

    Args:
        planar: the planar format to read as, from ``planar_name``.
    """

    def __init__(self, planar: str) -> None:
        self.planar = planar
        self._reformatter = VideoReformatter()

    def read(self, frame: VideoFrame) -> tuple[Planes, VideoFrame]:
        """The planes of a frame, and the frame whose memory they are."""
        name = frame.format.name.replace("yuvj", "yuv")
        # yuva420p and its like begin with the very planes that are wanted.
        if name != self.planar and name.replace("yuva", "yuv").replace("gbrap", "gbrp") != self.planar:
            # In one thread: see video_cuda.downloaded.
            frame = self._reformatter.reformat(frame, format=self.planar, threads=1)
        return planes_of(frame, self.planar), frame


def planes_of(frame: VideoFrame, planar: str) -> Planes:
    """Views of a frame's planes, in the order Y, U, V or R, G, B."""
    layout = VideoFormat(planar, frame.width, frame.height)
    views = [_view(frame, index) for index in range(len(layout.components))]
    # FFmpeg stores planes of RGB as G, B, R.
    return (views[2], views[0], views[1]) if layout.is_rgb else tuple(views)


def new_frame(planes: Planes, planar: str) -> VideoFrame:
    """A frame to encode, holding copies of planes.

    Args:
        planes: Y, U, V or R, G, B or Y.
        planar: their pixel format.
    """
    height, width = planes[0].shape
    frame = VideoFrame(width, height, planar)
    fill(frame, planes)
    return frame


def fill(frame: VideoFrame, planes: Planes) -> None:
    """Copy planes into a frame of the same size and format."""
    order = (1, 2, 0) if frame.format.is_rgb else range(len(planes))
    for index, source in enumerate(order):
        _view(frame, index)[...] = planes[source]


def packed_frame(planes: Planes, pix_fmt: str) -> VideoFrame:
    """A frame whose components lie beside each other, as PNG wants them: ``rgb24``, ``rgb48be`` or ``gray16be``."""
    height, width = planes[0].shape
    frame = VideoFrame(width, height, pix_fmt)
    plane = frame.planes[0]
    pixels = np.stack(planes, axis=-1)
    row = pixels.astype(pixels.dtype.newbyteorder(">"), copy=False).reshape(height, -1).view(np.uint8)
    lines = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(height, plane.line_size)
    lines[:, : row.shape[1]] = row
    return frame


def _view(frame: VideoFrame, index: int) -> NDArray[Any]:
    """A plane as an array of (height, width), without the padding at the end of its lines."""
    plane = frame.planes[index]
    dtype = np.dtype("<u2") if frame.format.components[index].bits > 8 else np.dtype("u1")
    stride = plane.line_size
    lines = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(plane.height, abs(stride))
    view: NDArray[Any] = lines.view(dtype)[:, : plane.width]
    # A negative stride means that the last line lies first in memory.
    return view[::-1] if stride < 0 else view


def side_data(frame: VideoFrame) -> dict[str, bytes]:
    """What rides on a frame beside its pixels, by FFmpeg's names."""
    # Not frame.side_data: that keeps a container which keeps the frame, a cycle that holds every frame's memory until
    # the garbage collector happens to come by.
    container: Any = SideDataContainer
    items = container(frame)
    return {item.type.name: bytes(item) for item in items}


def carry(
    origin: VideoFrame | None, reformatter: VideoReformatter, width: int, height: int, pix_fmt: str
) -> VideoFrame:
    """A frame of a new size that has the side data of another: closed captions, timecodes, dynamic metadata.

    PyAV has no way to write side data, but its reformatter copies it; the pixels it makes are meant to be overwritten.
    """
    if origin is None or not CARRIED & side_data(origin).keys():
        return VideoFrame(width, height, pix_fmt)
    return reformatter.reformat(origin, width=width, height=height, format=pix_fmt, interpolation=Interpolation.POINT)
