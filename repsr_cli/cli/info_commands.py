"""Run ``repsr models`` and ``repsr doctor``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from repsr_cli.cli.console import friendly, print_json, print_line
from repsr_cli.cli.shared_options import Json

if TYPE_CHECKING:
    from repsr_cli.model.zoo import ModelFile

MARKS = {"ok": "ok", "absent": "--", "broken": "!!"}


@friendly
def models(
    speed: Annotated[bool, typer.Option("--speed/--no-speed", help="Measure the speed of each model here.")] = True,
    device: Annotated[str, typer.Option("--device", help="Device to measure on: auto, cpu, cuda or mps.")] = "auto",
    json: Json = False,
) -> None:
    """List the shipped models: size, scale, PSNR, speed on this machine.

    Speed is in millions of source pixels per second; a video of 480x270 at 24 fps is 3.1.

    Example: repsr models
    """
    from repsr_cli.model.zoo import available, check_digest

    rows = []
    for model in available():
        check_digest(model)
        record = {
            "name": model.name,
            "network": model.network,
            "scale": model.scale,
            "kind": model.kind,
            "kilobytes": round(model.path.stat().st_size / 1000),
            "psnr_y": model.psnr_y,
            "megapixels_per_second": _speed(model, device) if speed else None,
        }
        if json:
            print_json(record, result=True)
        psnr = ", ".join(f"{name} {value:.2f}" for name, value in model.psnr_y.items())
        fast = f"{record['megapixels_per_second']:.2f}" if speed else ""
        rows.append((model.name, model.network, f"x{model.scale}", model.kind, f"{record['kilobytes']} kB", fast, psnr))
    if not json:
        head = ("name", "network", "scale", "kind", "file", "MP/s" if speed else "", "PSNR-Y in dB")
        for row in table([head, *rows]):
            print_line(row, result=True)


def _speed(model: ModelFile, device: str) -> float:
    """Millions of source pixels per second; torch is imported only where this is asked for."""
    from repsr_cli.diagnostics.bench import measure_speed
    from repsr_cli.model.zoo import load_compact

    return measure_speed(load_compact(model), device)


@friendly
def doctor(json: Json = False) -> None:
    """Examine this machine, and recommend what to install.

    Checks libraries, encoders, models and their digests, and compares every device with the CPU on a 32x32 image. The
    exit code is 0 unless something is broken.

    Example: repsr doctor
    """
    from repsr_cli.diagnostics.doctor import examine

    code = 0
    for finding in examine():
        code = code or finding.exit_code
        if json:
            print_json(asdict(finding), result=True)
            continue
        print_line(f"{MARKS[finding.state]}  {finding.subject:<16} {finding.text}", result=True)
        if finding.remedy:
            print_line(f"    {'':<16} -> {finding.remedy}", result=True)
    if code:
        raise typer.Exit(code)


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows as lines, columns padded to their widest cell and two spaces apart."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
