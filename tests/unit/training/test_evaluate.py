"""Images to evaluate on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repsr_cli.errors import UsageError
from repsr_cli.training.evaluate import pairs_of
from tests.conftest import textured


def folders(root: Path) -> tuple[Path, Path]:
    hr, lr = root / "hr", root / "lr"
    hr.mkdir()
    lr.mkdir()
    Image.fromarray(textured(24, 32, 0)).save(hr / "a.png")
    Image.fromarray(textured(12, 16, 1)).save(lr / "ax2.png")
    return hr, lr


def test_images_and_their_partners_arrive_as_they_are(tmp_path: Path) -> None:
    hr, lr = folders(tmp_path)
    [(name, small, large)] = pairs_of(hr, 2, lr)
    assert name == "a.png"
    assert np.array_equal(small, textured(12, 16, 1))
    assert np.array_equal(large, textured(24, 32, 0))


def test_grey_becomes_rgb(tmp_path: Path) -> None:
    hr, lr = folders(tmp_path)
    grey = textured(12, 16, 2)[..., 0]
    Image.fromarray(grey).save(lr / "ax2.png")
    [(_, small, _)] = pairs_of(hr, 2, lr)
    assert np.array_equal(small, np.repeat(grey[..., None], 3, 2))


@pytest.mark.parametrize("deep", ["hr", "lr"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_images_of_16_bits_are_refused_on_either_side(tmp_path: Path, deep: str, suffix: str) -> None:
    """Cast to 8 bits, their samples would be taken modulo 256."""
    sides = dict(zip(("hr", "lr"), folders(tmp_path), strict=True))
    [old] = sides[deep].iterdir()
    old.unlink()
    samples = textured(*((24, 32) if deep == "hr" else (12, 16)), 3)[..., 0].astype(np.uint16) * 257
    Image.fromarray(samples).save(old.with_suffix(suffix))
    with pytest.raises(UsageError, match=f"{old.stem}{suffix}: is uint16; figures are defined on 8-bit images"):
        list(pairs_of(sides["hr"], 2, sides["lr"]))
