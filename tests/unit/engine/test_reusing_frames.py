"""Reusing what did not change: exact, measured, and off by request."""

import itertools
import threading
from typing import Any

import numpy as np
import pytest
import torch

from repsr_cli.engine import tile_reuse
from repsr_cli.engine.backends.eager import TorchBackend
from repsr_cli.engine.backends.folded import folded_backend
from repsr_cli.engine.colour_folding import fold
from repsr_cli.engine.planes import PlaneUpscaler
from repsr_cli.engine.tensor_tiles import TensorRunner
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.spec import Spec
from repsr_cli.yuv.device_planes import on_host
from repsr_cli.yuv.formats import PlaneFormat
from tests.unit.engine.interrupts import check_frames_are_given_up

LEFT = PlaneFormat("bt709", full_range=False, depth=8, subsample=(2, 2), siting="left")
CENTER = PlaneFormat("bt601", full_range=True, depth=10, subsample=(2, 2), siting="center")


def network(scale: int = 2) -> Any:
    return PlainSR(Spec(scale, 16, 2)).eval()


def frame(fmt: PlaneFormat, height: int = 200, width: int = 260, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    sizes = [(height, width), fmt.chroma_size(height, width), fmt.chroma_size(height, width)]
    return [rng.integers(0, fmt.peak, size).astype(np.uint8 if fmt.depth == 8 else np.uint16) for size in sizes]


def changed(planes: Any, plane: int, row: int, column: int, rows: int = 1, columns: int = 1) -> Any:
    planes = [each.copy() for each in planes]
    planes[plane][row : row + rows, column : column + columns] ^= 1
    return planes


def same(a: Any, b: Any) -> Any:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("fmt", [LEFT, CENTER])
@pytest.mark.parametrize("tile", ["auto", "off", 70])
def test_reuse_changes_no_byte(fmt: PlaneFormat, tile: Any) -> None:
    rng = np.random.default_rng(1)
    net = network()
    reusing = PlaneUpscaler(Upscaler(net, device="cpu", tile=tile), fmt, fmt)
    plain = PlaneUpscaler(Upscaler(net, device="cpu", tile=tile), fmt, fmt, reuse=False)
    planes = frame(fmt)
    for _ in range(12):
        assert same(reusing(planes), plain(planes))
        plane = int(rng.integers(3))
        rows, columns = planes[plane].shape
        planes = changed(planes, plane, int(rng.integers(rows - 6)), int(rng.integers(columns - 6)), 6, 6)
    assert reusing.reused > 0.4
    assert plain.reused == 0


@pytest.mark.parametrize("reuse", [True, False])
def test_frames_begun_before_the_last_is_done_are_the_same(reuse: bool) -> None:
    net, planes = network(), frame(LEFT)
    ahead = PlaneUpscaler(Upscaler(net, device="cpu"), LEFT, LEFT, reuse=reuse)
    plain = PlaneUpscaler(Upscaler(net, device="cpu"), LEFT, LEFT, reuse=False)
    video = []
    for number in range(10):
        video.append(planes)
        # Nothing, a corner, everything.
        if number % 3 == 1:
            planes = changed(planes, 0, 3, 5, 6, 6)
        elif number % 3 == 2:
            planes = tuple(np.roll(plane, 1) for plane in planes)
    begun = [ahead.begin(each) for each in video]
    assert all(same(finish(), plain(each)) for finish, each in zip(begun, video, strict=True))


def test_memory_that_runs_out_while_frames_are_under_way_costs_no_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    net, video = network(), [frame(LEFT, seed=seed) for seed in range(4)]
    ahead = PlaneUpscaler(Upscaler(net, device="cpu"), LEFT, LEFT)
    plain = PlaneUpscaler(Upscaler(net, device="cpu"), LEFT, LEFT, reuse=False)
    expected = [plain(each) for each in video]
    real, calls = TorchBackend.run, itertools.count()

    def forward(self: Any, lr: torch.Tensor, tile: Any) -> Any:
        if next(calls) in (2, 3):
            raise MemoryError
        return real(self, lr, tile)

    monkeypatch.setattr(TorchBackend, "run", forward)
    begun = [ahead.begin(each) for each in video]
    for finish, each in zip(begun, expected, strict=True):
        # Smaller tiles may add in another order.
        assert all(np.abs(a.astype(int) - b).max() <= 1 for a, b in zip(on_host(finish()), each, strict=True))


def test_a_frame_that_stands_still_is_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    upscaler = PlaneUpscaler(Upscaler(network(), device="cpu"), LEFT, LEFT)
    planes = frame(LEFT)
    first = upscaler(planes)
    monkeypatch.setattr(TorchBackend, "run", None)
    assert same(upscaler([plane.copy() for plane in planes]), first)
    assert upscaler.reused == 0.5


def test_planes_that_are_overwritten_in_place_are_noticed() -> None:
    upscaler = PlaneUpscaler(Upscaler(network(), device="cpu"), LEFT, LEFT)
    planes = frame(LEFT)
    first = upscaler(planes)
    planes[0][:] = 255 - planes[0]
    assert not same(upscaler(planes), first)


def test_a_result_that_was_handed_out_stays_as_it_was() -> None:
    upscaler = PlaneUpscaler(Upscaler(network(), device="cpu"), LEFT, LEFT)
    planes = frame(LEFT)
    first = upscaler(planes)
    before = [plane.copy() for plane in first]
    upscaler(changed(planes, 0, 3, 3, 8, 8))
    assert same(first, before)


def test_frames_of_another_size_are_computed_whole() -> None:
    upscaler = PlaneUpscaler(Upscaler(network(), device="cpu"), LEFT, LEFT)
    upscaler(frame(LEFT))
    assert upscaler(frame(LEFT, 20, 30))[0].shape == (40, 60)


def test_where_fine_tiles_are_not_exact_usual_tiles_are_reused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tile_reuse, "is_exact", lambda *_: False)
    net, planes = network(), frame(LEFT)
    upscaler = PlaneUpscaler(Upscaler(net, device="cpu", tile=130), LEFT, LEFT)
    upscaler(planes)
    planes = changed(planes, 0, 3, 3)
    expected = PlaneUpscaler(Upscaler(net, device="cpu", tile=130), LEFT, LEFT)(planes)
    assert same(upscaler(planes), expected)
    assert upscaler.reused == pytest.approx(0.5 * 0.75)


