"""Frames on a GPU: captured graphs, batches and streams give what the CPU gives, and keep up with each other."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pytest
import torch

from repsr_cli.engine.backends.registry import ENGINES
from repsr_cli.engine.planes import PlaneUpscaler
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.yuv.device_planes import on_host
from tests.unit.engine.test_cuda_batches import LEFT, frame, network
from tests.unit.engine.test_openvino import FORMATS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_gpu_gives_what_the_cpu_gives(scale: int, name: Any, precision: str) -> None:
    fmt, net = FORMATS[name], network(scale)
    gpu = PlaneUpscaler(Upscaler(net, device="cuda", precision=precision), fmt, fmt)
    cpu = PlaneUpscaler(Upscaler(net, device="cpu", engine="torch"), fmt, fmt)
    for height, width in ((3, 2), (40, 70), (135, 240)):
        video = [frame(fmt, height, width, seed) for seed in range(3)]
        begun = [gpu.begin(planes) for planes in video]
        assert gpu.ahead > 1
        for planes, finish in zip(video, begun, strict=True):
            for found, expected in zip(on_host(finish()), cpu(planes), strict=True):
                assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


def test_a_long_video_keeps_its_order() -> None:
    net = network(4)
    gpu = PlaneUpscaler(Upscaler(net, device="cuda", precision="fp32"), LEFT, LEFT)
    cpu = PlaneUpscaler(Upscaler(net, device="cpu", engine="torch"), LEFT, LEFT)
    video = [frame(LEFT, 64, 96, seed) for seed in range(150)]
    begun, found = deque[Any](), []
    for planes in video:
        begun.append(gpu.begin(planes))
        while len(begun) > gpu.ahead:
            found.append(begun.popleft()())
    found += [finish() for finish in begun]
    for planes, ours in zip(video, found, strict=True):
        for a, b in zip(ours, cpu(planes), strict=True):
            assert np.abs(a.astype(int) - b.astype(int)).max() <= 1


def test_half_precision_that_overflows_goes_on_in_fp32() -> None:
    net = network()
    with torch.no_grad():
        net.body[0].weight.mul_(3e5)
        net.body[2].weight.mul_(1e-6)
    messages: list[str] = []
    gpu = PlaneUpscaler(Upscaler(net, device="cuda", precision="fp16", notify=messages.append), LEFT, LEFT)
    cpu = PlaneUpscaler(Upscaler(net, device="cpu", engine="torch"), LEFT, LEFT)
    for seed in range(3):
        planes = frame(LEFT, 24, 30, seed)
        for a, b in zip(gpu(planes), cpu(planes), strict=True):
            assert np.abs(a.astype(int) - b.astype(int)).max() <= 1
    assert any("overflowed" in line for line in messages)


@pytest.mark.parametrize("engine", ["compile", "tensorrt"])
def test_a_compilers_network_gives_what_the_cpu_gives(engine: str) -> None:
    if not ENGINES[engine].installed:
        pytest.skip(f"needs {ENGINES[engine].title}")
    net = network(4)
    gpu = PlaneUpscaler(Upscaler(net, device="cuda", precision="fp16", engine=engine), LEFT, LEFT)
    cpu = PlaneUpscaler(Upscaler(net, device="cpu", engine="torch"), LEFT, LEFT)
    planes = frame(LEFT, 64, 96)
    for a, b in zip(gpu(planes), cpu(planes), strict=True):
        assert np.abs(a.astype(int) - b.astype(int)).max() <= 1
