"""upscale/api.py: the Python interface."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import repsr_cli
from repsr_cli.errors import CheckpointError, UsageError
from repsr_cli.model.checkpoint import save_plain
from repsr_cli.model.plain import identity_network
from repsr_cli.upscale.api import measure_speed


@pytest.fixture
def network(tmp_path: Path) -> Path:
    save_plain(tmp_path / "nearest.safetensors", identity_network(2), {})
    return tmp_path / "nearest.safetensors"


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_shape_type_and_values_stay(network: Path, shape: tuple[int, ...], dtype: str) -> None:
    upscaler = repsr_cli.load(network)
    assert upscaler.scale == 2
    random = np.random.default_rng(1).random(shape)
    pixels = random.astype(dtype) if dtype == "float32" else (random * np.iinfo(dtype).max).astype(dtype)
    big = repsr_cli.upscale_image(pixels, upscaler)
    assert big.dtype == pixels.dtype
    expected = pixels.repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_allclose(big, expected, atol=1e-6 if dtype == "float32" else 0)


def test_frames_one_by_one(network: Path) -> None:
    taken = []

    def frames():  # type: ignore[no-untyped-def]
        for number in range(3):
            taken.append(number)
            yield np.full((4, 4, 3), number, np.uint8)

    enlarged = repsr_cli.upscale_frames(frames(), repsr_cli.load(network))
    assert next(enlarged).shape == (8, 8, 3)
    assert taken == [0]
    assert [frame[0, 0, 0] for frame in enlarged] == [1, 2]


def test_refusals(network: Path) -> None:
    with pytest.raises(CheckpointError):
        repsr_cli.load("no-such-network")
    with pytest.raises(UsageError):
        repsr_cli.load(network, precision="fp7")
    upscaler = repsr_cli.load(network)
    for pixels in (np.zeros((4, 4), np.int64), np.zeros((4, 4, 2), np.uint8), np.zeros(4, np.uint8)):
        with pytest.raises(ValueError, match="expected"):
            repsr_cli.upscale_image(pixels, upscaler)
    with pytest.raises(AttributeError):
        _ = repsr_cli.upscale_everything  # type: ignore[attr-defined]


def test_importing_the_package_loads_nothing() -> None:
    code = "import sys, repsr_cli; dir(repsr_cli); sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
    assert {"load", "upscale_image", "upscale_frames"} <= set(dir(repsr_cli))


def test_speed_is_a_number() -> None:
    assert measure_speed(identity_network(2), "cpu", (16, 16)) > 0
