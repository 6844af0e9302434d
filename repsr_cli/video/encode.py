"""Encode the frames of one segment into packets.

Encoders with equal settings write equal headers, so that the packets of many segments form one stream.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import av
import numpy as np
from av.codec import Codec, CodecContext, codecs_available
from av.codec.context import Flags
from av.packet import Packet
from av.stream import Stream
from av.video.codeccontext import VideoCodecContext
from av.video.format import VideoFormat
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import VideoReformatter

from repsr_cli.errors import DeviceError, MediaError, UsageError
from repsr_cli.video.colour_tags import ColourTags, HdrMetadata
from repsr_cli.video.cuda_planes import frame_of, need_device, refusal
from repsr_cli.video.frames import carry
from repsr_cli.video.planes import Planes, fill, new_frame, packed_frame, planes_of
from repsr_cli.video.scheduling import usual_scheduling
from repsr_cli.yuv.device_planes import DevicePlanes, on_host

DEFAULT_CRF = 17.0

# Quality scales differ. These straight lines map libx264's scale to about the same visual quality according to
# published comparisons; they are a convenience, not a measurement. (name, slope, offset, largest value)
_CRF: dict[str, tuple[str, float, float, float]] = {
    "libx264": ("crf", 1, 0, 51),
    "libx265": ("crf", 1, 3, 51),
    "libsvtav1": ("crf", 1.5, 1, 63),
    "libaom-av1": ("crf", 1.5, 1, 63),
    "libvpx-vp9": ("crf", 1.25, 3, 63),
    "libvpx": ("crf", 1.25, 3, 63),
    "h264_nvenc": ("cq", 1, 2, 51),
    "hevc_nvenc": ("cq", 1, 4, 51),
    "av1_nvenc": ("cq", 1, 10, 63),
    "h264_qsv": ("global_quality", 1, 2, 51),
    "hevc_qsv": ("global_quality", 1, 4, 51),
}
NVENC = ("h264_nvenc", "hevc_nvenc", "av1_nvenc")
# Code values by which a smooth image may be off on average, encoded with default settings.
_NVENC_OFF = 4.0
_PRESETS = {"libx264": "medium", "libx265": "medium", "libsvtav1": "6"} | dict.fromkeys(NVENC, "p4")
# Formats that encoders take in place of planar ones with the same samples. PNG is packed. NVENC interleaves chroma and
# reads 10 bits from the top of 16.
_STORED = {"png": {"gbrp": "rgb24", "gbrp16le": "rgb48be", "gray16le": "gray16be"}} | {
    codec: {"yuv420p10le": "p010le", "yuv444p10le": "yuv444p10msble"} for codec in NVENC
}
# The same for planes that are on the GPU already.
_ON_GPU = {"yuv420p": "nv12", "yuv420p10le": "p010le"}
_LOSSLESS = frozenset({"ffv1", "png", "ffvhuff", "huffyuv", "utvideo", "rawvideo"})
_DEFAULTS = {"libvpx-vp9": {"row-mt": "1"}, "prores_ks": {"vendor": "apl0"}, "ffv1": {"slicecrc": "1"}}
_PARAMETERS = {"libx264": "x264-params", "libx265": "x265-params", "libsvtav1": "svtav1-params"}
# Bits per pixel of output that encoders need for upscaled video at the default quality, roughly.
_BITS_PER_PIXEL = {
    "libx264": 0.12,
    "libx265": 0.08,
    "libsvtav1": 0.06,
    "libvpx-vp9": 0.08,
    "prores_ks": 2.5,
    "ffv1": 6.0,
    "png": 10.0,
}


# Encoders by codec, the preferred first.
_ENCODERS = {
    "h264": ("libx264", "libopenh264"),
    "avc": ("libx264", "libopenh264"),
    "x264": ("libx264",),
    "h265": ("libx265",),
    "hevc": ("libx265",),
    "x265": ("libx265",),
    "av1": ("libsvtav1", "libaom-av1"),
    "vp9": ("libvpx-vp9",),
    "prores": ("prores_ks",),
}


@dataclass(frozen=True, slots=True)
class Encoding:
    """The settings of an encoder; equal settings give equal headers.

    Attributes:
        codec: FFmpeg's name of the encoder.
        pix_fmt: planar pixel format of its frames.
        time_base: seconds per unit of timestamps: the source's.
        rate: mean frames per second, which encoders use for rate control.
        sar: sample aspect ratio; None if unknown.
        tags: colour tags to write.
        options: the encoder's options, name and value, in order.
        threads: number of threads; packets depend on it.
        tag: four characters that name the codec in MP4; empty for the default.
    """

    codec: str
    pix_fmt: str
    height: int
    width: int
    time_base: Fraction
    rate: Fraction
    sar: Fraction | None
    tags: ColourTags
    options: tuple[tuple[str, str], ...] = ()
    threads: int = 1
    tag: str = ""

    def bytes_expected(self, frames: int) -> int:
        """An estimate of the bytes that a number of frames are encoded to."""
        return int(frames * self.height * self.width * _BITS_PER_PIXEL.get(self.codec, 0.15) / 8)


@dataclass(frozen=True, slots=True)
class EncodedPacket:
    """A packet of the output's video stream.

    Attributes:
        pts: presentation time in the encoding's time base.
        duration: of the frame shown.
        key: whether decoding can begin here.
    """

    pts: int
    dts: int
    duration: int
    key: bool
    data: bytes


def encoder_options(
    codec: str,
    crf: float | None,
    preset: str | None,
    extra: Mapping[str, str],
    hdr: HdrMetadata | None,
) -> tuple[tuple[str, str], ...]:
    """The options of an encoder for a quality on libx264's scale.

    Args:
        preset: speed, as the encoder names it; None: a default, ``medium`` for libx264.
        extra: further options, which take precedence.
        hdr: metadata to write into the stream, where the encoder supports it.

    Raises:
        UsageError: the encoder has no quality to set, or it is off the scale.
    """
    options = _quality(codec, crf, extra)
    if preset is not None or codec in _PRESETS:
        options["cpu-used" if codec.startswith("libvpx") else "preset"] = preset or _PRESETS[codec]
    if codec.startswith("libvpx"):
        options = {"deadline": "good", "cpu-used": "2"} | options
    options |= _DEFAULTS.get(codec, {})
    parameters = _parameters(codec, hdr)
    for name, value in extra.items():
        if name == _PARAMETERS.get(codec):
            parameters.append(value)
        else:
            options[name] = value
    if parameters:
        options[_PARAMETERS[codec]] = ":".join(parameters)
    return tuple(options.items())


def _quality(codec: str, crf: float | None, extra: Mapping[str, str]) -> dict[str, str]:
    """The options that set the quality."""
    if crf is not None and not 0 <= crf <= 51:
        raise UsageError(f"--crf {crf:g}", "off the scale", "Give 0 (best) to 51; 17 is the default.")
    chosen = _rate_control(codec, extra)
    if chosen is not None:
        if crf is not None:
            raise UsageError(f"--crf {crf:g}", f"cannot be combined with -e {chosen}", "Give one of the two.")
        return {}
    if codec in _CRF:
        name, slope, offset, most = _CRF[codec]
        mapped = min(most, max(0.0, (DEFAULT_CRF if crf is None else crf) * slope + offset))
        value = f"{mapped:g}" if codec.startswith("libx26") else f"{round(mapped)}"
        # NVENC sets a target quality within its variable bit rate; the rate of 0 (``configure``) means no limit.
        return ({"rc": "vbr"} if codec in NVENC else {}) | {name: value}
    if crf is None:
        return {}
    if codec in _LOSSLESS:
        raise UsageError(f"--crf {crf:g}", f"{codec} is lossless and has no quality to set", "Leave it out.")
    remedy = f"Give an option of {codec} with -e name=value."
    raise UsageError(f"--crf {crf:g}", f"has no known equivalent in {codec}", remedy)


def _rate_control(codec: str, extra: Mapping[str, str]) -> str | None:
    """The user's option that makes NVENC aim at something other than a quality; None if there is none."""
    if codec not in NVENC:
        return None
    names = (name for name, value in extra.items() if name in ("rc", "qp", "cq", "b") or value == "lossless")
    return next((f"{name}={extra[name]}" for name in names), None)


