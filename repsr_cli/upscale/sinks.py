"""Receive the upscaled frames of a video, and write a file or raw frames, or discard them.

A sink does not know where frames are computed. What it takes in from several devices at once it keeps by segment.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from av.video.frame import VideoFrame

from repsr_cli.errors import MediaError, UsageError
from repsr_cli.files import Noting, PendingFile, is_to_be_made, publish, translated_errors
from repsr_cli.files import check_target as check_file
from repsr_cli.reporting import bytes_text
from repsr_cli.upscale.job_record import planned_record
from repsr_cli.upscale.plan_video import VideoPlan
from repsr_cli.video.encode import EncodedPacket, SegmentEncoder
from repsr_cli.video.image_sequence import existing
from repsr_cli.video.lock import FolderLock, leftover
from repsr_cli.video.mux import Output, join, write_images
from repsr_cli.video.open import translated
from repsr_cli.video.plan_streams import IMAGES, Y4M
from repsr_cli.video.planes import Planes
from repsr_cli.video.segments import (
    SegmentWriter,
    Store,
    begun,
    being_numbered,
    check_continues,
    free_space,
    is_complete,
    is_job_file,
    job_folder,
    stored_bytes,
)
from repsr_cli.video.y4m import PIPE, header, write_frame
from repsr_cli.yuv.device_planes import DevicePlanes, on_host

# Yields once for every frame that was taken in.
Taken = Generator[None, None, None]


@dataclass(frozen=True, slots=True, eq=False)
class UpscaledFrame:
    """A frame on its way to a sink.

    Attributes:
        segment: index of its segment.
        planes: its samples.
        pts: its timestamp, in the source's time base.
        origin: the decoded frame, where it carries metadata to pass on.
        repeats: as in ``Frame``.
    """

    segment: int
    planes: Planes | DevicePlanes
    pts: int
    duration: int
    origin: VideoFrame | None
    repeats: bool = False


class VideoSink:
    """Takes in the frames of one video; here they are only counted.

    Args:
        noting: called with the complete file before it gets its name.

    Attributes:
        done: frames of each segment that is complete, by index.
        repeated: times of frames that could not be decoded, in the source's time base, of what earlier runs made.
        keyed: whether segments may come in any order, from several devices, and whole from other machines.
    """

    keyed = False

    def __init__(self, plan: VideoPlan, noting: Noting | None = None) -> None:
        self.plan = plan
        self.done: dict[int, int] = {}
        self.repeated: tuple[int, ...] = ()
        self._noting = noting

    def check(self) -> None:
        """Refuse a target that exists, or that there is no space for.

        Raises:
            UsageError: something would be lost, or the target exists.
            MediaError: there is not enough space.
        """
        check_target(self.plan)

    def check_begun(self) -> None:
        """See, without ``open``, that what an earlier run has left can be continued.

        Raises:
            UsageError: it was begun from another source or with other settings of the encoder.
        """

    def open(self, job: dict[str, Any], say: Callable[[str], None]) -> AbstractContextManager[None]:
        """Make ready, and find what an earlier run of the same job has finished.

        Args:
            job: everything that packets depend on.
        """
        return nullcontext()

    def consume(self, frames: Iterator[UpscaledFrame]) -> Taken:
        """Take in frames; yields once for each that was taken."""
        for frame in frames:
            self.done[frame.segment] = self.done.get(frame.segment, 0) + 1
            yield

    def put(self, index: int, data: bytes) -> int:
        """Take in a segment that was encoded elsewhere, and return its frames; for ``keyed`` sinks."""
        raise NotImplementedError

    def finish(self, frames: int) -> None:
        """Complete the target, which has so many frames."""


def sink_for(plan: VideoPlan, noting: Noting | None = None) -> VideoSink:
    """The sink that a plan asks for."""
    if plan.benchmark:
        return NullSink(plan)
    return PipeSink(plan, noting) if plan.format == Y4M else FileSink(plan, noting)


class NullSink(VideoSink):
    """Counts frames and drops them."""

    def check(self) -> None:
        """Allow everything: nothing is written."""


class PipeSink(VideoSink):
    """Writes raw frames (y4m) as they come, to standard output or to a file."""

    _file: BinaryIO | None = None

    @contextmanager
    def open(self, job: dict[str, Any], say: Callable[[str], None]) -> Iterator[None]:
        """Open the output; a file gets its name when it is complete."""
        with raw_output(self.plan.target, self.plan.overwrite, say, self._noting) as self._file:
            yield

    def consume(self, frames: Iterator[UpscaledFrame]) -> Taken:
        """Write a header, then the planes of every frame."""
        file = self._file
        assert file is not None

        def written() -> Iterator[UpscaledFrame]:
            for frame in frames:
                write_frame(file, on_host(frame.planes))
                yield frame

        with translated(self.plan.target):
            file.write(header(self.plan.encoding))
            yield from super().consume(written())
            file.flush()


class FileSink(VideoSink):
    """Encodes segments, keeps them in a folder beside the target, and joins them with the source's other streams.

    Finished segments outlive a failure; the same command continues from them.
    """

    keyed = True

    def __init__(self, plan: VideoPlan, noting: Noting | None = None) -> None:
        super().__init__(plan, noting)
        self._store: Store | None = None
        self._say: Callable[[str], None] = lambda _line: None

    def check_begun(self) -> None:
        """See that segments that are there can be continued."""
        plan = self.plan
        there = begun(plan.target) if plan.resumable and not plan.anew else None
        if there is not None:
            check_continues(plan.target, there, planned_record(plan))

    @contextmanager
    def open(self, job: dict[str, Any], say: Callable[[str], None]) -> Iterator[None]:
        """Open the folder of segments; what is in it outlives a failure, unless nothing could continue from it."""
        plan, self._say = self.plan, say
        store = self._store = Store.begin(plan.target, job, plan.resumable, plan.anew)
        try:
            if store.complete:
                self.done = {segment.index: segment.frames for segment in plan.segments}
                say("an earlier run of this job finished it")
                yield
                return
            # Another process may have finished the same target since this one looked.
            check_target(plan)
            _check_renaming(store.folder, plan)
            if not store.lock.holds:
                say(f"{store.folder.parent} supports no locks: make sure no other repsr writes {plan.target.name}")
            self.done = store.finished(say, whole=plan.on_error == "stop")
            self.repeated = store.repeated()
            if self.done:
                say(f"{len(self.done)} of {len(plan.segments)} segments are there already: going on")
            yield
        except BaseException:
            if not plan.resumable:
                store.remove()
            elif store.close():
                say("finished segments are kept: the same command goes on from them, --no-resume begins again")
            raise

    def consume(self, frames: Iterator[UpscaledFrame]) -> Taken:
        """Encode frames segment by segment and store each when it is complete."""
        store = self._store
        assert store is not None
        yield from encode_segments(self.plan, store, frames, self.done)

    def put(self, index: int, data: bytes) -> int:
        """Store a segment.

        Raises:
            MediaError: it cannot be written, or arrived damaged.
        """
        assert self._store is not None
        with translated_errors(self.plan.target):
            self.done[index] = self._store.put(index, data)
        return self.done[index]

    def finish(self, frames: int) -> None:
        """Join the segments and put the file in its place.

        Raises:
            MediaError: the muxer wrote fewer packets than there are frames, or could not write.
        """
        plan, store = self.plan, self._store
        assert store is not None
        if not store.complete:
            self._join(store, frames)
        left = store.remove()
        if left:
            self._say(leftover(plan.target, store.folder, left))

    def _join(self, store: Store, frames: int) -> None:
        """Write the target from the segments."""
        plan = self.plan
        packets = (packet for segment in plan.segments for packet in store.packets(segment.index))
        if plan.format == IMAGES:
            with translated_errors(plan.target):
                store.number()
            write_images(packets, plan.target, overwrite=plan.overwrite)
            return
        shifts = {} if plan.timeline is None else plan.timeline.shifts
        output = Output(plan.source, plan.streams, plan.format, plan.encoding, plan.window, shifts)
        with _beside(store.folder, plan.target, True) as pending:
            pending.file.close()
            written = join(output, packets, pending.path)
            if written != frames:
                raise MediaError(plan.target, f"{written} packets were written for {frames} frames")
            with translated_errors(plan.target):
                store.done(pending.path)
            publish(pending.path, plan.target, overwrite=plan.overwrite, noting=self._noting)


def encode_segments(plan: VideoPlan, store: Store, frames: Iterator[UpscaledFrame], done: dict[int, int]) -> Taken:
    """Encode frames, segment by segment, into a store.

    Args:
        frames: in order within each segment, one segment after the other.
        done: gets the frames of each segment that is complete.

    Yields:
        Once for every frame.
    """
    encoder: SegmentEncoder | None = None
    writer: SegmentWriter | None = None
    segment = -1
    repeated: set[int] = set()

    def write(packets: Iterable[EncodedPacket]) -> None:
        assert writer is not None
        for packet in packets:
            writer.add(replace(packet, repeats=packet.pts in repeated))

    def close() -> None:
        if encoder is None or writer is None:
            return
        write(encoder.finish())
        writer.finish()
        done[segment] = encoder.frames

    with translated_errors(plan.target):
        try:
            for frame in frames:
                if frame.segment != segment:
                    close()
                    segment, encoder = frame.segment, SegmentEncoder(plan.encoding)
                    writer = SegmentWriter(store, segment)
                assert encoder is not None
                if frame.repeats:
                    repeated.add(frame.pts)
                write(encoder.encode(frame.planes, frame.pts, frame.duration, frame.origin))
                yield
            close()
        finally:
            if writer is not None:
                writer.abandon()


@contextmanager
def raw_output(
    target: Path, overwrite: bool, say: Callable[[str], None], noting: Noting | None = None
) -> Iterator[BinaryIO]:
    """Standard output, or a file that gets its name when it is complete, and is noted before."""
    if target == PIPE:
        yield sys.stdout.buffer
        return
    with translated_errors(target):
        lock = FolderLock.take(job_folder(target), target)
        try:
            lock.clear(is_job_file)
            with _beside(lock.folder, target, overwrite) as pending:
                yield pending.file
                pending.file.close()
                publish(pending.path, target, overwrite=overwrite, noting=noting)
        finally:
            with suppress(OSError):  # the folder or the disk is gone, or the target is complete
                lock.remove(is_job_file)
        if left := lock.left():
            say(leftover(target, lock.folder, left))


@contextmanager
def _beside(folder: Path, target: Path, overwrite: bool) -> Iterator[PendingFile]:
    """A new file of a random name in a job's folder, which becomes the target; removed if it does not."""
    with translated_errors(target):
        pending = PendingFile.begin(folder / target.name, overwrite=overwrite, suffix=target.suffix)
        try:
            yield pending
        finally:
            pending.discard()


