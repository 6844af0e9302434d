"""Test videos whose container, clock or frames are unusual, from file to file."""

from __future__ import annotations

import functools
import io
import itertools
import random
import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from PIL import Image

from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import MediaError, UsageError
from repsr_cli.model.plain import identity_network
from repsr_cli.reporting import Outcome, Reporter
from repsr_cli.upscale import plan_video as planning
from repsr_cli.upscale.inputs import kind_of
from repsr_cli.upscale.request import Request
from repsr_cli.video.planes import Planes, new_frame
from repsr_cli.video.probe import probe
from repsr_cli.video.timeline import cut
from tests.sample_videos import decoded, frame_times, image, make_video, other_packets
from tests.upscaling import upscale_video


@functools.cache
def identity(scale: int) -> Upscaler:
    return Upscaler(identity_network(scale), device="cpu", threads=1)


def run(source: Path, target: Path, scale: int = 2, **options: Any) -> Outcome:
    return upscale_video(source, target, identity(scale), Request.of(**options), Reporter())


@pytest.mark.parametrize(
    ("codec", "suffix", "sar", "title"),
    [
        ("libvpx-vp9", ".webm", Fraction(35, 24), None),
        ("libvpx", ".webm", Fraction(64, 45), "A title"),
        ("libvpx-vp9", ".mkv", Fraction(35, 24), "A title"),
        ("libsvtav1", ".mkv", Fraction(16, 11), None),
        ("ffv1", ".mkv", Fraction(1, 2), None),
        ("libx264", ".mkv", Fraction(10, 11), "Ünïcödé"),
        ("libvpx-vp9", ".mp4", Fraction(35, 24), None),
        ("libvpx-vp9", ".mkv", Fraction(1), "A title"),
    ],
)
def test_the_shape_of_samples_arrives_in_every_container(
    tmp_path: Path, codec: str, suffix: str, sar: Fraction, title: str | None
) -> None:
    source = make_video(tmp_path / "in.mp4", range(6), size=(64, 96), sar=sar)
    if title is not None:
        tagged = tmp_path / "tagged.mkv"
        with av.open(str(source)) as before, av.open(str(tagged), "w") as after:
            streams = [after.add_stream_from_template(stream) for stream in before.streams]
            streams[0].metadata["title"] = title
            for packet in before.demux():
                if packet.size:
                    packet.stream = streams[packet.stream_index]
                    after.mux(packet)
        source = tagged
    run(source, tmp_path / f"out{suffix}", codec=codec, allow_loss=True)
    made = probe(tmp_path / f"out{suffix}")
    assert (made.sar or 1) == sar
    with av.open(str(tmp_path / f"out{suffix}")) as after:
        assert after.streams[0].metadata.get("title") == (title if suffix != ".mp4" else None)
        assert sum(1 for _ in after.decode(video=0)) == 6


def with_trailer(path: Path, trailer: bytes) -> Path:
    path.write_bytes(path.read_bytes() + trailer)
    return path


@pytest.mark.parametrize("trailer", [random.Random(n).randbytes(5000) for n in range(3)] + [b"\xff" * 9, bytes(64)])
def test_data_that_a_camera_appends_is_no_damage(tmp_path: Path, trailer: bytes) -> None:
    source = with_trailer(make_video(tmp_path / "in.mp4", range(6)), trailer)
    assert run(source, tmp_path / "out.mp4").facts["frames"] == 6


