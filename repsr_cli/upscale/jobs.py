"""Name the targets of the files to upscale, and check everything before anything is loaded or written.

The libraries for images and videos are imported when the first file of a kind is found, so that videos work where
OpenCV cannot be imported and images where PyAV is missing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from repsr_cli.errors import MediaError, RepsrError, UsageError
from repsr_cli.files import check_names, innermost, is_file, is_folder
from repsr_cli.upscale.inputs import PIPE, Failure, Found, Inputs, find_inputs, real_path
from repsr_cli.upscale.request import Kind, Naming, Request, SizeOptions, device_names
from repsr_cli.video.image_sequence import is_pattern

if TYPE_CHECKING:  # torch
    from repsr_cli.upscale.finished import Finished

# Formats that a target keeps from its source, by extension. Any other becomes what loses nothing: PNG, Matroska.
KEPT_IMAGES = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".avif", ".gif"}
    | {".ppm", ".pgm", ".pnm", ".pam", ".pfm"}
)
VIDEOS = frozenset({".mkv", ".mp4", ".m4v", ".mov", ".webm"})


@dataclass(frozen=True, slots=True)
class Job:
    """One input to upscale.

    Attributes:
        kind: ``image`` or ``video``, by content.
        target: the file to write; it does not exist, or the user allowed replacing it.
        anew: where another job of the same target was begun, begin anew instead of refusing to.
    """

    kind: Kind
    source: Path
    target: Path
    anew: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done.

    Attributes:
        jobs: in the order of the inputs, folders in natural order (2 before 10); all targets differ.
        failures: inputs that cannot be done.
        skipped: targets that exist and were asked to be skipped.
        finished: targets that exist because this very job has made them.
        notes: sentences that name what folders hold and is not upscaled.
    """

    jobs: tuple[Job, ...]
    failures: tuple[Failure, ...]
    skipped: tuple[Path, ...]
    finished: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


def plan_jobs(inputs: Sequence[str], request: Request, naming: Naming, known: Finished | None = None) -> Plan:
    """Find the files, tell images from videos by content, name the targets, and check all that can be checked.

    Args:
        inputs: files, folders, glob patterns, and ``@list.txt`` with one path per line, as typed.
        known: jobs that were finished before; None: what exists is not looked up.

    Raises:
        UsageError: the request as a whole makes no sense: no inputs, a wrong scale, one file as target of several.
        MediaError: there is nothing to upscale in the inputs.
    """
    if not inputs:
        raise UsageError("repsr upscale", "nothing to upscale", "Name images, videos or folders; -h lists the options.")
    check_options(request)
    check_naming(request, naming)
    plan = plan_found(find_inputs(inputs, naming), request, naming, known)
    jobs = plan.jobs
    if naming.format is not None and jobs and not any(_dotted(naming.format) == job.target.suffix for job in jobs):
        raise UsageError(f"--format {naming.format}", "suits none of the inputs", "Leave it out, or choose another.")
    if not (jobs or plan.failures or plan.skipped or plan.finished):
        remedy = "Name images, videos or folders." if naming.recursive else "Add -r to look into subfolders."
        raise MediaError(", ".join(inputs), "no images or videos there", remedy)
    return plan


def plan_found(
    inside: Inputs,
    request: Request,
    naming: Naming,
    known: Finished | None = None,
    taken: dict[Path, Path] | None = None,
) -> Plan:
    """Name the targets of files that were found, and check all that can be checked.

    Args:
        known: as for ``plan_jobs``.
        taken: the source of each target, where files are found in several steps; it is added to.

    Raises:
        UsageError: one file is the target of several.
    """
    found = _without_results(inside, request, naming)
    failures = list(inside.failures)
    into = _is_folder(naming.output, several=len(found) > 1 or any(one.folder for one in found))
    named = {real_path(one.path) for one in found if one.folder is None and one.path != PIPE}
    jobs: list[Job] = []
    skipped: list[Path] = []
    finished: list[Path] = []
    taken = {} if taken is None else taken
    for one in found:
        try:
            job = _job_for(one, into, request, naming)
            if naming.skip_existing and job.target.exists() and not (job.kind == "video" and _is_complete(job.target)):
                _check_others(job, named, taken)
                skipped.append(job.target)
                continue
            if known is not None and _is_finished(job, request, known):
                finished.append(job.target)
                continue
            overwrite = request.run.overwrite or request.run.benchmark
            _check_target(job.source, job.target, job.kind, overwrite=overwrite)
            if job.target != PIPE and not request.run.benchmark:
                _check_names(job)
            _check_others(job, named, taken)
        except RepsrError as error:
            failures.append(Failure(str(one.path), error))
            continue
        except OSError as error:  # e.g. a name that is too long for the file system with its suffix
            reason = MediaError(
                error.filename or one.path, f"cannot be used ({error.strerror})", "Choose another name."
            )
            failures.append(Failure(str(one.path), reason))
            continue
        jobs.append(job)
    return Plan(tuple(jobs), tuple(failures), tuple(skipped), tuple(finished), inside.notes())


