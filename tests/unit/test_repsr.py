from __future__ import annotations

import pytest
import torch

from repsr_cli.model.plain import Spec
from repsr_cli.model.repsr import RepSR
from tests.conftest import randomise_statistics


def test_frozen_bn_survives_train() -> None:
    net = RepSR(Spec(scale=2, channels=4, blocks=2))
    net.freeze_bn()
    for _ in range(2):
        net.train()
        assert net.training
        assert not any(norm.training for norm in net.norms())
    before = [norm.running_mean.clone() for norm in net.norms() if norm.running_mean is not None]
    net(torch.rand(2, 3, 8, 8))
    after = [norm.running_mean for norm in net.norms() if norm.running_mean is not None]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_frozen_bn_keeps_learning_its_affine_part() -> None:
    net = RepSR(Spec(scale=2, channels=4, blocks=1))
    net.freeze_bn()
    net.forward_merged(torch.rand(2, 3, 8, 8)).square().mean().backward()
    for norm in net.norms():
        assert norm.weight.grad is not None
        assert norm.weight.grad.abs().sum() > 0


def test_merged_form_refuses_batch_statistics() -> None:
    with pytest.raises(RuntimeError, match="frozen"):
        RepSR(Spec(scale=2, channels=4, blocks=1)).forward_merged(torch.rand(1, 3, 4, 4))


def test_without_bn_merged_form_is_always_available() -> None:
    net = RepSR(Spec(scale=2, channels=4, blocks=1), norm=False)
    assert net.bn_frozen
    lr = torch.rand(1, 3, 6, 6)
    assert torch.allclose(net(lr), net.forward_merged(lr), atol=1e-6)


def test_merged_and_branched_gradients_agree() -> None:
    net = RepSR(Spec(scale=2, channels=4, blocks=2)).double()
    randomise_statistics(net)
    net.freeze_bn()
    lr = torch.rand(2, 3, 9, 7, dtype=torch.float64)
    gradients = []
    for form in (net, net.forward_merged):
        net.zero_grad()
        form(lr).square().sum().backward()
        gradients.append([p.grad.clone() for p in net.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(list(net.parameters()))
    for branched, merged in zip(*gradients, strict=True):
        assert torch.allclose(branched, merged, rtol=1e-9, atol=1e-9)