def with_exif(path: Path, orientations: Sequence[int]) -> Path:
    """A Motion JPEG of frames with EXIF of these orientations, or without EXIF (0)."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for n, orientation in enumerate(orientations):
            exif = Image.Exif()
            if orientation:
                exif[0x0112], exif[0x010F] = orientation, "A camera"
            written = io.BytesIO()
            Image.new("RGB", (64, 48), (40 * n, 90, 20)).save(written, "jpeg", exif=exif)
            packet = av.Packet(written.getvalue())
            packet.stream, packet.time_base = stream, Fraction(1, 10)
            packet.pts = packet.dts = n
            packet.duration, packet.is_keyframe = 1, True
            out.mux_one(packet)
    return path


def test_side_data_of_later_frames_is_said(tmp_path: Path) -> None:
    outcome = run(with_exif(tmp_path / "in.mkv", [0, 0, 1, 1, 1]), tmp_path / "out.mkv")
    assert [note for note in outcome.notes if "cannot name" in note and "on some frames" in note]
    assert not any("rotated" in note for note in outcome.notes)
    outcome = run(with_exif(tmp_path / "turned.mkv", [1, 1, 6, 1, 1]), tmp_path / "turned.out.mkv")
    assert any("rotated in another way" in note for note in outcome.notes)


@pytest.mark.parametrize(("suffix", "orientation"), [(".avi", 6), (".mkv", 1), (".mov", 3)])
def test_side_data_that_pyav_cannot_name_is_said(tmp_path: Path, suffix: str, orientation: int) -> None:
    source = with_exif(tmp_path / f"in{suffix}", [orientation] * 5)
    outcome = run(source, tmp_path / "out.mkv")
    assert outcome.facts["frames"] == 5
    assert not any("rotated" in note for note in outcome.notes)
    assert any("cannot name" in note for note in outcome.notes)
    assert probe(tmp_path / "out.mkv").rotation == probe(source).rotation == {1: 0, 3: -180, 6: -90}[orientation]


def with_dolby_vision(path: Path, profile: int, compatibility: int) -> Path:
    """The same HEVC file with a Dolby Vision record beside its decoder's record; its index stands at the end."""
    data = path.read_bytes()
    record = bytes([1, 0, profile << 1, 0b00100101, compatibility << 4]) + bytes(19)
    box = struct.pack(">I4s", 8 + len(record), b"dvcC" if profile < 8 else b"dvvC") + record
    at = data.index(b"hvcC") - 4
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"hev1"):
        place = data.index(kind, data.index(b"moov")) - 4
        size = int.from_bytes(data[place : place + 4], "big") + len(box)
        data = data[:place] + size.to_bytes(4, "big") + data[place + 4 :]
    path.write_bytes(data[:at] + box + data[at:])
    return path


@pytest.mark.parametrize(
    ("profile", "compatibility", "refused"), [(5, 0, True), (8, 1, False), (8, 4, False), (8, 0, True), (7, 6, False)]
)
def test_dolby_vision_that_is_no_ycbcr_is_refused(
    tmp_path: Path, profile: int, compatibility: int, refused: bool
) -> None:
    plain = make_video(tmp_path / "in.mp4", range(3), codec="libx265", pix_fmt="yuv420p10le", size=(64, 64), audio=0)
    source = with_dolby_vision(plain, profile, compatibility)
    if refused:
        with pytest.raises(MediaError, match=f"Dolby Vision of profile {profile}"):
            run(source, tmp_path / "out.mkv")
        assert not (tmp_path / "out.mkv").exists()
    else:
        assert run(source, tmp_path / "out.mkv").facts["frames"] == 3


def joined(target: Path, *parts: Path) -> Path:
    target.write_bytes(b"".join(part.read_bytes() for part in parts))
    return target


def steps(path: Path) -> set[Fraction]:
    """Times between two frames."""
    shown = [time for time, _ in frame_times(path)]
    return {b - a for a, b in itertools.pairwise(shown)}


@pytest.mark.parametrize("bf", ["0", "2"])
@pytest.mark.parametrize("starts", [(0, 0), (0, 0, 0), (2000, 1000), (100, 90), (3600 * 25 * 5, 25 * 3600)])
def test_a_clock_that_starts_again_is_continued(tmp_path: Path, bf: str, starts: tuple[int, ...]) -> None:
    parts = [
        make_video(tmp_path / f"{n}.ts", range(start, start + 24), size=(48, 64), options={"bf": bf}, audio=0)
        for n, start in enumerate(starts)
    ]
    source = joined(tmp_path / "in.ts", *parts)
    outcome = run(source, tmp_path / "out.mkv")
    assert outcome.facts["frames"] == 24 * len(starts)
    assert any("continued" in note for note in outcome.notes)
    assert steps(tmp_path / "out.mkv") == {Fraction(1, 25)}