def _job_for(one: Found, into: bool, request: Request, naming: Naming) -> Job:
    """The job for a file; an animation whose target is a video becomes one.

    Raises:
        UsageError: its target has no name.
    """
    target = _target(one, into, request, naming)
    animated = one.kind == "image" and _is_video_name(target) and is_animated_image(one.path)
    return Job("video" if animated else one.kind, one.path, target)


def is_animated_image(path: Path) -> bool:
    """Whether a file is an image of frames that follow each other in time."""
    from repsr_cli.image.formats import is_image

    if not is_image(path):
        return False
    from repsr_cli.upscale.animation import is_animation

    return is_animation(path)


def _is_video_name(target: Path) -> bool:
    """Whether a target's name is one of videos, raw frames or numbered images."""
    return target == PIPE or target.suffix.lower() in VIDEOS | {".y4m"} or is_pattern(target)


def _is_finished(job: Job, request: Request, known: Finished) -> bool:
    """Whether a job need not be done again."""
    if request.run.overwrite or request.run.benchmark or not is_file(job.target):
        return False
    if job.kind == "video" and _is_complete(job.target):  # its folder is still to be removed
        return False
    return known.holds(job.source, job.target, request)


def _check_others(job: Job, named: set[Path], taken: dict[Path, Path]) -> None:
    """Refuse a target that is an input, or the target of another job (``taken``, to which it is added)."""
    target = real_path(job.target)
    if target in named:
        raise UsageError(job.target, "is an input and would be overwritten", "Choose another name with -o.")
    if taken.get(target, job.source) != job.source:
        happened = f"would be written by {taken[target]} as well"
        raise UsageError(job.target, happened, "Upscale the two one by one, or give -f or -o.")
    taken[target] = job.source


def check_options(request: Request) -> None:
    """Refuse sizes and devices that make no sense.

    Raises:
        UsageError: a scale below 1 or not a number, a size below 1 px, a size asked for in two ways, a wrong device.
    """
    request.size.check()
    if request.image.max_pixels is not None and request.image.max_pixels < 1:
        raise UsageError(f"--max-pixels {request.image.max_pixels}", "not a number of pixels", "Leave it out.")
    device_names(request.model.device, request.model.gpu)


def check_naming(request: Request, naming: Naming) -> None:
    """Refuse names that make no sense.

    Raises:
        UsageError: an unknown format, a suffix that leads elsewhere, ``-y`` beside ``--skip-existing``.
    """
    if request.run.overwrite and naming.skip_existing:
        raise UsageError("--skip-existing", "asks for the opposite of -y", "Give one of the two.")
    if naming.suffix is not None and any(mark in naming.suffix for mark in "/\\\0"):
        raise UsageError(f"--suffix {naming.suffix}", "holds a path separator", "Use -o for another folder.")
    known = image_suffixes() | VIDEOS
    if naming.format is not None and _dotted(naming.format) not in known:
        names = ", ".join(sorted(suffix[1:] for suffix in known))
        raise UsageError(f"--format {naming.format}", "not a format that can be written", f"Choose from: {names}.")


def image_suffixes() -> frozenset[str]:
    """Extensions of all formats that images can be written in."""
    from repsr_cli.image.formats import FORMATS

    return frozenset(suffix for known in FORMATS for suffix in known.suffixes)


def _without_results(inside: Inputs, request: Request, naming: Naming) -> list[Found]:
    """The files without results of such a request that lie in folders: ``a_x4.png`` where there is ``a.png``.

    Otherwise running a folder twice would upscale what was upscaled.
    """
    suffix = default_suffix(request.size) if naming.suffix is None else naming.suffix
    stems = {(one.path.parent, one.path.stem) for one in inside.files}
    output = None if naming.output is None else real_path(Path(naming.output))

    def is_result(one: Found) -> bool:
        if one.folder is None or output not in (None, real_path(one.folder)):
            return False
        stem = one.path.stem
        return bool(suffix) and stem.endswith(suffix) and (one.path.parent, stem.removesuffix(suffix)) in stems

    kept = []
    for one in inside.files:
        if is_result(one):
            inside.leave_out("results of an earlier run", one.path)
        else:
            kept.append(one)
    return kept


