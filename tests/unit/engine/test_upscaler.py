import copy
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from repsr_cli.engine.backends.eager import TorchBackend
from repsr_cli.engine.body import Body, MixedBody
from repsr_cli.engine.settings import pick_device
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import DeviceError, MediaError, UsageError
from repsr_cli.model.plain import PlainSR, identity_network
from repsr_cli.model.spec import Spec


def network(scale: int = 2, channels: int = 8, blocks: int = 2, colors: int = 3) -> Any:
    net = PlainSR(Spec(scale, channels, blocks, colors)).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.15)
    return net


def test_it_gives_what_the_network_gives() -> None:
    net, lr = network(), torch.rand(2, 3, 9, 14)
    with torch.no_grad():
        expected = net(lr)
    assert torch.allclose(Upscaler(net, device="cpu")(lr), expected, atol=1e-6)


def test_the_network_given_is_left_alone() -> None:
    net = network().train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    Upscaler(net, device="cpu", precision="bf16")(torch.rand(1, 3, 4, 4))
    assert net.training
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_results_are_not_clamped() -> None:
    net = network()
    with torch.no_grad():
        net.body[-1].bias.fill_(3)
    assert Upscaler(net, device="cpu")(torch.rand(1, 3, 4, 4)).max() > 1


def test_the_output_may_be_written_to_outside_inference_mode() -> None:
    sr = Upscaler(network(), device="cpu")(torch.rand(1, 3, 4, 4))
    sr.mul_(2).requires_grad_(True).sum().backward()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("shape", [(3, 4, 4), (1, 1, 4, 4), (1, 3, 0, 4)])
def test_other_shapes_are_refused(shape: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        Upscaler(network(), device="cpu")(torch.zeros(shape))


def test_progress_counts_tiles() -> None:
    seen = []
    upscaler = Upscaler(network(), device="cpu", tile=8)
    upscaler(torch.rand(1, 3, 16, 8), lambda *at: seen.append(at))
    assert seen == [(1, 2), (2, 2)]


def test_progress_that_raises_cancels() -> None:
    upscaler, lr = Upscaler(network(), device="cpu", tile=8), torch.rand(1, 3, 24, 24)
    expected, seen = upscaler(lr), []

    def cancel(done: int, total: int) -> None:
        seen.append((done, total))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upscaler(lr, cancel)
    assert seen == [(1, 9)]
    assert torch.equal(upscaler(lr), expected)


def test_description_names_network_device_and_precision() -> None:
    text = Upscaler(network(scale=4), device="cpu", precision="fp32").describe()
    assert all(word in text for word in ("M2C8", "x4", "cpu", "fp32"))


@pytest.mark.parametrize(
    "arguments",
    [
        {"device": "tpu"},
        {"device": "cuda:x"},
        {"device": "cpu:1"},
        {"precision": "int4"},
        {"tile": "big"},
        {"tile": 0},
        {"tile": "-3"},
        {"threads": 0},
    ],
)
def test_arguments_that_make_no_sense_are_usage_errors(arguments: Any) -> None:
    with pytest.raises(UsageError):
        Upscaler(network(), **arguments)


def test_a_device_that_is_not_there_is_a_device_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device("auto").type == "cpu"
    with pytest.raises(DeviceError, match="no CUDA device found"):
        pick_device("cuda")
    with pytest.raises(DeviceError, match="MPS"):
        pick_device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert pick_device("auto").type == "cuda"
    with pytest.raises(DeviceError, match="1 CUDA device found"):
        pick_device("cuda:1")


def test_half_precision_that_overflows_is_computed_again_in_fp32_and_stays_there() -> None:
    # 1e5 is infinite in fp16 and harmless in fp32.
    net = identity_network(scale=2, channels=3)
    with torch.no_grad():
        first, last = net.convolutions[0], net.convolutions[-1]
        first.weight[:, :, 1, 1] = 1e5 * torch.eye(3)
        last.weight[:, :, 1, 1] = 1e-5
    messages: list[str] = []
    upscaler = Upscaler(net, device="cpu", precision="fp16", tile=4, notify=messages.append)
    assert upscaler.precision == "fp16"
    lr = torch.rand(1, 3, 8, 8) + 0.5
    with torch.no_grad():
        expected = net(lr)
    assert torch.allclose(upscaler(lr), expected, atol=1e-5)
    assert upscaler.precision == "fp32"
    assert len(messages) == 1
    assert "fp32" in messages[0]
    upscaler(lr)
    assert len(messages) == 1


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_is_close(precision: str) -> None:
    net, lr = network(), torch.rand(1, 3, 12, 12)
    exact = Upscaler(net, device="cpu", precision="fp32")(lr)
    close = Upscaler(net, device="cpu", precision=precision)(lr)
    assert close.dtype is torch.float32
    assert 0 < (close - exact).abs().max() < 0.05


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_leaves_the_skip_exact(precision: str) -> None:
    """What a network adds to its input is small; the input itself would be off by half a percent."""
    lr = torch.rand(2, 3, 9, 7)
    exact = Upscaler(identity_network(scale=2), device="cpu", precision="fp32")(lr)
    assert torch.equal(Upscaler(identity_network(scale=2), device="cpu", precision=precision)(lr), exact)


@pytest.mark.parametrize("channels", [1, 5, 16, 40])
def test_activations_in_half_precision_are_those_of_torch(channels: int) -> None:
    """They are computed row by row, since torch's are slow; here on one convolution whose output is the features."""
    torch.manual_seed(channels)
    prelu, tail = torch.nn.PReLU(channels), torch.nn.Conv2d(channels, channels, 1)
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, channels, 3, padding=1), prelu, tail)
    with torch.no_grad():
        prelu.weight.copy_(torch.randn(channels))
        tail.weight.copy_(torch.eye(channels)[..., None, None])
        assert tail.bias is not None
        tail.bias.zero_()
        lr = torch.rand(2, 3, 11, 13)
        half = copy.deepcopy(layers).to(torch.bfloat16)
        expected = half(lr.to(torch.bfloat16)).permute(0, 2, 3, 1).float()
        found = MixedBody(Body(layers, torch.zeros(3, channels)), torch.bfloat16)(lr)
    assert torch.equal(found, expected)


