"""What ``--precision auto`` means on a CPU: measured, remembered, reported, and pinned by the environment."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from repsr_cli.engine.backends.registry import ENGINES
from repsr_cli.errors import UsageError
from repsr_cli.model.plain import PlainSR, identity_network
from repsr_cli.model.spec import Spec
from repsr_cli.model.zoo import load_compact, resolve
from repsr_cli.upscale import precision
from repsr_cli.upscale.cache import cache_folder
from repsr_cli.upscale.models import Compute, ModelCache, check_compute
from repsr_cli.upscale.precision import measured_loss, resolved
from repsr_cli.upscale.request import Request

Measured = list[str]
BF16_IN_OPENVINO = ENGINES["openvino"].installed


@pytest.fixture
def auto(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Measured]:
    """Makes a CPU with bf16 on which models lose so much, by engine; returns the engines that are measured."""

    def make(torch: float = 0.0, openvino: float = 0.0, bf16: bool = True) -> Measured:
        losses, measured = {"torch": torch, "openvino": openvino}, Measured()

        def loss(_net: PlainSR, engine: str, _threads: int | None) -> float:
            measured.append(engine)
            return losses[engine]

        monkeypatch.setenv("REPSR_PRECISION", "auto")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setattr(precision, "computes_bf16", lambda: bf16)
        monkeypatch.setattr(precision, "measured_loss", loss)
        return measured

    return make


def network(colors: int = 3) -> PlainSR:
    torch.manual_seed(0)
    return PlainSR(Spec(2, 4, 1, colors)).eval()


@pytest.mark.parametrize(("loss", "name"), [(0.0199, "bf16"), (-0.001, "bf16"), (0.0201, "fp32"), (5.0, "fp32")])
def test_bf16_is_used_where_it_loses_hardly_anything(auto: Callable[..., Measured], loss: float, name: str) -> None:
    auto(torch=loss)
    found = resolved("auto", network(), "cpu", "torch")
    assert found.name == name
    assert "dB" in found.why


def test_a_model_is_measured_once_for_each_engine(
    auto: Callable[..., Measured], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = auto()
    for _ in range(2):
        assert resolved("auto", network(), "cpu", "torch").name == "bf16"
    assert measured == ["torch"]
    if BF16_IN_OPENVINO:
        resolved("auto", network(), "cpu", "auto")
        assert measured == ["torch", "openvino"]
    other = network()
    with torch.no_grad():
        other.convolutions[0].weight.add_(1)
    resolved("auto", other, "cpu", "torch")
    monkeypatch.setattr(precision, "processor", lambda: "another")
    resolved("auto", other, "cpu", "torch")
    assert measured[-2:] == ["torch", "torch"]


@pytest.mark.skipif(not BF16_IN_OPENVINO, reason="OpenVINO is not installed")
def test_every_engine_that_may_compute_has_to_pass(auto: Callable[..., Measured]) -> None:
    auto(torch=0.001, openvino=0.5)
    assert resolved("auto", network(), "cpu", "auto").name == "fp32"
    assert resolved("auto", network(), "cpu", "torch").name == "bf16"


def test_elsewhere_it_is_fp32_and_nothing_is_measured(auto: Callable[..., Measured]) -> None:
    measured = auto()
    assert resolved("auto", network(), "cpu", "onnxruntime").name == "fp32"
    assert resolved("auto", network(colors=1), "cpu").name == "fp32"
    auto(bf16=False)
    assert resolved("auto", network(), "cpu").name == "fp32"
    assert measured == []


def test_what_was_asked_for_is_used(auto: Callable[..., Measured]) -> None:
    measured = auto()
    assert [resolved(name, network(), "cpu").name for name in ("fp32", "bf16", "fp16")] == ["fp32", "bf16", "fp16"]
    assert measured == []


def test_the_environment_can_decide(auto: Callable[..., Measured], monkeypatch: pytest.MonkeyPatch) -> None:
    auto()
    monkeypatch.setenv("REPSR_PRECISION", "fp32")
    assert resolved("auto", network(), "cpu").name == "fp32"
    assert resolved("bf16", network(), "cpu").name == "bf16"
    monkeypatch.setenv("REPSR_PRECISION", "int8")
    with pytest.raises(UsageError, match="REPSR_PRECISION=int8: no such precision"):
        resolved("auto", network(), "cpu")


@pytest.mark.parametrize("content", ["", "[]", '{"a": "b"}', '{"a": {}}'])
def test_a_damaged_file_of_measurements_is_said_and_replaced(auto: Callable[..., Measured], content: str) -> None:
    measured = auto()
    file = cache_folder() / "precision.json"
    file.parent.mkdir(parents=True)
    file.write_text(content)
    messages: list[str] = []
    assert resolved("auto", network(), "cpu", "torch", say=messages.append).name == "bf16"
    assert len(messages) == 1
    assert "damaged" in messages[0]
    assert list(json.loads(file.read_text()).values()) == [0.0]
    resolved("auto", network(), "cpu", "torch", say=pytest.fail)
    assert measured == ["torch"]


def test_the_line_that_names_the_model_says_it(auto: Callable[..., Measured]) -> None:
    auto(torch=0.0042)
    messages: list[str] = []
    compute = Compute(resolve("fast", 2, "clean"), engine="torch")
    upscaler = ModelCache().upscaler(compute, "cpu", messages.append)
    assert upscaler.precision == "bf16"
    assert "bf16: 0.004 dB below fp32 in a check" in messages[0]


def test_a_shipped_model_loses_little() -> None:
    assert abs(measured_loss(load_compact(resolve("fast", 4, "clean")), "torch")) < 0.02


def test_a_model_whose_features_need_more_digits_loses_much() -> None:
    """Features near 301, of which the last layer takes 301 away: bfloat16 holds 300 and 302."""
    net = identity_network(scale=2)
    with torch.no_grad():
        head, tail = net.convolutions
        assert head.bias is not None
        assert tail.bias is not None
        head.weight[:, :, 1, 1] = 0.001 * torch.eye(3)
        head.bias.fill_(301)
        tail.weight[:, :, 1, 1] = torch.eye(3).repeat_interleave(4, dim=0)
        tail.bias.fill_(-301)
        net.activations[0].weight.fill_(1)
    assert measured_loss(net, "torch") > 10


def test_a_gpu_does_not_ask_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    from repsr_cli.engine import settings

    monkeypatch.setenv("REPSR_PRECISION", "int8")
    with pytest.raises(UsageError, match="no such precision"):
        check_compute(Request.of(scale=2.0))
    check_compute(Request.of(scale=2.0, precision="fp32"))
    monkeypatch.setattr(settings, "pick_device", lambda _name: torch.device("cuda"))
    check_compute(Request.of(scale=2.0, device="cuda"))
