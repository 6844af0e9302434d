"""Decoding: the frames of a video in the order they are shown, every one of them, or an error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Literal

import av
from av.container import InputContainer
from av.filter import Graph
from av.video.format import VideoFormat
from av.video.frame import VideoFrame

from repsr_cli.errors import MediaError
from repsr_cli.video.cuda_planes import ON_GPU, device_planes
from repsr_cli.video.frames import Frame, PlaneReader
from repsr_cli.video.nvdec import Nvdec
from repsr_cli.video.open import main_stream, open_video, translated
from repsr_cli.video.probe import VideoSource
from repsr_cli.video.timeline import Timeline

# Codecs whose decoders give one frame for every packet that is shown. Others (MPEG-4 in AVI, with its empty packets)
# are held to it only after an error.
_FRAME_PER_PACKET = frozenset(
    {"h264", "hevc", "vvc", "av1", "vp8", "vp9", "mpeg1video", "mpeg2video", "h263", "prores", "dnxhd", "ffv1", "mjpeg"}
)
DECODE_ERRORS = (av.InvalidDataError, av.PatchWelcomeError, av.ExternalError, av.UnknownError, av.BugError)


@dataclass(slots=True)
class Decoder:
    """How a video is decoded, and what was noticed on the way.

    Attributes:
        source: the video.
        timeline: its packets; None where it can be read only once (standard input).
        on_error: ``stop`` raises at the first frame that is damaged or missing; ``keep`` repeats the frame before it.
        deinterlace: pass frames through bwdif.
        nvdec: decode on a GPU; None: in software.
        keep_on_card: leave the planes there, where their format and size allow it.
        repeated: seconds of the frames that were repeated.
        notes: what else was done about irregularities, a sentence each.
    """

    source: VideoSource
    timeline: Timeline | None
    on_error: Literal["stop", "keep"] = "stop"
    deinterlace: bool = False
    nvdec: Nvdec | None = None
    keep_on_gpu: bool = False
    repeated: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def frames(
        self, first: int | None = None, end: int | None = None, container: InputContainer | None = None
    ) -> Iterator[Frame]:
        """Decode.

        Args:
            first: timestamp of the first frame wanted; None: from the beginning.
            end: timestamp of the first frame no longer wanted; None: to the end.
            container: an open one to read from its start, where the source cannot be opened again.

        Yields:
            Frames in order of time, with strictly ascending timestamps, and durations that are known.

        Raises:
            MediaError: a frame is damaged or missing under ``stop``; the image changes its size or format.
        """
        opened = container if container is not None else open_video(self.source.path)
        with translated(self.source.path), opened:
            yield from self._checked(self._images(opened, first), first, end)

    def frames_of(
        self, images: Iterator[VideoFrame | None], first: int | None, end: int | None, whole: bool
    ) -> Iterator[Frame] | None:
        """As ``frames``, of images that were decoded without a container.

        Args:
            images: from ``timeline.roll(first)`` on.
            first: as in ``frames``.
            end: as in ``frames``.
            whole: the images begin with the video.

        Returns:
            The frames; None if the way to ``first`` was not a clean one, so that decoding must begin earlier.
        """
        if self.deinterlace:
            images = deinterlaced(images, self.source, self._pix_fmt)
        if first is not None and self.timeline is not None and not whole:
            found = approached(images, self.timeline, first)
            if found is None:
                return None
            images = found
        return self._checked(images, first, end)

    def _images(self, container: InputContainer, first: int | None) -> Iterator[VideoFrame | None]:
        """Decoded frames; None stands for an error of the decoder. Begins early enough before ``first``."""
        timeline = self.timeline
        if first is None or timeline is None or timeline.roll(first) <= timeline.pts[0]:
            yield from self._decoded(container)
            return
        images = self._approached(container, timeline, first)
        if images is not None:
            yield from images
            return
        # Seeking by time is a matter of luck in some containers. Decoding from the beginning is not.
        with open_video(self.source.path) as again:
            yield from self._decoded(again)

    def _approached(
        self, container: InputContainer, timeline: Timeline, first: int
    ) -> Iterator[VideoFrame | None] | None:
        """Frames from the one before ``first`` on, found by seeking; None if the way there was not a clean one."""
        # A decoder learns from the first frame how the stream was made, and decodes by it: 4:4:4 by old versions of
        # x264, which write their name there and nowhere else, is garbage to a decoder that begins in the middle.
        next(self._decoded_as_stored(container), None)
        # Transport streams have no index: seeking in them lands late, and from an earlier target where it should.
        for target in timeline.targets(first):
            images = self._sought(container, timeline, first, target)
            if images is not None:
                return images
        return None

    def _sought(
        self, container: InputContainer, timeline: Timeline, first: int, target: int
    ) -> Iterator[VideoFrame | None] | None:
        """Frames from the one before ``first`` on, by seeking to ``target``; None if that went wrong."""
        try:
            container.seek(target, stream=main_stream(container, self.source.path))
        except av.FFmpegError:
            return None
        return approached(self._decoded(container), timeline, first)

    def _decoded(self, container: InputContainer) -> Iterator[VideoFrame | None]:
        images = self._decoded_as_stored(container)
        return deinterlaced(images, self.source, self._pix_fmt) if self.deinterlace else images

    def _decoded_as_stored(self, container: InputContainer) -> Iterator[VideoFrame | None]:
        stream = main_stream(container, self.source.path)
        decoder = stream.codec_context if self.nvdec is None else self.nvdec.decoder(stream)
        for packet in container.demux(stream):
            if packet.is_corrupt:
                yield None
            try:
                images = decoder.decode(packet)
            except DECODE_ERRORS:
                yield None
                continue
            if self.nvdec is None or self._stay_on_gpu:
                yield from images
            else:
                yield from (self.nvdec.downloaded(image, self.source.planar) for image in images)

    @property
    def _stay_on_gpu(self) -> bool:
        """Whether frames are left on the GPU: bwdif runs on the host, and odd sizes halve to no whole number."""
        if self.nvdec is None or not self.keep_on_gpu or self.deinterlace:
            return False
        return self.nvdec.pix_fmt in ON_GPU and self.source.height % 2 == self.source.width % 2 == 0

    @property
    def _pix_fmt(self) -> str:
        """The pixel format of all images."""
        if self.nvdec is None:
            return self.source.pix_fmt
        return self.nvdec.pix_fmt if self._stay_on_gpu else self.source.planar

    def _checked(self, images: Iterator[VideoFrame | None], first: int | None, end: int | None) -> Iterator[Frame]:
        """Give every image its time and its planes, and see that none is missing."""
        source, timeline = self.source, self.timeline
        reader = PlaneReader(source.planar)
        strict = source.codec in _FRAME_PER_PACKET and timeline is not None and not self.deinterlace
        nominal = max(1, round(source.frame_seconds / source.time_base))
        previous: Frame | None = None
        last_pts: int | None = None
        damaged = False
        for image in images:
            if image is None:
                # Errors before the first image are those of a file that begins in the middle, or of the way to a
                # segment; what they cost is seen by the timeline.
                damaged = True
                continue
            pts = self._time_of(image, last_pts, nominal)
            done = end is not None and pts >= end
            if timeline is not None and last_pts is None and first is None:
                self._begins(timeline, pts, damaged)
            if timeline is not None and last_pts is not None and (strict or damaged):
                for gap in timeline.between(last_pts, end if done and end is not None else pts):
                    if first is None or gap >= first:
                        previous = self._repeat(previous, gap, "missing")
                        yield previous
            if done:
                return
            last_pts = pts
            if first is not None and pts < first:
                if not image.is_corrupt:
                    previous = self._frame(image, pts, nominal, reader)
                continue
            if image.is_corrupt and not self._ends_here(pts):
                previous = self._repeat(previous, pts, "damaged")
            else:
                previous = self._frame(image, pts, nominal, reader)
            yield previous
        if last_pts is None:
            raise MediaError(source.path, "no frame of its video can be decoded", "Check that it plays.")
        if timeline is not None and (strict or damaged):
            for gap in timeline.between(last_pts, end if end is not None else timeline.pts[-1] + 1):
                if first is None or gap >= first:
                    previous = self._repeat(previous, gap, "missing")
                    yield previous

    def _begins(self, timeline: Timeline, pts: int, damaged: bool) -> None:
        """See what became of the frames before the first that was decoded.

        Raises:
            MediaError: under ``stop``, if a keyframe is among them, or if they gave errors in a file that is no
                recording of a broadcast: it was not cut off there, it is damaged.
        """
        skipped = len(timeline.between(timeline.pts[0] - 1, pts))
        if not skipped:
            return
        lost_key = bool(timeline.keys) and timeline.keys[0] < pts
        if lost_key or (damaged and self.source.container != "mpegts"):
            if self.on_error == "stop":
                remedy = "Begin after them with --on-error keep, or get the file again."
                raise MediaError(self.source.path, f"the first {skipped} frames are damaged", remedy)
            self._note(f"the first {skipped} frames are damaged and left out")
        else:
            self._note(f"the first {skipped} frames lean on what was cut off before them: they cannot be shown")

    def _time_of(self, image: VideoFrame, last: int | None, nominal: int) -> int:
        """An image's timestamp; where there is none, or it does not ascend, the least that does."""
        if image.pts is not None and (last is None or image.pts > last):
            return image.pts
        pts = 0 if last is None else last + (nominal if image.pts is None else 1)
        self._note("some frames had no timestamp, or one out of order: they got the next that fits")
        return pts

    def _frame(self, image: VideoFrame, pts: int, nominal: int, reader: PlaneReader) -> Frame:
        source = self.source
        # A frame on a GPU is of the format "cuda", whatever it holds.
        pix_fmt = (image.sw_format or image.format).name
        if (image.height, image.width, pix_fmt) != (source.height, source.width, self._pix_fmt):
            at = float(pts * source.time_base)
            happened = (
                f"changes from {source.width}x{source.height} {self._pix_fmt} to "
                f"{image.width}x{image.height} {pix_fmt} at {at:.3f} s"
            )
            raise MediaError(source.path, happened, f"Upscale it in parts, with --end {at:.3f} and --start {at:.3f}.")
        duration = image.duration
        if duration <= 0:
            following = self.timeline.after(pts) if self.timeline is not None else None
            duration = nominal if following is None else following - pts
        if self._stay_on_gpu:
            depth = VideoFormat(source.planar).components[0].bits
            return Frame(device_planes(image, depth), pts, duration, source.time_base, image)
        planes, origin = reader.read(image)
        return Frame(planes, pts, duration, source.time_base, origin)

    def _repeat(self, previous: Frame | None, pts: int, how: str) -> Frame:
        """The frame before, in place of one that is not there.

        Raises:
            MediaError: under ``stop``, or if there is none before.
        """
        source = self.source
        at = float((pts - source.start) * source.time_base)
        if self.on_error == "stop":
            remedy = "Repeat the frame before it with --on-error keep, or get the file again."
            raise MediaError(source.path, f"the frame at {at:.3f} s is {how}", remedy)
        if previous is None:
            raise MediaError(source.path, f"the frame at {at:.3f} s is {how}, and there is none before it to repeat")
        self.repeated.append(at)
        following = self.timeline.after(pts) if self.timeline is not None else None
        return replace(previous, pts=pts, duration=(following - pts) if following else previous.duration, repeats=True)

    def _ends_here(self, pts: int) -> bool:
        """Whether a damaged frame is merely the last of a recording that was cut off, as every broadcast is."""
        timeline = self.timeline
        if self.source.container == "mpegts" and timeline is not None and pts >= timeline.pts[-1]:
            self._note("the last frame was cut off by the end of the recording: taken as far as it goes")
            return True
        return False

    def _note(self, sentence: str) -> None:
        if sentence not in self.notes:
            self.notes.append(sentence)


