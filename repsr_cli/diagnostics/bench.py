"""How fast, and how much of what the machine can do: model only, the pipeline, end to end, a rival.

Absolute figures depend on the machine; ratios taken in one run travel better. So everything here is measured side by
side: the peak is that of a plain matrix product on the same device in the same minute, the rival reads the same video.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
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

from repsr_cli.engine.backends.registry import PRECISIONS
from repsr_cli.engine.colour_folding import fold, folds
from repsr_cli.engine.planes import PlaneUpscaler
from repsr_cli.engine.threads import torch_threads
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import MediaError, UsageError
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.zoo import ModelFile, load, resolve
from repsr_cli.upscale.calibrate import measure, processor
from repsr_cli.upscale.request import Reporter, Request
from repsr_cli.video.stages import Stopwatch, begun_ahead
from repsr_cli.yuv.formats import PlaneFormat

# What nearly every video is stored as.
VIDEO = PlaneFormat("bt709", full_range=False, depth=8, subsample=(2, 2), siting="left")


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What to measure.

    Attributes:
        upscale: network, device, precision, tile, threads, codec, preset and the like, as for ``repsr upscale``.
        source: a video for the pipeline and the end-to-end figures; None: the model only.
        rival: a command to race end to end, with ``{source}`` and ``{target}`` in it; None: no race.
        size: (height, width) in LR px of the frame for the model-only figure.
        rounds: how often each is measured; the best counts, since whatever else the machine does only slows.
        calibrate: also time every engine and budget for tiles that a calibration chooses from.
    """

    upscale: Request = field(default_factory=Request)
    source: Path | None = None
    rival: str | None = None
    size: tuple[int, int] = (270, 480)
    rounds: int = 5
    calibrate: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement.

    Attributes:
        name: ``model``, an engine and its tiles, ``pipeline``, ``end to end`` or ``rival``.
        frames: how many were enlarged in ``seconds``.
        seconds: the best wall time.
        facts: what else is known: GFLOP/s and its share of the peak, each stage's share of the time, cores at work.
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
    """All that was measured in one run.

    Attributes:
        machine: processor, threads, versions.
        network: what the upscaler says of itself.
        peak_gflops: a matrix product's speed on this device in this precision.
        rows: the measurements.
    """

    machine: dict[str, Any]
    network: str
    peak_gflops: float
    rows: tuple[Row, ...]

    def record(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        rows = [asdict(row) | {"fps": round(row.fps, 3)} for row in self.rows]
        return {
            "machine": self.machine,
            "network": self.network,
            "peak_gflops": round(self.peak_gflops, 1),
            "rows": rows,
        }

    def lines(self) -> list[str]:
        """The table for people."""
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

    def plot(self) -> str:
        """Bars of frames per second as an SVG image."""
        fastest = max(row.fps for row in self.rows)
        left = 20 + 7 * max(13, *(len(row.name) for row in self.rows))
        bars = []
        for index, row in enumerate(self.rows):
            top, width = 40 + 34 * index, (540 - left) * row.fps / fastest
            bars.append(
                f'<text x="{left - 10}" y="{top + 16}" text-anchor="end">{row.name}</text>'
                f'<rect x="{left}" y="{top}" width="{width:.1f}" height="24" fill="#4477aa"/>'
                f'<text x="{left + 6 + width:.1f}" y="{top + 16}">{row.fps:.2f} fps</text>'
            )
        height = 50 + 34 * len(self.rows)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="640" height="{height}" font-family="sans-serif" '
            f'font-size="13"><rect width="640" height="{height}" fill="#ffffff"/>'
            f'<text x="10" y="22">{_escaped(self.network)}</text>{"".join(bars)}</svg>\n'
        )


def bench(options: BenchOptions, reporter: Reporter) -> Bench:
    """Measure.

    Raises:
        CheckpointError: no such network.
        DeviceError: no such device.
        UsageError: a rival without a video, or without the words it needs; nothing to calibrate.
        MediaError: the video cannot be read, or the rival failed.
    """
    if options.rival is not None:
        if options.source is None:
            raise UsageError("rival", "there is no video to race on", "Name a video.")
        if "{source}" not in options.rival or "{target}" not in options.rival:
            raise UsageError("rival", "the command does not say where its files go", "Use {source} and {target} in it.")
    asked = options.upscale.model
    chosen = resolve(asked.model, options.upscale.size.scale, "clean")
    net = load(chosen)
    upscaler = Upscaler(net, asked.devices[0], asked.precision, asked.tile, asked.threads, reporter.say, asked.engine)
    with torch_threads(asked.threads):
        peak, model = measure_model(net, upscaler, options.size, options.rounds)
        rows = [model]
        if options.calibrate:
            rows += _calibration(upscaler, options.size, reporter)
        if options.source is not None:
            rows += _measure_video(options, chosen, upscaler, reporter)
    return Bench(describe_machine(upscaler), upscaler.describe(), peak, tuple(rows))


