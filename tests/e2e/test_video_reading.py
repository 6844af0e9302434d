"""Test videos whose container, clock or frames are unusual, from file to file."""

from __future__ import annotations

import functools
import io
import random
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import MediaError
from repsr_cli.model.plain import identity_network
from repsr_cli.upscale.request import Outcome, Reporter, Request
from repsr_cli.video.probe import probe
from tests.sample_videos import make_video
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


@pytest.mark.parametrize(("suffix", "orientation"), [(".avi", 6), (".mkv", 1), (".mov", 3)])
def test_side_data_that_pyav_cannot_name_is_said(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "A camera"
    with av.open(str(tmp_path / f"in{suffix}"), "w") as out:
        stream = out.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for n in range(5):
            written = io.BytesIO()
            Image.new("RGB", (64, 48), (40 * n, 90, 20)).save(written, "jpeg", exif=exif)
            packet = av.Packet(written.getvalue())
            packet.stream, packet.time_base = stream, Fraction(1, 10)
            packet.pts = packet.dts = n
            packet.duration, packet.is_keyframe = 1, True
            out.mux_one(packet)
    source = tmp_path / f"in{suffix}"
    outcome = run(source, tmp_path / "out.mkv")
    assert outcome.facts["frames"] == 5
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
