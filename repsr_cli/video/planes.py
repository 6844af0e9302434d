"""Read and write the planes of PyAV's frames as numpy arrays, without conversion where possible."""

from __future__ import annotations

from typing import Any

import numpy as np
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from repsr_cli.errors import MediaError

Planes = tuple[NDArray[Any], ...]


def planar_name(pix_fmt: str) -> str:
    """The planar pixel format that holds another's values without loss: ``nv12`` -> ``yuv420p``, ``rgb24`` -> ``gbrp``.

    Alpha is left out. JPEG's formats (``yuvj420p``) differ from others by a tag only, which is stored separately.

    Raises:
        MediaError: the format has more than 16 bits, is floating point, or is a sensor mosaic.
    """
    layout = VideoFormat(pix_fmt)
    depth = 8 if layout.has_palette else max(component.bits for component in layout.components)
    if "f16" in pix_fmt or "f32" in pix_fmt or depth > 16 or pix_fmt.startswith("bayer"):
        raise MediaError(pix_fmt, "a pixel format with more than 16 bits, or raw sensor data, is not supported")
    # monob, rgb565 and similar formats have fewer than eight bits; swscale widens them without loss.
    suffix = "" if depth <= 8 else f"{depth}le"
    if layout.is_rgb or layout.has_palette:
        return f"gbrp{suffix}"
    if len(layout.components) - layout_has_alpha(layout) == 1:
        return f"gray{suffix}"
    # Chroma at a quarter of the width (DV, old Indeo) is interpolated, the exception to "without loss".
    names = {(1, 1): "444", (1, 2): "422", (2, 2): "420", (2, 1): "440", (1, 4): "422", (4, 4): "420"}
    return f"yuv{names[subsampling(layout)]}p{suffix}"


def subsampling(layout: VideoFormat) -> tuple[int, int]:
    """Rows and columns of luma for one sample of chroma; (1, 1) for RGB and grey."""
    if layout.is_rgb or len(layout.components) < 3:
        return 1, 1
    return 16 // layout.chroma_height(16), 16 // layout.chroma_width(16)


def layout_has_alpha(layout: VideoFormat) -> bool:
    """Whether a pixel format has an alpha component."""
    return layout.has_palette or any(component.is_alpha for component in layout.components)


def planes_of(frame: VideoFrame, planar: str) -> Planes:
    """Views of a frame's planes, in the order Y, U, V or R, G, B."""
    layout = VideoFormat(planar, frame.width, frame.height)
    views = [_view(frame, index) for index in range(len(layout.components))]
    # FFmpeg stores planes of RGB as G, B, R.
    return (views[2], views[0], views[1]) if layout.is_rgb else tuple(views)


def new_frame(planes: Planes, planar: str) -> VideoFrame:
    """A frame to encode, holding copies of planes: Y, U, V or R, G, B or Y."""
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
    """A frame with interleaved components, as PNG needs them: ``rgb24``, ``rgb48be`` or ``gray16be``."""
    height, width = planes[0].shape
    frame = VideoFrame(width, height, pix_fmt)
    plane = frame.planes[0]
    pixels = np.stack(planes, axis=-1)
    row = pixels.astype(pixels.dtype.newbyteorder(">"), copy=False).reshape(height, -1).view(np.uint8)
    lines = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(height, plane.line_size)
    lines[:, : row.shape[1]] = row
    return frame


def _view(frame: VideoFrame, index: int) -> NDArray[Any]:
    """A plane as an array of (height, width), without the padding at the end of lines."""
    plane = frame.planes[index]
    dtype = np.dtype("<u2") if frame.format.components[index].bits > 8 else np.dtype("u1")
    stride = plane.line_size
    lines = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(plane.height, abs(stride))
    view: NDArray[Any] = lines.view(dtype)[:, : plane.width]
    # A negative stride means that the last line comes first in memory.
    return view[::-1] if stride < 0 else view
