"""Colour survives: planes come back from an identity network as they went in, whatever they are."""

from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from repsr_cli.engine.planes import PlaneUpscaler
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.model.plain import PlainSR, identity_network
from repsr_cli.model.spec import Spec
from repsr_cli.yuv.chroma import enlarge_chroma, shrink_chroma
from repsr_cli.yuv.formats import PlaneFormat, Siting
from repsr_cli.yuv.matrices import LUMA_WEIGHTS

sitings: st.SearchStrategy[Siting] = st.sampled_from(["left", "center", "topleft"])
subsamples = st.sampled_from([(1, 1), (1, 2), (2, 1), (2, 2)])


@st.composite
def formats(draw: st.DrawFn) -> PlaneFormat:
    matrices: list[Any] = [*LUMA_WEIGHTS, "rgb", "grey"]
    matrix = draw(st.sampled_from(matrices))
    subsample = draw(subsamples) if matrix in LUMA_WEIGHTS else (1, 1)
    return PlaneFormat(matrix, draw(st.booleans()), draw(st.sampled_from([8, 9, 10, 12, 16])), subsample, draw(sitings))


def random_planes(fmt: PlaneFormat, height: int, width: int, seed: int) -> tuple[NDArray[Any], ...]:
    rng = np.random.default_rng(seed)
    dtype = np.uint8 if fmt.depth == 8 else np.uint16
    sizes = [(height, width)] + [fmt.chroma_size(height, width)] * (0 if fmt.matrix == "grey" else 2)
    return tuple(rng.integers(0, fmt.peak, size, endpoint=True).astype(dtype) for size in sizes)


@settings(max_examples=150, deadline=None)
@given(fmt=formats(), height=st.integers(1, 19), width=st.integers(1, 19), seed=st.integers(0, 9))
def test_an_identity_network_returns_the_same_planes(fmt: PlaneFormat, height: int, width: int, seed: int) -> None:
    planes = random_planes(fmt, height, width, seed)
    back = PlaneUpscaler(Upscaler(identity_network(1), device="cpu"), fmt, fmt)(planes)
    assert len(back) == len(planes)
    for came, went in zip(back, planes, strict=True):
        assert came.dtype == went.dtype
        assert np.array_equal(came, went)


@given(subsample=subsamples, siting=sitings, height=st.integers(1, 13), width=st.integers(1, 13))
def test_shrinking_undoes_enlarging_exactly(
    subsample: tuple[int, int], siting: Siting, height: int, width: int
) -> None:
    fmt = PlaneFormat("bt709", True, 8, subsample, siting)
    chroma = torch.randint(-128, 128, (1, 2, *fmt.chroma_size(height, width))).float()
    enlarged = enlarge_chroma(chroma, fmt, height, width)
    assert enlarged.shape[-2:] == (height, width)
    # Integers over powers of two: no rounding at all.
    assert torch.equal(shrink_chroma(enlarged, fmt), chroma)


def random_network(scale: int, blocks: int, seed: int) -> PlainSR:
    torch.manual_seed(seed)
    net = PlainSR(Spec(scale, 6, blocks)).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.12)
    return net


@settings(max_examples=150, deadline=None)
@given(
    fmt_in=formats(),
    fmt_out=formats(),
    scale=st.integers(1, 4),
    blocks=st.integers(0, 2),
    height=st.integers(1, 14),
    width=st.integers(1, 14),
    seed=st.integers(0, 5),
)
def test_folding_changes_nothing(
    fmt_in: PlaneFormat, fmt_out: PlaneFormat, scale: int, blocks: int, height: int, width: int, seed: int
) -> None:
    """Planes to planes equals planes to RGB to planes, borders included: within one code value, rarely off at all."""
    upscaler = PlaneUpscaler(Upscaler(random_network(scale, blocks, seed), device="cpu"), fmt_in, fmt_out)
    planes = random_planes(fmt_in, height, width, seed)
    folded, explicit = upscaler(planes), upscaler.explicit(planes)
    for ours, reference in zip(folded, explicit, strict=True):
        assert ours.dtype == reference.dtype
        assert ours.shape == reference.shape
        assert ours.flags.c_contiguous
        difference = np.abs(ours.astype(int) - reference.astype(int))
        assert difference.max() <= 1
        assert difference.sum() <= 3 + difference.size * 1e-6 * fmt_out.peak