def test_all_streams_are_moved_alike_where_the_clock_starts_again(tmp_path: Path) -> None:
    part = make_video(tmp_path / "part.ts", range(26), size=(48, 64), options={"bf": "2"}, audio=2)
    source = joined(tmp_path / "in.ts", part, part)
    run(source, tmp_path / "out.mkv")
    assert steps(tmp_path / "out.mkv") == {Fraction(1, 25)}
    before, after = other_packets(source), other_packets(tmp_path / "out.mkv")
    assert before.keys() == after.keys()
    for stream in before:
        header = 7  # of ADTS, which Matroska has no use for
        assert [data for _, data in after[stream]] == [data[header:] for _, data in before[stream]]
        half = len(after[stream]) // 2
        moved = {after[stream][half + n][0] - after[stream][n][0] for n in range(half)}
        assert max(abs(each - Fraction(26, 25)) for each in moved) <= Fraction(1, 1000)


def with_times(source: Path, target: Path, numbers: Sequence[int], change: Callable[[int], int]) -> Path:
    """The same transport stream with other presentation times of some packets of its video, in 90 kHz."""
    data = bytearray(source.read_bytes())
    headers = [at for at in range(len(data) - 4) if data[at : at + 4] == b"\0\0\1\xe0" and data[at + 7] & 0x80]
    for number in numbers:
        at = headers[number] + 9
        there = data[at : at + 5]
        time = (there[0] >> 1 & 7) << 30 | there[1] << 22 | there[2] >> 1 << 15 | there[3] << 7 | there[4] >> 1
        wrong = change(time) % (1 << 33)
        data[at] = there[0] & 0xF0 | (wrong >> 29 & 0x0E) | 1
        data[at + 1], data[at + 2] = wrong >> 22 & 0xFF, (wrong >> 14 & 0xFE) | 1
        data[at + 3], data[at + 4] = wrong >> 7 & 0xFF, (wrong << 1 & 0xFE) | 1
    target.write_bytes(data)
    return target


@pytest.mark.parametrize("numbers", [(3,), (0,), (11,), (5, 6), (2, 17)])
@pytest.mark.parametrize("wrong", [(1 << 33) - 1, 90000 * 7200])
def test_a_time_that_is_far_off_is_taken_from_the_cadence(tmp_path: Path, numbers: tuple[int, ...], wrong: int) -> None:
    whole = make_video(tmp_path / "whole.ts", range(24), size=(48, 64), options={"bf": "2"}, audio=0)
    source = with_times(whole, tmp_path / "in.ts", numbers, lambda _: wrong)
    outcome = run(source, tmp_path / "out.mkv")
    assert outcome.facts["frames"] == 24
    assert outcome.facts["repeated_frames"] == []
    assert any("out of place" in note for note in outcome.notes)
    assert steps(tmp_path / "out.mkv") == {Fraction(1, 25)}


@pytest.mark.parametrize("bf", ["0", "2"])
@pytest.mark.parametrize(
    ("numbers", "seconds"),
    [((10,), 5), ((10,), 1), ((20,), 0.2), ((0,), 3), ((38,), 5), ((10, 25), 5), ((10, 11), 3), ((20,), -0.2)],
)
def test_a_time_out_of_place_is_taken_from_the_frames_around(
    tmp_path: Path, bf: str, numbers: tuple[int, ...], seconds: float
) -> None:
    whole = make_video(tmp_path / "whole.ts", range(40), size=(48, 64), options={"bf": bf}, gop=12, audio=0)
    source = with_times(whole, tmp_path / "in.ts", numbers, lambda time: time + round(90000 * seconds))
    outcome = run(source, tmp_path / "out.mkv", scale=1, codec="ffv1", on_error="keep")
    assert outcome.facts["repeated_frames"] == []
    assert any("out of place" in note for note in outcome.notes)
    assert steps(tmp_path / "out.mkv") == {Fraction(1, 25)}
    before, after = decoded(whole), decoded(tmp_path / "out.mkv")
    assert len(before) == len(after) == 40
    assert all(np.array_equal(there[0], here[0]) for there, here in zip(before, after, strict=True))


