"""Print results on stdout and progress on stderr, and turn errors into exit codes. Rich is imported when it is used."""

from __future__ import annotations

import functools
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock, current_thread, main_thread
from typing import TYPE_CHECKING, Any, ParamSpec

import typer

from repsr_cli.cli.streams import Stream, visible
from repsr_cli.errors import Interrupted, RepsrError, from_system
from repsr_cli.reporting import Progress, Reporter

if TYPE_CHECKING:
    from typing import Self

    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import ProgressColumn, TaskID
    from rich.text import Text

P = ParamSpec("P")

PLAIN_LINE_SECONDS = 5.0


def friendly(command: Callable[P, None]) -> Callable[P, None]:
    """Let a command end on a ``RepsrError`` with one line on stderr and the error's exit code.

    Anything else is a bug and keeps its traceback (exit code 1). Ctrl-C ends with 130, and so does SIGTERM, by which
    clusters stop a job.
    """

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with _terminate_like_interrupt():
                command(*args, **kwargs)
        except RepsrError as error:
            print_error(error)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            print_error(Interrupted("stopped", "no unfinished file was left under its final name"))
            raise typer.Exit(Interrupted.exit_code) from error
        except Exception as error:
            refused = from_system(error)
            if refused is None:
                raise
            print_error(refused)
            raise typer.Exit(refused.exit_code) from error

    return wrapped


