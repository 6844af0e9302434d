from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch
import torch.distributed as dist

from repsr_cli.model.repsr import BatchNorm, RepSR, fuse
from repsr_cli.model.spec import Spec
from tests.conftest import present, randomise_statistics


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
    net.forward_merged(torch.rand(2, 3, 8, 8)).square().mean().backward()  # type: ignore[no-untyped-call]
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


@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-9), (torch.float32, 1e-3), (torch.bfloat16, 0.02)])
def test_statistics_of_all_processes_in_every_precision(dtype: Any, near: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    features = (30 + torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)).double()).to(dtype)
    alone, together = torch.nn.BatchNorm2d(3), BatchNorm(3)
    if dtype == torch.float64:
        alone, together = alone.double(), together.double()
    expected = alone(torch.cat([features, features]))[:4]
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_reduce", lambda total: total.mul_(2))  # the other process has the same images
    found = together(features)
    assert found.dtype == dtype
    assert (found - expected).abs().max() < near
    assert torch.allclose(present(together.running_mean), present(alone.running_mean), rtol=1e-3)
    assert torch.allclose(present(together.running_var), present(alone.running_var), rtol=1e-3)


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_both_forms_compile() -> None:
    net = RepSR(Spec(2, 6, 2))
    lr = torch.rand(2, 3, 12, 12)
    net.train()(lr)
    net.freeze_bn()
    for form in (net.forward, net.forward_merged):
        expected = form(lr)
        assert torch.allclose(torch.compile(form)(lr), expected, atol=1e-5)


def test_a_kernel_is_merged_in_full_precision_under_autocast() -> None:
    net = RepSR(Spec(2, 6, 1))
    net.freeze_bn()
    lr = torch.rand(1, 3, 12, 12)
    plain = fuse(net)
    body = plain.convolutions[1]
    with torch.no_grad():
        block: Any = net.blocks[0]
        kernel, bias = block.kernel()
        body.weight.copy_(kernel)
        present(body.bias).copy_(bias)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(net.forward_merged(lr), plain(lr))
