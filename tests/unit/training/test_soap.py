from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from repsr_cli.training.soap import SOAP


def _ill_conditioned(seed: int) -> tuple[nn.Linear, torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    inputs = torch.randn(256, 12) @ torch.diag(torch.logspace(0, -2, 12)) @ torch.linalg.qr(torch.randn(12, 12))[0]
    targets = inputs @ torch.randn(12, 5)
    return nn.Linear(12, 5), inputs, targets


def _loss_after(
    optimizer: torch.optim.Optimizer, net: nn.Module, x: torch.Tensor, y: torch.Tensor, steps: int
) -> float:
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (net(x) - y).square().mean()
        loss.backward()
        optimizer.step()
    return float((net(x) - y).square().mean().detach())


def test_learns_an_ill_conditioned_problem_faster_than_adam() -> None:
    results = []
    for kind in (SOAP, torch.optim.Adam):
        net, x, y = _ill_conditioned(3)
        results.append(_loss_after(kind(net.parameters(), lr=1e-2, betas=(0.9, 0.99)), net, x, y, 500))
    assert results[0] < 0.1 * results[1]


def test_first_step_only_gathers_statistics_for_matrices() -> None:
    net, x, y = _ill_conditioned(0)
    before = net.weight.detach().clone()
    _loss_after(SOAP(net.parameters(), lr=1e-2), net, x, y, 1)
    assert torch.equal(net.weight, before)


def test_vectors_get_adam() -> None:
    """Parameters without a matrix shape follow torch's Adam; only the first, gathering call differs for matrices."""
    ours, theirs = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))
    soap = SOAP([ours], lr=1e-2, betas=(0.9, 0.99))
    adam = torch.optim.Adam([theirs], lr=1e-2, betas=(0.9, 0.99))
    for step in range(20):
        gradient = torch.tensor([1.0, -2.0, 0.3, 0.0]) * (step + 1)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        soap.step()
        adam.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_bases_stay_orthonormal_and_the_convolution_keeps_its_shape() -> None:
    torch.manual_seed(0)
    net = nn.Conv2d(3, 8, 3)
    optimizer = SOAP(net.parameters(), lr=1e-3, refresh=2)
    x = torch.rand(4, 3, 9, 9)
    for _ in range(7):
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()
    state = optimizer.state[net.weight]
    for basis, size in ((state["left_basis"], 8), (state["right_basis"], 27)):
        assert torch.allclose(basis.T @ basis, torch.eye(size), atol=1e-4)
    assert net.weight.shape == (8, 3, 3, 3)


@pytest.mark.parametrize("cut", [1, 9, 10, 13])
def test_saved_and_restored_goes_on_bit_for_bit(cut: int) -> None:
    net, x, y = _ill_conditioned(1)
    optimizer = SOAP(net.parameters(), lr=1e-2)
    _loss_after(optimizer, net, x, y, cut)
    twin = copy.deepcopy(net)
    restored = SOAP(twin.parameters(), lr=1e-2)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    _loss_after(optimizer, net, x, y, 15)
    _loss_after(restored, twin, x, y, 15)
    assert torch.equal(net.weight, twin.weight)
    assert torch.equal(net.bias, twin.bias)
