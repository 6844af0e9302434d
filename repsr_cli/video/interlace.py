"""Detect whether frames that are flagged as interlaced really are.

Broadcasts flag progressive video as interlaced too. Only the images show whether their fields were taken at different
times.
"""

from __future__ import annotations

from itertools import islice

from av.filter import Graph
from av.video.format import VideoFormat

from repsr_cli.video.open import main_stream, translated
from repsr_cli.video.probe import VideoSource

# Frames to examine: enough to contain motion, few enough to take no noticeable time.
_FRAMES = 100


def combed_share(source: VideoSource) -> float:
    """The share of a video's frames whose fields were taken at different times.

    Uses libavfilter's ``idet`` on the first frames. Frames without motion are not counted.
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
    with translated(source.path), source.open() as container:
        frames = container.decode(main_stream(container, source.path))
        for frame in islice(frames, _FRAMES):
            graph.vpush(frame)
            try:
                judged = graph.vpull().metadata.get("lavfi.idet.multiple.current_frame", "undetermined")
            except BlockingIOError:
                continue
            if judged in counts:
                counts[judged] += 1
    judged_frames = sum(counts.values())
    return (counts["tff"] + counts["bff"]) / judged_frames if judged_frames else 0.0
