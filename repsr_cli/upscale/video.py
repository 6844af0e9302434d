"""Upscale one video on this machine: decode, enlarge and hand to a sink, segment after segment."""

from __future__ import annotations

import struct
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock
from typing import TYPE_CHECKING, Any

from repsr_cli.engine.array_frames import ArrayCompute, ArrayFrames
from repsr_cli.errors import MediaError
from repsr_cli.reporting import Outcome, Progress, Reporter
from repsr_cli.upscale.frame_path import decoder_for, network_for
from repsr_cli.upscale.job_record import job_record
from repsr_cli.upscale.plan_video import VideoPlan
from repsr_cli.upscale.sinks import Taken, UpscaledFrame, VideoSink, encode_segments
from repsr_cli.video.decode import Decoder
from repsr_cli.video.frames import CARRIED, Frame, nbytes, side_data, unkept
from repsr_cli.video.packet_chunks import PacketChunk, images
from repsr_cli.video.segments import Store
from repsr_cli.video.stages import Stages, run_stages
from repsr_cli.video.timeline import Segment

if TYPE_CHECKING:  # torch, which some videos do without
    from repsr_cli.engine.planes import PlaneUpscaler
    from repsr_cli.engine.upscaler import Upscaler

STAGES = ("decode", "network", "encode")
# The display matrix that changes nothing.
_UNROTATED = (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)


