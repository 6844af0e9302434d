"""Find models by name or path, and load them: ``weights/index.toml`` and the files beside it."""

from __future__ import annotations

import difflib
import hashlib
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from repsr_cli.errors import CheckpointError, UsageError, shortage
from repsr_cli.files import is_file
from repsr_cli.model.arrays import NetworkArrays, mixed, read_arrays

if TYPE_CHECKING:  # torch, which planning does without
    from repsr_cli.model.foreign import ForeignSR
    from repsr_cli.model.plain import PlainSR

Kind = Literal["clean", "real", "detail"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SIZES = ("light", "fast", "balanced", "best")
DEFAULT_SIZES = ("balanced", "fast")
DEFAULT_SCALE = 4
# Kinds as users may spell them; "video" until 1.0.
KIND_SPELLINGS: dict[str, Kind] = {**{kind: kind for kind in KINDS}, "video": "real"}
_NAME = re.compile(
    rf"(?P<size>{'|'.join(SIZES)})(-(?P<kind>{'|'.join(KIND_SPELLINGS)}))?(-x(?P<scale>[1-9]\d?))?(@(?P<detail>[\d.]+))?"
)


@dataclass(frozen=True, slots=True)
class Blend:
    """What is mixed into the weights of a ``real`` model.

    Attributes:
        path: file of the ``detail`` model of the same size and scale.
        sha256: digest that file must have.
        share: of its weights, above 0 and below 1.
    """

    path: Path
    sha256: str
    share: float


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model that was found but not loaded.

    Attributes:
        name: as ``repsr models`` lists it, e.g. ``fast-x4`` or ``balanced-real-x4``; for a file, its path.
        size: ``light``, ``fast``, ``balanced`` or ``best``; empty for a file.
        kind: ``clean`` (for images without compression), ``real`` (for compressed images and video) or ``detail``
            (likewise, and crisper); empty for a file.
        sha256: digest the file must have; empty for a file.
        network: the field's name of the size, e.g. ``M4C16``.
        architecture: of a file in another layout than Compact, its architecture and size; else empty.
        psnr_y: dB on benchmark sets, by name.
        default_detail: of a ``detail`` model, its share where neither a name nor ``--detail`` gives one.
        blend: what is mixed into it; None: nothing.
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
    default_detail: float = 0.0
    blend: Blend | None = None

    @property
    def key(self) -> tuple[Path, Blend | None]:
        """What its weights are made of, for caches."""
        return self.path, self.blend

    @property
    def detail(self) -> float | None:
        """Where it lies between ``real`` (0) and ``detail`` (1); None: between neither."""
        if self.blend is not None:
            return self.blend.share
        return {"real": 0.0, "detail": 1.0}.get(self.kind)


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
                default_detail=float(entry.get("default_detail", 0.0)),
            )
            for entry in entries
        ]
    except (OSError, KeyError, TypeError, ValueError, tomllib.TOMLDecodeError) as error:
        happened = f"cannot be read ({error})"
        raise shortage(error, index) or CheckpointError(index, happened, "Install repsr again.") from error
    return sorted(models, key=lambda model: (KINDS.index(model.kind), SIZES.index(model.size), model.scale))


