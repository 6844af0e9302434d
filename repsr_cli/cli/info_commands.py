"""``repsr models`` and ``repsr doctor``: what is there."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from repsr_cli.cli.console import friendly, print_json, print_line

MARKS = {"ok": "ok", "absent": "--", "broken": "!!"}


@friendly
def models(
    speed: Annotated[bool, typer.Option("--speed/--no-speed", help="Measure each network here.")] = True,
    device: Annotated[str, typer.Option("--device", help="Where to measure: auto, cpu, cuda, mps.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="One JSON record per network.")] = False,
) -> None:
    """List the networks that are there: size, scale, PSNR, speed on this machine.

    Speed is in millions of source pixels per second; a video of 480x270 at 24 fps is 3.1.

    Example: repsr models
    """
    from repsr_cli.model.zoo import available, load
    from repsr_cli.upscale.api import measure_speed

    rows = []
    for weight in available():
        net = load(weight)
        record = {
            "name": weight.name,
            "network": weight.network,
            "scale": weight.scale,
            "kind": weight.kind,
            "kilobytes": round(weight.path.stat().st_size / 1000),
            "psnr_y": weight.psnr_y,
            "megapixels_per_second": measure_speed(net, device) if speed else None,
        }
        if json:
            print_json(record)
        psnr = ", ".join(f"{name} {value:.2f}" for name, value in weight.psnr_y.items())
        fast = f"{record['megapixels_per_second']:.2f}" if speed else ""
        rows.append((weight.name, weight.network, f"x{weight.scale}", f"{record['kilobytes']} kB", fast, psnr))
    if not json:
        head = ("name", "network", "scale", "file", "MP/s" if speed else "", "PSNR-Y in dB")
        for row in table([head, *rows]):
            print_line(row)


@friendly
def doctor(
    json: Annotated[bool, typer.Option("--json", help="One JSON record per finding.")] = False,
) -> None:
    """Look at what this machine can do, and say what to install.

    Libraries, encoders, networks and their digests, and a 32x32 self-test of every device against the CPU. The exit
    code is 0 unless something is broken.

    Example: repsr doctor
    """
    from repsr_cli.diagnostics.doctor import examine

    code = 0
    for finding in examine():
        code = code or finding.exit_code
        if json:
            print_json(asdict(finding))
            continue
        print_line(f"{MARKS[finding.state]}  {finding.subject:<16} {finding.text}")
        if finding.remedy:
            print_line(f"    {'':<16} -> {finding.remedy}")
    if code:
        raise typer.Exit(code)


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows as lines, columns padded to their widest cell and two spaces apart."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
