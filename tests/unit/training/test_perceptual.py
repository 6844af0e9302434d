"""Against direct implementations of the definitions; those that need weights run where they are installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from repsr_cli.errors import UsageError
from repsr_cli.training import perceptual
from repsr_cli.training.metrics import luma
from repsr_cli.training.perceptual import looks_beside, ssimulacra2
from tests.conftest import textured

needs_ssimulacra2 = pytest.mark.skipif(importlib.util.find_spec("ssimulacra2") is None, reason="needs ssimulacra2")


@pytest.fixture
def no_ssimulacra2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perceptual, "ssimulacra2", lambda _sr, _hr: 0.0)


@pytest.mark.usefixtures("no_ssimulacra2")
def test_vgg_distance_is_the_sum_over_five_layers_of_normalised_differences(vgg_weights: Path) -> None:
    import h5py

    a, b = textured(48, 64, 1), textured(48, 64, 2)
    expected = 0.0
    with h5py.File(vgg_weights) as file:
        maps = [torch.tensor(image[..., ::-1].copy()).permute(2, 0, 1)[None].double() for image in (a, b)]
        maps = [image - torch.tensor([104.00699, 116.66877, 122.67892]).double().view(1, 3, 1, 1) for image in maps]
        for number, convolutions in enumerate((2, 2, 3, 3, 3), 1):
            if number > 1:
                maps = [F.max_pool2d(image, 2, 2) for image in maps]
            for index in range(convolutions):
                group = file[f"block{number}/layers/conv2d" + (f"_{index}" if index else "")]["vars"]
                kernel = torch.tensor(group["0"][()]).permute(3, 2, 0, 1).double()
                bias = torch.tensor(group["1"][()]).double()
                maps = [F.relu(F.conv2d(image, kernel, bias, padding=1)) for image in maps]
            units = [image / (image.norm(dim=1, keepdim=True) + 1e-8) for image in maps]
            expected += float(((units[0] - units[1]) ** 2).sum(1).mean())
    assert looks_beside(b)(a)["vgg"] == pytest.approx(expected, rel=1e-4)
    assert looks_beside(a)(a)["vgg"] == 0


def test_missing_weights_say_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("h5py")
    monkeypatch.setenv("REPSR_VGG_WEIGHTS", str(tmp_path / "none.h5"))
    perceptual.vgg_features.cache_clear()
    with pytest.raises(UsageError, match=r"does not hold the VGG weights"):
        looks_beside(textured(32, 32))


@pytest.mark.usefixtures("vgg_weights", "no_ssimulacra2")
def test_gradient_ratio_tells_soft_from_harsh() -> None:
    image = textured(64, 64)
    y = luma(image)
    energy = np.abs(np.diff(y, axis=0)).mean() + np.abs(np.diff(y, axis=1)).mean()
    soft = np.stack([image, np.roll(image, 1, 1)]).mean(0).astype(np.uint8)
    blurred = luma(soft)
    expected = (np.abs(np.diff(blurred, axis=0)).mean() + np.abs(np.diff(blurred, axis=1)).mean()) / energy
    assert looks_beside(image)(soft)["gradient"] == pytest.approx(expected)
    assert looks_beside(image)(image)["gradient"] == 1
    assert expected < 1


@needs_ssimulacra2
def test_ssimulacra2_is_100_for_equal_images_and_falls_with_damage() -> None:
    image = textured(96, 96)
    random = np.random.default_rng(0)
    found = [
        ssimulacra2(np.clip(image + random.normal(0, sigma, image.shape), 0, 255).astype(np.uint8), image)
        for sigma in (0, 5, 30)
    ]
    assert found[0] > 99
    assert found[0] > found[1] > found[2]


@needs_ssimulacra2
@pytest.mark.usefixtures("vgg_weights")
def test_several_results_may_be_measured_beside_one_original() -> None:
    image, *others = (textured(48, 64, seed) for seed in range(3))
    measure = looks_beside(image)
    for other in others:
        assert measure(other) == pytest.approx(looks_beside(image)(other))
        assert measure(other)["ssimulacra2"] == ssimulacra2(other, image)
