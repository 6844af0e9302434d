"""upscale/judge_image.py and judge_video.py: what a file's own bytes say of the model that it needs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from repsr_cli.cli import app
from repsr_cli.image.coded_bytes import coded_bytes
from repsr_cli.image.files import open_image
from repsr_cli.image.jpeg import jpeg_quality
from repsr_cli.upscale.batch import plan_job
from repsr_cli.upscale.jobs import Job
from repsr_cli.upscale.judge_image import judge_image
from repsr_cli.upscale.judge_video import judge_video
from repsr_cli.upscale.judged import JPEG_QUALITY, Judged
from repsr_cli.upscale.request import Request
from repsr_cli.video.timeline import read_video
from tests.conftest import textured

PIXELS = textured(64, 96)


def saved(path: Path, **options: Any) -> Judged:
    Image.fromarray(PIXELS).save(path, **options)
    return judge_image(open_image(path))


@pytest.mark.parametrize("quality", [1, 30, 50, 75, 88, 90, 95, 100])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_the_quality_of_a_jpeg_is_told_by_its_tables(tmp_path: Path, quality: int, mode: str) -> None:
    Image.fromarray(PIXELS).convert(mode).save(tmp_path / "a.jpg", quality=quality)
    assert jpeg_quality(tmp_path / "a.jpg") == pytest.approx(quality, abs=0.01)


def test_tables_of_other_encoders_are_placed_among_those_of_libjpeg(tmp_path: Path) -> None:
    tables = [[3 + n // 8 for n in range(64)], [9] * 64]
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg", qtables=tables)
    found = jpeg_quality(tmp_path / "a.jpg")
    assert found is not None
    assert 90 < found < 96


def test_no_jpeg_has_no_quality(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing of the kind")
    assert jpeg_quality(tmp_path / "a.jpg") is None
    Image.fromarray(PIXELS).save(tmp_path / "b.png")
    assert jpeg_quality(tmp_path / "b.png") is None


@pytest.mark.parametrize(
    ("name", "options", "kind", "why"),
    [
        ("a.png", {}, "clean", "lossless PNG"),
        ("a.bmp", {}, "clean", "lossless BMP"),
        ("a.gif", {}, "clean", "lossless GIF"),
        ("a.tif", {"compression": "tiff_lzw"}, "clean", "lossless TIFF"),
        ("a.tif", {"compression": "jpeg", "quality": 30}, "real", "TIFF of quality 30"),
        ("a.tif", {"compression": "jpeg", "quality": 95}, "clean", "TIFF of quality 95"),
        ("a.webp", {"lossless": True}, "clean", "lossless WEBP"),
        ("a.webp", {"quality": 20}, "real", "WEBP of "),
        ("a.webp", {"quality": 100}, "clean", "WEBP of "),
        ("a.avif", {"quality": 15}, "real", "AVIF of "),
        ("a.avif", {"quality": 98}, "clean", "AVIF of "),
        ("a.jpg", {"quality": 50}, "real", "JPEG of quality 50"),
        ("a.jpg", {"quality": 75, "progressive": True}, "real", "JPEG of quality 75"),
        ("a.jpg", {"quality": int(JPEG_QUALITY) + 1}, "clean", f"JPEG of quality {JPEG_QUALITY + 1:.0f}"),
        ("a.jpg", {"quality": int(JPEG_QUALITY) - 1}, "real", f"JPEG of quality {JPEG_QUALITY - 1:.0f}"),
        ("mislabelled.png", {"format": "JPEG", "quality": 50}, "real", "JPEG of quality 50"),
    ],
)
def test_images(tmp_path: Path, name: str, options: dict[str, Any], kind: str, why: str) -> None:
    judged = saved(tmp_path / name, **options)
    assert judged.kind == kind
    assert judged.why.startswith(why)


@pytest.mark.parametrize("name", ["a.webp", "a.avif"])
def test_a_profile_costs_pixels_nothing(tmp_path: Path, name: str) -> None:
    plain, described = (saved(tmp_path / name, quality=15, **more) for more in ({}, {"icc_profile": bytes(60_000)}))
    assert plain == described
    assert plain.kind == "real"
    assert coded_bytes(tmp_path / name, name[2:].upper()) < 6_000


@pytest.mark.parametrize("content", [b"", b"RIFF", b"RIFF\0\0\0\0WEBPVP8 \xff\xff\xff\xff", bytes(64)])
@pytest.mark.parametrize("kind", ["WEBP", "AVIF"])
def test_damage_ends_the_count(tmp_path: Path, content: bytes, kind: str) -> None:
    (tmp_path / "a").write_bytes(content)
    assert coded_bytes(tmp_path / "a", kind) <= len(content)


def video(path: Path, codec: str, options: dict[str, str], pix_fmt: str = "yuv420p") -> Judged:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = *PIXELS.shape[:2], pix_fmt
        for number in range(6):
            frame = av.VideoFrame.from_ndarray(np.roll(PIXELS, number, axis=1).copy(), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return judge_video(*read_video(path))


QUIET = "log-level=none:pools=none"


@pytest.mark.parametrize(
    ("name", "codec", "options", "pix_fmt", "kind", "why"),
    [
        ("a.mkv", "ffv1", {}, "yuv420p", "clean", "lossless ffv1"),
        ("a.avi", "huffyuv", {}, "yuv422p", "clean", "lossless huffyuv"),
        ("a.y4m", "wrapped_avframe", {}, "yuv420p", "clean", "lossless rawvideo"),
        ("a.mov", "prores_ks", {}, "yuv422p10le", "clean", "prores, which loses next to nothing"),
        ("a.mkv", "libx264", {"qp": "0"}, "yuv420p", "clean", "lossless h264"),
        ("a.mp4", "libx264", {"qp": "0", "preset": "ultrafast"}, "yuv420p", "clean", "lossless h264"),
        ("a.mkv", "libx265", {"x265-params": f"lossless=1:{QUIET}"}, "yuv420p", "clean", "lossless hevc"),
        ("a.mkv", "libx264", {"crf": "30"}, "yuv420p", "real", "h264 of "),
        ("a.mkv", "libx264", {"crf": "1"}, "yuv420p", "clean", "h264 of "),
        ("a.mkv", "libx265", {"crf": "48", "x265-params": QUIET}, "yuv420p", "real", "hevc of "),
        ("a.webm", "libvpx-vp9", {"crf": "61", "b": "0"}, "yuv420p", "real", "vp9 of "),
        ("a.avi", "mpeg4", {"qscale": "9", "flags": "+qscale", "b": "100k"}, "yuv420p", "real", "mpeg4 of "),
    ],
)
def test_videos(
    tmp_path: Path, name: str, codec: str, options: dict[str, str], pix_fmt: str, kind: str, why: str
) -> None:
    judged = video(tmp_path / name, codec, options, pix_fmt)
    assert (judged.kind, judged.why[: len(why)]) == (kind, why)


@pytest.mark.parametrize(("suffix", "options", "kind"), [("jpg", {"quality": 40}, "real"), ("png", {}, "clean")])
def test_numbered_images_are_judged_as_images(tmp_path: Path, suffix: str, options: dict[str, Any], kind: str) -> None:
    for number in range(1, 4):
        Image.fromarray(PIXELS).save(tmp_path / f"{number:03d}.{suffix}", **options)
    job = Job("video", tmp_path / f"%03d.{suffix}", tmp_path / "out.mkv")
    from fractions import Fraction

    plan = plan_job(job, Request.of(scale=2.0, fps=Fraction(24)))
    assert plan.compute.model.kind == kind


@pytest.mark.parametrize(
    ("name", "options", "kind"), [("a.webp", {"quality": 10}, "real"), ("a.gif", {}, "clean"), ("a.png", {}, "clean")]
)
@pytest.mark.parametrize("target", ["out.mkv", None])
def test_animations_are_judged_as_they_were_stored(
    tmp_path: Path, name: str, options: dict[str, Any], kind: str, target: str | None
) -> None:
    frames = [Image.fromarray(np.roll(PIXELS, number, axis=1)) for number in range(3)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=80, **options)
    job = Job("video" if target else "image", tmp_path / name, tmp_path / (target or f"out{name[1:]}"))
    assert plan_job(job, Request.of(scale=2.0)).compute.model.kind == kind


def test_a_folder_of_both_is_judged_file_by_file(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    small = Image.fromarray(PIXELS[:16, :16])
    small.save(tmp_path / "in" / "a.png")
    small.save(tmp_path / "in" / "b.jpg", quality=50)
    small.save(tmp_path / "in" / "c.jpg", quality=97)
    words = ["upscale", str(tmp_path / "in"), "-o", f"{tmp_path}/out/", "-s", "2", "--json", "--threads", "1"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    import json

    facts = [json.loads(line)["facts"] for line in result.stdout.splitlines()]
    assert [(fact["model"], fact["model_kind"], fact["why"]) for fact in facts] == [
        ("balanced-x2", "clean", "lossless PNG"),
        ("balanced-real-x2", "real", "JPEG of quality 50"),
        ("balanced-x2", "clean", "JPEG of quality 97"),
    ]
    lines = [line for line in result.stderr.splitlines() if "model balanced" in line]
    assert len(lines) == 2
    assert "model balanced-real-x2 for JPEG of quality 50" in " ".join(result.stderr.split())
    assert "times as fast: -n light" in " ".join(result.stderr.split())
    quiet = CliRunner().invoke(app, [*words, "-y", "--quiet"])
    assert quiet.stderr == ""


def test_dry_run_says_why(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg", quality=50)
    result = CliRunner().invoke(app, ["upscale", str(tmp_path / "a.jpg"), "--dry-run"])
    assert re.search(r"model balanced-real-x4@[\d.]+ for JPEG of quality 50", result.stderr)
