"""Provide what every test may use: seeded randomness, networks with non-trivial BN statistics, the real data."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from repsr_cli.cores import usable_cores

_Any = TypeVar("_Any")
ROOT = Path(__file__).resolve().parents[1]

# Workers of pytest-xdist share the cores: threads of one wait for each other where another computes.
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if WORKERS > 1 and "OMP_NUM_THREADS" not in os.environ:
    torch.set_num_threads(max(usable_cores() // WORKERS, 1))
    os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes what was measured on this machine, or depends on what its CPU is good at."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("REPSR_PRECISION", "fp32")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images and videos next to the repository; tests that need it are skipped without it."""
    folder = Path(os.environ.get("REPSR_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set REPSR_TEST_DATA")
    return folder


def present(value: _Any | None) -> _Any:
    """The value, which a test relies on."""
    assert value is not None
    return value


def randomise_statistics(net: torch.nn.Module) -> None:
    """Give BN statistics that matter: fresh ones are nearly the identity, and a test with them proves little."""
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.5)
            module.running_var.uniform_(0.2, 3)
            module.weight.data.uniform_(-1.5, 1.5)
            module.bias.data.normal_(0, 0.5)


def frame_count(image: Image.Image) -> int:
    """The number of an animation's frames or a document's pages."""
    return len(ImageSequence.all_frames(image))


def textured(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """An RGB image, uint8, with edges, gradients and fine texture, which a network can learn from."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    image = np.zeros((height, width, 3))
    for _ in range(12):
        angle, frequency, phase = random.uniform(0, np.pi), random.uniform(0.02, 0.5), random.uniform(0, 6.3)
        wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * frequency + phase)
        image += np.sign(wave)[..., None] * random.uniform(-25, 25, 3) + wave[..., None] * random.uniform(-9, 9, 3)
    return np.clip(image + 128, 0, 255).astype(np.uint8)


@pytest.fixture(autouse=True)
def _same_threads() -> Iterator[None]:
    """Give torch's thread count back: dozens of threads on few cores make every later test crawl."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _same_scheduling() -> Iterator[None]:
    """No test leaves real-time priority behind: everything that later tests start would inherit it."""
    before = os.sched_getscheduler(0) if sys.platform == "linux" else None
    yield
    if before is not None:
        assert os.sched_getscheduler(0) == before
