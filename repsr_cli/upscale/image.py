"""One image file in, one image file out: every page, strip by strip.

A strip carries the rows its pixels depend on, so strips leave no trace, and an image larger than memory goes the same
way as a small one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from repsr_cli.engine.pixels import to_pixels, to_tensor
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import UsageError
from repsr_cli.image.files import (
    MAX_PIXELS,
    ImageSource,
    Page,
    Strip,
    format_for,
    losses,
    open_image,
    write_image,
)
from repsr_cli.image.resize import imresize_rows, rows_needed
from repsr_cli.sizes import target_size
from repsr_cli.upscale.alpha import bleed, enlarge_alpha, spread
from repsr_cli.upscale.request import Outcome, Progress, Reporter, UpscaleOptions
from repsr_cli.upscale.tta import ensemble

# Pixels of the network's output held at a time.
_STRIP_PIXELS = 1 << 23


def upscale_image(
    source: Path, target: Path, upscaler: Upscaler, options: UpscaleOptions, reporter: Reporter
) -> Outcome:
    """Enlarge every page or frame of an image file.

    Args:
        source: the file; its content decides what it is.
        target: the file to be written; its suffix decides the format.
        upscaler: the network on its device.
        options: the request.
        reporter: told the progress, in tiles of a single page or in pages.

    Returns:
        What was done; ``notes`` say what was converted, resized or, if allowed, left out.

    Raises:
        UsageError: the target exists, or its format cannot hold the result.
        MediaError: the source cannot be read or the target not written.
        DeviceError: the device failed.
    """
    started = time.perf_counter()
    if target.exists() and not options.overwrite:
        raise UsageError(target, "exists", "Add -y to replace it.")
    fmt = format_for(target)
    image = open_image(source, options.max_pixels or MAX_PIXELS)
    pages = image.pages()
    first = next(pages)
    size = target_size((first.height, first.width), options, upscaler.scale)
    lost = losses(fmt, first, *size, count=image.count, animated=image.animated)
    if lost and not options.allow_loss:
        raise UsageError(
            source, f"{fmt.name} cannot hold its {' and '.join(lost)}", "Choose another format, or add --allow-loss."
        )
    notes = [f"{fmt.name} cannot hold {' and '.join(lost)}: left out."] if lost else []
    if size != (first.height * upscaler.scale, first.width * upscaler.scale):
        notes.append(f"Enlarged {upscaler.scale} times, then resized to {size[1]} x {size[0]} px.")

    def results() -> Iterator[Page]:
        for index, page in enumerate(chain((first,), pages)):
            notes.extend(note for note in page.notes if note not in notes)
            wanted = target_size((page.height, page.width), options, upscaler.scale)
            if index:
                losses(fmt, page, *wanted)
            yield enlarged(
                page, wanted, upscaler, tta=options.tta, reporter=reporter if image.count == 1 else Reporter()
            )
            if image.count > 1:
                reporter.progress(Progress(index + 1, image.count, "frame" if image.animated else "page"))

    if options.benchmark:
        for page in results():
            for _ in page.strips():
                pass
    else:
        write_image(
            target,
            results(),
            count=image.count,
            loop=image.loop,
            lossless=image.lossless,
            strip_metadata=options.strip_metadata,
        )
    return Outcome(source, target, time.perf_counter() - started, _facts(image, first, size, fmt.name), tuple(notes))


def enlarged(
    page: Page, size: tuple[int, int], upscaler: Upscaler, *, tta: bool = False, reporter: Reporter | None = None
) -> Page:
    """A page enlarged to (height, width), computed when its strips are asked for.

    Integers keep their type, grey stays grey, transparency is enlarged apart from colour. Floats are brought into the
    range networks know, [0, 1], by their largest value, and back; what is below zero is clipped.
    """

    def strips() -> Iterator[Strip]:
        scale, reach = upscaler.scale, upscaler.spec.reach
        whole = (page.height * scale, page.width * scale)
        peak = _peak(page)
        step = max(1, _STRIP_PIXELS // whole[1] * size[0] // whole[0])
        tops = range(0, size[0], step)
        window = _Window(page)
        around = reach + (spread(reach) if page.alpha else 0)
        for number, top in enumerate(tops):
            progress = None if reporter is None else _share(reporter, number, len(tops), 8 if tta else 1)
            rows = (top, min(top + step, size[0]))
            enlarged_rows = rows_needed(whole[0], size[0], rows) if size != whole else rows
            core = (enlarged_rows[0] // scale, -(-enlarged_rows[1] // scale))
            seen = (max(0, core[0] - reach), min(page.height, core[1] + reach))
            held = (max(0, core[0] - around - 2), min(page.height, core[1] + around + 2))
            pixels, alpha = window.rows(*held)
            if alpha is not None:
                pixels = bleed(pixels, alpha, reach)
            lr = to_tensor(pixels[seen[0] - held[0] : seen[1] - held[0]])
            lr = lr / peak if peak > 1 else lr
            sr = ensemble(upscaler, lr, 8 if tta else 1, progress)
            sr = sr[:, :, enlarged_rows[0] - seen[0] * scale : enlarged_rows[1] - seen[0] * scale]
            if size != whole:
                sr = _resized(sr, enlarged_rows[0], whole[0], size, rows)
            result = to_pixels(sr, page.dtype, page.channels == 1)
            shown = None if alpha is None else enlarge_alpha(alpha, held[0], page.height, size, rows)
            yield Strip(result * np.float32(peak) if peak > 1 else result, shown)

    return replace(page, height=size[0], width=size[1], strips=strips)


class _Window:
    """Rows of a page, read once from top to bottom, of which the latest are held."""

    def __init__(self, page: Page) -> None:
        self._strips = page.strips()
        self._held: Strip | None = None
        self._first = 0

    def rows(self, start: int, stop: int) -> Strip:
        """Rows ``start`` to ``stop``; both never go back."""
        while self._held is None or self._first + len(self._held.pixels) < stop:
            strip = next(self._strips)
            if self._held is None or self._first + len(self._held.pixels) <= start:
                self._first += 0 if self._held is None else len(self._held.pixels)
                self._held = strip
                continue
            keep = self._held if self._first >= start else _cut(self._held, start - self._first, None)
            self._first = max(self._first, start)
            alpha = None
            if keep.alpha is not None and strip.alpha is not None:
                alpha = np.concatenate([keep.alpha, strip.alpha])
            self._held = Strip(np.concatenate([keep.pixels, strip.pixels]), alpha)
        return _cut(self._held, start - self._first, stop - self._first)


def _cut(strip: Strip, start: int, stop: int | None) -> Strip:
    return Strip(strip.pixels[start:stop], None if strip.alpha is None else strip.alpha[start:stop])


def _peak(page: Page) -> float:
    """The largest value of a page of floats, at least 1; of integers, 1."""
    if page.dtype.kind != "f":
        return 1.0
    return max(1.0, *(float(strip.pixels.max()) for strip in page.strips()))


def _resized(sr: Tensor, first: int, height: int, size: tuple[int, int], rows: tuple[int, int]) -> Tensor:
    """Rows of an image resized, still as floats, from the rows that they depend on."""
    part: NDArray[Any] = np.ascontiguousarray(sr[0].permute(1, 2, 0).numpy())
    resized = imresize_rows(part, first, height, size, rows)
    return torch.from_numpy(resized).permute(2, 0, 1)[None]


def _share(reporter: Reporter, number: int, count: int, views: int) -> Any:
    """A progress callback for strip ``number`` of ``count``, each gone through ``views`` times."""
    passes = 0

    def told(done: int, total: int) -> None:
        nonlocal passes
        tiles = total * views * count
        reporter.progress(Progress(total * (number * views + passes) + done, tiles, "tile"))
        passes += done == total

    return told


def _facts(image: ImageSource, first: Page, size: tuple[int, int], target: str) -> dict[str, Any]:
    return {
        "format": target,
        "height": size[0],
        "width": size[1],
        "source_format": image.format,
        "source_height": first.height,
        "source_width": first.width,
        "pages": image.count,
        "bits": 8 * first.dtype.itemsize,
        "alpha": first.alpha,
    }
