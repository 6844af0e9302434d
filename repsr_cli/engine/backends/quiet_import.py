"""Import libraries that report their use over the network, with that reporting switched off."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, cast

from repsr_cli.errors import raise_shortage

# What OpenVINO reports with; it does without where this is not installed.
_OPENVINO_REPORTS = "openvino_telemetry"


def quiet_import(module: str) -> Any:
    """A module by name, imported without telemetry.

    On import, ONNX Runtime looks up a host unless the environment forbids it, and OpenVINO sends an event.

    Args:
        module: its name, of any library.

    Raises:
        ImportError: it is not installed or cannot be imported.
        RepsrError: memory or open files ran short.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    if _OPENVINO_REPORTS in sys.modules:
        return importlib.import_module(module)
    cast(dict[str, Any], sys.modules)[_OPENVINO_REPORTS] = None  # by which an import of it fails
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise_shortage(error, module)
        raise
    finally:
        sys.modules.pop(_OPENVINO_REPORTS, None)
