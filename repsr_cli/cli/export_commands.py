"""Run ``repsr fuse`` and ``repsr export``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from repsr_cli.cli.console import Board, friendly, print_json, print_line
from repsr_cli.cli.shared_options import Json, Overwrite, Quiet

if TYPE_CHECKING:
    from repsr_cli.export.formats import Exported
    from repsr_cli.export.fuse import Fused

PLANES_HELP = "Planes to read and write instead of RGB: yuv420p, yuv420p10:bt2020:topleft, yuv444p:bt601:full."


@friendly
def fuse(
    model: Annotated[
        str,
        typer.Argument(metavar="CHECKPOINT", help="Training checkpoint, e.g. RUN/best.pt; or a model file or name."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write, .safetensors.")],
    export: Annotated[list[Path] | None, typer.Option("--export", "--onnx", hidden=True)] = None,
    planes: Annotated[str, typer.Option(hidden=True)] = "",
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fuse a trained network into plain 3x3 convolutions, and write it only if both agree.

    Example: repsr fuse runs/mine/best.pt -o mine.safetensors
    """
    from repsr_cli.errors import UsageError
    from repsr_cli.export.formats import check_targets, write
    from repsr_cli.export.fuse import fuse_checkpoint, fuse_model, write_fused
    from repsr_cli.files import is_file
    from repsr_cli.model.zoo import resolve

    if output.suffix != ".safetensors":
        raise UsageError(output, "is not a .safetensors name", "Fused models are safetensors files.")
    if planes and not export:
        raise UsageError("--planes", "is for exported models", "Use repsr export, or add --export FILE.onnx.")
    found = None if is_file(Path(model)) else resolve(model, None, "clean")
    checkpoint = Path(model) if found is None else found.path
    check_targets(checkpoint, [output, *(export or ())], overwrite)
    fused = fuse_checkpoint(checkpoint) if found is None else fuse_model(found)
    exported = _exported(fused, export or [], planes)
    write(exported, overwrite)
    report = write_fused(fused, output, overwrite)
    with Board(quiet=quiet) as board:
        board.say(
            f"{report.network} x{report.scale}: {report.trained_parameters:,} parameters became {report.parameters:,}; "
            f"largest difference {report.error_float64:.1e} in float64, {report.error_float32:.1e} in float32"
        )
        for each in exported:
            board.say(_agreement(each, bool(planes)))
    if json:
        targets, errors = [each.target for each in exported], [each.difference for each in exported]
        print_json(asdict(report) | {"exported": targets, "error_exported": errors})
    else:
        for file in (report.target, *(each.target for each in exported)):
            print_line(str(file))


def _list_shaders(asked: bool) -> None:
    """Print the paths of the shipped user shaders and exit."""
    if asked:
        from repsr_cli.export.glsl import shipped_shaders

        for path in shipped_shaders():
            print_line(str(path))
        raise typer.Exit


@friendly
def export(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Name (repsr models lists them), model file or training checkpoint.")
    ],
    outputs: Annotated[
        list[Path],
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="File to write: .onnx, .xml (OpenVINO), .param (ncnn), .pth, .safetensors, or .glsl and .compute.glsl "
            "(mpv, libplacebo). Repeatable.",
        ),
    ],
    scale: Annotated[int | None, typer.Option("-s", "--scale", help="Scale of the model; default: 4.")] = None,
    detail: Annotated[
        float | None,
        typer.Option(metavar="0..1", help="From a real model (0) to the detail model beside it (1)."),
    ] = None,
    planes: Annotated[str, typer.Option(help=PLANES_HELP)] = "",
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
    _list: Annotated[
        bool,
        typer.Option(
            "--list", is_eager=True, callback=_list_shaders, help="List the user shaders that ship, and exit."
        ),
    ] = False,
) -> None:
    """Write a model for other programs, each file only if that program computes the same as torch.

    Example: repsr export fast -s 2 -o fast-x2.onnx -o fast-x2.param
    """
    from repsr_cli.errors import UsageError
    from repsr_cli.export.formats import check_targets, write
    from repsr_cli.export.fuse import fuse_model
    from repsr_cli.model.zoo import resolve

    found = resolve(model, scale, "clean", detail=detail)
    if scale is not None and found.scale != scale:
        raise UsageError(model, f"enlarges by {found.scale}, not {scale}", f"Use -s {found.scale}.")
    check_targets(found.path, outputs, overwrite, resumable=True)
    exported = _exported(fuse_model(found), outputs, planes)
    write(exported, overwrite)
    with Board(quiet=quiet) as board:
        for each in exported:
            board.say(_agreement(each, bool(planes)))
            if json:
                facts = {"program": each.format.program, "difference": each.difference, "planes": planes or None}
                print_json({"target": each.target, "model": found.name, "scale": found.scale, **facts})
            else:
                print_line(str(each.target))


def _exported(fused: Fused, targets: list[Path], planes: str) -> list[Exported]:
    """A network in all formats that were asked for, checked and not yet written."""
    from repsr_cli.export.formats import export_all
    from repsr_cli.export.planes import parse_planes

    plane_format = parse_planes(planes) if planes else None
    return export_all(fused.net, targets, fused.metadata, plane_format)


def _agreement(exported: Exported, planes: bool) -> str:
    """A line on how far another program is from torch."""
    program, difference = exported.format.program, exported.difference
    named = " with ".join(str(file) for file in exported.files)
    if difference is None:
        return f"{named}: not checked, since {program} is not installed"
    most = f"{difference:.0f} code values" if planes else f"{difference:.1e}"
    return f"{named}: {program} differs from torch by {most} at most"
