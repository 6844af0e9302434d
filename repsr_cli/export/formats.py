"""Write a network in the formats of other programs, each only if the program agrees with torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from repsr_cli.errors import CheckpointError, UsageError, raise_shortage
from repsr_cli.export import agreement, planes
from repsr_cli.export.agreement import Run, largest_difference
from repsr_cli.export.compact import pth_files, pth_runner, safetensors_files, safetensors_runner
from repsr_cli.export.glsl import compute_glsl_files, glsl_files, glsl_runner
from repsr_cli.export.ncnn import ncnn_files, ncnn_runner
from repsr_cli.export.onnx import onnx_files, onnx_runner
from repsr_cli.export.openvino import openvino_files, openvino_runner
from repsr_cli.export.planes import largest_plane_difference
from repsr_cli.files import check_target, is_file, open_regular, write_bytes
from repsr_cli.model.plain import PlainSR
from repsr_cli.yuv.formats import PlaneFormat


@dataclass(frozen=True, slots=True)
class Format:
    """A model format.

    Attributes:
        program: what reads it.
        suffixes: of its files, beginning with the one that users name.
        build: a network, the planes it reads and writes (None: RGB), and strings for the file, to the bytes of each
            file.
        runner: the bytes of each file to a function; ImportError if the program is not installed.
        rgb_only: what its files are called where they cannot read and write planes; else empty.
        clamped: whether outputs are clamped to [0, 1].
        tolerance: largest difference to torch, of the largest value.
        apart: suffixes where another target of the same command takes one of ``suffixes``.
    """

    program: str
    suffixes: tuple[str, ...]
    build: Callable[[PlainSR, PlaneFormat | None, dict[str, str]], tuple[bytes, ...]]
    runner: Callable[[tuple[bytes, ...]], Run]
    rgb_only: str = ""
    clamped: bool = False
    tolerance: float = agreement.TOLERANCE
    apart: tuple[str, ...] = ()

    def files(self, target: Path, *, apart: bool = False) -> tuple[Path, ...]:
        """All files of a model, the one that users name first."""
        stem = target.name.removesuffix(self.suffixes[0])
        return tuple(target.with_name(stem + suffix) for suffix in (self.apart if apart else self.suffixes))


FORMATS = (
    Format("ONNX Runtime", (".onnx",), onnx_files, onnx_runner),
    Format("OpenVINO", (".xml", ".bin"), openvino_files, openvino_runner),
    Format(
        "ncnn",
        (".param", ".bin"),
        ncnn_files,
        ncnn_runner,
        "ncnn models",
        # Its Winograd convolutions of 6x6 tiles round more coarsely; still a twentieth of an 8-bit code value.
        tolerance=2e-4,
        # OpenVINO finds its weights by their name; ncnn takes both paths.
        apart=(".param", ".ncnn.bin"),
    ),
    Format("PyTorch", (".pth",), pth_files, pth_runner, "Compact weights"),
    Format("safetensors", (".safetensors",), safetensors_files, safetensors_runner, "Compact weights"),
    # A name belongs to the first format whose suffix it ends in, so the longer suffix comes first.
    Format("user shader (compute)", (".compute.glsl",), compute_glsl_files, glsl_runner, "shaders", clamped=True),
    Format("user shader", (".glsl",), glsl_files, glsl_runner, "shaders", clamped=True),
)


@dataclass(frozen=True, slots=True)
class Exported:
    """A model in another format, checked and not yet written.

    Attributes:
        target: the file that users name.
        difference: largest difference to torch, of the largest value, or in code values of planes; None: not checked,
            since the program is not installed.
        files: where the bytes belong, ``target`` first.
    """

    target: Path
    format: Format
    contents: tuple[bytes, ...]
    difference: float | None
    files: tuple[Path, ...]


def format_of(target: Path) -> Format:
    """The format that a suffix stands for."""
    for fmt in FORMATS:
        if target.suffix and target.name.endswith(fmt.suffixes[0]):
            return fmt
    names = ", ".join(f"{fmt.suffixes[0]} ({fmt.program})" for fmt in FORMATS)
    raise UsageError(target, "is not a model format", f"Choose a name that ends in {names}.")


def files_of(targets: Sequence[Path]) -> list[tuple[Path, ...]]:
    """All files of each target; of ncnn and OpenVINO models with one stem, ncnn's weights take another name."""
    formats = [format_of(target) for target in targets]
    firm = {file for target, fmt in zip(targets, formats, strict=True) if not fmt.apart for file in fmt.files(target)}
    return [
        fmt.files(target, apart=bool(fmt.apart) and not firm.isdisjoint(fmt.files(target)))
        for target, fmt in zip(targets, formats, strict=True)
    ]


