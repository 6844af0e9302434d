"""Parse arguments, call a pipeline, show progress, turn errors into exit codes. Uses Typer and Rich."""

from repsr_cli.cli.app import app

__all__ = ["app"]
