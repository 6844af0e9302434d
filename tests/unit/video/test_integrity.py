"""Recognizing files that lost packets."""

from __future__ import annotations

from pathlib import Path

from repsr_cli.video.integrity import out_of_step, shortened
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
