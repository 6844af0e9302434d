"""Pairs whose targets a network made: its luma, the image's colour, and validation as images are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import UsageError
from repsr_cli.image.resize import downscale
from repsr_cli.model.init import start_as_interpolation
from repsr_cli.model.plain import LUMA, PlainSR
from repsr_cli.model.spec import Spec
from repsr_cli.training.dataset import Pack, build_pack
from repsr_cli.training.distill import distil, with_luma_of
from repsr_cli.training.evaluate import upscale_pixels
from repsr_cli.training.losses import CHROMA
from repsr_cli.training.metrics import luma
from tests.conftest import textured


def interpolating() -> Upscaler:
    torch.manual_seed(0)
    net = PlainSR(Spec(2, 8, 1)).eval()
    start_as_interpolation(net)
    return Upscaler(net, device="cpu", threads=1)


def test_luma_is_the_teachers_and_colour_the_images() -> None:
    rng = np.random.default_rng(0)
    hr = rng.integers(60, 190, (20, 30, 3)).astype(np.uint8)
    sr = hr + rng.uniform(-50, 50, hr.shape).astype(np.float32)
    target = with_luma_of(hr, np.asarray(sr, np.float32))
    assert np.abs((target - sr) @ np.array(LUMA)).max() <= 0.51
    assert np.abs((target.astype(float) - hr) @ np.array(CHROMA).T).max() <= 0.51


def test_pairs_for_training_are_the_teachers_and_those_for_validation_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for photograph in range(4):
        for tile in range(2):
            Image.fromarray(textured(48, 64, 2 * photograph + tile)).save(folder / f"p{photograph}_{tile}.png")
    teacher = interpolating()
    distil(folder, tmp_path / "taught.pack", 2, teacher, holdout=2)
    build_pack(folder, tmp_path / "plain.pack", 2)
    pack, plain = Pack(tmp_path / "taught.pack"), Pack(tmp_path / "plain.pack")
    training, held_out = pack.split(99)
    # The same photographs as without a teacher.
    assert [[p.name for p in part] for part in (training, held_out)] == [
        sorted(p.name for p in part) for part in plain.split(2)
    ]
    originals = {p.name: p for p in plain.images}
    for image in held_out:
        assert np.array_equal(pack.hr(image), plain.hr(originals[image.name]))
    for image in training:
        lr, original = np.array(pack.lr(image)), np.array(plain.hr(originals[image.name]))
        assert np.array_equal(lr, downscale(original, 2))
        sr = upscale_pixels(teacher, lr)
        inside = (slice(4, -4), slice(4, -4))
        # Not to the code: eight views of it differ from one.
        own = np.abs(luma(np.array(pack.hr(image))) - luma(sr))[inside].mean()
        assert own < 1 < np.abs(luma(original) - luma(sr))[inside].mean()


def test_a_teacher_of_luma_only_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="luma only"):
        distil(tmp_path, tmp_path / "x.pack", 2, Upscaler(PlainSR(Spec(2, 8, 1, colors=1)), device="cpu"), 1)


def test_a_teacher_of_another_factor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="enlarges by 2, not 3"):
        distil(tmp_path, tmp_path / "x.pack", 3, interpolating(), 1)
    assert not (tmp_path / "x.pack").exists()
