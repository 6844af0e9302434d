"""What a user can ask of ``repsr upscale``, and what a pipeline tells back. imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class UpscaleOptions:
    """One request, as typed. Values are checked where they are used; None means "decide from the source".

    Attributes:
        scale: enlargement factor, any number of 1 or more; None: from the network's or the target size, else 4.
        width: target width in px; height follows from the aspect ratio unless given too.
        height: target height in px.
        fit: (height, width) of a box; the target is the largest that fits, at the source's aspect ratio.
        short_side: target length in px of whichever side is the shorter.
        network: name (``fast``, ``balanced``, ``best``, ``fast-x4``) or path of a network file; None: the default.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        more_devices: further devices of the same kind, which take segments of videos from the same queue.
        precision: ``auto``, ``fp32``, ``fp16`` or ``bf16``.
        tile: ``auto``, ``auto:N`` (within N LR px, context included), ``off`` or a size in LR px.
        engine: what computes the frames of videos: ``auto``, ``torch`` or another word of
            ``repsr_cli.engine.backends.registry.ENGINES``.
        threads: CPU threads for the network; None: as many as there are cores.
        overwrite: replace an existing target.
        strip_metadata: leave out EXIF, XMP, ICC and text (images).
        tta: average over the 8 flips and rotations.
        max_pixels: refuse images that would hold more at a time; None: ``media.images.MAX_PIXELS``.
        codec: video encoder by name, e.g. ``libx264``; None: by container.
        crf: quality on libx264's scale, mapped for other encoders.
        preset: encoder preset.
        pix_fmt: output pixel format; None: as the source.
        encoder_options: further encoder options, ``-e key=value``.
        allow_loss: let streams be dropped that the output container cannot hold.
        resume: keep finished segments and go on from them.
        fps: frames a second of numbered images, which have no times of their own.
        start: seconds into the source at which to start.
        end: seconds into the source at which to stop.
        on_error: what to do about a corrupt packet: ``stop`` or ``keep`` (repeat a frame and say which).
        hwaccel: what decodes videos: ``none`` (software) or ``cuda`` (NVDEC, where the GPU can).
        deinterlace: deinterlace interlaced material with bwdif; without it, such material is refused.
        matrix: override an unspecified or wrong colour matrix tag.
        full_range: override the range tag.
        reuse: keep the output of what did not change since the frame before; the bytes are the same either way.
        benchmark: run everything but write nothing (null encoder).
        ray: address of a Ray cluster whose workers upscale images and segments of videos, ``auto``: the one at hand.
    """

    scale: float | None = None
    width: int | None = None
    height: int | None = None
    fit: tuple[int, int] | None = None
    short_side: int | None = None
    network: str | None = None
    device: str = "auto"
    more_devices: tuple[str, ...] = ()
    precision: str = "auto"
    tile: str = "auto"
    threads: int | None = None
    engine: str = "auto"
    overwrite: bool = False
    strip_metadata: bool = False
    tta: bool = False
    max_pixels: int | None = None
    codec: str | None = None
    crf: float | None = None
    preset: str | None = None
    pix_fmt: str | None = None
    encoder_options: dict[str, str] = field(default_factory=dict)
    allow_loss: bool = False
    resume: bool = True
    fps: Fraction | None = None
    start: float | None = None
    end: float | None = None
    on_error: Literal["stop", "keep"] = "stop"
    hwaccel: Literal["none", "cuda"] = "none"
    deinterlace: bool = False
    matrix: str | None = None
    full_range: bool | None = None
    reuse: bool = True
    benchmark: bool = False
    ray: str | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one job is.

    Attributes:
        done: units finished (frames of a video, pages of an image, tiles of a page).
        total: units in all; None if unknown.
        unit: ``frame``, ``page`` or ``tile``.
    """

    done: int
    total: int | None
    unit: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one job did.

    Attributes:
        source: the input.
        target: the file written.
        seconds: wall time.
        facts: machine-readable details (sizes, frames, model, device, stages), JSON-able.
        notes: sentences for the user: warnings, what was converted, what would be faster.
        said: those of them that the reporter was told before the work.
    """

    source: Path
    target: Path
    seconds: float
    facts: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    said: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reporter:
    """Where a pipeline sends what it has to say while it works; both default to silence.

    Attributes:
        progress: called often and cheaply, from any thread.
        say: one line for the user, at once (a plan, a warning).
    """

    progress: Callable[[Progress], None] = lambda _progress: None
    say: Callable[[str], None] = lambda _line: None
