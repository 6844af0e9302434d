"""Parse descriptions of planes, and check exported models that read and write planes."""

from __future__ import annotations

import re

import numpy as np

from repsr_cli.engine.planes import PlaneUpscaler
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import UsageError
from repsr_cli.export.agreement import Run
from repsr_cli.model.plain import PlainSR
from repsr_cli.yuv.formats import PlaneFormat
from repsr_cli.yuv.matrices import LUMA_WEIGHTS

TOLERANCE = 1.0  # code values: a value close to one half may be rounded either way
PROBE_SIZES = ((24, 34), (4, 4), (4, 40))  # LR px

_PLANES = re.compile(r"(gray|yuv(?P<layout>420|422|444)p)(?P<depth>9|10|12|14)?(le)?")
_SUBSAMPLE = {"420": (2, 2), "422": (1, 2), "444": (1, 1), None: (1, 1)}


def parse_planes(text: str) -> PlaneFormat:
    """Parse a pixel format, followed by matrix, range and siting where they differ from bt709, limited and left.

    Args:
        text: e.g. ``yuv420p``, ``yuv420p10:bt2020:topleft``, ``yuv444p:bt601:full``, ``gray``.
    """
    pix_fmt, *words = text.split(":")
    layout = _PLANES.fullmatch(pix_fmt)
    matrix, siting, full_range = "bt709", "left", False
    known = layout is not None
    for word in words:
        if word in LUMA_WEIGHTS:
            matrix = word
        elif word in ("left", "center", "topleft"):
            siting = word
        elif word in ("full", "pc", "limited", "tv"):
            full_range = word in ("full", "pc")
        else:
            known = False
    if layout is None or not known:
        raise UsageError(
            f"planes {text}",
            "not a description of planes",
            "Give e.g. yuv420p, yuv420p10:bt2020:topleft, yuv422p:bt601:full, yuv444p or gray.",
        )
    if layout["layout"] is None:
        matrix = "grey"
    depth, subsample = int(layout["depth"] or 8), _SUBSAMPLE[layout["layout"]]
    return PlaneFormat(matrix, full_range, depth, subsample, siting)  # type: ignore[arg-type]


def largest_plane_difference(net: PlainSR, fmt: PlaneFormat, run: Run) -> float:
    """The largest difference in code values between another program's planes and torch's, on seeded noise.

    The noise uses the middle of the range only: for full-range noise some networks return values far outside the range,
    where clipping would hide differences.
    """
    random = np.random.Generator(np.random.Philox(0))
    upscaler = PlaneUpscaler(Upscaler(net, device="cpu", precision="fp32", engine="torch"), fmt, fmt)
    worst = 0.0
    for height, width in PROBE_SIZES:
        sizes = fmt.plane_sizes(height, width)
        lr = [(random.uniform(0.3, 0.7, size) * fmt.peak).astype(fmt.dtype) for size in sizes]
        found = run([plane[None, None] for plane in lr])
        for ours, theirs in zip(upscaler(lr), found, strict=True):
            if theirs.shape != (1, 1, *ours.shape) or theirs.dtype != fmt.dtype:
                return float("inf")
            worst = max(worst, float(np.abs(ours.astype(int) - theirs[0, 0]).max()))
    return worst
