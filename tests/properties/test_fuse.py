"""I1: the fused network equals the trained one, borders included."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repsr_cli.model.repsr import RepSR, fuse
from repsr_cli.model.spec import Spec
from tests.conftest import randomise_statistics

specs = st.builds(
    Spec,
    scale=st.integers(1, 4),
    channels=st.integers(1, 9),
    blocks=st.integers(0, 4),
    colors=st.sampled_from([1, 3]),
)


@settings(max_examples=40, deadline=None)
@given(
    spec=specs,
    expansion=st.integers(1, 3),
    norm=st.booleans(),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    seed=st.integers(0, 2**31),
)
def test_fused_equals_trained(spec: Spec, expansion: int, norm: bool, height: int, width: int, seed: int) -> None:
    torch.manual_seed(seed)
    net = RepSR(spec, expansion, norm).double()
    randomise_statistics(net)
    net.eval()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    plain = fuse(net)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    lr = torch.rand(2, spec.colors, height, width, dtype=torch.float64)
    with torch.no_grad():
        assert (net(lr) - plain(lr)).abs().max() <= 1e-10
        single = fuse(net.float())
        assert (net(lr.float()) - single(lr.float())).abs().max() <= 1e-4 * max(1.0, float(net(lr.float()).abs().max()))


def test_a_wrong_merge_is_noticed() -> None:
    """The law above can fail: a merge with another eps, as one public port has it, is seen at once."""
    net = RepSR(Spec(scale=2, channels=4, blocks=2)).double()
    randomise_statistics(net)
    net.eval()
    lr = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    expected = net(lr)
    for norm in net.norms():
        norm.eps = 1e-7
    assert (expected - fuse(net)(lr)).abs().max() > 1e-8
