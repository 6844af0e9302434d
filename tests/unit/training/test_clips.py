"""Evaluating clips: what is made of them, flicker, VMAF, and the table of ``repsr eval``."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from repsr_cli.cli.app import app
from repsr_cli.engine.pixels import to_tensor
from repsr_cli.engine.planes import planes_from_rgb
from repsr_cli.errors import UsageError
from repsr_cli.training.clips import FORMAT, clip_frames, compressed, flicker
from repsr_cli.training.conditions import parse_condition
from repsr_cli.training.vmaf import vmaf
from tests.conftest import textured
from tests.sample_videos import make_video

needs_vmaf = pytest.mark.skipif(importlib.util.find_spec("imageio_ffmpeg") is None, reason="imageio-ffmpeg missing")


def test_flicker_is_that_of_still_parts_only() -> None:
    """What the original moves does not count, and where everything moves there is no figure."""
    frames = [np.full((4, 4), value, np.uint8) for value in (10, 13, 12)]
    frames[1][:, 2:] = 200
    still = np.zeros((4, 4), np.bool_)
    still[:, :2] = True
    assert flicker(frames, [still, still]) == pytest.approx((3 + 1) / 2)
    assert flicker(frames, [~still & False, ~still & False]) is None


@pytest.mark.parametrize("name", ["clean", "x264:30", "x265:30", "vp9:40"])
def test_clips_are_shrunk_and_go_through_the_encoder(tmp_path: Path, name: str) -> None:
    """As many frames as before, of LR size; only an encoder changes them, and the same way each time."""
    frames = clip_frames(make_video(tmp_path / "a.mkv", size=(128, 192)), 2, 6)
    assert len(frames) == 6
    assert frames[0].shape == (128, 192, 3)
    lr, again = (compressed(frames, 2, parse_condition(name)) for _ in range(2))
    assert [[plane.shape for plane in planes] for planes in lr] == [[(64, 96), (32, 48), (32, 48)]] * 6
    assert all(np.array_equal(a, b) for one, two in zip(lr, again, strict=True) for a, b in zip(one, two, strict=True))
    clean = compressed(frames, 2, parse_condition("clean"))
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(lr, clean, strict=True)) == (name == "clean")


def test_jpeg_is_refused_for_clips(tmp_path: Path) -> None:
    """It is a condition of still images."""
    frames = clip_frames(make_video(tmp_path / "a.mkv", size=(128, 192)), 2, 3)
    with pytest.raises(UsageError, match="not for clips"):
        compressed(frames, 2, parse_condition("jpeg:75"))


@needs_vmaf
def test_vmaf_falls_with_loss_and_neg_ignores_sharpening() -> None:
    """VMAF of equal clips is near 100; blur lowers it; sharpening raises VMAF above VMAF-NEG."""
    image = textured(270, 480).astype(np.float64)
    moving = [np.roll(image, shift, axis=1) for shift in (0, 2, 4)]

    def smoothed(frame: np.ndarray) -> np.ndarray:
        return np.asarray(
            np.mean([frame, np.roll(frame, 1, 0), np.roll(frame, 1, 1), np.roll(frame, (1, 1), (0, 1))], axis=0)
        )

    def planes(frames: list[np.ndarray]) -> list[tuple[np.ndarray, ...]]:
        return [planes_from_rgb(to_tensor(frame.round().clip(0, 255).astype(np.uint8)), FORMAT) for frame in frames]

    hr = planes(moving)
    equal, blurred = vmaf(hr, hr), vmaf(planes([smoothed(frame) for frame in moving]), hr)
    sharper = vmaf(planes([frame + 0.5 * (frame - smoothed(frame)) for frame in moving]), hr)
    assert equal["vmaf"] > 95
    assert blurred["vmaf"] < equal["vmaf"] - 5
    assert sharper["vmaf"] > sharper["vmaf_neg"]


def test_eval_measures_clips_and_images_in_one_table(tmp_path: Path) -> None:
    """Rows of both kinds; a figure that one kind lacks is a dash in the table and empty in CSV."""
    from PIL import Image

    clip = make_video(tmp_path / "a.mkv", size=(128, 192), frames=None)
    (tmp_path / "images").mkdir()
    Image.fromarray(textured(96, 96)).save(tmp_path / "images" / "b.png")
    command = ["eval", str(tmp_path / "images"), str(clip), "-s", "2", "-n", "fast", "--frames", "4"]
    result = CliRunner().invoke(app, [*command, "--degrade", "x264:28", "--csv", str(tmp_path / "rows.csv")])
    assert result.exit_code == 0, result.output
    header, *rows = (tmp_path / "rows.csv").read_text().splitlines()
    assert header.startswith("model,folder,condition,image,psnr_y,psnr_rgb,ssim_y")
    assert [row.split(",")[:4] for row in rows] == [
        [model, folder, "x264:28", name]
        for folder, name in (("images", "b.png"), ("clips", "a.mkv"))
        for model in ("bicubic", "fast")
    ]
    lines = CliRunner().invoke(app, [*command, "--json"])
    found = [json.loads(line) for line in lines.stdout.splitlines()]
    assert {(row["set"], row["model"]) for row in found} == {
        (folder, model) for folder in ("images", "clips") for model in ("bicubic", "fast")
    }
    assert all(("psnr_rgb" in row) == (row["set"] == "images") and 20 < row["psnr_y"] < 60 for row in found)


def test_eval_refuses_clips_that_cannot_be_measured(tmp_path: Path) -> None:
    """Too small, or of one frame: a message with the reason."""
    for name, size, count in (("small.mkv", (48, 48), 6), ("short.mkv", (128, 192), 1)):
        clip = make_video(tmp_path / name, pts=tuple(range(count)), size=size, audio=0)
        result = CliRunner().invoke(app, ["eval", str(clip), "-s", "4", "-n", "fast"])
        assert result.exit_code == 2, result.output


def test_eval_refuses_what_is_neither_folder_nor_clip_and_lr_for_clips(tmp_path: Path) -> None:
    """A set is a folder, and --lr would be ignored beside clips."""
    from PIL import Image

    Image.fromarray(textured(96, 96)).save(tmp_path / "b.png")
    (tmp_path / "notes.txt").write_text("x")
    for name in ("b.png", "notes.txt"):
        result = CliRunner().invoke(app, ["eval", str(tmp_path / name), "-s", "2", "-n", "fast"])
        assert result.exit_code == 2, result.output
        assert "neither a folder nor a clip" in result.stderr
    clip = make_video(tmp_path / "a.mkv", size=(128, 192))
    result = CliRunner().invoke(app, ["eval", str(clip), "-s", "2", "-n", "fast", "--lr", str(tmp_path)])
    assert result.exit_code == 2, result.output
    assert "--lr" in result.stderr
