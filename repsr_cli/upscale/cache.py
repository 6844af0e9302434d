"""Find the user's cache folder, and remember there what was measured on this machine."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from repsr_cli.errors import RepsrError
from repsr_cli.files import write_text

T = TypeVar("T")
# Called with one line for the user.
Say = Callable[[str], None]


def cache_folder() -> Path:
    """The folder of repsr in ``XDG_CACHE_HOME``, else in what the system has for caches; it need not exist."""
    usual = {"win32": os.environ.get("LOCALAPPDATA", "~/AppData/Local"), "darwin": "~/Library/Caches"}
    caches = Path(os.environ.get("XDG_CACHE_HOME") or usual.get(sys.platform, "~/.cache"))
    return Path(os.path.expanduser(caches)) / "repsr"  # noqa: PTH111 - never raises


def recall(file: Path, value: Callable[[Any], T], say: Say) -> dict[str, T]:
    """What a JSON file of measurements holds, by what they depend on in words.

    Args:
        file: the file; none where it does not exist.
        value: makes a value of what JSON holds; raises ValueError, TypeError or KeyError where it is none.
        say: called for a file that cannot be read or is damaged: it counts as empty.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {key: value(entry) for key, entry in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is damaged"
        say(f"{file}: cannot be read ({reason}); its measurements are made anew")
        return {}


def remember(file: Path, content: dict[str, Any], say: Say) -> None:
    """Replace a JSON file of measurements as a whole. Failing to do so is reported, not raised."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(content, indent=1), overwrite=True)
    except (OSError, RepsrError) as error:
        reason = error.happened if isinstance(error, RepsrError) else f"cannot be written: {error.strerror}"
        say(f"{file}: {reason}; what was measured is measured anew next time")
