"""Test which engine is chosen, and the message where one cannot be."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from repsr_cli.engine.backends.registry import ENGINES, Engine, engine_name, installed_engines, pick_engine
from repsr_cli.engine.planes import PlaneUpscaler
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import DeviceError, UsageError
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.spec import Spec
from repsr_cli.yuv.formats import PlaneFormat

CPU, FP32 = "cpu", "fp32"
INSTALL = "'repsr[openvino]'"
THERE, ABSENT = Engine("OpenVINO", ("torch",), INSTALL), Engine("OpenVINO", ("torch", "no_such_package"), INSTALL)


def test_auto_takes_openvino_where_it_is_and_applies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "openvino", THERE)
    assert pick_engine("auto", CPU, FP32) == "openvino"
    assert pick_engine("auto", CPU, "bf16") == "torch"
    assert pick_engine("auto", "cuda", FP32) == "torch"
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
        for device, precision in ((CPU, "bf16"), ("cuda", FP32)):
            with pytest.raises(UsageError, match="is for fp32 on cpu"):
                pick_engine(word, device, precision)
    with pytest.raises(UsageError, match="no such engine") as failure:
        pick_engine("directml", CPU, FP32)
    assert "ncnn" in failure.value.remedy


def test_names() -> None:
    assert engine_name("torch") == "torch"
    assert list(ENGINES) == ["openvino", "onnxruntime", "ncnn", "compile", "tensorrt"]
    assert Engine("Torch", ("torch",), "").name.startswith(f"Torch {torch.__version__.partition('+')[0]}")


def test_compilers_of_torch_are_for_where_they_work(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="fp32 or fp16 on cuda"):
        pick_engine("tensorrt", CPU, FP32)
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(DeviceError, match=r"C\+\+ compiler"):
        pick_engine("compile", CPU, FP32)
    assert pick_engine("compile", "cuda", "bf16") == "compile"


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_a_compiled_network_gives_the_same_planes() -> None:
    torch.manual_seed(0)
    net = PlainSR(Spec(2, 8, 1)).eval()
    fmt = PlaneFormat("bt709", full_range=False, depth=8, subsample=(2, 2), siting="left")
    compiled = PlaneUpscaler(Upscaler(net, device="cpu", engine="compile", tile=24), fmt, fmt)
    reference = PlaneUpscaler(Upscaler(net, device="cpu", engine="torch"), fmt, fmt)
    assert compiled.engine.startswith("torch.compile")
    rng = np.random.default_rng(0)
    planes = [rng.integers(0, 256, size).astype(np.uint8) for size in fmt.plane_sizes(24, 40)]
    for found, expected in zip(compiled(planes), reference(planes), strict=True):
        assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1
