"""Define what ``repsr upscale`` can be asked for. Imports nothing heavy.

Every option is declared once, on the field that holds it. ``Request`` is what was asked for; planning turns it and an
input into a plan, and nothing after planning reads it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from typing import Any, Literal

from repsr_cli.errors import UsageError
from repsr_cli.options import (
    declared_options,
    default_of,
    option,
    parse_box,
    parse_pairs,
    parse_rate,
    parse_scale,
    parse_seconds,
)

Kind = Literal["image", "video"]

FILES, SIZE, MODEL, IMAGES, VIDEOS = "Files", "Size", "Model and device", "Images", "Videos"


@dataclass(frozen=True, slots=True)
class Naming:
    """Where targets go and what they are called."""

    output: str | None = option(
        "-o", "--output", help="File or folder to write; default: beside the input.", panel=FILES
    )
    format: str | None = option("-f", "--format", help="Format to write: png, jpg, mp4, mkv, ...", panel=FILES)
    suffix: str | None = option("--suffix", help="What is added to the name; default: _x4 and the like.", panel=FILES)
    recursive: bool = option(
        "-r", "--recursive", default=False, help="Go into subfolders; -o mirrors them.", panel=FILES
    )
    skip_existing: bool = option(
        "--skip-existing", default=False, help="Leave out inputs whose target exists.", panel=FILES
    )


@dataclass(frozen=True, slots=True)
class SizeOptions:
    """The size of the result, asked for in one way at most; ``size`` and ``fit`` are (height, width)."""

    scale: float | None = option(
        "-s",
        "--scale",
        metavar="FACTOR",
        parse=parse_scale,
        help="Factor, 1 or more: 2, 4, 1.5; default: 4.",
        panel=SIZE,
    )
    width: int | None = option("--width", help="Target width in pixels.", panel=SIZE)
    height: int | None = option("--height", help="Target height in pixels.", panel=SIZE)
    size: tuple[int, int] | None = option(
        "--size", metavar="WxH", parse=parse_box, help="Both, e.g. 1920x1080.", panel=SIZE
    )
    fit: tuple[int, int] | None = option(
        "--fit", metavar="WxH", parse=parse_box, help="As large as fits in here.", panel=SIZE
    )
    short_side: int | None = option("--short-side", help="Target of the shorter side.", panel=SIZE)

    @property
    def asked(self) -> bool:
        """Whether any size was asked for."""
        return any(getattr(self, each.name) is not None for each in fields(self))

    @property
    def sized(self) -> bool:
        """Whether a size in pixels was asked for, so that the factor follows from the source."""
        return self.asked and self.scale is None

    def check(self) -> None:
        """Refuse sizes that make no sense.

        Raises:
            UsageError: a scale below 1 or not a number, a size below 1 px, or a size asked for in two ways.
        """
        if self.scale is not None and not (math.isfinite(self.scale) and self.scale >= 1):
            raise UsageError(f"--scale {self.scale:g}", "not a factor of 1 or more", "Try -s 2, -s 4 or -s 1.5.")
        sides = {"--width": self.width, "--height": self.height, "--short-side": self.short_side}
        for name, side in sides.items():
            if side is not None and side < 1:
                raise UsageError(f"{name} {side}", "not a size in pixels", f"Try {name} 1920.")
        for name, box in {"--size": self.size, "--fit": self.fit}.items():
            if box is not None and min(box) < 1:
                raise UsageError(f"{name} {box[1]}x{box[0]}", "not a size in pixels", f"Try {name} 1920x1080.")
        given = {"--scale": self.scale, "--size": self.size, "--fit": self.fit} | sides
        asked = [name for name, value in given.items() if value is not None]
        if self.size is not None and {"--width", "--height"} & set(asked):
            shown = f"--size {self.size[1]}x{self.size[0]}"
            raise UsageError(shown, "stands beside --width or --height", "Give one of the two.")
        if len(asked) > 1 and asked != ["--width", "--height"]:
            raise UsageError(" and ".join(asked), "ask for a size in two ways", "Give one of them.")

    def sides(self) -> SizeOptions:
        """The same with ``size`` as a height and a width, as ``repsr_cli.sizes`` takes it."""
        if self.size is None:
            return self
        return replace(self, size=None, height=self.size[0], width=self.size[1])


def device_names(device: str, gpu: str | None) -> tuple[str, ...]:
    """The devices meant by ``--device`` and ``-g``, each a list with commas; at least one.

    Raises:
        UsageError: both were given, or a number is malformed.
    """
    if gpu is None:
        return tuple(device.split(","))
    if device != "auto":
        raise UsageError(f"-g {gpu}", "stands beside --device", "Give one of the two.")
    if not re.fullmatch(r"(-1|[0-9]+)(,(-1|[0-9]+))*", gpu):
        raise UsageError(f"-g {gpu}", "not the number of a device", "Try -g 0, -g 0,1 or -g -1 for the CPU.")
    return tuple("cpu" if number == "-1" else f"cuda:{number}" for number in gpu.split(","))


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """What computes."""

    model: str | None = option(
        "-n",
        "--model",
        aliases=("--network",),
        metavar="NAME|PATH",
        help="fast, balanced, or a file; see repsr models.",
        panel=MODEL,
    )
    device: str = option("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps; several: a,b.", panel=MODEL)
    gpu: str | None = option(
        "-g",
        "--gpu",
        metavar="N[,N]",
        help="The same by number: 0 is cuda:0, -1 the CPU; 0,1 share a video.",
        panel=MODEL,
    )
    precision: Literal["auto", "fp32", "fp16", "bf16"] = option(
        "--precision",
        default="auto",
        help="Number format; auto: fp16 on GPU, bf16 on CPUs that have it, else fp32.",
        panel=MODEL,
    )
    tile: str = option(
        "-t",
        "--tile",
        default="auto",
        help="auto, auto:PIXELS, off or a size; never changes the result.",
        panel=MODEL,
    )
    threads: int | None = option("--threads", minimum=1, help="CPU threads.", panel=MODEL)
    ray: str | None = option("--ray", metavar="auto|ADDRESS", help="Use the workers of a Ray cluster.", panel=MODEL)
    kind: Literal["auto", "clean", "real"] = option(
        "--kind", default="auto", help="clean, real (for compressed sources), or auto: by each file.", panel=MODEL
    )
    detail: float | None = option(
        "--detail", metavar="0..1", help="From faithful (0) to crisp (1), of real models.", panel=MODEL
    )
    engine: str = option(
        "--engine",
        default="auto",
        help="For videos: torch, openvino, onnxruntime, ncnn, compile, tensorrt; auto measures for long ones.",
        panel=MODEL,
    )

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices that ``device`` or ``gpu`` name.

        Raises:
            UsageError: both were given, or a number is malformed.
        """
        return device_names(self.device, self.gpu)


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """How images are upscaled."""

    tta: bool = option("-x", "--tta", default=False, help="Mean over 8 flips and rotations: 8x the time.", panel=IMAGES)
    max_pixels: int | None = option(
        "--max-pixels", help="Refuse images that hold more; default: 537 million.", panel=IMAGES
    )
    strip_metadata: bool = option(
        "--strip-metadata", default=False, help="Leave out EXIF, XMP, ICC, text.", panel=IMAGES
    )


