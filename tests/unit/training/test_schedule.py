from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from repsr_cli.training.recipe import Recipe, recipe_from_dict
from repsr_cli.training.schedule import batch_shape, ema_decay, freeze_step, learning_rate, loss_name


def _recipe(**sections: dict[str, Any]) -> Recipe:
    values: dict[str, Any] = {"network": {"scale": 2}, "data": {"train": "x"}, "schedule": {"steps": 1000}}
    for section, settings in sections.items():
        values[section] = values.get(section, {}) | settings
    return recipe_from_dict(values, "test")


def test_warm_up_then_cosine_to_the_end() -> None:
    recipe = _recipe(schedule={"steps": 1000, "learning_rate": 0.5, "final_learning_rate": 0.1, "warmup": 10})
    rates = [learning_rate(step, recipe) for step in range(1000)]
    assert rates[0] == pytest.approx(0.05)
    assert rates[9] == pytest.approx(0.5)
    assert all(a < b for a, b in pairwise(rates[:10]))
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert rates[505] == pytest.approx(0.3, abs=1e-3)
    assert 0.1 < rates[-1] < 0.1001


def test_run_shorter_than_its_warm_up() -> None:
    recipe = _recipe(schedule={"steps": 5, "warmup": 100, "learning_rate": 1.0})
    assert learning_rate(4, recipe) == 1.0


def test_switch_happens_once_or_never() -> None:
    assert freeze_step(_recipe(schedule={"bn_freeze": 0.2})) == 200
    assert freeze_step(_recipe(schedule={"bn_freeze": 1.0})) == 1000


def test_late_part_changes_batch_and_loss() -> None:
    recipe = _recipe(
        batch={"size": 8, "patch": 24, "late": 0.1, "late_size": 64, "late_patch": 48},
        loss={"late": 0.05, "late_name": "l2"},
    )
    assert [batch_shape(step, recipe) for step in (0, 899, 900, 999)] == [(8, 24), (8, 24), (64, 48), (64, 48)]
    assert [loss_name(step, recipe) for step in (949, 950)] == ["l1", "l2"]


def test_average_forgets_the_start() -> None:
    recipe = _recipe()
    kept = 1.0
    for update in range(1500):
        kept *= ema_decay(update, recipe)
    assert kept < 1e-6
    assert ema_decay(10**6, recipe) == 0.999
