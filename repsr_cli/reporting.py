"""Define how work reports its progress and its outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one job is.

    Attributes:
        done: units finished (frames of a video, pages of an image, tiles of a page).
        total: units in all; None if unknown.
        unit: ``frame``, ``page``, ``tile`` or ``file``.
    """

    done: int
    total: int | None
    unit: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one job did.

    Attributes:
        facts: machine-readable details (sizes, frames, model, device, stages), JSON-able.
        notes: sentences for the user: warnings, what was converted, what would be faster.
        announced: those of them that the reporter was given before the work.
    """

    source: Path
    target: Path
    seconds: float
    facts: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    announced: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reporter:
    """Where a pipeline reports while it works; silent by default.

    Attributes:
        progress: called often and cheaply, from any thread. May raise to stop the work.
        say: one line for the user, at once (a plan, a warning).
    """

    progress: Callable[[Progress], None] = lambda _progress: None
    say: Callable[[str], None] = lambda _line: None


SILENT = Reporter()


def bytes_text(count: int) -> str:
    """A number of bytes as text: ``10 bytes``, ``38.4 kB``, ``1.3 MB``."""
    if count < 1000:
        return f"{count} byte{'s' * (count != 1)}"
    amount, unit = count / 1000, "kB"
    for larger in ("MB", "GB", "TB", "PB"):
        if amount < 999.95:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.1f} {unit}"
