"""Read decoded frames as planes, and carry their side data to new frames."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from av.filter import Graph
from av.sidedata.sidedata import SideDataContainer, Type
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from repsr_cli.video.planes import Planes, planes_of
from repsr_cli.yuv.device_planes import DevicePlanes

# What encoders read from the frames they are given.
CARRIED = frozenset({"A53_CC", "S12M_TIMECODE"})
# Stands for all side data of kinds that PyAV has no name for: EXIF, the view of a stereo video, and so on.
UNNAMED = "UNNAMED"

# What PyAV gives no way to write.
_UNKEPT = {
    "DYNAMIC_HDR_PLUS": "HDR10+ metadata",
    "DOVI_RPU_BUFFER": "Dolby Vision metadata",
    "AMBIENT_VIEWING_ENVIRONMENT": "the ambient viewing environment",
    "ICC_PROFILE": "an ICC profile",
    "SPHERICAL": "the spherical mapping",
    "STEREO3D": "the stereo layout",
    "AFD": "the active format description",
    UNNAMED: "data of a kind that PyAV cannot name (EXIF, the second view of stereo video)",
}


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One frame of a video, in planes.

    Attributes:
        planes: Y, U, V or R, G, B or Y alone; (height, width) each, uint8 at 8 bits, uint16 above. Read only. Planes on
            a GPU where the decoder was asked to leave frames there.
        pts: presentation time in units of ``time_base``.
        duration: in the same units; 0 if unknown.
        origin: the decoded frame that owns the memory of the planes and has the side data.
        repeats: whether it is the frame before once more, in place of one that is missing or damaged.
    """

    planes: Planes | DevicePlanes
    pts: int
    duration: int
    time_base: Fraction
    origin: VideoFrame | None = field(default=None, repr=False)
    repeats: bool = False


def nbytes(planes: Planes | DevicePlanes) -> int:
    """Bytes in planes, wherever they are."""
    return planes.nbytes if isinstance(planes, DevicePlanes) else sum(plane.nbytes for plane in planes)


def read_planes(frame: VideoFrame, planar: str, reformatter: VideoReformatter) -> tuple[Planes, VideoFrame]:
    """The planes of a frame, and the frame that owns their memory.

    Args:
        planar: the planar format to read as, from ``planar_name``.
        reformatter: one for all frames, because PyAV before 19 leaks megabytes with each.
    """
    if not holds(frame.format.name, planar):
        # In one thread: see cuda_planes.downloaded.
        frame = reformatter.reformat(frame, format=planar, threads=1)
    return planes_of(frame, planar), frame


def holds(pix_fmt: str, planar: str) -> bool:
    """Whether the first planes of a pixel format are those of a planar format, as in yuva420p those of yuv420p are."""
    name = pix_fmt.replace("yuvj", "yuv")
    return planar in (name, name.replace("yuva", "yuv").replace("gbrap", "gbrp"))


def side_data(frame: VideoFrame) -> dict[str, bytes]:
    """The side data of a frame, by FFmpeg's names; ``UNNAMED`` if there is some that PyAV has no name for."""
    # Not frame.side_data: that stores a container which refers to the frame, a cycle that holds every frame's memory
    # until the garbage collector runs.
    container: Any = SideDataContainer
    try:
        return {item.type.name: bytes(item) for item in container(frame)}
    except ValueError:  # the container of PyAV 18 has no names for the kinds of FFmpeg 8, and fails as a whole
        known = _without_unnamed(frame)
    return {UNNAMED: b""} | ({} if known is None else {item.type.name: bytes(item) for item in container(known)})


def unkept(kinds: Collection[str]) -> str:
    """Which kinds of side data, by FFmpeg's names, cannot be carried over, in words; an empty string if none."""
    return ", ".join(words for name, words in _UNKEPT.items() if name in kinds)


def _without_unnamed(frame: VideoFrame) -> VideoFrame | None:
    """The frame without side data that PyAV has no name for; None for a frame on a GPU, which no filter takes."""
    if frame.sw_format is not None:
        return None
    kinds: Any = Type
    first = int(max(kind.value for kind in kinds)) + 1
    # Beyond what FFmpeg 8 has, for versions to come.
    filters = [("sidedata", f"mode=delete:type={kind}") for kind in range(first, first + 16)]
    graph = filter_graph(frame.format.name, (frame.height, frame.width), frame.time_base or Fraction(1, 25), *filters)
    graph.vpush(frame)
    return graph.vpull()


def filter_graph(pix_fmt: str, size: tuple[int, int], time_base: Fraction, *filters: tuple[str, str | None]) -> Graph:
    """A chain of filters of libavfilter, ready for frames.

    Args:
        size: (height, width) of the frames.
        filters: (name, settings), in order.
    """
    graph = Graph()
    source = graph.add_buffer(width=size[1], height=size[0], format=VideoFormat(pix_fmt), time_base=time_base)
    chain = [graph.add(name, settings) for name, settings in filters]
    graph.link_nodes(source, *chain, graph.add("buffersink")).configure()
    return graph


def carry(
    origin: VideoFrame | None, reformatter: VideoReformatter, width: int, height: int, pix_fmt: str
) -> VideoFrame:
    """A frame of a new size with the side data of another: closed captions, timecodes, dynamic metadata.

    PyAV cannot write side data, but its reformatter copies it. The pixels are to be overwritten.
    """
    if origin is None or not CARRIED & side_data(origin).keys():
        return VideoFrame(width, height, pix_fmt)
    return reformatter.reformat(origin, width=width, height=height, format=pix_fmt, interpolation=Interpolation.POINT)