def approached(
    images: Iterator[VideoFrame | None], timeline: Timeline, first: int
) -> Iterator[VideoFrame | None] | None:
    """Images from the one before ``first`` on; None if the way there was not a clean one, or began too late."""
    before: VideoFrame | None = None
    for image in images:
        if image is None or image.pts is None:
            return None
        if before is None and not timeline.pts[0] < image.pts <= timeline.roll(first):
            return None
        if image.pts >= first:
            return chain([image] if before is None else [before, image], images)
        if image.is_corrupt:
            return None
        before = image
    return None


def deinterlaced(images: Iterator[VideoFrame | None], source: VideoSource, pix_fmt: str) -> Iterator[VideoFrame | None]:
    """One progressive frame for every frame flagged as two fields (bwdif, by libavfilter); others pass.

    Source: bwdif is the weighted blend of Bob Weaver and the cubic interpolation of the BBC's PH-2071.
    """
    graph = Graph()
    layout = VideoFormat(pix_fmt)
    buffer = graph.add_buffer(width=source.width, height=source.height, format=layout, time_base=source.time_base)
    bwdif = graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
    sink = graph.add("buffersink")
    buffer.link_to(bwdif)
    bwdif.link_to(sink)
    graph.configure()

    def pull() -> Iterator[VideoFrame]:
        while True:
            try:
                frame = graph.vpull()
            except (av.BlockingIOError, av.EOFError):
                return
            # The filter counts in half units, so that it could give two frames for one.
            if frame.pts is not None and frame.time_base:
                frame.pts = round(frame.pts * frame.time_base / source.time_base)
                frame.duration = round(frame.duration * frame.time_base / source.time_base)
            frame.time_base = source.time_base
            yield frame

    for image in images:
        if image is None:
            yield None
            continue
        graph.vpush(image)
        yield from pull()
    graph.vpush(None)
    yield from pull()