def _parameters(codec: str, hdr: HdrMetadata | None) -> list[str]:
    """Parameters for the library behind an encoder: HDR metadata, log level, reproducible arithmetic.

    x264's macroblock tree uses arithmetic that suits the processor and has been seen to give different packets for the
    same frames in two runs. A resumed job needs the same packets.
    """
    parameters = {"libx264": ["cpu-independent=1"], "libx265": ["log-level=error"]}.get(codec, [])
    if hdr is None:
        return parameters
    if codec in ("libx264", "libx265"):
        display, light = ("mastering-display", "cll") if codec == "libx264" else ("master-display", "max-cll")
        if hdr.x26x() is not None:
            parameters.append(f"{display}={hdr.x26x()}")
        if hdr.content is not None:
            parameters.append(f"{light}={hdr.content[0]},{hdr.content[1]}")
        if codec == "libx265":
            parameters.append("hdr10=1")
    if codec == "libsvtav1":
        if hdr.svtav1() is not None:
            parameters.append(f"mastering-display={hdr.svtav1()}")
        if hdr.content is not None:
            parameters.append(f"content-light={hdr.content[0]},{hdr.content[1]}")
    return parameters


def writes_hdr(codec: str) -> bool:
    """Whether an encoder writes static HDR metadata into the stream."""
    return codec in ("libx264", "libx265", "libsvtav1")


