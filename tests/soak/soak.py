"""An hour in bad company: ``repsr upscale`` on mixed inputs while everything around it goes wrong.

    python -m tests.soak.soak [--minutes 60] [--seed 0]

Again and again an input and a mishap are drawn by chance: a signal, a full disk, too little memory, a target that
cannot be written, a second process on the same target, a clock that jumps. After each, the final name holds nothing or
the right thing, the exit code is a documented one, and nothing lies about but the job's own folder. Then the same
command is given again in peace, and must end in what an undisturbed run gave, to the byte. Everything happens in one
temporary folder on this machine; the table says what was done and what came of it. Needs Linux, and root to mount.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import io
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from repsr_cli.cli import app
from tests.sample_videos import make_video, other_packets, video_packets
from tests.signals import heed

# Loaded before the processes are forked, so that each starts at once.
for _name in ("batch", "image", "video"):
    importlib.import_module(f"repsr_cli.upscale.{_name}")

# Documented exit codes, as a shell sees them; a process may also die of the signal it was sent.
EXIT_CODES = {0, 2, 3, 4, 5, 130}
OPTIONS = ["-n", "fast", "-s", "2", "--threads", "1", "--preset", "veryfast", "--quiet"]


@dataclass(frozen=True, slots=True)
class Case:
    """An input, what it becomes, and what an undisturbed run made of it."""

    source: Path
    target: Path
    right: str
    seconds: float


def content(path: Path) -> str:
    """What a result is: the packets of a video (its file holds a random identifier), the bytes of anything else."""
    if path.suffix in (".mkv", ".mp4"):
        return hashlib.sha256(repr((video_packets(path), other_packets(path))).encode()).hexdigest()
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Run:
    """The command in a process of its own, forked from this one, so that it is at work at once."""

    words = ""  # the last message of any of them

    def __init__(self, case: Case, prepare: Callable[[], None] = lambda: None, target: Path | None = None) -> None:
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the run
        self.began = time.perf_counter()
        self.process = os.fork()
        if self.process:
            return
        code: int | str | None = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(self.errors.fileno(), 2)
            heed(signal.SIGINT)
            prepare()
            app(["upscale", str(case.source), "-o", str(target or case.target), *OPTIONS])
        except SystemExit as end:
            code = end.code
        except KeyboardInterrupt:
            code = 130  # while commands are still being built: Python's own way to end then
        except BaseException as error:
            os.write(2, "".join(traceback.format_exception(error)).replace("\n", " | ").encode())
        finally:
            os._exit(code if isinstance(code, int) else 0 if code is None else 1)

    def wait(self, limit: float = 120.0) -> int:
        """The exit code, negative for a signal.

        Raises:
            SystemExit: it does not end.
        """
        while time.perf_counter() - self.began < limit:
            ended, status = os.waitpid(self.process, os.WNOHANG)
            if ended:
                Run.words = self.last_words()
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        raise SystemExit(f"hangs for more than {limit:g} s")

    def last_words(self) -> str:
        """The end of its messages."""
        self.errors.seek(0)
        return "".join(self.errors.read().decode(errors="replace").splitlines()[-1:])


def limited(name: int, value: int) -> Callable[[], None]:
    """A limit of the system, set in the child."""

    def prepare() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(name, (value, value))

    return prepare


# Every mishap gets a case and some chance, and returns the exit code.


def kill(case: Case, chance: random.Random) -> int:
    """SIGKILL"""
    return _signalled(case, chance, signal.SIGKILL)


def interrupt(case: Case, chance: random.Random) -> int:
    """Ctrl-C"""
    return _signalled(case, chance, signal.SIGINT)


def terminate(case: Case, chance: random.Random) -> int:
    """SIGTERM"""
    return _signalled(case, chance, signal.SIGTERM)


def _signalled(case: Case, chance: random.Random, number: int) -> int:
    run = Run(case)
    time.sleep(chance.uniform(0, case.seconds))
    os.kill(run.process, number)
    return run.wait()


def file_limit(case: Case, chance: random.Random) -> int:
    """a file may not grow (RLIMIT_FSIZE)"""
    size = case.target.with_name(f"right{case.target.suffix}").stat().st_size
    return Run(case, limited(resource.RLIMIT_FSIZE, chance.randrange(1, size))).wait()


def full_disk(case: Case, chance: random.Random) -> int:
    """a full disk (tmpfs of some kB)"""
    size = case.target.with_name(f"right{case.target.suffix}").stat().st_size
    with tempfile.TemporaryDirectory() as folder:
        options = f"size={max(4096, chance.randrange(1, 2 * size))}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], check=True)
        try:
            target = Path(folder) / case.target.name
            code = Run(case, target=target).wait()
            assert code == 0 or not target.exists(), "a partial file has the final name"
            assert code or content(target) == case.right, "wrong result"
        finally:
            subprocess.run(["umount", folder], check=True)
    return code


def little_memory(case: Case, chance: random.Random) -> int:
    """too little memory (RLIMIT_DATA)"""
    with Path("/proc/self/statm").open() as file:
        held = int(file.read().split()[5]) * resource.getpagesize()
    return Run(case, limited(resource.RLIMIT_DATA, held + chance.randrange(1 << 20, 160 << 20))).wait()


def no_files(case: Case, chance: random.Random) -> int:
    """few open files (RLIMIT_NOFILE)"""
    return Run(case, limited(resource.RLIMIT_NOFILE, chance.randrange(4, 24))).wait()


def read_only(case: Case, chance: random.Random) -> int:
    """a read-only file system"""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", folder], check=True)
        try:
            return Run(case, target=Path(folder) / case.target.name).wait()
        finally:
            subprocess.run(["umount", folder], check=True)


def folder_in_the_way(case: Case, chance: random.Random) -> int:
    """a folder that has the target's name"""
    case.target.mkdir()
    (case.target / "precious").touch()
    try:
        code = Run(case).wait()
        made = {path.name for path in case.target.iterdir()} - {"precious"}
        assert made <= {case.target.name, f"{case.source.stem}_x2{case.target.suffix}"}
        return code
    finally:
        shutil.rmtree(case.target)


