"""Decode the frames of a video in display order, and report every one that is missing or damaged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Literal

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from repsr_cli.errors import MediaError
from repsr_cli.video.clock import Clock, in_order, numbered
from repsr_cli.video.crop import cropped
from repsr_cli.video.cuda_planes import ON_GPU, device_planes
from repsr_cli.video.frames import Frame, filter_graph, holds, read_planes
from repsr_cli.video.nvdec import Nvdec
from repsr_cli.video.open import main_stream, translated
from repsr_cli.video.probe import VideoSource
from repsr_cli.video.timeline import Timeline

# Codecs whose decoders output one frame for every packet that is shown. For others (MPEG-4 in AVI has empty packets)
# missing frames count only after an error.
_FRAME_PER_PACKET = frozenset(
    {"h264", "hevc", "vvc", "av1", "vp8", "vp9", "mpeg1video", "mpeg2video", "h263", "prores", "dnxhd", "ffv1", "mjpeg"}
)
_DECODE_ERRORS = (av.InvalidDataError, av.PatchWelcomeError, av.ExternalError, av.UnknownError, av.BugError)


@dataclass(slots=True)
class Decoder:
    """How a video is decoded, and what was irregular about it.

    Attributes:
        timeline: its packets; None where it can be read only once (standard input).
        on_error: ``stop`` raises at the first frame that is damaged or missing; ``keep`` repeats the frame before it.
        deinterlace: pass frames through bwdif.
        nvdec: decode on a GPU; None: in software.
        keep_on_gpu: leave the planes there, where their format and size allow it.
        flagged_only: pass only frames through bwdif that are flagged as interlaced.
        repeated: times in seconds at which a frame was repeated.
        notes: other irregularities and what was done about them, one sentence each.
    """

    source: VideoSource
    timeline: Timeline | None
    on_error: Literal["stop", "keep"] = "stop"
    deinterlace: bool = False
    nvdec: Nvdec | None = None
    keep_on_gpu: bool = False
    flagged_only: bool = False
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
            Frames with strictly ascending timestamps and known durations.

        Raises:
            MediaError: a frame is damaged or missing under ``stop``; the size or the pixel format changes.
        """
        opened = container if container is not None else self.source.open()
        with translated(self.source.path), opened:
            yield from self._checked(self._images(opened, first), first, end)

    def frames_of(
        self, images: Iterator[VideoFrame | None], first: int | None, end: int | None, whole: bool
    ) -> Iterator[Frame] | None:
        """Like ``frames``, from images that were decoded without a container.

        Args:
            images: from ``timeline.roll(first)`` on.
            whole: the images begin with the video.

        Returns:
            The frames; None if there were errors before ``first``, so that decoding must begin earlier.
        """
        if self.deinterlace:
            images = deinterlaced(images, self.source, self._pix_fmt, self.flagged_only)
        if first is not None and self.timeline is not None and not whole:
            found = approached(images, self.timeline, first)
            if found is None:
                return None
            images = found
        return self._checked(images, first, end)

    def _images(self, container: InputContainer, first: int | None) -> Iterator[VideoFrame | None]:
        """Decoded frames; None stands for an error of the decoder. Begins early enough before ``first``."""
        timeline = self.timeline
        # Times by a clock are by the number of packets, which are counted from the beginning.
        if first is None or timeline is None or self._clock or timeline.roll(first) <= timeline.pts[0]:
            yield from self._decoded(container)
            return
        images = self._approached(container, timeline, first)
        if images is not None:
            yield from images
            return
        # Seeking by time is unreliable in some containers. Decoding from the beginning always works.
        with self.source.open() as again:
            yield from self._decoded(again)

    def _approached(
        self, container: InputContainer, timeline: Timeline, first: int
    ) -> Iterator[VideoFrame | None] | None:
        """Frames from the one before ``first`` on, found by seeking; None if there were errors on the way."""
        # Decode the first frame, because some decoders need it: old versions of x264 write their version there only,
        # and 4:4:4 of theirs is garbage to a decoder that does not know it.
        next(self._decoded_as_stored(container), None)
        # Transport streams have no index, so seeking may land too late; then an earlier target is tried.
        for target in timeline.targets(first):
            try:
                container.seek(target, stream=main_stream(container, self.source.path))
            except av.FFmpegError:
                continue
            images = approached(self._decoded(container), timeline, first)
            if images is not None:
                return images
        return None

    def _decoded(self, container: InputContainer) -> Iterator[VideoFrame | None]:
        images = self._decoded_as_stored(container)
        return deinterlaced(images, self.source, self._pix_fmt, self.flagged_only) if self.deinterlace else images

    @property
    def _clock(self) -> Clock | None:
        return None if self.timeline is None else self.timeline.clock

    def _decoded_as_stored(self, container: InputContainer) -> Iterator[VideoFrame | None]:
        stream = main_stream(container, self.source.path)
        nvdec, planar = self.nvdec, self.source.planar
        decoder = stream.codec_context if nvdec is None else nvdec.decoder(stream)
        images = decoded(decoder, numbered(container.demux(stream), self._clock))
        if nvdec is not None and not self._stay_on_gpu:
            images = (None if image is None else nvdec.downloaded(image, planar) for image in images)
        return in_order(images, self._clock, self._nominal)

    @property
    def _nominal(self) -> int:
        """The usual duration of a frame."""
        return max(1, round(self.source.frame_seconds / self.source.time_base))

    @property
    def _stay_on_gpu(self) -> bool:
        """Whether frames stay on the GPU: bwdif runs on the host, and odd sizes cannot be halved for chroma."""
        if self.nvdec is None or not self.keep_on_gpu or self.deinterlace or self.source.crop:
            return False
        return self.nvdec.pix_fmt in ON_GPU and self.source.height % 2 == self.source.width % 2 == 0

    @property
    def _pix_fmt(self) -> str:
        """The pixel format of all images."""
        if self.nvdec is None:
            return self.source.pix_fmt
        return self.nvdec.pix_fmt if self._stay_on_gpu else self.source.planar

    def _checked(self, images: Iterator[VideoFrame | None], first: int | None, end: int | None) -> Iterator[Frame]:
        """Give every image its time and its planes, and fill or report gaps."""
        reformatter = VideoReformatter()
        nominal = self._nominal
        previous: Frame | None = None
        last_pts: int | None = None
        damaged = False
        for image in images:
            if image is None:
                # Errors before the first image occur in files that begin in the middle of a stream, and on the way to
                # a segment. The timeline shows whether they lost a frame.
                damaged = True
                continue
            pts = self._time_of(image, last_pts, nominal)
            done = end is not None and pts >= end
            if last_pts is not None:
                for gap in self._gaps(last_pts, end if done else pts, first, damaged):
                    previous = self._repeat(previous, gap, "missing")
                    yield previous
            elif first is None:
                self._check_beginning(pts, damaged)
            if done:
                return
            last_pts = pts
            wanted = first is None or pts >= first
            if not image.is_corrupt or (wanted and self._ends_here(pts)):
                previous = self._frame(image, pts, nominal, reformatter)
            elif wanted:
                previous = self._repeat(previous, pts, "damaged")
            if wanted and previous is not None:
                yield previous
        if last_pts is None:
            raise MediaError(self.source.path, "no frame of its video can be decoded", "Check that it plays.")
        for gap in self._gaps(last_pts, end, first, damaged):
            previous = self._repeat(previous, gap, "missing")
            yield previous

    def _gaps(self, last: int, following: int | None, first: int | None, damaged: bool) -> tuple[int, ...]:
        """Times of frames that should have been decoded between two others.

        Args:
            following: the frame after; None: the end of the video.
            first: as in ``frames``; frames before it do not count.
            damaged: whether the decoder reported an error.
        """
        timeline = self.timeline
        if timeline is None or not (damaged or (self.source.codec in _FRAME_PER_PACKET and not self.deinterlace)):
            return ()
        between = timeline.between(last, timeline.pts[-1] + 1 if following is None else following)
        return tuple(pts for pts in between if first is None or pts >= first)

    def _check_beginning(self, pts: int, damaged: bool) -> None:
        """Check what became of the frames before the first that was decoded.

        Args:
            pts: time of the first decoded frame.
            damaged: whether the decoder reported an error before it.
        """
        timeline = self.timeline
        if timeline is None:
            return
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
            self._note(f"the first {skipped} frames depend on frames that were cut off before them: they are left out")

    def _time_of(self, image: VideoFrame, last: int | None, nominal: int) -> int:
        """An image's timestamp; where it has none, or one out of order, the next one possible."""
        if image.pts is not None and (last is None or image.pts > last):
            return image.pts
        pts = 0 if last is None else last + (nominal if image.pts is None else 1)
        self._note("some frames had no timestamp, or one out of order: they got the next one possible")
        return pts

    def _frame(self, image: VideoFrame, pts: int, nominal: int, reformatter: VideoReformatter) -> Frame:
        source = self.source
        # The format of a frame on a GPU is "cuda"; sw_format is that of its samples.
        pix_fmt = (image.sw_format or image.format).name
        height, width = source.decoded_size
        expected = filtered_format(source, self._pix_fmt) if self.deinterlace else self._pix_fmt
        if (image.height, image.width, pix_fmt) != (height, width, expected):
            at = float(pts * source.time_base)
            happened = (
                f"changes from {width}x{height} {expected} to {image.width}x{image.height} {pix_fmt} at {at:.3f} s"
            )
            raise MediaError(source.path, happened, f"Upscale it in parts, with --end {at:.3f} and --start {at:.3f}.")
        duration = image.duration if self._clock is None else 0
        if duration <= 0:
            duration = self._until_next(pts, nominal)
        if self._stay_on_gpu:
            depth = VideoFormat(source.planar).components[0].bits
            return Frame(device_planes(image, depth), pts, duration, source.time_base, image)
        planes, origin = read_planes(image, source.planar, reformatter)
        planes = cropped(planes, source.planar, source.crop, source.height, source.width)
        return Frame(planes, pts, duration, source.time_base, origin)

    def _repeat(self, previous: Frame | None, pts: int, how: str) -> Frame:
        """The previous frame, in place of one that is missing or damaged."""
        source = self.source
        at = float((pts - source.start) * source.time_base)
        if self.on_error == "stop":
            remedy = "Repeat the frame before it with --on-error keep, or get the file again."
            raise MediaError(source.path, f"the frame at {at:.3f} s is {how}", remedy)
        if previous is None:
            raise MediaError(source.path, f"the frame at {at:.3f} s is {how}, and there is none before it to repeat")
        self.repeated.append(at)
        return replace(previous, pts=pts, duration=self._until_next(pts, previous.duration), repeats=True)

    def _until_next(self, pts: int, otherwise: int) -> int:
        """The time from a frame to the next; the last one has none."""
        following = None if self.timeline is None else self.timeline.after(pts)
        return otherwise if following is None else following - pts

    def _ends_here(self, pts: int) -> bool:
        """Whether a damaged frame is the last of a recorded broadcast, which ends anywhere."""
        timeline = self.timeline
        if self.source.container != "mpegts" or timeline is None:
            return False
        if pts in timeline.ends:
            self._note("recordings are joined: the last frame of each is used as it is")
            return True
        if pts < timeline.pts[-1]:
            return False
        self._note("the last frame is incomplete because the recording ended: it is used as it is")
        return True

    def _note(self, sentence: str) -> None:
        if sentence not in self.notes:
            self.notes.append(sentence)