@dataclass(frozen=True, slots=True)
class Finished:
    """What comes of a chunk.

    Attributes:
        segments: their files, as a store holds them, by index.
        repeated: as in ``Decoder``.
        notes: likewise.
        stages: seconds that each stage was busy.
        precision: the network's, in the end.
    """

    segments: dict[int, bytes]
    repeated: list[float]
    notes: list[str]
    stages: dict[str, float]
    precision: str


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run of a video came to.

    Attributes:
        frames: frames in the target.
        resumed: those of them that an earlier run had made.
        network: the network, device and precision in one line.
        engine: what computed, with its version.
        reused: share of all pixels that were taken from the frame before.
        repeated: seconds of frames that could not be decoded.
        notes: what was noticed while working.
        stages: seconds that each stage was busy, ``wall``, and ``cpu`` where it was measured.
    """

    frames: int
    resumed: int
    network: str
    engine: str
    tile: str
    devices: tuple[str, ...]
    reused: float
    repeated: tuple[float, ...]
    notes: tuple[str, ...]
    stages: dict[str, float]


class FrameCounter:
    """Counts frames from several threads and reports them.

    Args:
        done: frames there are already.
    """

    def __init__(self, plan: VideoPlan, reporter: Reporter, done: int) -> None:
        self.count = done
        self._total = plan.frames
        self._reporter = reporter
        self._lock = Lock()

    def add(self, frames: int = 1) -> None:
        """Count some more."""
        with self._lock:
            self.count += frames
            self._reporter.progress(Progress(self.count, self._total, "frame"))


@dataclass(slots=True)
class _Lane:
    """One device at work: it takes runs of segments from a queue, and decodes, enlarges and hands on their frames."""

    plan: VideoPlan
    queue: deque[list[Segment]]
    take: Callable[[Iterator[UpscaledFrame]], Taken]
    counted: Callable[[], None]
    decoder: Decoder
    network: PlaneUpscaler | ArrayFrames
    given: Iterator[Frame] | None = None

    def run(self, stopped: Event) -> dict[str, float]:
        """Work until the queue is empty; seconds that each stage was busy."""
        stages = Stages(
            self.frames,
            self.upscale,
            self.encode,
            lambda item: nbytes(item[1].planes),
            lambda item: nbytes(item.planes),
            ahead=lambda: self.network.ahead,
        )
        return run_stages(stages, stopped)

    def frames(self) -> Iterator[tuple[int, Frame]]:
        """The frames of the segments that this device takes, with the numbers of their segments."""
        while True:
            try:
                run = self.queue.popleft()
            except IndexError:  # the others took the rest
                return
            whole = run[0].index == 0 and self.plan.window.start is None
            inside = 0
            first = None if whole else run[0].first
            for frame in self.given or self.decoder.frames(first, run[-1].end, self.plan.pipe):
                while run[inside].end is not None and frame.pts >= (run[inside].end or 0):
                    inside += 1
                yield run[inside].index, frame

    def upscale(self, item: tuple[int, Frame]) -> Callable[[], UpscaledFrame]:
        """Begin to enlarge one frame."""
        segment, frame = item
        found = {} if frame.origin is None else side_data(frame.origin)
        self._note_others(found)
        origin = frame.origin if CARRIED & found.keys() else None
        planes = self.network.begin(frame.planes)
        return lambda: UpscaledFrame(segment, planes(), frame.pts, frame.duration, origin, frame.repeats)

    def _note_others(self, found: Mapping[str, bytes]) -> None:
        """Note what the first frame, by which the plan was made, does not have."""
        source, notes = self.plan.source, self.decoder.notes
        lost = unkept(found.keys() - set(source.side_data))
        sentences = [f"not carried over, on some frames: {lost}"] if lost else []
        matrix = source.matrix or _UNROTATED
        if "DISPLAYMATRIX" in found and struct.unpack("=9i", found["DISPLAYMATRIX"][:36]) != matrix:
            sentences.append("some frames are to be rotated in another way than the first: they are not")
        notes += [sentence for sentence in sentences if sentence not in notes]

    def encode(self, frames: Iterator[UpscaledFrame]) -> None:
        """Hand frames on, and count them."""
        # Closed at once, so that an unfinished segment does not outlive an error.
        with closing(self.take(frames)) as taken:
            for _ in taken:
                self.counted()


def upscale_video(
    plan: VideoPlan, sink: VideoSink, upscalers: Sequence[Upscaler | ArrayCompute], reporter: Reporter
) -> Outcome:
    """Upscale a video.

    Args:
        upscalers: the network on one or more devices of a kind; these take segments from the same queue.

    Raises:
        MediaError: reading, decoding, encoding or writing failed.
        UsageError: something would be lost, or a begun job was another.
    """
    began = time.perf_counter()
    sink.check()
    announced = announce(plan, reporter)
    first, *others = upscalers
    if not isinstance(first, ArrayCompute):
        from repsr_cli.upscale.calibrate import calibrated

        first = calibrated(first, plan, lambda line: reporter.say(f"{plan.original.name}: {line}"))
        alike = [each for each in others if not isinstance(each, ArrayCompute)]
        if first is not upscalers[0]:
            alike = [each.variant(first.engine, first.tile, first.precision) for each in alike]
        upscalers = (first, *alike)
    job = job_record(plan, first.digest(), first.device.type, first.precision, first.engine_name, first.tile)
    with sink.open(job, reporter.say):
        summary = _upscaled(plan, sink, upscalers, reporter)
        complete(plan, sink, summary.frames)
    return video_outcome(plan, summary, announced, time.perf_counter() - began)


def _upscaled(
    plan: VideoPlan, sink: VideoSink, upscalers: Sequence[Upscaler | ArrayCompute], reporter: Reporter
) -> Summary:
    """Upscale the segments that are not done."""
    resumed = sum(sink.done.values())
    counter = FrameCounter(plan, reporter, resumed)
    left = unfinished(plan, sink)
    # A pipe can be read by one device only, and frames that are written as they come have to come in order.
    several = len(upscalers) if sink.keyed and plan.timeline is not None else 1
    # Runs need one seek each; where several devices share the work, segment by segment.
    queue = deque(_runs(left) if several == 1 else [[segment] for segment in left])
    lanes = [
        _Lane(plan, queue, sink.consume, counter.add, decoder_for(plan, each), network_for(plan, each))
        for each in upscalers[: max(1, min(several, len(queue)))]
    ]
    stages = _run_lanes(lanes)
    network = lanes[0].network
    return Summary(
        frames=counter.count,
        resumed=resumed,
        network=network.upscaler.describe(),
        engine=network.engine,
        tile=network.upscaler.tile,
        devices=tuple(str(lane.network.upscaler.device) for lane in lanes),
        reused=sum(lane.network.reused for lane in lanes) / len(lanes),
        repeated=(*earlier_repeats(plan, sink), *(at for lane in lanes for at in lane.decoder.repeated)),
        notes=tuple(note for lane in lanes for note in lane.decoder.notes),
        stages=stages,
    )


def _run_lanes(lanes: Sequence[_Lane]) -> dict[str, float]:
    """Let all devices work until nothing is left, or one fails.

    Returns:
        Seconds that each stage was busy, the mean over the devices; ``wall``; and ``cpu``, those of all cores.
    """
    stopped = Event()
    began, busy = time.perf_counter(), time.process_time()
    if len(lanes) == 1:
        return lanes[0].run(stopped) | {"cpu": time.process_time() - busy}
    with ThreadPoolExecutor(len(lanes)) as pool:
        running = [pool.submit(lane.run, stopped) for lane in lanes]
        try:
            stages = [lane.result() for lane in running]
        except BaseException:
            stopped.set()
            raise
    means = {name: sum(stage[name] for stage in stages) / len(lanes) for name in stages[0]}
    return means | {"wall": time.perf_counter() - began, "cpu": time.process_time() - busy}


def _runs(segments: list[Segment]) -> Iterator[list[Segment]]:
    """Consecutive segments together: these need only one seek."""
    run: list[Segment] = []
    for segment in segments:
        if run and segment.index != run[-1].index + 1:
            yield run
            run = []
        run.append(segment)
    if run:
        yield run


def upscale_chunk(
    plan: VideoPlan, chunk: PacketChunk, upscaler: Upscaler, folder: Path, job: Mapping[str, Any]
) -> Finished | None:
    """Upscale segments where the video itself is not.

    Args:
        job: what the packets depend on, from ``job_record``.

    Returns:
        The segments; None if they must be decoded from the beginning of the video.

    Raises:
        MediaError: decoding or encoding failed.
    """
    store = Store.begin(folder / "chunk", job, resume=False)
    done: dict[int, int] = {}
    try:
        decoder = decoder_for(plan, upscaler)
        first = None if chunk.segments[0].index == 0 and plan.window.start is None else chunk.segments[0].first
        given = decoder.frames_of(images(chunk), first, chunk.segments[-1].end, chunk.whole)
        if given is None:
            return None
        queue = deque([list(chunk.segments)])
        lane = _Lane(
            plan,
            queue,
            lambda frames: encode_segments(plan, store, frames, done),
            lambda: None,
            decoder,
            network_for(plan, upscaler),
            given,
        )
        stages = lane.run(Event())
        made = {index: store.path(index).read_bytes() for index in done}
        return Finished(made, decoder.repeated, decoder.notes, stages, upscaler.precision)
    finally:
        store.remove()


# What all executors have in common.


def announce(plan: VideoPlan, reporter: Reporter) -> tuple[str, ...]:
    """Report what the plan assumes, changes or leaves out; returns the sentences."""
    announced = (*plan.notes, *(f"lost: {loss}" for loss in plan.losses))
    for note in announced:
        reporter.say(f"{plan.original.name}: {note}")
    return announced


def unfinished(plan: VideoPlan, sink: VideoSink) -> list[Segment]:
    """The segments that are not done."""
    return [segment for segment in plan.segments if segment.index not in sink.done]


def earlier_repeats(plan: VideoPlan, sink: VideoSink) -> tuple[float, ...]:
    """Seconds of frames that could not be decoded, in what earlier runs made."""
    return tuple(float((pts - plan.source.start) * plan.source.time_base) for pts in sink.repeated)


def complete(plan: VideoPlan, sink: VideoSink, frames: int) -> None:
    """Check the output against what the source promised, and complete it.

    Raises:
        MediaError: a segment gave no frames, or the file could not be written.
    """
    missing = [segment.index for segment in plan.segments if not sink.done.get(segment.index)]
    if missing:
        at = float((plan.segments[missing[0]].first - plan.source.start) * plan.source.time_base)
        raise MediaError(plan.source.path, f"no frames found from {at:.3f} s on", "Check that it plays.")
    sink.finish(frames)


def video_outcome(plan: VideoPlan, summary: Summary, announced: tuple[str, ...], seconds: float) -> Outcome:
    """What is reported of a video that is done.

    Args:
        announced: sentences that were reported before the work.
        seconds: wall time of everything.
    """
    encoding, stages = plan.encoding, summary.stages
    wall = max(stages["wall"], 1e-9)
    facts = {
        "frames": summary.frames,
        "resumed_frames": summary.resumed,
        "fps": round((summary.frames - summary.resumed) / wall, 3),
        "source_height": plan.source.height,
        "source_width": plan.source.width,
        "height": plan.size[0],
        "width": plan.size[1],
        "decoder": "software" if plan.nvdec is None else "nvdec",
        "codec": encoding.codec,
        "pix_fmt": encoding.pix_fmt,
        "segments": len(plan.segments),
        "streams": [str(stream) for stream in plan.streams],
        "network": summary.network,
        "engine": summary.engine,
        "tile": summary.tile,
        "devices": list(summary.devices),
        "reused": round(summary.reused, 4),
        "occupancy": {name: round(stages[name] / wall, 3) for name in STAGES},
        # Of this machine: the workers of a cluster are not measured.
        "cores_busy": round(stages["cpu"] / wall, 2) if "cpu" in stages else None,
        "repeated_frames": [round(at, 6) for at in sorted(summary.repeated)],
        **plan.compute.facts(),
    }
    return Outcome(plan.original, plan.target, seconds, facts, (*announced, *_closing_notes(summary)), announced)


def _closing_notes(summary: Summary) -> tuple[str, ...]:
    """What was noticed while working."""
    notes, stages = list(dict.fromkeys(summary.notes)), summary.stages
    if summary.repeated:
        times = ", ".join(f"{at:.3f}" for at in sorted(summary.repeated)[:20])
        notes.append(f"{len(summary.repeated)} frames could not be decoded and repeat the one before, at {times} s")
    slowest = max(STAGES, key=lambda name: stages[name])
    shares = ", ".join(f"{name} {stages[name] / max(stages['wall'], 1e-9):.0%}" for name in STAGES)
    notes.append(f"slowest stage: {slowest} (busy: {shares})")
    return tuple(notes)