def _check_renaming(folder: Path, plan: VideoPlan) -> None:
    """Find out before the work whether the target can get its name without replacing another file.

    Raises:
        UsageError: the file system cannot do that, and replacing was not allowed.
    """
    if not plan.overwrite and plan.format != IMAGES:
        with _beside(folder, plan.target, False):
            pass


def check_target(plan: VideoPlan) -> None:
    """See that nothing is lost, overwritten or begun in vain.

    Raises:
        UsageError: something would be lost, or the target exists.
        MediaError: there is not enough space.
    """
    if plan.target == PIPE or is_to_be_made(plan.target.parent):
        pass  # nothing can be in the way
    elif plan.format == IMAGES:
        for image in _in_the_way(plan):
            check_file(image, overwrite=plan.overwrite)
    else:
        check_file(plan.target, overwrite=plan.overwrite or (plan.resumable and is_complete(plan.target)))
    if plan.losses and not plan.allow_loss:
        better = "" if plan.format == "matroska" else ", or try .mkv"
        raise UsageError(plan.target, f"would lack {'; '.join(plan.losses)}", f"Agree with --allow-loss{better}.")
    if plan.target == PIPE:
        return
    # Segments that are there already need none of the space that is free.
    needed, free = plan.bytes_needed - stored_bytes(plan.target), free_space(plan.target.parent)
    if needed > free:
        happened = f"needs about {bytes_text(needed)}, and {bytes_text(free)} are free"
        raise MediaError(plan.target, happened, "Free some space, or write to another disk with -o.")


def _in_the_way(plan: VideoPlan) -> list[Path]:
    """What would be replaced by numbered images; not those of this job, which was stopped."""
    if being_numbered(plan.target):
        return []
    return [path for number, path in existing(plan.target).items() if 1 <= number <= (plan.frames or number)]
