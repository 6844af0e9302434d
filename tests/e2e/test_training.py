"""train, fuse, export, eval and upscale with the real commands."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from repsr_cli.cli import app
from repsr_cli.model.checkpoint import load_plain, load_training, read_metadata, save_training
from repsr_cli.model.net2net import change_scale
from tests.conftest import ROOT, textured

RECIPE = """
[network]
scale = 2
blocks = 1
channels = 8
[data]
train = "unset"
holdout = 2
[batch]
size = 8
patch = 16
[schedule]
steps = 500
learning_rate = 1e-2
warmup = 10
bn_freeze = 0.3
[validation]
every = 250
statistics_batches = 10
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("training")
    (root / "images").mkdir()
    for number in range(8):
        Image.fromarray(textured(96, 96, number)).save(root / "images" / f"p{number}.png")
    (root / "recipe.toml").write_text(RECIPE)
    arguments = ["train", str(root / "recipe.toml"), "-o", str(root / "runs" / "a"), "--json"]
    result = CliRunner().invoke(app, [*arguments, "--set", f"data.train={root / 'images'}"])
    assert result.exit_code == 0, result.output
    reports = [json.loads(line) for line in result.stdout.splitlines()]
    assert [r["step"] for r in reports if r["psnr_y"] is not None] == [250, 500]
    assert any("population statistics" in r["note"] for r in reports)
    fused = CliRunner().invoke(app, ["fuse", str(root / "runs" / "a" / "best.pt"), "-o", str(root / "net.safetensors")])
    assert fused.exit_code == 0, fused.output
    assert fused.stdout.strip() == str(root / "net.safetensors")
    return root


def test_a_minute_of_training_beats_bicubic(trained: Path) -> None:
    network, rows = str(trained / "net.safetensors"), str(trained / "rows.csv")
    arguments = ["eval", str(trained / "images"), "-s", "2", "-n", network, "--json", "--csv", rows]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    bicubic, ours = (json.loads(line) for line in result.stdout.splitlines())
    assert bicubic["model"] == "bicubic"
    assert ours["images"] == 8
    assert ours["psnr_y"] > bicubic["psnr_y"] + 0.3
    assert ours["ssim_y"] > bicubic["ssim_y"]
    assert len((trained / "rows.csv").read_text().splitlines()) == 1 + 2 * 8
    again = CliRunner().invoke(app, arguments)
    assert (again.exit_code, "rows.csv: exists. Add -y to replace it." in again.stderr) == (2, True)
    assert CliRunner().invoke(app, [*arguments, "-y"]).exit_code == 0


def test_eval_makes_compressed_lr_and_a_table_for_each(trained: Path) -> None:
    arguments = ["eval", str(trained / "images"), "-s", "2", "-n", str(trained / "net.safetensors")]
    result = CliRunner().invoke(app, [*arguments, "--degrade", "jpeg:30", "--degrade", "clean", "--json"])
    assert result.exit_code == 0, result.output
    found = {(row["condition"], row["model"]): row["psnr_y"] for row in map(json.loads, result.stdout.splitlines())}
    model = str(trained / "net.safetensors")
    assert list(found) == [("jpeg:30", "bicubic"), ("jpeg:30", model), ("clean", "bicubic"), ("clean", model)]
    assert found["jpeg:30", "bicubic"] < found["clean", "bicubic"]
    table = CliRunner().invoke(app, [*arguments, "--degrade", "x264:40"]).stdout.splitlines()
    assert table[0].split() == ["set", "LR", "model", "images", "Y-PSNR", "RGB-PSNR", "SSIM"]
    assert [line.split()[1] for line in table[1:]] == ["x264:40"] * 2
    wrong = CliRunner().invoke(app, [*arguments, "--degrade", "jpg:30"])
    assert (wrong.exit_code, "--degrade jpg:30: is not a degradation" in wrong.stderr) == (2, True)


