"""model/blend.py: points on the line between two networks."""

from __future__ import annotations

import pytest
import torch

from repsr_cli.model.blend import blended
from repsr_cli.model.spec import Spec
from tests.zoo_of_pairs import network

SPEC = Spec(scale=2, channels=5, blocks=2)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_ends_are_the_networks_themselves(share: float) -> None:
    ends = network(1, SPEC), network(2, SPEC)
    made = blended(*ends, share).state_dict()
    assert all(torch.equal(made[name], weights) for name, weights in ends[int(share)].state_dict().items())


@pytest.mark.parametrize("share", [0.25, 1 / 3, 0.9])
def test_every_weight_lies_between(share: float) -> None:
    first, second = network(1, SPEC), network(2, SPEC)
    before = {name: weights.clone() for name, weights in first.state_dict().items()}
    made = blended(first, second, share).state_dict()
    assert made.keys() == before.keys()
    for name, weights in made.items():
        expected = before[name].double() * (1 - share) + second.state_dict()[name].double() * share
        torch.testing.assert_close(weights.double(), expected, rtol=1e-7, atol=1e-9)
        assert weights.dtype == torch.float32
        assert torch.equal(first.state_dict()[name], before[name])


def test_networks_of_two_sizes_have_nothing_between_them() -> None:
    with pytest.raises(ValueError, match="cannot be mixed"):
        blended(network(1, SPEC), network(2, Spec(scale=2, channels=6, blocks=2)), 0.5)
