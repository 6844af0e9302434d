"""Upscale files that arrive in a folder, once they are complete."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from repsr_cli.errors import MediaError, RepsrError, UsageError, from_system, shortage
from repsr_cli.files import Noting, is_temporary, remove_leftovers, write_text
from repsr_cli.reporting import Outcome, Reporter
from repsr_cli.upscale.inputs import HIDDEN, Failure, Inputs, files_in, inputs_of, real_path
from repsr_cli.upscale.jobs import Job, check_naming, check_options, plan_found
from repsr_cli.upscale.request import Naming, Request
from repsr_cli.upscale.watch_options import WatchOptions
from repsr_cli.video.lock import FolderLock

if TYPE_CHECKING:  # torch
    from repsr_cli.upscale.models import ModelCache

# Size and time of last change, in nanoseconds.
Stamp = tuple[int, int]

# In the output folder: the lock, and the record of what was begun.
RECORD_FOLDER = ".repsr-watch"
_RECORD = "begun.json"
# How often a file may take the process down with it, before it is left alone.
MAX_DEATHS = 5
# Images that are upscaled between two looks at the folder.
IMAGES_AT_ONCE = 64
# Longest time between two looks at the folder; network shares report no changes.
_LOOK_SECONDS = 10.0
# What programs call files that they have not finished.
_UNFINISHED = frozenset({".part", ".partial", ".crdownload", ".download", ".opdownload", ".filepart", ".tmp", ".!qb"})


@dataclass(frozen=True, slots=True)
class Skipped:
    """A target that exists already."""

    target: Path


Result = Outcome | Failure | Skipped


def watch(
    folder: Path,
    request: Request,
    naming: Naming,
    options: WatchOptions,
    reporter_for: Callable[[Job], Reporter],
    say: Callable[[str], None],
) -> Generator[Result, None, None]:
    """Upscale what is in a folder, and whatever lands in it, until interrupted.

    Targets that exist are left as they are. A file that failed is tried again when it changes, or by the next run. Only
    one process can write to an output folder in this way.

    Args:
        request: the request, with its scale settled.
        naming: where targets go; ``output`` is a folder.

    Yields:
        What became of each file, as soon as it is known.

    Raises:
        UsageError: the request makes no sense, or another process watches for the same output folder.
        MediaError: there is no such folder, or the output folder cannot be made.
        Interrupted: the user stopped the work on a file.
        KeyboardInterrupt: the user stopped it between files.
    """
    output = _check(folder, request, naming, options)
    naming = replace(naming, skip_existing=True)
    changes = _changes(folder, naming, options.settle)
    from repsr_cli.upscale.models import ModelCache, check_compute

    check_compute(request)
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock = FolderLock.take(output / RECORD_FOLDER, output)
    except OSError as error:
        raise MediaError(
            output, f"cannot be written to ({error.strerror})", "Choose another folder with -o."
        ) from error
    try:
        lock.clear(is_temporary)
        begun = _Begun(output / RECORD_FOLDER / _RECORD)
        queue = _Queue(folder, request, naming, ModelCache(), reporter_for, begun)
        looks = _Looks(folder, naming, options.settle)
        say(f"watching {folder}; results go to {output}")
        while True:
            inside = Inputs()
            settled = looks.settled(time.monotonic(), inside)
            yield from inside.failures
            for note in inside.notes():
                say(note)
            yield from queue.add(settled, say)
            yield from queue.upscale_next()
            if not queue:
                _wait(changes, looks)
    finally:
        lock.release()


def _check(folder: Path, request: Request, naming: Naming, options: WatchOptions) -> Path:
    """Refuse what makes no sense; returns the output folder."""
    check_options(request)
    check_naming(request, naming)
    if not options.settle > 0:
        raise UsageError(f"--settle {options.settle:g}", "not a positive number of seconds", "Try --settle 5.")
    if naming.output is None:
        raise UsageError("watch", "has no folder for the results", "Give one with -o.")
    if not folder.is_dir():
        raise MediaError(folder, "not a folder" if folder.exists() else "no such folder", "Check the path.")
    output = Path(naming.output)
    if output.exists() and not output.is_dir():
        raise UsageError(output, "is not a folder", "Give a folder with -o.")
    if real_path(folder).is_relative_to(real_path(output)):
        happened = f"holds the folder to watch, {folder}, so that results would be upscaled again"
        raise UsageError(output, happened, "Choose another folder with -o.")
    return output


def _changes(folder: Path, naming: Naming, settle: float) -> Iterator[object]:
    """Yields when something has happened in a folder: a set of changes, or an empty one after a while without any."""
    try:
        from watchfiles import watch as notifications
    except ImportError as error:
        remedy = "Install it: pip install 'repsr[watch]'"
        raise shortage(error) or UsageError("watch", "needs watchfiles", remedy) from error
    pause = round(min(max(settle / 2, 0.1), 2.0) * 1000)
    changes: Iterator[object] = notifications(
        folder,
        watch_filter=None,
        debounce=500,
        rust_timeout=pause,
        yield_on_timeout=True,
        recursive=naming.recursive,
        ignore_permission_denied=True,
    )
    return changes


def _wait(changes: Iterator[object], looks: _Looks) -> None:
    """Return when it is time to look at the folder again."""
    last = time.monotonic()
    while True:
        try:
            changed = next(changes)
        except StopIteration:  # watchfiles ends so when it is interrupted
            raise KeyboardInterrupt from None
        except OSError as error:  # the system's limit on watched folders, or a folder that has vanished
            raise from_system(error, looks.folder) or error from error
        if changed or looks.waiting or time.monotonic() - last > _LOOK_SECONDS:
            return


class _Looks:
    """Remembers what each file looked like, and which files were dealt with.

    Args:
        naming: whether to look into subfolders, and where targets go.
        settle: seconds for which a file must look the same.

    Attributes:
        waiting: whether a file was seen that may still change.
    """

    def __init__(self, folder: Path, naming: Naming, settle: float) -> None:
        self.folder, self.waiting = folder, False
        self._naming, self._settle = naming, settle
        self._since: dict[Path, tuple[Stamp, float]] = {}
        self._reported: set[str] = set()

    def settled(self, now: float, inside: Inputs) -> list[tuple[Path, Stamp]]:
        """The files that have become complete, in natural order; each once, unless it changes.

        Args:
            now: a monotonic time in seconds.
            inside: what cannot be read or is left out is added to it, once.
        """
        found, ready, seen = Inputs(), [], {}
        self.waiting = False
        for path in files_in(self.folder, self._naming, found):
            stamp = _stamp(path)
            if stamp is None or path.suffix.lower() in _UNFINISHED:
                continue
            known, since = self._since.get(path, (None, now))
            if known != stamp:
                since = now
            if now - since >= self._settle and since >= 0:
                ready.append((path, stamp))
                since = -1.0
            seen[path] = stamp, since
            self.waiting = self.waiting or since >= 0
        self._since = seen
        self._report(found, inside)
        return ready

    def _report(self, found: Inputs, inside: Inputs) -> None:
        """Pass on what was not reported before."""
        for failure in found.failures:
            if self._is_new(str(failure.error)):
                inside.failures.append(failure)
        for reason, paths in found.left_out.items():
            for path in paths if reason != HIDDEN else ():  # names of files that are not complete yet
                if self._is_new(f"{reason} {path}"):
                    inside.leave_out(reason, path)

    def _is_new(self, text: str) -> bool:
        new = text not in self._reported
        self._reported.add(text)
        return new


def _stamp(path: Path) -> Stamp | None:
    """Size and time of a file; None if it is not a file, or has gone."""
    with suppress(OSError):
        found = path.stat()
        if stat.S_ISREG(found.st_mode):
            return found.st_size, found.st_mtime_ns
    return None


def _check_unchanged(source: Path, stamp: Stamp) -> None:
    """Refuse a result whose source changed meanwhile: what exists is left alone, so it would stay for good.

    A source that is gone was complete.

    Raises:
        MediaError: the file is not what it was.
    """
    if _stamp(source) not in (stamp, None):
        raise MediaError(
            source, "changed while it was being upscaled", "It is upscaled again once it stops changing (see --settle)."
        )


class _Begun:
    """The record of files on which work has begun and not ended, which survives the process.

    A file that takes the process down with it, for example by taking all memory, would do so after every restart.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, Lock()
        # By source: what it looked like, how often the process ended, the target.
        self._files: dict[str, tuple[Stamp, int, str]] = {}
        with suppress(OSError, ValueError, TypeError, AttributeError):
            for source, (size, changed, deaths, target) in json.loads(path.read_text(encoding="utf-8")).items():
                self._files[source] = (int(size), int(changed)), int(deaths), str(target)
        for _, _, target in self._files.values():
            with suppress(OSError):
                remove_leftovers(Path(target).parent, Path(target))

    def deaths(self, source: Path, stamp: Stamp) -> int:
        """How often the process ended, while it worked on a file as it is now, without time to say so."""
        known, deaths, _ = self._files.get(str(source), (None, 0, ""))
        return deaths if known == stamp else 0

    def begin(self, job: Job, stamp: Stamp) -> None:
        """Note that work on a file begins: should nothing follow, that is one more death."""
        with self._lock:
            self._files[str(job.source)] = stamp, self.deaths(job.source, stamp) + 1, str(job.target)
            self._write()

    def end(self, sources: Iterable[Path]) -> None:
        """Note that work on files has ended, however it did."""
        with self._lock:
            known = [str(source) for source in sources if str(source) in self._files]
            for source in known:
                del self._files[source]
            if known:
                with suppress(RepsrError):
                    self._write()

    def _write(self) -> None:
        record = {source: [*stamp, deaths, target] for source, (stamp, deaths, target) in self._files.items()}
        write_text(self._path, json.dumps(record), overwrite=True)


