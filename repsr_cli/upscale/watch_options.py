"""Declare the options of ``repsr watch``. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from repsr_cli.options import option
from repsr_cli.upscale.request import FILES


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """How a folder is watched."""

    settle: float = option(
        "--settle", default=3.0, help="Seconds for which a file must stay the same before it is read.", panel=FILES
    )
