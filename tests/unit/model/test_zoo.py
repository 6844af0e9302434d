"""model/zoo.py: names, the default for each scale, and files that are not what was shipped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from repsr_cli.errors import CheckpointError
from repsr_cli.model import zoo


def model(size: str, scale: int, kind: zoo.Kind = "clean") -> zoo.ModelFile:
    middle = "" if kind == "clean" else f"{kind}-"
    return zoo.ModelFile(f"{size}-{middle}x{scale}", Path("none"), scale, size, kind)


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch) -> list[zoo.ModelFile]:
    models = [*(model("fast", scale) for scale in (2, 3, 4)), model("balanced", 4), model("balanced", 4, "real")]
    monkeypatch.setattr(zoo, "available", lambda: models)
    return models


@pytest.mark.parametrize(
    ("name", "scale", "kind", "found"),
    [
        (None, None, "clean", "balanced-x4"),
        (None, None, "real", "balanced-real-x4"),
        (None, 2, "clean", "fast-x2"),
        (None, 2, "real", "fast-x2"),
        (None, 2.5, "clean", "fast-x3"),
        ("fast", None, "clean", "fast-x4"),
        ("fast", 1.5, "clean", "fast-x2"),
        ("balanced", 2, "clean", "balanced-x4"),
        ("balanced", 3, "real", "balanced-real-x4"),
        ("fast-x3", 2, "clean", "fast-x3"),
        ("balanced-x4", None, "real", "balanced-real-x4"),
        ("balanced-clean-x4", None, "real", "balanced-x4"),
        ("balanced-clean", 3, "real", "balanced-x4"),
        ("balanced-video", None, "clean", "balanced-real-x4"),
        ("balanced-video-x4", None, "clean", "balanced-real-x4"),
        ("balanced-real", 2, "clean", "balanced-real-x4"),
        ("balanced-real-x4", None, "clean", "balanced-real-x4"),
    ],
)
def test_the_best_size_that_ships_for_the_factor(
    shipped: list[zoo.ModelFile], name: str | None, scale: float | None, kind: zoo.Kind, found: str
) -> None:
    assert zoo.resolve(name, scale, kind).name == found


@pytest.mark.parametrize(
    ("name", "scale", "message"),
    [
        ("blanced", None, "Did you mean 'balanced'"),
        ("balanced-detail", None, "balanced-detail: no such model"),
        ("balanced-x2", None, "balanced-x2: no such model. Did you mean 'balanced-x4'"),
        ("light", None, "no model of this size ships. The smallest that does is 'fast'"),
        ("best", None, "no model of this size ships. The largest that does is 'balanced'"),
        (None, 5, "the default model: enlarges by up to 4, not 5"),
        ("fast-x2", 3, "enlarges by 2, not 3"),
        ("none.safetensors", None, "no such file"),
    ],
)
def test_what_is_not_available_is_named(
    shipped: list[zoo.ModelFile], name: str | None, scale: float | None, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        zoo.resolve(name, scale, "clean")


def test_every_shipped_file_is_the_one_of_the_index() -> None:
    for shipped in zoo.available():
        assert zoo.load(shipped).spec.scale == shipped.scale
        with pytest.raises(CheckpointError, match="not the file that was shipped"):
            zoo.load(replace(shipped, sha256="0" * 64))
