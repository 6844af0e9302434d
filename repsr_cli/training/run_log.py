"""Write the log of a training run: ``log.jsonl``, and TensorBoard event files if wanted."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from repsr_cli.errors import RecipeError, shortage
from repsr_cli.files import translated_errors, write_text


class RunLog:
    """``log.jsonl``: one JSON object a line. Lines past the step a run resumes from are dropped and written again.

    Args:
        step: the step a run starts or resumes from.
        tensorboard: write TensorBoard event files beside it too.

    Raises:
        RecipeError: TensorBoard is wanted and not installed.
    """

    def __init__(self, path: Path, step: int, tensorboard: bool) -> None:
        # TensorBoard hides what an interrupted run logged past this step.
        self._board = summary_writer()(str(path.parent), purge_step=step + 1) if tensorboard else None
        self._path = path
        kept = [json.dumps(entry) + "\n" for entry in read_log(path) if entry["step"] <= step]
        write_text(path, "".join(kept), overwrite=True, failure=RecipeError)
        with translated_errors(path, RecipeError):
            self._file = path.open("a", encoding="utf-8")

    def write(self, entry: dict[str, Any]) -> None:
        """Append an entry, which has a ``step``; its floats become TensorBoard scalars."""
        with translated_errors(self._path, RecipeError):
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()
        if self._board is not None:
            for name, value in entry.items():
                if name != "step" and isinstance(value, float):
                    self._board.add_scalar(name, value, entry["step"])
            self._board.flush()

    def close(self) -> None:
        """Close the files."""
        with contextlib.suppress(OSError):  # what could not be written was reported
            self._file.close()
        if self._board is not None:
            self._board.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The entries of a run's ``log.jsonl``; lines that a killed process or a disk damaged are left out."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    except OSError as error:
        raise RecipeError(path, f"cannot be read: {error.strerror}", "Check its permissions.") from error
    entries = []
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            entry = json.loads(line)
            if isinstance(entry, dict) and all(type(entry.get(name)) in (int, float) for name in ("step", "loss")):
                entries.append(entry)
    return entries


def summary_writer() -> Any:
    """TensorBoard's class that writes event files.

    Raises:
        RecipeError: it is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        remedy = "pip install 'repsr[tensorboard]', or leave it out."
        raise shortage(error) or RecipeError("run.tensorboard", "TensorBoard is not installed", remedy) from error
    return SummaryWriter