@pytest.mark.parametrize(("bf", "paused"), [("2", 39), ("16", 39), ("16", 30)])
@pytest.mark.parametrize("suffix", [".mkv", ".ts"])
def test_a_pause_is_no_wrong_time(tmp_path: Path, suffix: str, bf: str, paused: int) -> None:
    times = [40 * n + (15000 if n >= paused else 0) for n in range(40)]
    source = tmp_path / f"in{suffix}"
    with av.open(str(source), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"bf": bf, "b-adapt": "0", "x264-params": "scenecut=0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time in enumerate(times):
            frame = new_frame(image(number, 48, 64, "yuv420p"), "yuv420p")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    outcome = run(source, tmp_path / "out.mkv", scale=1)
    assert not any("out of place" in note or "far from all" in note for note in outcome.notes)
    found = frame_times(tmp_path / "out.mkv")
    assert [round(1000 * (time - found[0][0])) for time, _ in found] == times


@pytest.mark.parametrize("audio", [0, 1])
@pytest.mark.parametrize(("bf", "gop"), [("2", 12), ("3", 250), ("0", 12)])
def test_avi_with_b_frames(tmp_path: Path, bf: str, gop: int, audio: int) -> None:
    options = {"bf": bf, "b-adapt": "0", "x264-params": "scenecut=0"}
    source = make_video(tmp_path / "in.avi", range(40), options=options, gop=gop, audio=audio)
    outcome = run(source, tmp_path / "out.mkv")
    assert outcome.facts["frames"] == 40
    assert outcome.facts["repeated_frames"] == []
    assert steps(tmp_path / "out.mkv") == {Fraction(1, 25)}


def raw_stream(path: Path, codec: str, format: str, frames: int = 30, rate: int = 50) -> Path:
    with av.open(str(path), "w", format=format) as out:
        stream: Any = out.add_stream(codec, rate=rate)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for n in range(frames):
            frame = new_frame(image(n, 48, 64, "yuv420p"), stream.pix_fmt)
            frame.pts, frame.time_base = n, Fraction(1, rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "codec", "format", "rate"),
    [
        ("in.h264", "libx264", "h264", 50),
        ("in.hevc", "libx265", "hevc", 50),
        ("in.mjpeg", "mjpeg", "mjpeg", 25),
        ("in.bin", "mjpeg", "mjpeg", 25),
        ("in.m2v", "mpeg2video", "mpeg2video", 50),
        ("in.m4v", "mpeg4", "m4v", 50),
    ],
)
@pytest.mark.parametrize("fps", [None, Fraction(24000, 1001)])
def test_streams_without_a_container(
    tmp_path: Path, name: str, codec: str, format: str, rate: int, fps: Fraction | None
) -> None:
    source = raw_stream(tmp_path / name, codec, format)
    assert kind_of(source) == "video"
    outcome = run(source, tmp_path / "out.mp4", fps=fps)
    assert outcome.facts["frames"] == 30
    assert any("has no times" in note for note in outcome.notes) == (fps is None)
    assert steps(tmp_path / "out.mp4") == {1 / (fps or Fraction(rate))}


def test_a_rate_is_refused_for_a_video_with_times(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="times of its own"):
        run(make_video(tmp_path / "in.mkv", range(3)), tmp_path / "out.mkv", fps=Fraction(30))


