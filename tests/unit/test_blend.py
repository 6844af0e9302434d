"""train/blend.py: several networks of one ancestor as one run."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from repsr_cli.errors import RecipeError
from repsr_cli.model.checkpoint import TrainingCheckpoint, load_plain, load_training, save_training
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.spec import Spec
from repsr_cli.training.recipe import Data, Network, Recipe, Schedule
from tests.conftest import ROOT

Blend = Callable[[Sequence[str]], None]


@pytest.fixture
def blend() -> Blend:
    found: Blend = runpy.run_path(str(ROOT / "train" / "blend.py"))["main"]
    return found


def trained(folder: Path, seed: int, channels: int = 8) -> Path:
    """The checkpoint of a run of a network with random weights."""
    torch.manual_seed(seed)
    net = PlainSR(Spec(scale=2, channels=channels, blocks=3))
    size = Network(scale=2, blocks=3, channels=channels, block="plain")
    recipe = Recipe(size, Data(train="images"), Schedule(steps=7, learning_rate=0.1))
    folder.mkdir()
    save_training(folder / "last.pt", TrainingCheckpoint(net, net, asdict(recipe), 7, {"optimizer": {}}))
    (folder / "log.jsonl").write_text('{"step": 7}\n', encoding="utf-8")
    return folder / "last.pt"


def test_weights_are_means_and_the_run_is_that_of_the_first(tmp_path: Path, blend: Blend) -> None:
    shares = [0.5, 0.3, 0.2]
    paths = [trained(tmp_path / str(seed), seed) for seed in range(3)]
    blend([*(f"{path}:{share}" for path, share in zip(paths, shares, strict=True)), "-o", str(tmp_path / "made")])
    networks = [load_plain(path).state_dict() for path in paths]
    made = load_training(tmp_path / "made" / "last.pt")
    for name, weights in made.ema.state_dict().items():
        mean = sum(share * network[name] for share, network in zip(shares, networks, strict=True))
        torch.testing.assert_close(weights, mean)
    assert made.recipe == load_training(paths[0]).recipe
    assert (tmp_path / "made" / "log.jsonl").read_bytes() == paths[0].with_name("log.jsonl").read_bytes()


@pytest.mark.parametrize("shares", [("0.5", "0.6"), ("1", "0"), ("0.5", "half"), ("nan", "1")])
def test_shares_that_make_no_mean_are_refused(tmp_path: Path, blend: Blend, shares: tuple[str, str]) -> None:
    paths = [trained(tmp_path / str(seed), seed) for seed in range(2)]
    with pytest.raises(RecipeError, match="share"):
        blend([*(f"{path}:{share}" for path, share in zip(paths, shares, strict=True)), "-o", str(tmp_path / "made")])
    assert not (tmp_path / "made").exists()


def test_networks_of_other_sizes_are_refused(tmp_path: Path, blend: Blend) -> None:
    first, second = trained(tmp_path / "a", 0), trained(tmp_path / "b", 1, channels=16)
    with pytest.raises(RecipeError, match="M3C16 x2, not M3C8 x2"):
        blend([f"{first}:0.5", f"{second}:0.5", "-o", str(tmp_path / "made")])
    assert not (tmp_path / "made").exists()


def test_nothing_is_left_where_a_run_has_no_log_or_the_folder_exists(tmp_path: Path, blend: Blend) -> None:
    first = trained(tmp_path / "a", 0)
    words = [f"{first}:1", "-o", str(tmp_path / "made")]
    log = first.with_name("log.jsonl").rename(tmp_path / "log.jsonl")
    with pytest.raises(RecipeError, match=r"log\.jsonl"):
        blend(words)
    assert not (tmp_path / "made").exists()
    log.rename(first.with_name("log.jsonl"))
    blend(words)
    before = (tmp_path / "made" / "last.pt").read_bytes()
    with pytest.raises(RecipeError, match="made"):
        blend(words)
    assert (tmp_path / "made" / "last.pt").read_bytes() == before
