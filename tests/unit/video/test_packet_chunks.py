"""Stretches that travel as packets decode to what the file decodes to."""

from __future__ import annotations

import pickle
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from repsr_cli.errors import MediaError
from repsr_cli.video.decode import Decoder
from repsr_cli.video.frames import Frame
from repsr_cli.video.packet_chunks import _packet, chunks, images
from repsr_cli.video.probe import probe
from repsr_cli.video.timeline import cut, scan
from repsr_cli.yuv.device_planes import on_host
from tests.sample_videos import make_video

Seen = list[tuple[int, int, bytes]]


def seen(frame: Frame) -> tuple[int, int, bytes]:
    return frame.pts, frame.duration, b"".join(plane.tobytes() for plane in on_host(frame.planes))


def both_ways(
    path: Path, frames: int, together: int = 1, limit: int = 10**9, whole: bool = False
) -> tuple[Seen, Seen, int]:
    """All frames by the file, and by chunks of some segments each; and how many chunks there were."""
    source = probe(path)
    timeline = scan(source)
    segments = [segment for segment in cut(timeline, source.start, None, frames) if segment.index < limit]
    groups = [tuple(segments[at : at + together]) for at in range(0, len(segments), together)]
    expected = [seen(frame) for frame in Decoder(source, timeline, "keep").frames(None, segments[-1].end)]
    found: Seen = []
    for chunk in chunks(source, timeline, groups, whole):
        travelled = pickle.loads(pickle.dumps(chunk))
        first = None if chunk.segments[0].index == 0 else chunk.segments[0].first
        decoder = Decoder(source, timeline, "keep")
        some = decoder.frames_of(images(travelled), first, chunk.segments[-1].end, chunk.whole)
        assert some is not None
        found += [seen(frame) for frame in some]
    return expected, found, len(groups)


@pytest.mark.parametrize("together", [1, 3])
@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        (".mp4", "libx264", {"bf": "3", "x264-params": "open-gop=1"}),
        (".mkv", "libx264", {"bf": "2"}),
        (".ts", "mpeg2video", {}),
        (".webm", "libvpx-vp9", {}),
        (".avi", "mpeg4", {}),
    ],
)
def test_chunks_decode_to_the_same_frames(
    tmp_path: Path, suffix: str, codec: str, options: dict[str, str], together: int
) -> None:
    base = Fraction(1, 25)
    path = make_video(tmp_path / f"video{suffix}", range(48), base, codec=codec, options=options, gop=6, audio=0)
    expected, found, count = both_ways(path, 7, together)
    assert count > 1
    assert found == expected
    assert len(found) == 48


def test_a_video_with_one_keyframe_travels_from_its_beginning(tmp_path: Path) -> None:
    path = make_video(tmp_path / "clip.mp4", range(40), gop=100, audio=0)
    expected, found, count = both_ways(path, 5)
    assert count == 4
    assert found == expected


def test_chunks_hold_little_more_than_their_frames(tmp_path: Path) -> None:
    source = probe(make_video(tmp_path / "clip.mp4", range(96), gop=6, audio=0, options={"x264-params": "open-gop=0"}))
    timeline = scan(source)
    groups = [(segment,) for segment in cut(timeline, source.start, None, 12)]
    assert len(groups) == 8
    for chunk in chunks(source, timeline, groups):
        assert len(chunk.packets) <= 12 + 6 + 3  # the frames, the group of images before them, reordering
        assert (chunk.head is None) == (chunk.segments[0].index <= 0)
    only = list(chunks(source, timeline, groups[5:6]))
    assert [chunk.segments[0].index for chunk in only] == [5]


def test_damage_that_makes_the_way_unclean_is_noticed(tmp_path: Path) -> None:
    path = make_video(tmp_path / "clip.mp4", range(48), gop=6, audio=0)
    source = probe(path)
    timeline = scan(source)
    segments = cut(timeline, source.start, None, 12)
    (chunk,) = chunks(source, timeline, [(segments[2],)])
    torn = [packet.data for packet in chunk.packets]
    torn[1] = bytes(len(torn[1]))
    damaged = replace(
        chunk, packets=tuple(replace(packet, data=data) for packet, data in zip(chunk.packets, torn, strict=True))
    )
    assert Decoder(source, timeline).frames_of(images(damaged), segments[2].first, segments[2].end, False) is None


def test_chunks_may_all_begin_with_the_video(tmp_path: Path) -> None:
    expected, found, count = both_ways(make_video(tmp_path / "clip.mp4", range(48), gop=6, audio=0), 7, whole=True)
    assert count > 1
    assert found == expected


class _Recoloured:
    pts = 50

    def has_sidedata(self, kind: str) -> bool:
        return kind == "palette"


def test_a_palette_that_changes_cannot_travel(tmp_path: Path) -> None:
    source = probe(make_video(tmp_path / "clip.mp4", range(2), audio=0))
    with pytest.raises(MediaError, match=r"change at 0\.004 s"):
        _packet(_Recoloured(), source)  # type: ignore[arg-type]


def test_real_videos_travel(real_data: Path) -> None:
    names = ["rabbit_320x240_vp8_vorbis.webm", "trailer_960x400_mpeg4_mp3.avi", "man_640x428_bt601_aac.mov"]
    for name in names:
        expected, found, _ = both_ways(real_data / "clips" / name, 20, limit=4)
        assert found == expected, name