def late_audio_flv(folder: Path) -> Path:
    """An FLV whose header announces no sound, which begins after 9 s."""
    path = make_video(folder / "in.flv", range(300), size=(48, 64), options={"crf": "40"}, audio=1)
    data = path.read_bytes()
    tags: list[tuple[int, int, bytes]] = []
    at = 13
    while at < len(data):
        size = int.from_bytes(data[at + 1 : at + 4], "big")
        tags.append((data[at], int.from_bytes(data[at + 4 : at + 7], "big"), data[at : at + 15 + size]))
        at += 15 + size
    late = []
    for kind, time, tag in tags:
        if kind == 8:
            moved = time + 9500
            tag = tag[:4] + moved.to_bytes(3, "big") + tag[7:]
            late.append((moved, 1, tag))
        elif kind == 9:
            late.append((time, 0, tag))
    late.sort(key=lambda each: each[:2])
    path.write_bytes(data[:4] + b"\x01" + data[5:13] + b"".join(tag for *_, tag in late))
    return path


def late_audio_ts(folder: Path) -> Path:
    """A transport stream whose first 9 s have no sound, whose second part has some."""
    first = make_video(folder / "1.ts", range(225), size=(48, 64), options={"crf": "40"}, audio=0)
    second = make_video(folder / "2.ts", range(225, 300), size=(48, 64), options={"crf": "40"}, audio=1)
    return joined(folder / "in.ts", first, second)


