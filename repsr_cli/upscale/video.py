"""One video: everything decided before the first frame, then segment after segment, then one file."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Lock
from typing import Any, BinaryIO

from av.container import InputContainer
from av.video.frame import VideoFrame

from repsr_cli.engine.planes import PlaneUpscaler
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import MediaError, UsageError
from repsr_cli.upscale.calibrate import calibrated
from repsr_cli.upscale.frame_path import decoder_for, network_for
from repsr_cli.upscale.plan_video import VideoPlan, plan_video
from repsr_cli.upscale.request import Outcome, Progress, Reporter, UpscaleOptions
from repsr_cli.video.cuda_planes import DevicePlanes, on_host
from repsr_cli.video.decode import Decoder
from repsr_cli.video.encode import SegmentEncoder
from repsr_cli.video.frames import CARRIED, Frame, nbytes, side_data
from repsr_cli.video.image_sequence import existing
from repsr_cli.video.lock import FolderLock
from repsr_cli.video.mux import IMAGES, Y4M, Output, join, write_images
from repsr_cli.video.open import translated
from repsr_cli.video.packet_chunks import PacketChunk, images
from repsr_cli.video.planes import Planes
from repsr_cli.video.segments import SegmentWriter, Store, fingerprint, free_space, job_folder
from repsr_cli.video.stages import Stages, run_stages
from repsr_cli.video.timeline import Segment
from repsr_cli.video.y4m import PIPE, header, open_pipe, write_frame

__all__ = ["Finished", "VideoPlan", "plan_video", "upscale_chunk", "upscale_video"]


# In the folder of a job whose numbered images get their names, which takes more than a moment.
_WRITING = "writing"


@dataclass(frozen=True, slots=True, eq=False)
class _Upscaled:
    """A frame on its way to the encoder."""

    segment: int
    planes: Planes | DevicePlanes
    pts: int
    duration: int
    origin: VideoFrame | None


@dataclass(frozen=True, slots=True)
class Finished:
    """What comes of a chunk.

    Attributes:
        segments: their files, as a store holds them, by index.
        repeated: as in ``Decoder``.
        notes: likewise.
        stages: seconds that each stage was at work.
        precision: the network's, in the end.
    """

    segments: dict[int, bytes]
    repeated: list[float]
    notes: list[str]
    stages: dict[str, float]
    precision: str


@dataclass(slots=True)
class _Work:
    """The state of one run: what is to be done and what has been. Shared by all devices."""

    plan: VideoPlan
    reporter: Reporter
    store: Store | None = None
    raw: BinaryIO | None = None
    queue: deque[list[Segment]] = field(default_factory=deque)
    done: dict[int, int] = field(default_factory=dict)
    count: int = 0
    counting: Lock = field(default_factory=Lock)

    def find_finished(self) -> None:
        """Take over what an earlier run has finished."""
        if self.store is None:
            return
        self.done = self.store.finished()
        self.count = sum(self.done.values())
        if self.done:
            done, segments = len(self.done), len(self.plan.segments)
            self.reporter.say(f"{done} of {segments} segments are there already: going on")

    def left(self) -> list[Segment]:
        """The segments that are not done."""
        return [segment for segment in self.plan.segments if segment.index not in self.done]

    def take(self, finished: Finished) -> Finished:
        """Put segments that were made elsewhere into the store.

        Returns:
            The rest of what came with them.

        Raises:
            MediaError: they cannot be written, or arrived damaged.
        """
        assert self.store is not None
        for index, data in finished.segments.items():
            with translated(self.plan.target):
                frames = self.store.put(index, data)
            self.done[index] = frames
            self.count += frames
        self.reporter.progress(Progress(self.count, self.plan.frames, "frame"))
        return replace(finished, segments={})

    def share_out(self, devices: int) -> int:
        """Queue what is left: in runs that need one seek each, or segment by segment where several devices share it.

        Returns:
            How many devices find something to do.
        """
        left = self.left()
        self.queue.extend(_runs(left) if devices == 1 else [[segment] for segment in left])
        return max(1, min(devices, len(self.queue)))

    def counted(self, segment: int, frames: int | None = None) -> None:
        """Note one more frame, or, with ``frames``, a segment that is whole."""
        with self.counting:
            if frames is not None:
                self.done[segment] = frames
                return
            self.count += 1
            self.reporter.progress(Progress(self.count, self.plan.frames, "frame"))


@dataclass(slots=True)
class _Lane:
    """One device at work: it takes runs of segments from the queue, and decodes, enlarges and encodes them."""

    work: _Work
    decoder: Decoder
    network: PlaneUpscaler
    pipe: InputContainer | None
    given: Iterator[Frame] | None = None

    def run(self, stopped: Event) -> dict[str, float]:
        """Work until the queue is empty; seconds that each stage was busy."""
        stages = Stages(
            self.frames,
            self.upscale,
            self.encode,
            lambda item: item[1].nbytes,
            lambda item: nbytes(item.planes),
            ahead=lambda: self.network.ahead,
        )
        return run_stages(stages, stopped)

    def frames(self) -> Iterator[tuple[int, Frame]]:
        """The frames of the segments that this device takes, with the numbers of their segments."""
        while True:
            try:
                run = self.work.queue.popleft()
            except IndexError:  # the others took the rest
                return
            whole = run[0].index == 0 and self.work.plan.window.start is None
            inside = 0
            first = None if whole else run[0].first
            for frame in self.given or self.decoder.frames(first, run[-1].end, self.pipe):
                while run[inside].end is not None and frame.pts >= (run[inside].end or 0):
                    inside += 1
                yield run[inside].index, frame

    def upscale(self, item: tuple[int, Frame]) -> Callable[[], _Upscaled]:
        """Begin to enlarge one frame."""
        segment, frame = item
        carries = frame.origin is not None and CARRIED & side_data(frame.origin).keys()
        origin = frame.origin if carries else None
        planes = self.network.begin(frame.planes)
        return lambda: _Upscaled(segment, planes(), frame.pts, frame.duration, origin)

    def encode(self, frames: Iterator[_Upscaled]) -> None:
        """Encode frames segment by segment and store each when it is whole.

        Without a store, frames are written as they are, or counted only.
        """
        store, plan = self.work.store, self.work.plan
        if store is None:
            self._write(frames)
            return
        encoder: SegmentEncoder | None = None
        writer: SegmentWriter | None = None
        segment = -1
        try:
            for frame in frames:
                if frame.segment != segment:
                    self._close(segment, encoder, writer)
                    segment, encoder = frame.segment, SegmentEncoder(plan.encoding)
                    writer = SegmentWriter(store, segment, {"pts": frame.pts})
                assert encoder is not None
                assert writer is not None
                for packet in encoder.encode(frame.planes, frame.pts, frame.duration, frame.origin):
                    writer.add(packet)
                self.work.counted(segment)
            self._close(segment, encoder, writer)
        except OSError as error:
            raise MediaError(plan.target, error.strerror or str(error), "Make room, and run it again.") from error
        finally:
            if writer is not None:
                writer.abandon()

    def _close(self, segment: int, encoder: SegmentEncoder | None, writer: SegmentWriter | None) -> None:
        if encoder is None or writer is None:
            return
        for packet in encoder.finish():
            writer.add(packet)
        writer.finish()
        self.work.counted(segment, encoder.frames)

    def _write(self, frames: Iterator[_Upscaled]) -> None:
        work = self.work
        with translated(work.plan.target):
            if work.raw is not None:
                work.raw.write(header(work.plan.encoding))
            for frame in frames:
                if work.raw is not None:
                    write_frame(work.raw, on_host(frame.planes))
                work.counted(frame.segment, work.done.get(frame.segment, 0) + 1)
                work.counted(frame.segment)
            if work.raw is not None:
                work.raw.flush()


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


def upscale_video(
    source: Path,
    target: Path,
    upscaler: Upscaler,
    options: UpscaleOptions,
    reporter: Reporter,
    others: Sequence[Upscaler] = (),
) -> Outcome:
    """Upscale a video.

    Segments that are finished stay on disk until the target is; the same command goes on from them.

    Args:
        source: the video.
        target: the file to write.
        upscaler: the network.
        options: the request.
        reporter: where progress goes.
        others: the same network on further devices of the same kind; these take segments from the same queue.

    Raises:
        MediaError: reading, decoding, encoding or writing failed.
        UsageError: an option makes no sense, something would be lost, or a begun job was another.
        DeviceError: the network failed on its device.
    """
    began = time.perf_counter()
    pipe = open_pipe() if source == PIPE else None
    plan = plan_video(source, target, upscaler.scale, options, pipe)
    _agree(plan, options)
    said = (*plan.notes, *(f"lost: {loss}" for loss in plan.losses))
    for note in said:
        reporter.say(f"{source.name}: {note}")
    first, upscaler = upscaler, calibrated(upscaler, plan, options, lambda line: reporter.say(f"{source.name}: {line}"))
    if upscaler is not first:
        others = [each.variant(upscaler.engine, upscaler.tile) for each in others]
    work = _Work(plan, reporter)
    job = _job(plan, upscaler, options)
    cluster = None
    if options.ray is not None:
        from repsr_cli.upscale.executors.ray import Cluster

        cluster = Cluster.join(options.ray, plan, upscaler, options)
        job |= {
            "device": cluster.device,
            "precision": cluster.precision,
            "engine": cluster.engine,
            "tile": cluster.tile,
        }
    with ExitStack() as stack:
        if options.benchmark:
            pass
        elif plan.format == Y4M:
            work.raw = stack.enter_context(_raw_output(target))
        else:
            work.store = stack.enter_context(_kept(plan, job, options, reporter))
            work.find_finished()
        resumed = work.count
        far = [] if cluster is None or work.store is None else [work.take(done) for done in cluster.run(work.left())]
        # What is written as it comes has to come in order, and a pipe can be read by one only.
        apart = work.store is not None and pipe is None
        upscalers = (upscaler, *others) if apart else (upscaler,)
        lanes = [_lane(work, each, options, pipe) for each in upscalers[: work.share_out(len(upscalers))]]
        stages = _run_lanes(lanes) if cluster is None else _shares(far, cluster.seconds)
        for done in far:
            lanes[0].decoder.repeated += done.repeated
            lanes[0].decoder.notes += done.notes
        _all_there(plan, work.done)
        if work.store is not None:
            _finish(plan, work.store, work.count)
    return Outcome(
        source,
        target,
        time.perf_counter() - began,
        _facts(plan, work, lanes, stages, resumed),
        (*said, *_closing_notes(lanes, stages)),
        said,
    )


def upscale_chunk(
    plan: VideoPlan, chunk: PacketChunk, upscaler: Upscaler, options: UpscaleOptions, folder: Path
) -> Finished | None:
    """Upscale segments where the video itself is not.

    Args:
        plan: of the video.
        chunk: what to decode them from.
        upscaler: the network.
        options: the request.
        folder: for what is being made.

    Returns:
        The segments; None if they must be decoded from the beginning of the video.

    Raises:
        MediaError: decoding or encoding failed.
        DeviceError: the network failed on its device.
    """
    work = _Work(plan, Reporter(), Store.begin(folder / "chunk", {}, resume=False))
    assert work.store is not None
    try:
        lane = _lane(work, upscaler, options, None)
        first = None if chunk.segments[0].index == 0 and plan.window.start is None else chunk.segments[0].first
        lane.given = lane.decoder.frames_of(images(chunk), first, chunk.segments[-1].end, chunk.whole)
        if lane.given is None:
            return None
        work.queue.append(list(chunk.segments))
        stages = lane.run(Event())
        made = {index: work.store.path(index).read_bytes() for index in work.done}
        return Finished(made, lane.decoder.repeated, lane.decoder.notes, stages, upscaler.precision)
    finally:
        work.store.remove()


def _shares(finished: Sequence[Finished], wall: float) -> dict[str, float]:
    """Seconds that each stage was at work on a cluster, as if one after the other; and the wall time."""
    names = ("decode", "network", "encode")
    return {name: sum(done.stages[name] for done in finished) for name in names} | {"wall": wall}


def _lane(work: _Work, upscaler: Upscaler, options: UpscaleOptions, pipe: InputContainer | None) -> _Lane:
    """Everything that one device needs of its own."""
    plan = work.plan
    return _Lane(work, decoder_for(plan, upscaler, options), network_for(plan, upscaler, options), pipe)


@contextmanager
def _raw_output(target: Path) -> Iterator[BinaryIO]:
    """Standard output, or a file that gets its name when it is whole."""
    if target == PIPE:
        yield sys.stdout.buffer
        return
    with translated(target):
        lock = FolderLock.take(job_folder(target), target)
        try:
            lock.clear()
            partial = lock.folder / f"raw{target.suffix}"
            with partial.open("wb") as file:
                yield file
            partial.replace(target)
        finally:
            lock.remove()


@contextmanager
def _kept(plan: VideoPlan, job: dict[str, Any], options: UpscaleOptions, reporter: Reporter) -> Iterator[Store]:
    """The store of finished segments; what is in it outlives a failure, unless nobody could go on from it."""
    resumable = options.resume and plan.timeline is not None
    store = Store.begin(plan.target, job, resumable)
    try:
        # Another process may have finished the same target since this one looked.
        _agree(plan, options)
        if not store.lock.holds:
            reporter.say(f"{store.folder.parent} knows no locks: see that no other repsr writes {plan.target.name}")
        yield store
    except BaseException:
        if not resumable:
            store.remove()
        elif store.close():
            reporter.say("finished segments are kept: the same command goes on from them, --no-resume begins again")
        raise


def _agree(plan: VideoPlan, options: UpscaleOptions) -> None:
    """See that nothing is lost, overwritten or begun in vain.

    Raises:
        UsageError: something would be lost, or the target exists.
        MediaError: there is no room.
    """
    if options.benchmark:
        return
    there = None if options.overwrite else _in_the_way(plan)
    if there is not None:
        raise UsageError(there, "exists", "Add -y to replace it.")
    if plan.losses and not options.allow_loss:
        better = "" if plan.format == "matroska" else ", or try .mkv"
        raise UsageError(plan.target, f"would lack {'; '.join(plan.losses)}", f"Agree with --allow-loss{better}.")
    if plan.target == PIPE:
        return
    free = free_space(plan.target.parent)
    if plan.bytes_needed > free:
        happened = f"needs about {plan.bytes_needed / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free"
        raise MediaError(plan.target, happened, "Make room, or write to another disk with -o.")


def _in_the_way(plan: VideoPlan) -> Path | None:
    """A file that is there and would be replaced."""
    if plan.format != IMAGES:
        return plan.target if plan.target != PIPE and plan.target.exists() else None
    if (job_folder(plan.target) / _WRITING).exists():  # those that are there are of this job, which was stopped
        return None
    return next(
        (path for number, path in existing(plan.target).items() if 1 <= number <= (plan.frames or number)), None
    )


def _job(plan: VideoPlan, upscaler: Upscaler, options: UpscaleOptions) -> dict[str, Any]:
    """Everything that packets depend on."""
    return {
        "source": "-" if plan.timeline is None else fingerprint(plan.source.path),
        "network": upscaler.digest(),
        "device": upscaler.device.type,
        "precision": upscaler.precision,
        "engine": upscaler.engine_name,
        "tile": upscaler.tile,
        "deinterlace": options.deinterlace,
        "decoder": "software" if plan.nvdec is None else "nvdec",
        "encoding": repr(plan.encoding),
        "planes": f"{plan.source.planar} {plan.source.tags}",
        "segments": [[segment.first, segment.end] for segment in plan.segments],
    }


def _all_there(plan: VideoPlan, done: dict[int, int]) -> None:
    """Hold the output against what the source promised.

    Raises:
        MediaError: a segment gave no frames.
    """
    missing = [segment.index for segment in plan.segments if not done.get(segment.index)]
    if missing:
        at = float((plan.segments[missing[0]].first - plan.source.start) * plan.source.time_base)
        raise MediaError(plan.source.path, f"no frames could be had from {at:.3f} s on", "Check that it plays.")


def _finish(plan: VideoPlan, store: Store, frames: int) -> None:
    """Join the segments and put the file in its place.

    Raises:
        MediaError: the muxer wrote fewer packets than there are frames, or could not write.
    """
    partial = store.folder / f"joined{plan.target.suffix}"
    packets = (packet for segment in plan.segments for packet in store.packets(segment.index))
    if plan.format == IMAGES:
        (store.folder / _WRITING).touch()
        write_images(packets, plan.target)
        store.remove()
        return
    output = Output(plan.source, plan.streams, plan.format, plan.encoding, plan.window)
    written = join(output, packets, partial)
    if written != frames:
        raise MediaError(plan.target, f"{written} packets were written for {frames} frames")
    partial.replace(plan.target)
    store.remove()


def _facts(
    plan: VideoPlan, work: _Work, lanes: Sequence[_Lane], stages: dict[str, float], resumed: int
) -> dict[str, Any]:
    """What a machine may want to know."""
    encoding, wall = plan.encoding, max(stages["wall"], 1e-9)
    return {
        "frames": work.count,
        "resumed_frames": resumed,
        "fps": round((work.count - resumed) / wall, 3),
        "source_size": [plan.source.height, plan.source.width],
        "size": list(plan.size),
        "decoder": "software" if plan.nvdec is None else "nvdec",
        "codec": encoding.codec,
        "pix_fmt": encoding.pix_fmt,
        "segments": len(plan.segments),
        "streams": [str(stream) for stream in plan.streams],
        "network": lanes[0].network.upscaler.describe(),
        "engine": lanes[0].network.engine,
        "tile": lanes[0].network.upscaler.tile,
        "devices": [str(lane.network.upscaler.device) for lane in lanes],
        "reused": round(sum(lane.network.reused for lane in lanes) / len(lanes), 4),
        "occupancy": {name: round(stages[name] / wall, 3) for name in ("decode", "network", "encode")},
        # Of this machine: a cluster's workers are not seen from here.
        "cores_busy": round(stages["cpu"] / wall, 2) if "cpu" in stages else None,
        "repeated_frames": [round(at, 6) for at in _repeated(lanes)],
    }


def _repeated(lanes: Sequence[_Lane]) -> list[float]:
    """Seconds of all frames that were repeated, in order."""
    return sorted(at for lane in lanes for at in lane.decoder.repeated)


def _closing_notes(lanes: Sequence[_Lane], stages: dict[str, float]) -> tuple[str, ...]:
    """What came to light while working."""
    notes = list(dict.fromkeys(note for lane in lanes for note in lane.decoder.notes))
    repeated = _repeated(lanes)
    if repeated:
        times = ", ".join(f"{at:.3f}" for at in repeated[:20])
        notes.append(f"{len(repeated)} frames could not be decoded and repeat the one before, at {times} s")
    slowest = max(("decode", "network", "encode"), key=lambda name: stages[name])
    shares = ", ".join(
        f"{name} {stages[name] / max(stages['wall'], 1e-9):.0%}" for name in ("decode", "network", "encode")
    )
    notes.append(f"slowest stage: {slowest} (busy: {shares})")
    return tuple(notes)
