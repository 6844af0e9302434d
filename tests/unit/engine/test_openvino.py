"""Frames by OpenVINO: the same numbers as by torch, for every format, size and tile it takes."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from repsr_cli.engine.backends.registry import ENGINES, computes_bf16
from repsr_cli.engine.planes import PlaneUpscaler
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.spec import Spec
from repsr_cli.yuv.formats import PlaneFormat

needs_openvino = pytest.mark.skipif(not ENGINES["openvino"].installed, reason="needs openvino")

FORMATS = {
    "left": PlaneFormat("bt709", full_range=False, depth=8, subsample=(2, 2), siting="left"),
    "left, 10 bit": PlaneFormat("bt709", full_range=False, depth=10, subsample=(2, 2), siting="left"),
    "centre": PlaneFormat("bt601", full_range=True, depth=8, subsample=(2, 2), siting="center"),
    "topleft": PlaneFormat("bt2020", full_range=False, depth=10, subsample=(2, 2), siting="topleft"),
    "4:2:2": PlaneFormat("bt709", full_range=False, depth=8, subsample=(1, 2), siting="left"),
    "rgb": PlaneFormat("rgb", full_range=True, depth=8),
    "grey": PlaneFormat("grey", full_range=True, depth=8),
}
# Where chroma is filtered down the image or at an odd scale, torch computes.
NOT_COMPILED = {("topleft", 2), ("topleft", 4)} | {
    (name, 3) for name in ("left", "left, 10 bit", "centre", "topleft", "4:2:2")
}


def network(scale: int) -> PlainSR:
    torch.manual_seed(scale)
    return PlainSR(Spec(scale, 8, 1)).eval()


def random_planes(fmt: PlaneFormat, height: int, width: int) -> list[np.ndarray]:
    rng = np.random.default_rng(height * width)
    sizes = [(height, width)] + [fmt.chroma_size(height, width)] * (0 if fmt.matrix == "grey" else 2)
    return [rng.integers(0, fmt.peak + 1, size).astype(np.uint8 if fmt.depth == 8 else np.uint16) for size in sizes]


def assert_same_planes(ours: PlaneUpscaler, reference: PlaneUpscaler, fmt: PlaneFormat) -> None:
    """What every engine is held to: planes like those by way of RGB, but for a rounding here and there."""
    for height, width in ((1, 1), (3, 2), (2, 3), (40, 70)):
        planes = random_planes(fmt, height, width)
        for found, expected in zip(ours(planes), reference.explicit(planes), strict=True):
            assert found.dtype == expected.dtype
            difference = np.abs(found.astype(int) - expected.astype(int))
            assert difference.max() <= 1
            assert difference.sum() <= 3


def assert_reuse_changes_no_byte(reusing: PlaneUpscaler, plain: PlaneUpscaler, fmt: PlaneFormat) -> None:
    """Of a video in which little changes from frame to frame."""
    planes = random_planes(fmt, 200, 260)
    for step in range(4):
        for found, expected in zip(reusing(planes), plain(planes), strict=True):
            assert np.array_equal(found, expected)
        planes = [plane.copy() for plane in planes]
        planes[step % 3][10:16, 20 * step : 20 * step + 6] ^= 1


@needs_openvino
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", FORMATS)
def test_it_gives_what_torch_gives(scale: int, name: str) -> None:
    fmt, net = FORMATS[name], network(scale)
    ours = PlaneUpscaler(Upscaler(net, device="cpu", tile=32, engine="openvino"), fmt, fmt)
    reference = PlaneUpscaler(Upscaler(net, device="cpu", engine="torch"), fmt, fmt)
    assert ours.engine.startswith("torch" if (name, scale) in NOT_COMPILED else "OpenVINO")
    assert_same_planes(ours, reference, fmt)


@needs_openvino
def test_reuse_changes_no_byte() -> None:
    fmt, net = FORMATS["left"], network(2)
    reusing = PlaneUpscaler(Upscaler(net, device="cpu"), fmt, fmt)
    plain = PlaneUpscaler(Upscaler(net, device="cpu"), fmt, fmt, reuse=False)
    assert_reuse_changes_no_byte(reusing, plain, fmt)
    assert reusing.reused > 0.4


@needs_openvino
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_computes_in_the_precision_asked_for(precision: str) -> None:
    """In bf16 it is asked to; a CPU without computes in fp32, and differs from torch by rounding only."""
    fmt, net = FORMATS["rgb"], network(2)
    ours = PlaneUpscaler(Upscaler(net, device="cpu", precision=precision, engine="openvino"), fmt, fmt)
    exact = PlaneUpscaler(Upscaler(net, device="cpu", precision="fp32", engine="torch"), fmt, fmt)
    planes = random_planes(fmt, 60, 50)
    difference = np.stack([np.abs(a.astype(int) - b) for a, b in zip(ours(planes), exact(planes), strict=True)])
    assert difference.max() <= (1 if precision == "fp32" else 4)
    if precision == "bf16" and computes_bf16():
        assert difference.any()


@needs_openvino
def test_it_is_named_where_it_is_used() -> None:
    assert "videos by OpenVINO" in Upscaler(network(2), device="cpu").describe()
    assert "OpenVINO" not in Upscaler(network(2), device="cpu", engine="torch").describe()


@needs_openvino
def test_what_it_does_not_take_is_said() -> None:
    messages: list[str] = []
    net = network(3)
    PlaneUpscaler(Upscaler(net, device="cpu", notify=messages.append), FORMATS["left"], FORMATS["left"])
    assert len(messages) == 1
    assert "torch computes" in messages[0]


@needs_openvino
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="tells no affinity")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="there is one core only")
def test_threads_stay_on_all_cores_that_they_may_use() -> None:
    """Pinned to a core, those of two processes would share it."""
    fmt = FORMATS["left"]
    planes = PlaneUpscaler(Upscaler(network(2), "cpu", threads=1, engine="openvino"), fmt, fmt, reuse=False)
    before = os.sched_getaffinity(0)
    try:
        planes(random_planes(fmt, 40, 60))
        assert os.sched_getaffinity(0) == before
    finally:
        os.sched_setaffinity(0, before)
