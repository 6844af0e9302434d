"""Choose an encoder, its options and its pixel format."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
from av.codec import Codec, codecs_available
from av.video.format import VideoFormat

from repsr_cli.errors import MediaError, UsageError
from repsr_cli.video.colour_tags import ColourTags, HdrMetadata
from repsr_cli.video.planes import subsampling

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
_PRESETS = {"libx264": "medium", "libx265": "medium", "libsvtav1": "6"} | dict.fromkeys(NVENC, "p4")
# Formats that encoders take in place of planar ones with the same samples. PNG is packed. NVENC interleaves chroma and
# reads 10 bits from the top of 16.
_STORED = {"png": {"gbrp": "rgb24", "gbrp16le": "rgb48be", "gray16le": "gray16be"}} | {
    codec: {"yuv420p10le": "p010le", "yuv444p10le": "yuv444p10msble"} for codec in NVENC
}
# The same for planes that are on the GPU already.
_ON_GPU = {"yuv420p": "nv12", "yuv420p10le": "p010le"}
_DEFAULTS = {"libvpx-vp9": {"row-mt": "1"}, "prores_ks": {"vendor": "apl0"}, "ffv1": {"slicecrc": "1"}}
_PARAMETERS = {"libx264": "x264-params", "libx265": "x265-params", "libsvtav1": "svtav1-params"}
# Their names for the mastering display and the content light level.
_HDR = {
    "libx264": ("mastering-display", "cll"),
    "libx265": ("master-display", "max-cll"),
    "libsvtav1": ("mastering-display", "content-light"),
}
# Bits per pixel of output that encoders need for upscaled video at the default quality, roughly.
_BITS_PER_PIXEL = {
    "libx264": 0.12,
    "libx265": 0.08,
    "libsvtav1": 0.06,
    "libvpx-vp9": 0.08,
    "prores_ks": 4.5,
    "jpeg2000": 3.6,
}
# The same of lossless encoders for 8 bits, at most half of the raw ones; deeper bits are noise and come on top.
_LOSSLESS = {"ffv1": 4.5, "png": 11.0} | dict.fromkeys(("rawvideo", "ffvhuff", "huffyuv", "utvideo"), math.inf)
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
        layout, bits = VideoFormat(self.pix_fmt), _BITS_PER_PIXEL.get(self.codec, 0.15)
        if self.codec == "rawvideo":
            bits = layout.padded_bits_per_pixel
        elif self.codec in _LOSSLESS:
            depth = layout.components[0].bits
            samples = layout.bits_per_pixel / depth
            bits = min(_LOSSLESS[self.codec], 4 * samples) + (depth - 8) * samples
        return int(frames * self.height * self.width * bits / 8)

    @property
    def stored(self) -> str:
        """The pixel format that the encoder takes for the planar one."""
        return _STORED.get(self.codec, {}).get(self.pix_fmt, self.pix_fmt)


def encoder_options(
    codec: str, crf: float | None, preset: str | None, extra: Mapping[str, str], hdr: HdrMetadata | None
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
    if hdr is None or not writes_hdr(codec):
        return parameters
    display, light = _HDR[codec]
    mastering = hdr.svtav1() if codec == "libsvtav1" else hdr.x26x()
    if mastering is not None:
        parameters.append(f"{display}={mastering}")
    if hdr.content is not None:
        parameters.append(f"{light}={hdr.content[0]},{hdr.content[1]}")
    if codec == "libx265":
        parameters.append("hdr10=1")
    return parameters


def writes_hdr(codec: str) -> bool:
    """Whether an encoder writes static HDR metadata into the stream."""
    return codec in _HDR


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
        return deeper < 0, finer < 0, a.is_rgb != b.is_rgb, abs(finer), abs(deeper)

    best = min(usable, key=distance)
    if wanted in planar:
        return best, f"{width}x{height} is odd, which {codec} cannot write in {wanted}: written as {best}"
    return best, f"{codec} takes no {wanted}: written as {best}"


def reduction(source: str, target: str) -> str:
    """What the planar format ``target`` holds less of than ``source``, in words; an empty string if nothing."""
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
    rows, columns = subsampling(VideoFormat(name))
    return height % rows == 0 and width % columns == 0


def gpu_format(encoding: Encoding) -> str | None:
    """The format in which an encoder takes planes on its GPU: ``nv12`` or ``p010le``; None if it does not."""
    even = encoding.height % 2 == encoding.width % 2 == 0
    return _ON_GPU.get(encoding.pix_fmt) if encoding.codec in NVENC and even else None