def test_eval_takes_the_old_option(trained: Path) -> None:
    arguments = ["eval", str(trained / "images"), "-s", "2", "--json"]
    new, old = (
        CliRunner().invoke(app, [*arguments, option, str(trained / "net.safetensors")]).stdout
        for option in ("--model", "--network")
    )
    assert new == old
    assert len(new.splitlines()) == 2


def test_the_trained_network_upscales_an_image(trained: Path, tmp_path: Path) -> None:
    Image.fromarray(textured(20, 30)).save(tmp_path / "in.png")
    result = CliRunner().invoke(app, ["upscale", str(tmp_path / "in.png"), "-n", str(trained / "net.safetensors")])
    assert result.exit_code == 0, result.output
    assert np.asarray(Image.open(tmp_path / "in_x2.png")).shape == (40, 60, 3)


def test_a_larger_network_goes_on_from_a_smaller_one_in_half_precision(trained: Path, tmp_path: Path) -> None:
    small = [json.loads(line) for line in (trained / "runs" / "a" / "log.jsonl").read_text().splitlines()]
    values = {
        "data.train": trained / "images",
        "network.block": "plain",
        "network.blocks": 3,
        "network.channels": 16,
        "run.precision": "bf16",
        "run.start_from": trained / "net.safetensors",
        "schedule.steps": 100,
        "schedule.learning_rate": "1e-3",
        "validation.every": 2,
    }
    overrides = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    result = CliRunner().invoke(
        app, ["train", str(trained / "recipe.toml"), "-o", str(tmp_path / "grown"), "--json", *overrides]
    )
    assert result.exit_code == 0, result.output
    start = max(report["psnr_y"] for report in small if report["psnr_y"] is not None)
    grown = [json.loads(line)["psnr_y"] for line in result.stdout.splitlines()]
    grown = [psnr for psnr in grown if psnr is not None]
    assert grown[0] == pytest.approx(start, abs=0.1)
    assert grown[-1] > start


def test_another_factor_starts_from_a_trained_one_and_resumes_without_it(trained: Path, tmp_path: Path) -> None:
    start = tmp_path / "start.safetensors"
    shutil.copy(trained / "net.safetensors", start)
    values = {
        "data.train": trained / "images",
        "network.block": "plain",
        "network.scale": 3,
        "run.start_from": start,
        "schedule.steps": 1,
        "schedule.learning_rate": "1e-9",
    }
    overrides = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    command = ["train", str(trained / "recipe.toml"), "-o", str(tmp_path / "x3"), *overrides]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    expected = change_scale(load_plain(start), 3).state_dict()
    start.unlink()
    result = CliRunner().invoke(app, [*command, "--resume"])
    assert result.exit_code == 0, result.output
    for key, value in load_training(tmp_path / "x3" / "last.pt").net.state_dict().items():
        assert torch.allclose(value, expected[key], atol=1e-6)


