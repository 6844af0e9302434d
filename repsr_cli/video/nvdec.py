"""Decode videos on an NVIDIA GPU.

Whether a GPU decodes a video depends on its generation and on the codec, profile and size. So the first frame is tried,
and the first GOP is compared with software's. FFmpeg's silent fallback to software is disabled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from repsr_cli.errors import DeviceError
from repsr_cli.video.cuda_planes import downloaded, need_device, nvdec_accel, refusal
from repsr_cli.video.open import decoder_settings, main_stream, new_decoder, translated
from repsr_cli.video.planes import Planes, planes_of
from repsr_cli.video.probe import VideoSource

# Codecs whose standards define decoding exactly. For the transforms of MPEG-2, MPEG-4 Part 2 and JPEG they only limit
# the error, so that a GPU's result differs from that of software.
EXACT = frozenset({"h264", "hevc", "vp8", "vp9", "av1"})

# NVDEC's format for each planar format of software decoding; above 8 bits, samples use the high bits. FFmpeg before 8.1
# outputs 4:4:4 above 8 bits as yuv444p16le, which swscale does not convert exactly.
GIVEN = {
    "yuv420p": "nv12",
    "yuv420p10le": "p010le",
    "yuv420p12le": "p016le",
    "yuv422p": "nv16",
    "yuv422p10le": "p210le",
    "yuv444p": "yuv444p",
    "yuv444p10le": "yuv444p10msble",
    "yuv444p12le": "yuv444p12msble",
}

# Packets after which a decoder that works has output a frame, however many it buffers.
_TRIAL = 64


@dataclass(frozen=True, slots=True)
class Nvdec:
    """How a GPU decodes a video.

    Attributes:
        device: CUDA's number of the GPU.
        pix_fmt: format of the frames on it: ``nv12``, ``p010le``, ...
    """

    device: int
    pix_fmt: str

    def decoder(self, stream: VideoStream) -> VideoCodecContext:
        """A decoder for a stream that leaves frames on the GPU.

        Raises:
            DeviceError: the GPU is missing.
        """
        context = stream.codec_context
        try:
            return _decoder(context.codec.canonical_name, decoder_settings(context), self.device)
        except (av.FFmpegError, RuntimeError) as error:  # RuntimeError: torch's
            happened = f"cuda:{self.device} cannot be used ({getattr(error, 'strerror', None) or error})"
            raise DeviceError("--hwaccel cuda", happened, "Leave it out, or name other devices.") from error

    def downloaded(self, image: VideoFrame, planar: str) -> VideoFrame:
        """A frame in system memory, in the planar format unless its own differs from that of the first frame."""
        own = image.sw_format or image.format
        return downloaded(image, planar if own.name == self.pix_fmt else own.name)


def find_nvdec(source: VideoSource, device: int) -> Nvdec | str:
    """Try to decode a video on a GPU.

    Args:
        device: CUDA's number of the GPU.

    Returns:
        How it is decoded there, or the reason why it is not.

    Raises:
        DeviceError: there is no such GPU or no driver.
    """
    need_device("--hwaccel cuda", device, "leave it out")
    if source.codec not in EXACT:
        return f"NVDEC is used for {', '.join(sorted(EXACT))} only, not for {source.codec}"
    if source.planar not in GIVEN:
        return f"NVDEC gives no {source.planar}"
    found: list[VideoFrame] = []
    why = refusal(lambda: found.extend(_first_frame(source, device)))
    if not found:
        return f"this GPU does not decode it ({why or 'it gives no frame'})"
    given = (found[0].sw_format or found[0].format).name
    # A GPU crops on the right and at the bottom only.
    if (found[0].height, found[0].width) != source.decoded_size or given != GIVEN[source.planar]:
        return f"this GPU gives {found[0].width}x{found[0].height} {given} for it"
    nvdec = Nvdec(device, given)
    return _difference(source, nvdec) or nvdec


def _difference(source: VideoSource, nvdec: Nvdec) -> str | None:
    """How a GPU's frames of the first GOP differ from those of software; None if they do not.

    Their codecs define every bit. Frames that a GPU leaves out are noticed later, by their times.
    """
    with translated(source.path), source.open() as container:
        stream = main_stream(container, source.path)
        packets = _first_group(container.demux(stream))
        codec, settings = stream.codec_context.codec.canonical_name, decoder_settings(stream.codec_context)
        # By its own name: FFmpeg's own decoder of AV1 is for GPUs only.
        software = new_decoder(stream.codec_context.codec.name, settings)
        expected = _digests(software, packets, lambda image: planes_of(image, source.planar))
        found = _digests(
            _decoder(codec, settings, nvdec.device),
            packets,
            lambda image: planes_of(nvdec.downloaded(image, source.planar), source.planar),
        )
    for number, pts in enumerate(sorted(expected.keys() & found.keys())):
        if expected[pts] != found[pts]:
            return f"this GPU gives other frames than software, from frame {number + 1} on"
    return None


def _first_group(packets: Iterator[Packet[VideoStream]]) -> list[Packet[VideoStream]]:
    """The packets from the first keyframe to the next, at most as many as a trial has."""
    group: list[Packet[VideoStream]] = []
    for packet in packets:
        if len(group) == _TRIAL or not packet.size or (group and packet.is_keyframe):
            break
        if group or packet.is_keyframe:
            group.append(packet)
    return group


def _digests(
    decoder: VideoCodecContext, packets: Sequence[Packet[VideoStream]], planes: Callable[[VideoFrame], Planes]
) -> dict[int, bytes]:
    """A digest of every frame, by its time; frames before that of the first packet need what is not there."""
    found = {}
    for packet in (*packets, None):
        try:
            images = decoder.decode(packet)
        except av.FFmpegError:  # damage, which is reported where the video is read
            continue
        for image in images:
            if image.pts is not None and packets[0].pts is not None and image.pts >= packets[0].pts:
                digest = hashlib.blake2b(digest_size=16)
                for plane in planes(image):
                    digest.update(plane.tobytes())
                found[image.pts] = digest.digest()
    return found


def nvdec_refusal(device: int) -> str | None:
    """Why a GPU does not decode one frame of H.264; None if it does."""
    encoder = av.CodecContext.create("libx264", "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 256, 256, "yuv420p", Fraction(1, 25)
    packets: list[Any] = [*encoder.encode(VideoFrame(256, 256, "yuv420p")), *encoder.encode(None), None]
    found: list[VideoFrame] = []

    def decode() -> None:
        decoder = _decoder("h264", {}, device)
        for packet in packets:
            found.extend(decoder.decode(packet))

    return refusal(decode) or (None if found else "it gives no frame")


def _decoder(codec: str, settings: dict[str, Any], device: int) -> VideoCodecContext:
    # By the codec's name: where a codec has two decoders (AV1), FFmpeg opens files with the one for CPUs.
    kept = {name: value for name, value in settings.items() if name != "pix_fmt"}
    with nvdec_accel(device) as accel:
        context = new_decoder(codec, kept, accel)
    # CPU threads would be idle, and each would hold surfaces of the GPU.
    context.thread_count = 1
    return context


def _first_frame(source: VideoSource, device: int) -> list[VideoFrame]:
    """The first frame of a video as a GPU decodes it, or none.

    Raises:
        av.FFmpegError: the first error, if no packet was decoded.
    """
    first: av.FFmpegError | None = None
    with translated(source.path), source.open() as container:
        stream = main_stream(container, source.path)
        decode: Callable[[Any], list[VideoFrame]] = _decoder(
            stream.codec_context.codec.canonical_name, decoder_settings(stream.codec_context), device
        ).decode
        left = _TRIAL
        for packet in container.demux(stream):
            try:
                frames = decode(packet)
            except av.FFmpegError as error:
                first = first or error
                frames = []
            if frames:
                return frames[:1]
            # Packets before the first that software decodes may fail in both.
            left -= packet.pts is None or packet.pts >= source.start
            if not left:
                break
    if first is not None:
        raise first
    return []
