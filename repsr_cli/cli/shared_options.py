"""Declare the parameters that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Results as JSON on stdout, one record a line.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Errors only.")]
Overwrite = Annotated[bool, typer.Option("-y", "--overwrite", help="Replace existing files.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Value to override in the recipe. Repeatable.")
]
