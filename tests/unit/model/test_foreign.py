"""Models of other architectures, by a stand-in for spandrel, and by spandrel itself where it can be imported."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from typer.testing import CliRunner

from repsr_cli.cli import app
from repsr_cli.engine.planes import PlaneUpscaler
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import CheckpointError
from repsr_cli.model.foreign import MARGIN, ForeignSpec, ForeignSR, load_any
from repsr_cli.yuv.formats import PlaneFormat
from tests.conftest import textured


class Nearest(nn.Module):
    """Enlarges by repetition, and refuses sizes that are not multiples."""

    def __init__(self, scale: int = 2, multiple: int = 1) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(3))
        self.scale, self.multiple = scale, multiple

    def forward(self, lr: Tensor) -> Tensor:
        assert all(side % self.multiple == 0 for side in lr.shape[-2:])
        return F.interpolate(lr, scale_factor=self.scale) * self.gain.view(3, 1, 1)


@dataclass
class Descriptor:
    """What spandrel gives, as far as we ask."""

    model: nn.Module
    scale: int = 2
    input_channels: int = 3
    output_channels: int = 3
    multiple: int = 1

    @property
    def architecture(self) -> Any:
        return SimpleNamespace(name="Stand-In")

    @property
    def size_requirements(self) -> Any:
        return SimpleNamespace(minimum=4, multiple_of=self.multiple)


class UnsupportedModelError(Exception):
    pass


@pytest.fixture
def spandrel(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stand-in that knows one architecture; ``found`` may be changed."""
    module: Any = ModuleType("spandrel")
    module.found = Descriptor(Nearest())

    class ModelLoader:
        def __init__(self, device: torch.device) -> None:
            assert device.type == "cpu"

        def load_from_state_dict(self, state: dict[str, Tensor]) -> Any:
            if "gain" not in state:
                raise UnsupportedModelError
            return module.found

    module.ModelLoader, module.ImageModelDescriptor = ModelLoader, Descriptor
    module.UnsupportedModelError = UnsupportedModelError
    monkeypatch.setitem(sys.modules, "spandrel", module)
    return module


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "foreign.safetensors"
    save_file({"gain": torch.ones(3)}, path)
    return path


def test_an_image_is_enlarged_and_the_user_learns_that_tiles_are_not_exact(
    spandrel: Any, file: Path, tmp_path: Path
) -> None:
    Image.fromarray(textured(30, 50)).save(tmp_path / "a.png")
    arguments = ["upscale", str(tmp_path / "a.png"), "-n", str(file), "--tile", "24"]
    plan = CliRunner().invoke(app, [*arguments, "--dry-run"])
    assert plan.exit_code == 0, plan.output
    assert f"Stand-In (0.0 M): tiles overlap by {MARGIN} px and are not exact" in plan.stderr
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert f"(not exact: they overlap by {MARGIN} px)" in result.stderr
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a_x2.png")), textured(30, 50).repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("multiple", [1, 8])
@pytest.mark.parametrize("size", [(3, 5), (16, 16), (17, 33)])
def test_sizes_are_padded_as_the_architecture_wants(multiple: int, size: tuple[int, int]) -> None:
    net = ForeignSR(Nearest(multiple=multiple), ForeignSpec(2, "Stand-In", 3, multiple, 4))
    lr = torch.rand(1, 3, *size)
    assert torch.equal(net(lr), lr.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert torch.equal(Upscaler(net, tile=16)(lr), net(lr))


def test_frames_go_by_rgb(spandrel: Any, file: Path) -> None:
    fmt = PlaneFormat("bt709", False, 8, (2, 2), "left")
    net = load_any(file)
    planes = (np.full((24, 32), 120, np.uint8), np.full((12, 16), 90, np.uint8), np.full((12, 16), 160, np.uint8))
    found = PlaneUpscaler(Upscaler(net), fmt, fmt)(planes)
    assert [np.unique(plane).tolist() for plane in found] == [[120], [90], [160]]
    assert [plane.shape for plane in found] == [(48, 64), (24, 32), (24, 32)]


def test_what_spandrel_does_not_know_is_refused(spandrel: Any, tmp_path: Path, file: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.ones(3)}, other)
    with pytest.raises(CheckpointError, match="no architecture that spandrel knows"):
        load_any(other)
    spandrel.found = Descriptor(Nearest(), input_channels=4)
    with pytest.raises(CheckpointError, match="Stand-In, which does not map RGB images to RGB images"):
        load_any(file)


def test_without_spandrel_the_remedy_names_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(CheckpointError, match=r"is not a Compact network .* pip install 'repsr\[spandrel\]'"):
        load_any(file)


def test_unsafe_files_never_reach_spandrel(spandrel: Any, tmp_path: Path) -> None:
    path = tmp_path / "unsafe.pth"
    torch.save({"gain": torch.ones(3), "print": print}, path)
    with pytest.raises(CheckpointError, match="is not loaded"):
        load_any(path)


def test_commands_for_compact_models_say_so(spandrel: Any, file: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["fuse", str(file), "-o", str(tmp_path / "out.safetensors")])
    assert result.exit_code == 4
    assert "is not a Compact network" in result.stderr


def test_spandrel_itself(real_data: Path) -> None:
    pytest.importorskip("spandrel", exc_type=ImportError)
    net = load_any(real_data / "teachers" / "realesrgan-x4plus.safetensors")
    assert isinstance(net, ForeignSR)
    assert net.spec.name == "ESRGAN (16.7 M)"
    lr = torch.rand(1, 3, 12, 9)
    with torch.inference_mode():
        assert net(lr).shape == (1, 3, 48, 36)
