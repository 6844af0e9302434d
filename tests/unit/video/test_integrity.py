"""Recognizing files that lost packets."""

from __future__ import annotations

from pathlib import Path

import av.logging
import pytest

from repsr_cli.video.integrity import is_loss, out_of_step, shortened
from repsr_cli.video.probe import probe
from repsr_cli.video.timeline import scan
from tests.sample_videos import make_video


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
    # The index now gives the first frame the place of the second.
    data[index + 8 : index + 12] = data[index + 24 : index + 28]
    torn = tmp_path / "torn.avi"
    torn.write_bytes(data)
    assert scan(probe(torn)).damage == "23 of 24 frames are there"
    data = bytearray(whole.read_bytes())
    last = data.rindex(b"00dc", 0, data.index(b"idx1"))
    torn.write_bytes(data[:last] + bytes(len(data) - last))  # the last frame and the index
    assert scan(probe(torn)).damage == "23 of 24 frames are there"


@pytest.mark.parametrize(
    ("message", "loses"),
    [
        ("DTS discontinuity in stream 0: packet 40 with DTS 133200, packet 41 with DTS 12000", False),
        ("timestamp discontinuity (stream id=256): -1800000, new offset= 0", False),
        ("Packet corrupt (stream = 0, dts = NOPTS).", False),
        ("Packet corrupt (stream = 0, dts = 900).", False),
        ("Packet corrupt (stream = 1, dts = 800).", False),
        ("Packet corrupt (stream = 0, dts = 800).", True),
        ("Invalid timestamps stream=0, pts=100, dts=200, size=9", False),
        ("Non-increasing DTS in stream 0: packet 5 with DTS 10, packet 6 with DTS 9", False),
        ("first pts and dts value unset, cannot determine order", False),
        ("Packet size is invalid", True),
        ("stream 0, offset 0x3a1: partial file", True),
        ("Element at 0x20 ending at 0x99 exceeds containing master element ending at 0x80", True),
    ],
)
def test_messages_about_times_are_no_losses(message: str, loses: bool) -> None:
    assert is_loss(av.logging.ERROR, message, 0, {900}) is loses
    if "exceeds" not in message and "corrupt" not in message:
        assert not is_loss(av.logging.WARNING, message, 0, {900})


def test_an_mp4_that_is_cut_off_is_damaged_wherever_its_index_is(tmp_path: Path) -> None:
    whole = make_video(tmp_path / "end.mp4", range(12), audio=0)
    with (
        av.open(str(whole)) as before,
        av.open(str(tmp_path / "front.mp4"), "w", container_options={"movflags": "faststart"}) as after,
    ):
        stream = after.add_stream_from_template(before.streams[0])
        for packet in before.demux():
            if packet.size:
                packet.stream = stream
                after.mux(packet)
    for name in ("end.mp4", "front.mp4"):
        data = (tmp_path / name).read_bytes()
        for lost in (1, 9, 200, len(data) // 2):
            (tmp_path / "cut.mp4").write_bytes(data[:-lost])
            assert shortened(tmp_path / "cut.mp4") is not None, (name, lost)
        (tmp_path / "cut.mp4").write_bytes(data + b"vendor data, of no known kind" * 9)
        assert shortened(tmp_path / "cut.mp4") is None, name
