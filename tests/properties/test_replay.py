"""P6 for training: resumed = uninterrupted, bit for bit on a CPU, also across the switch of BN and after a kill."""

from __future__ import annotations

import json
import lzma
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from repsr_cli.errors import Interrupted, RecipeError, TrainingDiverged
from repsr_cli.model.checkpoint import load_training
from repsr_cli.training.loop import StepReport, train
from repsr_cli.training.mix import Mix
from repsr_cli.training.prepare import Preparation, prepare
from repsr_cli.training.recipe import Recipe, recipe_from_dict
from tests.conftest import ROOT, textured

STEPS, SWITCH = 24, 10


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number in range(5):
        Image.fromarray(textured(64, 64, number)).save(folder / f"p{number}.png")
    return folder


def _recipe(images: Path, **sections: dict[str, Any]) -> Recipe:
    values: dict[str, Any] = {
        "network": {"scale": 2, "blocks": 1, "channels": 4},
        "data": {"train": str(images), "holdout": 1},
        "batch": {"size": 4, "patch": 12, "late": 0.2, "late_size": 6, "late_patch": 16},
        "schedule": {"steps": STEPS, "learning_rate": 1e-3, "warmup": 4, "bn_freeze": SWITCH / STEPS},
        "validation": {"every": 8, "statistics_batches": 3},
        "run": {"checkpoint_every": 5, "log_every": 4},
    }
    for section, settings in sections.items():
        values[section] = values[section] | settings if section in values else settings
    return recipe_from_dict(values, "test")


def _state(run: Path) -> dict[str, torch.Tensor]:
    checkpoint = load_training(run / "last.pt")
    tensors = {f"net.{key}": value for key, value in checkpoint.net.state_dict().items()}
    tensors |= {f"average.{key}": value for key, value in checkpoint.ema.state_dict().items()}
    for number, state in checkpoint.optimizer["optimizer"]["state"].items():
        tensors |= {f"optimizer.{number}.{key}": torch.as_tensor(value) for key, value in state.items()}
    return tensors | {"step": torch.tensor(checkpoint.step)}


def _assert_equal(one: Path, other: Path) -> None:
    a, b = _state(one), _state(other)
    assert a.keys() == b.keys()
    unequal = [key for key in a if not torch.equal(a[key], b[key])]
    assert not unequal


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    train(_recipe(images), run)
    return run


@pytest.mark.parametrize("stop", [1, 7, SWITCH - 1, SWITCH, SWITCH + 1, 20, STEPS - 1])
def test_stopped_and_resumed_equals_uninterrupted(images: Path, whole: Path, tmp_path: Path, stop: int) -> None:
    steps = 0

    def should_stop() -> bool:
        nonlocal steps
        steps += 1
        return steps == stop

    with pytest.raises(Interrupted, match=f"stopped at step {stop} of {STEPS}"):
        train(_recipe(images), tmp_path / "run", should_stop=should_stop)
    assert load_training(tmp_path / "run" / "last.pt").step == stop
    train(_recipe(images), tmp_path / "run", resume=True)
    _assert_equal(tmp_path / "run", whole)


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_other_optimisers_replay_too(images: Path, tmp_path: Path, optimizer: str) -> None:
    recipe = _recipe(images, optimizer={"name": optimizer})
    train(recipe, tmp_path / "whole")
    asked = iter([False] * 12 + [True])
    with pytest.raises(Interrupted):
        train(recipe, tmp_path / "run", should_stop=lambda: next(asked))
    train(recipe, tmp_path / "run", resume=True)
    _assert_equal(tmp_path / "run", tmp_path / "whole")


def doubled(lr: Any) -> Any:
    """A teacher that enlarges by repetition."""
    return lr.repeat(2, 0).repeat(2, 1)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("taught")
    for number in range(4):
        Image.fromarray(textured(180, 180, number)).save(folder / f"p{number}.png")
    preparation = Preparation(2, Mix(), variants=1, holdout=1, teacher="doubled")
    prepare(folder, folder / "taught.pack", preparation, doubled)
    return folder / "taught.pack"


