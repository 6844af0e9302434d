"""Decide whether a video can be upscaled without torch, whose import takes longer than a short video."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace

from repsr_cli.cores import usable_cores
from repsr_cli.engine.array_frames import ArrayCompute
from repsr_cli.engine.backends.openvino_graphs import compiles
from repsr_cli.engine.backends.registry import ENGINES
from repsr_cli.engine.gpus import is_cpu
from repsr_cli.model.zoo import load_arrays
from repsr_cli.upscale.choices import kind_of, recall_choices, worth_measuring
from repsr_cli.upscale.frame_path import formats_of
from repsr_cli.upscale.models import Compute, chosen
from repsr_cli.upscale.plan_video import VideoPlan
from repsr_cli.upscale.precision import Precision, remembered
from repsr_cli.video.segments import begun


def without_torch(plan: VideoPlan, say: Callable[[str], None]) -> ArrayCompute | None:
    """What computes a video by OpenVINO alone, where it would be OpenVINO anyway; None where torch is needed.

    Torch is needed for other models than those that ship, other engines, GPUs, resizes, chroma that OpenVINO does not
    write, jobs that go on, and for whatever has to be measured first. The result has the same bytes either way.

    Raises:
        CheckpointError: the model's file is damaged.
        UsageError: the environment asks for a number format that does not exist.
    """
    compute = plan.compute
    if "torch" in sys.modules or not _may(compute) or _goes_on(plan):
        return None
    network = load_arrays(compute.model)
    if network is None or plan.size != tuple(side * network.spec.scale for side in _size(plan)):
        return None
    precision = Precision(compute.precision)
    if compute.precision == "auto":
        precision = remembered(network.digest(), compute.engine) or precision
    if precision.name not in ENGINES["openvino"].precisions:
        return None
    found = ArrayCompute(network, precision.name, compute.tile, compute.threads or _threads(), say)
    formats = formats_of(plan)
    folded = found.fold(*formats)
    if formats[1].depth >= 16 or not compiles(folded.parts):
        return None
    return _tiled(found, plan, folded.macs_per_pixel, precision, say)


def _tiled(
    found: ArrayCompute, plan: VideoPlan, macs: int, precision: Precision, say: Callable[[str], None]
) -> ArrayCompute | None:
    """With the tiles that were the fastest for such videos; None where that was another engine, or must be measured."""
    compute, size, choice = plan.compute, _size(plan), None
    if compute.engine == "auto":
        choice = recall_choices(lambda _line: None).get(kind_of(found, *formats_of(plan), size))
        if choice is None and worth_measuring(macs * size[0] * size[1] * (plan.frames or 0), found.threads):
            return None
        if choice is not None and choice.engine != "openvino":
            return None
    say(chosen(compute, found.network.spec, found.describe(), precision))
    if choice is None:
        return found
    say(f"{plan.original.name}: by {found.engine_name}, tile {choice.tile}, the fastest here as measured before")
    return replace(found, tile=choice.tile)


def _may(compute: Compute) -> bool:
    """Whether what was asked for leaves the work to OpenVINO on the CPU, with tiles of its own choice."""
    asked = compute.engine in ("auto", "openvino") and compute.tile == "auto" and compute.ray is None
    if not asked or not ENGINES["openvino"].installed:
        return False
    return len(compute.devices) == 1 and is_cpu(compute.devices[0])


def _goes_on(plan: VideoPlan) -> bool:
    """Whether an interrupted job goes on: in what computed it before."""
    return plan.resume and not plan.benchmark and begun(plan.target) is not None


def _size(plan: VideoPlan) -> tuple[int, int]:
    return plan.source.height, plan.source.width


def _threads() -> int:
    """As many threads as torch would use: by OpenMP's variable, else one for each core that this process may use."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    return usable_cores()
