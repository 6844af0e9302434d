"""repsr finetune, with the real command on small videos."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from repsr_cli.cli import app
from repsr_cli.model.checkpoint import load_plain, read_metadata, save_plain
from repsr_cli.model.plain import PlainSR, identity_network
from repsr_cli.model.spec import Spec
from tests.conftest import textured
from tests.unit.training.test_frame_sampling import write_video


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model: nearest neighbour plus a little noise."""
    torch.manual_seed(0)
    net = PlainSR(Spec(scale=2, channels=8, blocks=1))
    for parameter in net.convolutions[-1].parameters():
        parameter.data.mul_(0.01)
    path = tmp_path_factory.mktemp("start") / "start.safetensors"
    save_plain(path, net, {})
    return path


@pytest.mark.parametrize("kind", ["video", "images"])
def test_a_better_model_is_written(start: Path, tmp_path: Path, kind: str) -> None:
    if kind == "video":
        source = tmp_path / "video.mp4"
        write_video(source, 12, cuts=2)
    else:
        source = tmp_path / "images"
        source.mkdir()
        for number in range(6):
            Image.fromarray(textured(96, 96, number)).save(source / f"{number}.png")
    target = tmp_path / "mine.safetensors"
    arguments = ["finetune", str(source), "-n", str(start), "-o", str(target), "--minutes", "0.05", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    outcome = json.loads(result.stdout)
    assert outcome["learnt"] > outcome["general"] + 0.02
    assert load_plain(target).spec == Spec(scale=2, channels=8, blocks=1)
    assert read_metadata(target)["learnt_from"] == source.name
    leftovers = {path.name for path in tmp_path.iterdir()} - {source.name, target.name}
    assert not leftovers
    assert CliRunner().invoke(app, arguments).exit_code == 2


def test_a_model_that_is_not_better_is_not_written(tmp_path: Path) -> None:
    """Constant images, and a model that is perfect on those held out: exit 8, nothing written."""
    source = tmp_path / "images"
    source.mkdir()
    for number in range(6):
        Image.new("RGB", (96, 96), (40 * number, 90, 60)).save(source / f"{number}.png")
    net = identity_network(2)
    save_plain(tmp_path / "perfect.safetensors", net, {})
    target = tmp_path / "mine.safetensors"
    result = CliRunner().invoke(
        app,
        ["finetune", str(source), "-n", str(tmp_path / "perfect.safetensors"), "-o", str(target), "--minutes", "0.02"],
    )
    assert result.exit_code == 8
    assert "Nothing was written" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "perfect.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["finetune", "none.mkv", "-n", "fast", "-o", "x.safetensors"], 2, "no such file or folder"),
        (["finetune", "none.mkv", "-n", "fast", "-o", "x.pth"], 2, "is not a .safetensors name"),
        (["finetune", ".", "-n", "fastt", "-o", "x.safetensors"], 4, "Did you mean 'fast'?"),
        (["finetune", ".", "-n", "fast", "-o", "x.safetensors", "--minutes", "0"], 2, "must be above 0"),
    ],
)
def test_mistakes(arguments: list[str], code: int, message: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code
    assert message in result.stderr


def test_learn_is_a_hidden_alias() -> None:
    result = CliRunner().invoke(app, ["learn", "none.mkv", "-n", "fast", "-o", "x.safetensors"])
    assert result.exit_code == 2
    assert "no such file or folder" in result.stderr
    assert " learn " not in CliRunner().invoke(app, ["--help"]).stdout
