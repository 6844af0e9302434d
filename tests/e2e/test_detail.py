"""The dial: what is between the models real and detail, from the command line to a resumed video."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

import repsr_cli
from repsr_cli.cli import app
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import UsageError
from repsr_cli.model import zoo
from repsr_cli.model.checkpoint import load_plain, read_metadata
from repsr_cli.upscale import finished
from repsr_cli.upscale.batch import plan_job
from repsr_cli.upscale.executors import ray as cluster
from repsr_cli.upscale.jobs import Job
from repsr_cli.upscale.models import ModelCache
from repsr_cli.upscale.request import Request
from tests.conftest import textured
from tests.sample_videos import make_video
from tests.zoo_of_pairs import weights_with_pairs


@pytest.fixture(autouse=True)
def pairs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = weights_with_pairs(tmp_path / "weights", default_detail=0.4)
    monkeypatch.setattr(zoo, "weights_folder", lambda: folder)
    monkeypatch.setattr(finished, "weights_folder", lambda: folder)
    return folder


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(textured(24, 32)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def repsr(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def pixels(source: Path, target: Path, *words: object) -> np.ndarray:
    result = repsr("upscale", source, "-o", target, "-s", 2, "--threads", 1, *words)
    assert result.exit_code == 0, result.output
    return np.asarray(Image.open(target))


def test_the_ends_of_the_dial_are_the_models(photo: Path, tmp_path: Path) -> None:
    made = {}
    for number, words in enumerate(
        [
            ("-n", "balanced-real"),
            ("--detail", 0),
            ("-n", "balanced-detail"),
            ("-n", "balanced", "--detail", 1),
            ("--detail", 0.5),
            ("-n", "balanced-real-x2@0.5"),
        ]
    ):
        made[words] = pixels(photo, tmp_path / f"{number}.png", *words)
    real, zero, detail, one, half, spelled = made.values()
    assert np.array_equal(real, zero)
    assert np.array_equal(detail, one)
    assert np.array_equal(half, spelled)
    assert not np.array_equal(real, detail)
    assert not np.array_equal(half, real)
    net = zoo.load(zoo.resolve("balanced@0.5", 2, "clean"))
    expected = repsr_cli.load_model("balanced", 2, detail=0.5, device="cpu").upscale(np.asarray(Image.open(photo)))
    assert np.array_equal(half, expected)
    assert Upscaler(net, "cpu").digest() == repsr_cli.load_model("balanced@0.5", 2, device="cpu").upscaler.digest()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-n", "balanced-clean", "--detail", "0.5"], "models of kind clean have no dial"),
        (["--kind", "clean", "--detail", "0.5"], "models of kind clean have no dial"),
        (["-n", "fast", "--detail", "0.5"], "no detail model ships for fast, so there is nothing to set"),
        (["-n", "WEIGHTS/repsr-balanced-real-x2.safetensors", "--detail", "0.5"], "is a file"),
        (["-n", "WEIGHTS/repsr-balanced-real-x2.safetensors", "--kind", "real"], "is a file"),
        (["--detail", "1.01"], "detail lies between 0"),
        (["-n", "balanced-clean", "--kind", "real"], "is of kind clean"),
    ],
)
def test_where_there_is_no_dial(photo: Path, pairs: Path, tmp_path: Path, words: list[str], message: str) -> None:
    named = [word.replace("WEIGHTS", str(pairs)) for word in words]
    result = repsr("upscale", photo, "-s", 2, "-o", tmp_path / "b.png", *named)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "b.png").exists()


def test_the_api_names_arguments(photo: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^detail 0.5: models of kind clean"):
        repsr_cli.load_model("balanced", 2, kind="clean", detail=0.5)
    with pytest.raises(UsageError, match=r"^kind real: balanced-clean is of kind clean"):
        repsr_cli.upscale_file(photo, tmp_path / "b.png", model="balanced-clean", kind="real", scale=2)


def test_another_detail_is_another_job(photo: Path, tmp_path: Path) -> None:
    words = ["upscale", photo, "-o", tmp_path / "b.png", "-s", 2, "--threads", 1, "--detail"]
    assert repsr(*words, 0.5).exit_code == 0
    again = repsr(*words, 0.5)
    assert (again.exit_code, "done before" in again.stderr) == (0, True)
    assert repsr(*words, 0.75).exit_code == 2


def test_a_video_is_not_continued_by_another_detail(tmp_path: Path) -> None:
    clip = make_video(tmp_path / "in.mkv", range(12), gop=4)

    def job_of(detail: float) -> dict[str, object]:
        from repsr_cli.upscale.job_record import job_record

        plan = plan_job(Job("video", clip, tmp_path / "out.mkv"), Request.of(scale=2.0, detail=detail, engine="torch"))
        assert plan.kind == "video"
        upscaler = ModelCache().upscaler(plan.compute, "cpu")
        return job_record(plan, upscaler.digest(), "cpu", "fp32", "torch", "auto")

    assert job_of(0.5) == job_of(0.5)
    assert job_of(0.5) != job_of(0.75)


def test_one_cache_holds_several_blends() -> None:
    models = ModelCache()
    found = [zoo.resolve(f"balanced-real{end}", 2, "clean") for end in ("", "@0.25", "@0.75")]
    networks = [models.network(each) for each in found]
    heads = [next(net.parameters()) for net in networks]
    assert not torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[1], heads[2])
    assert models.network(found[1]) is networks[1]


def test_workers_of_a_cluster_compute_the_blend(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.unit.upscale.test_ray import StandIn

    monkeypatch.setitem(__import__("sys").modules, "ray", StandIn())
    monkeypatch.setattr(cluster, "_models", ModelCache())
    for detail in (0.25, 0.75):
        here = pixels(photo, tmp_path / f"here{detail}.png", "--detail", detail)
        there = pixels(photo, tmp_path / f"there{detail}.png", "--detail", detail, "--ray", "auto")
        assert np.array_equal(here, there)


@pytest.mark.parametrize("words", [["balanced", "--detail", "0.5"], ["balanced-real@0.5"]])
def test_export_writes_the_blend(tmp_path: Path, words: list[str]) -> None:
    result = repsr("export", *words, "-s", 2, "-o", tmp_path / "half.safetensors", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["model"] == "balanced-real-x2@0.5"
    made, expected = load_plain(tmp_path / "half.safetensors"), zoo.load(zoo.resolve("balanced@0.5", 2, "clean"))
    assert all(torch.equal(made.state_dict()[key], value) for key, value in expected.state_dict().items())
    assert read_metadata(tmp_path / "half.safetensors")["detail"] == "0.5"


def test_fuse_writes_the_blend_that_it_is_given_by_name(tmp_path: Path) -> None:
    assert repsr("fuse", "balanced@0.5", "-o", tmp_path / "half.safetensors").exit_code == 0
    made, expected = load_plain(tmp_path / "half.safetensors"), zoo.load(zoo.resolve("balanced@0.5", 4, "clean"))
    assert all(torch.equal(made.state_dict()[key], value) for key, value in expected.state_dict().items())


def test_a_preview_shows_several_details(photo: Path, tmp_path: Path) -> None:
    page = tmp_path / "p.html"
    result = repsr("preview", photo, "-s", 2, "-o", page, "--threads", 1, "--detail", 0, "--detail", 0.5)
    assert result.exit_code == 0, result.output
    text = page.read_text()
    assert "balanced detail 0.5" in text
    assert "--detail 0.5" in text
    assert "fast" not in text.split('id="shows">')[1].split("</script>")[0]


def test_eval_takes_a_spelled_blend(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    Image.fromarray(textured(32, 32)).save(tmp_path / "set" / "a.png")
    names = ["balanced-real", "balanced-real@0.5", "balanced-detail"]
    words = [word for name in names for word in ("-n", name)]
    result = repsr("eval", tmp_path / "set", *words, "-s", 2, "--json")
    assert result.exit_code == 0, result.output
    assert all(name in result.stdout for name in names)


def test_finetune_starts_from_a_blend(tmp_path: Path) -> None:
    source = tmp_path / "images"
    source.mkdir()
    for number in range(6):
        Image.fromarray(textured(96, 96, number)).save(source / f"{number}.png")
    result = repsr(
        "finetune", source, "-n", "balanced@0.5", "-s", 2, "-o", tmp_path / "m.safetensors", "--minutes", 0.02
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert read_metadata(tmp_path / "m.safetensors")["started_from"] == "balanced-real-x2@0.5"
