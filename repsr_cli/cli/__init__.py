"""Typer and Rich. Parse, call a pipeline, show progress, turn errors into exit codes."""

from repsr_cli.cli.app import app

__all__ = ["app"]
