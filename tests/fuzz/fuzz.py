"""Hostile input through an entry point, for as long as you like.

    python -m tests.fuzz.fuzz network|image|video [--minutes 10] [--first 0] [--seed 0]
    python -m tests.fuzz.fuzz network --replay FILE

Every input is a file of the corpus, damaged by chance; input N of a seed is always the same. A child process opens
one after the other. It may end each in a result or in an error of repsr's own; whatever else happens (another
exception, a signal, more than a minute, memory that grows by more than a gigabyte) is a finding: the input is kept
under ``findings/``, and the exit code is 1. At the end stand the figures, as one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fuzz.mutate import mutated

CORPUS = Path(__file__).parent / "corpus"
SECONDS = 60.0
GROWTH = 1 << 30
MEMORY = 6 << 30
# A thousand inputs to a child, so that what leaks shows, and what it leaks does not add up for ever.
BATCH = 1000
# What is large on purpose is not a finding: images and frames of more pixels are refused, as they are above the usual
# limits, which no test has the time for.
PIXELS = 1 << 18


def open_network(path: Path, chance: random.Random) -> None:
    """Load a network, and run it if it is one."""
    import torch

    from repsr_cli.model.checkpoint import load_plain

    net = load_plain(path)
    with torch.inference_mode():
        net(torch.zeros(1, net.spec.colors, 4, 4))


def upscale_image(path: Path, chance: random.Random) -> None:
    """Enlarge an image into one of the formats."""
    from repsr_cli.reporting import Reporter
    from repsr_cli.upscale.request import Request
    from tests.upscaling import upscale_image

    target = path.with_name("out" + chance.choice((".png", ".tif", ".jpg", ".webp", ".gif")))
    options = Request.of(scale=2.0, allow_loss=chance.random() < 0.9, max_pixels=PIXELS)
    upscale_image(path, target, _identity(), options, Reporter())


def upscale_video(path: Path, chance: random.Random) -> None:
    """Enlarge a video into one of the containers."""
    from repsr_cli.reporting import Reporter
    from repsr_cli.upscale.request import Request
    from repsr_cli.video import open as video
    from tests.upscaling import upscale_video

    video.MAX_PIXELS = PIXELS
    target = path.with_name("out" + chance.choice((".mkv", ".mkv", ".mp4", ".mov")))
    options = Request.of(
        scale=2.0,
        allow_loss=True,
        on_error=chance.choice(("stop", "keep")),
        deinterlace=chance.random() < 0.1,
        preset="ultrafast",
        codec="libx264",
    )
    upscale_video(path, target, _identity(), options, Reporter())


def _identity() -> Any:
    from repsr_cli.engine.upscaler import Upscaler
    from repsr_cli.model.plain import identity_network

    global _UPSCALER
    if _UPSCALER is None:
        _UPSCALER = Upscaler(identity_network(2), device="cpu", threads=1)
    return _UPSCALER


_UPSCALER: object = None
ENTRY_POINTS: dict[str, Callable[[Path, random.Random], None]] = {
    "network": open_network,
    "image": upscale_image,
    "video": upscale_video,
}


def make_input(kind: str, number: int, seed: int) -> tuple[bytes, random.Random]:
    """Input ``number`` of a kind, and the chance that goes on from there."""
    seeds = [path.read_bytes() for path in sorted((CORPUS / kind).iterdir())]
    chance = random.Random(f"{kind} {seed} {number}")
    return mutated(seeds, chance), chance


def attempt(kind: str, data: bytes, chance: random.Random, folder: Path) -> str:
    """Open one input; returns ``done``, the name of repsr's error, or a traceback."""
    from repsr_cli.errors import RepsrError

    path = folder / "input.bin"
    path.write_bytes(data)
    try:
        ENTRY_POINTS[kind](path, chance)
        return "done"
    except RepsrError as error:
        return type(error).__name__
    except Exception:
        return traceback.format_exc()
    finally:
        for left in folder.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def child(kind: str, first: int, seed: int, pipe: int) -> None:
    """Open inputs until stopped; report when one begins and what became of it."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import torch

    torch.set_num_threads(1)
    with os.fdopen(pipe, "w", buffering=1) as reports, tempfile.TemporaryDirectory() as folder:
        for number in range(first, first + BATCH):
            data, chance = make_input(kind, number, seed)
            reports.write(json.dumps({"begin": number}) + "\n")
            began = time.perf_counter()
            before = _peak()
            result = attempt(kind, data, chance, Path(folder))
            # The first inputs load the libraries.
            grew = _peak() - before if number > first + 20 else 0
            record = {"number": number, "result": result, "seconds": time.perf_counter() - began, "grew": grew}
            reports.write(json.dumps(record | {"peak": _peak()}) + "\n")


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Run:
    """A run of many inputs, and what became of them."""

    def __init__(self, kind: str, seed: int) -> None:
        self.kind, self.seed = kind, seed
        self.results: Counter[str] = Counter()
        self.findings: list[str] = []
        self.peak, self.slowest = 0, 0.0

    def until(self, end: float, number: int) -> None:
        """Open inputs from ``number`` on, until a time."""
        while time.monotonic() < end:
            number = self._batch(end, number)

    def _batch(self, end: float, number: int) -> int:
        reading, writing = os.pipe()
        command = [sys.executable, "-m", "tests.fuzz.fuzz", self.kind, "--child", str(writing)]
        command += ["--first", str(number), "--seed", str(self.seed)]
        with tempfile.TemporaryFile() as noise:
            process = subprocess.Popen(command, pass_fds=(writing,), stdout=noise, stderr=noise)
            os.close(writing)
            try:
                with os.fdopen(reading) as reports:
                    return self._listen(process, reports.fileno(), end, number)
            finally:
                process.kill()
                process.wait()

    def _listen(self, process: subprocess.Popen[bytes], reports: int, end: float, number: int) -> int:
        pending = b""
        while True:
            ready = select.select([reports], [], [], SECONDS)[0]
            chunk = os.read(reports, 65536) if ready else b""
            if not ready:
                self._found(number, f"hangs for more than {SECONDS:g} s")
                return number + 1
            if not chunk:
                code = process.wait()
                if code:
                    how = signal.Signals(-code).name if code < 0 else f"code {code}"
                    self._found(number, f"ends the process ({how})")
                return number + 1
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                record = json.loads(line)
                number = record.get("begin", number)
                if "result" in record:
                    self._count(record)
            if time.monotonic() > end:
                return number

    def _count(self, record: dict[str, object]) -> None:
        result = str(record["result"])
        self.slowest = max(self.slowest, float(str(record["seconds"])))
        self.peak = max(self.peak, int(str(record["peak"])))
        self.results[result if "\n" not in result else "crash"] += 1
        if "\n" in result:
            self._found(int(str(record["number"])), result)
        elif int(str(record["grew"])) > GROWTH:
            self._found(int(str(record["number"])), f"takes {record['grew']} bytes")

    def _found(self, number: int, what: str) -> None:
        self.findings.append(what)
        folder = Path("findings")
        folder.mkdir(exist_ok=True)
        path = folder / f"{self.kind}-{self.seed}-{number}.bin"
        path.write_bytes(make_input(self.kind, number, self.seed)[0])
        print(f"{path}: {what}", file=sys.stderr)


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=ENTRY_POINTS)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--replay", type=Path)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.child is not None:
        child(words.kind, words.first, words.seed, words.child)
        return
    if words.replay is not None:
        with tempfile.TemporaryDirectory() as folder:
            print(attempt(words.kind, words.replay.read_bytes(), random.Random(0), Path(folder)))
        return
    began = time.monotonic()
    run = Run(words.kind, words.seed)
    run.until(began + 60 * words.minutes, words.first)
    figures = {
        "kind": words.kind,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "inputs": run.results.total(),
        "results": dict(run.results.most_common()),
        "findings": len(run.findings),
        "slowest_seconds": round(run.slowest, 2),
        "peak_megabytes": run.peak >> 20,
    }
    print(json.dumps(figures))
    sys.exit(bool(run.findings))


if __name__ == "__main__":
    main()
