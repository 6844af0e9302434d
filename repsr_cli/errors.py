"""Define every failure a user can cause, with its exit code.

A message reads *subject: what happened. What to do.* Code 1 is reserved for bugs (full traceback), so no class here
carries it. A library's exception is translated once, where the library was called, with ``raise ... from``.
"""

from __future__ import annotations

import os


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
    if isinstance(error, OSError) and error.strerror:
        named = error.filename if isinstance(error.filename, (str, bytes)) else None
        happened = f"the system refused it ({error.strerror})"
        subject = os.fsdecode(named) if named else subject
        return MediaError(subject or "a file", happened, "Check the path, permissions and free space.")
    if isinstance(error, MemoryError):
        return DeviceError(subject or "memory", "out of memory", "Close other programs, or raise the limit.")
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return DeviceError(subject or "threads", "the system allows no more threads", "Raise the limit (ulimit -u).")
    return None
