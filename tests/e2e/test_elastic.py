"""Training of several processes that loses one of them: torchrun starts anew, from the last checkpoint."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

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
[schedule]
steps = 30
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


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found through Linux's /proc")
def test_a_process_that_dies_costs_no_more_than_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(4):
        Image.fromarray(textured(64, 64, number)).save(tmp_path / "images" / f"p{number}.png")
    (tmp_path / "recipe.toml").write_text(RECIPE.replace("IMAGES", str(tmp_path / "images")))

    def start(run: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        command += ["--max-restarts=2", "--monitor-interval=0.2"]
        command += ["-m", "repsr_cli", "train", str(tmp_path / "recipe.toml"), "-o", str(run), "--resume", "--quiet"]
        return subprocess.Popen(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"})

    assert start(tmp_path / "whole").wait(120) == 0
    torchrun = start(tmp_path / "killed")
    log = tmp_path / "killed" / "log.jsonl"
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

    one, two = (load_training(tmp_path / name / "last.pt") for name in ("whole", "killed"))
    assert one.step == two.step == 30
    for (name, a), b in zip(one.net.state_dict().items(), two.net.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == sorted(set(steps))