def measure_model(net: PlainSR, upscaler: Upscaler, size: tuple[int, int], rounds: int) -> tuple[float, Row]:
    """The network alone, decoder's planes to encoder's planes, and the peak beside it.

    Returns:
        (GFLOP/s of a matrix product, the row). The row's GFLOP/s count the multiplications and additions that the
        frame needs in the network that runs, with colour folded in; what tiles compute twice counts as time only.
    """
    planes = PlaneUpscaler(upscaler, VIDEO, VIDEO, reuse=False)
    rng = np.random.default_rng(0)
    frame = [rng.integers(16, 236, shape, dtype=np.uint8) for shape in VIDEO.plane_sizes(*size)]
    flops = 2 * fold(net, VIDEO, VIDEO).macs_per_pixel * size[0] * size[1]
    planes(frame)
    # On the CPU a frame by itself; on a GPU enough of them that uploads, batches and downloads keep each other busy.
    count = 1 if planes.ahead == 1 else 4 * planes.ahead
    seconds, products = [], []
    # In turns, so that both see the same machine.
    for _ in range(rounds):
        products.append(_matmul_seconds(upscaler))
        seconds.append(_best(lambda: _run_through(planes, frame, count), 3) / count)
    peak = 2 * _side(upscaler) ** 3 / min(products) / 1e9
    speed = flops / min(seconds) / 1e9
    facts = {
        "size": f"{size[1]}x{size[0]}",
        "engine": planes.engine,
        "gflops": round(speed, 1),
        "share_of_peak": round(speed / peak, 3),
    }
    return peak, Row("model", 1, min(seconds), facts)


def _run_through(planes: PlaneUpscaler, frame: list[NDArray[np.uint8]], count: int) -> None:
    """Enlarge a frame so many times, as many at once as are worth it."""
    for _ in begun_ahead(repeat(frame, count), planes.begin, Stopwatch(), lambda: planes.ahead):
        pass


def _calibration(upscaler: Upscaler, size: tuple[int, int], reporter: Reporter) -> list[Row]:
    """All that a calibration chooses from, the fastest first."""
    if upscaler.device.type != "cpu" or upscaler.precision != "fp32" or not folds(upscaler.net, VIDEO):
        raise UsageError("--calibrate", "is for networks of colour in fp32 on the CPU", "Leave it out.")
    trials = measure(upscaler, VIDEO, VIDEO, size, reporter.say)
    return [Row(f"{trial.choice.engine} {trial.choice.tile}", 1, trial.seconds) for trial in trials]


def describe_machine(upscaler: Upscaler) -> dict[str, Any]:
    """What the figures depend on."""
    machine = {
        "system": platform.system(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": upscaler.threads,
        "torch": torch.__version__,
    }
    if upscaler.device.type == "cuda":
        machine["gpu"] = torch.cuda.get_device_name(upscaler.device)
    return machine


def _measure_video(options: BenchOptions, model: ModelFile, upscaler: Upscaler, reporter: Reporter) -> list[Row]:
    source = options.source
    assert source is not None
    rounds = max(options.rounds // 2, 1)
    with tempfile.TemporaryDirectory(prefix="repsr-bench-") as folder:
        target = Path(folder) / f"upscaled{source.suffix if source.suffix in ('.mp4', '.mov', '.mkv') else '.mkv'}"
        rival = [
            part.replace("{source}", str(source)).replace("{target}", str(Path(folder) / f"rival{target.suffix}"))
            for part in shlex.split(options.rival or "")
        ]
        runs: dict[str, list[Row]] = {"pipeline": [], "end to end": [], "rival": []}
        # In turns, so that all see the same machine.
        for _ in range(rounds):
            runs["pipeline"].append(_pipeline(source, target, model, upscaler, options.upscale, reporter))
            runs["end to end"].append(_end_to_end(source, target, options.upscale))
            if rival:
                runs["rival"].append(_race(rival, runs["pipeline"][0].frames))
    best = [min(rows, key=lambda row: row.seconds) for rows in runs.values() if rows]
    if rival:
        best[2].facts["ours_over_rival"] = round(best[2].seconds / best[1].seconds, 2)
    return best


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


def _end_to_end(source: Path, target: Path, asked: Request) -> Row:
    """The command as a user starts it, in a process of its own: starting Python and loading the network included."""
    command = [sys.executable, "-m", "repsr_cli", "upscale", str(source), "-o", str(target), "-y", "--no-resume"]
    given = {
        "-n": asked.model.model,
        "-s": asked.size.scale,
        "--device": asked.model.device,
        "--precision": asked.model.precision,
        "-t": asked.model.tile,
        "--threads": asked.model.threads,
        "--engine": asked.model.engine,
        "-c": asked.video.codec,
        "--preset": asked.video.preset,
    }
    for option, value in given.items():
        command += [] if value is None else [option, str(value)]
    seconds, busy, printed = _timed([*command, "--json", "--quiet"])
    record = json.loads(printed)
    facts: dict[str, Any] = {key: record["facts"][key] for key in ("codec", "occupancy", "reused")}
    facts["start_up_s"] = round(seconds - record["seconds"], 2)
    # Wall time of decoder, network and encoder over their processor time, were it spread over all cores.
    facts["overhead"] = round((os.cpu_count() or 1) / max(record["facts"]["cores_busy"], 0.01), 3)
    return Row("end to end", int(record["facts"]["frames"]), seconds, facts | _load(busy, seconds))


def _race(command: list[str], frames: int) -> Row:
    seconds, busy, _ = _timed(command)
    return Row("rival", frames, seconds, _load(busy, seconds))


def _load(busy: float, seconds: float) -> dict[str, float]:
    """How many cores were at work, on average."""
    return {"cores_busy": round(busy / seconds, 2)}


def _timed(command: list[str]) -> tuple[float, float, str]:
    """Run a command.

    Returns:
        Wall seconds, processor seconds of all its threads (0 where the system does not tell), standard output.

    Raises:
        MediaError: it cannot be started, or failed.
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
    dtype = PRECISIONS[upscaler.precision]
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
    """Seconds of the quickest of several runs, after one to warm up."""
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


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