def decoded(decoder: VideoCodecContext, packets: Iterable[Packet[Any] | None]) -> Iterator[VideoFrame | None]:
    """Decode packets; None in their place flushes the decoder, None in that of a frame is damage or an error."""
    for packet in packets:
        if packet is not None and packet.is_corrupt:
            yield None
        try:
            images = decoder.decode(packet)
        except _DECODE_ERRORS:
            yield None
            continue
        yield from images


def approached(
    images: Iterator[VideoFrame | None], timeline: Timeline, first: int
) -> Iterator[VideoFrame | None] | None:
    """Images from the one before ``first`` on; None if there were errors before it, or the images begin too late."""
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


def filtered_format(source: VideoSource, pix_fmt: str) -> str:
    """The pixel format in which frames are deinterlaced: bwdif takes planes only."""
    return pix_fmt if holds(pix_fmt, source.planar) else source.planar


def deinterlaced(
    images: Iterator[VideoFrame | None], source: VideoSource, pix_fmt: str, flagged_only: bool
) -> Iterator[VideoFrame | None]:
    """One progressive frame for every frame (bwdif, by libavfilter), or for those that are flagged as interlaced.

    Source: bwdif is the weighted blend of Bob Weaver and the cubic interpolation of the BBC's PH-2071.
    """
    filtered = filtered_format(source, pix_fmt)
    settings = f"mode=send_frame:parity=auto:deint={'interlaced' if flagged_only else 'all'}"
    graph = filter_graph(filtered, source.decoded_size, source.time_base, ("bwdif", settings))
    reformatter = VideoReformatter()

    def pull() -> Iterator[VideoFrame]:
        while True:
            try:
                frame = graph.vpull()
            except (av.BlockingIOError, av.EOFError):
                return
            # The filter halves the time base, so that it could output two frames for one.
            if frame.pts is not None and frame.time_base:
                frame.pts = round(frame.pts * frame.time_base / source.time_base)
                frame.duration = round(frame.duration * frame.time_base / source.time_base)
            frame.time_base = source.time_base
            yield frame

    for image in images:
        if image is None:
            yield None
            continue
        if image.format.name == pix_fmt != filtered:
            image = reformatter.reformat(image, format=filtered, threads=1)
        graph.vpush(image)
        yield from pull()
    graph.vpush(None)
    yield from pull()
