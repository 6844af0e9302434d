"""Define every failure a user can cause, with its exit code.

A message reads *subject: what happened. What to do.* Code 1 is reserved for bugs (full traceback), so no class here
carries it. A library's exception is translated once, where the library was called, with ``raise ... from``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

_NO_MEMORY = (
    "out of memory",
    "can't alloc",
    "cannot alloc",
    "could not alloc",
    "could not create a primitive",
    "cudnn_status_alloc_failed",
    "failed to allocate",
    "bad_alloc",
    "failed to map segment from shared object",
    "cannot map zero-fill pages",
)
_NO_THREADS = ("can't start new thread", "resource temporarily unavailable")


class RepsrError(Exception):
    """A failure with a message for the user and an exit code.

    Args:
        subject: what failed, usually a path or an option as the user wrote it.
        happened: what was found, without a final full stop.
        remedy: what the user can do, a full sentence; empty where nothing can be done.
    """

    exit_code = 1

    def __init__(self, subject: object, happened: str, remedy: str = "") -> None:
        self.subject = str(subject)
        self.happened = happened
        self.remedy = remedy
        super().__init__(f"{self.subject}: {happened}." + (f" {remedy}" if remedy else ""))

    def __reduce__(self) -> tuple[type[RepsrError], tuple[str, str, str]]:
        """By its parts, so that it can travel between processes."""
        return type(self), (self.subject, self.happened, self.remedy)


class UsageError(RepsrError):
    """The request makes no sense or would destroy something: exit code 2."""

    exit_code = 2


class MediaError(RepsrError):
    """An image or a video cannot be read, decoded, encoded or written: exit code 3."""

    exit_code = 3


class CheckpointError(RepsrError):
    """A model file is missing, damaged, of another kind, or two models disagree: exit code 4."""

    exit_code = 4


class DeviceError(RepsrError):
    """The device is absent, out of memory at the smallest tile, or computes wrong numbers: exit code 5."""

    exit_code = 5


class RecipeError(RepsrError):
    """A recipe or the training data it names is unusable: exit code 6."""

    exit_code = 6


class TrainingDiverged(RepsrError):
    """The loss stopped being a number and the last good state could not save it: exit code 7."""

    exit_code = 7


class LearningDidNotWin(RepsrError):
    """Fine-tuning did not beat the general network on what was held out, so nothing was written: exit code 8."""

    exit_code = 8


class Interrupted(RepsrError):
    """The user stopped the work (Ctrl-C); the message says how to go on: exit code 130."""

    exit_code = 130


def from_system(error: BaseException, subject: object = "") -> RepsrError | None:
    """The error for what the operating system refused; None for anything else, which is a bug.

    The last resort for what no caller of the system translated.

    Args:
        subject: what was worked on, where the error names no file.
    """
    if found := shortage(error, subject):
        return found
    if isinstance(error, OSError) and error.strerror:
        happened = f"the system refused it ({error.strerror})"
        return MediaError(_named(error) or subject or "a file", happened, "Check the path, permissions and free space.")
    return None


def shortage(error: BaseException, subject: object = "") -> RepsrError | None:
    """The error for a lack of memory, open files or threads, or None.

    Whoever calls a library "not installed" or a file "damaged" asks this first: the import or the decoder may have
    failed for it.

    Args:
        subject: as for ``from_system``.
    """
    for each in _chain(error):
        if lacks_memory(each):
            return DeviceError(subject or "memory", "out of memory", "Close other programs, or raise the limit.")
        text = _text(each)
        if _number(each) in (errno.EMFILE, errno.ENFILE) or "too many open files" in text:
            return MediaError(
                _named(each) or subject or "files", "no more files can be opened", "Raise the limit (ulimit -n)."
            )
        if isinstance(each, RuntimeError) and any(words in text for words in _NO_THREADS):
            happened = "the system allows no more threads"
            return DeviceError(subject or "threads", happened, "Raise the limit (ulimit -u).")
    return None


def raise_shortage(error: BaseException, subject: object = "") -> None:
    """Raise the error for a lack of memory, open files or threads, if an exception comes from one."""
    if found := shortage(error, subject):
        raise found from error


def lacks_memory(error: BaseException) -> bool:
    """Whether an exception of Python, torch or another library means that memory is short."""
    # By its name: torch, whose CUDA raises it, need not be imported.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    # The CPU allocator, oneDNN, MPS and cuDNN raise plain RuntimeErrors, the dynamic linker ImportErrors and OSErrors.
    return _number(error) == errno.ENOMEM or any(words in _text(error) for words in _NO_MEMORY)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, and those that it was raised for."""
    seen = set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _number(error: BaseException) -> int | None:
    return error.errno if isinstance(error, OSError) else None


def _text(error: BaseException) -> str:
    """What an exception says in words of its own: not the name of a file."""
    return "" if _number(error) is not None else str(error).lower()


def _named(error: BaseException) -> str:
    """The file that an exception of the system names."""
    name = error.filename if isinstance(error, OSError) else None
    return os.fsdecode(name) if isinstance(name, (str, bytes)) else ""
