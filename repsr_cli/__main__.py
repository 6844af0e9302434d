"""Run the command line: ``python -m repsr_cli`` is ``repsr``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from repsr_cli.errors import from_system

if TYPE_CHECKING:
    from sys import UnraisableHookArgs


def unless_out_of_memory(failure: UnraisableHookArgs) -> None:
    """Report what failed while Python cleaned up, unless memory ended: the command reports that itself."""
    if not issubclass(failure.exc_type, MemoryError):
        sys.__unraisablehook__(failure)


def main() -> None:
    """Import the command line and run it; what the system refuses in the meantime is one line too."""
    sys.unraisablehook = unless_out_of_memory
    try:
        from repsr_cli.cli import app

        app(prog_name="repsr")
    except Exception as error:
        refused = from_system(error)
        if refused is None:
            raise
        sys.stderr.write(f"error: {refused}\n")
        sys.exit(refused.exit_code)


if __name__ == "__main__":
    main()
