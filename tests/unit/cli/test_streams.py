"""cli/streams.py: streams that are closed, full or without a reader cost a command its text and nothing else."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from repsr_cli.cli import app
from repsr_cli.cli.console import Board
from repsr_cli.cli.streams import Stream, visible
from repsr_cli.errors import MediaError
from tests.sample_videos import make_video

REPSR = f"'{sys.executable}' -m repsr_cli"


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    command = command.replace("repsr ", f"{REPSR} ", 1)
    return subprocess.run(["bash", "-c", command], cwd=folder, env=env, capture_output=True, text=True, timeout=120)


def image(path: Path) -> Path:
    Image.fromarray(np.full((6, 8, 3), 120, np.uint8)).save(path, format="PNG")
    return path


needs_posix = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


# The first is two jobs; the second starts in a fraction of the time.
UPSCALE, COMPARE = "upscale a.png b.png -n fast -s 2", "compare a.png b.png -o c.png"
MADE = {UPSCALE: ["a_x2.png", "b_x2.png"], COMPARE: ["c.png"]}


@needs_posix
@pytest.mark.parametrize(
    ("command", "streams", "code"),
    [
        (COMPARE, ">&-", 0),
        (COMPARE, "2>&-", 0),
        (UPSCALE, "<&- >&- 2>&-", 0),
        (UPSCALE, "2>/dev/full", 0),
        (COMPARE, ">&- 2>/dev/full", 0),
        (UPSCALE, ">/dev/full", 3),
        (COMPARE, "| true; exit ${PIPESTATUS[0]}", 0),
        (UPSCALE, "2>&1 | true; exit ${PIPESTATUS[0]}", 0),
    ],
)
def test_the_work_is_done_whatever_the_streams(command: str, streams: str, code: int, tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    image(tmp_path / "b.png")
    result = shell(f"repsr {command} {streams}", tmp_path)
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "b.png", *MADE[command]}
    with Image.open(tmp_path / MADE[command][-1]) as whole:
        whole.load()


@needs_posix
@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("repsr models --no-speed | head -1 >/dev/null; exit ${PIPESTATUS[0]}", 0),
        ("repsr --help | true; exit ${PIPESTATUS[0]}", 0),
        ("repsr models --no-speed >/dev/full", 3),
        ("repsr models --no-speed --json >&-", 3),
        ("repsr --version >/dev/full", 3),
    ],
)
def test_results_that_were_printed_in_vain(command: str, code: int, tmp_path: Path) -> None:
    result = shell(command, tmp_path)
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    assert ("standard output: cannot be written" in result.stderr) == bool(code)


@needs_posix
@pytest.mark.parametrize("stdout", [">&-", ">/dev/full", "| true; exit ${PIPESTATUS[0]}"])
def test_frames_that_nobody_gets_are_a_failure(stdout: str, tmp_path: Path) -> None:
    make_video(tmp_path / "a.mkv", range(30), audio=0)
    result = shell(f"repsr upscale a.mkv -n fast -s 2 --engine torch -o - {stdout}", tmp_path)
    assert result.returncode == 3, result.stderr
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr


@needs_posix
def test_closed_standard_input(tmp_path: Path) -> None:
    result = shell("repsr upscale - -n fast -s 2 -o a.mkv <&-", tmp_path)
    assert result.returncode == 3, result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_no_file_gets_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    program = (
        "import os, sys; from repsr_cli.cli import app\n"
        "try: app(['models', '--no-speed'])\n"
        "except SystemExit: pass\n"
        "sys.exit(os.open('a.png', os.O_RDONLY) <= 2)"
    )
    result = shell(f"'{sys.executable}' -c \"{program}\" <&- >&-", tmp_path)
    assert result.returncode == 0, result.stderr


def test_control_characters_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert visible("a\x1b[31m\x07\x7f\x9b\n\u202eb 写真.png") == r"a\x1b[31m\x07\x7f\x9b\x0a\u202eb 写真.png"
    name = "\x1b]0;title\x07\nerror: a.png"
    with Board() as board:
        board.say(f"{name}: done")
        board.fail(MediaError(name, "is torn"))
    shown = r"\x1b]0;title\x07\x0aerror: a.png"
    assert capsys.readouterr().err == f"{shown}: done\nerror: {shown}: is torn.\n"


@pytest.mark.skipif(os.name == "nt", reason="no such names there")
@pytest.mark.parametrize(
    "line",
    [
        "upscale ESCa.png -n fast -s 2",
        "upscale ESCnone.png @list.txt -s 2",
        "upscale ESCa.png -n ESC",
        "upscale --ESC",
        "upscale ESCa.png -s ESC",
        "upscale ESCa.png --codec ESC",
        "ESC",
        "compare ESCa.png ESCb.png",
        "fuse ESCa.png -o a.safetensors",
        "train ESC.toml -o out",
        "eval ESC -n fast",
    ],
)
def test_no_command_obeys_names(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    image(Path("\x1b[31ma.png"))
    Path("list.txt").write_text("\x1b[32mb.png\n")
    result = CliRunner().invoke(app, line.replace("ESC", "\x1b[31m").split())
    assert "\x1b" not in result.stderr
    assert r"\x1b[31m" in result.stderr


def test_a_stream_falls_silent_after_its_first_error() -> None:
    class Full(io.StringIO):
        tries = 0

        def write(self, text: str) -> int:
            self.tries += 1
            raise OSError(28, "No space left on device")

    full = Full()
    stream = Stream(full)
    assert stream.write("ab") == 2
    stream.writelines(["a", "b"])
    assert full.tries == 1
    assert stream.error is not None