def test_numbers_that_are_not_finite_even_in_fp32_are_an_error() -> None:
    net = network()
    with torch.no_grad():
        net.body[-1].bias[0] = float("nan")
    with pytest.raises(DeviceError, match="not finite"):
        Upscaler(net, device="cpu")(torch.rand(1, 3, 4, 4))


def test_an_input_that_is_not_finite_is_blamed_itself() -> None:
    lr = torch.rand(1, 3, 4, 4)
    lr[0, 0, 0, 0] = float("inf")
    with pytest.raises(MediaError, match="not numbers"):
        Upscaler(network(), device="cpu")(lr)


class Gpu:
    """Memory for so many pixels: larger tiles raise what torch raises."""

    def __init__(self, pixels: int, error: Any) -> None:
        self.pixels, self.error, self.sizes = pixels, error, list[tuple[int, ...]]()

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        forward = TorchBackend.run

        def limited(this: Any, lr: torch.Tensor, tile: Any) -> Any:
            self.sizes.append(tuple(lr.shape[-2:]))
            if lr.shape[-2] * lr.shape[-1] > self.pixels:
                raise self.error
            return forward(this, lr, tile)

        monkeypatch.setattr(TorchBackend, "run", limited)


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("could not create a primitive"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        MemoryError(),
    ],
)
@pytest.mark.parametrize("tile", ["off", "auto", 200])
def test_out_of_memory_halves_the_tile_and_the_result_is_the_same(
    monkeypatch: pytest.MonkeyPatch, error: Any, tile: Any
) -> None:
    net, lr = network(), torch.rand(1, 3, 140, 150)
    expected = Upscaler(net, device="cpu")(lr)
    gpu = Gpu(60 * 60, error)
    gpu.install(monkeypatch)
    messages: list[str] = []
    upscaler = Upscaler(net, device="cpu", tile=tile, notify=messages.append)
    assert torch.allclose(upscaler(lr), expected, atol=1e-6)
    assert len(messages) == 2
    # Twice halved, from the largest core there was: 150 or 140 pixels.
    assert any(f"{side} pixels" in messages[-1] for side in (37, 35))
    # The size that fitted is kept: the next image starts with it.
    gpu.sizes.clear()
    upscaler(lr)
    assert max(h * w for h, w in gpu.sizes) <= 60 * 60
    assert len(messages) == 2


