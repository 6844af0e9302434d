"""Copied streams: odd times, WMA and the like, timecodes, and what means nothing elsewhere."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import UsageError
from repsr_cli.model.plain import identity_network
from repsr_cli.reporting import Outcome, Reporter
from repsr_cli.upscale import plan_encoding as planning
from repsr_cli.upscale.plan_video import plan_video
from repsr_cli.upscale.request import Request, VideoOptions
from repsr_cli.video import plan_streams
from repsr_cli.video.copy_times import Retimer
from repsr_cli.video.plan_streams import _meaningless
from repsr_cli.video.planes import new_frame
from repsr_cli.video.probe import StreamInfo, probe
from tests.sample_videos import _tone, frame_times, image, make_video, other_packets
from tests.upscaling import upscale_video, weight


@functools.cache
def identity() -> Upscaler:
    return Upscaler(identity_network(2), device="cpu", threads=1)


def run(source: Path, target: Path, **options: object) -> Outcome:
    return upscale_video(source, target, identity(), Request.of(**options), Reporter())


def make_other(
    path: Path, sound: str = "", video: str = "libx264", timecode: str = "", rate: int | Fraction = 25, **options: str
) -> Path:
    """A video of 25 frames with sound of any codec, or with a timecode."""
    with av.open(str(path), "w", container_options=options) as out:
        stream: Any = out.add_stream(video, rate=rate, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 36, "yuv420p"
        if timecode:
            stream.metadata["timecode"] = timecode
        if sound:
            track: Any = out.add_stream(sound, rate=8000 if "law" in sound or sound == "adpcm_ms" else 44100)
            track.layout, track.bit_rate = "mono", 64000
            packets = _tone_of(track) if track.codec_context.sample_rate == 8000 else _tone(track, 0)
            for packet in packets:
                out.mux(packet)
        for index in range(25):
            frame: Any = new_frame(image(index, 36, 64, "yuv420p"), "yuv420p")
            frame.pts, frame.time_base = index, 1 / Fraction(rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def _tone_of(track: Any) -> Iterator[Any]:
    wave = (np.sin(np.arange(8000) / 9) * 9000).astype(np.int16)
    step = track.codec_context.frame_size or 320
    for at in range(0, 8000 - 8000 % step, step):
        frame = av.AudioFrame.from_ndarray(wave[None, at : at + step], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, at, Fraction(1, 8000)
        yield from track.encode(frame)
    yield from track.encode(None)


def retimed(path: Path, change: Callable[[int, int], int]) -> Path:
    """Change the times of the blocks of sound in a Matroska file: from (number, relative time) to a relative time."""
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        index = container.streams.audio[0].index
        packets = [bytes(packet) for packet in container.demux() if packet.size and packet.stream_index == index]
    at = 0
    for number, packet in enumerate(packets):
        at = data.index(packet, at)
        old = int.from_bytes(data[at - 3 : at - 1], "big", signed=True)
        data[at - 3 : at - 1] = change(number, old).to_bytes(2, "big", signed=True)
    path.write_bytes(data)
    return path


ODD: dict[str, Callable[[int, int], int]] = {
    "one early": lambda number, time: time - 45 if number == 12 else time,
    "one late": lambda number, time: time + 500 if number == 12 else time,
    "swapped": lambda number, time: {12: time + 21, 13: time - 21}.get(number, time),
    "all at once": lambda number, time: 100 if 10 < number < 30 else time,
    "a block repeats": lambda number, time: time - 210 if 20 <= number < 25 else time,
    "first late": lambda number, time: time + 900 if number == 0 else time,
}


@pytest.mark.parametrize("what", ODD)
@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".mov"])
def test_odd_packets_of_sound_are_kept(tmp_path: Path, what: str, suffix: str) -> None:
    source = retimed(make_video(tmp_path / "in.mkv", range(25)), ODD[what])
    before = other_packets(source)[1]
    plan = plan_video(source, tmp_path / f"out{suffix}", Request(), weight(2))
    disordered = [time for time, _ in before] != sorted(time for time, _ in before)
    assert any("out of order" in note and "audio" in note for note in plan.notes) == disordered
    run(source, tmp_path / f"out{suffix}")
    after = other_packets(tmp_path / f"out{suffix}")[1]
    assert [data for _, data in after] == [data for _, data in before]
    times = [time for time, _ in after]
    assert times == sorted(times)
    moved = sum(abs(one - two) > Fraction(1, 900) for (one, _), (two, _) in zip(before, after, strict=True))
    assert moved <= {"all at once": 40, "a block repeats": 12}.get(what, 3)
    assert len(frame_times(tmp_path / f"out{suffix}")) == 25


@pytest.mark.parametrize(
    ("source", "sound"),
    [("in.avi", "pcm_alaw"), ("in.avi", "pcm_mulaw"), ("in.avi", "pcm_s16le"), ("in.mkv", "pcm_s16le")],
)
@pytest.mark.parametrize("target", ["out.mov", "out.mkv"])
def test_pcm_may_be_cut_into_other_packets(tmp_path: Path, source: str, sound: str, target: str) -> None:
    made = make_other(tmp_path / source, sound)
    before = b"".join(data for _, data in other_packets(made)[1])
    run(made, tmp_path / target)
    assert b"".join(data for _, data in other_packets(tmp_path / target)[1]) == before


SOUNDS = [
    (".wmv", "wmav2"), (".wmv", "wmav1"), (".avi", "pcm_mulaw"), (".avi", "pcm_alaw"), (".avi", "adpcm_ms"),
    (".mov", "pcm_mulaw"), (".mov", "pcm_alaw"), (".mkv", "aac"),
]  # fmt: skip


@pytest.mark.parametrize(("suffix", "sound"), SOUNDS)
def test_sound_that_matroska_names_as_riff_does_is_copied(tmp_path: Path, suffix: str, sound: str) -> None:
    folder = tmp_path / "it's a|b \\ [c] %d"
    folder.mkdir()
    video = "wmv2" if suffix == ".wmv" else "libx264"
    source = make_other(tmp_path / f"in{suffix}", sound, video)
    outcome = run(source, folder / "out.mkv", start=0.2)
    assert outcome.facts["streams"][1] == f"#1 audio {sound}: copy"
    with av.open(str(source)) as before, av.open(str(folder / "out.mkv")) as after:
        one, two = (container.streams.audio[0].codec_context for container in (before, after))
        assert (one.name, one.sample_rate, one.channels) == (two.name, two.sample_rate, two.channels)
        pairs = [sum(1 for _ in container.decode(audio=0)) for container in (before, after)]
        assert 0 < pairs[1] < pairs[0]
    there = {data for _, data in other_packets(source)[1]}
    assert {data for _, data in other_packets(folder / "out.mkv")[1]} <= there
    run(source, folder / "whole.mkv")
    assert [d for _, d in other_packets(source)[1]] == [d for _, d in other_packets(folder / "whole.mkv")[1]]


def test_what_mp4_cannot_hold_is_named_and_matroska_suggested(tmp_path: Path) -> None:
    source = make_other(tmp_path / "in.wmv", "wmav2", "wmv2")
    with pytest.raises(UsageError, match=r"would lack #1 audio wmav2: mp4 cannot hold it.*or try \.mkv"):
        run(source, tmp_path / "out.mp4")


def test_chapters_that_go_with_such_sound_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_other(tmp_path / "in.avi", "pcm_mulaw")
    monkeypatch.setattr(plan_streams, "_has_chapters", lambda _container: True)
    with pytest.raises(UsageError, match=r"#1 audio pcm_mulaw: chapters cannot be written beside it"):
        run(source, tmp_path / "out.mkv")


@pytest.mark.parametrize("start", ["01:00:00:00", "00:00:59;20"])
@pytest.mark.parametrize("before", [".mov", ".mp4"])
@pytest.mark.parametrize("after", [".mov", ".mp4", ".mkv"])
def test_timecodes_arrive(tmp_path: Path, start: str, before: str, after: str) -> None:
    rate = Fraction(30000, 1001) if ";" in start else Fraction(25)
    source = make_other(tmp_path / f"in{before}", "aac", timecode=start, rate=rate)
    target = tmp_path / f"out{after}"
    for begin, wanted in ((None, start), (12 / rate, {"01:00:00:00": "01:00:00:12"}.get(start, "00:01:00;04"))):
        outcome = run(source, target, overwrite=True, start=None if begin is None else float(begin))
        assert any(f"its timecode, {start}, is written anew" in note for note in outcome.notes)
        with av.open(str(target)) as container:
            tags = {name.lower(): value for name, value in container.streams.video[0].metadata.items()}
            tracks = [stream for stream in container.streams if stream.type == "data"]
            assert tags["timecode"] == wanted
            assert len(tracks) == (after != ".mkv")


def test_hints_for_streaming_are_left_out_with_a_note(tmp_path: Path) -> None:
    source = make_other(tmp_path / "in.mov", "aac", movflags="rtphint")
    outcome = run(source, tmp_path / "out.mkv")
    notes = [note for note in outcome.notes if "means nothing in another file" in note]
    assert len(notes) == 2
    assert all("hints for streaming" in note for note in notes)


@pytest.mark.parametrize("codec", ["dvd_nav_packet", "epg", "scte_35"])
def test_what_describes_its_own_container_is_no_loss(codec: str) -> None:
    stream = SimpleNamespace(metadata={})
    assert _meaningless(stream, StreamInfo(2, "data", codec))
    assert not _meaningless(stream, StreamInfo(2, "data", "klv"))


def test_a_muxer_that_refuses_a_packet_is_noticed_before_the_first_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_video(tmp_path / "in.mkv", range(5))

    def refuses(*_args: object) -> None:
        raise av.FFmpegError(22, "Invalid argument")

    monkeypatch.setattr(Retimer, "write", refuses)
    with pytest.raises(UsageError, match=r"would lack #1 audio aac: matroska cannot hold it"):
        run(source, tmp_path / "out.mkv")


@pytest.mark.parametrize("deep", [True, False])
@pytest.mark.parametrize(
    ("pix_fmt", "rate", "codec"),
    [
        ("yuv420p", 25, "libvpx-vp9"),
        ("yuv444p", 25, "libvpx-vp9"),
        ("yuv420p10le", 25, "libsvtav1"),
        ("yuv420p10le", 240, "libsvtav1"),
        ("yuv420p10le", 300, "libvpx-vp9"),
        ("yuv422p10le", 25, "libvpx-vp9"),
        ("yuv444p10le", 25, "libvpx-vp9"),
        ("yuv420p12le", 25, "libvpx-vp9"),
        ("yuv444p12le", 25, "libvpx-vp9"),
    ],
)
def test_the_encoder_of_webm_keeps_depth_and_chroma(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pix_fmt: str, rate: int, codec: str, deep: bool
) -> None:
    source = make_video(tmp_path / "in.mkv", range(2), codec="ffv1", pix_fmt=pix_fmt, audio=0)
    honest = planning._formats
    forms = {f"yuv{sub}p{bits}" for sub in ("420", "422", "444") for bits in ("10le", "12le")}
    # libvpx is built with or without more than 8 bits.
    built = honest("libvpx-vp9") - forms | (forms if deep else set())
    monkeypatch.setattr(planning, "_formats", lambda name: built if name == "libvpx-vp9" else honest(name))
    video = replace(probe(source), rate=Fraction(rate))
    chosen = planning._codec(video, "webm", VideoOptions())
    assert chosen == (codec if deep or not pix_fmt.endswith("le") else "libsvtav1")


def test_chroma_and_depth_are_not_reduced_without_a_word(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mkv", range(2), codec="ffv1", pix_fmt="yuv444p12le", audio=0)
    plan = plan_video(source, tmp_path / "out.webm", Request(), weight(2))
    if plan.encoding.pix_fmt != "yuv444p12le":
        with pytest.raises(UsageError, match=r"would lack the chroma and the 12 bits of yuv444p12le.*or try \.mkv"):
            run(source, tmp_path / "out.webm")
        assert run(source, tmp_path / "out.webm", allow_loss=True).facts["pix_fmt"] == "yuv420p10le"
    assert run(source, tmp_path / "out.mkv").facts["pix_fmt"] == "yuv444p12le"


def test_svt_av1_takes_fast_videos_where_it_is_asked_for(tmp_path: Path) -> None:
    source = make_other(tmp_path / "in.mkv", video="ffv1", rate=500)
    assert probe(source).rate == 500
    assert run(source, tmp_path / "out.webm", codec="libsvtav1").facts["frames"] == 25
    assert frame_times(tmp_path / "out.webm")[-1][0] == Fraction(48, 1000)
