"""Find the user's folder for what can be made anew."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """The folder of repsr in ``XDG_CACHE_HOME``, else in what the system has for caches; it need not exist."""
    usual = {"win32": os.environ.get("LOCALAPPDATA", "~/AppData/Local"), "darwin": "~/Library/Caches"}
    caches = Path(os.environ.get("XDG_CACHE_HOME") or usual.get(sys.platform, "~/.cache"))
    return Path(os.path.expanduser(caches)) / "repsr"  # noqa: PTH111 - never raises
