"""User shaders: what the text says is what torch computes, and the checks notice when it is not."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from repsr_cli.errors import CheckpointError, UsageError
from repsr_cli.export import glsl
from repsr_cli.export.formats import export, format_of, write
from repsr_cli.export.glsl import glsl_network, parameter_digest, shipped_shaders
from repsr_cli.export.glsl_interpreter import GlslError, parse, run_shader
from repsr_cli.model.plain import PlainSR, identity_network
from repsr_cli.model.spec import Spec
from repsr_cli.yuv.formats import PlaneFormat
from tests.conftest import present

SPECS = [Spec(2, 4, 0), Spec(2, 8, 3), Spec(2, 12, 1), Spec(2, 16, 4), Spec(2, 20, 1)]
SIZES = [(1, 1), (2, 1), (5, 7), (18, 35)]  # the last reaches over two work groups of a compute shader


def random_net(spec: Spec, seed: int = 0) -> PlainSR:
    """A network with slopes that differ and outputs on both sides of the clamp."""
    torch.manual_seed(seed)
    net = PlainSR(spec).eval()
    with torch.no_grad():
        for activation in net.activations:
            activation.weight.uniform_(-0.5, 0.9)
        net.convolutions[-1].weight.mul_(3)
    return net


def torch_output(net: PlainSR, lr: torch.Tensor) -> np.ndarray:
    with torch.inference_mode():
        return np.asarray(net(lr[None])[0].clamp(0, 1))


@pytest.mark.parametrize("compute", [False, True])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_the_text_computes_what_torch_computes(spec: Spec, compute: bool) -> None:
    net = random_net(spec)
    text = glsl_network(net, {}, compute)
    for height, width in SIZES:
        lr = torch.rand(3, height, width)
        expected = torch_output(net, lr)
        assert np.abs(run_shader(text, lr.numpy()) - expected).max() <= 2e-6
        # Players keep textures in half precision.
        assert np.abs(run_shader(text, lr.numpy(), half=True) - expected).max() <= 1 / 255


@pytest.mark.parametrize("compute", [False, True])
def test_borders_are_padded_with_zeros(compute: bool) -> None:
    """A network that sums its neighbours: on white, corners have four of them and edges six."""
    net = identity_network(2, 4)
    with torch.no_grad():
        net.convolutions[0].weight[0, 0] = 1 / 9
        net.convolutions[1].weight[:, 0, 1, 1] = -1
    sr = run_shader(glsl_network(net, {}, compute), np.ones((3, 4, 5)))
    assert sr[0, 0, 0] == pytest.approx(1 - 4 / 9)
    assert sr[1, 7, 9] == pytest.approx(1 - 4 / 9)
    assert sr[2, 0, 4] == pytest.approx(1 - 6 / 9)
    assert sr[0, 3, 5] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("compute", "passes"), [(False, 4 * 5 + 3 + 1), (True, 6)])
def test_passes_are_few_and_within_the_limits_of_players(compute: bool, passes: int) -> None:
    found = parse(glsl_network(random_net(Spec(2, 16, 4)), {"name": "fast-x2"}, compute))
    assert len(found) == passes
    names = set()
    for each in found:
        assert len(each.all("BIND")) <= 16
        assert not set(each.all("SAVE")) & set(each.all("BIND")), "a pass reads what it writes"
        names |= set(each.all("SAVE"))
    assert len(names) <= 14
    assert found[-1].all("SAVE") == []
    assert (found[-1].factor("WIDTH"), found[-1].factor("HEIGHT")) == (2, 2)


def test_header_says_what_it_is() -> None:
    net = random_net(Spec(2, 8, 3))
    metadata = {"name": "light-x2", "licence": "Apache-2.0", "made": "on two\n//!HOOK LUMA"}
    text = glsl_network(net, metadata)
    header = text.partition("//!DESC")[0]
    for part in (
        "light-x2",
        "Licence: Apache-2.0",
        "M3C8",
        f"{sum(p.numel() for p in net.parameters()):,} parameters",
        "2,808",
        parameter_digest(net),
    ):
        assert part in header
    assert all(line.startswith("// ") for line in header.splitlines() if line)
    assert [each.all("HOOK") for each in parse(text)] == [["MAIN"]] * len(parse(text)), "metadata adds no directive"


@pytest.mark.parametrize("spec", [Spec(4, 8, 1), Spec(2, 8, 1, colors=1), Spec(2, 6, 1)], ids=str)
def test_other_networks_are_refused(spec: Spec, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="shaders are for RGB networks of x2"):
        export(PlainSR(spec), tmp_path / "net.glsl", {})
    with pytest.raises(UsageError, match="RGB only"):
        export(PlainSR(Spec(2, 8, 1)), tmp_path / "net.glsl", {}, PlaneFormat("bt709", False, 8, (2, 2), "left"))


@pytest.mark.parametrize(("name", "computes"), [("net.glsl", False), ("net.compute.glsl", True)])
def test_export_writes_by_suffix(name: str, computes: bool, tmp_path: Path) -> None:
    net = random_net(Spec(2, 8, 1))
    exported = export(net, tmp_path / name, {"licence": "mine"})
    assert exported.difference is not None
    assert exported.difference <= 2e-6
    write([exported], overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    text = (tmp_path / name).read_text(encoding="utf-8")
    assert ("//!COMPUTE" in text) == computes
    assert format_of(tmp_path / name).files(tmp_path / name) == (tmp_path / name,)


@pytest.mark.parametrize("compute", [False, True])
def test_every_weight_counts(compute: bool) -> None:
    """One number of each kind changed in the text: the output changes, so the check compares what is written."""
    net = random_net(Spec(2, 8, 1))
    text = glsl_network(net, {}, compute)
    lr = torch.rand(3, 9, 11)
    expected = torch_output(net, lr)
    spans = [match.span(1) for match in re.finditer(r"(-?\d+\.\d{4,}(?:e-?\d+)?)", text)]
    assert len(spans) >= sum(p.numel() for p in net.parameters()) * 0.99
    for start, end in spans[:: len(spans) // 40]:
        changed = f"{text[:start]}{float(text[start:end]) + 3}{text[end:]}"
        assert np.abs(run_shader(changed, lr.numpy()) - expected).max() > 1e-4


def test_text_that_differs_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def wrong(net: PlainSR, metadata: dict[str, str], compute: bool) -> str:
        with torch.no_grad():
            present(net.convolutions[0].bias).add_(0.1)
        text = glsl_network(net, metadata, compute)
        with torch.no_grad():
            present(net.convolutions[0].bias).sub_(0.1)
        return text

    monkeypatch.setattr(glsl, "glsl_network", wrong)
    with pytest.raises(CheckpointError, match="differ by"):
        export(random_net(Spec(2, 8, 1)), tmp_path / "net.glsl", {})


def test_the_interpreter_refuses_what_it_does_not_know() -> None:
    text = glsl_network(random_net(Spec(2, 4, 0)), {})
    for old, new in (
        ("floor(HOOKED_pos", "round(HOOKED_pos"),
        ("vec4 sum = ", "discard; vec4 sum = "),
        ("//!HOOK MAIN", "//!HOOK LUMA"),
    ):
        with pytest.raises(GlslError):
            run_shader(text.replace(old, new), np.zeros((3, 4, 4)))


ROOT = Path(__file__).resolve().parents[3]


def test_shipped_shaders_are_those_of_the_shipped_models() -> None:
    script = runpy.run_path(str(ROOT / "train" / "shaders.py"))
    wanted = script["shaders"]()
    assert [path.name for path in shipped_shaders()] == sorted(wanted), "run: python train/shaders.py"
    page = (ROOT / "weights" / "shaders" / "README.md").read_text(encoding="utf-8")
    for path in shipped_shaders():
        assert path.read_text(encoding="utf-8") == script["text"](path.name), "run: python train/shaders.py"
        assert path.name.removesuffix(".glsl").removesuffix(".compute") in page


def test_shaders_are_written_anew(tmp_path: Path) -> None:
    script = runpy.run_path(str(ROOT / "train" / "shaders.py"))
    script["main"].__globals__["SIZES"] = ("light",)
    for name in ("gone.glsl", "repsr-light-clean-x2.glsl"):
        (tmp_path / name).write_text("old")
    script["main"](tmp_path)
    shipped = [path for path in shipped_shaders() if "light" in path.name]
    assert sorted(path.name for path in tmp_path.iterdir()) == [path.name for path in shipped]
    for path in shipped:
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
