"""Find the files that inputs stand for, and tell images from videos.

Nothing is left out silently: what cannot be read is a failure, and what is not an input is counted.
"""

from __future__ import annotations

import errno
import glob
import mimetypes
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from repsr_cli.errors import MediaError, RepsrError, raise_shortage, shortage
from repsr_cli.files import is_folder, is_temporary
from repsr_cli.upscale.request import Kind, Naming
from repsr_cli.video.image_sequence import is_motion_jpeg, is_pattern, numbered

# As input, raw frames (y4m) from standard input; as ``-o``, the same to standard output.
PIPE = Path("-")

# Extensions of images and videos, readable here or not.
_IMAGES = (
    "apng avif bmp dds dng exr gif hdr heic heif ico j2k jfif jp2 jpe?g jpx jxl pam pbm pcx pfm pgm png pnm ppm psd qoi"
    " sgi tga tiff? webp"
)
_VIDEOS = (
    "3gp asf avi divx dv flv h26[45] hevc ivf m2ts m2v m4v mjpeg mkv mov mp4 mpe?g mts mxf nut ogm ogv ts vob webm wmv"
    " y4m"
)
# Why files are left out whose names begin with a dot.
HIDDEN = "hidden files"
_CLAIMS = re.compile(rf"\.({f'{_IMAGES} {_VIDEOS}'.replace(' ', '|')})", re.IGNORECASE)
# Names that a sentence lists.
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Failure:
    """An input that was not upscaled, and why."""

    source: str
    error: RepsrError


@dataclass(frozen=True, slots=True)
class Found:
    """A file to upscale.

    Attributes:
        folder: the input folder it was found in; None if it was named itself.
        kind: ``image`` or ``video``, by content.
    """

    path: Path
    folder: Path | None
    kind: Kind


@dataclass(frozen=True, slots=True)
class Inputs:
    """What inputs stand for.

    Attributes:
        files: in the order of the inputs, folders in natural order (2 before 10), each once.
        failures: what could not be found or read.
        left_out: what folders hold beside images and videos, by a noun phrase.
    """

    files: list[Found] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    left_out: dict[str, list[Path]] = field(default_factory=dict)

    def leave_out(self, reason: str, path: Path) -> None:
        """Count what is not upscaled."""
        self.left_out.setdefault(reason, []).append(path)

    def fail(self, path: Path | str, error: RepsrError | OSError) -> None:
        """Count what cannot be upscaled."""
        self.failures.append(Failure(str(path), error if isinstance(error, RepsrError) else unreadable(path, error)))

    def notes(self) -> tuple[str, ...]:
        """A sentence on what was left out, for each reason."""
        return tuple(f"left out, {reason}: {_listed(paths)}" for reason, paths in self.left_out.items())


def find_inputs(inputs: Sequence[str], naming: Naming) -> Inputs:
    """The images and videos that words of the command line stand for.

    A path that exists is taken as it is, whatever characters it has; only then is it a list (``@``) or a pattern.

    Args:
        inputs: files, folders, glob patterns, and ``@list.txt`` with one path per line.
        naming: whether to look into subfolders, and where targets go: that folder is not searched.
    """
    inside = Inputs()
    for text in inputs:
        try:
            if text.startswith("@") and not os.path.lexists(text):
                for line in _lines(text[1:]):
                    _find(line, naming, inside)
            else:
                _find(text, naming, inside)
        except (RepsrError, OSError) as error:
            inside.fail(text, error)
    return _without_repeats(inside)


def real_path(path: Path) -> Path:
    """A path without links as far as it can be followed; never an error, not even for links in a circle."""
    return Path(os.path.realpath(path))


def unreadable(path: object, error: OSError) -> MediaError:
    """The error for a path at which the system reports one."""
    remedies = {
        errno.EACCES: "Check its permissions and those of its folders.",
        errno.ELOOP: "It is a link that leads to itself.",
        errno.ENAMETOOLONG: "Choose a shorter name.",
    }
    return MediaError(path, f"cannot be read ({error.strerror or error})", remedies.get(error.errno or 0, ""))


