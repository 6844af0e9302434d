"""Encode frames with a lossy codec and decode them again, in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from repsr_cli.video.frames import read_planes
from repsr_cli.video.planes import Planes, new_frame
from repsr_cli.video.scheduling import usual_scheduling


def through_codec(shot: Sequence[Planes], planar: str, codec: str, options: Mapping[str, str]) -> list[Planes]:
    """Encode a shot and decode it again.

    Args:
        shot: frames of equal size, planes as ``planar`` has them.
        planar: ``yuv420p`` and the like.

    Returns:
        As many frames, copies.
    """
    return sized_through_codec(shot, planar, codec, options)[0]


def sized_through_codec(
    shot: Sequence[Planes], planar: str, codec: str, options: Mapping[str, str]
) -> tuple[list[Planes], int]:
    """As ``through_codec``, with the number of bytes that the frames were encoded to."""
    encoder = av.CodecContext.create(codec, "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.height, encoder.width = shot[0][0].shape
    encoder.pix_fmt = planar
    encoder.time_base = Fraction(1, 25)
    encoder.framerate = Fraction(25)
    encoder.thread_count = 1
    encoder.options = dict(options)
    with usual_scheduling():
        encoder.open()
    packets = []
    for number, planes in enumerate(shot):
        frame = new_frame(planes, planar)
        frame.pts, frame.time_base = number, Fraction(1, 25)
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    # FFmpeg's own decoder of AV1 needs a GPU.
    name = encoder.codec.canonical_name
    decoder = av.CodecContext.create("libdav1d" if name == "av1" else name, "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.thread_count = 1
    reformatter, decoded = VideoReformatter(), []
    for packet in [*packets, None]:
        for frame in decoder.decode(packet):
            decoded.append(tuple(np.array(plane) for plane in read_planes(frame, planar, reformatter)[0]))
    assert len(decoded) == len(shot)
    return decoded, sum(packet.size for packet in packets)
