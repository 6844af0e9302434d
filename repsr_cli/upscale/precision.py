"""Decide what ``--precision auto`` means on a CPU: bf16 where it is fast and loses hardly anything, else fp32.

Whether a model loses anything is not known beforehand: it is measured on small images whose original is known, once per
machine, model and engine, and remembered.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from repsr_cli.engine.backends.registry import ENGINES, PRECISIONS, computes_bf16, engine_name
from repsr_cli.errors import UsageError
from repsr_cli.upscale.cache import cache_folder, recall, remember
from repsr_cli.version import __version__
from repsr_cli.yuv.formats import PlaneFormat

if TYPE_CHECKING:  # torch, which is not needed where a measurement is remembered
    from repsr_cli.model.foreign import ForeignSR
    from repsr_cli.model.plain import PlainSR

# What bf16 may lose against fp32, in dB of PSNR.
MOST_LOST = 0.02
# What ``auto`` is to mean on CPUs, whatever they are.
VARIABLE = "REPSR_PRECISION"
# Crops of frames of Big Buck Bunny (Blender Foundation, CC-BY 3.0) beside each other; its sides are multiples of 12.
_IMAGES = Path(__file__).with_name("precision_check.npz")
_RGB = PlaneFormat("rgb", full_range=True, depth=8)


@dataclass(frozen=True, slots=True)
class Precision:
    """A number format.

    Attributes:
        name: as ``--precision`` takes it; ``auto`` for devices other than CPUs, which need no measurement.
        why: a remark for the user; may be empty.
    """

    name: str
    why: str = ""


def resolved(
    asked: str,
    net: PlainSR | ForeignSR,
    device: str,
    engine: str = "auto",
    threads: int | None = None,
    say: Callable[[str], None] = lambda _line: None,
) -> Precision:
    """What a policy means for a model here.

    Args:
        asked: ``auto`` or a number format.
        engine: as ``--engine`` takes it.
        say: called for a file of measurements that is damaged or cannot be written.

    Raises:
        UsageError: the environment asks for a number format that does not exist.
        DeviceError: no such device.
    """
    from repsr_cli.engine.colour_folding import folds
    from repsr_cli.engine.settings import pick_device
    from repsr_cli.engine.upscaler import weights_digest

    if asked != "auto" or pick_device(device).type != "cpu":
        return Precision(asked)
    known = _unmeasured(engine)
    if known is not None:
        return known
    if not folds(net, _RGB):
        return Precision("fp32")
    digest = weights_digest(net)
    return _judged([_lost(net, digest, each, threads, say) for each in _engines(engine)])


def remembered(digest: str, engine: str) -> Precision | None:
    """What ``auto`` means on this CPU for a plain RGB network; None where that has to be measured.

    Args:
        digest: of its weights.
        engine: as ``--engine`` takes it.

    Raises:
        UsageError: the environment asks for a number format that does not exist.
    """
    known = _unmeasured(engine)
    if known is not None:
        return known
    file = recall(_file(), float, lambda _line: None)
    found = [file.get(_key(digest, each)) for each in _engines(engine)]
    return _judged([lost for lost in found if lost is not None]) if None not in found else None


def preset() -> str | None:
    """The number format that the environment asks for, if any.

    Raises:
        UsageError: there is no such format.
    """
    wanted = os.environ.get(VARIABLE, "auto")
    if wanted == "auto":
        return None
    if wanted not in PRECISIONS:
        raise UsageError(f"{VARIABLE}={wanted}", "no such precision", "Set it to auto, fp32, fp16 or bf16.")
    return wanted


def _unmeasured(engine: str) -> Precision | None:
    """What ``auto`` means whatever the network; None: that depends on it."""
    if (wanted := preset()) is not None:
        return Precision(wanted, f"by {VARIABLE}")
    return None if computes_bf16() and engine in ("auto", "torch", "openvino") else Precision("fp32")


def _engines(engine: str) -> tuple[str, ...]:
    """The engines that a check is made with: images, and videos that are resized, are torch's whatever the engine."""
    return ("torch", "openvino") if engine != "torch" and ENGINES["openvino"].installed else ("torch",)


def _judged(losses: list[float]) -> Precision:
    lost = max(losses)
    if lost < MOST_LOST:
        return Precision("bf16", f"{max(lost, 0):.3f} dB below fp32 in a check")
    return Precision("fp32", f"bf16 is {lost:.2g} dB below it in a check")


def measured_loss(net: PlainSR, engine: str, threads: int | None = None) -> float:
    """By how many dB of PSNR a network in bf16 is below itself in fp32, on the images that ship for this.

    Args:
        net: an RGB network.
        engine: ``torch`` or ``openvino``.
    """
    import numpy as np

    from repsr_cli.engine.planes import PlaneUpscaler
    from repsr_cli.engine.upscaler import Upscaler
    from repsr_cli.image.resize import downscale

    with np.load(_IMAGES, allow_pickle=False) as file:
        hr = file["hr"]
    lr = downscale(hr, net.spec.scale)
    planes = [np.ascontiguousarray(lr[..., color]) for color in range(3)]

    def error(precision: str) -> float:
        upscaler = Upscaler(net, "cpu", precision, threads=threads, engine=engine)
        sr = np.stack(PlaneUpscaler(upscaler, _RGB, _RGB, reuse=False)(planes), -1)
        return float(np.mean((sr.astype(np.float64) - hr) ** 2))

    exact, half = error("fp32"), error("bf16")
    if exact == half:
        return 0.0
    return 10 * math.log10(half / exact) if exact and half else math.copysign(math.inf, half - exact)


def _lost(net: PlainSR, digest: str, engine: str, threads: int | None, say: Callable[[str], None]) -> float:
    """As ``measured_loss``, remembered."""
    key, known = _key(digest, engine), recall(_file(), float, say)
    if key not in known:
        known[key] = measured_loss(net, engine, threads)
        remember(_file(), known, say)
    return known[key]


def _file() -> Path:
    return cache_folder() / "precision.json"


def _key(digest: str, engine: str) -> str:
    return f"{digest}; {processor()}; repsr {__version__}, torch {version('torch')}, {engine_name(engine)}"


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
