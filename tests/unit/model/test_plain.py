from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from repsr_cli.model.plain import PlainSR, identity_network
from repsr_cli.model.spec import Spec


@pytest.mark.parametrize(("blocks", "channels", "scale", "parameters"), [(16, 64, 4, 621_424), (8, 24, 2, 45_156)])
def test_parameter_count_is_that_of_the_compact_family(blocks: int, channels: int, scale: int, parameters: int) -> None:
    net = PlainSR(Spec(scale=scale, channels=channels, blocks=blocks))
    assert sum(p.numel() for p in net.parameters()) == parameters


def test_keys_are_the_compact_layout() -> None:
    net = PlainSR(Spec(scale=4, channels=8, blocks=2))
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    assert shapes["body.0.weight"] == (8, 3, 3, 3)
    assert shapes["body.1.weight"] == (8,)
    assert shapes["body.6.weight"] == (48, 8, 3, 3)
    assert len(shapes) == 2 * 4 + 3


def test_identity_network_is_nearest_enlargement() -> None:
    lr = torch.rand(2, 3, 5, 7)
    assert torch.equal(identity_network(3)(lr), F.interpolate(lr, scale_factor=3, mode="nearest"))


def test_reach_is_the_exact_receptive_radius() -> None:
    net = PlainSR(Spec(scale=1, channels=4, blocks=2)).double()
    lr = torch.rand(1, 3, 21, 21, dtype=torch.float64, requires_grad=True)
    net(lr)[0, :, 10, 10].sum().backward()
    assert lr.grad is not None
    touched = lr.grad[0].abs().sum(0).nonzero()
    assert (int(touched.min()), int(touched.max())) == (10 - net.spec.reach, 10 + net.spec.reach)


@pytest.mark.parametrize("field", ["scale", "channels", "colors"])
def test_spec_refuses_nonsense(field: str) -> None:
    values = {"scale": 2, "channels": 8, "blocks": 1, "colors": 3} | {field: 0}
    with pytest.raises(ValueError, match=field):
        Spec(**values)
