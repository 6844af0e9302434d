"""Test that a preview shows every choice, and that a browser shows the page."""

from __future__ import annotations

import html
import json
import re
import shlex
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from repsr_cli.cli import app
from repsr_cli.compare.preview import Choice, scenes, target_of
from repsr_cli.errors import MediaError
from repsr_cli.upscale.request import Request
from tests.conftest import textured
from tests.sample_videos import image, make_video


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


def test_commands_do_what_they_say_whatever_files_are_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ['-n it\'s "q" $HOME.png', "@a.png", "a b [1].png"]
    for name in names:
        Image.fromarray(textured(16, 24)).save(name)
    size = ["-s", "1.23456789"]
    result = CliRunner().invoke(app, ["preview", "-n", "light", *size, "-o", "p.html", "--threads", "1", "--", *names])
    assert result.exit_code == 0, result.output
    for name, show in zip(names, shows(Path("p.html")), strict=True):
        words = shlex.split(show["choices"][0]["command"])
        assert words[3:5] == size
        assert CliRunner().invoke(app, words[1:]).exit_code == 0
        assert Path(f"{name.removesuffix('.png')}_x1.23457.png").exists(), list(tmp_path.iterdir())


def test_images_of_one_colour_are_shown(tmp_path: Path) -> None:
    grey = image(0, 32, 48, "yuv420p")
    clip = make_video(
        tmp_path / "c.mp4", [0, 1], Fraction(1, 25), (32, 48), frames=[tuple(0 * p + 99 for p in grey)] * 2
    )
    page = tmp_path / "p.html"
    command = ["preview", str(clip), "-n", "light", "-s", "2", "--threads", "1", "-o", str(page)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert shows(page)[0]["scenes"]


@pytest.mark.parametrize(("name", "message"), [("f%d.png", "numbered images"), ("-", "a pipe")])
def test_what_cannot_be_shown_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(textured(16, 24)).save("f1.png")
    result = CliRunner().invoke(app, ["preview", name, "-n", "light", "-s", "2", "-o", "p.html"])
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert not Path("p.html").exists()


def test_an_input_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no such file"):
        target_of(tmp_path / "gone.png", Choice("light", Request.of(scale=2.0), ""), tmp_path)


def test_the_size_of_a_portrait_is_the_one_that_is_shown(tmp_path: Path) -> None:
    clip = make_video(tmp_path / "c.mp4", list(range(3)), Fraction(1, 25), (32, 64), rotation=90)
    page = tmp_path / "p.html"
    command = ["preview", str(clip), "-n", "light", "-s", "2", "--threads", "1", "--at", "0.5", "-o", str(page)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    (show,) = shows(page)
    assert show["choices"][0]["pixels"] == "64x128"
    assert show["scenes"][0]["name"] == "0.08 s"  # the last of three frames
    assert (show["scenes"][0]["width"], show["scenes"][0]["height"]) == (64, 128)


KEYS = """
<script>
  const seen = [];
  const press = (key, more) =>
    document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, ...more}));
  const note = () =>
    seen.push([slider.value, get("right").value, state.scene, state.input, state.zoom, get("view").scrollLeft]);
  note();
  for (const key of ["ArrowRight", "2", "9", "s", "i", "z", "z", "z"]) { press(key); note(); }
  for (const key of ["ArrowLeft", "ArrowRight"]) { press(key, {shiftKey: true}); note(); }
  state.input = 0; draw();
  document.querySelectorAll("#scenes button")[1].focus(); document.activeElement.click();
  seen.push(document.activeElement.textContent, document.documentElement.scrollWidth - innerWidth);
  document.title = JSON.stringify(seen);
</script>
"""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium")
def test_a_page_is_used_by_keyboard_alone_and_fits_a_phone(tmp_path: Path) -> None:
    clip = make_video(tmp_path / "c.mp4", list(range(50)), Fraction(1, 25), (300, 400))
    Image.fromarray(textured(48, 64)).save(tmp_path / "a.png")
    page = tmp_path / "p.html"
    words = ["preview", clip, tmp_path / "a.png", "-n", "light", "-n", "fast", "-s", "2", "-o", page]
    words += ["--at", "0.4", "--at", "1.2", "--threads", "1"]
    assert CliRunner().invoke(app, [str(word) for word in words]).exit_code == 0
    page.write_text(page.read_text() + KEYS)
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--window-size=500,800", "--dump-dom"]
    shown = subprocess.run([*command, page.as_uri()], check=True, capture_output=True, timeout=120, text=True).stdout
    title = re.search("<title>(.*?)</title>", shown)
    assert title is not None
    *seen, focused, wider = json.loads(html.unescape(title[1]))
    at = [[float(slider), int(right), *rest] for slider, right, *rest in seen]
    assert [step[:5] for step in at] == [
        [50, 1, 0, 0, 0], [52, 1, 0, 0, 0], [52, 2, 0, 0, 0], [52, 2, 0, 0, 0], [52, 2, 1, 0, 0], [52, 2, 0, 1, 0],
        [52, 2, 0, 1, 1], [52, 2, 0, 1, 2], [52, 2, 0, 1, 3], [52, 2, 0, 1, 3], [52, 2, 0, 1, 3],
    ]  # fmt: skip
    assert at[-2][5] < at[-3][5] < at[-1][5]
    assert (focused, wider <= 0) == ("1.20 s", True)


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