def test_out_of_memory_at_the_smallest_tile_is_a_device_error(monkeypatch: pytest.MonkeyPatch) -> None:
    Gpu(0, torch.cuda.OutOfMemoryError("CUDA out of memory.")).install(monkeypatch)
    with pytest.raises(DeviceError, match="smallest tile"):
        Upscaler(network(), device="cpu")(torch.rand(1, 3, 140, 150))


def test_other_errors_of_torch_are_not_taken_for_short_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    Gpu(0, RuntimeError("some bug")).install(monkeypatch)
    with pytest.raises(RuntimeError, match="some bug"):
        Upscaler(network(), device="cpu")(torch.rand(1, 3, 4, 4))


def test_a_luma_network_replaces_luma_and_keeps_bicubic_chroma() -> None:
    messages: list[str] = []
    net = network(scale=3, colors=1)
    lr = torch.rand(1, 3, 10, 11)
    sr = Upscaler(net, device="cpu", notify=messages.append)(lr)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    with torch.no_grad():
        expected = net((lr * weights).sum(1, keepdim=True))
    assert torch.allclose((sr * weights).sum(1, keepdim=True), expected, atol=1e-5)
    enlarged = F.interpolate(lr, scale_factor=3, mode="bicubic", antialias=True)
    difference = (sr[:, 0] - sr[:, 2]) - (enlarged[:, 0] - enlarged[:, 2])
    assert difference[..., 9:-9, 9:-9].abs().max() < 1e-4
    assert "luma" in messages[0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("fp16", 1e-2), ("bf16", 5e-2)])
def test_cuda_gives_what_the_cpu_gives(precision: str, tolerance: float) -> None:
    net, lr = network(), torch.rand(1, 3, 100, 120)
    expected = Upscaler(net, device="cpu")(lr)
    assert (Upscaler(net, device="cuda", precision=precision, tile=50)(lr) - expected).abs().max() < tolerance


@pytest.fixture
def two_threads() -> Iterator[Any]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_tiles_side_by_side_give_the_same(two_threads: Any) -> None:
    net, lr = network(), torch.rand(2, 3, 40, 50)
    seen = []
    upscaler = Upscaler(net, device="cpu", tile=16)
    assert upscaler._runner.at_once == 2
    with torch.no_grad():
        expected = net(lr)
    assert torch.allclose(upscaler(lr, lambda *at: seen.append(at)), expected, atol=1e-6)
    assert seen == [(done, 12) for done in range(1, 13)]
    assert torch.get_num_threads() == 2


def test_a_failure_beside_another_tile_ends_both(two_threads: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    upscaler = Upscaler(network(), device="cpu", tile=16)
    forward, calls = TorchBackend.run, []

    def fails_once(this: Any, lr: torch.Tensor, tile: Any) -> Any:
        calls.append(lr)
        if len(calls) == 3:
            raise RuntimeError("some bug")
        return forward(this, lr, tile)

    monkeypatch.setattr(TorchBackend, "run", fails_once)
    with pytest.raises(RuntimeError, match="some bug"):
        upscaler(torch.rand(1, 3, 160, 160))
    assert len(calls) < 100
    count = len(calls)
    upscaler(torch.rand(1, 3, 16, 16))
    assert len(calls) == count + 1


def test_out_of_memory_beside_another_tile_halves_both(two_threads: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    net, lr = network(), torch.rand(1, 3, 140, 150)
    expected = Upscaler(net, device="cpu")(lr)
    Gpu(60 * 60, MemoryError()).install(monkeypatch)
    assert torch.allclose(Upscaler(net, device="cpu", tile=100)(lr), expected, atol=1e-6)


@pytest.mark.parametrize("allowed", [0, 1])
def test_no_more_threads(allowed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where two tiles at once are impossible, they are computed one after the other; nothing waits for ever."""
    torch.manual_seed(1)
    net = PlainSR(Spec(scale=2, channels=4, blocks=1)).eval()
    lr = torch.rand(1, 3, 64, 64)
    expected = Upscaler(net, "cpu", threads=1, tile=40)(lr)
    start = threading.Thread.start
    started = list[threading.Thread]()

    def limited(thread: threading.Thread) -> None:
        if len(started) >= allowed:
            raise RuntimeError("can't start new thread")
        start(thread)
        started.append(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    before = torch.get_num_threads()
    upscaler = Upscaler(net, "cpu", threads=2, tile=40)
    for _ in range(2):
        torch.testing.assert_close(upscaler(lr), expected)
    assert torch.get_num_threads() == before
    assert all(not thread.is_alive() for thread in started)
