"""train/publish.py: what it writes is what the command line then finds, the dial included."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from PIL import Image

from repsr_cli.model import zoo
from repsr_cli.model.checkpoint import TrainingCheckpoint, save_training
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.spec import Spec
from repsr_cli.training.recipe import Data, Network, Recipe, Schedule
from tests.conftest import ROOT, textured

Publish = Callable[..., Path]


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Publishes a run of a network with random weights into a folder of its own, which is returned."""
    main = runpy.run_path(str(ROOT / "train" / "publish.py"))["main"]
    weights, benchmark = tmp_path / "weights", tmp_path / "benchmark"
    weights.mkdir()
    for name in ("Set5", "Set14", "B100"):
        (benchmark / name).mkdir(parents=True)
        Image.fromarray(textured(48, 48)).save(benchmark / name / "a.png")
    monkeypatch.setattr(zoo, "weights_folder", lambda: weights)

    def run(*words: str, seed: int = 0) -> Path:
        torch.manual_seed(seed)
        net = PlainSR(Spec(scale=2, channels=8, blocks=3))
        folder = tmp_path / f"run{seed}"
        folder.mkdir(exist_ok=True)
        size = Network(scale=2, blocks=3, channels=8, block="plain")
        recipe = Recipe(size, Data(train="images"), Schedule(steps=7, learning_rate=0.1))
        save_training(folder / "best.pt", TrainingCheckpoint(net, net, asdict(recipe), 7))
        line = json.dumps({"step": 7200, "steps_per_second": 2.0})
        (folder / "log.jsonl").write_text(f"{line}\n", encoding="utf-8")
        main([str(folder), "--benchmark", str(benchmark), "--weights", str(weights), *words])
        return weights

    return run


def test_a_pair_makes_a_dial(publish: Publish, tmp_path: Path) -> None:
    publish("--kind", "real", seed=1)
    words = ["--kind", "detail", "--detail-default", "0.4", "--stage", str(tmp_path / "run1"), "--earlier", "3.25"]
    words += ["--teacher", "Big (CC BY 4.0)", "--failure", "Faces look odd.", "--data", "Some images."]
    words += ["--machine", "a GPU"]
    weights = publish(*words, seed=2)
    assert [model.name for model in zoo.available()] == ["light-real-x2", "light-detail-x2"]
    found = zoo.resolve("light", 2, "real")
    assert (found.name, found.detail) == ("light-real-x2@0.4", 0.4)
    assert zoo.load(found).spec == Spec(scale=2, channels=8, blocks=3)
    model_card = (weights / "repsr-m3c8-detail-x2.md").read_text(encoding="utf-8")
    for text in ("Big (CC BY 4.0)", "Faces look odd.", "Some images.", "4.2 hours", "on a GPU", "synthesizes detail"):
        assert text in " ".join(model_card.split())
    publish("--kind", "detail", seed=3)
    assert zoo.resolve("light", 2, "real").detail == 0.4, "the default stays unless another is given"


@pytest.mark.parametrize(
    ("first", "words", "message"),
    [
        (False, ["--kind", "detail", "--detail-default", "0.4"], "no real model of M3C8 x2"),
        (True, ["--kind", "detail"], "the dial has no default"),
        (True, ["--kind", "detail", "--detail-default", "1.5"], "the dial has no default"),
    ],
)
def test_half_a_pair_is_not_published(publish: Publish, first: bool, words: list[str], message: str) -> None:
    weights = publish("--kind", "real", seed=1) if first else None
    with pytest.raises(SystemExit, match=message):
        publish(*words, seed=2)
    assert weights is None or [model.kind for model in zoo.available()] == ["real"]


def test_a_clean_model_needs_no_kind(publish: Publish) -> None:
    weights = publish()
    assert [model.name for model in zoo.available()] == ["light-x2"]
    model_card = (weights / "repsr-m3c8-x2.md").read_text(encoding="utf-8")
    assert "clean images" in model_card
    assert "Teachers" not in model_card
