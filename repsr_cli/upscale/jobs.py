"""Find the files to upscale, name their targets, and check everything before anything is loaded or written.

The libraries for images and videos are imported when the first file of a kind is found, so that videos work where
OpenCV cannot be imported and images where PyAV is missing.
"""

from __future__ import annotations

import glob
import mimetypes
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from repsr_cli.errors import MediaError, RepsrError, UsageError
from repsr_cli.upscale.options import device_names
from repsr_cli.upscale.request import Kind, Naming, Request, SizeOptions
from repsr_cli.video.image_sequence import is_pattern, numbered

# Formats that a target keeps from its source, by extension. Any other becomes what loses nothing: PNG, Matroska.
KEPT_IMAGES = frozenset({".png", ".apng", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".avif", ".gif", ".ppm"})
VIDEOS = frozenset({".mkv", ".mp4", ".m4v", ".mov", ".webm"})

# As input, raw frames (y4m) from standard input; as ``-o``, the same to standard output.
PIPE = Path("-")


@dataclass(frozen=True, slots=True)
class Job:
    """One input to upscale.

    Attributes:
        kind: ``image`` or ``video``, by content.
        source: the input.
        target: the file to write; it does not exist, or the user allowed replacing it.
    """

    kind: Kind
    source: Path
    target: Path


@dataclass(frozen=True, slots=True)
class Failure:
    """An input that was not upscaled, and why."""

    source: str
    error: RepsrError


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done.

    Attributes:
        jobs: in the order of the inputs, folders in natural order (2 before 10); all targets differ.
        failures: inputs that cannot be done.
        skipped: targets that exist and were asked to be skipped.
    """

    jobs: tuple[Job, ...]
    failures: tuple[Failure, ...]
    skipped: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    """A file to upscale: ``folder`` is the input folder it was found in, None if it was named itself."""

    path: Path
    folder: Path | None


def plan_jobs(inputs: Sequence[str], request: Request, naming: Naming) -> Plan:
    """Find the files, tell images from videos by content, name the targets, and check all that can be checked.

    Args:
        inputs: files, folders, glob patterns, and ``@list.txt`` with one path per line, as typed.
        request: the request.
        naming: where targets go.

    Raises:
        UsageError: the request as a whole makes no sense: no inputs, a wrong scale, one file as target of several.
        MediaError: there is nothing to upscale in the inputs.
    """
    check_options(request)
    check_naming(request, naming)
    found: list[_Found] = []
    failures: list[Failure] = []
    for text in inputs:
        try:
            found += find_files(text, naming)
        except RepsrError as error:
            failures.append(Failure(text, error))
        except OSError as error:
            failures.append(Failure(text, MediaError(text, f"cannot be looked at ({error.strerror})")))
    found = _without_results(_without_repeats(found), request, naming)
    into = _is_folder(naming.output, several=len(found) > 1 or any(one.folder for one in found))
    named = {one.path.resolve() for one in found if one.folder is None and one.path != PIPE}
    jobs: list[Job] = []
    skipped: list[Path] = []
    taken: dict[Path, Path] = {}
    for one in found:
        try:
            job = _job_for(one, into, request, naming)
            if job is None:
                continue
            if job.target.exists() and naming.skip_existing:
                skipped.append(job.target)
                continue
            overwrite = request.run.overwrite or request.run.benchmark
            _check_target(job.source, job.target, job.kind, overwrite=overwrite)
            _check_others(job, named, taken)
        except RepsrError as error:
            failures.append(Failure(str(one.path), error))
            continue
        except OSError as error:  # e.g. a name that is too long for the file system with its suffix
            failures.append(Failure(str(one.path), MediaError(one.path, f"cannot be upscaled ({error.strerror})")))
            continue
        jobs.append(job)
    if naming.format is not None and jobs and not any(_dotted(naming.format) == job.target.suffix for job in jobs):
        raise UsageError(f"--format {naming.format}", "suits none of the inputs", "Leave it out, or choose another.")
    if not (jobs or failures or skipped):
        remedy = "Name images, videos or folders." if naming.recursive else "Add -r to look into subfolders."
        raise MediaError(", ".join(inputs) or "upscale", "no images or videos there", remedy)
    return Plan(tuple(jobs), tuple(failures), tuple(skipped))


def _job_for(one: _Found, into: bool, request: Request, naming: Naming) -> Job | None:
    """The job for a file; None where a folder holds a file that is neither an image nor a video.

    Raises:
        MediaError: it is neither, and was named itself.
        UsageError: its target has no name.
    """
    kind = kind_of(one.path)
    if kind is None:
        if one.folder is not None:
            return None
        raise neither(one.path)
    return Job(kind, one.path, _target(one, kind, into, request, naming))


def _check_others(job: Job, named: set[Path], taken: dict[Path, Path]) -> None:
    """Refuse a target that is an input, or the target of another job (``taken``, to which it is added).

    Raises:
        UsageError: it is one.
    """
    target = job.target.resolve()
    if target in named:
        raise UsageError(job.target, "is an input and would be overwritten", "Choose another name with -o.")
    if target in taken:
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


def find_files(text: str, naming: Naming) -> list[_Found]:
    """The files that one word of the command line stands for.

    A path that exists is taken as it is, whatever characters it has; only then is it a list (``@``) or a pattern.

    Raises:
        MediaError: nothing is there.
    """
    if text.startswith("@") and not Path(text).exists():
        return [found for line in _lines(Path(text[1:])) for found in _find(line, naming)]
    return _find(text, naming)


def _find(text: str, naming: Naming) -> list[_Found]:
    path = Path(text)
    if path == PIPE:
        return [_Found(path, None)]
    if path.is_dir():
        return [_Found(file, path) for file in _walk(path, naming)]
    if path.exists():
        return [_Found(path, None)]
    if is_pattern(path):
        numbered(path)
        return [_Found(path, None)]
    matches = glob.glob(text, recursive=True) if glob.has_magic(text) else []  # noqa: PTH207 - Path.glob takes no absolute pattern
    if not matches:
        raise MediaError(text, "no such file", "Check the path, and quote names with spaces.")
    return [found for match in sorted(matches, key=natural_order) for found in _find(match, naming)]


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise MediaError(f"@{path}", f"not a readable list of paths ({error})") from error
    return [line for line in text.splitlines() if line.strip()]


def _walk(folder: Path, naming: Naming) -> Iterator[Path]:
    """Visible files of a folder, in natural order; without what lies under the output folder."""
    output = Path(naming.output).resolve() if naming.output is not None else None
    for parent, folders, names in os.walk(folder):
        here = Path(parent)
        folders[:] = sorted(
            (name for name in folders if not name.startswith(".") and (here / name).resolve() != output),
            key=natural_order,
        )
        for name in sorted(names, key=natural_order):
            if not name.startswith("."):
                yield here / name
        if not naming.recursive:
            return


def natural_order(text: str) -> list[tuple[int, int, str]]:
    """A sorting key by which ``2.png`` comes before ``10.png``."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"([0-9]+)", text) if part]


