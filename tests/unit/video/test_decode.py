"""Decoding, from the start and from the middle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from repsr_cli.errors import MediaError
from repsr_cli.video.decode import Decoder
from repsr_cli.video.probe import probe
from repsr_cli.video.timeline import cut, scan
from repsr_cli.yuv.device_planes import on_host
from tests.sample_videos import make_video


def test_decoding_from_the_middle_gives_what_decoding_from_the_start_gives(tmp_path: Path) -> None:
    options = {"bf": "3", "x264-params": "open-gop=1"}
    source = probe(make_video(tmp_path / "a.mkv", range(60), options=options, gop=10))
    timeline = scan(source)
    assert len(timeline.pts) == 60
    assert len(timeline.keys) >= 6
    whole = {f.pts: [p.copy() for p in on_host(f.planes)] for f in Decoder(source, timeline).frames()}
    for segment in cut(timeline, source.start, None, 7):
        part = list(Decoder(source, timeline).frames(segment.first, segment.end))
        assert len(part) == segment.frames
        assert part[0].pts == segment.first
        for frame in part:
            assert all(np.array_equal(a, b) for a, b in zip(on_host(frame.planes), whole[frame.pts], strict=True))


@pytest.mark.parametrize(
    "name",
    [
        "cockatoo_720p_yuv444p_mp3.mp4",  # by a version of x264 that decoders must know in order to decode
        "dvb_576i_mpeg2_interlaced_tff_dvbsub.ts",
        "trailer_960x400_mpeg4_mp3.avi",
        "vp6_112x80.flv",
        "roadtrip_vp9_10bit_426x240.webm",
    ],
)
def test_real_videos_decode_from_the_middle(name: str, real_data: Path) -> None:
    source = probe(real_data / "clips" / name)
    timeline = scan(source)
    starts = [timeline.pts[len(timeline.pts) * n // 8] for n in (3, 6, 7)]
    wanted = {pts: (pts, *timeline.between(pts, timeline.pts[-1]))[:3] for pts in starts}
    ends = {pts: timeline.after(times[-1]) for pts, times in wanted.items()}
    known = {pts for times in wanted.values() for pts in times}
    whole = {f.pts: [p.copy() for p in on_host(f.planes)] for f in Decoder(source, timeline).frames() if f.pts in known}
    for first, times in wanted.items():
        part = list(Decoder(source, timeline).frames(first, ends[first]))
        assert tuple(frame.pts for frame in part) == times
        for frame in part:
            assert all(np.array_equal(a, b) for a, b in zip(on_host(frame.planes), whole[frame.pts], strict=True))


def test_a_change_of_size_in_the_middle_is_said(tmp_path: Path) -> None:
    small, large = (
        make_video(tmp_path / f"{n}.ts", range(3), codec="mpeg2video", size=(n, 64), audio=0) for n in (32, 48)
    )
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    with pytest.raises(MediaError, match=r"changes from 64x32 .* to 64x48"):
        list(Decoder(probe(both), None).frames())
