"""Encode the frames of one segment into packets.

Encoders with equal settings write equal headers, so that the packets of many segments form one stream.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import av
import numpy as np
from av.codec import CodecContext
from av.codec.context import Flags
from av.packet import Packet
from av.stream import Stream
from av.video.codeccontext import VideoCodecContext
from av.video.format import VideoFormat
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import VideoReformatter

from repsr_cli.errors import DeviceError, MediaError, UsageError
from repsr_cli.video.colour_tags import ColourTags
from repsr_cli.video.cuda_planes import frame_of, need_device, refusal
from repsr_cli.video.encoders import NVENC, Encoding, gpu_format
from repsr_cli.video.frames import carry
from repsr_cli.video.planes import Planes, fill, new_frame, packed_frame, planes_of
from repsr_cli.video.scheduling import usual_scheduling
from repsr_cli.yuv.device_planes import DevicePlanes, on_host

# Code values by which a smooth image may be off on average, encoded with default settings.
_NVENC_OFF = 4.0


@dataclass(frozen=True, slots=True)
class EncodedPacket:
    """A packet of the output's video stream.

    Attributes:
        pts: presentation time in the encoding's time base.
        duration: of the frame shown.
        key: whether decoding can begin here.
        repeats: whether the frame stands for one that could not be decoded.
    """

    pts: int
    dts: int
    duration: int
    key: bool
    data: bytes
    repeats: bool = False


def configure(context: VideoCodecContext, encoding: Encoding, global_header: bool = True) -> None:
    """Apply the settings to an encoder, or to the stream of a container."""
    context.width, context.height = encoding.width, encoding.height
    context.pix_fmt = encoding.stored
    context.time_base = encoding.time_base
    context.framerate = encoding.rate
    # libvpx would treat the quality as a limit within its default of 200 kbit/s.
    context.bit_rate = 0
    if encoding.sar:
        context.sample_aspect_ratio = encoding.sar
    tags = encoding.tags
    context.colorspace, context.color_range = tags.matrix, tags.range
    context.color_primaries, context.color_trc = tags.primaries, tags.transfer
    context.thread_count = encoding.threads
    options = dict(encoding.options)
    if tags.siting is not None and VideoFormat(encoding.pix_fmt).chroma_width(16) < 16:
        options.setdefault("chroma_sample_location", tags.siting)
    context.options = options
    if global_header:
        context.flags |= Flags.global_header
    if encoding.tag:
        context.codec_tag = encoding.tag


def open_encoder(encoding: Encoding) -> VideoCodecContext:
    """Open an encoder.

    Raises:
        UsageError: it does not know an option, does not accept a value, or cannot encode such frames.
        DeviceError: it needs a GPU that is missing or has no such encoder.
    """
    # SVT-AV1 reads its log level from the environment only.
    os.environ.setdefault("SVT_LOG", "1")
    context = _new_encoder(encoding)
    try:
        _open(context)
    except (av.FFmpegError, ValueError) as error:
        given = " ".join(f"{name}={value}" for name, value in encoding.options)
        happened = f"cannot encode {encoding.width}x{encoding.height} {encoding.pix_fmt} with {given or 'no options'}"
        if encoding.codec in NVENC:
            _need_nvenc(encoding.codec)
            happened += f" ({refusal(partial(_open, _new_encoder(encoding)))})"
        remedy = "Check --crf, --preset, --pix-fmt and -e, or choose another encoder with -c."
        raise UsageError(encoding.codec, happened, remedy) from error
    unknown = [name for name in context.options if name != "chroma_sample_location"]
    if unknown:
        known = context.supported_options
        names = [option.name for option in (*known.private, *known.generic)]
        near = difflib.get_close_matches(unknown[0], names, n=1)
        remedy = f"Did you mean {near[0]}?" if near else "Check its spelling."
        raise UsageError(f"-e {unknown[0]}", f"{encoding.codec} has no such option", remedy)
    return context


def _new_encoder(encoding: Encoding) -> VideoCodecContext:
    context = CodecContext.create(encoding.codec, "w")
    assert isinstance(context, VideoCodecContext)
    configure(context, encoding)
    return context


def _open(context: VideoCodecContext) -> None:
    with usual_scheduling():
        context.open()


def _need_nvenc(codec: str) -> None:
    """Check that there is a GPU with an encoder."""
    need_device(codec, 0, "choose another encoder with -c")
    why = nvenc_refusal(codec)
    if why is not None:
        remedy = "Update the driver, or choose another encoder with -c."
        raise DeviceError(codec, f"this GPU, or its driver, does not have it ({why})", remedy)


def nvenc_refusal(codec: str) -> str | None:
    """Why an NVENC encoder cannot be used: it does not open for 256x256, or what it gives is another image.

    None if it can. A few frames are encoded with default settings and decoded in software.
    """
    plain = Encoding(codec, "yuv420p", 256, 256, Fraction(1, 25), Fraction(25), None, ColourTags(1, 1, 1, 1, None))
    why = refusal(partial(_open, _new_encoder(plain)))
    if why is not None:
        return why
    try:
        off = _there_and_back(plain)
    except av.FFmpegError as error:
        return error.strerror
    if off is None or off > _NVENC_OFF:
        return "what it encodes is not what it was given" + ("" if off is None else f": off by {off:.0f} code values")
    return None


def _there_and_back(encoding: Encoding) -> float | None:
    """Code values by which luma is off on average when encoded and decoded in software; None: frames are missing."""
    ramp = np.add.outer(np.arange(encoding.height), np.arange(encoding.width)) // 4 + 64
    encoder = _new_encoder(encoding)
    _open(encoder)
    packets: list[Packet[Stream]] = []
    for number in range(3):
        chroma = np.full((encoding.height // 2, encoding.width // 2), 100 + 20 * number, np.uint8)
        frame = new_frame(((ramp + 3 * number).astype(np.uint8), chroma, chroma), encoding.pix_fmt)
        frame.pts = number
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    name = encoder.codec.canonical_name
    decoder = CodecContext.create("libdav1d" if name == "av1" else name, "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.extradata = encoder.extradata
    images = [image for packet in (*packets, None) for image in decoder.decode(packet)]
    lumas = [planes_of(image, encoding.pix_fmt)[0].astype(int) for image in images]
    if len(lumas) != 3:
        return None
    return max(float(np.abs(luma - ramp - 3 * number).mean()) for number, luma in enumerate(lumas))


class SegmentEncoder:
    """Encodes one segment."""

    def __init__(self, encoding: Encoding) -> None:
        self.encoding = encoding
        self.frames = self.packets = 0
        self._context: VideoCodecContext | None = None
        self._durations: dict[int, int] = {}
        self._reformatter = VideoReformatter()

    def encode(
        self, planes: Planes | DevicePlanes, pts: int, duration: int, origin: VideoFrame | None = None
    ) -> list[EncodedPacket]:
        """Add a frame.

        Args:
            planes: in the encoding's pixel format. Those on a GPU stay there if they have the ``gpu_format`` and no
                ``origin``.
            pts: its time, later than that of the frame before.
            origin: the frame whose captions and timecode it carries.

        Returns:
            The packets that are complete.
        """
        encoding = self.encoding
        frame = self._frame(planes, origin)
        if self._context is None:
            self._context = self._opened(frame)
        frame.pts, frame.duration, frame.time_base = pts, duration, encoding.time_base
        frame.pict_type = PictureType.NONE
        tags = encoding.tags
        frame.colorspace, frame.color_range = tags.matrix, tags.range
        frame.color_primaries, frame.color_trc = tags.primaries, tags.transfer
        self.frames += 1
        self._durations[pts] = duration
        return self._packets(self._encoded(frame))

    def finish(self) -> list[EncodedPacket]:
        """The rest of the packets.

        Raises:
            MediaError: the numbers of packets and frames differ.
        """
        packets = self._packets(self._encoded(None)) if self._context is not None else []
        if self.packets != self.frames:
            happened = f"gave {self.packets} packets for {self.frames} frames"
            raise MediaError(self.encoding.codec, happened, "Choose another encoder with -c.")
        return packets

    def _frame(self, planes: Planes | DevicePlanes, origin: VideoFrame | None) -> VideoFrame:
        encoding = self.encoding
        if isinstance(planes, DevicePlanes) and origin is None and planes.pix_fmt == gpu_format(encoding):
            return frame_of(planes)
        host = on_host(planes)
        if encoding.codec == "png" and encoding.stored != encoding.pix_fmt:
            return packed_frame(host, encoding.stored)
        # PyAV converts it to the encoder's layout and uploads it to its GPU.
        frame = carry(origin, self._reformatter, encoding.width, encoding.height, encoding.pix_fmt)
        fill(frame, host)
        return frame

    def _opened(self, frame: VideoFrame) -> VideoCodecContext:
        """The encoder for frames like the first; one on a GPU provides the GPU's context when it is encoded."""
        if frame.sw_format is None:
            return open_encoder(self.encoding)
        context = _new_encoder(self.encoding)
        context.pix_fmt = frame.format.name
        return context

    def _encoded(self, frame: VideoFrame | None) -> list[Packet[Stream]]:
        assert self._context is not None
        try:
            return self._context.encode(frame)
        except av.FFmpegError as error:
            raise MediaError(self.encoding.codec, f"stopped encoding ({error.strerror})") from error

    def _packets(self, packets: Sequence[Packet[Stream]]) -> list[EncodedPacket]:
        # x265 determines the delay of its B-frames at the third frame, and subtracts an undefined value where there is
        # none. One or two frames are decoded in the order they are shown.
        delay_unknown = self.encoding.codec == "libx265" and self.frames <= 2
        result = []
        for packet in packets:
            if packet.pts is None:
                raise MediaError(self.encoding.codec, "gave a packet without a time", "Choose another with -c.")
            dts = packet.pts if packet.dts is None or delay_unknown else packet.dts
            # Not every encoder passes the duration of a frame on to its packet.
            duration = self._durations.pop(packet.pts, 0)
            result.append(EncodedPacket(packet.pts, dts, duration, packet.is_keyframe, bytes(packet)))
        self.packets += len(result)
        return result