@dataclass(frozen=True, slots=True)
class VideoOptions:
    """How videos are read and encoded."""

    codec: str | None = option(
        "-c", "--codec", help="h264, h265, av1, vp9, prores, or an encoder: libx265.", panel=VIDEOS
    )
    crf: float | None = option("--crf", help="Quality on libx264's scale, less is better.", panel=VIDEOS)
    preset: str | None = option("--preset", help="Encoder preset, e.g. slow.", panel=VIDEOS)
    pix_fmt: str | None = option("--pix-fmt", help="Pixel format; default: the source's.", panel=VIDEOS)
    encoder_options: dict[str, str] = option(
        "-e",
        factory=dict,
        metavar="KEY=VALUE",
        parse=parse_pairs,
        repeated=True,
        help="One more encoder option.",
        panel=VIDEOS,
    )
    fps: Fraction | None = option(
        "--fps",
        parse=parse_rate,
        help="Rate of frames/%06d.png, .h264, .mjpeg... as input: 24, 30000/1001.",
        panel=VIDEOS,
    )
    start: float | None = option("--start", parse=parse_seconds, help="Where to start: 90 or 1:30.", panel=VIDEOS)
    end: float | None = option("--end", parse=parse_seconds, help="Where to stop.", panel=VIDEOS)
    resume: bool = option(
        "--resume/--no-resume", default=True, help="Continue where a stopped run ended.", panel=VIDEOS
    )
    on_error: Literal["stop", "keep"] = option(
        "--on-error", default="stop", help="At a corrupt frame: stop, or repeat the last.", panel=VIDEOS
    )
    hwaccel: Literal["none", "cuda"] = option(
        "--hwaccel", default="none", help="Decoder: none is software, cuda is NVDEC.", panel=VIDEOS
    )
    deinterlace: bool = option("--deinterlace", default=False, help="Deinterlace first (bwdif).", panel=VIDEOS)
    matrix: str | None = option("--matrix", help="Colour matrix, if the tag is wrong: bt709, bt601, ...", panel=VIDEOS)
    full_range: bool | None = option("--full-range/--limited-range", help="Range, if the tag is wrong.", panel=VIDEOS)
    reuse: bool = option(
        "--reuse/--no-reuse", default=True, help="Keep what stands still from the last frame.", panel=VIDEOS
    )


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a run may do."""

    overwrite: bool = option("-y", "--overwrite", default=False, help="Replace existing files.", panel=FILES)
    allow_loss: bool = option("--allow-loss", default=False, help="Leave out what the format cannot hold.", panel=FILES)
    benchmark: bool = option("--benchmark", default=False, help="Do everything but write the result.", panel=VIDEOS)


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for. Values are checked where they are used; None means "decide from the source"."""

    size: SizeOptions = field(default_factory=SizeOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    image: ImageOptions = field(default_factory=ImageOptions)
    video: VideoOptions = field(default_factory=VideoOptions)
    run: RunOptions = field(default_factory=RunOptions)

    @classmethod
    def of(cls, **options: Any) -> Request:
        """A request from options by name, whatever their group: ``Request.of(scale=2, codec="ffv1")``."""
        return cls().having(**options)

    def having(self, **options: Any) -> Request:
        """The same request but for these options, by name."""
        changed: dict[str, dict[str, Any]] = {}
        for name, value in options.items():
            if name not in _GROUP_OF:
                raise TypeError(f"no option {name!r}; there are {', '.join(_GROUP_OF)}")
            changed.setdefault(_GROUP_OF[name], {})[name] = value
        return replace(self, **{group: replace(getattr(self, group), **values) for group, values in changed.items()})


GROUPS: dict[str, type[Any]] = {
    "size": SizeOptions,
    "model": ModelOptions,
    "image": ImageOptions,
    "video": VideoOptions,
    "run": RunOptions,
}
_GROUP_OF = {each.name: name for name, group in GROUPS.items() for each, _ in declared_options(group)}


def ignored_options(kind: Kind, request: Request) -> tuple[str, ...]:
    """The options that were asked for and do nothing to an image, or to a video.

    Args:
        kind: ``image`` or ``video``.

    Returns:
        Flags, e.g. ``--crf``.
    """
    group = request.video if kind == "image" else request.image
    flags = []
    for each, declared in declared_options(type(group)):
        value = getattr(group, each.name)
        if value != default_of(each):
            on, _, off = declared.name.partition("/")
            flags.append(off if off and value is False else on)
    if kind == "image" and request.model.engine not in ("auto", "torch"):
        flags.append("--engine")
    return tuple(flags)
