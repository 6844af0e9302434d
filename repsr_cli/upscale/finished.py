"""Remember finished jobs, so that the same command again skips them."""

from __future__ import annotations

import hashlib
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from repsr_cli import version
from repsr_cli.files import Noting, is_file
from repsr_cli.job_records import read_note, twice
from repsr_cli.model.zoo import weights_folder
from repsr_cli.upscale.cache import cache_folder
from repsr_cli.upscale.inputs import real_path
from repsr_cli.upscale.request import Request


@dataclass(frozen=True, slots=True)
class Finished:
    """The jobs that were finished by this user: a small file for each target, in the folder for caches.

    A job is known by a digest of the request, the model and the source; its result by what the system tells of the
    target, which must be as the job left it.

    Attributes:
        folder: where the files are; it need not exist.
    """

    folder: Path

    @classmethod
    def here(cls) -> Finished:
        """In the user's folder for caches."""
        return cls(cache_folder() / "finished")

    def holds(self, source: Path, target: Path, request: Request) -> bool:
        """Whether this very job has made the target that is there."""
        try:
            return read_note(self._file(target)) == _record(job_digest(source, request), target)
        except OSError:
            return False

    def noting(self, source: Path, target: Path, request: Request) -> Noting | None:
        """What remembers a job that begins now, to be called with its complete result before that gets its name.

        So a process that is killed in between leaves a target that the same command knows. Where noting fails, the job
        is forgotten. None if the source is not a file.
        """
        if not is_file(source):
            return None
        with suppress(OSError):
            return partial(self._note, self._file(target), job_digest(source, request))
        return None

    def _note(self, file: Path, job: str, result: Path) -> None:
        temporary = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
        with suppress(OSError):
            content = twice(_record(job, result))
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_text(content, encoding="utf-8")
                temporary.replace(file)
            finally:
                temporary.unlink(missing_ok=True)

    def _file(self, target: Path) -> Path:
        return self.folder / (hashlib.sha256(os.fsencode(real_path(target))).hexdigest() + ".json")


def _record(job: str, result: Path) -> dict[str, Any]:
    return {"job": job, "target": list(_state(result)[:3])}


def job_digest(source: Path, request: Request) -> str:
    """A digest of all that a result depends on: the source, the request, the model and the version of repsr.

    Args:
        request: the request, with its scale settled.

    Raises:
        OSError: the source or the model's file cannot be looked at.
    """
    run = replace(request.run, overwrite=False)
    asked = replace(request, run=run, model=replace(request.model, tile="auto"))
    model = request.model.model
    weights = Path(model) if model is not None and is_file(model) else weights_folder() / "index.toml"
    parts = [
        version.__version__,
        repr(asked),
        str(real_path(source)),
        _state(source),
        str(real_path(weights)),
        _state(weights),
    ]
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogateescape")).hexdigest()


def _state(path: Path) -> tuple[int, ...]:
    """What the system tells of a file, by which a change shows: whoever sets times back cannot set the last."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
