"""Import Ray, which is optional, when a cluster is asked for."""

from __future__ import annotations

import os
from typing import Any

from repsr_cli.errors import UsageError, shortage


def import_ray() -> Any:
    """Ray, imported.

    Raises:
        UsageError: it is not installed.
    """
    # Ray sends usage statistics unless this is set.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError as error:
        remedy = "Install it: pip install 'repsr[ray]'."
        raise shortage(error) or UsageError("--ray", "Ray is not installed", remedy) from error
    return ray