def test_the_check_of_exactness_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    upscaler = Upscaler(network(), device="cpu", tile="off", engine="torch")
    make_backend, _ = folded_backend(fold(upscaler.net, LEFT, LEFT), LEFT, upscaler.settings)
    runner = TensorRunner(make_backend, upscaler.settings, upscaler.spec.reach, 16, margin=1)
    assert tile_reuse.is_exact(runner, 3, (200, 260), 64)
    forward = TorchBackend.run

    def by_another_kernel(this: Any, lr: torch.Tensor, tile: Any) -> Any:
        features = forward(this, lr, tile)
        return features * (1 + 1e-6) if lr.shape[-1] < 200 else features

    monkeypatch.setattr(TorchBackend, "run", by_another_kernel)
    assert not tile_reuse.is_exact(runner, 3, (200, 260), 64)


def overflowing() -> Any:
    """A network, a frame that it computes in fp16, and one that overflows in one corner."""
    net = network()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
        net.body[0].weight[0, 0] = 1e4
        net.body[2].weight[:, 0] = 0
    quiet = [np.full(plane.shape, code, np.uint8) for plane, code in zip(frame(LEFT), (17, 128, 128), strict=True)]
    loud = [plane.copy() for plane in quiet]
    loud[0][:8, :8] = 255
    return net, quiet, loud