def not_a_folder(case: Case, chance: random.Random) -> int:
    """a target below a file, or in /proc"""
    below = case.source / case.target.name if chance.random() < 0.5 else Path("/proc") / case.target.name
    return Run(case, target=below).wait()


def together(case: Case, chance: random.Random) -> int:
    """two processes on one target"""
    one = Run(case)
    time.sleep(chance.uniform(0, case.seconds / 2))
    two = Run(case)
    samples = sorted((one.wait(), two.wait()))
    assert samples in ([0, 0], [0, 2]), f"exit codes {samples}"
    return samples[1]


def clock_jumps(case: Case, chance: random.Random) -> int:
    """a clock that jumps, killed half-way, files dated 1970 and 2099"""
    seed = chance.random()

    def prepare() -> None:
        wild = random.Random(seed)
        time.time = lambda: wild.uniform(0, 4e9)
        time.time_ns = lambda: int(wild.uniform(0, 4e18))

    run = Run(case, prepare)
    time.sleep(chance.uniform(0, case.seconds))
    os.kill(run.process, signal.SIGKILL)
    code = run.wait()
    for path in (case.source, *job_files(case)):
        stamp = chance.choice((0, 4_070_908_800))
        os.utime(path, (stamp, stamp))
    return code


def torn_journal(case: Case, chance: random.Random) -> int:
    """killed, then a file of the job cut short, as by a power cut"""
    code = kill(case, chance)
    files = [path for path in job_files(case) if path.suffix in (".segment", ".part")]
    if files:
        path = chance.choice(files)
        os.truncate(path, chance.randrange(path.stat().st_size + 1))
    return code


MISHAPS = (kill, interrupt, terminate, file_limit, full_disk, little_memory, no_files, read_only, folder_in_the_way,
           not_a_folder, together, clock_jumps, torn_journal)  # fmt: skip


def job_files(case: Case) -> list[Path]:
    """The files of the job's folder."""
    return list(case.target.with_name(f".{case.target.name}.repsr").glob("*"))


