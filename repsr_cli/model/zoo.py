"""Find models by name or path, and load them: ``weights/index.toml`` and the files beside it."""

from __future__ import annotations

import difflib
import hashlib
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from repsr_cli.errors import CheckpointError
from repsr_cli.files import is_file
from repsr_cli.model.checkpoint import load_plain
from repsr_cli.model.foreign import ForeignSR, load_any, read_any_spec
from repsr_cli.model.plain import PlainSR

Kind = Literal["clean", "real", "detail"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SIZES = ("light", "fast", "balanced", "best")
DEFAULT_SIZES = ("balanced", "fast")
DEFAULT_SCALE = 4
# Kinds as users may spell them; "video" until 1.0.
KIND_SPELLINGS: dict[str, Kind] = {**{kind: kind for kind in KINDS}, "video": "real"}
_NAME = re.compile(rf"(?P<size>{'|'.join(SIZES)})(-(?P<kind>{'|'.join(KIND_SPELLINGS)}))?(-x(?P<scale>[1-9]\d?))?")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model that was found but not loaded.

    Attributes:
        name: as ``repsr models`` lists it, e.g. ``fast-x4`` or ``balanced-real-x4``; for a file, its path.
        path: the file.
        scale: enlargement factor.
        size: ``light``, ``fast``, ``balanced`` or ``best``; empty for a file.
        kind: ``clean`` (for images without compression), ``real`` (for compressed images and video) or ``detail``
            (likewise, and crisper); empty for a file.
        sha256: digest the file must have; empty for a file.
        network: the field's name of the size, e.g. ``M4C16``.
        architecture: of a file in another layout than Compact, its architecture and size; else empty.
        psnr_y: dB on benchmark sets, by name.
    """

    name: str
    path: Path
    scale: int
    size: str = ""
    kind: Kind | Literal[""] = ""
    sha256: str = ""
    network: str = ""
    architecture: str = ""
    psnr_y: dict[str, float] = field(default_factory=dict)


def weights_folder() -> Path:
    """The folder of shipped models: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    packed = package / "_weights"
    return packed if packed.is_dir() else package.parent / "weights"


def available() -> list[ModelFile]:
    """Every shipped model, by kind, size (smallest first) and scale.

    Raises:
        CheckpointError: the index is missing or damaged.
    """
    index = weights_folder() / "index.toml"
    try:
        entries = tomllib.loads(index.read_text(encoding="utf-8"))["model"]
        models = [
            ModelFile(
                name=entry["name"],
                path=index.parent / entry["file"],
                scale=entry["scale"],
                size=entry["size"],
                kind=KINDS[KINDS.index(entry["kind"])],
                sha256=entry["sha256"],
                network=entry["network"],
                psnr_y=entry["psnr_y"],
            )
            for entry in entries
        ]
    except (OSError, KeyError, TypeError, ValueError, tomllib.TOMLDecodeError) as error:
        raise CheckpointError(index, f"cannot be read ({error})", "Install repsr again.") from error
    return sorted(models, key=lambda model: (KINDS.index(model.kind), SIZES.index(model.size), model.scale))


def resolve(name: str | None, scale: float | None, kind: Kind) -> ModelFile:
    """Find a model. Of a file, only the header is read.

    Args:
        name: a size (``light``, ``fast``, ``balanced``, ``best``), optionally followed by a kind (``-clean``,
            ``-real``, ``-detail``; ``-video`` is an older spelling of ``-real``) and a scale (``-x4``); or the path of
            a model file. None: ``balanced`` where it ships for that scale, else ``fast``.
        scale: wanted factor; of the shipped models, the one with the smallest scale that reaches it is taken. None: the
            name's own scale, else 4.
        kind: kind of model the source needs, for names that leave it out; where a size does not ship in this kind,
            another kind is taken.

    Raises:
        CheckpointError: no such model or file, or no scale large enough; the message lists what is available.
    """
    if name is not None and _looks_like_path(name):
        path = Path(name)
        if not is_file(path):
            raise CheckpointError(name, "no such file", "Give a model file, or a name: repsr models lists them.")
        spec = read_any_spec(path)
        return ModelFile(name=name, path=path, scale=spec.scale, architecture="" if spec.exact else spec.name)
    models, asked = available(), name or "the default model"
    parts = _NAME.fullmatch(name) if name is not None else None
    if name is not None and parts is None:
        raise _unknown(name, models)
    sizes = (parts["size"],) if parts else DEFAULT_SIZES
    fitting = [model for model in models if model.size in sizes]
    if parts and parts["kind"]:
        fitting = [model for model in fitting if model.kind == KIND_SPELLINGS[parts["kind"]]]
    if parts and parts["scale"]:
        fitting = [model for model in fitting if model.scale == int(parts["scale"])]
    if not fitting:
        raise _unknown(asked, models)
    wanted = (fitting[0].scale if parts and parts["scale"] else DEFAULT_SCALE) if scale is None else scale
    large_enough = [model for model in fitting if model.scale >= wanted]
    if not large_enough:
        most = max(model.scale for model in fitting)
        up_to = "" if parts and parts["scale"] else "up to "
        raise CheckpointError(asked, f"enlarges by {up_to}{most}, not {wanted:g}", f"Use -s {most}, twice if need be.")
    return min(large_enough, key=lambda model: (model.scale, sizes.index(model.size), model.kind != kind))


def load(model: ModelFile) -> PlainSR | ForeignSR:
    """The network of a model file, in eval mode on the CPU.

    Raises:
        CheckpointError: as ``check_digest``, or the file cannot be loaded.
    """
    check_digest(model)
    return load_any(model.path)


def load_compact(model: ModelFile) -> PlainSR:
    """As ``load``, for what works with Compact networks only.

    Raises:
        CheckpointError: as ``load``, or a model of another architecture.
    """
    check_digest(model)
    return load_plain(model.path)


def check_digest(model: ModelFile) -> None:
    """Check that a shipped file is the one that was shipped.

    Raises:
        CheckpointError: it is another file, or cannot be read.
    """
    if model.sha256:
        try:
            found = hashlib.sha256(model.path.read_bytes()).hexdigest()
        except OSError as error:
            raise CheckpointError(model.path, f"cannot be read ({error})", "Install repsr again.") from error
        if found != model.sha256:
            raise CheckpointError(model.path, "is not the file that was shipped", "Install repsr again.")


def _looks_like_path(name: str) -> bool:
    return is_file(name) or Path(name).suffix in {".safetensors", ".pt", ".pth"} or "/" in name


def _unknown(name: str, models: list[ModelFile]) -> CheckpointError:
    """The error for a name that no shipped model answers to."""
    names, shipped = [model.name for model in models], [s for s in SIZES if any(model.size == s for model in models)]
    happened, hint = "no such model", ""
    if name in SIZES and shipped:
        end, nearest = ("smallest", shipped[0]) if name == SIZES[0] else ("largest", shipped[-1])
        happened, hint = "no model of this size ships", f"The {end} that does is '{nearest}'. "
    elif near := difflib.get_close_matches(name, [*shipped, *names], n=1):
        hint = f"Did you mean '{near[0]}'? "
    return CheckpointError(name, happened, f"{hint}Available: {', '.join(names)}; or give a file.")