@contextmanager
def _terminate_like_interrupt() -> Iterator[None]:
    if current_thread() is not main_thread():  # only the main thread may set handlers
        yield
        return

    def terminate(*_signal: object) -> None:
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells have it for what they start in the background
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)

    # SIGHUP: the terminal was closed; ignored where nohup started the command, or where the system has none.
    numbers = [signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        numbers.append(signal.SIGHUP)
    previous = {number: signal.signal(number, terminate) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def stderr_console() -> Console:
    """A Rich console on stderr that prints what it is given: no markup, no highlighting, no wrapping at 80 columns."""
    from rich.console import Console

    return Console(stderr=True, markup=False, highlight=False, emoji=False, soft_wrap=True)


def print_error(error: RepsrError) -> None:
    """Say on stderr what failed and what to do, also under ``--quiet``."""
    try:
        console, text = stderr_console(), _text_of(error)
    except (ImportError, OSError, MemoryError):  # the error may be that no file can be opened
        sys.stderr.write(f"error: {visible(str(error))}\n")
    else:
        console.print(text)


def _text_of(error: RepsrError) -> Text:
    from rich.text import Text

    return Text.assemble(("error: ", "bold red"), visible(str(error)))


def print_line(line: str, *, result: bool = False) -> None:
    """Write one line to stdout, for machines, at once.

    File names come out byte for byte as the system has them; what stdout's encoding cannot show otherwise is escaped.
    On a terminal, so are control characters.

    Args:
        result: whether it is what the command is for; if not, nothing is lost where stdout is closed.
    """
    encoding = sys.stdout.encoding or "utf-8"
    if sys.stdout.isatty():
        line = visible(line)
    try:
        data = line.encode(encoding, "surrogateescape")
    except UnicodeEncodeError:
        data = line.encode(encoding, "backslashreplace")
    out = sys.stdout if isinstance(sys.stdout, Stream) else Stream(sys.stdout)
    out.write_bytes(data + b"\n", needed=result)


def print_json(record: Mapping[str, Any], *, result: bool = False) -> None:
    """Write one record to stdout as one line of JSON, as ``print_line``; paths become strings."""
    import json

    print_line(json.dumps(record, default=str), result=result)


class Board:
    """Where jobs show how far they are: bars on a terminal, a line now and then elsewhere, nothing under ``--quiet``.

    Use as a context manager. Methods may be called from any thread.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self._bars: Bars | None = None
        self._lock = Lock()

    @functools.cached_property
    def console(self) -> Console:
        """Where lines and bars are printed; Rich is not imported before."""
        return stderr_console()

    def __enter__(self) -> Self:
        if not self.quiet and self.console.is_terminal:
            self._bars = self._make_bars()
            self._bars.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def say(self, line: str) -> None:
        """Print one line for people, above the bars."""
        if not self.quiet:
            self.console.print(visible(line))

    def fail(self, error: RepsrError) -> None:
        """Print an error among the talk, above the bars, also under ``--quiet``."""
        self.console.print(_text_of(error))

    def reporter(self, title: str) -> Reporter:
        """A reporter for one job.

        Args:
            title: the job's name as shown, usually the input's file name.
        """
        if self.quiet:
            return Reporter()
        title = visible(title)
        return Reporter(progress=self._bar(title) if self._bars is not None else self._lines(title), say=self.say)

    def _make_bars(self) -> Bars:
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns: list[ProgressColumn] = [
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}", markup=False),
            TimeRemainingColumn(compact=True),
        ]
        return Bars(*columns, console=self.console, transient=True, refresh_per_second=8)

    def _bar(self, title: str) -> Callable[[Progress], None]:
        shown: TaskID | None = None
        pace = Pace()

        def advance(progress: Progress) -> None:
            nonlocal shown
            with self._lock:
                bars = self._bars
                if bars is None:
                    return
                first = shown is None
                if shown is None:
                    shown = bars.add_task(shorten(title, 40), total=progress.total, count="")
                each = pace.seconds_each(progress)
                count = describe(progress, each)
                if progress.unit == "file" and (left := remaining(progress, each)):  # Rich looks back 30 seconds only
                    count += f", {left} left"
                bars.update(shown, completed=progress.done, total=progress.total, count=count, refresh=first)
                if progress.done == progress.total:
                    bars.update(shown, visible=False)

        return advance

    def _lines(self, title: str) -> Callable[[Progress], None]:
        last = time.monotonic()
        pace = Pace()

        def advance(progress: Progress) -> None:
            nonlocal last
            now = time.monotonic()
            with self._lock:
                each = pace.seconds_each(progress)
                if now - last < PLAIN_LINE_SECONDS:
                    return
                last = now
            left = remaining(progress, each)
            self.say(f"{title}: {describe(progress, each)}" + (f", {left} left" if left else ""))

        return advance


class Pace:
    """How long one unit of work takes, from the first report on.

    What comes before it counts for nothing: loading, compiling and warming up happen once, and what an earlier run has
    finished was not done now.
    """

    def __init__(self) -> None:
        self._began = 0.0
        self._first: int | None = None

    def seconds_each(self, progress: Progress) -> float | None:
        """The mean so far; None before there is a second report."""
        now = time.monotonic()
        if self._first is None:
            self._began, self._first = now, progress.done
        done = progress.done - self._first
        return (now - self._began) / done if done > 0 else None


def describe(progress: Progress, seconds_each: float | None) -> str:
    """How far and how fast, e.g. ``120 of 900 frames, 24.1 fps``; a video's length may be unknown or an estimate."""
    of = f" of {progress.total}" if progress.total else ""
    text = f"{progress.done}{of} {progress.unit}{'' if progress.total == 1 else 's'}"
    if progress.unit == "frame" and seconds_each:
        text += f", {1 / seconds_each:.3g} fps"
    return text


def remaining(progress: Progress, seconds_each: float | None) -> str:
    """The time left at the mean speed so far, or nothing if that cannot be known."""
    if not progress.total or not seconds_each or progress.done > progress.total:
        return ""
    return clock(seconds_each * (progress.total - progress.done))


def clock(seconds: float) -> str:
    """A duration as people read it: ``8.3 s``, ``4 min 10 s``, ``2 h 05 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def shorten(title: str, width: int) -> str:
    """The title, its middle left out if it is longer than ``width`` characters."""
    if len(title) <= width:
        return title
    head = (width - 1) // 2
    return f"{title[:head]}…{title[len(title) - (width - 1 - head) :]}"