def prepare_cases(folder: Path) -> list[Case]:
    """Images and videos, and what they become undisturbed."""
    y, x = np.mgrid[:120, :160]
    pixels = np.stack([x + y, 2 * x, 3 * y], -1).astype(np.uint8)
    frames = [Image.fromarray(np.roll(pixels, 9 * n, 1)) for n in range(6)]
    sources = [folder / name for name in ("a.png", "b.jpg", "c.gif", "d.tif")]
    for source in sources:
        more: dict[str, Any] = (
            {"save_all": True, "append_images": frames[1:]} if source.suffix in (".gif", ".tif") else {}
        )
        frames[0].save(source, **more)
    times = tuple(range(300))
    sources.append(make_video(folder / "e.mp4", times, size=(36, 64), gop=60, options={"bf": "2"}))
    sources.append(make_video(folder / "f.mkv", times, size=(48, 64), gop=60, subtitles=["subrip"]))
    cases = []
    for source in sources:
        place = folder / f"{source.stem}.out"
        place.mkdir()
        case = Case(source, place / f"out{source.suffix}", "", 0.0)
        assert Run(case).wait() == 0, source
        began = time.perf_counter()
        right = place / f"right{source.suffix}"
        assert Run(case, target=right).wait() == 0, source
        seconds = time.perf_counter() - began
        assert content(right) == content(case.target), f"{source}: two runs differ"
        case.target.unlink()
        cases.append(Case(source, case.target, content(right), seconds))
    return cases


def check(case: Case, code: int) -> None:
    """See that the promises hold after a mishap, and that the same command ends well in peace.

    Raises:
        AssertionError: they do not.
    """
    assert code in EXIT_CODES or code in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT), f"exit code {code}"
    assert not case.target.exists() or content(case.target) == case.right, "wrong bytes under the final name"
    there = {path.name for path in case.target.parent.iterdir()}
    left = there - {case.target.name, f"right{case.target.suffix}", f".{case.target.name}.repsr"}
    killed = code < 0
    assert not left or (killed and all(name.startswith(".") for name in left)), f"left behind: {left}"
    for name in left:
        (case.target.parent / name).unlink()
    if job_files(case):  # killed on its last step, between the final name and tidying up
        case.target.unlink(missing_ok=True)
    if not case.target.exists():
        run = Run(case)
        assert run.wait() == 0, f"not well in peace: {run.last_words()}"
        assert content(case.target) == case.right, "other bytes than undisturbed"
    case.target.unlink()
    assert {path.name for path in case.target.parent.iterdir()} == {f"right{case.target.suffix}"}, "left after the end"


def table(counts: dict[str, Counter[str]], minutes: float, seed: int) -> str:
    """The figures as Markdown."""
    total = sum(found.total() for found in counts.values())
    command = f"python -m tests.soak.soak --minutes {minutes:.0f} --seed {seed}"
    lines = [
        f"{total} mishaps in {minutes:.0f} minutes (`{command}`).",
        "",
        "| what was done | times | how the command ended |",
        "|---|---|---|",
    ]
    for name, found in counts.items():
        ends = ", ".join(f"{how} ({times})" for how, times in found.most_common())
        lines.append(f"| {name} | {found.total()} | {ends} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Parse, go wrong for a while, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    words = parser.parse_args()
    chance = random.Random(words.seed)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    broken = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="repsr-soak-") as folder:
        with suppress(SystemExit), redirect_stdout(io.StringIO()):
            app(["upscale", "--help"])  # Typer loads some of itself when first asked, which needs files
        cases = prepare_cases(Path(folder))
        while time.monotonic() - began < 60 * words.minutes:
            case, mishap = chance.choice(cases), chance.choice(MISHAPS)
            name = str(mishap.__doc__)
            try:
                code = mishap(case, chance)
                check(case, code)
                counts[name]["exit code " + str(code) if code >= 0 else signal.Signals(-code).name] += 1
            except AssertionError as error:
                counts[name]["BROKEN"] += 1
                broken.append(f"{name}, {case.source.name}: {error} ({Run.words[-3000:]})")
                print(broken[-1], file=sys.stderr)
                shutil.rmtree(case.target.with_name(f".{case.target.name}.repsr"), ignore_errors=True)
                if case.target.is_file():
                    case.target.unlink()
    print(table(counts, (time.monotonic() - began) / 60, words.seed))
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
