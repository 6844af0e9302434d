"""``repsr upscale``: words -> options, outcomes -> lines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from repsr_cli.cli.console import Board, clock, friendly, print_json, print_line
from repsr_cli.errors import RepsrError, UsageError
from repsr_cli.upscale.jobs import PIPE, Failure, Job, Naming, plan_jobs
from repsr_cli.upscale.request import Outcome, UpscaleOptions

FILES, SIZE, NETWORK, VIDEOS, IMAGES, TALK = "Files", "Size", "Network and device", "Videos", "Images", "Output"


@friendly
def upscale(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUTS...",
            help="Images, videos, folders, quoted patterns, @list.txt, - for y4m.",
            show_default=False,
        ),
    ] = None,
    more_inputs: Annotated[
        list[str] | None, typer.Option("-i", "--input", help="One more input.", rich_help_panel=FILES)
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", help="File or folder to write; default: beside the input.", rich_help_panel=FILES
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option("-f", "--format", help="Format to write: png, jpg, mp4, mkv, ...", rich_help_panel=FILES),
    ] = None,
    suffix: Annotated[
        str | None,
        typer.Option("--suffix", help="What is added to the name; default: _x4 and the like.", rich_help_panel=FILES),
    ] = None,
    recursive: Annotated[
        bool, typer.Option("-r", "--recursive", help="Go into subfolders; -o mirrors them.", rich_help_panel=FILES)
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("-y", "--overwrite", help="Replace targets that exist.", rich_help_panel=FILES)
    ] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave out inputs whose target exists.", rich_help_panel=FILES)
    ] = False,
    allow_loss: Annotated[
        bool,
        typer.Option("--allow-loss", help="Leave out what the format cannot hold.", rich_help_panel=FILES),
    ] = False,
    scale: Annotated[
        float | None,
        typer.Option("-s", "--scale", help="Factor, 1 or more: 2, 4, 1.5; default: 4.", rich_help_panel=SIZE),
    ] = None,
    width: Annotated[int | None, typer.Option("--width", help="Target width in pixels.", rich_help_panel=SIZE)] = None,
    height: Annotated[
        int | None, typer.Option("--height", help="Target height in pixels.", rich_help_panel=SIZE)
    ] = None,
    size: Annotated[
        str | None, typer.Option("--size", metavar="WxH", help="Both, e.g. 1920x1080.", rich_help_panel=SIZE)
    ] = None,
    fit: Annotated[
        str | None, typer.Option("--fit", metavar="WxH", help="As large as fits in here.", rich_help_panel=SIZE)
    ] = None,
    short_side: Annotated[
        int | None, typer.Option("--short-side", help="Target of the shorter side.", rich_help_panel=SIZE)
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            "-n",
            "--network",
            "--model",
            metavar="NAME|PATH",
            help="fast, balanced, or a file; see repsr models.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    device: Annotated[
        str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps; several: a,b.", rich_help_panel=NETWORK)
    ] = "auto",
    gpu: Annotated[
        str | None,
        typer.Option(
            "-g",
            "--gpu",
            metavar="N[,N]",
            help="The same by number: 0 is cuda:0, -1 the CPU; 0,1 share a video.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    precision: Annotated[
        Literal["auto", "fp32", "fp16", "bf16"],
        typer.Option("--precision", help="Of the network; auto: fp32 on CPU, fp16 on GPU.", rich_help_panel=NETWORK),
    ] = "auto",
    tile: Annotated[
        str,
        typer.Option(
            "-t", "--tile", help="auto, auto:PIXELS, off or a size; never changes the result.", rich_help_panel=NETWORK
        ),
    ] = "auto",
    threads: Annotated[
        int | None, typer.Option("--threads", help="CPU threads.", min=1, rich_help_panel=NETWORK)
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option("--ray", metavar="auto|ADDRESS", help="By the workers of a Ray cluster.", rich_help_panel=NETWORK),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            help="For videos: torch, openvino, onnxruntime, ncnn, compile, tensorrt; auto measures for long ones.",
            rich_help_panel=NETWORK,
        ),
    ] = "auto",
    tta: Annotated[
        bool,
        typer.Option("-x", "--tta", help="Mean over 8 flips and turns: 8x the time.", rich_help_panel=IMAGES),
    ] = False,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            "--max-pixels", help="Refuse images that hold more; default: 537 million.", rich_help_panel=IMAGES
        ),
    ] = None,
    strip_metadata: Annotated[
        bool, typer.Option("--strip-metadata", help="Leave out EXIF, XMP, ICC, text.", rich_help_panel=IMAGES)
    ] = False,
    codec: Annotated[
        str | None, typer.Option("-c", "--codec", help="Encoder, e.g. libx265.", rich_help_panel=VIDEOS)
    ] = None,
    crf: Annotated[
        float | None,
        typer.Option("--crf", help="Quality on libx264's scale, less is better.", rich_help_panel=VIDEOS),
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", help="Of the encoder, e.g. slow.", rich_help_panel=VIDEOS)
    ] = None,
    pix_fmt: Annotated[
        str | None, typer.Option("--pix-fmt", help="Pixel format; default: the source's.", rich_help_panel=VIDEOS)
    ] = None,
    encoder_options: Annotated[
        list[str] | None,
        typer.Option("-e", metavar="KEY=VALUE", help="One more encoder option.", rich_help_panel=VIDEOS),
    ] = None,
    fps: Annotated[
        str | None, typer.Option("--fps", help="Of frames/%06d.png as input: 24, 30000/1001.", rich_help_panel=VIDEOS)
    ] = None,
    start: Annotated[
        str | None, typer.Option("--start", help="Where to start: 90 or 1:30.", rich_help_panel=VIDEOS)
    ] = None,
    end: Annotated[str | None, typer.Option("--end", help="Where to stop.", rich_help_panel=VIDEOS)] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on where a stopped run ended.", rich_help_panel=VIDEOS)
    ] = True,
    on_error: Annotated[
        Literal["stop", "keep"],
        typer.Option("--on-error", help="At a corrupt frame: stop, or repeat the last.", rich_help_panel=VIDEOS),
    ] = "stop",
    hwaccel: Annotated[
        Literal["none", "cuda"],
        typer.Option("--hwaccel", help="What decodes: none is software, cuda is NVDEC.", rich_help_panel=VIDEOS),
    ] = "none",
    deinterlace: Annotated[
        bool, typer.Option("--deinterlace", help="Deinterlace first (bwdif).", rich_help_panel=VIDEOS)
    ] = False,
    matrix: Annotated[
        str | None,
        typer.Option("--matrix", help="Colour matrix, if the tag is wrong: bt709, bt601, ...", rich_help_panel=VIDEOS),
    ] = None,
    full_range: Annotated[
        bool | None,
        typer.Option("--full-range/--limited-range", help="Range, if the tag is wrong.", rich_help_panel=VIDEOS),
    ] = None,
    reuse: Annotated[
        bool,
        typer.Option("--reuse/--no-reuse", help="Keep what stands still from the last frame.", rich_help_panel=VIDEOS),
    ] = True,
    benchmark: Annotated[
        bool, typer.Option("--benchmark", help="Do all but write: null encoder.", rich_help_panel=VIDEOS)
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and stop.", rich_help_panel=TALK)
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON record per input on stdout.", rich_help_panel=TALK)
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Errors only.", rich_help_panel=TALK)] = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Also what each job measured.", rich_help_panel=TALK)
    ] = False,
) -> None:
    """Upscale images and videos.

    Writes clip_x4.mp4 beside clip.mp4, with every frame's time, all sound and all subtitles. Nothing is overwritten
    without -y, and an unfinished file never gets the final name. The paths written go to stdout, all talk to stderr.

    Example: repsr upscale clip.mp4 photo.png -s 4 -o upscaled/
    """
    from repsr_cli.upscale.batch import describe_job, run_jobs, settle_scale

    width, height = parse_size(size, width, height)
    first_device, *more_devices = device_names(device, gpu)
    options = settle_scale(
        UpscaleOptions(
            scale=scale,
            width=width,
            height=height,
            fit=None if fit is None else parse_box("--fit", fit),
            short_side=short_side,
            network=network,
            device=first_device,
            more_devices=tuple(more_devices),
            precision=precision,
            tile=tile,
            threads=threads,
            engine=engine,
            overwrite=overwrite,
            strip_metadata=strip_metadata,
            tta=tta,
            max_pixels=max_pixels,
            codec=codec,
            crf=crf,
            preset=preset,
            pix_fmt=pix_fmt,
            encoder_options=parse_pairs(encoder_options or []),
            allow_loss=allow_loss,
            resume=resume,
            fps=parse_rate(fps),
            start=parse_seconds("--start", start),
            end=parse_seconds("--end", end),
            on_error=on_error,
            hwaccel=hwaccel,
            deinterlace=deinterlace,
            matrix=matrix,
            full_range=full_range,
            reuse=reuse,
            benchmark=benchmark,
            ray=ray,
        )
    )
    naming = Naming(output, suffix, format, recursive, skip_existing)
    plan = plan_jobs([*(inputs or []), *(more_inputs or [])], options, naming)
    several = len(plan.jobs) + len(plan.failures) > 1
    teller = Teller(json=json, quiet=quiet, verbose=verbose, benchmark=benchmark, several=several)
    with teller.board as board:
        for target in plan.skipped:
            teller.skipped(target)
        for failure in plan.failures:
            teller.failed(failure)
        if dry_run:
            for job in plan.jobs:
                try:
                    teller.planned(job, describe_job(job, options))
                except RepsrError as error:
                    teller.failed(Failure(str(job.source), error))
        else:
            for result in run_jobs(plan.jobs, options, lambda job: board.reporter(job.source.name)):
                teller.failed(result) if isinstance(result, Failure) else teller.done(result)
    teller.end()


class Teller:
    """Tells what became of each input: machines on stdout, people on stderr.

    Args:
        json: records on stdout, not paths.
        quiet: nothing but errors on stderr.
        verbose: also what each job measured.
        benchmark: nothing is written, so that what was measured is the result.
        several: there is more than one input, so that a summary is due.
    """

    def __init__(self, *, json: bool, quiet: bool, verbose: bool, benchmark: bool, several: bool) -> None:
        self.board = Board(quiet)
        self.json, self.verbose, self.benchmark, self.several = json, verbose, benchmark, several
        self.failures: list[Failure] = []
        self.finished = 0

    def done(self, outcome: Outcome) -> None:
        """One input was upscaled."""
        self.finished += 1
        for note in outcome.notes:
            if note not in outcome.said:
                self.board.say(f"{outcome.source.name}: {note}")
        if self.verbose or self.benchmark:
            for name, fact in outcome.facts.items():
                self.board.say(f"{outcome.source.name}: {name}: {fact}")
        self.board.say(f"{outcome.source.name}: done in {clock(outcome.seconds)}")
        record = {"status": "done", "source": outcome.source, "target": outcome.target, "seconds": outcome.seconds}
        record |= {"facts": outcome.facts, "notes": outcome.notes}
        if not self.benchmark:
            self._tell(outcome.target, record)
        elif self.json:
            print_json(record | {"status": "measured", "target": None})

    def failed(self, failure: Failure) -> None:
        """One input was not upscaled."""
        self.failures.append(failure)
        self.board.fail(failure.error)
        if self.json:
            error = failure.error
            print_json(
                {"status": "failed", "source": failure.source, "error": str(error), "exit_code": error.exit_code}
            )

    def skipped(self, target: Path) -> None:
        """The target was there already."""
        self.board.say(f"{target}: exists, skipped")
        if self.json:
            print_json({"status": "skipped", "target": target})

    def planned(self, job: Job, lines: Sequence[str]) -> None:
        """What would be done."""
        self.finished += 1
        for line in lines:
            self.board.say(f"{job.source.name}: {line}")
        record = {"status": "planned", "source": job.source, "target": job.target, "kind": job.kind, "plan": lines}
        self._tell(job.target, record)

    def end(self) -> None:
        """Sum up, and exit with the code of the first failure if there was one."""
        if not self.failures:
            return
        if self.several:
            total = len(self.failures) + self.finished
            self.board.say(f"{len(self.failures)} of {total} failed:")
            for failure in self.failures:
                self.board.say(f"  {failure.source}")
        raise typer.Exit(self.failures[0].error.exit_code)

    def _tell(self, target: Path, record: dict[str, Any]) -> None:
        if target != PIPE:  # then stdout carries the frames
            print_json(record) if self.json else print_line(str(target))


def parse_size(size: str | None, width: int | None, height: int | None) -> tuple[int | None, int | None]:
    """Width and height from ``--size 1920x1080``, ``--width`` and ``--height``.

    Raises:
        UsageError: ``--size`` is not two numbers, or stands beside one of the others.
    """
    if size is None:
        return width, height
    if width is not None or height is not None:
        raise UsageError(f"--size {size}", "stands beside --width or --height", "Give one of the two.")
    height, width = parse_box("--size", size)
    return width, height


def parse_box(name: str, text: str) -> tuple[int, int]:
    """(height, width) from ``1920x1080``, which names the width first, as people do.

    Raises:
        UsageError: it is not two numbers.
    """
    match = re.fullmatch(r"([0-9]+)[xX×]([0-9]+)", text)
    if match is None:
        raise UsageError(f"{name} {text}", "not a width and a height", f"Try {name} 1920x1080.")
    return int(match[2]), int(match[1])


def parse_seconds(name: str, text: str | None) -> float | None:
    """Seconds from ``90``, ``90.5``, ``1:30`` or ``1:02:03.5``.

    Raises:
        UsageError: it is none of these.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(?:(?:([0-9]+):)?([0-9]+):)?([0-9]+(?:\.[0-9]*)?)", text)
    if match is None:
        raise UsageError(f"{name} {text}", "not a time", f"Try {name} 90 or {name} 1:30.")
    hours, minutes, seconds = match.groups()
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds)