def test_fuse_writes_onnx_too(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    onnx, plain = tmp_path / "net.onnx", tmp_path / "net.safetensors"
    arguments = ["fuse", str(trained / "runs" / "a" / "best.pt"), "-o", str(plain), "--onnx", str(onnx)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [str(plain), str(onnx)]
    assert "ONNX Runtime differs from torch by" in result.stderr
    assert onnx.stat().st_size > 1000
    assert "exists" in CliRunner().invoke(app, [*arguments[:3], str(tmp_path / "b.safetensors"), *arguments[4:]]).stderr


def test_fuse_exports_planes(trained: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    onnx, plain = tmp_path / "net.onnx", tmp_path / "net.safetensors"
    arguments = ["fuse", str(trained / "net.safetensors"), "-o", str(plain), "--planes", "yuv420p"]
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == 2
    assert "--export" in refused.stderr
    result = CliRunner().invoke(app, [*arguments, "--export", str(onnx)])
    assert result.exit_code == 0, result.output
    assert "code values at most" in result.stderr
    planes = {
        name: np.full((1, 1, *size), 128, np.uint8) for name, size in (("y", (6, 8)), ("u", (3, 4)), ("v", (3, 4)))
    }
    found = onnxruntime.InferenceSession(onnx).run(["sr_y", "sr_u", "sr_v"], planes)
    assert [plane.shape for plane in found] == [(1, 1, 12, 16), (1, 1, 6, 8), (1, 1, 6, 8)]


def test_export_writes_every_format_of_a_checkpoint_and_of_a_shipped_model(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    outputs = [tmp_path / name for name in ("net.onnx", "net.param", "net.pth", "again.safetensors")]
    arguments = [word for file in outputs for word in ("-o", str(file))]
    result = CliRunner().invoke(app, ["export", str(trained / "runs" / "a" / "best.pt"), *arguments])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [str(file) for file in outputs]
    assert "ONNX Runtime differs from torch by" in result.stderr
    fused = load_plain(trained / "net.safetensors")
    for file in (tmp_path / "net.pth", tmp_path / "again.safetensors"):
        same = load_plain(file)
        assert all(torch.equal(a, b) for a, b in zip(fused.parameters(), same.parameters(), strict=True))
    assert read_metadata(tmp_path / "again.safetensors")["step"] == str(load_training(trained / "runs/a/best.pt").step)
    again = CliRunner().invoke(app, ["export", str(trained / "net.safetensors"), *arguments[:2]])
    assert again.exit_code == 2
    assert "exists" in again.stderr
    shipped = ["export", "fast", "-s", "2", "-o", str(tmp_path / "fast.pth"), "--json", "--quiet"]
    result = CliRunner().invoke(app, shipped)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["model"] == "fast-x2"
    assert load_plain(tmp_path / "fast.pth").spec.scale == 2


def test_export_reads_and_writes_planes(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    arguments = ["export", str(trained / "net.safetensors"), "--planes", "yuv420p"]
    result = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / "net.onnx")])
    assert result.exit_code == 0, result.output
    assert "code values at most" in result.stderr
    refused = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / "net.pth")])
    assert refused.exit_code == 2
    assert not (tmp_path / "net.pth").exists()


