"""Shipped networks by name: ``weights/index.toml`` and the files beside it."""

from __future__ import annotations

import difflib
import hashlib
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from repsr_cli.errors import CheckpointError
from repsr_cli.model.checkpoint import load_plain
from repsr_cli.model.plain import PlainSR

Family = Literal["clean", "video"]
SIZES = ("fast", "balanced", "best")
DEFAULT_SIZES = ("balanced", "fast")
DEFAULT_SCALE = 4


@dataclass(frozen=True, slots=True)
class Weight:
    """One network that can be asked for.

    Attributes:
        name: what a user types, e.g. ``fast-x4`` or ``fast-video-x4``; for a file, its path.
        path: the file.
        scale: enlargement factor; 0 where only loading the file can tell.
        size: ``fast``, ``balanced`` or ``best``; empty for a file.
        family: ``clean`` (made for images without compression) or ``video``; empty for a file.
        sha256: digest the file must have; empty for a file.
        network: the field's name of the size, e.g. ``M4C16``.
        psnr_y: dB on benchmark sets, by name.
    """

    name: str
    path: Path
    scale: int
    size: str = ""
    family: str = ""
    sha256: str = ""
    network: str = ""
    psnr_y: dict[str, float] = field(default_factory=dict)


def weights_folder() -> Path:
    """Where shipped networks lie: packed into the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    packed = package / "_weights"
    return packed if packed.is_dir() else package.parent / "weights"


def available() -> list[Weight]:
    """Every shipped network, smallest first, by family and scale.

    Raises:
        CheckpointError: the index is missing or damaged.
    """
    index = weights_folder() / "index.toml"
    try:
        entries = tomllib.loads(index.read_text(encoding="utf-8"))["weight"]
        weights = [
            Weight(
                name=entry["name"],
                path=index.parent / entry["file"],
                scale=entry["scale"],
                size=entry["size"],
                family=entry["family"],
                sha256=entry["sha256"],
                network=entry["network"],
                psnr_y=entry["psnr_y"],
            )
            for entry in entries
        ]
    except (OSError, KeyError, TypeError, tomllib.TOMLDecodeError) as error:
        raise CheckpointError(index, f"cannot be read ({error})", "Install repsr again.") from error
    return sorted(weights, key=lambda w: (w.family, SIZES.index(w.size), w.scale))


def _looks_like_path(network: str) -> bool:
    return Path(network).is_file() or Path(network).suffix in {".safetensors", ".pt", ".pth"} or "/" in network


def resolve(network: str | None, scale: float | None, family: Family) -> Weight:
    """Find the network a user asks for.

    Args:
        network: ``fast``, ``balanced``, ``best``, a full name as ``repsr models`` lists it, or a file; None: the
            default, ``balanced`` where it ships for that factor, else ``fast``.
        scale: wanted factor; the smallest trained factor that is at least as large is taken. None: what the name says,
            else 4.
        family: wanted family; where a size ships in the other family only, that one is taken.

    Raises:
        CheckpointError: no such network or file, or no factor large enough; the message lists what there is.
    """
    if network is not None and _looks_like_path(network):
        path = Path(network)
        if not path.is_file():
            raise CheckpointError(network, "no such file", "Give a network file, or a name: repsr models lists them.")
        return Weight(name=network, path=path, scale=load_plain(path).spec.scale)
    weights = available()
    named = [w for w in weights if w.name == network]
    if named:
        weight = named[0]
        if scale is not None and scale > weight.scale:
            raise CheckpointError(network, f"enlarges by {weight.scale}, not {scale:g}", "Ask for -s less, or another.")
        return weight
    sizes = DEFAULT_SIZES if network is None else (network,)
    fitting = [w for w in weights if w.size in sizes]
    asked = network or "the default network"
    if not fitting:
        names, shipped = [w.name for w in weights], [size for size in SIZES if any(w.size == size for w in weights)]
        what, hint = "no such network", ""
        if asked in SIZES and shipped:
            what, hint = "no network of this size ships", f"The largest that does is '{shipped[-1]}'. "
        elif near := difflib.get_close_matches(asked, [*shipped, *names], n=1):
            hint = f"Did you mean '{near[0]}'? "
        raise CheckpointError(asked, what, f"{hint}Available: {', '.join(names)}; or give a file.")
    wanted = DEFAULT_SCALE if scale is None else scale
    large_enough = [w for w in fitting if w.scale >= wanted]
    if not large_enough:
        most = max(w.scale for w in fitting)
        raise CheckpointError(asked, f"enlarges by up to {most}, not {wanted:g}", f"Use -s {most}, twice if need be.")
    return min(large_enough, key=lambda w: (w.scale, sizes.index(w.size), w.family != family))


def load(network: str | None, scale: float | None, family: Family) -> PlainSR:
    """``resolve``, check the digest of a shipped file, and load.

    Raises:
        CheckpointError: as ``resolve``; or the file is not what was shipped.
    """
    return load_weight(resolve(network, scale, family))


def load_weight(weight: Weight) -> PlainSR:
    """The network of a ``Weight``, in eval mode on the CPU.

    Raises:
        CheckpointError: a shipped file does not have the digest it was shipped with, or cannot be loaded.
    """
    if weight.sha256:
        try:
            found = hashlib.sha256(weight.path.read_bytes()).hexdigest()
        except OSError as error:
            raise CheckpointError(weight.path, f"cannot be read ({error})", "Install repsr again.") from error
        if found != weight.sha256:
            raise CheckpointError(weight.path, "is not the file that was shipped", "Install repsr again.")
    return load_plain(weight.path)
