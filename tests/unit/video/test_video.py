"""Probing, timelines, frames, colour tags, stages and segment files, each on its own."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from hypothesis import given, settings
from hypothesis import strategies as st

from repsr_cli.errors import DeviceError, MediaError, UsageError
from repsr_cli.video import frames as video_frames
from repsr_cli.video import lock as video_lock
from repsr_cli.video import probe as video
from repsr_cli.video.colour_tags import ColourTags, HdrMetadata, override_tags, plane_format, resolve_tags
from repsr_cli.video.decode import Decoder
from repsr_cli.video.encode import (
    EncodedPacket,
    Encoding,
    SegmentEncoder,
    choose_pix_fmt,
    encoder_options,
    open_encoder,
)
from repsr_cli.video.frames import PlaneReader, new_frame, planar_name, planes_of, side_data
from repsr_cli.video.lock import FolderLock
from repsr_cli.video.probe import is_video, open_video, probe
from repsr_cli.video.segments import SegmentWriter, Store, fingerprint, job_folder
from repsr_cli.video.stages import ByteQueue, run_stages
from repsr_cli.video.timeline import Timeline, cut, out_of_step, scan, shortened
from repsr_cli.video.y4m import is_steady
from tests.sample_videos import image, make_video

# Files


def test_probe_says_what_is_there(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a b ü [x].mkv", size=(38, 50), sar=Fraction(8, 9), subtitles=["subrip"])
    source = probe(path)
    assert (source.height, source.width, source.codec, source.pix_fmt) == (38, 50, "h264", "yuv420p")
    assert (source.time_base, source.rate, source.sar) == (Fraction(1, 1000), 25, Fraction(8, 9))
    assert [str(stream) for stream in source.streams][1:] == ["#1 audio aac", "#2 subtitle subrip (eng)"]
    assert source.tags == ColourTags(1, 1, 1, 1, "left")
    assert not source.alpha
    assert not source.flagged_interlaced


def test_a_name_with_a_colon_is_a_file_and_not_an_address(tmp_path: Path) -> None:
    path = make_video(tmp_path / "http:x.mp4", range(2), audio=0)
    assert probe(path).height == 36


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "libx264"), (".webm", "libvpx-vp9")])
def test_frames_beyond_the_limit_are_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, codec: str
) -> None:
    path = make_video(tmp_path / f"large{suffix}", range(2), codec=codec, audio=0)
    monkeypatch.setattr(video, "MAX_PIXELS", 36 * 64)
    assert probe(path).height == 36
    monkeypatch.setattr(video, "MAX_PIXELS", 36 * 64 - 1)
    with pytest.raises(MediaError, match="of more than 0 million pixels, or damaged"):
        probe(path)


def test_videos_are_told_by_content(tmp_path: Path) -> None:
    video = make_video(tmp_path / "clip.mp4", range(2), audio=0)
    hidden = tmp_path / "video.txt"
    hidden.write_bytes(video.read_bytes())
    text = tmp_path / "text.mp4"
    text.write_text("hello " * 500)
    playlist = tmp_path / "list.m3u8"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{video}\n#EXT-X-ENDLIST\n")
    assert [is_video(path) for path in (video, hidden, text, playlist)] == [True, True, False, False]
    with pytest.raises(MediaError, match="No such file"):
        is_video(tmp_path / "missing.mp4")


def test_a_file_shorter_than_it_says_is_noticed(tmp_path: Path) -> None:
    for suffix in (".mp4", ".mkv", ".avi"):
        codec = "mpeg4" if suffix == ".avi" else "libx264"
        whole = make_video(tmp_path / f"whole{suffix}", range(12), codec=codec, audio=0)
        assert shortened(whole) is None
        (tmp_path / f"cut{suffix}").write_bytes(whole.read_bytes()[:-9])
        assert shortened(tmp_path / f"cut{suffix}") is not None, suffix


def test_a_transport_stream_that_leaves_its_raster_is_noticed(tmp_path: Path) -> None:
    whole = make_video(tmp_path / "whole.ts", range(8), codec="mpeg2video", size=(64, 48), audio=0)
    data = whole.read_bytes()
    assert scan(probe(whole)).damage is None
    torn = tmp_path / "torn.ts"
    torn.write_bytes(data[:-100])
    assert "ends within a packet" in str(scan(probe(torn)).damage)
    torn.write_bytes(data[: 5 * 188] + bytes(60) + data[5 * 188 + 60 :])
    assert "at byte 940" in str(out_of_step(torn))
    first = data.index(b"\0\0\1\xe0")
    torn.write_bytes(data[:first] + b"\0\0\5" + data[first + 3 :])
    assert "does not begin an image" in str(out_of_step(torn))
    lost = [at for at in range(0, len(data), 188) if data[at + 1 : at + 3] == b"\x41\0"][1]
    torn.write_bytes(data[: lost + 2] + b"\x77" + data[lost + 3 :])  # a packet given to another stream
    assert "Packet corrupt" in str(scan(probe(torn)).damage)
    # Blu-ray's packets, a recording that was cut off between two packets, one that begins within a packet.
    rows = [data[at : at + 188] for at in range(0, len(data), 188)]
    for name, content in (
        ("a.m2ts", b"".join(bytes(4) + row for row in rows)),
        ("ended.ts", b"".join(rows[:9])),
        ("begun.ts", data[50:]),
    ):
        (tmp_path / name).write_bytes(content)
        assert out_of_step(tmp_path / name) is None, name


def test_frames_that_an_avi_promises_are_counted(tmp_path: Path) -> None:
    # The muxer of AVI keeps the places of times without a frame by empty chunks: nothing is lost there.
    gaps = make_video(tmp_path / "gaps.avi", (0, 1, 2, 5, 6, 9), codec="mpeg4", audio=0)
    assert scan(probe(gaps)).damage is None
    whole = make_video(tmp_path / "whole.avi", range(24), codec="mpeg4", audio=0)
    assert scan(probe(whole)).damage is None
    data = bytearray(whole.read_bytes())
    index = data.index(b"idx1") + 8
    data[index + 8 : index + 12] = data[index + 24 : index + 28]  # the first frame said to lie where the second does
    torn = tmp_path / "torn.avi"
    torn.write_bytes(data)
    assert scan(probe(torn)).damage == "23 of 24 frames are there"
    data = whole.read_bytes()
    last = data.rindex(b"00dc", 0, data.index(b"idx1"))
    torn.write_bytes(data[:last] + bytes(len(data) - last))  # the last frame and the index
    assert scan(probe(torn)).damage == "23 of 24 frames are there"


# Colour


@pytest.mark.parametrize(
    ("size", "rate", "found", "matrix"),
    [
        ((480, 640), Fraction(30), ColourTags(), 6),
        ((576, 720), Fraction(25), ColourTags(), 5),
        ((720, 960), Fraction(25), ColourTags(), 1),
        ((534, 1280), Fraction(24), ColourTags(), 1),
        ((240, 426), Fraction(24), ColourTags(primaries=9), 9),
        ((240, 426), Fraction(24), ColourTags(transfer=16), 9),
        ((2160, 3840), Fraction(24), ColourTags(matrix=6), 6),
        ((480, 640), None, ColourTags(matrix=1), 1),
    ],
)
def test_missing_tags_follow_the_size_of_the_source(
    size: tuple[int, int], rate: Fraction | None, found: ColourTags, matrix: int
) -> None:
    tags, notes = resolve_tags(found, "yuv420p", *size, rate)
    assert tags.matrix == matrix
    assert tags.range == 1
    assert 2 not in (tags.matrix, tags.primaries, tags.transfer)
    assert bool([note for note in notes if "matrix" in note]) == (found.matrix == 2)
    again, more = resolve_tags(tags, "yuv420p", 9000, 9000, rate)
    assert (again, more) == (tags, ())


def test_jpeg_formats_are_full_range_and_centred() -> None:
    tags, _ = resolve_tags(ColourTags(), "yuvj420p", 100, 100, None)
    assert (tags.range, tags.siting) == (2, "center")


def test_plane_formats() -> None:
    tags = ColourTags(9, 1, 9, 16, "topleft")
    fmt = plane_format("yuv422p10le", tags)
    assert (fmt.matrix, fmt.full_range, fmt.depth, fmt.subsample, fmt.siting) == (
        "bt2020",
        False,
        10,
        (1, 2),
        "topleft",
    )
    assert plane_format("gray", tags).matrix == "grey"
    assert plane_format("gbrp12le", tags).depth == 12
    with pytest.raises(MediaError, match="colour matrix 8"):
        plane_format("yuv444p", ColourTags(8, 1, 1, 1, "left"))
    with pytest.raises(UsageError, match="not a known matrix"):
        override_tags(tags, "bt9000", None)


def test_hdr_metadata_in_the_words_of_encoders() -> None:
    points = tuple((Fraction(n, 10), Fraction(n, 20)) for n in range(1, 5))
    hdr = HdrMetadata(points, (Fraction(1, 100), Fraction(1000)), (900, 300))
    assert hdr.x26x() == "G(10000,5000)B(15000,7500)R(5000,2500)WP(20000,10000)L(10000000,100)"
    assert hdr.svtav1() == (
        "G(0.20000,0.10000)B(0.30000,0.15000)R(0.10000,0.05000)WP(0.40000,0.20000)L(1000.0000,0.0100)"
    )


# Frames


@pytest.mark.parametrize(
    ("name", "planar"),
    [
        ("nv12", "yuv420p"),
        ("p010le", "yuv420p10le"),
        ("yuyv422", "yuv422p"),
        ("rgb24", "gbrp"),
        ("bgra", "gbrp"),
        ("gray16be", "gray16le"),
        ("yuva444p10le", "yuv444p10le"),
        ("yuvj422p", "yuv422p"),
        ("pal8", "gbrp"),
        ("yuv411p", "yuv422p"),
    ],
)
def test_planar_names(name: str, planar: str) -> None:
    assert planar_name(name) == planar


@pytest.mark.parametrize("name", ["gbrpf32le", "bayer_rggb8"])
def test_formats_that_do_not_fit_are_refused(name: str) -> None:
    with pytest.raises(MediaError):
        planar_name(name)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p10le", "yuv444p", "gbrp", "gbrp10le", "gray", "gray10le"])
@given(height=st.integers(1, 20), width=st.integers(1, 70))
@settings(max_examples=15, deadline=None)
def test_planes_go_into_frames_and_come_back(pix_fmt: str, height: int, width: int) -> None:
    planes = image(1, height, width, pix_fmt)
    back = planes_of(new_frame(planes, pix_fmt), pix_fmt)
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(planes, back, strict=True))


@pytest.mark.parametrize("packed", ["nv12", "yuyv422", "rgb24"])
def test_packed_frames_are_read_without_loss(packed: str) -> None:
    planar = planar_name(packed)
    planes = image(0, 16, 32, planar)
    frame = VideoReformatter().reformat(new_frame(planes, planar), format=packed)
    read, _ = PlaneReader(planar).read(frame)
    assert all(np.array_equal(a, b) for a, b in zip(planes, read, strict=True))


def test_side_data_is_carried_to_a_larger_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_frames, "CARRIED", frozenset({"SEI_UNREGISTERED"}))
    with open_video(make_video(tmp_path / "a.mp4", range(2), audio=0)) as container:
        frame = next(iter(container.decode(video=0)))
        larger = video_frames.carry(frame, VideoReformatter(), 256, 144, "yuv420p")
        assert (larger.width, larger.height, larger.format.name) == (256, 144, "yuv420p")
        assert side_data(larger)["SEI_UNREGISTERED"] == side_data(frame)["SEI_UNREGISTERED"]
        assert not side_data(video_frames.carry(None, VideoReformatter(), 256, 144, "yuv420p"))


# Timelines and decoding


@given(
    gaps=st.lists(st.integers(1, 9), min_size=1, max_size=300),
    every=st.integers(1, 60),
    frames=st.integers(1, 50),
    start=st.integers(0, 400),
    end=st.none() | st.integers(0, 1500),
)
@settings(max_examples=100, deadline=None)
def test_segments_cover_a_stretch_once(gaps: list[int], every: int, frames: int, start: int, end: int | None) -> None:
    pts = tuple(int(t) for t in np.cumsum(gaps))
    timeline = Timeline(pts, pts[::every], {}, {}, Fraction(0), None)
    segments = cut(timeline, start, end, frames)
    wanted = [t for t in pts if t >= start and (end is None or t < end)]
    held = [[t for t in pts if t >= s.first and (s.end is None or t < s.end)] for s in segments]
    assert [t for part in held for t in part] == wanted
    assert [len(part) for part in held] == [s.frames for s in segments]
    assert [s.index for s in segments] == list(range(len(segments)))
    assert all(s.frames <= 2 * frames + frames // 4 for s in segments)


def test_decoding_from_the_middle_gives_what_decoding_from_the_start_gives(tmp_path: Path) -> None:
    options = {"bf": "3", "x264-params": "open-gop=1"}
    source = probe(make_video(tmp_path / "a.mkv", range(60), options=options, gop=10))
    timeline = scan(source)
    assert len(timeline.pts) == 60
    assert len(timeline.keys) >= 6
    whole = {f.pts: [p.copy() for p in f.planes] for f in Decoder(source, timeline).frames()}
    for segment in cut(timeline, source.start, None, 7):
        part = list(Decoder(source, timeline).frames(segment.first, segment.end))
        assert len(part) == segment.frames
        assert part[0].pts == segment.first
        for frame in part:
            assert all(np.array_equal(a, b) for a, b in zip(frame.planes, whole[frame.pts], strict=True))


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
    whole = {f.pts: [p.copy() for p in f.planes] for f in Decoder(source, timeline).frames() if f.pts in known}
    for first, times in wanted.items():
        part = list(Decoder(source, timeline).frames(first, ends[first]))
        assert tuple(frame.pts for frame in part) == times
        for frame in part:
            assert all(np.array_equal(a, b) for a, b in zip(frame.planes, whole[frame.pts], strict=True))


def test_a_change_of_size_in_the_middle_is_said(tmp_path: Path) -> None:
    small, large = (
        make_video(tmp_path / f"{n}.ts", range(3), codec="mpeg2video", size=(n, 64), audio=0) for n in (32, 48)
    )
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    with pytest.raises(MediaError, match=r"changes from 64x32 .* to 64x48"):
        list(Decoder(probe(both), None).frames())


def test_steady_times() -> None:
    assert is_steady([0, 33, 67, 100, 133, 167, 200], Fraction(1, 1000), Fraction(30))
    assert not is_steady([0, 33, 67, 120, 133, 167, 200], Fraction(1, 1000), Fraction(30))


# Encoders


def encoding(**changes: object) -> Encoding:
    base = {
        "codec": "libx264",
        "pix_fmt": "yuv420p",
        "height": 36,
        "width": 64,
        "time_base": Fraction(1, 1000),
        "rate": Fraction(25),
        "sar": None,
        "tags": ColourTags(1, 1, 1, 1, "left"),
        "options": (("crf", "20"), ("preset", "ultrafast")),
    }
    return Encoding(**{**base, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("codec", "expected"),
    [
        ("libx264", ("crf", "17")),
        ("libx265", ("crf", "20")),
        ("libsvtav1", ("crf", "26")),
        ("libvpx-vp9", ("crf", "24")),
    ],
)
def test_one_quality_for_all(codec: str, expected: tuple[str, str]) -> None:
    assert expected in encoder_options(codec, None, None, {}, None)


def test_x264_is_told_to_compute_alike_everywhere_and_the_user_may_say_more() -> None:
    hdr = HdrMetadata(None, None, (900, 300))
    assert dict(encoder_options("libx264", None, None, {}, None))["x264-params"] == "cpu-independent=1"
    options = encoder_options("libx264", None, None, {"x264-params": "keyint=7:cpu-independent=0"}, hdr)
    assert dict(options)["x264-params"] == "cpu-independent=1:cll=900,300:keyint=7:cpu-independent=0"
    encoder = SegmentEncoder(encoding(options=options))
    given = [p for n in range(16) for p in encoder.encode(image(n, 36, 64, "yuv420p"), n * 40, 40)]
    assert [p.pts // 40 for p in [*given, *encoder.finish()] if p.key] == [0, 7, 14]


def test_options_of_the_user_win_and_unknown_ones_are_errors() -> None:
    options = dict(encoder_options("libx265", 20, None, {"x265-params": "aq-mode=1", "preset": "fast"}, None))
    assert options["x265-params"] == "log-level=error:aq-mode=1"
    assert options["preset"] == "fast"
    with pytest.raises(UsageError, match="-e nonsense: libx264 has no such option"):
        open_encoder(encoding(options=(("nonsense", "1"),)))


@pytest.mark.parametrize(
    ("codec", "wanted", "size", "chosen"),
    [
        ("libx264", "yuv420p", (36, 64), "yuv420p"),
        ("libx264", "yuv420p", (36, 63), "yuv444p"),
        ("libx264", "yuv420p10le", (35, 64), "yuv422p10le"),
        ("libx264", "yuv422p", (35, 64), "yuv422p"),
        ("libvpx-vp9", "yuv420p", (35, 63), "yuv420p"),
        ("libx264", "gbrp", (36, 64), "yuv444p"),
        ("libx265", "yuv420p12le", (36, 64), "yuv420p12le"),
        ("libsvtav1", "yuv444p", (36, 64), "yuv420p"),
        ("libsvtav1", "gray", (36, 64), "yuv420p"),
        ("ffv1", "gbrp", (36, 64), "gbrp"),
        ("prores_ks", "yuv420p", (36, 64), "yuv422p10le"),
        ("png", "gbrp", (35, 63), "gbrp"),
    ],
)
def test_the_nearest_pixel_format(codec: str, wanted: str, size: tuple[int, int], chosen: str) -> None:
    if codec == "ffv1":
        chosen = choose_pix_fmt(codec, wanted, *size)[0]
        assert chosen in ("gbrp", "gbrp9le", "gbrp10le")
        return
    found, why = choose_pix_fmt(codec, wanted, *size)
    assert found == chosen
    assert (why is None) == (chosen == wanted)


def test_an_encoder_that_loses_frames_is_not_believed() -> None:
    encoder = SegmentEncoder(encoding())
    encoder.encode(image(0, 36, 64, "yuv420p"), 0, 40)
    encoder.frames += 1
    with pytest.raises(MediaError, match="gave 1 packets for 2 frames"):
        encoder.finish()


@pytest.mark.parametrize("frames", [1, 2, 3, 7])
def test_x265_decodes_every_frame_before_it_shows_it(frames: int) -> None:
    options = (("x265-params", "log-level=error:frame-threads=2"),)
    for _ in range(4):  # what x265 makes of few frames depends on what lay in memory before
        encoder = SegmentEncoder(encoding(codec="libx265", options=options))
        given = [p for n in range(frames) for p in encoder.encode(image(n, 36, 64, "yuv420p"), 400 + n * 40, 40)]
        packets = [*given, *encoder.finish()]
        times = [p.dts for p in packets]
        assert times == sorted(set(times))
        assert all(400 - 17 * 40 <= p.dts <= p.pts for p in packets)


# Segment files


def packets() -> list[EncodedPacket]:
    return [EncodedPacket(n, n - 2, 1, n == 0, bytes([n]) * (n * 100)) for n in range(1, 6)]


def write(store: Store, index: int) -> None:
    writer = SegmentWriter(store, index, {"pts": 1})
    for packet in packets():
        writer.add(packet)
    writer.finish()


def test_segments_come_back_and_damaged_ones_are_thrown_away(tmp_path: Path) -> None:
    store = Store.begin(tmp_path / "out.mp4", {"a": 1}, resume=True)
    write(store, 0)
    write(store, 1)
    left = SegmentWriter(store, 2, {})
    left.add(packets()[0])
    left.abandon()
    full = SegmentWriter(store, 2, {})
    full._file.close()
    full._file = Path("/dev/full").open("wb")  # noqa: SIM115 - what is in its buffer cannot be written when it is closed
    full.add(packets()[0])
    full.abandon()
    assert store.finished() == {0: 5, 1: 5}
    assert list(store.packets(1)) == packets()
    for spoil in (
        lambda data: data[:-1],
        lambda data: data[:200] + b"x" + data[201:],
        lambda data: data[:-33] + data[-32:],
    ):
        path = store.path(1)
        path.write_bytes(spoil(path.read_bytes()))
        assert store.finished() == {0: 5}
        assert not path.exists()
        write(store, 1)
    assert store.close()
    again = Store.begin(tmp_path / "out.mp4", {"a": 1}, resume=True)
    assert again.finished() == {0: 5, 1: 5}
    again.close()
    with pytest.raises(UsageError, match=r"begun with another a \(was 1, is 2\)"):
        Store.begin(tmp_path / "out.mp4", {"a": 2}, resume=True)
    fresh = Store.begin(tmp_path / "out.mp4", {"a": 2}, resume=False)
    assert fresh.finished() == {}
    assert not fresh.close()
    assert not job_folder(tmp_path / "out.mp4").exists()


def test_a_job_that_finished_nothing_binds_nobody(tmp_path: Path) -> None:
    left = Store.begin(tmp_path / "out.mp4", {"a": 1}, resume=True)
    left.lock.release()  # as the death of a process does
    assert left.folder.exists()
    Store.begin(tmp_path / "out.mp4", {"a": 2}, resume=True).remove()
    assert not left.folder.exists()


def test_a_folder_has_one_holder_at_a_time(tmp_path: Path) -> None:
    folder, target = tmp_path / ".x.repsr", tmp_path / "x"
    first = FolderLock.take(folder, target)
    assert first.holds
    with pytest.raises(UsageError, match=rf"x: is being written by another process \({os.getpid()}\)\. Wait"):
        FolderLock.take(folder, target)
    first.release()
    second = FolderLock.take(folder, target)
    (folder / "rest").touch()
    second.remove()
    assert not folder.exists()


def test_a_lock_on_a_folder_that_is_gone_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ".x.repsr"
    first = FolderLock.take(folder, tmp_path / "x")
    honest = video_lock._lock
    calls = []

    def late(file: BinaryIO) -> bool:
        # Between opening the file and locking it, the holder finishes.
        calls.append(file)
        if len(calls) == 1:
            first.remove()
        return honest(file)

    monkeypatch.setattr(video_lock, "_lock", late)
    second = FolderLock.take(folder, tmp_path / "x")
    assert len(calls) == 2
    assert (folder / "lock").exists()
    second.remove()


def test_fingerprints_see_both_ends(tmp_path: Path) -> None:
    path = tmp_path / "a"
    data = bytearray(3 * 2**20)
    seen = set()
    for place in (0, len(data) - 1):
        path.write_bytes(data)
        seen.add(fingerprint(path))
        data[place] = 1
    path.write_bytes(data)
    seen.add(fingerprint(path))
    assert len(seen) == 3


# Stages


def test_stages_keep_the_order_and_say_how_busy_they_were() -> None:
    taken: list[int] = []
    busy = run_stages(lambda: iter(range(50)), lambda n: lambda: n * n, taken.extend, lambda _: 1, lambda _: 1, limit=3)
    assert taken == [n * n for n in range(50)]
    assert set(busy) == {"decode", "network", "encode", "wall"}


@pytest.mark.parametrize("stage", ["give", "work", "finish", "take"])
def test_an_error_in_any_stage_ends_all_at_once(stage: str) -> None:
    class Failed(Exception):
        pass

    def give() -> Iterator[int]:
        for n in range(10**9):
            if stage == "give" and n == 5:
                raise Failed
            yield n

    def work(n: int) -> Callable[[], int]:
        if stage == "work" and n == 5:
            raise Failed

        def finish() -> int:
            if stage == "finish" and n == 5:
                raise Failed
            return n

        return finish

    def take(items: Iterator[int]) -> None:
        for n in items:
            if stage == "take" and n == 5:
                raise Failed

    began = time.perf_counter()
    threads = threading.active_count()
    with pytest.raises(Failed):
        run_stages(give, work, take, lambda _: 1, lambda _: 1, limit=2)
    assert time.perf_counter() - began < 3
    assert threading.active_count() == threads


def test_the_next_one_is_begun_before_the_last_is_waited_for() -> None:
    said: list[str] = []

    def work(n: int) -> Callable[[], int]:
        said.append(f"begin {n}")
        return lambda: (said.append(f"end {n}"), n)[1]

    taken: list[int] = []
    run_stages(lambda: iter(range(3)), work, taken.extend, lambda _: 1, lambda _: 1)
    assert taken == [0, 1, 2]
    assert said == ["begin 0", "begin 1", "end 0", "begin 2", "end 1", "end 2"]


def test_where_no_thread_can_be_started_nothing_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name == "taker":
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(DeviceError, match="can't start new thread"):  # the giver, which could wait for ever, ends too
        run_stages(lambda: iter(range(50)), lambda n: lambda: n, list, lambda _: 1, lambda _: 1, limit=2)


def test_queues_are_bounded_in_bytes_but_let_one_large_item_pass() -> None:
    stopped = threading.Event()
    queue: ByteQueue[int] = ByteQueue(10, stopped)
    queue.put(0, 1000)
    thread = threading.Thread(target=lambda: (queue.put(1, 1), queue.close()))
    thread.start()
    time.sleep(0.05)
    assert thread.is_alive()
    assert list(queue) == [0, 1]
    thread.join()


def test_av_is_new_enough_for_what_is_used_of_it() -> None:
    assert hasattr(av.video.stream.VideoStream, "set_display_matrix")
    assert hasattr(av.container.OutputContainer, "add_attachment")
