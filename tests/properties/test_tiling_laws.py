"""Tiling is invisible: cores cover once, and tiled equals whole exactly when the overlap is the reach."""

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from repsr_cli.engine.backends.eager import TorchBackend
from repsr_cli.engine.body import body_of
from repsr_cli.engine.settings import RunSettings
from repsr_cli.engine.tensor_tiles import TensorRunner
from repsr_cli.engine.tiling import Tile, fit_tile, plan_tiles
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.spec import Spec

sizes = st.integers(1, 40)


@given(height=sizes, width=sizes, rows=st.integers(1, 45), columns=st.integers(1, 45), overlap=st.integers(0, 9))
def test_cores_cover_every_pixel_once_and_contexts_stay_inside(
    height: int, width: int, rows: int, columns: int, overlap: int
) -> None:
    covered = np.zeros((height, width), int)
    for tile in plan_tiles(height, width, (rows, columns), overlap):
        covered[tile.core.slices()] += 1
        assert tile.core.height <= rows
        assert tile.core.width <= columns
        core, context = tile.core, tile.context
        assert (context.top, context.left) == (max(core.top - overlap, 0), max(core.left - overlap, 0))
        assert context.bottom == min(core.bottom + overlap, height)
        assert context.right == min(core.right + overlap, width)
        assert covered[tile.context.slices()][tile.inner.slices()].shape == (tile.core.height, tile.core.width)
    assert (covered == 1).all()


@settings(deadline=None)
@given(
    height=st.integers(1, 3000), width=st.integers(1, 3000), overlap=st.integers(1, 20), pixels=st.integers(1, 10**6)
)
def test_fitted_tiles_keep_to_the_budget_unless_cores_are_smallest(
    height: int, width: int, overlap: int, pixels: int
) -> None:
    core = fit_tile(height, width, overlap, pixels)
    largest = max(tile.context.area for tile in plan_tiles(height, width, core, overlap))
    assert largest <= pixels or (core[0] <= 32 and core[1] <= 32 + 31)


def random_network(scale: int, blocks: int, colors: int, seed: int) -> PlainSR:
    torch.manual_seed(seed)
    net = PlainSR(Spec(scale, 6, blocks, colors)).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    return net


@settings(max_examples=60, deadline=None)
@given(
    height=sizes,
    width=sizes,
    tile=st.integers(1, 41),
    scale=st.integers(1, 4),
    blocks=st.integers(0, 3),
    colors=st.sampled_from([1, 3]),
    seed=st.integers(0, 3),
)
def test_tiled_equals_whole(
    height: int, width: int, tile: int, scale: int, blocks: int, colors: int, seed: int
) -> None:
    net = random_network(scale, blocks, colors, seed)
    lr = torch.rand(1, 3, height, width)
    whole = Upscaler(net, device="cpu", tile="off")(lr)
    tiled = Upscaler(net, device="cpu", tile=max(tile, min(height, width) // 6))(lr)
    assert (tiled - whole).abs().max() <= 1e-6 * max(1, float(whole.abs().max()))


@settings(max_examples=20, deadline=None)
@given(height=sizes, width=sizes, tile=st.integers(6, 41), blocks=st.integers(0, 3), seed=st.integers(0, 3))
def test_tiled_equals_whole_in_bf16(height: int, width: int, tile: int, blocks: int, seed: int) -> None:
    """Kernels may add in another order; a feature rounded the other way is off by one part in 256.

    A seam would be off by far more, as the test below shows.
    """
    net = random_network(2, blocks, 3, seed)
    lr = torch.rand(1, 3, height, width)
    exact = Upscaler(net, device="cpu", precision="fp32", tile="off")(lr)
    whole = Upscaler(net, device="cpu", precision="bf16", tile="off")(lr)
    tiled = Upscaler(net, device="cpu", precision="bf16", tile=tile)(lr)
    assert (tiled - whole).abs().max() <= 0.004 * max(1, float((exact - lr.mean()).abs().max()))


@settings(max_examples=20, deadline=None)
@given(tile=st.integers(4, 12), blocks=st.integers(0, 3), seed=st.integers(0, 3))
def test_tiled_differs_from_whole_when_the_overlap_is_one_short(tile: int, blocks: int, seed: int) -> None:
    net = random_network(2, blocks, 3, seed)
    lr = torch.rand(1, 3, 24, 24)
    whole = Upscaler(net, device="cpu", tile="off")(lr)
    tiled = torch.empty_like(whole)
    settings = RunSettings(torch.device("cpu"), torch.float32, tile)
    make_backend = partial(TorchBackend, body_of(net), settings.device)
    runner = TensorRunner(make_backend, settings, net.spec.reach - 1, channels=12)

    def write(features: torch.Tensor, each: Tile) -> None:
        core = F.pixel_shuffle(features.permute(0, 3, 1, 2), 2)
        tiled[(..., *each.core.slices(2))] = core

    runner(lr, write)
    assert (tiled - whole).abs().max() > 1e-5