def test_in_bf16_tiles_are_under_way_before_a_frame_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    began, run = threading.Event(), TorchBackend.run

    def noticed(this: Any, lr: Any, tile: Any) -> Any:
        began.set()
        return run(this, lr, tile)

    monkeypatch.setattr(TorchBackend, "run", noticed)
    upscaler = Upscaler(network(), device="cpu", precision="bf16", threads=2, engine="torch")
    finish = PlaneUpscaler(upscaler, LEFT, LEFT).begin(frame(LEFT))
    assert began.wait(60)
    finish()


def test_interrupted_the_frames_that_were_begun_ahead_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    upscaler = Upscaler(network(), device="cpu", precision="bf16", threads=2, engine="torch", tile=20)
    frames = PlaneUpscaler(upscaler, LEFT, LEFT, reuse=False)
    check_frames_are_given_up(frames, lambda number: frame(LEFT, seed=number), TorchBackend, monkeypatch)


@pytest.mark.parametrize("reuse", [True, False])
def test_frames_begun_in_half_precision_before_one_overflows_are_what_fp32_gives(reuse: bool) -> None:
    net, quiet, loud = overflowing()
    upscaler = Upscaler(net, device="cpu", precision="fp16", threads=2, engine="torch")
    frames = PlaneUpscaler(upscaler, LEFT, LEFT, reuse=reuse)
    video = [quiet, loud, changed(loud, 0, 100, 90), quiet, changed(quiet, 0, 50, 60), loud]
    found = [finish() for finish in [frames.begin(each) for each in video]]
    exact = PlaneUpscaler(Upscaler(net, device="cpu", precision="fp32", engine="torch"), LEFT, LEFT, reuse=False)
    assert all(same(planes, exact(each)) for planes, each in zip(found[1:], video[1:], strict=True))
    half = PlaneUpscaler(upscaler.variant("torch", "auto", "fp16"), LEFT, LEFT, reuse=False)
    assert same(found[0], half(quiet))


@pytest.mark.parametrize("scale", [2, 4])
def test_bf16_reuses_tiles_without_a_change_of_any_byte(scale: int) -> None:
    net, planes = network(scale), frame(LEFT)
    reusing, plain = (
        PlaneUpscaler(Upscaler(net, device="cpu", precision="bf16", engine="torch"), LEFT, LEFT, reuse=reuse)
        for reuse in (True, False)
    )
    for step in range(5):
        assert same(reusing(planes), plain(planes))
        planes = changed(planes, step % 3, 10, 20 * step, 6, 6)
    assert reusing.reused > 0.4


def test_a_change_of_precision_throws_away_what_was_kept() -> None:
    """The second frame overflows fp16 in one corner: all of it is then what fp32 gives, as it is without reuse."""
    net, quiet, loud = overflowing()
    messages: list[str] = []
    upscaler = PlaneUpscaler(Upscaler(net, device="cpu", precision="fp16", notify=messages.append), LEFT, LEFT)
    upscaler(quiet)
    assert not messages
    after = upscaler(loud)
    assert len(messages) == 1
    assert same(after, PlaneUpscaler(Upscaler(net, device="cpu", precision="fp32"), LEFT, LEFT)(loud))


def test_memory_that_runs_short_while_reusing_costs_nothing_but_time(monkeypatch: pytest.MonkeyPatch) -> None:
    net, planes = network(), frame(LEFT)
    upscaler = PlaneUpscaler(Upscaler(net, device="cpu"), LEFT, LEFT)
    upscaler(planes)
    planes = changed(planes, 0, 100, 100)
    expected = PlaneUpscaler(Upscaler(net, device="cpu"), LEFT, LEFT)(planes)
    forward = TorchBackend.run

    def short(this: Any, lr: torch.Tensor, tile: Any) -> Any:
        if lr.shape[-1] > 50:
            raise MemoryError
        return forward(this, lr, tile)

    monkeypatch.setattr(tile_reuse, "is_exact", lambda *_: True)
    monkeypatch.setattr(TorchBackend, "run", short)
    assert same(upscaler(planes), expected)
