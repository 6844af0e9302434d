"""Training on a GPU: every precision learns, and what it learns is what the CPU learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from repsr_cli.training.dataset import CropDataset, Pack, Pair, write_pack
from repsr_cli.training.loop import StepReport, train
from repsr_cli.training.recipe import Batch, Data, Network, Recipe, Run, Schedule, Validation
from tests.conftest import textured

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    pack = tmp_path_factory.mktemp("pack") / "textures.pack"
    write_pack(pack, 2, (Pair(str(n), str(n), np.ascontiguousarray(textured(96, 96, n))) for n in range(6)))
    return Recipe(
        Network(2, 2, 8),
        Data(str(pack), holdout=2),
        Schedule(60, warmup=5, bn_freeze=0.5),
        Batch(8, 16),
        validation=Validation(60, 4),
        run=Run(log_every=20),
    )


def losses(recipe: Recipe, run: Path) -> list[float]:
    reports: list[StepReport] = []
    train(recipe, run, on_report=reports.append)
    return [report.loss for report in reports if not report.note]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_gpu_learns_what_the_cpu_learns(recipe: Recipe, tmp_path: Path, precision: Any, compiled: Any) -> None:
    expected = losses(replace(recipe, run=replace(recipe.run, device="cpu")), tmp_path / "cpu")
    gpu = replace(recipe.run, device="cuda", precision=precision, compile=compiled)
    found = losses(replace(recipe, run=gpu), tmp_path / "gpu")
    assert found[-1] < found[0]
    assert found[-1] == pytest.approx(expected[-1], rel=0.1 if precision == "fp32" else 0.3)


def test_crops_are_the_same_on_a_gpu(tmp_path: Path) -> None:
    pack = tmp_path / "textures.pack"
    write_pack(pack, 2, (Pair(str(n), str(n), np.ascontiguousarray(textured(96, 96, n))) for n in range(6)))
    crops = CropDataset(Pack(pack), Pack(pack).images, 16, seed=1, saturation=2)
    for step in range(3):
        there = crops.batch(step, 4, 16, device=torch.device("cuda"))
        for found, expected in zip(there, crops.batch(step, 4, 16), strict=True):
            assert found.device.type == "cuda"
            torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-6)
