"""ONNX files: what torch gives, for any size of picture, or nothing is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from repsr_cli.errors import CheckpointError, UsageError
from repsr_cli.model.plain import PlainSR, Spec
from repsr_cli.pipelines import export
from repsr_cli.pipelines.export import export_onnx

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("spec", [Spec(1, 4, 0), Spec(2, 8, 1), Spec(3, 8, 2, colors=1), Spec(4, 16, 4)], ids=str)
def test_onnx_runtime_gives_what_torch_gives(spec: Spec, tmp_path: Path) -> None:
    net, target = PlainSR(spec).eval(), tmp_path / "net.onnx"
    difference = export_onnx(net, target, {"scale": str(spec.scale), "licence": "mine"})
    assert difference is not None
    assert difference <= 1e-5
    # Read anew, by sizes other than those it was checked with.
    session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
    lr = torch.rand(3, spec.colors, 7, 19)
    with torch.inference_mode():
        assert np.abs(session.run(None, {"lr": lr.numpy()})[0] - net(lr).numpy()).max() <= 1e-5
    model = onnx.load(target)
    assert {prop.key: prop.value for prop in model.metadata_props} == {"scale": str(spec.scale), "licence": "mine"}
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 17)]


def test_a_file_that_gives_other_numbers_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, other = PlainSR(Spec(2, 8, 1)).eval(), PlainSR(Spec(2, 8, 1)).eval()
    wrong = export.onnx_model(other, {})
    monkeypatch.setattr(export, "onnx_model", lambda *_: wrong)
    with pytest.raises(CheckpointError, match="differ by"):
        export_onnx(net, tmp_path / "net.onnx", {})
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        export_onnx(PlainSR(Spec(2, 4, 0)).eval(), tmp_path / "none" / "net.onnx", {})