@pytest.mark.parametrize("make", [late_audio_flv, late_audio_ts])
def test_a_stream_that_begins_late_arrives(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    source = make(tmp_path)
    outcome = run(source, tmp_path / "out.mkv")
    assert outcome.facts["frames"] == 300
    assert len(other_packets(tmp_path / "out.mkv")[1]) > 40


def late_videos(path: Path, begins: Sequence[int]) -> Path:
    """A transport stream of 10 s with videos that begin at these frames, and sound from the beginning."""
    with av.open(str(path), "w") as out:
        streams: list[Any] = [out.add_stream("libx264", rate=25, options={"crf": "40", "bf": "0"}) for _ in begins]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        sound: Any = out.add_stream("ac3", rate=48000, layout="mono")
        for number in range(250):
            samples = AudioFrame.from_ndarray(np.zeros((1, 1920), np.float32), format="fltp", layout="mono")
            samples.sample_rate, samples.pts = 48000, 1920 * number
            out.mux(sound.encode(samples))
            for stream, begin in zip(streams, begins, strict=True):
                if number >= begin:
                    frame = new_frame(image(number, 48, 64, "yuv420p"), "yuv420p")
                    frame.pts, frame.time_base = number, Fraction(1, 25)
                    out.mux(stream.encode(frame))
        for stream in (*streams, sound):
            out.mux(stream.encode(None))
    return path


def test_videos_that_begin_late_arrive(tmp_path: Path) -> None:
    outcome = run(late_videos(tmp_path / "in.ts", (0, 200)), tmp_path / "out.mkv")
    assert outcome.facts["frames"] == 250
    assert len(other_packets(tmp_path / "out.mkv")[1]) == 50
    outcome = run(late_videos(tmp_path / "late.ts", (200,)), tmp_path / "late.mkv")
    assert outcome.facts["frames"] == 50
    assert probe(tmp_path / "late.mkv").rate == 25


def test_sound_that_is_scrambled_is_named(tmp_path: Path) -> None:
    path, noise = late_videos(tmp_path / "in.ts", (0,)), random.Random(1)
    data = bytearray(path.read_bytes())
    for at in range(0, len(data), 188):
        if int.from_bytes(data[at + 1 : at + 3], "big") & 0x1FFF != 0x101:
            continue
        begin = at + 4 + (data[at + 4] + 1 if data[at + 3] & 0x20 else 0)
        begin += 9 + data[begin + 8] if data[at + 1] & 0x40 else 0  # the header of a PES packet
        data[begin : at + 188] = bytes(noise.randrange(0, 256, 2) for _ in range(at + 188 - begin))
    path.write_bytes(data)
    with pytest.raises(UsageError, match="scrambled or damaged"):
        run(path, tmp_path / "out.mkv")
    outcome = run(path, tmp_path / "out.mkv", allow_loss=True)
    assert outcome.facts["frames"] == 250


@pytest.mark.parametrize("head", [b"%PDF-1.7\n", b"PK\x03\x04 ", b"some notes about a photo: "])
def test_a_document_with_images_in_it_is_no_video(tmp_path: Path, head: bytes) -> None:
    written = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(written, "jpeg")
    (tmp_path / "in.dat").write_bytes(head + written.getvalue() * 4)
    assert kind_of(tmp_path / "in.dat") is None


def test_photos_that_hold_further_images_stay_photos(tmp_path: Path) -> None:
    written = io.BytesIO()
    photo = Image.new("RGB", (64, 48), "red")
    photo.save(written, "jpeg")
    (tmp_path / "two.jpg").write_bytes(written.getvalue() * 2)
    assert kind_of(tmp_path / "two.jpg") == "image"
    photo.save(tmp_path / "mpo.jpg", "mpo", save_all=True, append_images=[photo, photo, photo])
    assert kind_of(tmp_path / "mpo.jpg") == "image"


def test_recordings_whose_clock_goes_on_are_joined_without_damage(tmp_path: Path) -> None:
    parts = [make_video(tmp_path / f"{n}.ts", range(26 * n, 26 * n + 26), size=(48, 64), audio=0) for n in range(3)]
    outcome = run(joined(tmp_path / "in.ts", *parts), tmp_path / "out.mkv")
    assert outcome.facts["frames"] == 78
    assert steps(tmp_path / "out.mkv") == {Fraction(1, 25)}


def test_packets_lost_from_joined_recordings_are_still_noticed(tmp_path: Path) -> None:
    parts = [make_video(tmp_path / f"{n}.ts", range(26 * n, 26 * n + 26), size=(48, 64), audio=0) for n in range(2)]
    data = joined(tmp_path / "in.ts", *parts).read_bytes()
    rows = [data[at : at + 188] for at in range(0, len(data), 188)]
    for lost in range(12, 20):
        if rows[lost][1] & 0x1F == 1 and not rows[lost][3] & 0x20:
            (tmp_path / "in.ts").write_bytes(b"".join(rows[:lost] + rows[lost + 1 :]))
            with pytest.raises(MediaError, match="damaged"):
                run(tmp_path / "in.ts", tmp_path / "out.mkv")


def scene(shift: int) -> np.ndarray:
    _, x = np.mgrid[0:64, 0:96]
    pixels: np.ndarray = (16 + 200 * ((x + shift) // 12 % 2)).astype(np.uint8)
    return pixels


def moving(count: int, combed: bool) -> list[Planes]:
    """Bars that move; ``combed``: the odd rows half a frame later."""
    frames: list[Planes] = []
    for n in range(count):
        luma = scene(8 * n)
        if combed:
            luma[1::2] = scene(8 * n + 4)[1::2]
        frames.append((luma, np.full((32, 48), 128, np.uint8), np.full((32, 48), 128, np.uint8)))
    return frames


def combing(path: Path) -> float:
    luma = np.stack([frame[0] for frame in decoded(path)]).astype(float)
    return float(np.abs(luma[:, 1:-1] - (luma[:, :-2] + luma[:, 2:]) / 2).mean())


@pytest.mark.parametrize("interlaced_first", [False, True])
def test_video_that_is_interlaced_in_parts_is_refused(tmp_path: Path, interlaced_first: bool) -> None:
    parts = []
    for n, interlaced in enumerate((interlaced_first, not interlaced_first)):
        settings: Any = {"codec": "mpeg2video", "options": {"qmax": "2", "b": "9M"}, "gop": 12, "audio": 0}
        frames = moving(130, interlaced)
        path = tmp_path / f"{n}.ts"
        parts.append(make_video(path, range(130), size=(64, 96), frames=frames, interlaced=interlaced, **settings))
    source = joined(tmp_path / "in.ts", *parts)
    where = "from 0.000 s" if interlaced_first else r"from 5\.\d\d\d s"
    with pytest.raises(MediaError, match=f"interlaced {where} on.*Add --deinterlace"):
        run(source, tmp_path / "out.mkv")
    outcome = run(source, tmp_path / "out.mkv", scale=1, deinterlace=True, codec="ffv1")
    assert outcome.facts["frames"] == 260
    assert combing(tmp_path / "out.mkv") < 0.5 * combing(source)


def test_deinterlacing_does_not_depend_on_flags(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mkv", codec="ffv1", size=(64, 96), frames=moving(24, True), audio=0)
    assert not probe(source).flagged_interlaced
    run(source, tmp_path / "out.mkv", scale=1, deinterlace=True, codec="ffv1")
    assert combing(tmp_path / "out.mkv") < 0.3 * combing(source)
    assert frame_times(tmp_path / "out.mkv") == frame_times(source)


@pytest.mark.parametrize("pix_fmt", ["uyvy422", "bgr24"])
def test_packed_pixels_are_deinterlaced(tmp_path: Path, pix_fmt: str) -> None:
    planes = make_video(tmp_path / "planes.mkv", codec="ffv1", size=(64, 96), frames=moving(24, True), audio=0)
    source = tmp_path / "in.avi"
    with av.open(str(planes)) as before, av.open(str(source), "w") as after:
        stream = after.add_stream("rawvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, pix_fmt
        for frame in before.decode(before.streams.video[0]):
            after.mux(stream.encode(frame.reformat(format=pix_fmt)))
    outcome = run(source, tmp_path / "out.mkv", scale=1, deinterlace=True, codec="ffv1")
    assert outcome.facts["frames"] == 24
    assert combing(tmp_path / "out.mkv") < 0.3 * combing(planes)


@pytest.mark.parametrize(("suffix", "order"), [(".mp4", "tff"), (".mkv", "bff"), (".ts", "tff")])
def test_images_that_are_fields_are_refused(tmp_path: Path, suffix: str, order: str) -> None:
    params = f"interlace={order}:log-level=none"
    source = make_video(tmp_path / f"in{suffix}", codec="libx265", options={"x265-params": params}, audio=0)
    with pytest.raises(MediaError, match="single fields"):
        run(source, tmp_path / "out.mkv")
    plain = make_video(tmp_path / f"plain{suffix}", codec="libx265", audio=0)
    assert run(plain, tmp_path / "out.mkv").facts["frames"] == 24


def with_pixel_crop(path: Path, top: int, bottom: int, left: int, right: int) -> Path:
    """The same Matroska file, whose track has a name of 40 characters or more, with a crop in that place."""
    data = path.read_bytes()
    names = {b"\x54\xbb": top, b"\x54\xaa": bottom, b"\x54\xcc": left, b"\x54\xdd": right}
    added = b"".join(name + b"\x82" + value.to_bytes(2, "big") for name, value in names.items() if value)
    at = data.index(b"\x53\x6e") + 2
    size = data[at] & 0x7F
    name = data.index(b"\x53\x6e")
    rest = data[at + 1 + size :]
    video = rest.index(b"\xe0")
    length = rest[video + 1] & 0x7F
    entry = rest[:video] + b"\xe0" + bytes([0x80 | length + len(added)])
    entry += rest[video + 2 : video + 2 + length] + added + rest[video + 2 + length :]
    free = 3 + size - len(added) - 2
    path.write_bytes(data[:name] + b"\xec" + bytes([0x80 | free]) + bytes(free) + entry)
    return path


def with_clean_aperture(path: Path, top: int, bottom: int, left: int, right: int, size: tuple[int, int]) -> Path:
    """The same MP4 file with a ``clap`` box; its index stands at the end."""
    data, (height, width) = path.read_bytes(), size
    values = (width - left - right, 1, height - top - bottom, 1, left - right, 2, top - bottom, 2)
    box = struct.pack(">I4s4I2i", 40, b"clap", *values[:4], *values[4:6]) + struct.pack(">iI", *values[6:])
    at = data.index(b"avcC") - 4
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        place = data.index(kind, data.index(b"moov")) - 4
        grown = int.from_bytes(data[place : place + 4], "big") + len(box)
        data = data[:place] + grown.to_bytes(4, "big") + data[place + 4 :]
    path.write_bytes(data[:at] + box + data[at:])
    return path


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p"])
@pytest.mark.parametrize("crop", [(8, 4, 2, 6), (0, 10, 0, 0), (2, 1, 4, 3), (6, 0, 8, 0)])
@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_what_the_container_crops_is_cropped(
    tmp_path: Path, suffix: str, crop: tuple[int, int, int, int], pix_fmt: str
) -> None:
    top, bottom, left, right = crop
    plain = make_video(tmp_path / "plain.mp4", range(6), size=(48, 96), pix_fmt=pix_fmt, audio=0)
    whole = decoded(plain)
    source = plain
    if suffix == ".mkv":
        source = tmp_path / "in.mkv"
        with av.open(str(plain)) as before, av.open(str(source), "w", container_options={"write_crc32": "0"}) as after:
            stream = after.add_stream_from_template(before.streams[0])
            stream.metadata["title"] = "x" * 50
            for packet in before.demux():
                if packet.size:
                    packet.stream = stream
                    after.mux(packet)
        with_pixel_crop(source, *crop)
    else:
        with_clean_aperture(source, *crop, (48, 96))
    outcome = run(source, tmp_path / "out.mkv", scale=1, codec="ffv1")
    assert any("cropped as its container says" in note for note in outcome.notes)
    made = decoded(tmp_path / "out.mkv")
    assert len(made) == 6
    for there, here in zip(whole, made, strict=True):
        expected = there[0][top : 48 - bottom, left : 96 - right]
        assert here[0].shape == expected.shape
        assert np.abs(here[0].astype(int) - expected).max() <= 1
    step = 2 if pix_fmt == "yuv420p" else 1
    expected = whole[0][1][top // step :, left // step :][: made[0][1].shape[0], : made[0][1].shape[1]]
    assert np.abs(made[0][1].astype(int) - expected).max() <= 1
    assert made[0][1].shape == (-(-(48 - top - bottom) // step), -(-(96 - left - right) // step))


@pytest.mark.parametrize("kind", ["joined", "avi"])
def test_segments_of_a_video_with_a_corrected_clock_are_those_of_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if kind == "avi":
        source = make_video(tmp_path / "in.avi", range(40), options={"bf": "2"}, gop=10, audio=0)
    else:
        part = make_video(tmp_path / "part.ts", range(24), size=(36, 64), options={"bf": "2"}, gop=8, audio=0)
        source = joined(tmp_path / "in.ts", part, part)
    run(source, tmp_path / "whole.mkv", codec="ffv1")
    monkeypatch.setattr(planning, "cut", functools.partial(cut, frames=4))
    other = Upscaler(identity_network(2), device="cpu", threads=1)
    outcome = upscale_video(
        source, tmp_path / "parts.mkv", identity(2), Request.of(codec="ffv1"), Reporter(), others=(other,)
    )
    assert outcome.facts["segments"] > 3
    assert frame_times(tmp_path / "parts.mkv") == frame_times(tmp_path / "whole.mkv")
    for one, two in zip(decoded(tmp_path / "parts.mkv"), decoded(tmp_path / "whole.mkv"), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def test_parts_of_a_video_with_a_corrected_clock(tmp_path: Path) -> None:
    part = make_video(tmp_path / "part.ts", range(24), size=(36, 64), options={"bf": "2"}, gop=8, audio=0)
    source = joined(tmp_path / "in.ts", part, part)
    run(source, tmp_path / "whole.mkv", codec="ffv1")
    outcome = run(source, tmp_path / "cut.mkv", codec="ffv1", start=0.8, end=1.2)
    assert outcome.facts["frames"] == 10
    wanted = decoded(tmp_path / "whole.mkv")[20:30]
    for one, two in zip(decoded(tmp_path / "cut.mkv"), wanted, strict=True):
        assert np.array_equal(one[0], two[0])
