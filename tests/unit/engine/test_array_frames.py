"""Frames without torch: byte for byte those that OpenVINO gives where torch holds the tiles."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from repsr_cli.engine.array_frames import ArrayCompute, ArrayFrames, ArrayRunner, place
from repsr_cli.engine.backends.openvino_graphs import OpenVinoGraphs
from repsr_cli.engine.planes import PlaneUpscaler
from repsr_cli.engine.upscaler import Upscaler, weights_digest
from repsr_cli.errors import DeviceError
from repsr_cli.model.arrays import NetworkArrays
from repsr_cli.model.plain import PlainSR
from repsr_cli.yuv.formats import PlaneFormat
from tests.unit.engine.interrupts import check_frames_are_given_up
from tests.unit.engine.test_openvino import FORMATS, NOT_COMPILED, needs_openvino, network, random_planes


def without_torch(net: PlainSR, precision: str = "fp32", tile: str = "auto", threads: int = 2) -> ArrayCompute:
    state = {name: weights.numpy() for name, weights in net.state_dict().items()}
    return ArrayCompute(NetworkArrays(net.spec, state), precision, tile, threads)


def equal(found: Any, expected: Any) -> bool:
    return all(
        one.dtype == other.dtype and np.array_equal(one, other) for one, other in zip(found, expected, strict=True)
    )


@needs_openvino
@pytest.mark.parametrize(
    ("name", "scale"), [(name, scale) for name in FORMATS for scale in (2, 3, 4) if (name, scale) not in NOT_COMPILED]
)
def test_the_bytes_are_those_with_torch(name: str, scale: int) -> None:
    fmt, net = FORMATS[name], network(scale)
    for threads, tile in ((2, "auto"), (1, "auto:3000")):
        ours = without_torch(net, "fp32", tile, threads).frames(fmt, fmt, reuse=False)
        with_torch = PlaneUpscaler(
            Upscaler(net, "cpu", "fp32", tile, threads, engine="openvino"), fmt, fmt, reuse=False
        )
        for height, width in ((1, 1), (3, 2), (70, 90)):
            planes = random_planes(fmt, height, width)
            assert equal(ours.begin(planes)(), with_torch(planes))


@needs_openvino
def test_interrupted_the_frames_that_were_begun_ahead_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    fmt = FORMATS[next(iter(FORMATS))]
    frames = without_torch(network(2), tile="auto:3000").frames(fmt, fmt, reuse=False)
    check_frames_are_given_up(frames, lambda _: random_planes(fmt, 150, 200), OpenVinoGraphs, monkeypatch)


@needs_openvino
def test_it_says_of_itself_what_torch_would() -> None:
    net = network(4)
    ours = without_torch(net, "bf16", "auto:40000", 2)
    with_torch = Upscaler(net, "cpu", "bf16", "auto:40000", 2, engine="openvino")
    assert ours.describe() == with_torch.describe()
    assert ours.digest() == weights_digest(net)
    assert (ours.name, ours.engine_name) == (with_torch.name, with_torch.engine_name)
    assert (str(ours.device), ours.device.type) == (str(with_torch.device), with_torch.device.type)


@needs_openvino
def test_what_stands_still_is_not_computed_again_and_no_byte_changes() -> None:
    fmt, net = FORMATS["left"], network(2)
    reusing = without_torch(net).frames(fmt, fmt, reuse=True)
    plain = without_torch(net).frames(fmt, fmt, reuse=False)
    planes = random_planes(fmt, 200, 260)
    for step in range(4):
        assert equal(reusing.begin(planes)(), plain.begin(planes)())
        planes = [plane.copy() for plane in planes]
        planes[step % 3][10:16, 20 * step : 20 * step + 6] ^= 1
    assert reusing.reused > 0.4
    assert plain.reused == 0
    assert equal(reusing.begin(planes)(), plain.begin(planes)())
    before = reusing.reused
    assert equal(reusing.begin(planes)(), plain.begin(planes)())
    assert reusing.reused > before


@needs_openvino
def test_progress_is_reported_and_may_cancel() -> None:
    fmt, done = FORMATS["rgb"], []
    frames = without_torch(network(2), tile="auto:3000").frames(fmt, fmt, reuse=False)
    planes = random_planes(fmt, 70, 90)
    frames.begin(planes, lambda tiles, total: done.append((tiles, total)))()
    assert done == [(at, done[0][1]) for at in range(1, done[0][1] + 1)]
    assert len(done) > 1

    def cancel(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        frames.begin(planes, cancel)()


@needs_openvino
def test_where_memory_is_short_tiles_become_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    fmt, net, messages = FORMATS["left"], network(2), list[str]()
    compute = replace(without_torch(net), notify=messages.append)
    planes = random_planes(fmt, 100, 130)
    expected = compute.frames(fmt, fmt, reuse=False).begin(planes)()
    run, limit = OpenVinoGraphs.run, 90

    def short(this: Any, context: Any, tile: Any) -> Any:
        if max(context.shape) > limit:
            raise RuntimeError("std::bad_alloc: out of memory")
        return run(this, context, tile)

    monkeypatch.setattr(OpenVinoGraphs, "run", short)
    assert equal(compute.frames(fmt, fmt, reuse=False).begin(planes)(), expected)
    assert messages == ["out of memory on cpu; going on with tiles of 50 pixels"]
    limit = 8
    with pytest.raises(DeviceError, match="smallest tile"):
        compute.frames(fmt, fmt, reuse=False).begin(planes)()


@needs_openvino
def test_memory_is_looked_for_before_a_graph_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repsr_cli.engine.backends.openvino_graphs._MEMORY", 1 << 62)
    with pytest.raises(DeviceError, match="out of memory"):
        without_torch(network(2)).frames(FORMATS["left"], FORMATS["left"], reuse=False).begin(
            random_planes(FORMATS["left"], 20, 30)
        )()


@needs_openvino
def test_other_errors_are_not_taken_for_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    fmt = FORMATS["left"]
    frames: ArrayFrames = without_torch(network(2)).frames(fmt, fmt, reuse=False)

    def broken(*_: Any) -> Any:
        raise RuntimeError("unsupported layer")

    monkeypatch.setattr(OpenVinoGraphs, "run", broken)
    with pytest.raises(RuntimeError, match="unsupported layer"):
        frames.begin(random_planes(fmt, 8, 8))()


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (4, 4), (3, 3), (2, 1), (1, 1), (2, 4)])
def test_samples_are_shuffled_to_their_place(rows: int, columns: int, kind: type[np.unsignedinteger[Any]]) -> None:
    h, w = 3, 5
    wide = np.arange(h * w * (rows * columns + 4)).reshape(h, w, -1).astype(kind)
    samples, plane = wide[..., 4:], np.zeros((h * rows + 2, (w + 1) * columns), kind)
    place(samples, plane[2:, columns:], rows, columns)
    for y in range(h * rows):
        for x in range(w * columns):
            sample = samples[y // rows, x // columns, y % rows * columns + x % columns]
            assert plane[2 + y, columns + x] == sample
    assert not plane[:2].any()
    assert not plane[:, :columns].any()


def test_tiles_cover_an_image_as_torch_cuts_it() -> None:
    net = network(2)
    fmt: PlaneFormat = FORMATS["left"]
    ours = ArrayRunner(None, "fp32", 4, 1, 2, "auto:3000", "cpu", lambda _line: None)
    with_torch = PlaneUpscaler(Upscaler(net, "cpu", "fp32", "auto:3000", 2, engine="torch"), fmt, fmt)
    tiles = with_torch._tiled.runner.plan(200, 260) if with_torch._tiled is not None else []
    assert ours.plan(200, 260) == tiles
    assert ours.plan(200, 260, 64)[0].core.width <= 64
