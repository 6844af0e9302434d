from __future__ import annotations

import pytest
import torch

from repsr_cli.training.losses import reconstruction_loss


def test_values_by_hand() -> None:
    sr = torch.zeros(1, 3, 1, 2)
    hr = torch.tensor([[0.1, 0.1], [0.2, 0.2], [0.3, 0.3]])[None, :, None, :]
    luma = 0.299 * 0.1 + 0.587 * 0.2 + 0.114 * 0.3
    assert float(reconstruction_loss(sr, hr, "l1", 0.0)) == pytest.approx(0.2)
    assert float(reconstruction_loss(sr, hr, "l1", 0.5)) == pytest.approx(0.2 + 0.5 * luma)
    assert float(reconstruction_loss(sr, hr, "l2", 2.0)) == pytest.approx(0.14 / 3 + 2 * luma**2)
    assert float(reconstruction_loss(sr, sr, "charbonnier", 0.0)) == pytest.approx(1e-3)


def test_luma_term_ignores_pure_chroma() -> None:
    chroma = torch.tensor([0.114, 0.0, -0.299])[None, :, None, None].expand(1, 3, 4, 4)
    sr = torch.zeros(1, 3, 4, 4)
    plain = reconstruction_loss(sr, chroma, "l1", 0.0)
    assert float(reconstruction_loss(sr, chroma, "l1", 9.0)) == pytest.approx(float(plain), abs=1e-6)


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match="l3"):
        reconstruction_loss(torch.zeros(1, 3, 1, 1), torch.zeros(1, 3, 1, 1), "l3", 0.0)