def encoder_named(name: str) -> str:
    """The encoder for a codec: ``libx265`` for ``h265``. Any other name stays as it is."""
    choices = _ENCODERS.get(name.lower().replace(".", ""), (name,))  # H.265 too
    return next((each for each in choices if each in codecs_available), choices[0])


def find_encoder(name: str) -> Codec:
    """An encoder by FFmpeg's name.

    Raises:
        UsageError: there is no such encoder, or it is not for video.
    """
    try:
        codec = Codec(name, "w")
    except (av.codec.codec.UnknownCodecError, ValueError) as error:
        known = [each for each in (*_ENCODERS, *codecs_available) if each in _ENCODERS or _encodes_video(each)]
        near = difflib.get_close_matches(name.lower(), known, n=1)
        remedy = f"Did you mean {near[0]}?" if near else "Try h264, h265, av1, vp9, prores or ffv1."
        raise UsageError(f"--codec {name}", "no such encoder here", remedy) from error
    if codec.type != "video":
        raise UsageError(f"--codec {name}", f"encodes {codec.type}, not video")
    return codec


def _encodes_video(name: str) -> bool:
    try:
        return Codec(name, "w").type == "video"
    except ValueError:  # PyAV's error for decoders is one
        return False


def choose_pix_fmt(
    codec: str, wanted: str, height: int, width: int, formats: Sequence[str] = ()
) -> tuple[str, str | None]:
    """The planar format closest to a wanted one that an encoder takes.

    Closest means: no less depth and no coarser chroma where available, then as little more of either as possible.

    Args:
        wanted: planar name.
        formats: the choice; empty: what the encoder takes.

    Returns:
        (name, why it differs from the wanted one, or None).
    """
    if codec == "png":
        formats = ("gbrp", "gbrp16le", "gray", "gray16le")
    if codec in NVENC:
        taken = {each.name for each in find_encoder(codec).video_formats or ()}
        known = ("yuv420p", "yuv420p10le", "yuv444p", "yuv444p10le", "gbrp")
        formats = [name for name in known if _STORED[codec].get(name, name) in taken]
    formats = formats or [each.name for each in find_encoder(codec).video_formats or ()] or [wanted]
    planar = [name for name in formats if name.startswith(("yuv4", "gbrp", "gray")) and not name.endswith("be")]
    if not planar:
        raise MediaError(codec, "takes no planar pixel format", "Choose another encoder with -c.")
    # H.264 and HEVC count the crop of a 4:2:0 image in pairs of pixels: an odd size cannot be written.
    odd = codec not in ("libvpx-vp9", "libvpx", "libsvtav1", "libaom-av1", "ffv1", "rawvideo")
    usable = [name for name in planar if not odd or _divides(name, height, width)] or planar
    if wanted in usable:
        return wanted, None

    def distance(name: str) -> tuple[int, ...]:
        a, b = VideoFormat(wanted), VideoFormat(name)
        deeper = b.components[0].bits - a.components[0].bits
        finer = _chroma(name) - _chroma(wanted)
        return (
            int(deeper < 0),
            int(finer < 0),
            int(a.is_rgb != b.is_rgb),
            abs(finer),
            abs(deeper),
        )

    best = min(usable, key=distance)
    if wanted in planar:
        return best, f"{width}x{height} is odd, which {codec} cannot write in {wanted}: written as {best}"
    return best, f"{codec} takes no {wanted}: written as {best}"


