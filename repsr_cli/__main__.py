"""Run the command line: ``python -m repsr_cli`` is ``repsr``."""

from __future__ import annotations

import sys

from repsr_cli.errors import from_system


def main() -> None:
    """Import the command line and run it; what the system refuses in the meantime is one line too."""
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
