"""Draw the curve of a run, its first batch and its validation images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from repsr_cli.errors import RecipeError
from repsr_cli.files import staging
from repsr_cli.training.run_log import read_log

SIZE = (900, 420)
PLOT = (64, 24, SIZE[0] - 24, SIZE[1] - 40)  # px left, top, right, bottom
GREY, BLUE, RED = (150, 150, 150), (30, 90, 200), (200, 60, 40)


def draw_curve(log: Path, target: Path) -> None:
    """Draw validation Y-PSNR (dB, blue, left axis) and loss (red, its own scale) over steps as PNG.

    Args:
        target: the image; nothing is drawn until the log has a validation.
    """
    entries = read_log(log)
    psnr = [(e["step"], e["psnr_y"]) for e in entries if type(e.get("psnr_y")) is float and math.isfinite(e["psnr_y"])]
    # Early losses are many times larger and would flatten the rest of the line.
    losses = [(e["step"], e["loss"]) for e in entries if not e.get("note") and math.isfinite(e["loss"])][1:]
    if not psnr:
        return
    image = Image.new("RGB", SIZE, "white")
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = PLOT
    steps = max(1, *(step for step, _ in psnr + losses))
    for tick in range(6):
        x = left + (right - left) * tick / 5
        draw.line([(x, top), (x, bottom)], fill=(230, 230, 230))
        draw.text((x, bottom + 8), f"{round(steps * tick / 5):,}", fill=GREY, anchor="ma")
    _draw_line(draw, losses, steps, RED)
    low, span = _draw_line(draw, psnr, steps, BLUE)
    for tick in range(5):
        y = bottom - (bottom - top) * tick / 4
        draw.text((left - 8, y), f"{low + span * tick / 4:.2f}", fill=BLUE, anchor="rm")
    best = max(psnr, key=lambda point: point[1])
    title = f"validation Y-PSNR, dB (blue); best {best[1]:.3f} at step {best[0]:,}"
    draw.text((left, 6), f"{title}; loss (red, {losses[-1][1]:.4f} last)" if losses else title, fill=(60, 60, 60))
    with staging(target, overwrite=True, failure=RecipeError) as path:
        image.save(path)


def _draw_line(
    draw: ImageDraw.ImageDraw, points: Sequence[tuple[float, float]], steps: float, colour: tuple[int, int, int]
) -> tuple[float, float]:
    """Draw (step, value) points as a line over the whole height.

    Returns:
        The lowest value and the range above it.
    """
    if not points:
        return 0.0, 1.0
    left, top, right, bottom = PLOT
    low, high = min(value for _, value in points), max(value for _, value in points)
    span = (high - low) or 1.0
    place = [
        (left + (right - left) * step / steps, bottom - (bottom - top) * (value - low) / span) for step, value in points
    ]
    if len(place) > 1:
        draw.line(place, fill=colour, width=2)
    x, y = place[-1]
    draw.ellipse([x - 3, y - 3, x + 3, y + 3], fill=colour)
    return low, span


def batch_grid(batch: Sequence[Tensor]) -> NDArray[np.uint8]:
    """The crops of a batch side by side: LR enlarged by nearest neighbour, then the others.

    Args:
        batch: lr (N, 3, h, w) in [0, 1]; values beyond are clamped; then one or more of (N, 3, h * scale, w * scale).

    Returns:
        One image (H, W, 3).
    """
    lr, *others = batch
    scale = others[0].shape[-1] // lr.shape[-1]
    large = lr.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    cells = ((crops.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy() for crops in (large, *others))
    pairs = [np.concatenate(group, axis=1) for group in zip(*cells, strict=True)]
    gap, columns = 4, 4
    height, width = pairs[0].shape[:2]
    rows = -(-len(pairs) // columns)
    grid = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for index, pair in enumerate(pairs):
        y, x = index // columns * (height + gap), index % columns * (width + gap)
        grid[y : y + height, x : x + width] = pair
    return grid


def side_by_side(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Images of equal height side by side, e.g. bicubic, network, original."""
    gap = np.full((images[0].shape[0], 4, 3), 255, np.uint8)
    row: list[NDArray[np.uint8]] = []
    for image in images:
        row += [image, gap]
    return np.concatenate(row[:-1], axis=1)


def write_rows(target: Path, rows: Sequence[NDArray[np.uint8]], *, overwrite: bool) -> None:
    """Write images of any width below each other as one PNG."""
    grid = np.full((sum(row.shape[0] for row in rows), max(row.shape[1] for row in rows), 3), 255, np.uint8)
    y = 0
    for row in rows:
        grid[y : y + row.shape[0], : row.shape[1]] = row
        y += row.shape[0]
    with staging(target, overwrite=overwrite, failure=RecipeError) as path:
        Image.fromarray(grid).save(path)
