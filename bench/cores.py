"""Measure what a frame costs, part by part, and predict from it how fast more cores are.

    python bench/cores.py VIDEO -n balanced --cores 8 32

Measured are a tile on one and on two threads, what only one thread at a time can do (Python holds its lock), what the
calling thread does for each frame, decoding, encoding, and the bytes that a frame moves beside what memory copies. The
prediction is the least of what each of these allows; for one and two threads it is printed beside what they measure.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn

from repsr_cli.engine.colour_folding import fold
from repsr_cli.engine.memory import keep_freed_memory
from repsr_cli.engine.side_by_side import tiles_at_once
from repsr_cli.engine.threads import torch_threads
from repsr_cli.engine.tile_reuse import ReuseCache
from repsr_cli.engine.tiled_frames import TiledFrames
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.zoo import load_compact, resolve
from repsr_cli.upscale.frame_path import decoder_for, formats_of, network_for
from repsr_cli.upscale.plan_video import VideoPlan, plan_video
from repsr_cli.upscale.precision import resolved
from repsr_cli.upscale.request import Request
from repsr_cli.video.encode import SegmentEncoder
from repsr_cli.video.frames import Frame, nbytes
from repsr_cli.video.stages import Stages, run_stages
from repsr_cli.yuv.device_planes import on_host


@dataclass(frozen=True, slots=True)
class Parts:
    """What a frame costs, in ms, MB and GB/s.

    Attributes:
        tiles: of a frame.
        tile: one tile on one thread.
        tile_two: one tile on two threads.
        tile_lock: what a tile of one pixel takes: hardly more than what holds Python's lock.
        begin: what the calling thread does for a frame.
        decode: processor time of decoding.
        decode_lock: of it, in the thread that holds Python's lock at times.
        encode: processor time of encoding.
        encode_thread: of it, in the thread that feeds the encoder.
        moved: MB that a frame writes and reads.
        memory: GB/s that one thread copies, reading and writing.
    """

    tiles: int
    tile: float
    tile_two: float
    tile_lock: float
    begin: float
    decode: float
    decode_lock: float
    encode: float
    encode_thread: float
    moved: float
    memory: float

    def predicted(self, cores: int, encoding: bool) -> dict[str, float]:
        """Frames per second that each part allows on so many cores, and the least of these."""
        work = self.tiles * self.tile + self.begin + self.decode + (self.encode if encoding else 0.0)
        lock = self.tiles * self.tile_lock + self.begin + self.decode_lock
        limits = {
            "processor": 1000 * cores / work,
            "tiles at once": 1000 * tiles_at_once(cores) / (self.tiles * self.tile),
            "lock": 1000 / lock,
            # One thread's share times the cores is more than a machine has; half of the cores is a cautious guess.
            "memory": 1000 * self.memory * max(cores / 2, 1) / self.moved,
        }
        if encoding:
            limits["encoder's thread"] = 1000 / self.encode_thread
        return {"fps": min(limits.values()), **limits}

    def by_halves(self, cores: int) -> float:
        """Frames per second with two tiles at once, each on half of the threads, by Amdahl's law."""
        alone = max(2 * self.tile_two - self.tile, 0.0)
        return 2000 / (self.tiles * (alone + (self.tile - alone) / max(cores // 2, 1)))


def best(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter, rounds: int = 5) -> float:
    """Milliseconds of the fastest run, after one to warm up."""
    work()
    found = []
    for _ in range(rounds):
        began = clock()
        work()
        found.append(clock() - began)
    return 1000 * min(found)


def per_frame(work: Callable[[], object], frames: int) -> tuple[float, float]:
    """Milliseconds of processor time per frame: of all threads, and of this one."""
    process, thread = time.process_time(), time.thread_time()
    work()
    return 1000 * (time.process_time() - process) / frames, 1000 * (time.thread_time() - thread) / frames


def moved_bytes(net: PlainSR, upscaler: Upscaler, plan: VideoPlan, tiles: list[Any]) -> float:
    """Bytes that layers write and read once each, and what surrounds them, for a frame."""
    fmt_in, fmt_out = formats_of(plan)
    layers = [layer for layer in fold(net, fmt_in, fmt_out).body.layers if isinstance(layer, nn.Conv2d)]
    size = 4 if upscaler.precision == "fp32" else 2
    pixels = sum(tile.context.area for tile in tiles)
    # Every convolution reads its input and writes its output, and so does every PReLU; then samples in fp32.
    channels = sum(layer.in_channels + 3 * layer.out_channels for layer in layers)
    return float(pixels * (channels * size + 4 * layers[-1].out_channels * 4))


def measure(video: Path, model: str, scale: float, engine: str, precision: str) -> tuple[Parts, dict[int, float], str]:
    """The parts; frames per second without an encoder, measured on one and two threads; and the network in words."""
    chosen = resolve(model, scale, "clean")
    net = load_compact(chosen)
    assert isinstance(net, PlainSR), "shipped models are plain networks"
    number = resolved(precision, net, "cpu", engine, 1, lambda _line: None).name
    with TemporaryDirectory(prefix="repsr-cores-") as folder:
        request = Request.of(model=model, scale=scale, preset="veryfast", device="cpu")
        plan = plan_video(video, Path(folder) / "upscaled.mp4", request, chosen)
        one, two = (Upscaler(net, "cpu", number, "auto:80000", threads, engine=engine) for threads in (1, 2))
        parts = _parts(net, one, two, plan)
        measured = {threads: _rate(upscaler, plan) for threads, upscaler in ((1, one), (2, two))}
    return parts, measured, one.describe()


def _parts(net: PlainSR, one: Upscaler, two: Upscaler, plan: VideoPlan) -> Parts:
    fmt_in, fmt_out = formats_of(plan)
    folded = fold(net, fmt_in, fmt_out)
    lr = torch.rand(1, len(folded.black), plan.source.height, plan.source.width)

    def tiled(upscaler: Upscaler) -> TiledFrames:
        return TiledFrames(upscaler, folded, fmt_in, fmt_out, ReuseCache(enabled=True))

    def tile(upscaler: Upscaler, pixels: tuple[int, int] | None = None) -> tuple[list[Any], Callable[[], None]]:
        frames = tiled(upscaler)
        image = lr if pixels is None else lr[..., : pixels[0], : pixels[1]].contiguous()
        tiles = frames.runner.plan(*image.shape[-2:])
        write = functools.partial(frames._write, frames._targets(*image.shape[-2:]))
        return tiles, lambda: frames.runner._compute(frames.runner._backend, image, tiles[0], write)

    decoder = decoder_for(plan, one)
    shown = list(islice(decoder.frames(None, None), 40))
    tiles, compute = tile(two)  # on two threads a frame is cut into pairs, as it is on more
    with torch_threads(1):
        alone, small = best(compute), best(tile(one, (2, 2))[1])
    with torch_threads(2):
        both = best(tile(two)[1])
    decode = per_frame(lambda: sum(1 for _ in decoder_for(plan, one).frames(None, None)), plan.frames or len(shown))
    begun = _begin(tiled(two), shown)
    encoder, maker = SegmentEncoder(plan.encoding), tiled(one)
    upscaled = [maker.whole(on_host(frame.planes)) for frame in shown]

    def encode() -> None:
        for frame, planes in zip(shown, upscaled, strict=True):
            encoder.encode(planes, frame.pts, frame.duration)
        encoder.finish()

    encoded = per_frame(encode, len(shown))
    source, target = np.ones(2**26, np.uint8), np.empty(2**26, np.uint8)
    memory = 2 * source.nbytes / best(lambda: np.copyto(target, source)) / 1e6
    moved = moved_bytes(net, one, plan, tiles) / 1e6
    return Parts(len(tiles), alone, both, small, begun, *decode, *encoded, moved, memory)


def _begin(frames: TiledFrames, shown: list[Frame]) -> float:
    """Milliseconds of the calling thread to begin a frame."""
    found = []
    for frame in shown[:20]:
        began = time.thread_time()
        finish = frames.begin(on_host(frame.planes))
        found.append(time.thread_time() - began)
        finish()
    return 1000 * sorted(found)[len(found) // 2]


def _rate(upscaler: Upscaler, plan: VideoPlan) -> float:
    """Frames per second of decoder and network."""
    network = network_for(plan, upscaler)
    network.begin(next(iter(decoder_for(plan, upscaler).frames(None, None))).planes)()
    counted: list[int] = []

    def take(frames: Any) -> None:
        counted.extend(1 for _ in frames)

    stages: Stages[Frame, Any] = Stages(
        lambda: decoder_for(plan, upscaler).frames(None, None),
        lambda frame: network.begin(frame.planes),
        take,
        lambda frame: nbytes(frame.planes),
        lambda planes: sum(plane.nbytes for plane in planes),
        ahead=lambda: network.ahead,
    )
    with torch_threads(upscaler.threads):
        wall = run_stages(stages)["wall"]
    return len(counted) / wall


def main() -> None:
    """Print what was measured and what follows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("-n", "--model", default="balanced")
    parser.add_argument("-s", "--scale", type=float, default=4.0)
    parser.add_argument("--engine", default="torch")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--cores", type=int, nargs="+", default=[8, 32])
    given = parser.parse_args()
    keep_freed_memory()
    parts, measured, words = measure(given.video, given.model, given.scale, given.engine, given.precision)
    lines = [
        words,
        f"{parts.tiles} tiles a frame: {parts.tile:.1f} ms on one thread, {parts.tile_two:.1f} on two",
        f"lock: {parts.tile_lock:.2f} ms a tile, {parts.begin:.2f} + {parts.decode_lock:.2f} a frame",
        f"decoding {parts.decode:.2f}, encoding {parts.encode:.2f} ms a frame, {parts.encode_thread:.2f} in one thread",
        f"{parts.moved:.0f} MB a frame; one thread copies {parts.memory:.1f} GB/s",
    ]
    for cores in (1, 2, *given.cores):
        limits = parts.predicted(cores, encoding=False)
        names = ", ".join(f"{name} {limit:.1f}" for name, limit in limits.items() if name != "fps")
        beside = f" (measured {measured[cores]:.1f})" if cores in measured else ""
        ended = parts.predicted(cores, encoding=True)["fps"]
        lines.append(
            f"{cores} cores: {limits['fps']:.1f} fps{beside}, {ended:.1f} with the encoder; limits: {names}; "
            f"by halves {parts.by_halves(cores):.1f}"
        )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
