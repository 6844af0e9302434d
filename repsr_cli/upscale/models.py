"""Choose the model of a job, and load each model once."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING

from repsr_cli.errors import CheckpointError, UsageError
from repsr_cli.model import zoo
from repsr_cli.model.spec import Spec
from repsr_cli.model.zoo import ModelFile
from repsr_cli.sizes import asked_sides, needed_factor
from repsr_cli.upscale.judged import Judged
from repsr_cli.upscale.precision import VARIABLE, Precision, preset, resolved
from repsr_cli.upscale.request import Request

if TYPE_CHECKING:  # torch, which planning does without
    from repsr_cli.engine.upscaler import Upscaler
    from repsr_cli.model.foreign import ForeignSpec, ForeignSR
    from repsr_cli.model.plain import PlainSR


@dataclass(frozen=True, slots=True)
class Compute:
    """What computes a job: a model by reference, and policies that an executor resolves when it starts.

    Attributes:
        model: name, file and digest.
        devices: at least one; several share a video.
        precision: ``auto`` or a number format.
        tile: ``auto``, ``auto:N``, ``off`` or a size.
        engine: ``auto`` or an engine's name.
        ray: address of a cluster; None: this machine computes.
        why: what decided the kind of model, e.g. ``JPEG of quality 75``; empty: the user did.
    """

    model: ModelFile
    devices: tuple[str, ...] = ("auto",)
    precision: str = "auto"
    tile: str = "auto"
    engine: str = "auto"
    threads: int | None = None
    ray: str | None = None
    why: str = ""

    @classmethod
    def of(cls, request: Request, model: ModelFile, why: str = "") -> Compute:
        """What a request asks for, with the model that was chosen."""
        asked = request.model
        return cls(model, asked.devices, asked.precision, str(asked.tile), asked.engine, asked.threads, asked.ray, why)

    def facts(self) -> dict[str, object]:
        """What is reported of the choice."""
        model = self.model
        return {"model": model.name, "model_kind": model.kind or None, "detail": model.detail, "why": self.why or None}


def choose_model(
    request: Request, source: Path, shown: tuple[int, int], judge: Callable[[], Judged]
) -> tuple[Compute, float]:
    """What computes: the model with the smallest factor that reaches the size asked for; a resize does the rest.

    Args:
        shown: (height, width) of the source as shown.
        judge: tells the kind of model that the source needs; called where the request leaves it open.

    Returns:
        The model with the reason for its kind, and how many times the source is to be enlarged on the axis that grows
        more.

    Raises:
        CheckpointError: no model fits the request.
        UsageError: the source is larger than the size asked for.
    """
    factor = wanted_factor(request, source, shown)
    asked, judged = request.model, None
    if asked.kind == "auto" and asked.detail is None and zoo.leaves_kind_open(asked.model):
        judged = judge()
    model = asked_model(request, factor, "clean" if judged is None else judged.kind)
    wanted = factor or model.scale
    if wanted > model.scale:
        raise CheckpointError(
            model.name, f"enlarges by {model.scale}, not {wanted:.4g}", f"Use -s {model.scale}, twice if need be."
        )
    why = "" if judged is None else judged.why
    if judged is not None and model.kind == "clean" and judged.kind == "real":
        why += f", {model.size} x{model.scale} being clean only"
    return Compute.of(request, model, why), wanted


def asked_model(request: Request, factor: float | None, kind: zoo.Kind) -> ModelFile:
    """The model that a request asks for.

    Args:
        factor: wanted factor; None: the model's own.
        kind: of model that the source needs, where the request leaves it open.
    """
    asked = request.model
    if asked.kind == "auto":
        return zoo.resolve(asked.model, factor, kind, detail=asked.detail)
    return zoo.resolve(asked.model, factor, asked.kind, fixed=True, detail=asked.detail)


def wanted_factor(request: Request, source: Path, shown: tuple[int, int]) -> float | None:
    """How many times a source is to be enlarged, on the axis that grows more; None: as the model does.

    Args:
        source: the source, for the message.
        shown: its (height, width) as shown.

    Raises:
        UsageError: the source is larger than the size asked for.
    """
    size = request.size.sides()
    if size.scale is not None:
        return size.scale
    factor = needed_factor(shown, size)
    if factor is not None and factor < 1:
        height, width = asked_sides(shown, size)
        asked = f"a width of {width}" if width else f"a height of {height}"
        raise UsageError(source, f"is {shown[1]}x{shown[0]} already, more than {asked} px", "repsr only enlarges.")
    return None if factor is None else float(factor)


def check_compute(request: Request) -> None:
    """Refuse what would fail for every job, so that it is reported once.

    Raises:
        CheckpointError, UsageError: as ``zoo.resolve``.
        UsageError: no such kind of device, devices of several kinds, an engine that is absent or not for them,
            something that is not a tile size, an unknown precision in the environment, or Ray is not installed.
        DeviceError: a device is absent, or a C++ compiler.
    """
    _check_model(request)
    asked = request.model
    if asked.tile != "auto":
        from repsr_cli.engine.tiling import pick_tile

        pick_tile(asked.tile)
    if asked.ray is not None:  # a cluster's devices are its own
        from repsr_cli.upscale.executors.ray_library import import_ray

        import_ray()
        return
    # Where it is not set, nothing has to be known of the device, which may take torch.
    if asked.precision == "auto" and VARIABLE in os.environ and _kind_of(asked.devices[0]) == "cpu":
        preset()
    if asked.devices not in (("auto",), ("cpu",)):  # these two always exist
        from repsr_cli.engine.settings import pick_device

        devices = [pick_device(name) for name in asked.devices]
        if len({device.type for device in devices}) > 1:
            names = ", ".join(map(str, devices))
            raise UsageError(f"devices {names}", "their results differ in the last digits", "Name devices of one kind.")
    if asked.engine != "auto":
        _check_engine(asked.engine, asked.devices[0], asked.precision)


def _check_model(request: Request) -> None:
    """Refuse a model that fits no source; which factor a size asks for differs from source to source."""
    try:
        asked_model(request, request.size.scale, "clean")
    except CheckpointError:
        if not request.size.sized:
            raise
        asked_model(request, 1.0, "clean")


def _check_engine(engine: str, device: str, precision: str) -> None:
    """Refuse an engine that cannot run on a device in the precision asked for, or in any where that is ``auto``."""
    from repsr_cli.engine.backends.registry import ENGINES, pick_engine

    if precision == "auto":
        precision = next(iter(ENGINES[engine].precisions)) if engine in ENGINES else "fp32"
    pick_engine(engine, _kind_of(device), precision)


def _kind_of(device: str) -> str:
    """The kind of a device, found without torch where it is a CPU for sure."""
    from repsr_cli.engine.gpus import is_cpu

    if is_cpu(device):
        return "cpu"
    from repsr_cli.engine.settings import pick_device

    return pick_device(device).type


def alternatives(model: ModelFile, spec: Spec | ForeignSpec) -> str:
    """What would be crisper, more faithful or faster than a model, as far as it ships; empty if nothing is."""
    if not isinstance(spec, Spec):
        return ""
    shipped, words = zoo.available(), []
    pair = any((each.size, each.scale, each.kind) == (model.size, model.scale, "detail") for each in shipped)
    if pair and model.detail is not None and model.detail < 1:
        words.append("crisper: --detail 1")
    if pair and model.detail:
        words.append("more faithful: --detail 0")
    base = "real" if model.kind == "detail" else model.kind
    costs = {
        each.size: Spec(spec.scale, channels=int(size[2]), blocks=int(size[1])).macs_per_pixel
        for each in shipped
        if each.scale == spec.scale and each.kind == (base or each.kind)
        if (size := re.fullmatch(r"M(\d+)C(\d+)", each.network))
    }
    best = max(costs, key=lambda size: costs[size], default="")
    if base and best and costs[best] > 1.5 * spec.macs_per_pixel:
        words.append(f"better, but slower: -n {best}")
    name = min(costs, key=lambda size: costs[size], default="")
    ratio = spec.macs_per_pixel / costs[name] if name else 1
    if ratio >= 1.5:
        words.append(f"up to {ratio:.1f} times as fast: -n {name}")
    return "".join(f"; {word}" for word in words)


def chosen(compute: Compute, spec: Spec | ForeignSpec, described: str, precision: Precision, note: str = "") -> str:
    """The line that names the model of a job.

    Args:
        described: network, device and number format in words.
        precision: the number format, and why.
        note: added to that.
    """
    why = f" for {compute.why}" if compute.why else ""
    checked = f" ({precision.name}: {precision.why})" if precision.why else ""
    return f"model {compute.model.name}{why}: {described}{checked}{note}{alternatives(compute.model, spec)}"


class ModelCache:
    """Models that are loaded, and the upscalers made of them; threads may share one."""

    def __init__(self) -> None:
        self._networks: dict[object, PlainSR | ForeignSR] = {}
        self._upscalers: dict[tuple[object, ...], Upscaler] = {}
        self._lock = RLock()

    def network(
        self, model: ModelFile, load: Callable[[ModelFile], PlainSR | ForeignSR] | None = None
    ) -> PlainSR | ForeignSR:
        """The network of a model, loaded at the first call.

        Args:
            load: how, where its file is not at hand; None: ``zoo.load``.
        """
        with self._lock:
            if model.key not in self._networks:
                self._networks[model.key] = (load or zoo.load)(model)
            return self._networks[model.key]

    def upscaler(
        self,
        compute: Compute,
        device: str,
        say: Callable[[str], None] = lambda _line: None,
        *,
        slot: int = 0,
        note: str = "",
    ) -> Upscaler:
        """The upscaler for a job on one device, made at the first call.

        Args:
            device: one of its devices.
            say: reports which model and device were chosen, when the model is loaded.
            slot: tells apart upscalers that are alike, for threads or devices that share none.

        Raises:
            CheckpointError: the model cannot be loaded.
            DeviceError: the device is absent.
            UsageError: a precision, tile or engine that makes no sense.
        """
        key = (compute.model.key, device, compute.precision, compute.tile, compute.engine, compute.threads, slot)
        with self._lock:
            if key not in self._upscalers:
                first = compute.model.key not in self._networks
                from repsr_cli.engine.upscaler import Upscaler

                net = self.network(compute.model)
                precision = resolved(compute.precision, net, device, compute.engine, compute.threads, say)
                upscaler = Upscaler(
                    net, device, precision.name, compute.tile, compute.threads, notify=say, engine=compute.engine
                )
                self._upscalers[key] = upscaler
                if first:
                    say(chosen(compute, net.spec, upscaler.describe(), precision, note))
            return self._upscalers[key]