ADVERSARIAL: dict[str, dict[str, Any]] = {
    "loss": {"ssim": 0.1, "ms_ssim": 0.1, "fourier": 0.1, "grid": 0.5, "gradient": 0.5, "weight": 0.5},
    "gan": {"weight": 0.1, "channels": 4, "warmup": 3},
    "validation": {"every": 8, "keep": "last"},
    "batch": {"size": 4, "patch": 12},
}


@pytest.fixture(scope="module")
def adversarial(taught: Path) -> Recipe:
    return _recipe(taught, **ADVERSARIAL, data={"train": str(taught), "target": "teacher"})


@pytest.fixture(scope="module")
def adversarial_whole(adversarial: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("adversarial") / "run"
    train(adversarial, run)
    return run


@pytest.mark.parametrize("stop", [2, 3, 11])
def test_adversarial_training_replays_too(
    adversarial: Recipe, adversarial_whole: Path, tmp_path: Path, stop: int
) -> None:
    asked = iter([False] * (stop - 1) + [True])
    with pytest.raises(Interrupted):
        train(adversarial, tmp_path / "run", should_stop=lambda: next(asked))
    train(adversarial, tmp_path / "run", resume=True)
    _assert_equal(tmp_path / "run", adversarial_whole)
    whole, resumed = (
        load_training(run / "last.pt").optimizer["adversary"]["net"] for run in (adversarial_whole, tmp_path / "run")
    )
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_the_adversary_changes_what_is_learned_once_it_is_warm(
    adversarial: Recipe, adversarial_whole: Path, tmp_path: Path
) -> None:
    for name, gan in (("plain", {"weight": 0.0}), ("cold", {"warmup": STEPS})):
        train(replace(adversarial, gan=replace(adversarial.gan, **gan)), tmp_path / name)
    runs = (tmp_path / "plain", tmp_path / "cold", adversarial_whole)
    plain, cold, warm = (load_training(run / "last.pt").net.state_dict() for run in runs)
    assert all(torch.equal(plain[key], cold[key]) for key in plain)
    assert not all(torch.equal(plain[key], warm[key]) for key in plain)


def test_the_last_network_is_kept_where_the_recipe_says_so(adversarial_whole: Path) -> None:
    assert load_training(adversarial_whole / "best.pt").step == STEPS


@pytest.mark.parametrize("sections", [{"data": {"target": "teacher"}}, {"gan": {"weight": 0.1}}])
def test_a_recipe_that_needs_a_teacher_says_so(images: Path, tmp_path: Path, sections: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=r"packed without a teacher.*repsr prepare --teacher"):
        train(_recipe(images, **sections), tmp_path / "run")


def test_another_seed_is_another_run(images: Path, whole: Path, tmp_path: Path) -> None:
    train(_recipe(images, run={"seed": 1, "checkpoint_every": 5, "log_every": 4}), tmp_path / "run")
    assert not torch.equal(_state(whole)["net.head.weight"], _state(tmp_path / "run")["net.head.weight"])


def test_killed_and_resumed_equals_uninterrupted(images: Path, tmp_path: Path) -> None:
    script = (
        "import sys, json, pathlib\n"
        "from repsr_cli.training.recipe import recipe_from_dict\n"
        "from repsr_cli.training.loop import train\n"
        "recipe = recipe_from_dict(json.loads(sys.argv[1]), 'test')\n"
        "train(recipe, pathlib.Path(sys.argv[2]), resume=True, on_report=lambda r: print(r.step, flush=True))\n"
    )
    steps = {"steps": 200, "learning_rate": 1e-3, "warmup": 4, "bn_freeze": 0.2}
    recipe = _recipe(images, schedule=steps)
    command = [sys.executable, "-c", script, json.dumps(asdict(recipe)), str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 60:
            break
    time.sleep(0.03)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    cut = load_training(tmp_path / "run" / "last.pt").step
    assert 0 < cut < 200
    train(recipe, tmp_path / "run", resume=True)
    train(recipe, tmp_path / "whole")
    _assert_equal(tmp_path / "run", tmp_path / "whole")
    logs = [
        [json.loads(line)["step"] for line in (tmp_path / run / "log.jsonl").read_text().splitlines()]
        for run in ("run", "whole")
    ]
    assert logs[0] == logs[1]
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "best.pt",
        "curve.png",
        "last.pt",
        "log.jsonl",
        "recipe.toml",
        "validation.png",
    ]


def test_an_existing_run_is_not_overwritten(images: Path, whole: Path) -> None:
    with pytest.raises(RecipeError, match="holds a run already"):
        train(_recipe(images), whole)


@pytest.mark.parametrize(
    ("section", "key", "value", "was"),
    [
        ("schedule", "learning_rate", 5e-3, "0.001"),
        ("data", "saturation", 2.0, "1.0"),
        ("data", "holdout", 2, "1"),
        ("ema", "decay", 0.9, "0.999"),
        ("run", "seed", 7, "0"),
    ],
)
def test_a_run_does_not_go_on_by_another_recipe(
    images: Path, whole: Path, section: str, key: str, value: float, was: str
) -> None:
    with pytest.raises(RecipeError, match=f"{section}.{key} was {was}"):
        train(_recipe(images, **{section: {key: value}}), whole, resume=True)


def test_a_run_goes_on_where_its_images_moved(images: Path, whole: Path, tmp_path: Path) -> None:
    asked = iter([False] * 12 + [True])
    with pytest.raises(Interrupted):
        train(_recipe(images), tmp_path / "run", should_stop=lambda: next(asked))
    moved = shutil.copytree(images, tmp_path / "moved")
    train(_recipe(moved, run={"log_every": 3}), tmp_path / "run", resume=True)
    _assert_equal(tmp_path / "run", whole)


def test_a_run_of_an_older_version_is_resumed(tmp_path: Path) -> None:
    """Its checkpoint and its packed images are read, and the run ends as that version ended it.

    Bit for bit on the machine it was made on; other processors round differently.
    """
    old = ROOT / "tests" / "properties" / "run_of_1ae5a04"
    (tmp_path / "run").mkdir()
    for source, target in (("half_way.pt.xz", "run/last.pt"), ("images.pack.xz", "images.pack")):
        (tmp_path / target).write_bytes(lzma.decompress((old / source).read_bytes()))
    start = load_training(tmp_path / "run" / "last.pt")
    assert start.step == 9
    recipe = recipe_from_dict(
        start.recipe | {"data": start.recipe["data"] | {"train": str(tmp_path / "images.pack")}}, ""
    )
    train(recipe, tmp_path / "run", resume=True)
    end = load_training(tmp_path / "run" / "last.pt")
    expected = load_file(old / "end.safetensors")
    found = {f"net.{key}": value for key, value in end.net.state_dict().items()}
    found |= {f"ema.{key}": value for key, value in end.ema.state_dict().items()}
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(start.net.state_dict()["head.weight"], end.net.state_dict()["head.weight"], atol=1e-2)


def test_divergence_goes_back_once_then_stops(images: Path, tmp_path: Path) -> None:
    reports: list[StepReport] = []
    recipe = _recipe(
        images,
        network={"block": "plain"},
        schedule={"learning_rate": 1e6, "warmup": 0, "steps": 400},
        optimizer={"name": "adam"},
    )
    with pytest.raises(TrainingDiverged, match="halved before"):
        train(recipe, tmp_path / "run", on_report=reports.append)
    notes = [report.note for report in reports if report.note]
    assert len(notes) == 1
    assert "went back to step" in notes[0]
    good = load_training(tmp_path / "run" / "last.pt")
    assert good.progress["rate_factor"] == 0.5
    assert all(bool(torch.isfinite(p).all()) for p in good.net.parameters())