def parse_rate(text: str | None) -> Fraction | None:
    """Frames a second from ``24``, ``23.976`` or ``24000/1001``.

    Raises:
        UsageError: it is none of these.
    """
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]+(\.[0-9]+|/[1-9][0-9]*)?", text) or not Fraction(text):
        raise UsageError(f"--fps {text}", "not a rate", "Try --fps 24 or --fps 24000/1001.")
    return Fraction(text)


def parse_pairs(texts: list[str]) -> dict[str, str]:
    """Encoder options from ``key=value`` texts.

    Raises:
        UsageError: a text has no ``=`` or no key.
    """
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise UsageError(f"-e {text}", "not of the form key=value", "Try -e tune=video.")
        pairs[key] = value
    return pairs


def device_names(device: str, gpu: str | None) -> list[str]:
    """The devices meant by ``--device`` and ``-g``, each a list with commas; at least one.

    Raises:
        UsageError: both were given, or a number is none.
    """
    if gpu is None:
        return device.split(",")
    if device != "auto":
        raise UsageError(f"-g {gpu}", "stands beside --device", "Give one of the two.")
    if not re.fullmatch(r"(-1|[0-9]+)(,(-1|[0-9]+))*", gpu):
        raise UsageError(f"-g {gpu}", "not the number of a device", "Try -g 0, -g 0,1 or -g -1 for the CPU.")
    return ["cpu" if number == "-1" else f"cuda:{number}" for number in gpu.split(",")]