def kind_of(path: Path) -> Kind | None:
    """Whether a file is an image or a video, by its content; None if neither.

    Raises:
        MediaError: the file cannot be opened.
    """
    from repsr_cli.image.files import is_image

    if path == PIPE or is_pattern(path):
        return "video"
    if not path.is_file():
        raise MediaError(path, "not a file")
    if is_image(path):
        return "image"
    try:
        from repsr_cli.video.probe import is_video
    except ImportError as error:
        if not (mimetypes.guess_type(path)[0] or "").startswith("video/"):
            return None
        raise MediaError(path, "not an image, and videos need PyAV", "Install it: pip install av") from error
    return "video" if is_video(path) else None


def neither(path: Path) -> MediaError:
    """The error that says why a file is not an input: it holds sound only, is cut off, or is something else."""
    reason = MediaError(path, "a file of another kind")
    try:
        from repsr_cli.video.probe import probe

        probe(path)
    except MediaError as error:
        reason = error
    except ImportError:
        pass
    return MediaError(path, f"neither an image nor a video: {reason.happened}", reason.remedy)


def image_suffixes() -> frozenset[str]:
    """Extensions of all formats that images can be written in."""
    from repsr_cli.image.files import FORMATS

    return frozenset(suffix for known in FORMATS for suffix in known.suffixes)


