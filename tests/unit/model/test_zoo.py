"""model/zoo.py: names, the default for each scale, and files that are not what was shipped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from repsr_cli.errors import CheckpointError, UsageError
from repsr_cli.model import zoo
from tests.zoo_of_pairs import weights_with_pairs


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


@pytest.fixture
def pairs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = weights_with_pairs(tmp_path / "weights", default_detail=0.4)
    monkeypatch.setattr(zoo, "weights_folder", lambda: folder)
    return folder


@pytest.mark.parametrize(
    ("name", "kind", "fixed", "detail", "found"),
    [
        ("balanced", "clean", False, None, "balanced-x4"),
        ("balanced", "real", False, None, "balanced-real-x4@0.4"),
        ("balanced", "real", True, None, "balanced-real-x4@0.4"),
        (None, "real", False, None, "balanced-real-x4@0.4"),
        ("balanced", "clean", False, 0.25, "balanced-real-x4@0.25"),
        ("balanced", "clean", False, 0.0, "balanced-real-x4"),
        ("balanced", "clean", False, 1.0, "balanced-detail-x4"),
        ("balanced", "real", True, 1.0, "balanced-detail-x4"),
        ("balanced-real", "clean", False, None, "balanced-real-x4"),
        ("balanced-real", "real", True, 0.75, "balanced-real-x4@0.75"),
        ("balanced-video-x2", "clean", False, 0.75, "balanced-real-x2@0.75"),
        ("balanced@0.6", "clean", False, None, "balanced-real-x4@0.6"),
        ("balanced-real-x2@0.6", "clean", False, None, "balanced-real-x2@0.6"),
        ("balanced@1", "clean", False, None, "balanced-detail-x4"),
        ("balanced-detail", "clean", False, None, "balanced-detail-x4"),
        ("balanced-detail", "real", True, None, "balanced-detail-x4"),
        ("balanced-detail", "clean", False, 1.0, "balanced-detail-x4"),
        ("fast", "real", False, None, "fast-real-x2"),
    ],
)
def test_the_dial(pairs: Path, name: str | None, kind: zoo.Kind, fixed: bool, detail: float | None, found: str) -> None:
    scale = 2 if name and (name == "fast" or "x2" in name) else 4
    assert zoo.resolve(name, scale, kind, fixed=fixed, detail=detail).name == found


@pytest.mark.parametrize(
    ("name", "kind", "fixed", "detail", "message"),
    [
        ("balanced-clean", "real", True, None, "--kind real: balanced-clean is of kind clean"),
        ("balanced-real", "clean", True, None, "--kind clean: balanced-real is of kind real"),
        ("balanced-detail", "clean", True, None, "is of kind detail"),
        ("balanced-clean", "clean", False, 0.5, "--detail 0.5: models of kind clean have no dial"),
        ("balanced-clean@0.5", "clean", False, None, "balanced-clean@0.5: models of kind clean have no dial"),
        ("balanced", "clean", True, 0.5, "models of kind clean have no dial"),
        ("balanced-detail", "clean", False, 0.5, "balanced-detail is detail 1"),
        ("balanced@0.3", "clean", False, 0.5, "says how much already"),
        ("balanced", "clean", False, 1.5, "between 0"),
        ("balanced", "clean", False, float("nan"), "between 0"),
        ("balanced@2", "clean", False, None, "between 0"),
        ("balanced@1.2.3", "clean", False, None, "not a number"),
        ("fast", "clean", False, 0.5, "no detail model ships for fast,.*balanced x2, balanced x4"),
        ("fast", "clean", False, 0.0, "no detail model ships for fast,"),
    ],
)
def test_contradictions_are_usage_errors(
    pairs: Path, name: str, kind: zoo.Kind, fixed: bool, detail: float | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        zoo.resolve(name, 2, kind, fixed=fixed, detail=detail)


def test_a_file_has_neither_kind_nor_dial(pairs: Path) -> None:
    file = str(next(pairs.glob("*.safetensors")))
    assert zoo.resolve(file, None, "real").detail is None
    with pytest.raises(UsageError, match=r"--kind clean: .* is a file"):
        zoo.resolve(file, None, "clean", fixed=True)
    with pytest.raises(UsageError, match=r"--detail 0.5: .* is a file"):
        zoo.resolve(file, None, "real", detail=0.5)


def test_a_kind_that_is_asked_for_is_not_replaced(pairs: Path) -> None:
    with pytest.raises(CheckpointError, match="fast of kind real: enlarges by up to 2, not 4"):
        zoo.resolve("fast", 4, "real", fixed=True)


def test_a_factor_that_nobody_asked_for_is_explained(pairs: Path) -> None:
    with pytest.raises(CheckpointError, match="by up to 2, not 4, which is meant where nothing says"):
        zoo.resolve("fast", None, "real", fixed=True)


def test_a_size_without_a_pair_is_refused_for_that(pairs: Path) -> None:
    for scale in (None, 2, 4):
        with pytest.raises(
            UsageError, match=r"no detail model ships for fast.*Those that ship: balanced x2, balanced x4"
        ):
            zoo.resolve("fast", scale, "clean", detail=0.5)


def test_without_a_pair_there_is_no_dial(shipped: list[zoo.ModelFile]) -> None:
    with pytest.raises(UsageError, match="none yet"):
        zoo.resolve("balanced", 4, "real", detail=0.5)


def test_what_is_mixed_is_checked(pairs: Path) -> None:
    found = zoo.resolve("balanced@0.5", 4, "clean")
    ends = [zoo.load(zoo.resolve(name, 4, "clean")) for name in ("balanced-real", "balanced-detail")]
    made = zoo.load(found).state_dict()
    for name, weights in made.items():
        middle = (ends[0].state_dict()[name] + ends[1].state_dict()[name]) / 2
        assert float((weights - middle).abs().max()) < 1e-6
    other = found.blend.path if found.blend else Path()
    other.write_bytes(found.path.read_bytes())
    with pytest.raises(CheckpointError, match=r"repsr-balanced-detail-x4.* not the file that was shipped"):
        zoo.load(found)
