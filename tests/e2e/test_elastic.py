"""Training of several processes, and of several that lose one: torchrun starts anew, from the last checkpoint."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from repsr_cli.cli import app
from repsr_cli.model.checkpoint import load_training
from tests.conftest import ROOT, textured

RECIPE = """
[network]
scale = 2
blocks = 1
channels = 8
[data]
train = "IMAGES"
holdout = 1
[batch]
size = 4
patch = 16
[optimizer]
name = "adam"
[schedule]
steps = 30
learning_rate = 1e-3
bn_freeze = 0.5
[run]
device = "cpu"
checkpoint_every = 5
log_every = 1
[validation]
every = 30
statistics_batches = 2
"""


def workers(torchrun: int) -> list[int]:
    """The training processes that torchrun started, by their parent's number in /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[1]) == torchrun:
            found.append(int(stat.parent.name))
    return sorted(found)


def start(recipe: Path, run: Path) -> subprocess.Popen[bytes]:
    """Two processes that torchrun watches over."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["--max-restarts=2", "--monitor-interval=0.2"]
    command += ["-m", "repsr_cli", "train", str(recipe), "-o", str(run), "--resume", "--quiet"]
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"})


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elastic")
    (folder / "images").mkdir()
    for number in range(4):
        Image.fromarray(textured(64, 64, number)).save(folder / "images" / f"p{number}.png")
    (folder / "recipe.toml").write_text(RECIPE.replace("IMAGES", str(folder / "images")))
    return folder / "recipe.toml"


@pytest.fixture(scope="module")
def together(recipe: Path) -> Path:
    """The run of two processes that live."""
    run = recipe.with_name("together")
    assert start(recipe, run).wait(120) == 0
    return run


def logged(run: Path, name: str) -> list[float]:
    return [json.loads(line)[name] for line in (run / "log.jsonl").read_text().splitlines()]


def test_two_processes_learn_as_one(recipe: Path, together: Path) -> None:
    """DDP over gloo: with batch statistics of all processes together, losses equal those of one process.

    The second half of the run uses population statistics.
    """
    alone = recipe.with_name("alone")
    result = CliRunner().invoke(app, ["train", str(recipe), "-o", str(alone), "--quiet"])
    assert result.exit_code == 0, result.stderr
    assert len(logged(alone, "loss")) >= 30
    assert np.allclose(logged(alone, "loss"), logged(together, "loss"), rtol=1e-4)
    one, two = (load_training(run / "last.pt") for run in (alone, together))
    for (name, a), b in zip(one.net.state_dict().items(), two.net.state_dict().values(), strict=True):
        assert np.allclose(a.numpy(), b.numpy(), atol=2e-4), name


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found through Linux's /proc")
def test_a_process_that_dies_costs_no_more_than_a_checkpoint(recipe: Path, together: Path) -> None:
    killed = recipe.with_name("killed")
    torchrun = start(recipe, killed)
    log = killed / "log.jsonl"
    deadline = time.monotonic() + 120
    while not log.exists() or len(log.read_text().splitlines()) < 12:
        assert time.monotonic() < deadline
        assert torchrun.poll() is None
        time.sleep(0.005)
    first = workers(torchrun.pid)
    os.kill(first[-1], signal.SIGKILL)
    while len(set(workers(torchrun.pid)) - set(first)) < 2:
        assert time.monotonic() < deadline
        assert torchrun.poll() is None, "no new processes were started"
        time.sleep(0.005)
    assert torchrun.wait(120) == 0

    one, two = (load_training(run / "last.pt") for run in (together, killed))
    assert one.step == two.step == 30
    for (name, a), b in zip(one.net.state_dict().items(), two.net.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    steps = logged(killed, "step")
    assert steps == sorted(set(steps))