def reduction(source: str, target: str) -> str:
    """What a planar format holds less of than another, in words; an empty string if nothing.

    Args:
        source: name of the other.
        target: its name.
    """
    lost = []
    if _chroma(target) < _chroma(source):
        lost.append("chroma")
    bits = [VideoFormat(name).components[0].bits for name in (source, target)]
    if bits[1] < bits[0]:
        lost.append(f"{bits[0]} bits")
    return f"the {' and the '.join(lost)} of {source}, which is written as {target}" if lost else ""


def _chroma(name: str) -> int:
    """Chroma samples per 16 luma samples on both axes together: 0 grey, 16 for 4:2:0, 32 for 4:4:4."""
    layout = VideoFormat(name)
    if len(layout.components) < 3:
        return 0
    return layout.chroma_width(16) + layout.chroma_height(16)


def _divides(name: str, height: int, width: int) -> bool:
    layout = VideoFormat(name)
    if len(layout.components) < 3 or layout.is_rgb:
        return True
    return width % (16 // layout.chroma_width(16)) == 0 and height % (16 // layout.chroma_height(16)) == 0


def configure(context: VideoCodecContext, encoding: Encoding, global_header: bool = True) -> None:
    """Apply the settings to an encoder, or to the stream of a container."""
    context.width, context.height = encoding.width, encoding.height
    context.pix_fmt = _stored(encoding)
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


def _stored(encoding: Encoding) -> str:
    """The pixel format that the encoder takes for the planar one."""
    return _STORED.get(encoding.codec, {}).get(encoding.pix_fmt, encoding.pix_fmt)


def gpu_format(encoding: Encoding) -> str | None:
    """The format in which an encoder takes planes on its GPU: ``nv12`` or ``p010le``; None if it does not."""
    even = encoding.height % 2 == encoding.width % 2 == 0
    return _ON_GPU.get(encoding.pix_fmt) if encoding.codec in NVENC and even else None


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
        if encoding.codec == "png" and _stored(encoding) != encoding.pix_fmt:
            return packed_frame(host, _stored(encoding))
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

    def _delay_unknown(self) -> bool:
        """Whether decoding times are undefined.

        x265 determines the delay of its B-frames at the third frame, and subtracts an undefined value where there is
        none. One or two frames are decoded in the order they are shown.
        """
        return self.encoding.codec == "libx265" and self.frames <= 2

    def _encoded(self, frame: VideoFrame | None) -> list[Packet[Stream]]:
        assert self._context is not None
        try:
            return self._context.encode(frame)
        except av.FFmpegError as error:
            raise MediaError(self.encoding.codec, f"stopped encoding ({error.strerror})") from error

    def _packets(self, packets: Sequence[Packet[Stream]]) -> list[EncodedPacket]:
        result = []
        for packet in packets:
            if packet.pts is None:
                raise MediaError(self.encoding.codec, "gave a packet without a time", "Choose another with -c.")
            dts = packet.pts if packet.dts is None or self._delay_unknown() else packet.dts
            # Not every encoder passes the duration of a frame on to its packet.
            duration = self._durations.pop(packet.pts, 0)
            result.append(EncodedPacket(packet.pts, dts, duration, packet.is_keyframe, bytes(packet)))
        self.packets += len(result)
        return result
