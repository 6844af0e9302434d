"""diagnostics/bench_train.py: it times the real loop, in the form it says."""

from __future__ import annotations

from typing import Any

import pytest

from repsr_cli.diagnostics import bench_train as module
from repsr_cli.diagnostics.bench_train import bench_train
from repsr_cli.training import loop
from repsr_cli.training.recipe import Batch, Data, Network, Recipe, Schedule


def recipe() -> Recipe:
    return Recipe(Network(2, 2, 8), Data("no such folder"), Schedule(10), Batch(4, 8))


def test_three_phases_and_their_ratios() -> None:
    messages: list[str] = []
    measured = bench_train(recipe(), window=2, rounds=2, on_note=messages.append)
    assert [phase.name for phase in measured.phases] == ["branched", "merged", "plain"]
    assert all(phase.steps_per_second > 0 and 0 <= phase.data_share < 1 for phase in measured.phases)
    assert len(messages) == 3
    assert "4 crops of 8 px" in messages[0]
    assert measured.lines()[0].split()[5] == "1.00x"
    assert set(measured.record()) == {"branched", "merged", "plain"}


def test_each_phase_trains_the_form_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []
    real = loop.train

    def spy(measured: Any, run: Any, **rest: Any) -> Any:
        trained.append((measured.network.block, measured.schedule.bn_freeze))
        return real(measured, run, **rest)

    monkeypatch.setattr(module, "train", spy)
    bench_train(recipe(), window=1, rounds=1)
    assert trained == [("repsr", 1.0), ("repsr", 0.0), ("plain", 0.0)]
