"""Keep standard streams usable: closed, full, or without a reader, they lose text and nothing else.

A command that is done when its output cannot be printed has still done its work. Text for stderr is dropped without a
word. What stdout lost is remembered, so that the command can fail at its end: unless its reader has gone, as in
``| head -1``, which is not a failure.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from repsr_cli.errors import MediaError

# What is shown as an escape: control characters, separators that begin a line, and what reverses the direction of text.
_CONTROL = [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_ESCAPES = {code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in _CONTROL}


def visible(text: str) -> str:
    r"""A text on one line with its control characters as escapes: ``\x1b`` instead of what a terminal would obey."""
    return text.translate(_ESCAPES)


class Stream:
    """A text stream on which writing never raises.

    Attributes:
        error: why something was lost that a command must not lose.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._silent = False
        self.error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, or lose, a text."""
        self._lose_on_error(lambda: self._stream.write(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write, or lose, lines."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Write, or lose, what is buffered."""
        self._lose_on_error(self._stream.flush)

    def write_bytes(self, data: bytes, *, needed: bool = True) -> None:
        """Write, or lose, bytes, at once.

        Args:
            needed: whether they are what the command is for; if not, losing them to a closed stream is not an error.
        """

        def write() -> None:
            self._stream.flush()
            self._stream.buffer.write(data)
            self._stream.buffer.flush()

        self._lose_on_error(write, needed)

    def _lose_on_error(self, write: Callable[[], object], needed: bool = True) -> None:
        if self._silent:
            return
        try:
            write()
        except OSError as error:
            self._silent = True
            if error.errno != errno.EPIPE and (needed or error.errno != errno.EBADF):
                self.error = error
            # What is buffered has to go somewhere when Python ends.
            with suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)
                self._stream.flush()


@contextmanager
def lenient_streams() -> Iterator[None]:
    """Replace stdout and stderr by ``Stream`` objects for the length of the block."""
    _open_closed()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = cast(TextIO, Stream(sys.stdout)), cast(TextIO, Stream(sys.stderr))
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def lost_output() -> MediaError | None:
    """Why what was printed on stdout has been lost; None if it was not, or if its reader has gone."""
    sys.stdout.flush()
    error = getattr(sys.stdout, "error", None)
    if error is None:
        return None
    return MediaError("standard output", f"cannot be written ({error.strerror})", "Its text is lost.")


def _open_closed() -> None:
    """Occupy the numbers of closed streams, so that no file gets one; what uses them fails."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # Opened the wrong way round: whoever reads or writes frames there has to know that they are lost.
            found = os.open(os.devnull, os.O_RDONLY if number else os.O_WRONLY)
            if found != number:
                os.dup2(found, number)
                os.close(found)
        if getattr(sys, name) is None:
            opened = os.fdopen(number, "w" if number else "r", closefd=False, errors="backslashreplace")
            setattr(sys, name, opened)
