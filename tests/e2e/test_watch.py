"""Test that a watched folder is upscaled: every file once and complete, whatever happens to the process."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from repsr_cli.model.checkpoint import save_plain
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.spec import Spec
from repsr_cli.video.probe import probe
from tests.conftest import textured
from tests.sample_videos import make_video
from tests.signals import heed

pytest.importorskip("watchfiles", reason="watch needs watchfiles")


RUNNING: list[subprocess.Popen[bytes]] = []


@pytest.fixture(autouse=True)
def _nothing_goes_on_watching() -> Iterator[None]:
    """A test that fails leaves no process behind."""
    yield
    while RUNNING:
        process = RUNNING.pop()
        process.kill()
        process.wait()


class Watcher:
    """``repsr watch`` as a process of its own."""

    def __init__(self, folder: Path, output: Path, *options: object) -> None:
        self.log = output.with_name(f"log-{time.monotonic_ns()}")
        command = [sys.executable, "-m", "repsr_cli", "watch", folder, "-o", output, "--settle", "0.3", *options]
        with self.log.open("wb") as log, self.log.with_suffix(".out").open("wb") as out:
            words = [str(word) for word in command]
            self.process = subprocess.Popen(words, stdout=out, stderr=log, preexec_fn=partial(heed, signal.SIGINT))
        RUNNING.append(self.process)

    def printed(self) -> list[str]:
        return self.log.with_suffix(".out").read_text().splitlines()

    def errors(self) -> str:
        return self.log.read_text()

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)

    def until(self, condition: Callable[[], bool], seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.errors()
            assert time.monotonic() < end, self.errors()
            time.sleep(0.02)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_plain(path, PlainSR(Spec(2, channels=8, blocks=2)), {})
    return path


def image(path: Path, seed: int = 0, height: int = 40) -> None:
    """A file that appears slowly, as a copy over a network does."""
    whole = path.with_name(f".{path.name}.whole.png")
    Image.fromarray(textured(height, 56, seed)).save(whole)
    data = whole.read_bytes()
    whole.unlink()
    with path.open("wb") as file:
        file.write(data[: len(data) // 2])
        file.flush()
        time.sleep(0.05)
        file.write(data[len(data) // 2 :])


def results(output: Path) -> list[Path]:
    return sorted(path for path in output.rglob("*") if path.is_file() and ".repsr-watch" not in path.parts)


def whole(output: Path) -> list[Path]:
    """Files under their final names: neither hidden nor in a hidden folder."""
    return [path for path in results(output) if not any(part.startswith(".") for part in path.parts)]


@pytest.mark.slow
def test_thirty_files_and_two_kills(tmp_path: Path, model: Path) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    options = ("-n", model, "-s", "2", "--threads", "1", "--crf", "30")
    watchers = [Watcher(folder, output, *options)]
    before: dict[Path, tuple[int, int]] = {}

    def kill() -> None:
        assert watchers[-1].end(signal.SIGKILL) == -signal.SIGKILL
        before.update({path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in whole(output)})
        watchers.append(Watcher(folder, output, *options))

    for number in range(30):
        if number % 10 == 4:
            make_video(folder / f".{number}.mp4", list(range(600)), Fraction(1, 25)).rename(folder / f"{number}.mp4")
        else:
            image(folder / f"{number}.png", number, height=400 if number % 5 == 0 else 40)
        if number == 14:
            watchers[-1].until(lambda: len(results(output)) >= 4)
            kill()
    watchers[-1].until(lambda: any(path.suffix == ".segment" for path in results(output)))
    kill()
    watchers[-1].until(lambda: len(whole(output)) == 30)
    watchers[-1].until(lambda: whole(output) == results(output))
    assert watchers[-1].end() == 0

    names = {f"{number}_x2.{'mp4' if number % 10 == 4 else 'png'}" for number in range(30)}
    assert {path.name for path in results(output)} == names
    for path in results(output):
        number = int(path.name.split("_")[0])
        if path.suffix == ".mp4":
            assert probe(path).display_size == tuple(2 * side for side in probe(folder / f"{number}.mp4").display_size)
        else:
            with Image.open(path) as shown:
                shown.load()
                assert shown.size == (112, 800 if number % 5 == 0 else 80)
    for path, identity in before.items():
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == identity, path
    printed = [line for watcher in watchers for line in watcher.printed()]
    assert len(printed) == len(set(printed))


def test_a_failure_stops_nothing_and_is_tried_again_when_the_file_changes(tmp_path: Path, model: Path) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing else")
    watcher = Watcher(folder, output, "-n", model, "-s", "2")
    watcher.until(lambda: "a.png: " in watcher.errors())
    image(folder / "b.png")
    (folder / "c.png.part").write_bytes(b"begun")
    watcher.until(lambda: (output / "b_x2.png").exists())
    time.sleep(1)  # several looks at the folder
    assert watcher.errors().count("error: ") == 1
    image(folder / "a.png")
    watcher.until(lambda: str(output / "a_x2.png") in watcher.printed())
    assert watcher.end(signal.SIGINT) == 0
    assert sorted(watcher.printed()) == [str(output / "a_x2.png"), str(output / "b_x2.png")]
    assert "part" not in watcher.errors()


def test_an_image_that_lands_while_videos_wait_is_upscaled_before_them(tmp_path: Path, model: Path) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for number in range(5):
        make_video(folder / f"{number}.mp4", list(range(100)), Fraction(1, 25))
    watcher = Watcher(folder, output, "-n", model, "-s", "2", "--threads", "1", "--crf", "30")
    watcher.until(lambda: bool(results(output)))
    image(folder / "a.png")
    watcher.until(lambda: len(watcher.printed()) == 6)
    assert watcher.end() == 0
    printed = [Path(line).name for line in watcher.printed()]
    assert printed.index("a_x2.png") < 5
    assert [name for name in printed if name != "a_x2.png"] == [f"{number}_x2.mp4" for number in range(5)]


def test_one_process_per_output_folder(tmp_path: Path, model: Path) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    first = Watcher(folder, output, "-n", model, "-s", "2")
    first.until(lambda: "watching" in first.errors())
    second = Watcher(folder, output, "-n", model, "-s", "2")
    assert second.process.wait(60) == 2
    assert f"being written by another process ({first.process.pid})" in second.errors()
    assert first.end() == 0


def test_stopped_within_a_video_it_continues_there(tmp_path: Path, model: Path) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    (folder / "deep").mkdir(parents=True)
    make_video(folder / "deep" / "long.mkv", [40 * t for t in range(400)], Fraction(1, 1000), gop=25)
    options = ("-n", model, "-s", "2", "-r", "--threads", "1")
    watcher = Watcher(folder, output, *options)
    watcher.until(lambda: any(output.rglob("*.segment")))
    assert watcher.end() == 0
    assert not (output / "deep" / "long_x2.mkv").exists()
    again = Watcher(folder, output, *options)
    again.until(lambda: (output / "deep" / "long_x2.mkv").exists())
    assert again.end() == 0
