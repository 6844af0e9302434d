"""Judge from a video's codec and its bits per pixel whether compression has degraded it."""

from __future__ import annotations

import re
from contextlib import suppress

import av
from av.codec.codec import Properties

from repsr_cli.upscale.judged import BITS_PER_PIXEL, OTHER_VIDEOS, Judged, by_bits, lossless
from repsr_cli.video.probe import VideoSource
from repsr_cli.video.timeline import Timeline

# Codecs of editors, which lose next to nothing.
MEZZANINE = frozenset({"prores", "dnxhd", "cfhd", "vc3", "hqx"})
# What x264 and x265 write into their first packet, of a lossless stream.
_LOSSLESS = re.compile(rb"x26[45] .*(?<![a-z-])(?:qp=0(?![\d.])|lossless(?=[ :]|=1))", re.DOTALL)


def judge_video(video: VideoSource, timeline: Timeline | None) -> Judged:
    """The kind of model that a video needs, from its header and the sizes of its packets.

    Args:
        timeline: its packets; None of a pipe, which carries y4m.
    """
    codec = av.Codec(video.codec, "r")
    may_lose, may_keep = (bool(codec.properties & each.value) for each in (Properties.LOSSY, Properties.LOSSLESS))
    if may_keep and not may_lose:
        return lossless("y4m" if timeline is None else video.codec)
    if video.codec in MEZZANINE:
        return Judged("clean", f"{video.codec}, which loses next to nothing")
    if may_keep and _says_lossless(video):
        return lossless(video.codec)
    if timeline is None:
        return Judged("real", f"{video.codec} from a pipe")
    pixels = len(timeline.pts) * video.height * video.width
    threshold = BITS_PER_PIXEL.get(video.codec, OTHER_VIDEOS)
    return by_bits(video.codec, timeline.nbytes.get(video.index, 0), pixels, threshold)


def _says_lossless(video: VideoSource) -> bool:
    """Whether the encoder noted in the first packet that it lost nothing."""
    with video.open() as container, suppress(av.FFmpegError, StopIteration):
        stream = container.streams[video.index]
        first = next(packet for packet in container.demux(stream) if packet.size)
        head = bytes(stream.codec_context.extradata or b"")[:4096] + bytes(first)[:4096]
        return _LOSSLESS.search(head) is not None
    return False
