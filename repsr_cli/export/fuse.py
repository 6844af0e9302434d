"""Training checkpoint -> plain network, written only if both agree."""

from __future__ import annotations

import contextlib
import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from repsr_cli.errors import CheckpointError, UsageError
from repsr_cli.export.formats import PROBE_SIZES, export, format_of, parse_planes
from repsr_cli.export.formats import TOLERANCE as FLOAT32_TOLERANCE
from repsr_cli.model.checkpoint import load_plain, load_training, read_metadata, save_plain
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.repsr import RepSR, fuse
from repsr_cli.version import __version__

# Merging is exact, and float64 shows it. float32 shows whether rounding stays out of sight: on noise, which no network
# has learned, the branches of a sound M10C32 were measured to round off by 3.6e-5.
TOLERANCE = {torch.float64: 1e-10, torch.float32: FLOAT32_TOLERANCE}


@dataclass(frozen=True, slots=True)
class FuseReport:
    """What fusing did.

    Attributes:
        target: the file written.
        network: the field's name of the size, e.g. ``M4C16``.
        scale: enlargement factor.
        parameters: of the plain network.
        trained_parameters: of the training network.
        error_float64: largest difference between both networks' outputs computed in float64, values in [0, 1].
        error_float32: the same in float32.
        step: training step of the checkpoint; 0 for a network that was fused before.
        sha256: of the file written.
        exported: files for other programs that were written too.
        error_exported: largest difference between each program and torch, of the largest value, or of planes in code
            values; None: not checked, since the program is not installed.
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
    exported: tuple[Path, ...] = ()
    error_exported: tuple[float | None, ...] = ()


@torch.inference_mode()
def largest_difference(trained: RepSR, plain: PlainSR, dtype: torch.dtype) -> float:
    """The largest difference of two networks' outputs on seeded noise and flat images, borders included.

    Args:
        trained: judged in its branched form under population statistics.
        plain: the network it should equal.
        dtype: both compute in this type; copies are made, neither network changes.
    """
    branched, single = copy.deepcopy(trained).to(dtype).eval(), copy.deepcopy(plain).to(dtype).eval()
    random = torch.Generator().manual_seed(0)
    worst = 0.0
    for height, width in PROBE_SIZES:
        noise = torch.rand(2, trained.spec.colors, height, width, generator=random, dtype=torch.float64)
        flat = torch.tensor([0.0, 1.0], dtype=torch.float64)[:, None, None, None].expand_as(noise)
        lr = torch.cat([noise, flat]).to(dtype)
        difference = (branched(lr) - single(lr)).abs().max()
        worst = max(worst, float(difference)) if torch.isfinite(difference) else float("inf")
    return worst


def fuse_file(
    checkpoint: Path,
    target: Path,
    overwrite: bool = False,
    metadata: dict[str, str] | None = None,
    exports: Sequence[Path] = (),
    planes: str = "",
) -> FuseReport:
    """Fuse a checkpoint's averaged network and write it as safetensors in the Compact layout.

    Args:
        checkpoint: a training checkpoint, or a network that is fused already: then it is only written anew.
        target: the file to write, ``.safetensors``.
        overwrite: whether an existing target may be replaced.
        metadata: further strings for the file, e.g. a licence.
        exports: files for other programs to write too; the suffix decides which.
        planes: what those shall read and write in place of RGB, in the words of ``export.parse_planes``; empty: RGB.

    Raises:
        UsageError: a target exists or has another suffix, or a package is missing.
        CheckpointError: neither, or the fused network is not equal to the trained one; then nothing is written.
    """
    if target.suffix != ".safetensors":
        raise UsageError(target, "is no .safetensors name", "Fused networks are safetensors files.")
    fmt = parse_planes(planes) if planes else None
    if fmt is not None and not exports:
        raise UsageError("--planes", "says what exported files read and write", "Add --export FILE.onnx.")
    files = [target, *(file for export_target in exports for file in format_of(export_target).files(export_target))]
    for number, file in enumerate(files):
        if file in files[:number]:
            raise UsageError(file, "would be written twice", "Give each --export a name of its own.")
        if file.exists() and not overwrite:
            raise UsageError(file, "exists", "Add -y to replace it.")
    source = checkpoint.resolve()
    if any(file.resolve() == source for file in files):
        raise UsageError(checkpoint, "is the source itself", "Choose another name.")
    trained, strings = _opened(checkpoint)
    errors = {torch.float64: 0.0, torch.float32: 0.0}
    if isinstance(trained, RepSR):
        plain = fuse(trained)
        # In float64 the merge itself is judged; float32 adds the rounding of the weights that are written.
        exact = fuse(copy.deepcopy(trained).double())
        errors[torch.float64] = largest_difference(trained, exact, torch.float64)
        errors[torch.float32] = largest_difference(trained, plain, torch.float32)
    else:
        plain = trained
    for dtype, error in errors.items():
        if not error <= TOLERANCE[dtype]:
            kind = str(dtype).removeprefix("torch.")
            raise CheckpointError(
                checkpoint,
                f"fused and trained network differ by {error:.2e} in {kind}, more than {TOLERANCE[dtype]:.0e}",
                "Nothing was written; the checkpoint may be damaged or its BN statistics degenerate.",
            )
    strings |= {"repsr": __version__, "scale": str(plain.spec.scale), "network": plain.spec.name, **(metadata or {})}
    # First those that may be refused.
    error_exported = tuple(export(plain, file, strings, fmt) for file in exports)
    save_plain(target, plain, strings)
    return FuseReport(
        target=target,
        network=plain.spec.name,
        scale=plain.spec.scale,
        parameters=sum(p.numel() for p in plain.parameters()),
        trained_parameters=sum(p.numel() for p in trained.parameters()),
        error_float64=errors[torch.float64],
        error_float32=errors[torch.float32],
        step=int(strings.get("step", 0)),
        sha256=_digest(target),
        exported=tuple(exports),
        error_exported=error_exported,
    )


def _opened(checkpoint: Path) -> tuple[RepSR | PlainSR, dict[str, str]]:
    """The network of a file, and what is known of it, as strings that travel in files."""
    with contextlib.suppress(CheckpointError):  # no safetensors
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
