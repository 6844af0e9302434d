"""What every test may ask for: seeded randomness, small networks with BN statistics that matter, the real data."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real pictures and clips that lives beside the repository; tests that need it skip without it."""
    folder = Path(os.environ.get("REPSR_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set REPSR_TEST_DATA")
    return folder
