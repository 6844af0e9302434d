"""Frames by ONNX Runtime and ncnn: the same numbers as by torch, for every format, size and tile."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from repsr_cli.engine.backends import ncnn as ncnn_backend
from repsr_cli.engine.backends.backend import LayersBackend
from repsr_cli.engine.backends.ncnn import ncnn_layers
from repsr_cli.engine.backends.ncnn_graph import load_ncnn
from repsr_cli.engine.backends.onnxruntime import onnxruntime_layers
from repsr_cli.engine.backends.registry import ENGINES
from repsr_cli.engine.colour_folding import fold
from repsr_cli.engine.planes import PlaneUpscaler
from repsr_cli.engine.tiling import plan_tiles
from repsr_cli.engine.upscaler import Upscaler
from tests.unit.engine.test_openvino import (
    FORMATS,
    assert_reuse_changes_no_byte,
    assert_same_planes,
    network,
    random_planes,
)

FOREIGN = [
    pytest.param(word, marks=pytest.mark.skipif(not ENGINES[word].installed, reason=f"needs {word}"))
    for word in ("onnxruntime", "ncnn")
]


@pytest.mark.parametrize("engine", FOREIGN)
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", FORMATS)
def test_it_gives_what_torch_gives(engine: str, scale: int, name: str) -> None:
    fmt, net = FORMATS[name], network(scale)
    ours = PlaneUpscaler(Upscaler(net, device="cpu", tile=32, engine=engine), fmt, fmt)
    reference = PlaneUpscaler(Upscaler(net, device="cpu", engine="torch"), fmt, fmt)
    assert ours.engine.startswith(ENGINES[engine].title)
    assert_same_planes(ours, reference, fmt)


@pytest.mark.parametrize("engine", FOREIGN)
def test_features_are_those_of_the_body(engine: str) -> None:
    fmt, net = FORMATS["left"], network(4)
    body = fold(net, fmt, fmt).body
    lr = torch.rand(2, 3, 9, 14).to(memory_format=torch.channels_last)
    (tile,) = plan_tiles(9, 14, (9, 14), 0)
    layers = {"onnxruntime": onnxruntime_layers, "ncnn": ncnn_layers}[engine](body.layers, 1)
    found, expected = LayersBackend(layers, body.skip).run(lr, tile), body(lr)
    assert found.shape == expected.shape
    assert found.is_contiguous()
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


@pytest.mark.parametrize("engine", FOREIGN)
def test_reuse_changes_no_byte(engine: str) -> None:
    fmt, net = FORMATS["left"], network(2)
    reusing = PlaneUpscaler(Upscaler(net, device="cpu", engine=engine), fmt, fmt)
    plain = PlaneUpscaler(Upscaler(net, device="cpu", engine=engine), fmt, fmt, reuse=False)
    assert_reuse_changes_no_byte(reusing, plain, fmt)


@pytest.mark.parametrize("engine", FOREIGN)
def test_it_is_named_where_it_is_used(engine: str) -> None:
    upscaler = Upscaler(network(2), device="cpu", engine=engine)
    assert upscaler.engine == engine
    assert f"videos by {ENGINES[engine].title}" in upscaler.describe()


@pytest.mark.skipif(not ENGINES["ncnn"].installed, reason="needs ncnn")
def test_a_failure_for_want_of_memory_halves_the_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """ncnn tells by a number only; smaller tiles are the remedy, as with torch."""
    fmt, net = FORMATS["left"], network(2)
    load, messages = load_ncnn, list[str]()

    def short_of_memory(*arguments: Any) -> Any:
        real = load(*arguments)

        def create() -> Any:
            extractor = real.create_extractor()
            large = False

            def give(name: str, mat: Any) -> None:
                nonlocal large
                large = mat.h > 48
                extractor.input(name, mat)

            return SimpleNamespace(input=give, extract=lambda name: (-100, None) if large else extractor.extract(name))

        return SimpleNamespace(create_extractor=create)

    monkeypatch.setattr(ncnn_backend, "load_ncnn", short_of_memory)
    planes = random_planes(fmt, 64, 64)
    found = PlaneUpscaler(Upscaler(net, device="cpu", engine="ncnn", notify=messages.append), fmt, fmt)(planes)
    assert any("out of memory" in line for line in messages)
    for ours, theirs in zip(found, PlaneUpscaler(Upscaler(net, device="cpu"), fmt, fmt)(planes), strict=True):
        assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1


@pytest.mark.skipif(not ENGINES["onnxruntime"].installed, reason="needs onnxruntime")
def test_onnxruntime_tells_want_of_memory_from_other_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail

    fmt = FORMATS["left"]
    body = fold(network(2), fmt, fmt).body
    for text, kind in (
        ("BFCArena: Failed to allocate memory for requested buffer", MemoryError),
        ("no such node", Fail),
    ):

        def fail(*_arguments: Any, text: str = text) -> Any:
            raise Fail(text)

        monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, fail=fail, **__: SimpleNamespace(run=fail))
        with pytest.raises(kind, match=text[:8]):
            onnxruntime_layers(body.layers, 1)(torch.rand(1, 3, 8, 8))