def natural_order(text: str) -> list[tuple[int, int, str]]:
    """A sorting key by which ``2.png`` comes before ``10.png``."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"([0-9]+)", text) if part]


def kind_of(path: Path) -> Kind | None:
    """Whether a file is an image or a video, by its content; None if neither."""
    from repsr_cli.image.formats import is_image

    if path == PIPE or is_pattern(path):
        return "video"
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise MediaError(path, "not a file")
        with path.open("rb"):
            pass
    except FileNotFoundError as error:
        raise MediaError(path, "no such file", "Check the path.") from error
    except OSError as error:
        raise unreadable(path, error) from error
    if not is_motion_jpeg(path) and is_image(path):
        return "image"
    try:
        from repsr_cli.video.probe import is_video
    except ImportError as error:
        raise_shortage(error, path)
        if not (mimetypes.guess_type(path)[0] or "").startswith("video/"):
            return None
        raise MediaError(path, "not an image, and videos need PyAV", "Install it: pip install av") from error
    return "video" if is_video(path) else None


def neither(path: Path) -> MediaError:
    """The error that says why a file is not an input: it holds sound only, is cut off, or is something else."""
    try:
        if path.stat().st_size == 0:
            return MediaError(path, "neither an image nor a video: it is empty", "Copy it again.")
    except OSError as error:
        return unreadable(path, error)
    reason: RepsrError = MediaError(path, "a file of another kind")
    try:
        from repsr_cli.video.probe import probe

        probe(path)
    except MediaError as error:
        reason = error
    except ImportError as error:
        reason = shortage(error, path) or reason
    return MediaError(path, f"neither an image nor a video: {reason.happened}", reason.remedy)


def _find(text: str, naming: Naming, inside: Inputs) -> None:
    """Add the files that one path or pattern stands for."""
    path = Path(text)
    if path == PIPE:
        inside.files.append(Found(path, None, "video"))
        return
    try:
        mode = path.stat().st_mode if text else None
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null character in a list
        mode = None
    except OSError as error:
        # A pattern may be longer than any name.
        if not glob.has_magic(text):
            inside.fail(text, error)
            return
        mode = None
    if mode is not None and stat.S_ISDIR(mode):
        _walk(path, naming, inside)
    elif mode is not None:
        _add(path, None, inside)
    elif is_pattern(path):
        try:
            numbered(path)
            inside.files.append(Found(path, None, "video"))
        except RepsrError as error:
            inside.fail(text, error)
    else:
        _glob(text, naming, inside)


def _glob(pattern: str, naming: Naming, inside: Inputs) -> None:
    """Add the files that match a pattern."""
    matches: list[str] = []
    closed: list[str] = []
    if glob.has_magic(pattern):
        matches = glob.glob(pattern, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
        # Folders that cannot be listed match nothing, and would be left out in silence.
        above = os.path.dirname(pattern)  # noqa: PTH120 - Path would change the pattern
        folders = glob.glob(above, recursive=True) if glob.has_magic(above) else [above or "."]  # noqa: PTH207 - likewise
        closed = [each for each in folders if is_folder(each) and not os.access(each, os.R_OK | os.X_OK)]
    for each in closed:
        inside.fail(each, MediaError(each, "cannot be searched (Permission denied)", "Check its permissions."))
    if not matches and not closed:
        inside.fail(pattern, MediaError(pattern, "no such file", "Check the path, and quote names with spaces."))
    for match in sorted(matches, key=natural_order):
        # A link that leads to itself matches, and is neither a file nor a pattern.
        if is_folder(match):
            _walk(Path(match), naming, inside)
        else:
            _add(Path(match), None, inside)


def files_in(folder: Path, naming: Naming, inside: Inputs) -> Iterator[Path]:
    """The visible files of a folder, in natural order; not what lies under the output folder.

    Args:
        naming: whether to look into subfolders, and where targets go.
        inside: what cannot be searched, and subfolders that are left out, are added to it.
    """
    output = real_path(Path(naming.output)) if naming.output is not None else None

    def closed(error: OSError) -> None:
        inside.fail(str(error.filename), unreadable(error.filename, error))

    for parent, folders, names in os.walk(folder, onerror=closed):
        here = Path(parent)
        below = sorted((name for name in folders if not name.startswith(".")), key=natural_order)
        below = [name for name in below if real_path(here / name) != output]
        linked = {name for name in below if (here / name).is_symlink()}
        for name in below if not naming.recursive else sorted(linked, key=natural_order):
            inside.leave_out("links to folders" if name in linked else "subfolders (-r looks into them)", here / name)
        folders[:] = [name for name in below if name not in linked] if naming.recursive else []
        for name in sorted(names, key=natural_order):
            if not name.startswith("."):
                yield here / name
            elif _claims(here / name) and not is_temporary(name):
                inside.leave_out(HIDDEN, here / name)


def inputs_of(paths: Iterable[Path], folder: Path) -> Inputs:
    """What files of a folder are: images, videos, or neither.

    Args:
        folder: the input folder they were found in.
    """
    inside = Inputs()
    for path in paths:
        _add(path, folder, inside)
    return inside


def _walk(folder: Path, naming: Naming, inside: Inputs) -> None:
    """Add the files of a folder that are images or videos."""
    for path in files_in(folder, naming, inside):
        _add(path, folder, inside)


def _add(path: Path, folder: Path | None, inside: Inputs) -> None:
    """Add a file, if it is an image or a video.

    One that is neither is an error where it was named, or claims to be one by its name.
    """
    try:
        kind = kind_of(path)
    except (RepsrError, OSError) as error:
        inside.fail(path, error)
        return
    if kind is not None:
        inside.files.append(Found(path, folder, kind))
    elif folder is None or _claims(path):
        inside.fail(path, neither(path))
    else:
        inside.leave_out("not images or videos", path)


def _claims(path: Path) -> bool:
    """Whether a name is that of an image or a video."""
    return _CLAIMS.fullmatch(path.suffix) is not None


def _lines(name: str) -> list[str]:
    """The lines of a list, in which names may hold any bytes but line ends."""
    try:
        data = Path(name).read_bytes()
    except OSError as error:
        raise MediaError(f"@{name}", f"not a readable list of paths ({error.strerror})", "Check the path.") from error
    if b"\0" in data:
        raise MediaError(f"@{name}", "not a list of paths: it holds null characters", "Save it as UTF-8 text.")
    lines = os.fsdecode(data.removeprefix(b"\xef\xbb\xbf")).split("\n")
    return [line for line in (line.removesuffix("\r") for line in lines) if line.strip()]


def _without_repeats(inside: Inputs) -> Inputs:
    """Every file once, where it was first named."""
    first: dict[Path, Found] = {}
    for found in inside.files:
        known = first.setdefault(real_path(found.path), found)
        if known is not found and known.path != found.path:
            inside.leave_out(f"the same file as {known.path}", found.path)
    return Inputs(list(first.values()), inside.failures, inside.left_out)


def _listed(paths: Sequence[Path]) -> str:
    """Some names, and how many more there are."""
    names = ", ".join(str(path) for path in paths[:_NAMED])
    return names if len(paths) <= _NAMED else f"{names} and {len(paths) - _NAMED} more"
