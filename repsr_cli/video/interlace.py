"""Telling what is really interlaced from what is only flagged so.

Broadcasts flag video as interlaced as well. Whether two fields show two moments is seen in the image alone.
"""

from __future__ import annotations

from itertools import islice

from av.filter import Graph
from av.video.format import VideoFormat

from repsr_cli.video.open import main_stream, open_video, translated
from repsr_cli.video.probe import VideoSource

# Frames looked at; enough for a pan or a walk in any video, few enough not to be noticed.
_FRAMES = 100


def combed_share(source: VideoSource) -> float:
    """The share of a video's frames, among those that can be told, whose fields show different moments.

    By libavfilter's ``idet`` on the first frames. Still images cannot be told either way and count as neither.
    """
    graph = Graph()
    buffer = graph.add_buffer(
        width=source.width, height=source.height, format=VideoFormat(source.pix_fmt), time_base=source.time_base
    )
    idet, sink = graph.add("idet"), graph.add("buffersink")
    buffer.link_to(idet)
    idet.link_to(sink)
    graph.configure()
    counts = {"tff": 0, "bff": 0, "progressive": 0}
    with translated(source.path), open_video(source.path) as container:
        frames = container.decode(main_stream(container, source.path))
        for frame in islice(frames, _FRAMES):
            graph.vpush(frame)
            try:
                judged = graph.vpull().metadata.get("lavfi.idet.multiple.current_frame", "undetermined")
            except BlockingIOError:
                continue
            if judged in counts:
                counts[judged] += 1
    told = sum(counts.values())
    return (counts["tff"] + counts["bff"]) / told if told else 0.0
