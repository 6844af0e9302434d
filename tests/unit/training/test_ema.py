from __future__ import annotations

import pytest
import torch

from repsr_cli.model.repsr import RepSR
from repsr_cli.model.spec import Spec
from repsr_cli.training.ema import copy_weights, measure_statistics, update_ema


def _net() -> RepSR:
    return RepSR(Spec(scale=2, channels=4, blocks=2))


def test_average_moves_parameters_only() -> None:
    average, net = _net(), _net()
    a, n = average.head.weight.detach().clone(), net.head.weight.detach().clone()
    for norm in net.norms():
        assert norm.running_mean is not None
        norm.running_mean.fill_(9)
    update_ema(average, net, 0.75)
    assert torch.allclose(average.head.weight, 0.75 * a + 0.25 * n)
    assert all(norm.running_mean is not None and norm.running_mean.abs().max() == 0 for norm in average.norms())


def test_copy_takes_statistics_and_phase() -> None:
    average, net = _net(), _net()
    net.train()
    net(torch.rand(4, 3, 8, 8))
    net.freeze_bn()
    copy_weights(average, net)
    assert average.bn_frozen
    assert all(torch.equal(x, y) for x, y in zip(average.buffers(), net.buffers(), strict=True))


def test_measured_statistics_are_the_networks_own() -> None:
    """With population statistics of exactly these images, evaluation equals normalising by the batch itself."""
    net = _net().double()
    lr = torch.rand(4, 3, 12, 12, dtype=torch.float64)
    net.train()
    with torch.no_grad():
        by_batch = net(lr)
    for norm in net.norms():
        assert norm.running_mean is not None
        norm.running_mean.fill_(7)
    net.eval()
    measure_statistics(net, [lr])
    assert not net.training
    assert all(norm.momentum == 0.1 for norm in net.norms())
    with torch.no_grad():
        difference = (net(lr) - by_batch).abs().max()
    # Not zero: the population variance is the unbiased estimate, 576 pixels here.
    assert difference < 5e-3 * by_batch.abs().max()


def test_frozen_statistics_cannot_be_measured() -> None:
    net = _net()
    net.freeze_bn()
    with pytest.raises(RuntimeError):
        measure_statistics(net, [torch.rand(1, 3, 4, 4)])
