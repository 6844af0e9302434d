"""Fuse a training checkpoint into a plain network, and write it only if both agree."""

from __future__ import annotations

import contextlib
import copy
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from repsr_cli.errors import CheckpointError
from repsr_cli.export.agreement import PROBE_SIZES
from repsr_cli.export.agreement import TOLERANCE as FLOAT32_TOLERANCE
from repsr_cli.model.checkpoint import load_plain, load_training, read_metadata, save_plain
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.repsr import RepSR, fuse
from repsr_cli.model.zoo import ModelFile, check_digest, load_compact
from repsr_cli.version import __version__

# Merging is exact, which float64 shows. float32 shows that rounding stays invisible: on noise, which networks have not
# been trained on, the branches of a sound M10C32 round by up to 3.6e-5 (measured).
TOLERANCE = {torch.float64: 1e-10, torch.float32: FLOAT32_TOLERANCE}


@dataclass(frozen=True, slots=True)
class Fused:
    """A plain network and how it was made.

    Attributes:
        metadata: strings for files that hold it.
        error_float64: largest difference between both networks' outputs computed in float64, values in [0, 1].
    """

    net: PlainSR
    metadata: dict[str, str]
    trained_parameters: int
    error_float64: float = 0.0
    error_float32: float = 0.0


@dataclass(frozen=True, slots=True)
class FuseReport:
    """The result of fusing.

    Attributes:
        network: the field's name of the size, e.g. ``M4C16``.
        parameters: of the plain network.
        error_float64: largest difference between both networks' outputs computed in float64, values in [0, 1].
        step: training step of the checkpoint; 0 for a model that was fused before.
        sha256: of the file written.
    """

    target: Path
    network: str
    scale: int
    parameters: int
    trained_parameters: int
    error_float64: float
    error_float32: float
    step: int
    sha256: str


@torch.inference_mode()
def largest_difference(trained: RepSR, plain: PlainSR, dtype: torch.dtype) -> float:
    """The largest difference of two networks' outputs on seeded noise and constant images, borders included.

    Args:
        trained: evaluated in its branched form with population statistics.
        dtype: copies of both compute in this type.
    """
    branched, single = copy.deepcopy(trained).to(dtype).eval(), copy.deepcopy(plain).to(dtype).eval()
    random = torch.Generator().manual_seed(0)
    worst = 0.0
    for height, width in PROBE_SIZES:
        noise = torch.rand(2, trained.spec.colors, height, width, generator=random, dtype=torch.float64)
        constant = torch.tensor([0.0, 1.0], dtype=torch.float64)[:, None, None, None].expand_as(noise)
        lr = torch.cat([noise, constant]).to(dtype)
        difference = (branched(lr) - single(lr)).abs().max()
        worst = max(worst, float(difference)) if torch.isfinite(difference) else float("inf")
    return worst


def fuse_checkpoint(checkpoint: Path, metadata: dict[str, str] | None = None) -> Fused:
    """Fuse a checkpoint's averaged network.

    Args:
        checkpoint: a training checkpoint, or a model that is fused already.
        metadata: further strings, e.g. a licence.

    Raises:
        CheckpointError: it cannot be read, or the fused network does not equal the trained one.
    """
    trained, strings = _load(checkpoint)
    parameters = sum(p.numel() for p in trained.parameters())
    spec = trained.spec
    strings |= {"repsr": __version__, "scale": str(spec.scale), "network": spec.name, **(metadata or {})}
    if isinstance(trained, PlainSR):
        return Fused(trained, strings, parameters)
    plain = fuse(trained)
    # In float64 the merge itself is tested; float32 adds the rounding of the weights that are written.
    exact = fuse(copy.deepcopy(trained).double())
    errors = {
        torch.float64: largest_difference(trained, exact, torch.float64),
        torch.float32: largest_difference(trained, plain, torch.float32),
    }
    for dtype, error in errors.items():
        if not error <= TOLERANCE[dtype]:
            name = str(dtype).removeprefix("torch.")
            raise CheckpointError(
                checkpoint,
                f"fused and trained network differ by {error:.2e} in {name}, more than {TOLERANCE[dtype]:.0e}",
                "Nothing was written; the checkpoint may be damaged or its BN statistics degenerate.",
            )
    return Fused(plain, strings, parameters, errors[torch.float64], errors[torch.float32])


def fuse_model(model: ModelFile) -> Fused:
    """As ``fuse_checkpoint``, of a model that was found by its name.

    Raises:
        CheckpointError: as ``fuse_checkpoint``, or it is not what was shipped.
    """
    check_digest(model)
    fused = fuse_checkpoint(model.path)
    if model.blend is None:
        return fused
    mixed = {"detail": repr(model.blend.share), "detail_sha256": _digest(model.blend.path)}
    return replace(fused, net=load_compact(model), metadata=fused.metadata | mixed)


def write_fused(fused: Fused, target: Path, overwrite: bool = False) -> FuseReport:
    """Write a fused network as safetensors in the Compact layout.

    Raises:
        UsageError: the target exists and ``overwrite`` is false.
    """
    save_plain(target, fused.net, fused.metadata, overwrite=overwrite)
    return FuseReport(
        target=target,
        network=fused.net.spec.name,
        scale=fused.net.spec.scale,
        parameters=sum(p.numel() for p in fused.net.parameters()),
        trained_parameters=fused.trained_parameters,
        error_float64=fused.error_float64,
        error_float32=fused.error_float32,
        step=int(fused.metadata.get("step", 0)),
        sha256=_digest(target),
    )


def _load(checkpoint: Path) -> tuple[RepSR | PlainSR, dict[str, str]]:
    """The network of a file, and metadata about it."""
    with contextlib.suppress(CheckpointError):  # not safetensors
        strings = read_metadata(checkpoint)
        return load_plain(checkpoint), {"source_sha256": _digest(checkpoint), **strings}
    try:
        loaded = load_training(checkpoint)
    except CheckpointError:
        return load_plain(checkpoint), {"source_sha256": _digest(checkpoint)}
    network = loaded.recipe["network"]
    return loaded.ema.eval(), {
        "block": str(network["block"]),
        "step": str(loaded.step),
        "seed": str(loaded.recipe["run"]["seed"]),
        "source_sha256": _digest(checkpoint),
        "psnr_y_validation": f"{loaded.progress.get('best_psnr_y', float('nan')):.4f}",
    }


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
