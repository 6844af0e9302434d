"""Test that a preview shows every choice, and that a browser shows the page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

from PIL import Image
from typer.testing import CliRunner

from repsr_cli.cli import app
from repsr_cli.compare.preview import scenes
from tests.conftest import textured
from tests.sample_videos import make_video


def shows(page: Path) -> Any:
    found = re.search(r'id="shows">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_every_choice_of_an_image_and_a_video_is_on_one_page(tmp_path: Path) -> None:
    photo, page = tmp_path / "a <b>.png", tmp_path / "p.html"
    Image.fromarray(textured(48, 64)).save(photo)
    clip = make_video(tmp_path / "c.mp4", list(range(50)), Fraction(1, 25))
    words = ["preview", photo, clip, "-n", "light", "-n", "fast", "--crf", "18", "--crf", "30", "-s", "2", "-o", page]
    words += ["--at", "0.4", "--at", "1.2", "--threads", "1", "--no-reuse", "-e", "g=9"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    image, video = shows(page)
    assert [choice["name"] for choice in image["choices"]] == ["light", "fast"]
    assert [choice["name"] for choice in video["choices"]] == [
        "light crf 18", "light crf 30", "fast crf 18", "fast crf 30"
    ]  # fmt: skip
    assert [scene["name"] for scene in video["scenes"]] == ["0.40 s", "1.20 s"]
    assert all(len(scene["images"]) == 5 for scene in video["scenes"])
    assert video["choices"][0]["bytes"] > video["choices"][1]["bytes"] > 0
    assert all(choice["seconds"] > 0 for choice in [*image["choices"], *video["choices"]])
    assert video["choices"][3]["command"] == f"repsr upscale {clip} -s 2 -n fast --threads 1 --crf 30 -e g=9 --no-reuse"
    assert CliRunner().invoke(app, [str(word) for word in words]).exit_code == 2
    if shutil.which("chromium") is not None:
        shot = tmp_path / "shot.png"
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
        run = subprocess.run(
            [*command, "--window-size=400,700", f"--screenshot={shot}", page.as_uri()],
            check=True, capture_output=True, timeout=60, text=True,
        )  # fmt: skip
        assert "CONSOLE" not in run.stderr
        with Image.open(shot) as shown:
            assert len(shown.convert("RGB").getcolors(1 << 24) or []) > 100


def test_frames_of_different_scenes_are_chosen(tmp_path: Path) -> None:
    clip = make_video(tmp_path / "c.mp4", list(range(100)), Fraction(1, 25))
    chosen = scenes(clip, 3)
    assert len(chosen) == 3
    assert chosen == sorted(chosen)
    assert 0 <= chosen[0] < chosen[-1] < 4


def test_folders_and_patterns_are_inputs_and_what_they_leave_out_is_named(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    for name in ("10.png", "2.png"):
        Image.fromarray(textured(24, 32)).save(inside / name)
    (inside / "notes.txt").write_text("x")
    command = ["preview", str(inside), "-n", "light", "-s", "2", "--threads", "1", "-o"]
    result = CliRunner().invoke(app, [*command, str(tmp_path / "p.html")])
    assert result.exit_code == 0, result.output
    assert [show["name"] for show in shows(tmp_path / "p.html")] == ["2.png", "10.png"]
    assert "notes.txt" in result.stderr
    command[1] = str(inside / "1*.png")
    assert CliRunner().invoke(app, [*command, str(tmp_path / "q.html")]).exit_code == 0
    assert [show["name"] for show in shows(tmp_path / "q.html")] == ["10.png"]


def test_a_page_of_nothing_or_of_too_much_is_refused(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    command = ["preview", str(inside), "-n", "light", "-s", "2", "-o", str(tmp_path / "p.html")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert "no image or video found" in result.stderr
    for number in range(25):
        Image.fromarray(textured(8, 8)).save(inside / f"{number}.png")
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert "shows up to 24" in result.stderr
    assert not (tmp_path / "p.html").exists()
