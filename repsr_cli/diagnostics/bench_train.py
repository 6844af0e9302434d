"""Measure training steps per second: branched, merged, and the plain network."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from repsr_cli.training.dataset import Pair, write_pack
from repsr_cli.training.loop import StepReport, train
from repsr_cli.training.recipe import Recipe

PHASES: tuple[tuple[str, Literal["repsr", "plain"], float], ...] = (
    ("branched", "repsr", 1.0),
    ("merged", "repsr", 0.0),
    ("plain", "plain", 0.0),
)  # name, block, share of the steps with batch statistics


@dataclass(frozen=True, slots=True)
class Phase:
    """The speed of one phase.

    Attributes:
        name: ``branched`` (BN with batch statistics), ``merged`` (population statistics, one convolution per block,
            gradients through the merge) or ``plain`` (the plain network).
        steps_per_second: the best of all windows.
        data_share: share of that window's time spent waiting for crops.
    """

    name: str
    steps_per_second: float
    data_share: float


@dataclass(frozen=True, slots=True)
class TrainBench:
    """The phases, measured one after the other in one process."""

    phases: tuple[Phase, ...]

    def record(self) -> dict[str, Any]:
        """All measurements as values for JSON."""
        return {
            phase.name: {"steps_per_second": phase.steps_per_second, "data_share": phase.data_share}
            for phase in self.phases
        }

    def lines(self) -> list[str]:
        """A table as lines of text; ratios are to the branched phase."""
        slowest = self.phases[0].steps_per_second
        return [
            f"{phase.name:<8}  {phase.steps_per_second:8.2f} steps/s  {1000 / phase.steps_per_second:8.1f} ms/step  "
            f"{phase.steps_per_second / slowest:5.2f}x  {phase.data_share:.1%} of the time spent waiting for data"
            for phase in self.phases
        ]


def bench_train(
    recipe: Recipe, window: int = 5, rounds: int = 3, on_note: Callable[[str], None] = lambda _note: None
) -> TrainBench:
    """Time the loop of ``repsr train`` with the network, batch, optimiser and device of a recipe.

    Args:
        recipe: what to time; if its training data does not exist, noise is used.
        rounds: measurements per phase; the best counts, since other programs only slow things down. One more window
            before them warms up and does not count.
        on_note: called with a line for each phase.
    """
    steps = window * (rounds + 1)
    with tempfile.TemporaryDirectory(prefix="repsr-bench-") as folder:
        if not Path(recipe.data.train).expanduser().exists():
            recipe = replace(recipe, data=replace(recipe.data, train=str(_noise(recipe, Path(folder))), holdout=1))
        recipe = replace(
            recipe,
            batch=replace(recipe.batch, late=0.0),
            validation=replace(recipe.validation, every=10 * steps, statistics_batches=1),
            run=replace(recipe.run, log_every=window, checkpoint_every=10 * steps, start_from=""),
        )
        phases = []
        for name, block, freeze in PHASES:
            on_note(f"{name}: {steps} steps of {recipe.batch.size} crops of {recipe.batch.patch} px")
            measured = replace(
                recipe,
                network=replace(recipe.network, block=block),
                schedule=replace(recipe.schedule, steps=steps, bn_freeze=freeze),
            )
            reports: list[StepReport] = []
            train(measured, Path(folder) / name, on_report=reports.append)
            windows = [report for report in reports if report.step > window]
            best = max(windows, key=lambda report: report.steps_per_second)
            phases.append(Phase(name, round(best.steps_per_second, 3), round(best.data_share, 4)))
    return TrainBench(tuple(phases))


def _noise(recipe: Recipe, folder: Path) -> Path:
    """A packed file of a few images of noise, large enough for crops."""
    side = 2 * recipe.batch.patch * recipe.network.scale
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(4)]
    target = folder / "noise.pack"
    write_pack(target, recipe.network.scale, (Pair(str(n), str(n), hr) for n, hr in enumerate(images)))
    return target