def check_targets(source: Path, targets: Sequence[Path], overwrite: bool, *, resumable: bool = False) -> None:
    """Check before the work starts that all files may be written.

    Args:
        resumable: leave it to ``write`` to refuse files that exist where others are missing, as after a kill.

    Raises:
        UsageError: a file exists, belongs to two targets, or is the source; or a suffix is unknown.
    """
    owners: dict[Path, Path] = {}
    groups = files_of(targets)
    begun = resumable and not all(is_file(file) for files in groups for file in files)
    for target, files in zip(targets, groups, strict=True):
        for file in files:
            if file in owners:
                clash = "it was named twice" if owners[file] == target else f"for {owners[file]} and {target}"
                raise UsageError(file, f"would be written twice ({clash})", "Give each its own name.")
            owners[file] = target
            if os.path.realpath(file) == os.path.realpath(source):
                raise UsageError(file, "is the source itself", "Choose another name.")
            check_target(file, overwrite=overwrite or (begun and is_file(file)), failure=UsageError)


def export_all(
    net: PlainSR, targets: Sequence[Path], metadata: dict[str, str], plane_format: PlaneFormat | None = None
) -> list[Exported]:
    """Convert a network for several programs; arguments and errors as ``export``."""
    made = [export(net, target, metadata, plane_format) for target in targets]
    return [replace(each, files=files) for each, files in zip(made, files_of(targets), strict=True)]


def export(net: PlainSR, target: Path, metadata: dict[str, str], plane_format: PlaneFormat | None = None) -> Exported:
    """Convert a network for another program: images of any size, values in [0, 1].

    Only shaders clamp their results.

    Args:
        target: the file; its suffix decides the format.
        metadata: strings for the file, where the format has a place for them.

    Raises:
        UsageError: a package that writing needs is missing, or the format has no planes.
        CheckpointError: the program computes other values.
    """
    fmt = format_of(target)
    if plane_format is not None and fmt.rgb_only:
        raise UsageError("planes", f"{fmt.rgb_only} are RGB only", "Choose .onnx or .xml, or leave --planes out.")
    contents = fmt.build(net, plane_format, metadata)
    tolerance = fmt.tolerance if plane_format is None else planes.TOLERANCE
    difference: float | None
    try:
        run = fmt.runner(contents)
        if plane_format is None:
            difference = largest_difference(net, run, fmt.clamped)
        else:
            difference = largest_plane_difference(net, plane_format, run)
    except ImportError as error:
        raise_shortage(error, target)
        difference = None
    if difference is not None and not difference <= tolerance:
        happened = f"{fmt.program} and torch differ by {difference:.2e}, more than {tolerance:.0e}"
        raise CheckpointError(target, happened, f"Nothing was written; try another version of {fmt.program}.")
    return Exported(target, fmt, contents, difference, fmt.files(target))


def write(exported: Sequence[Exported], overwrite: bool) -> None:
    """Write the files of exported models; ncnn and OpenVINO have their weights in a second file (.bin).

    A file that holds the very bytes stays: an earlier run was stopped.

    Raises:
        UsageError: another file exists and ``overwrite`` is false, or a file cannot be written.
    """
    # The file that users name comes last: where it is, the others are too.
    parts = [part for each in exported for part in reversed(list(zip(each.files, each.contents, strict=True)))]
    if not overwrite:
        parts = [(file, content) for file, content in parts if not _holds(file, content)]
        for file, _ in parts:
            check_target(file, overwrite=False, failure=UsageError)
    for file, content in parts:
        write_bytes(file, content, overwrite=overwrite, failure=UsageError)


def _holds(file: Path, content: bytes) -> bool:
    """Whether a regular file has this content."""
    try:
        with open_regular(file) as there:
            return there.read(len(content) + 1) == content
    except OSError:
        return False