class _Queue:
    """The files that are complete and wait for their turn: images before videos, in the order in which they settled.

    Those that once took the process down come last.
    """

    def __init__(
        self,
        folder: Path,
        request: Request,
        naming: Naming,
        models: ModelCache,
        reporter_for: Callable[[Job], Reporter],
        begun: _Begun,
    ) -> None:
        self._folder, self._request, self._naming = folder, request, naming
        self._models, self._reporter_for, self._begun = models, reporter_for, begun
        self._taken: dict[Path, Path] = {}
        self._waiting: list[tuple[Job, Stamp]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, settled: Sequence[tuple[Path, Stamp]], say: Callable[[str], None]) -> Iterator[Result]:
        """Put files that are complete into the queue.

        Args:
            settled: the files, and what they look like.

        Yields:
            What is known at once: failures, and targets that exist.
        """
        if not settled:
            return
        stamps = dict(settled)
        deadly = [path for path, stamp in settled if self._begun.deaths(path, stamp) >= MAX_DEATHS]
        for path in deadly:
            happened = f"the process ended {MAX_DEATHS} times while it was being upscaled"
            remedy = "It is left alone until it changes: look for the reason (memory?), then touch it."
            yield Failure(str(path), MediaError(path, happened, remedy))
        rest = [path for path, _ in settled if path not in deadly]
        plan = plan_found(inputs_of(rest, self._folder), self._request, self._naming, taken=self._taken)
        for note in plan.notes:
            say(note)
        yield from plan.failures
        yield from map(Skipped, plan.skipped)
        # Nobody is there to be asked, should a source or the options have changed since the work on it began.
        self._waiting += [(replace(job, anew=True), stamps[job.source]) for job in plan.jobs]
        self._waiting.sort(key=self._rank)

    def upscale_next(self) -> Iterator[Outcome | Failure]:
        """Upscale one video, or the images that wait, up to ``IMAGES_AT_ONCE``; then it is time to look again."""
        from repsr_cli.upscale.batch import run_jobs

        if not self:
            return
        first = self._waiting[0]
        at_once = 1 if first[0].kind == "video" else IMAGES_AT_ONCE
        several = [item for item in self._waiting[:at_once] if self._rank(item) == self._rank(first)]
        del self._waiting[: len(several)]
        # A file that has changed meanwhile is found again when it settles; one that is gone fails, and is named.
        stamps = {job.source: stamp for job, stamp in several if _stamp(job.source) in (stamp, None)}
        jobs = [job for job, stamp in several if stamps.get(job.source) == stamp]

        def begin(job: Job) -> Reporter:
            self._begun.begin(job, stamps[job.source])
            return self._reporter_for(job)

        def unchanged(source: Path, *_: object) -> Noting:
            return lambda _result: _check_unchanged(source, stamps[source])

        try:
            yield from run_jobs(jobs, self._request, begin, noting_for=unchanged, models=self._models)
        finally:
            self._begun.end(job.source for job in jobs)

    def _rank(self, item: tuple[Job, Stamp]) -> tuple[int, bool]:
        job, stamp = item
        return self._begun.deaths(job.source, stamp), job.kind == "video"
