"""Upscale one image file: every page, strip by strip.

A strip carries the rows its pixels depend on, so strips leave no trace, and an image larger than memory is processed
like a small one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from threading import Event
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from repsr_cli.engine.pixels import to_pixels, to_tensor
from repsr_cli.engine.tiling import Progress as TileProgress
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import Interrupted, UsageError
from repsr_cli.image.files import ImageSource, open_image
from repsr_cli.image.formats import format_for
from repsr_cli.image.losses import losses
from repsr_cli.image.page import Page, Strip
from repsr_cli.image.resize import imresize_rows, rows_needed
from repsr_cli.reporting import Outcome, Progress, Reporter
from repsr_cli.sizes import target_size
from repsr_cli.upscale.alpha import bleed, enlarge_alpha, spread
from repsr_cli.upscale.image_sinks import ImageSink
from repsr_cli.upscale.plan_image import ImagePlan
from repsr_cli.upscale.tta import ensemble

# Pixels of the network's output held at a time.
_STRIP_PIXELS = 1 << 23
# What networks of one device share: whoever computes holds it.
Turn = AbstractContextManager[object]
ALONE: Turn = nullcontext()


def upscale_image(
    plan: ImagePlan,
    sink: ImageSink,
    upscaler: Upscaler,
    reporter: Reporter,
    turn: Turn = ALONE,
    stop: Event | None = None,
) -> Outcome:
    """Enlarge every page or frame of an image file.

    Args:
        reporter: gets the progress, in tiles of a single page or in pages.
        turn: held while the network computes, where several images share it.
        stop: set when no result is wanted any more.

    Returns:
        What was done; ``notes`` say what was converted, resized or, if allowed, left out.

    Raises:
        UsageError: the target exists, or its format cannot hold the result.
        MediaError: the source cannot be read or the target not written.
        DeviceError: the device failed.
        Interrupted: ``stop`` was set.
    """
    started = time.perf_counter()
    sink.check()
    image = open_image(plan.source, plan.max_pixels)
    pages = image.pages()
    first = next(pages)
    size = target_size((first.height, first.width), plan.size, upscaler.scale)
    notes = _losses(plan, image, first, size)
    if size != (first.height * upscaler.scale, first.width * upscaler.scale):
        notes.append(f"Enlarged {upscaler.scale} times, then resized to {size[1]} x {size[0]} px.")

    def after_tile(progress: Progress) -> None:
        if stop is not None and stop.is_set():
            raise Interrupted("stopped", "another image in flight ended the run")
        if image.count == 1:
            reporter.progress(progress)

    def results() -> Iterator[Page]:
        for index, page in enumerate(chain((first,), pages)):
            notes.extend(note for note in page.notes if note not in notes)
            wanted = target_size((page.height, page.width), plan.size, upscaler.scale)
            if index:
                losses(format_for(plan.target), page, wanted)
            yield enlarged(page, wanted, upscaler, tta=plan.tta, progress=after_tile, turn=turn)
            if image.count > 1:
                reporter.progress(Progress(index + 1, image.count, "frame" if image.animated else "page"))

    sink.write(image, results())
    facts = _facts(image, first, size, plan.format) | plan.compute.facts()
    return Outcome(plan.source, plan.target, time.perf_counter() - started, facts, tuple(notes))


def _losses(plan: ImagePlan, image: ImageSource, first: Page, size: tuple[int, int]) -> list[str]:
    """A note about what the target's format cannot hold, if anything."""
    fmt = format_for(plan.target)
    lost = losses(fmt, first, size, count=image.count, loop=image.loop, strip_metadata=plan.strip_metadata)
    if lost and not plan.allow_loss:
        raise UsageError(
            plan.source,
            f"{fmt.name} cannot hold {_joined(lost)}",
            "Choose another format, or add --allow-loss.",
        )
    return [f"{fmt.name} cannot hold {_joined(lost)}: left out."] if lost else []


def _joined(phrases: Sequence[str]) -> str:
    return " and ".join((", ".join(phrases[:-1]), phrases[-1])) if len(phrases) > 1 else phrases[0]


def enlarged(
    page: Page,
    size: tuple[int, int],
    upscaler: Upscaler,
    *,
    tta: bool = False,
    progress: Callable[[Progress], None] | None = None,
    turn: Turn = ALONE,
) -> Page:
    """A page enlarged to (height, width), computed when its strips are asked for.

    Integers keep their type, grey stays grey, transparency is enlarged apart from colour. Floats are brought into the
    range networks were trained on, [0, 1], by their largest value, and back; what is below zero is clipped.

    Args:
        size: (height, width) of the result.
        tta: average over the 8 flips and rotations.
        progress: called after each tile; may raise to stop the work.
        turn: held while the network computes, where several pages share it.
    """

    def strips() -> Iterator[Strip]:
        whole = (page.height * upscaler.scale, page.width * upscaler.scale)
        step = max(1, _STRIP_PIXELS // whole[1] * size[0] // whole[0])
        tops = range(0, size[0], step)
        window, peak = _Window(page), _peak(page)
        for number, top in enumerate(tops):
            tiles = None if progress is None else _strip_progress(progress, number, len(tops), 8 if tta else 1)
            rows = (top, min(top + step, size[0]))
            yield _enlarged_strip(page, window, rows, size, peak, _Network(upscaler, 8 if tta else 1, tiles, turn))

    return replace(page, height=size[0], width=size[1], strips=strips)


@dataclass(frozen=True, slots=True)
class _Network:
    """The network as one strip sees it."""

    upscaler: Upscaler
    views: int
    progress: TileProgress | None
    turn: Turn

    def __call__(self, lr: Tensor) -> Tensor:
        with self.turn:
            return ensemble(self.upscaler, lr, self.views, self.progress)


def _enlarged_strip(
    page: Page, window: _Window, rows: tuple[int, int], size: tuple[int, int], peak: float, network: _Network
) -> Strip:
    """Some rows of the result, from the rows of the page that they depend on."""
    scale, reach = network.upscaler.scale, network.upscaler.spec.reach
    whole = (page.height * scale, page.width * scale)
    around = reach + (spread(reach) if page.alpha else 0)
    enlarged_rows = rows_needed(whole[0], size[0], rows) if size != whole else rows
    core = (enlarged_rows[0] // scale, -(-enlarged_rows[1] // scale))
    seen = (max(0, core[0] - reach), min(page.height, core[1] + reach))
    held = (max(0, core[0] - around - 2), min(page.height, core[1] + around + 2))
    pixels, alpha = window.rows(*held)
    if alpha is not None:
        pixels = bleed(pixels, alpha, reach)
    lr = to_tensor(pixels[seen[0] - held[0] : seen[1] - held[0]])
    sr = network(lr / peak if peak > 1 else lr)
    sr = sr[:, :, enlarged_rows[0] - seen[0] * scale : enlarged_rows[1] - seen[0] * scale]
    if size != whole:
        sr = _resized(sr, enlarged_rows[0], whole[0], size, rows)
    result = to_pixels(sr, page.dtype, page.channels == 1)
    shown = None if alpha is None else enlarge_alpha(alpha, held[0], page.height, size, rows)
    return Strip(result * np.float32(peak) if peak > 1 else result, shown)


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


def _strip_progress(report: Callable[[Progress], None], number: int, count: int, views: int) -> TileProgress:
    """The progress of strip ``number`` of ``count``, each computed in ``views`` views."""
    passes = 0

    def advance(done: int, total: int) -> None:
        nonlocal passes
        tiles = total * views * count
        report(Progress(total * (number * views + passes) + done, tiles, "tile"))
        passes += done == total

    return advance


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