def resolve(
    name: str | None, scale: float | None, kind: Kind, *, fixed: bool = False, detail: float | None = None
) -> ModelFile:
    """Find a model. Of a file, only the header is read.

    Args:
        name: a size (``light``, ``fast``, ``balanced``, ``best``), optionally followed by a kind (``-clean``,
            ``-real``, ``-detail``; ``-video`` is an older spelling of ``-real``), a scale (``-x4``) and a detail
            (``@0.5``); or the path of a model file. None: ``balanced`` where it ships for that scale, else ``fast``.
        scale: wanted factor; of the shipped models, the one with the smallest scale that reaches it is taken. None: the
            name's own scale, else 4.
        kind: kind of model the source needs, for names that leave it out; where a size does not ship in this kind,
            ``clean`` stands in for ``real`` and the other way round.
        fixed: whether the user asked for this kind, so that nothing may stand in for it.
        detail: 0 to 1, from the weights of the ``real`` model to those of its ``detail`` model, which implies these
            kinds. None: as the name says, 0 for a name of kind ``real``, else what is the default for the pair.

    Raises:
        CheckpointError: no such model or file, or no scale large enough; the message lists what is available.
        UsageError: the name contradicts the kind or the detail, or no pair ships to make that of.
    """
    if name is not None and _looks_like_path(name):
        return _file(name, kind if fixed else None, detail)
    models, asked = available(), name or "the default model"
    parts = _NAME.fullmatch(name) if name is not None else None
    if name is not None and parts is None:
        raise _unknown(name, models)
    named = KIND_SPELLINGS[parts["kind"]] if parts and parts["kind"] else None
    if fixed:
        _check_kind(asked, named, kind)
        asked = asked if named else f"{asked} of kind {kind}"
    detail = _dial(asked, parts["detail"] if parts else None, detail, named or (kind if fixed else None))
    sizes = (parts["size"],) if parts else DEFAULT_SIZES
    if detail is not None and not any(model.kind == "detail" and model.size in sizes for model in models):
        raise _no_dial(asked, asked, models)
    only = named or (kind if fixed else "real" if detail is not None else None)
    fitting = [model for model in models if model.size in sizes]
    fitting = [model for model in fitting if (model.kind == only if only else model.kind != "detail")]
    if parts and parts["scale"]:
        fitting = [model for model in fitting if model.scale == int(parts["scale"])]
    elif detail is not None:
        pairs = {(model.size, model.scale) for model in models if model.kind == "detail"}
        fitting = [model for model in fitting if (model.size, model.scale) in pairs]
    if not fitting:
        raise _unknown(asked, models)
    wanted = (fitting[0].scale if parts and parts["scale"] else DEFAULT_SCALE) if scale is None else scale
    large_enough = [model for model in fitting if model.scale >= wanted]
    if not large_enough:
        most = max(model.scale for model in fitting)
        up_to = "" if parts and parts["scale"] else "up to "
        unsaid = ", which is meant where nothing says how much" if scale is None else ""
        happened = f"enlarges by {up_to}{most}, not {wanted:g}{unsaid}"
        raise CheckpointError(asked, happened, f"Use -s {most}, twice if need be.")
    found = min(large_enough, key=lambda model: (model.scale, sizes.index(model.size), model.kind != kind))
    if found.kind != "real" or (named == "real" and detail is None):
        return found
    return _detailed(asked, found, [model for model in models if model.kind == "detail"], detail)


def _file(name: str, kind: Kind | None, detail: float | None) -> ModelFile:
    """A model file by its path."""
    if kind is not None:
        raise UsageError(f"--kind {kind}", f"{name} is a file, which decides that itself", "Leave it out.")
    if detail is not None:
        happened = f"{name} is a file, and only shipped pairs of a real and a detail model have a dial"
        raise UsageError(f"--detail {detail:g}", happened, "Leave it out.")
    path = Path(name)
    if not is_file(path):
        raise CheckpointError(name, "no such file", "Give a model file, or a name: repsr models lists them.")
    from repsr_cli.model.foreign import read_any_spec

    spec = read_any_spec(path)
    return ModelFile(name=name, path=path, scale=spec.scale, architecture="" if spec.exact else spec.name)


def _check_kind(name: str, named: Kind | None, kind: Kind) -> None:
    """Refuse a name that contradicts the kind asked for; a ``detail`` model is an end of the dial of ``real``."""
    if named is not None and named != kind and (named, kind) != ("detail", "real"):
        raise UsageError(f"--kind {kind}", f"{name} is of kind {named}", "Leave out one of them.")


def _dial(name: str, spelled: str | None, detail: float | None, kind: Kind | None) -> float | None:
    """The detail that a name or an option asks for; None: neither does."""
    subject = name if detail is None else f"--detail {detail:g}"
    if spelled is not None:
        if detail is not None:
            raise UsageError(subject, f"{name} says how much already", "Leave out one of them.")
        try:
            detail = float(spelled)
        except ValueError as error:
            raise UsageError(subject, f"{spelled} is not a number", "Try @0.5.") from error
    if detail is None:
        return None
    if not 0 <= detail <= 1:
        raise UsageError(subject, "detail lies between 0 (faithful) and 1 (crisp)", "Try 0.5.")
    if kind == "clean":
        happened = "models of kind clean have no dial"
        raise UsageError(subject, happened, "Choose real models, with --kind real or a name such as balanced-real.")
    if kind == "detail" and detail != 1:
        raise UsageError(subject, f"{name} is detail 1", "Give the size alone, e.g. -n balanced.")
    return detail


