"""model/zoo.py: names, the default for each factor, and files that are not what was shipped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from repsr_cli.errors import CheckpointError
from repsr_cli.model import zoo


def weight(size: str, scale: int, family: str = "clean") -> zoo.Weight:
    middle = "" if family == "clean" else f"{family}-"
    return zoo.Weight(f"{size}-{middle}x{scale}", Path("none"), scale, size, family)


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch) -> list[zoo.Weight]:
    weights = [*(weight("fast", scale) for scale in (2, 3, 4)), weight("balanced", 4), weight("balanced", 4, "video")]
    monkeypatch.setattr(zoo, "available", lambda: weights)
    return weights


@pytest.mark.parametrize(
    ("network", "scale", "family", "name"),
    [
        (None, None, "clean", "balanced-x4"),
        (None, None, "video", "balanced-video-x4"),
        (None, 2, "clean", "fast-x2"),
        (None, 2, "video", "fast-x2"),
        (None, 2.5, "clean", "fast-x3"),
        ("fast", None, "clean", "fast-x4"),
        ("fast", 1.5, "clean", "fast-x2"),
        ("balanced", 2, "clean", "balanced-x4"),
        ("balanced", 3, "video", "balanced-video-x4"),
        ("fast-x3", 2, "clean", "fast-x3"),
    ],
)
def test_the_best_size_that_ships_for_the_factor(
    shipped: list[zoo.Weight], network: str | None, scale: float | None, family: zoo.Family, name: str
) -> None:
    assert zoo.resolve(network, scale, family).name == name


@pytest.mark.parametrize(
    ("network", "scale", "message"),
    [
        ("blanced", None, "Did you mean 'balanced'"),
        (None, 5, "the default network: enlarges by up to 4, not 5"),
        ("fast-x2", 3, "enlarges by 2, not 3"),
        ("none.safetensors", None, "no such file"),
    ],
)
def test_what_cannot_be_had_is_said(
    shipped: list[zoo.Weight], network: str | None, scale: float | None, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        zoo.resolve(network, scale, "clean")


def test_every_shipped_file_is_the_one_of_the_index() -> None:
    for shipped in zoo.available():
        assert zoo.load_weight(shipped).spec.scale == shipped.scale
        with pytest.raises(CheckpointError, match="not the file that was shipped"):
            zoo.load_weight(replace(shipped, sha256="0" * 64))