def _is_folder(output: str | None, several: bool) -> bool:
    """Whether ``-o`` names a folder: it is one already, ends in a slash, has no extension, or holds several targets."""
    if output is None:
        return False
    if several and (Path(output) == PIPE or is_file(output)):
        raise UsageError(output, "is one place, but there are several inputs", "Give a folder with -o.")
    if Path(output) == PIPE:
        return False
    return several or output.endswith(("/", os.sep)) or is_folder(output) or not Path(output).suffix


def default_suffix(size: SizeOptions) -> str:
    """What a target's name gets: ``_x4``, ``_1920w``, ``_1080h``, ``_1080s``, ``_1920x1080`` or ``_fit1920x1080``."""
    if size.fit:
        return f"_fit{size.fit[1]}x{size.fit[0]}"
    if size.short_side:
        return f"_{size.short_side}s"
    height, width = size.size or (size.height, size.width)
    if width and height:
        return f"_{width}x{height}"
    if width:
        return f"_{width}w"
    if height:
        return f"_{height}h"
    return f"_x{size.scale:g}"


def _dotted(format: str) -> str:
    return "." + format.lower().removeprefix(".")


def _target(one: Found, into: bool, request: Request, naming: Naming) -> Path:
    if naming.output is not None and not into:
        return Path(naming.output)
    if one.path == PIPE:
        raise UsageError(PIPE, "frames from a pipe have no name", "Give a file with -o, or -o - for a pipe.")
    if is_pattern(one.path):
        raise UsageError(one.path, "images have many names", "Give the video one with -o.")
    suffix = default_suffix(request.size) if naming.suffix is None else naming.suffix
    name = f"{one.path.stem}{suffix}{_extension(one.path, one.kind, naming.format)}"
    if naming.output is None:
        return one.path.with_name(name)
    return Path(naming.output) / (one.path.parent.relative_to(one.folder) if one.folder else "") / name


def _extension(path: Path, kind: Kind, format: str | None) -> str:
    if format is not None and _dotted(format) in (image_suffixes() if kind == "image" else VIDEOS):
        return _dotted(format)
    if format is not None and kind == "image" and _dotted(format) in VIDEOS and is_animated_image(path):
        return _dotted(format)
    if kind == "image":
        from repsr_cli.image.files import roomier_suffix

        if roomier := roomier_suffix(path):
            return roomier
    kept, lossless = (KEPT_IMAGES, ".png") if kind == "image" else (VIDEOS, ".mkv")
    return path.suffix if path.suffix.lower() in kept else lossless


def _is_complete(target: Path) -> bool:
    """Whether the video exists because a job finished it and was stopped while it tidied up."""
    from repsr_cli.video.segments import is_complete

    return is_complete(target)


def _check_target(source: Path, target: Path, kind: Kind, *, overwrite: bool) -> None:
    """Refuse a target that would destroy something or that cannot be written."""
    same = real_path(target) == real_path(source) or (target.exists() and source.exists() and target.samefile(source))
    if same and source != PIPE:
        raise UsageError(target, "is the input itself", "Choose another name with -o or --suffix.")
    if target.is_dir():
        raise UsageError(target, "is a folder", "Choose another name with -o or --suffix.")
    if os.path.lexists(target) and not (overwrite or (kind == "video" and _is_complete(target))):
        raise UsageError(target, "exists", "Add -y to replace it, or --skip-existing to leave it.")
    if kind == "image":
        from repsr_cli.image.formats import format_for

        format_for(target)
    else:
        from repsr_cli.video.plan_streams import format_of

        format_of(target)
    if target == PIPE:
        return
    folder = innermost(target.absolute().parent)
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise MediaError(target, f"{folder} cannot be written to", "Choose another folder with -o.")


def _check_names(job: Job) -> None:
    """Refuse a target whose name, or that of the folder for its segments, is too long for the file system."""
    check_names(job.target)
    if job.kind == "video":
        from repsr_cli.video.segments import job_folder

        check_names(job_folder(job.target))
