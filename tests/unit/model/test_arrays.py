"""Shipped models read as arrays: the same weights, names and digest as torch's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from repsr_cli.engine.upscaler import weights_digest
from repsr_cli.errors import CheckpointError
from repsr_cli.model import zoo
from repsr_cli.model.arrays import read_arrays
from repsr_cli.model.checkpoint import save_plain
from repsr_cli.model.plain import PlainSR, identity_network
from repsr_cli.model.spec import Spec


@pytest.mark.parametrize("model", zoo.available(), ids=lambda model: model.name)
def test_every_shipped_model_is_read(model: zoo.ModelFile) -> None:
    net, arrays = zoo.load_compact(model), zoo.load_arrays(model)
    assert arrays is not None
    assert arrays.spec == net.spec
    assert list(arrays.state) == list(net.state_dict())
    assert arrays.digest() == weights_digest(net)
    for (weight, bias), layer in zip(arrays.convolutions, net.convolutions, strict=True):
        assert layer.bias is not None
        assert np.array_equal(weight, layer.weight.detach().numpy())
        assert np.array_equal(bias, layer.bias.detach().numpy())
    for slopes, prelu in zip(arrays.slopes, net.activations, strict=True):
        assert np.array_equal(slopes, prelu.weight.detach().numpy())


def test_a_blend_is_the_one_that_torch_loads() -> None:
    model = zoo.resolve("balanced@0.3", 4, "clean")
    assert model.blend is not None
    arrays = zoo.load_arrays(model)
    assert arrays is not None
    assert arrays.digest() == weights_digest(zoo.load_compact(model))


def test_files_of_the_user_are_left_to_torch(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_plain(path, identity_network(2), {})
    assert zoo.load_arrays(zoo.resolve(str(path), None, "clean")) is None


def test_a_damaged_file_is_refused() -> None:
    model = replace(zoo.available()[0], sha256="0" * 64)
    with pytest.raises(CheckpointError, match="not the file that was shipped"):
        zoo.load_arrays(model)


def test_other_layouts_are_left_to_torch(tmp_path: Path) -> None:
    weights = {name: each.numpy() for name, each in PlainSR(Spec(2, 8, 1)).state_dict().items()}
    path = tmp_path / "file.safetensors"
    save_file(weights, path)
    found = read_arrays(path)
    assert found is not None
    assert found.spec == Spec(2, 8, 1)
    luma = {name: each.numpy() for name, each in PlainSR(Spec(2, 8, 1, colors=1)).state_dict().items()}
    halves = {name: each.astype(np.float16) for name, each in weights.items()}
    named = {name.replace("body", "conv"): each for name, each in weights.items()}
    ragged = weights | {"body.4.weight": weights["body.4.weight"][:5], "body.4.bias": weights["body.4.bias"][:5]}
    for other in (luma, halves, named, ragged, {"body.0.weight": weights["body.0.weight"]}):
        save_file(other, path)
        assert read_arrays(path) is None
