"""Measure how fast this machine upscales: the network alone, the pipeline without encoder, and end to end.

Absolute figures depend on the machine; ratios of two measurements in one run carry over better. So the network is
measured in turns with a plain matrix product on the same device, which gives the peak.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from repsr_cli.cores import usable_cores
from repsr_cli.diagnostics.bench_options import BenchOptions
from repsr_cli.engine.colour_folding import fold, folds
from repsr_cli.engine.planes import PlaneUpscaler
from repsr_cli.engine.settings import DTYPES
from repsr_cli.engine.threads import torch_threads
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import MediaError, UsageError
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.zoo import ModelFile, load_compact, resolve
from repsr_cli.reporting import Reporter
from repsr_cli.upscale.calibrate import measure
from repsr_cli.upscale.precision import processor, resolved
from repsr_cli.upscale.request import Request
from repsr_cli.video.probe import probe
from repsr_cli.video.stages import Stopwatch, begun_ahead
from repsr_cli.yuv.formats import PlaneFormat

# The format of nearly every video.
VIDEO = PlaneFormat("bt709", full_range=False, depth=8, subsample=(2, 2), siting="left")


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement.

    Attributes:
        name: ``model``, an engine and its tiles, ``pipeline`` or ``end to end``.
        frames: upscaled in ``seconds``.
        seconds: the best wall time.
        facts: further figures, such as GFLOP/s and its share of the peak, or busy cores.
    """

    name: str
    frames: int
    seconds: float
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def fps(self) -> float:
        """Frames per second."""
        return self.frames / self.seconds


@dataclass(frozen=True, slots=True)
class Bench:
    """All measurements of one run.

    Attributes:
        network: description of model and device.
        peak_gflops: speed of a matrix product on this device in this precision.
    """

    machine: dict[str, Any]
    network: str
    peak_gflops: float
    rows: tuple[Row, ...]

    def record(self) -> dict[str, Any]:
        """All measurements as values for JSON."""
        rows = [asdict(row) | {"fps": round(row.fps, 3)} for row in self.rows]
        return {
            "machine": self.machine,
            "network": self.network,
            "peak_gflops": round(self.peak_gflops, 1),
            "rows": rows,
        }

    def lines(self) -> list[str]:
        """A table as lines of text."""
        rows = [("", "fps", "ms/frame", "")]
        for row in self.rows:
            facts = ", ".join(f"{key} {_short(value)}" for key, value in row.facts.items())
            rows.append((row.name, f"{row.fps:.2f}", f"{1000 * row.seconds / row.frames:.1f}", facts))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        table = [
            f"{name:<{widths[0]}}  {fps:>{widths[1]}}  {ms:>{widths[2]}}  {facts}".rstrip()
            for name, fps, ms, facts in rows
        ]
        return [self.network, f"matrix product: {self.peak_gflops:.0f} GFLOP/s", *table]


def bench(options: BenchOptions, video: Path | None, reporter: Reporter) -> Bench:
    """Measure.

    Args:
        video: for the pipeline and the end-to-end figures; None: the network alone.

    Raises:
        UsageError: nothing to calibrate.
        MediaError: the video cannot be opened.
    """
    if video is not None:
        probe(video)  # what cannot be opened is an error before anything is measured
    model = resolve(options.model, options.scale, "clean")
    net = load_compact(model)
    device = options.request.model.devices[0]
    precision = resolved(options.precision, net, device, options.engine, options.threads, reporter.say).name
    upscaler = Upscaler(net, device, precision, options.tile, options.threads, reporter.say, options.engine)
    with torch_threads(options.threads):
        peak, row = measure_model(net, upscaler, options.size, options.rounds)
        rows = [row]
        if options.calibrate:
            rows += _calibration(upscaler, options.size, reporter)
        if video is not None:
            rows += _measure_video(video, options, model, upscaler, reporter)
    return Bench(describe_machine(upscaler), upscaler.describe(), peak, tuple(rows))