def _no_dial(asked: str, found: str, models: Iterable[ModelFile]) -> UsageError:
    shipped = ", ".join(f"{model.size} x{model.scale}" for model in models if model.kind == "detail") or "none yet"
    happened = f"no detail model ships for {found}, so there is nothing to set with detail"
    return UsageError(asked, happened, f"Those that ship: {shipped}.")


def _detailed(asked: str, found: ModelFile, others: list[ModelFile], detail: float | None) -> ModelFile:
    """A ``real`` model with some of its ``detail`` model mixed in.

    Args:
        asked: what was asked for, for the message.
        found: the ``real`` model.
        others: the ``detail`` models that ship.
        detail: how much; None: the default of the pair, where there is one.
    """
    other = next((model for model in others if (model.size, model.scale) == (found.size, found.scale)), None)
    if other is None:
        if detail is None:
            return found
        raise _no_dial(asked, f"{found.size} x{found.scale}", others)
    share = other.default_detail if detail is None else detail
    if share == 0:
        return found
    if share == 1:
        return other
    blend = Blend(other.path, other.sha256, share)
    return replace(found, name=f"{found.name}@{share:g}", psnr_y={}, blend=blend)


def leaves_kind_open(name: str | None) -> bool:
    """Whether a name says nothing of the kind of model, so that the source may decide it."""
    if name is None:
        return True
    parts = None if _looks_like_path(name) else _NAME.fullmatch(name)
    return parts is not None and parts["kind"] is None and parts["detail"] is None


def load(model: ModelFile) -> PlainSR | ForeignSR:
    """The network of a model file, in eval mode on the CPU.

    Raises:
        CheckpointError: as ``check_digest``, or the file cannot be loaded.
    """
    if model.blend is not None:
        return load_compact(model)
    from repsr_cli.model.foreign import load_any

    check_digest(model)
    return load_any(model.path)


def load_arrays(model: ModelFile) -> NetworkArrays | None:
    """The weights of a model that ships, without torch; None where it is a file of the user's.

    Raises:
        CheckpointError: as ``check_digest``.
    """
    if not model.sha256:
        return None
    check_digest(model)
    network = read_arrays(model.path)
    if network is None or model.blend is None:
        return network
    other = read_arrays(model.blend.path)
    if other is None or other.spec != network.spec:
        return None
    share = model.blend.share
    state = {name: mixed(weights, other.state[name], share) for name, weights in network.state.items()}
    return NetworkArrays(network.spec, state)


def load_compact(model: ModelFile) -> PlainSR:
    """As ``load``, for what works with Compact networks only.

    Raises:
        CheckpointError: as ``load``, or a model of another architecture.
    """
    from repsr_cli.model.blend import blended
    from repsr_cli.model.checkpoint import load_plain

    check_digest(model)
    net = load_plain(model.path)
    if model.blend is None:
        return net
    other = load_plain(model.blend.path)
    if other.spec != net.spec:
        raise CheckpointError(model.blend.path, f"is {other.spec.name}, not {net.spec.name}", "Install repsr again.")
    return blended(net, other, model.blend.share)


def check_digest(model: ModelFile) -> None:
    """Check that a shipped file is the one that was shipped, and what is mixed into it.

    Raises:
        CheckpointError: it is another file, or cannot be read.
    """
    files = [(model.path, model.sha256)]
    if model.blend is not None:
        files.append((model.blend.path, model.blend.sha256))
    for path, sha256 in files:
        if not sha256:
            continue
        try:
            found = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise CheckpointError(path, f"cannot be read ({error})", "Install repsr again.") from error
        if found != sha256:
            raise CheckpointError(path, "is not the file that was shipped", "Install repsr again.")


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
