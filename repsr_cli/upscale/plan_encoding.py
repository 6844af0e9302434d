"""Choose the encoder of a video, its pixel format and its tags, and try them."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from av.video.format import VideoFormat

from repsr_cli.cores import usable_cores
from repsr_cli.errors import UsageError
from repsr_cli.upscale.request import VideoOptions
from repsr_cli.video.colour_tags import ColourTags
from repsr_cli.video.encode import open_encoder
from repsr_cli.video.encoders import Encoding, choose_pix_fmt, encoder_named, encoder_options, find_encoder
from repsr_cli.video.plan_streams import IMAGES, Y4M
from repsr_cli.video.planes import planar_name
from repsr_cli.video.probe import VideoSource
from repsr_cli.video.y4m import PIXEL_FORMATS

# What is written without a choice of encoder.
CODEC_OF = {IMAGES: "png", Y4M: "rawvideo"}
_ENCODER_THREADS = 16
# Frames per second beyond which SVT-AV1 refuses to work.
_SVT_RATE = 240


def plan_encoding(
    video: VideoSource, format: str, size: tuple[int, int], options: VideoOptions
) -> tuple[Encoding, list[str]]:
    """Choose encoder, pixel format and tags, and try them.

    Returns:
        (settings, what was changed, a sentence each).

    Raises:
        UsageError: the encoder does not take an option.
        MediaError: it takes no planar format.
    """
    height, width = size
    notes = []
    depth = VideoFormat(video.planar).components[0].bits
    codec = _codec(video, format, options)
    if options.codec is None and codec in ("libx265", "libsvtav1"):
        notes.append(f"encoded by {codec}, for HDR or its {depth} bits")
    find_encoder(codec)
    wanted = video.planar if options.pix_fmt is None else planar_name(_known(options.pix_fmt))
    if format == IMAGES and options.pix_fmt is None:
        wanted = {1: "gray", 3: "gbrp"}[len(VideoFormat(video.planar).components)] + ("16le" if depth > 8 else "")
    pix_fmt, why = choose_pix_fmt(codec, wanted, height, width, PIXEL_FORMATS if format == Y4M else ())
    if why is not None:
        notes.append(why)
    if video.tags.hdr:
        notes.append("the networks were trained on images of standard range: look at the highlights of this HDR video")
    encoding = Encoding(
        codec=codec,
        pix_fmt=pix_fmt,
        height=height,
        width=width,
        time_base=video.time_base,
        rate=_rate(video, codec),
        sar=video.sar,
        tags=_output_tags(video.tags, video.planar, pix_fmt),
        options=encoder_options(codec, options.crf, options.preset, options.encoder_options, video.hdr),
        threads=min(_ENCODER_THREADS, usable_cores()),
        # Apple's players know HEVC in MP4 by this name alone.
        tag="hvc1" if format in ("mp4", "mov") and ("265" in codec or "hevc" in codec) else "",
    )
    open_encoder(encoding)
    return encoding, notes


def _codec(video: VideoSource, format: str, options: VideoOptions) -> str:
    """The encoder."""
    asked = None if options.codec is None else encoder_named(options.codec)
    if format in CODEC_OF:
        if asked not in (None, CODEC_OF[format]):
            raise UsageError(f"--codec {asked}", f"{format} is written by {CODEC_OF[format]}", "Leave it out.")
        return CODEC_OF[format]
    if asked is not None:
        return asked
    depth = VideoFormat(video.planar).components[0].bits
    if format != "webm":
        return "libx265" if depth > 10 or video.tags.hdr else "libx264"
    # SVT-AV1 is faster with more than 8 bits, and writes HDR metadata. It knows 4:2:0 only, up to 10 bits and 240 fps.
    fits = video.planar in _formats("libsvtav1") and (video.rate or 0) <= _SVT_RATE
    if depth > 8 and (fits or video.hdr is not None or video.planar not in _formats("libvpx-vp9")):
        return "libsvtav1"
    return "libvpx-vp9"


def _formats(codec: str) -> set[str]:
    """The pixel formats that an encoder takes."""
    return {each.name for each in find_encoder(codec).video_formats or ()}


def _rate(video: VideoSource, codec: str) -> Fraction:
    """Frames per second for an encoder's rate control; times are written apart from it."""
    rate = video.rate or Fraction(25)
    return min(rate, Fraction(_SVT_RATE)) if codec == "libsvtav1" else rate


def _known(pix_fmt: str) -> str:
    """A pixel format by FFmpeg's name."""
    try:
        return VideoFormat(pix_fmt).name
    except ValueError as error:
        raise UsageError(f"--pix-fmt {pix_fmt}", "no such pixel format", "Try yuv420p or yuv420p10le.") from error


def _output_tags(tags: ColourTags, planar_in: str, planar_out: str) -> ColourTags:
    """The tags of the output: the source's, but for what changes between RGB and YCbCr."""
    rgb_in, rgb_out = VideoFormat(planar_in).is_rgb, VideoFormat(planar_out).is_rgb
    if rgb_in and not rgb_out:
        return replace(tags, matrix=1, range=1)
    return replace(tags, matrix=0, range=2) if rgb_out else tags