def measure_model(net: PlainSR, upscaler: Upscaler, size: tuple[int, int], rounds: int) -> tuple[float, Row]:
    """Measure the network alone, from a decoder's planes to an encoder's, in turns with a matrix product.

    Returns:
        (GFLOP/s of a matrix product, the row). The GFLOP/s of the row count the multiplications and additions of the
        folded network on one frame, without what overlapping tiles compute twice.
    """
    planes = PlaneUpscaler(upscaler, VIDEO, VIDEO, reuse=False)
    rng = np.random.default_rng(0)
    frame = [rng.integers(16, 236, shape, dtype=np.uint8) for shape in VIDEO.plane_sizes(*size)]
    flops = 2 * fold(net, VIDEO, VIDEO).macs_per_pixel * size[0] * size[1]
    planes(frame)
    # One frame on a CPU; on a GPU enough frames for uploads, batches and downloads to overlap.
    count = 1 if planes.ahead == 1 else 4 * planes.ahead
    seconds, products, loads = [], [], []
    # In turns, so that both see the same machine.
    for _ in range(rounds):
        products.append(_matmul_seconds(upscaler))
        began, busy = time.perf_counter(), time.process_time()
        seconds.append(_best(lambda: _run_through(planes, frame, count), 3) / count)
        loads.append(_load(time.process_time() - busy, time.perf_counter() - began)["cores_busy"])
    peak = 2 * _side(upscaler) ** 3 / min(products) / 1e9
    speed = flops / min(seconds) / 1e9
    facts = {
        "size": f"{size[1]}x{size[0]}",
        "engine": planes.engine,
        "precision": upscaler.precision,
        "gflops": round(speed, 1),
        "share_of_peak": round(speed / peak, 3),
        "cores_busy": max(loads),
    }
    return peak, Row("model", 1, min(seconds), facts)


def _run_through(planes: PlaneUpscaler, frame: list[NDArray[np.uint8]], count: int) -> None:
    """Upscale a frame ``count`` times, with as many under way as the upscaler uses."""
    for _ in begun_ahead(repeat(frame, count), planes.begin, Stopwatch(), lambda: planes.ahead):
        pass


def _calibration(upscaler: Upscaler, size: tuple[int, int], reporter: Reporter) -> list[Row]:
    """Measure all choices of a calibration, the fastest first."""
    if upscaler.device.type != "cpu" or upscaler.precision == "fp16" or not folds(upscaler.net, VIDEO):
        raise UsageError("--calibrate", "is for RGB models in fp32 or bf16 on the CPU", "Leave it out.")
    trials = measure(upscaler, VIDEO, VIDEO, size, reporter.say)
    return [Row(f"{trial.choice.engine} {trial.choice.tile}", 1, trial.seconds) for trial in trials]


def describe_machine(upscaler: Upscaler) -> dict[str, Any]:
    """What the figures depend on: processor, threads, versions, GPU."""
    machine = {
        "system": platform.system(),
        "processor": processor(),
        "cores": usable_cores(),
        "threads": upscaler.threads,
        "torch": torch.__version__,
    }
    if upscaler.device.type == "cuda":
        machine["gpu"] = torch.cuda.get_device_name(upscaler.device)
    return machine


