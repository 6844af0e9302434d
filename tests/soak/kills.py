"""Kills ``repsr upscale`` at random moments, gives the same command again, and compares with an uninterrupted run.

    python -m tests.soak.kills [--kills 200] [--seed 0] [--video FILE] [-- OPTIONS OF repsr upscale]

A job is killed (SIGKILL) again and again, each time after a random part of the time that an uninterrupted run takes,
until one ends before its turn; then comes the next job, until there were so many kills. After every kill the final name
must hold nothing or the whole result. Every result must equal the uninterrupted one, byte for byte, and leave nothing
beside it.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from fractions import Fraction
from pathlib import Path

from repsr_cli.cli import app
from tests.sample_videos import make_video, video_packets

# Loaded before the processes are forked, so that each starts at once; a job that goes on needs torch.
for _name in ("torch", "repsr_cli.upscale.batch", "repsr_cli.upscale.video"):
    importlib.import_module(_name)

OPTIONS = ["-n", "fast", "-s", "2", "--threads", "1", "--preset", "veryfast"]


def made_video(folder: Path) -> Path:
    """A video of 600 frames, five segments, with sound and subtitles."""
    times = [1001 * n for n in range(600)]
    return make_video(folder / "clip.mp4", times, Fraction(1, 30000), (36, 64), gop=60, subtitles=["mov_text"])


def upscale(source: Path, target: Path, options: list[str], seconds: float | None = None) -> bool:
    """Run the command; kill it after so many seconds. Whether it came to its end.

    A process of its own, forked from this one: what it imports is there already, so that it is killed at work.

    Raises:
        SystemExit: it failed.
    """
    began = time.perf_counter()
    process = os.fork()
    if process == 0:
        code: int | str | None = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            app(["upscale", str(source), "-o", str(target), *options, "--quiet"])
        except SystemExit as end:
            code = end.code
        finally:
            os._exit(code if isinstance(code, int) else 0 if code is None else 1)
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            break
        if seconds is not None and time.perf_counter() - began > seconds:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return False
        time.sleep(0.001)
    if status:
        raise SystemExit(f"exit code {os.waitstatus_to_exitcode(status)}")
    return True


def soak(source: Path, folder: Path, kills: int, seed: int, options: list[str]) -> Counter[str]:
    """Kill so many runs; returns the figures.

    Raises:
        SystemExit: a promise was broken.
    """
    chance = random.Random(seed)
    upscale(source, folder / "whole.mp4", options)
    began = time.perf_counter()
    upscale(source, folder / "again.mp4", options)
    whole = time.perf_counter() - began
    wanted = (folder / "whole.mp4").read_bytes()
    packets = video_packets(folder / "whole.mp4")
    if (folder / "again.mp4").read_bytes() != wanted:
        raise SystemExit("two uninterrupted runs differ")
    target = folder / "killed.mp4"
    figures: Counter[str] = Counter()
    while figures["kills"] < kills:
        resumed = False
        # At any time, reaching past the end; the last job ends by itself.
        while not upscale(source, target, options, 1.1 * whole * chance.random() if figures["kills"] < kills else None):
            figures["kills"] += 1
            if target.exists():  # killed between the rename and the end: the same command must recognise it as finished
                figures["kills after the result had its name"] += 1
                if target.read_bytes() != wanted:
                    raise SystemExit(f"kill {figures['kills']}: a partial file bears the final name")
            journal = folder / ".killed.mp4.repsr"
            segments = len(list(journal.glob("*.segment")))
            figures["kills with finished segments"] += segments > 0
            figures["kills while a segment was written"] += any(journal.glob("*.part"))
            figures["kills while joining"] += (journal / "joined.mp4").exists()
            resumed = resumed or segments > 0
            if figures["kills"] % 20 == 0:
                print(dict(figures), flush=True, file=sys.stderr)
        figures["results"] += 1
        figures["of them resumed"] += resumed
        if target.read_bytes() != wanted or video_packets(target) != packets:
            raise SystemExit(f"result {figures['results']} differs from that of the uninterrupted run")
        if left := [path.name for path in folder.iterdir() if path.name.startswith(".")]:
            raise SystemExit(f"left behind: {', '.join(left)}")
        target.unlink()
    figures["packets"] = len(packets)
    return figures


def main() -> None:
    """Read the command line, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--video", type=Path, help="default: one that is made")
    parser.add_argument("options", nargs="*", default=OPTIONS, help="of repsr upscale")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = asked.video or made_video(folder)
        figures = soak(source, folder, asked.kills, asked.seed, asked.options)
    print(", ".join(f"{name} {count}" for name, count in figures.items()))


if __name__ == "__main__":
    main()
