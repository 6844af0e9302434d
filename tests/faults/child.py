"""Run one command line in a forked child that has everything imported."""

from __future__ import annotations

import atexit
import functools
import importlib
import os
import pkgutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

import repsr_cli
from repsr_cli.cli import app
from repsr_cli.engine.backends.quiet_import import quiet_import
from tests.faults.shim import Shim
from tests.signals import heed

# A command that computes for longer hangs, and one that does nothing for so long, however busy the machine is.
SECONDS = 30.0
TICK = os.sysconf("SC_CLK_TCK")


# Imported by each trial anew: they start threads, or do something that a trial should see.
COLD = ("onnx", "ncnn", "ray", "tensorflow", "torch._dynamo", "triton")


def warm_up(names: Iterable[str] = ()) -> None:
    """Import all of the package and these modules, so that a child begins to work at once."""
    with suppress(ImportError):
        quiet_import("openvino")
    package = pkgutil.walk_packages(repsr_cli.__path__, "repsr_cli.")
    for name in (*(module.name for module in package if not module.name.endswith("__main__")), *names):
        if not name.startswith(COLD) and name not in sys.modules:
            with suppress(Exception):  # a backend whose library is not installed
                importlib.import_module(name)
    # What one command imports must not write a table as another ends.
    if (compiler := sys.modules.get("torch._dynamo.utils")) is not None:
        atexit.unregister(compiler.dump_compile_times)


@functools.cache
def command() -> Any:
    """What ``repsr`` runs; building it takes as long as upscaling a small image."""
    return typer.main.get_command(app)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended.

    Attributes:
        code: exit code; the negative number of the signal it died of; None if it had to be stopped.
        seconds: how long it took.
    """

    code: int | None
    stdout: bytes
    stderr: str
    seconds: float

    @property
    def end(self) -> str:
        """For tables: ``exit 3``, ``SIGKILL``, ``hang``."""
        if self.code is None:
            return "hang"
        return f"exit {self.code}" if self.code >= 0 else signal.Signals(-self.code).name


@dataclass(frozen=True, slots=True)
class Setting:
    """What surrounds a command.

    Attributes:
        stdin: a file to read from; default: nothing to read.
        prepare: runs in the child before the command does.
        stopped: runs in the parent each time the child stops itself; gets its process id.
        stdout, stderr: ``file``, ``closed``, ``full`` or ``gone`` (a pipe without a reader).
    """

    stdin: Path | None = None
    prepare: Callable[[], None] = lambda: None
    stopped: Callable[[int], None] = lambda process: None
    stdout: str = "file"
    stderr: str = "file"


def run(argv: Sequence[str], folder: Path, shim: Shim, setting: Setting = Setting()) -> Outcome:
    """Run ``repsr`` with these arguments in a folder."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        command()
        began = time.perf_counter()
        process = os.fork()
        if process == 0:
            _child(argv, folder, shim, setting, (out.fileno(), err.fileno()))
        code = _wait(process, began, setting)
        seconds = time.perf_counter() - began
        out.seek(0)
        err.seek(0)
        return Outcome(code, out.read(), err.read().decode("utf-8", "surrogateescape"), seconds)


def _wait(process: int, began: float, setting: Setting) -> int | None:
    last, idle, now = -1, 0.0, began
    while last < SECONDS * TICK and idle < SECONDS:
        # A pause of this process too, as by a debugger or a sleeping machine, is not the command's.
        now, before = time.perf_counter(), now
        idle += min(now - before, 1.0)
        ended, status = os.waitpid(process, os.WNOHANG | os.WUNTRACED)
        if ended and os.WIFSTOPPED(status):
            setting.stopped(process)
            os.kill(process, signal.SIGCONT)
        elif ended:
            return os.waitstatus_to_exitcode(status)
        else:
            if (ticks := _ticks(process)) != last:
                last, idle = ticks, 0.0
            time.sleep(0.005)
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return None


def _ticks(process: int) -> int:
    """Time that a process and those that it started have been at work, in clock ticks."""
    place = Path(f"/proc/{process}")
    fields = (place / "stat").read_text().rpartition(")")[2].split()
    own = sum(map(int, fields[11:15]))
    for task in (place / "task").iterdir():
        with suppress(OSError):  # a thread or a process that has ended meanwhile
            own += sum(_ticks(int(child)) for child in (task / "children").read_text().split())
    return own


def _child(argv: Sequence[str], folder: Path, shim: Shim, setting: Setting, files: tuple[int, int]) -> None:
    code: Any = 1
    try:
        os.setpgid(0, 0)
        heed(signal.SIGINT)
        os.chdir(folder)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        os.dup2(os.open(setting.stdin or os.devnull, os.O_RDONLY), 0)
        os.dup2(files[1], 2)
        _stream(1, setting.stdout, files[0])
        setting.prepare()
        if setting.stderr != "file":
            _stream(2, setting.stderr, files[1])
        shim.arm()
        code = _ended(argv)
    finally:
        os._exit(code if isinstance(code, int) else 1)


def _ended(argv: Sequence[str]) -> int:
    """The exit code, as the interpreter would give it."""
    code = 1
    try:
        command()(list(argv), prog_name="repsr")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        code = 130  # before the command has its own handler
    except BaseException as error:
        _say("".join(traceback.format_exception(error)))
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
    except BaseException as error:
        _say(f"at exit: {error!r}")
        return code or 120
    return code


def _say(text: str) -> None:
    with suppress(OSError):
        os.write(2, text.encode("utf-8", "surrogateescape"))


def _stream(number: int, kind: str, file: int) -> None:
    """Set up stdout or stderr."""
    if kind == "file":
        os.dup2(file, number)
    elif kind == "full":
        full = os.open("/dev/full", os.O_WRONLY)  # which gets the number of a stream that is closed
        os.dup2(full, number)
        os.close(full)
    elif kind == "gone":
        reading, writing = os.pipe()
        os.close(reading)
        os.dup2(writing, number)
        os.close(writing)
    else:
        os.close(number)
        if number == 1:
            sys.stdout = None
        else:
            sys.stderr = None