def _measure_video(
    video: Path, options: BenchOptions, model: ModelFile, upscaler: Upscaler, reporter: Reporter
) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="repsr-bench-") as folder:
        target = Path(folder) / f"upscaled{video.suffix if video.suffix in ('.mp4', '.mov', '.mkv') else '.mkv'}"
        pipeline, end_to_end = [], []
        # In turns, so that both see the same machine.
        for _ in range(max(options.rounds // 2, 1)):
            pipeline.append(_pipeline(video, target, model, upscaler, options.request, reporter))
            end_to_end.append(_end_to_end(video, target, options))
    rows = [min(rows, key=lambda row: row.seconds) for rows in (pipeline, end_to_end)]
    rows[-1].facts["start_up"] = start_up_parts(max(options.rounds // 2, 1))
    return rows


# What a video's command loads, each with all before it.
_PARTS = {
    "python": "pass",
    "torch": "import torch",
    "pyav": "import torch, av",
    "repsr": "import torch, av, repsr_cli.cli, repsr_cli.upscale.batch, repsr_cli.upscale.video",
}


def start_up_parts(rounds: int) -> dict[str, float]:
    """Seconds that the parts of a start take, each the best of several processes, less the parts before it.

    The rest of ``start_up_s`` is loading the model, planning and ending.
    """
    parts, before = {}, 0.0
    for name, code in _PARTS.items():
        command = [sys.executable, "-c", f"{code}; import os; os._exit(0)"]
        seconds = min(_timed(command)[0] for _ in range(rounds))
        parts[name] = round(max(seconds - before, 0.0), 3)
        before = seconds
    return parts


def _pipeline(
    source: Path, target: Path, model: ModelFile, upscaler: Upscaler, asked: Request, reporter: Reporter
) -> Row:
    """Decoder and network, in this process, without an encoder."""
    from repsr_cli.upscale.plan_video import plan_video
    from repsr_cli.upscale.sinks import sink_for
    from repsr_cli.upscale.video import upscale_video

    began, busy = time.perf_counter(), time.process_time()
    plan = plan_video(source, target, asked.having(benchmark=True), model)
    outcome = upscale_video(plan, sink_for(plan), (upscaler,), reporter)
    seconds, busy = time.perf_counter() - began, time.process_time() - busy
    facts = {key: outcome.facts[key] for key in ("occupancy", "reused")}
    return Row("pipeline", int(outcome.facts["frames"]), seconds, facts | _load(busy, seconds))


def _end_to_end(source: Path, target: Path, options: BenchOptions) -> Row:
    """The command in a process of its own, including starting Python and loading the model."""
    command = [sys.executable, "-m", "repsr_cli", "upscale", str(source), "-o", str(target), "-y", "--no-resume"]
    seconds, busy, printed = _timed([*command, *options.arguments, "--json", "--quiet"])
    record = json.loads(printed)
    facts: dict[str, Any] = {key: record["facts"][key] for key in ("codec", "occupancy", "reused")}
    facts["start_up_s"] = round(seconds - record["seconds"], 2)
    # Wall time of decoder, network and encoder, divided by their processor time spread over all cores.
    facts["overhead"] = round(usable_cores() / max(record["facts"]["cores_busy"], 0.01), 3)
    return Row("end to end", int(record["facts"]["frames"]), seconds, facts | _load(busy, seconds))


def _load(busy: float, seconds: float) -> dict[str, float]:
    return {"cores_busy": round(busy / seconds, 2)}


def _timed(command: list[str]) -> tuple[float, float, str]:
    """Run a command.

    Returns:
        Wall seconds, processor seconds of all its threads (0 where unknown), standard output.
    """
    began, before = time.perf_counter(), os.times()
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise MediaError(command[0], f"cannot be started ({error.strerror})", "Check the command.") from error
    seconds, after = time.perf_counter() - began, os.times()
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise MediaError(command[0], f"ended with exit code {done.returncode} ({last})", "Check the command.")
    busy = after.children_user - before.children_user + after.children_system - before.children_system
    return seconds, busy, done.stdout


def _side(upscaler: Upscaler) -> int:
    return 2048 if upscaler.device.type == "cpu" else 8192


def _matmul_seconds(upscaler: Upscaler) -> float:
    dtype = DTYPES[upscaler.precision]
    side = _side(upscaler)
    a, b = (torch.ones(side, side, device=upscaler.device, dtype=dtype) for _ in range(2))

    def product() -> None:
        torch.mm(a, b)
        if upscaler.device.type == "cuda":
            torch.cuda.synchronize(upscaler.device)
        elif upscaler.device.type == "mps":
            torch.mps.synchronize()

    return _best(product, 3)


def _best(work: Callable[[], object], times: int) -> float:
    """Seconds of the fastest of several runs, after one to warm up."""
    work()
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _short(value: object) -> str:
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key} {_short(each)}" for key, each in value.items()) + ")"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def measure_speed(net: PlainSR, device: str = "auto", size: tuple[int, int] = (135, 240)) -> float:
    """Millions of LR pixels per second that a network enlarges here, the better of two runs after one to warm up.

    Args:
        size: (height, width) of the image, LR px.
    """
    upscaler = Upscaler(net, device)
    lr = torch.rand(1, 3, *size)
    return round(size[0] * size[1] / _best(lambda: upscaler(lr), 2) / 1e6, 3)