def source_size(kind: Kind, path: Path, max_pixels: int | None = None) -> tuple[int, int]:
    """(height, width) of an image or video as it is shown, from its header.

    Args:
        kind: which it is.
        path: the file.
        max_pixels: refuse an image that would hold more at a time; None: ``media.images.MAX_PIXELS``.

    Raises:
        MediaError: it cannot be read.
    """
    if path == PIPE:
        raise UsageError(path, "the size of frames from a pipe is not known beforehand", "Give a factor with -s.")
    if kind == "image":
        from repsr_cli.image.files import MAX_PIXELS, open_image

        image = open_image(path, max_pixels or MAX_PIXELS)
        return image.height, image.width
    from repsr_cli.video.probe import probe

    return probe(path).display_size


def _without_repeats(found: Sequence[_Found]) -> list[_Found]:
    """Every file once, where it was first named."""
    return list({one.path.resolve(): one for one in reversed(found)}.values())[::-1]


def _without_results(found: Sequence[_Found], request: Request, naming: Naming) -> list[_Found]:
    """Without files in folders that look like this very request's results: ``a_x4.png`` where there is ``a.png``.

    Otherwise running a folder twice would upscale what was upscaled.
    """
    suffix = default_suffix(request.size) if naming.suffix is None else naming.suffix
    stems = {(one.path.parent, one.path.stem) for one in found}
    output = None if naming.output is None else Path(naming.output).resolve()

    def is_result(one: _Found) -> bool:
        if one.folder is None or output not in (None, one.folder.resolve()):
            return False
        stem = one.path.stem
        return bool(suffix) and stem.endswith(suffix) and (one.path.parent, stem.removesuffix(suffix)) in stems

    return [one for one in found if not is_result(one)]


def _is_folder(output: str | None, several: bool) -> bool:
    """Whether ``-o`` names a folder: it is one already, ends in a slash, has no extension, or holds several targets.

    Raises:
        UsageError: ``-o`` is a file, but there are several inputs.
    """
    if output is None:
        return False
    if several and (Path(output) == PIPE or Path(output).is_file()):
        raise UsageError(output, "is one place, but there are several inputs", "Give a folder with -o.")
    if Path(output) == PIPE:
        return False
    return several or output.endswith(("/", os.sep)) or Path(output).is_dir() or not Path(output).suffix


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


def _target(one: _Found, kind: Kind, into: bool, request: Request, naming: Naming) -> Path:
    if naming.output is not None and not into:
        return Path(naming.output)
    if one.path == PIPE:
        raise UsageError(PIPE, "frames from a pipe have no name", "Give a file with -o, or -o - for a pipe.")
    if is_pattern(one.path):
        raise UsageError(one.path, "images have many names", "Give the video one with -o.")
    suffix = default_suffix(request.size) if naming.suffix is None else naming.suffix
    name = f"{one.path.stem}{suffix}{_extension(one.path, kind, naming.format)}"
    if naming.output is None:
        return one.path.with_name(name)
    return Path(naming.output) / (one.path.parent.relative_to(one.folder) if one.folder else "") / name


def _extension(path: Path, kind: Kind, format: str | None) -> str:
    if format is not None and _dotted(format) in (image_suffixes() if kind == "image" else VIDEOS):
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
    """Refuse a target that would destroy something or that cannot be written.

    Raises:
        UsageError: it is the source, exists, or its extension is of no format that holds the kind.
        MediaError: its folder cannot be written to.
    """
    same = target.resolve() == source.resolve() or (target.exists() and source.exists() and target.samefile(source))
    if same and source != PIPE:
        raise UsageError(target, "is the input itself", "Choose another name with -o or --suffix.")
    if target.is_dir():
        raise UsageError(target, "is a folder", "Choose another name with -o or --suffix.")
    if target.exists() and not (overwrite or (kind == "video" and _is_complete(target))):
        raise UsageError(target, "exists", "Add -y to replace it, or --skip-existing to leave it.")
    if kind == "image":
        from repsr_cli.image.files import format_for

        format_for(target)
    else:
        from repsr_cli.video.mux import format_of

        format_of(target)
    if target == PIPE:
        return
    folder = next(parent for parent in target.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise MediaError(target, f"{folder} cannot be written to", "Choose another folder with -o.")