def test_export_lists_shipped_shaders_and_writes_others(tmp_path: Path) -> None:
    listed = CliRunner().invoke(app, ["export", "--list"])
    assert listed.exit_code == 0
    assert "repsr-light-clean-x2.glsl" in [Path(line).name for line in listed.stdout.splitlines()]
    assert all(Path(line).is_file() for line in listed.stdout.splitlines())
    outputs = [tmp_path / "fast.glsl", tmp_path / "fast.compute.glsl"]
    result = CliRunner().invoke(app, ["export", "fast-x2", "-o", str(outputs[0]), "-o", str(outputs[1])])
    assert result.exit_code == 0, result.output
    assert [("//!COMPUTE" in file.read_text(encoding="utf-8")) for file in outputs] == [False, True]


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_fused_files_honour_the_umask(trained: Path, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        best = str(trained / "runs" / "a" / "best.pt")
        assert CliRunner().invoke(app, ["fuse", best, "-o", str(tmp_path / "net.safetensors")]).exit_code == 0
    finally:
        os.umask(before)
    assert (tmp_path / "net.safetensors").stat().st_mode & 0o777 == 0o640


def test_check_lists_bad_images(trained: Path, tmp_path: Path) -> None:
    Image.fromarray(textured(8, 8)).save(tmp_path / "tiny.png")
    recipe = ["train", str(trained / "recipe.toml"), "-o", str(tmp_path / "run"), "--check"]
    result = CliRunner().invoke(app, [*recipe, "--set", f"data.train={tmp_path}"])
    assert result.exit_code == 6
    assert "tiny.png: 8x8 is smaller than a crop of 32 px" in result.stdout
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "none.toml", "-o", "run"], 6, "no such recipe"),
        (["fuse", "none.pt", "-o", "x.safetensors"], 4, "no such file"),
        (["fuse", "none.pt", "-o", "x.pth"], 2, "is not a .safetensors name"),
        (["export", "none.pth", "-o", "x.onnx"], 4, "no such file"),
        (["export", "fast", "-o", "x.engine"], 2, "is not a model format"),
        (["export", "fast", "-s", "4", "-o", "x.glsl"], 2, "shaders are for RGB networks of x2"),
        (["export", "fast-x2", "-o", "x.glsl", "--planes", "yuv420p"], 2, "shaders are RGB only"),
        (["export", "fast-x2", "-s", "1", "-o", "x.pth"], 2, "enlarges by 2, not 1"),
        (["export", "fast", "-o", "x.onnx", "-o", "x.onnx"], 2, "x.onnx: would be written twice"),
        (["eval", "none", "-n", "none.pth"], 4, "no such file"),
    ],
)
def test_mistakes(arguments: list[str], code: int, message: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code
    assert message in result.stderr


def test_tensorboard_is_an_extra(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["train", str(trained / "recipe.toml"), "-o", str(tmp_path / "run"), "--set", "run.tensorboard=true"]
    arguments += [
        "--set",
        f"data.train={trained / 'images'}",
        "--set",
        "schedule.steps=3",
        "--set",
        "run.log_every=1",
    ]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    missing = CliRunner().invoke(app, arguments)
    assert missing.exit_code == 6
    assert "pip install 'repsr[tensorboard]'" in missing.output
    assert not (tmp_path / "run").exists()
    written: list[tuple[str, int]] = []

    class Writer:
        def __init__(self, folder: str, purge_step: int) -> None:
            assert (folder, purge_step) == (str(tmp_path / "run"), 1)

        def add_scalar(self, name: str, _value: float, step: int) -> None:
            written.append((name, step))

        def flush(self) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert [step for name, step in written if name == "loss"] == [1, 2, 3]
    assert ("psnr_y", 3) in written


def test_fuse_takes_fused_networks_to_export_them(trained: Path, tmp_path: Path) -> None:
    fused, again, ncnn = trained / "net.safetensors", tmp_path / "again.safetensors", tmp_path / "net.param"
    result = CliRunner().invoke(app, ["fuse", str(fused), "-o", str(again), "--export", str(ncnn)])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [str(again), str(ncnn)]
    assert read_metadata(again)["source_sha256"] == read_metadata(fused)["source_sha256"]
    one, two = load_plain(fused), load_plain(again)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    twice = CliRunner().invoke(
        app, ["fuse", str(fused), "-o", str(tmp_path / "b.safetensors"), *["--export", str(tmp_path / "b.param")] * 2]
    )
    assert twice.exit_code == 2
    assert CliRunner().invoke(app, ["fuse", str(fused), "-o", str(fused), "-y"]).exit_code == 2


def test_fuse_refuses_an_existing_target(trained: Path) -> None:
    fused = trained / "net.safetensors"
    assert CliRunner().invoke(app, ["fuse", str(trained / "runs/a/best.pt"), "-o", str(fused)]).exit_code == 2


def test_fuse_refuses_a_network_that_does_not_agree(trained: Path, tmp_path: Path) -> None:
    """Degenerate statistics blow float32 apart: nothing may be written."""
    checkpoint = load_training(trained / "runs" / "a" / "best.pt")
    for name, buffer in checkpoint.ema.named_buffers():
        if name.endswith("running_mean"):
            buffer.fill_(1e7)
    save_training(tmp_path / "bad.pt", checkpoint)
    result = CliRunner().invoke(app, ["fuse", str(tmp_path / "bad.pt"), "-o", str(tmp_path / "bad.safetensors")])
    assert result.exit_code == 4
    assert "differ by" in result.stderr
    assert not (tmp_path / "bad.safetensors").exists()


def test_the_drawing_of_a_batch_is_replaced_only_when_asked(tmp_path: Path) -> None:
    target = tmp_path / "batch.png"
    target.write_bytes(b"precious")
    arguments = ["train", str(ROOT / "train/recipes/m4c16-x4.toml"), "-o", str(tmp_path / "run"), "--show-batch"]
    result = CliRunner().invoke(app, [*arguments, str(target)])
    assert (result.exit_code, "batch.png: exists. Add -y to replace it." in result.stderr) == (2, True)
    assert target.read_bytes() == b"precious"
