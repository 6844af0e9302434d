"""Which engine is taken, and what is said where one cannot be."""

from __future__ import annotations

import pytest
import torch

from repsr_cli.engine.engines import ENGINES, Engine, engine_name, installed_engines, pick_engine
from repsr_cli.errors import UsageError

CPU, FP32 = torch.device("cpu"), torch.float32
THERE, ABSENT = Engine("OpenVINO", ("torch",), "openvino"), Engine("OpenVINO", ("torch", "no_such_package"), "openvino")


def test_auto_takes_openvino_where_it_is_and_applies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "openvino", THERE)
    assert pick_engine("auto", CPU, FP32) == "openvino"
    assert pick_engine("auto", CPU, torch.bfloat16) == "torch"
    assert pick_engine("auto", torch.device("cuda"), FP32) == "torch"
    assert "openvino" in installed_engines()
    monkeypatch.setitem(ENGINES, "openvino", ABSENT)
    assert pick_engine("auto", CPU, FP32) == "torch"
    assert "openvino" not in installed_engines()


def test_asking_for_what_cannot_be_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for word in ENGINES:
        monkeypatch.setitem(ENGINES, word, ABSENT)
        with pytest.raises(UsageError, match="not installed") as failure:
            pick_engine(word, CPU, FP32)
        assert failure.value.remedy == "pip install 'repsr[openvino]'"
        monkeypatch.setitem(ENGINES, word, THERE)
        assert pick_engine(word, CPU, FP32) == word
        for device, precision in ((CPU, torch.bfloat16), (torch.device("cuda"), FP32)):
            with pytest.raises(UsageError, match="fp32 on the CPU"):
                pick_engine(word, device, precision)
    with pytest.raises(UsageError, match="no such engine") as failure:
        pick_engine("tensorrt", CPU, FP32)
    assert "ncnn" in failure.value.remedy


def test_names() -> None:
    assert engine_name("torch") == "torch"
    assert [engine.extra for engine in ENGINES.values()] == ["openvino", "onnx", "ncnn"]
    assert Engine("Torch", ("torch",), "").name.startswith(f"Torch {torch.__version__.partition('+')[0]}")
