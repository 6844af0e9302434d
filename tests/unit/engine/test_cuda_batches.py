"""Whole frames in batches, held to the way by tiles: by queues that lag behind as a device's do."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pytest
import torch

from repsr_cli.engine import cuda_batches as gpu
from repsr_cli.engine import planes as plane_upscaling
from repsr_cli.engine.colour_folding import fold
from repsr_cli.engine.cuda_batches import LARGEST_BATCH, SLOTS, CudaBatches, CudaQueues, PlanesNetwork
from repsr_cli.engine.planes import PlaneUpscaler
from repsr_cli.engine.runner import NotFiniteError
from repsr_cli.engine.tiled_frames import TiledFrames
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.spec import Spec
from repsr_cli.video.cuda_planes import frame_of
from repsr_cli.yuv.device_planes import DevicePlanes
from tests.unit.engine.test_openvino import FORMATS

LEFT = FORMATS["left"]


class LaggingQueues(CudaQueues):
    """Nothing is done before somebody waits for it; what was queued before is done first."""

    def __init__(self) -> None:
        self.todo: deque[Any] = deque()

    def pinned(self, like: Any) -> Any:
        return torch.full_like(like, 77)

    def capture(self, network: Any, planes: Any) -> Any:
        with torch.inference_mode():
            results = network(*planes)

        def again() -> None:
            with torch.inference_mode():
                for result, found in zip(results, network(*planes), strict=True):
                    result.copy_(found)

        return again, results

    def submit(self, up: Any, compute: Any, down: Any) -> Any:
        steps = [up, compute, down]
        self.todo.append(steps)

        def done() -> None:
            while any(each is steps for each in self.todo):
                first = self.todo.popleft()
                for step in first:
                    with torch.inference_mode():
                        step()

        return done


def network(scale: int = 2, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return PlainSR(Spec(scale, 8, 1)).eval()


def frame(fmt: Any, height: int, width: int, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    sizes = fmt.plane_sizes(height, width)
    return [rng.integers(0, fmt.peak + 1, size).astype(fmt.dtype) for size in sizes]


def on_a_gpu(
    net: PlainSR,
    fmt: Any,
    monkeypatch: pytest.MonkeyPatch,
    batch: int = 4,
    precision: str = "fp32",
    notify: Any = lambda _line: None,
    **options: Any,
) -> Any:
    """An upscaler whose device is lent queues, and takes to batches of a size."""
    monkeypatch.setattr(gpu, "_seconds", lambda slot: 1.0 if len(slot.host[0]) <= batch else 1000.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plane_upscaling, "queues_for", lambda _device: LaggingQueues())
        return PlaneUpscaler(Upscaler(net, "cpu", precision, threads=1, notify=notify), fmt, fmt, **options)


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("name", FORMATS)
def test_it_gives_what_an_rgb_image_in_between_gives(scale: int, name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fmt, net = FORMATS[name], network(scale)
    ours, reference = on_a_gpu(net, fmt, monkeypatch), PlaneUpscaler(Upscaler(net, device="cpu"), fmt, fmt)
    for height, width in ((1, 1), (3, 2), (2, 3), (40, 70)):
        video = [frame(fmt, height, width, seed) for seed in range(5)]
        begun = [ours.begin(planes) for planes in video]
        assert ours.ahead > 1
        for planes, finish in zip(video, begun, strict=True):
            for found, expected in zip(finish(), reference.explicit(planes), strict=True):
                assert found.dtype == expected.dtype
                assert found.shape == expected.shape
                assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


@pytest.mark.parametrize("count", [1, 3, 4, 5, 23])
def test_frames_come_in_order_however_many_are_under_way(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    net = network()
    ours = on_a_gpu(net, LEFT, monkeypatch)
    tiled = PlaneUpscaler(Upscaler(net, device="cpu"), LEFT, LEFT)
    video = [frame(LEFT, 24, 30, seed) for seed in range(count)]
    begun, found = deque[Any](), []
    for planes in video:
        begun.append(ours.begin(planes))
        assert ours.ahead == SLOTS * 4
        if len(begun) > ours.ahead:
            found.append(begun.popleft()())
    found += [finish() for finish in begun]
    # All are looked at in the end: what came first must not have been written over.
    for planes, ours_ in zip(video, found, strict=True):
        for a, b in zip(ours_, tiled(planes), strict=True):
            assert np.abs(a.astype(int) - b.astype(int)).max() <= 1


def test_a_frame_that_is_waited_for_at_once_does_not_wait_for_a_full_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = on_a_gpu(network(), LEFT, monkeypatch)
    tiled = PlaneUpscaler(Upscaler(network(), device="cpu"), LEFT, LEFT)
    for seed in range(6):
        planes = frame(LEFT, 24, 30, seed)
        for a, b in zip(ours(planes), tiled(planes), strict=True):
            assert np.abs(a.astype(int) - b.astype(int)).max() <= 1


def test_the_batch_grows_while_that_is_faster_and_there_is_room() -> None:
    fmt, seen = LEFT, []
    planes = PlanesNetwork(fold(network(), fmt, fmt), fmt, fmt, torch.float32)

    def batch(pixels: int, seconds: Any) -> Any:
        def measured(slot: Any) -> Any:
            seen.append(len(slot.host[0]))
            return seconds(len(slot.host[0]))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gpu, "_seconds", measured)
            return CudaBatches(LaggingQueues(), planes, (16, 16), pixels).batch

    assert batch(10**9, lambda n: 1.0) == LARGEST_BATCH
    assert batch(10**9, lambda n: float(n)) == 1
    assert batch(10**9, lambda n: max(n, 4.0)) == 4
    assert batch(16 * 16 * SLOTS * 2, lambda n: 1.0) == 2


def test_half_precision_that_overflows_is_given_up_and_no_frame_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network()
    with torch.no_grad():
        net.body[0].weight.mul_(3e5)
        net.body[2].weight.mul_(1e-6)
    messages: list[str] = []
    precisions: list[torch.dtype] = []

    def built(folded: Any, fmt_in: Any, fmt_out: Any, precision: torch.dtype, *rest: Any) -> PlanesNetwork:
        precisions.append(precision)
        return PlanesNetwork(folded, fmt_in, fmt_out, precision, *rest)

    monkeypatch.setattr(plane_upscaling, "PlanesNetwork", built)
    ours = on_a_gpu(net, LEFT, monkeypatch, precision="fp16", notify=messages.append)
    exact = PlaneUpscaler(Upscaler(net, device="cpu"), LEFT, LEFT)
    video = [frame(LEFT, 24, 30, seed) for seed in range(9)]
    begun = [ours.begin(planes) for planes in video]
    for planes, finish in zip(video, begun, strict=True):
        for a, b in zip(finish(), exact(planes), strict=True):
            assert np.abs(a.astype(int) - b.astype(int)).max() <= 1
    assert any("overflowed" in line for line in messages)
    ours(video[0])
    assert precisions == [torch.float16, torch.float32]


def test_no_room_for_one_frame_means_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = on_a_gpu(network(), LEFT, monkeypatch)
    tiled = PlaneUpscaler(Upscaler(network(), device="cpu"), LEFT, LEFT)

    def full(*_arguments: Any) -> None:
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(LaggingQueues, "capture", full)
    planes = frame(LEFT, 24, 30)
    assert all(np.array_equal(a, b) for a, b in zip(ours(planes), tiled(planes), strict=True))
    assert ours.ahead == 1


def test_no_room_for_two_frames_means_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = on_a_gpu(network(), LEFT, monkeypatch)
    capture = LaggingQueues.capture

    def small(queues: Any, planes_network: Any, planes: Any) -> Any:
        if len(planes[0]) > 1:
            raise torch.cuda.OutOfMemoryError
        return capture(queues, planes_network, planes)

    monkeypatch.setattr(LaggingQueues, "capture", small)
    ours(frame(LEFT, 24, 30))
    assert ours.ahead == SLOTS


def assert_by_tiles(ours: Any, net: PlainSR, video: Any) -> None:
    """All frames are what tiles give, however many are under way, now and when they are asked for again."""
    tiled = PlaneUpscaler(Upscaler(net, device="cpu"), LEFT, LEFT)
    begun = [ours.begin(planes) for planes in video]
    for planes, finish in zip(video, begun, strict=True):
        expected = tiled(planes)
        for _ in range(2):
            assert all(np.array_equal(a, b) for a, b in zip(finish(), expected, strict=True))


@pytest.mark.parametrize("wrong", ["all", "one sample", "a shift", "the second graph"])
def test_a_graph_that_gives_other_frames_is_given_up(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, messages, captured = network(), list[str](), list[int]()
    capture = LaggingQueues.capture

    def broken(queues: Any, planes_network: Any, planes: Any) -> Any:
        again, results = capture(queues, planes_network, planes)
        captured.append(len(planes[0]))

        def compute() -> None:
            again()
            with torch.inference_mode():
                if wrong == "all":
                    results[0].fill_(99)
                elif wrong == "one sample":
                    results[1][0, 3, 4] ^= 64
                elif wrong == "a shift":
                    results[0].copy_(results[0].roll(1, -1))
                elif captured.count(2) == 2:  # of the size that is used; the first of these two is right
                    results[0].fill_(99)

        first_of_two = wrong == "the second graph" and captured.count(2) < 2
        return (again if first_of_two else compute), results

    monkeypatch.setattr(LaggingQueues, "capture", broken)
    ours = on_a_gpu(net, LEFT, monkeypatch, batch=2, notify=messages.append)
    video = [frame(LEFT, 24, 30, seed) for seed in range(7)]
    if wrong == "the second graph":
        found = [finish() for finish in [ours.begin(planes) for planes in video]]
        tiled = PlaneUpscaler(Upscaler(net, device="cpu"), LEFT, LEFT)
        assert all(np.array_equal(a, b) for a, b in zip(found[2], tiled(video[2]), strict=True))
    else:
        assert_by_tiles(ours, net, video)
    assert len(messages) == 1
    assert "gives other frames (off by" in messages[0]
    assert "tile by tile" in messages[0]
    ours(video[0])
    assert len(messages) == 1
    assert ours.ahead == 1


def test_only_the_first_frames_are_computed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, twice = TiledFrames.whole, list[int]()

    def counted(this: Any, planes: Any) -> Any:
        twice.append(1)
        return whole(this, planes)

    monkeypatch.setattr(TiledFrames, "whole", counted)
    ours = on_a_gpu(network(), LEFT, monkeypatch, batch=4, notify=pytest.fail)
    for seed in range(20):
        ours(frame(LEFT, 24, 30, seed))
    assert len(twice) == 4 + 1


@pytest.mark.parametrize("step", ["capture", "submit", "wait"])
def test_a_failure_other_than_lack_of_memory_means_tiles(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, messages = network(), list[str]()

    def fails(*_arguments: Any) -> Any:
        raise RuntimeError("an illegal memory access\nwas found")

    monkeypatch.setattr(
        LaggingQueues, "submit" if step == "wait" else step, lambda *_: fails if step == "wait" else fails()
    )
    ours = on_a_gpu(net, LEFT, monkeypatch, notify=messages.append)
    assert_by_tiles(ours, net, [frame(LEFT, 24, 30, seed) for seed in range(5)])
    assert messages == [
        "computing whole frames fails (an illegal memory access): going on tile by tile, which is slower"
    ]


def test_a_frame_like_the_one_before_is_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = on_a_gpu(network(), LEFT, monkeypatch, batch=2)
    a, b = frame(LEFT, 24, 30, 0), frame(LEFT, 24, 30, 1)
    video = [a, a, b, b, b, a]
    found = [finish() for finish in [ours.begin(planes) for planes in video]]
    tiled = PlaneUpscaler(Upscaler(network(), device="cpu"), LEFT, LEFT)
    for planes, ours_ in zip(video, found, strict=True):
        for x, y in zip(ours_, tiled(planes), strict=True):
            assert np.abs(x.astype(int) - y.astype(int)).max() <= 1
    assert ours.reused == pytest.approx(0.5)


def test_a_video_that_changes_its_size_gets_memory_of_that_size(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = on_a_gpu(network(), LEFT, monkeypatch)
    for height, width in ((24, 30), (30, 24), (24, 30)):
        assert ours(frame(LEFT, height, width))[0].shape == (2 * height, 2 * width)


def test_numbers_that_are_not_finite_are_told_from_others() -> None:
    net = network()
    with torch.no_grad():
        net.body[0].weight[0, 0, 0, 0] = torch.nan
    planes = PlanesNetwork(fold(net, LEFT, LEFT), LEFT, LEFT, torch.float32)
    frames = CudaBatches(LaggingQueues(), planes, (16, 16), 16 * 16)
    with pytest.raises(NotFiniteError):
        frames.begin(frame(LEFT, 16, 16))()


def as_decoded(planes: Any, fmt: Any, padding: int = 6) -> Any:
    """Planes as NVDEC leaves them on its GPU: U and V in turns, lines padded, samples in the upper bits."""
    luma, u, v = (np.pad(plane, ((0, 0), (0, padding))) for plane in planes)
    chroma = np.stack([u, v], -1)
    shift = 0 if fmt.depth == 8 else 16 - fmt.depth
    height, width = planes[0].shape
    parts = [torch.from_numpy(luma << shift)[:, :width], torch.from_numpy(chroma << shift)[:, : width // 2]]
    return DevicePlanes(tuple(parts), "nv12" if fmt.depth == 8 else "p010le", height, width, shift)


@pytest.mark.parametrize("name", ["left", "left, 10 bit", "centre"])
@pytest.mark.parametrize("stays", [False, True])
def test_planes_that_lie_on_the_gpu_need_no_way_through_the_host(
    name: Any, stays: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fmt, net = FORMATS[name], network()
    pix_fmt = "nv12" if fmt.depth == 8 else "p010le"
    ours = on_a_gpu(net, fmt, monkeypatch, gpu_format=pix_fmt if stays else None)
    tiled = PlaneUpscaler(Upscaler(net, device="cpu"), fmt, fmt)
    video = [frame(fmt, 24, 30, seed) for seed in range(7)]
    # In turns from the decoder and from memory, as when damaged frames are repeated.
    begun = [ours.begin(as_decoded(planes, fmt) if at % 3 else planes) for at, planes in enumerate(video)]
    for planes, finish in zip(video, begun, strict=True):
        found, expected = finish(), tiled(planes)
        assert isinstance(found, DevicePlanes) == stays
        if stays:
            assert (found.height, found.width, found.pix_fmt) == (48, 60, pix_fmt)
            assert frame_of(found).format.name == pix_fmt  # which also sees that UV lies behind Y
            found = found.on_host()
        for a, b in zip(found, expected, strict=True):
            assert a.dtype == b.dtype
            assert np.abs(a.astype(int) - b.astype(int)).max() <= 1


def test_planes_on_the_gpu_come_down_where_frames_are_not_computed_whole() -> None:
    ours = PlaneUpscaler(Upscaler(network(), device="cpu"), LEFT, LEFT, gpu_format="nv12")
    planes = frame(LEFT, 24, 30)
    found = ours(as_decoded(planes, LEFT))
    assert all(np.array_equal(a, b) for a, b in zip(found, ours(planes), strict=True))
