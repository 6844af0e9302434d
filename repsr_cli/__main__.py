"""Run the command line: ``python -m repsr_cli`` is ``repsr``."""

from repsr_cli.cli import app

app(prog_name="repsr")
