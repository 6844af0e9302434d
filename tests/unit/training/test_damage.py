"""What training reads from disk may be damaged, of another run, or not there."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from typer.testing import CliRunner

from repsr_cli.cli.app import app
from repsr_cli.errors import CheckpointError, DeviceError, RecipeError, RepsrError, TrainingDiverged
from repsr_cli.model.checkpoint import load_training, save_training
from repsr_cli.training import dataset, divergence, objective
from repsr_cli.training.dataset import MAGIC, Pack, build_pack, find_images, held_out_groups, photographs
from repsr_cli.training.loop import train
from repsr_cli.training.losses import reconstruction_loss
from repsr_cli.training.recipe import Batch, Data, Network, Optimizer, Recipe, Run, Schedule, Validation
from repsr_cli.training.run_log import RunLog, read_log
from repsr_cli.training.soap import SOAP
from tests.conftest import ROOT, textured
from tests.signals import heed


@contextmanager
def limited_memory(nbytes: int) -> Iterator[None]:
    """Let this process reserve no more than so much."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (nbytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _images(folder: Path, count: int = 4, side: int = 48) -> Path:
    folder.mkdir()
    for number in range(count):
        Image.fromarray(textured(side, side, number)).save(folder / f"p{number}.png")
    return folder


def _recipe(images: Path, **changes: Any) -> Recipe:
    recipe = Recipe(
        network=Network(scale=2, blocks=1, channels=4),
        data=Data(train=str(images), holdout=1),
        schedule=Schedule(steps=4, warmup=0),
        batch=Batch(size=2, patch=8),
        validation=Validation(every=4, statistics_batches=1),
        run=Run(device="cpu", log_every=1, checkpoint_every=2),
    )
    return replace(recipe, **changes)


@pytest.fixture
def run(tmp_path: Path) -> tuple[Recipe, Path]:
    recipe = _recipe(_images(tmp_path / "images"))
    train(recipe, tmp_path / "run")
    return recipe, tmp_path / "run"


def _changed(images: Path, what: str) -> None:
    first = sorted(images.iterdir())[0]
    if what == "added":
        Image.fromarray(textured(48, 48, 99)).save(images / "p9.png")
    elif what == "removed":
        first.unlink()
    elif what == "replaced":
        Image.fromarray(textured(48, 48, 99)).save(first)
    elif what == "renamed":
        first.rename(images / "q.png")
    else:
        pixels = np.array(Image.open(first))
        pixels[20, 20, 1] ^= 1
        Image.fromarray(pixels).save(first)


@pytest.mark.parametrize("what", ["added", "removed", "replaced", "renamed", "one pixel"])
def test_a_run_is_not_resumed_with_other_images(run: tuple[Recipe, Path], what: str) -> None:
    recipe, folder = run
    before = (folder / "last.pt").read_bytes()
    _changed(Path(recipe.data.train), what)
    with pytest.raises(RecipeError, match="other images than"):
        train(recipe, folder, resume=True)
    assert (folder / "last.pt").read_bytes() == before


def test_a_run_is_not_resumed_with_other_images_to_validate_on(tmp_path: Path) -> None:
    recipe = _recipe(_images(tmp_path / "images"))
    recipe = replace(recipe, data=replace(recipe.data, validation=str(_images(tmp_path / "validation", 2))))
    train(recipe, tmp_path / "run")
    assert train(recipe, tmp_path / "run", resume=True).step == 4
    _changed(tmp_path / "validation", "one pixel")
    with pytest.raises(RecipeError, match=r"other images than data\.validation"):
        train(recipe, tmp_path / "run", resume=True)


def test_images_that_moved_and_old_checkpoints_are_resumed(run: tuple[Recipe, Path], tmp_path: Path) -> None:
    recipe, folder = run
    Path(recipe.data.train).rename(tmp_path / "moved")
    moved = replace(recipe, data=replace(recipe.data, train=str(tmp_path / "moved")))
    assert train(moved, folder, resume=True).step == 4
    save_training(folder / "last.pt", replace(load_training(folder / "last.pt"), images=""))
    _changed(tmp_path / "moved", "added")
    assert train(moved, folder, resume=True).step == 4


@pytest.mark.parametrize("name", ["last.pt", "best.pt", "recipe.toml", "log.jsonl", "curve.png", "validation.png"])
@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_a_run_replaces_no_file_it_did_not_write(tmp_path: Path, name: str, kind: str) -> None:
    recipe = _recipe(_images(tmp_path / "images"))
    (tmp_path / "run").mkdir()
    if kind == "file":
        (tmp_path / "run" / name).write_text("precious")
    else:
        (tmp_path / "run" / name).symlink_to(tmp_path / "none")
    with pytest.raises(RecipeError, match=r"exists, and a run would replace it|holds a run already"):
        train(recipe, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == [name]
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": {}},
        {"optimizer": {"optimizer": {"state": 3, "param_groups": []}, "scaler": {}}},
        {"progress": {}},
        {"progress": {"averaged": "x", "rate_factor": 1, "lowest_loss": 1, "best_psnr_y": 1, "best_step": 1}},
        {"recipe": {}},
        {"recipe": {"network": {"scale": 2}, "data": {"train": 3}}},
    ],
)
def test_malformed_checkpoints_are_refused_on_resuming(run: tuple[Recipe, Path], changes: dict[str, Any]) -> None:
    recipe, folder = run
    save_training(folder / "last.pt", replace(load_training(folder / "last.pt"), **changes))
    with pytest.raises((CheckpointError, RecipeError)):
        train(recipe, folder, resume=True)


def test_moments_of_another_size_are_refused_on_resuming(run: tuple[Recipe, Path]) -> None:
    recipe, folder = run
    checkpoint = load_training(folder / "last.pt")
    checkpoint.optimizer["optimizer"]["state"][0]["square"] = torch.zeros(1)
    save_training(folder / "last.pt", checkpoint)
    with pytest.raises(CheckpointError, match="has 1 values"):
        train(recipe, folder, resume=True)


ENTRY: dict[str, Any] = {
    "name": "a", "group": "a", "height": 4, "width": 4, "offset": 0, "held_out": False, "teacher": False,
}  # fmt: skip
HEADER: dict[str, Any] = {"scale": 2, "bytes": 60, "pictures": [ENTRY]}


@pytest.mark.parametrize(
    "header",
    [
        None, [], "text", 7, {}, HEADER | {"scale": 0}, HEADER | {"scale": "2"}, HEADER | {"scale": -2},
        HEADER | {"scale": 1e400}, HEADER | {"bytes": -1}, HEADER | {"bytes": 1.5}, HEADER | {"bytes": None},
        HEADER | {"bytes": 10**30}, HEADER | {"bytes": 10}, HEADER | {"pictures": None}, HEADER | {"pictures": []},
        HEADER | {"pictures": [3]}, HEADER | {"pictures": {"a": 1}}, HEADER | {"pictures": [{}]},
        *(HEADER | {"pictures": [ENTRY | change]} for change in (
            {"height": 0}, {"height": -4}, {"height": 5}, {"height": 4.0}, {"width": 10**9}, {"width": None},
            {"offset": -1}, {"offset": 59}, {"offset": "0"}, {"name": 3}, {"group": None}, {"held_out": 1}, {"odd": 1},
            {"teacher": True}, {"teacher": None},
        )),
    ],
)  # fmt: skip
def test_malformed_packs_are_refused(tmp_path: Path, header: Any) -> None:
    text = json.dumps(header).encode()
    content = MAGIC + len(text).to_bytes(8, "little") + text
    (tmp_path / "x.pack").write_bytes(content + bytes(-len(content) % 64) + bytes(60))
    with pytest.raises(RecipeError):
        Pack(tmp_path / "x.pack")


def test_deeply_nested_headers_are_refused(tmp_path: Path) -> None:
    text = b"[" * 100_000
    (tmp_path / "x.pack").write_bytes(MAGIC + len(text).to_bytes(8, "little") + text)
    with pytest.raises(RecipeError, match="cannot be read"):
        Pack(tmp_path / "x.pack")


def test_damaged_logs_are_read_as_far_as_they_go(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    good = b'{"step": 1, "loss": 0.5, "psnr_y": null}\n'
    log.write_bytes(
        good + b'\xff\xfe\n[1]\n3\n{"step": "x", "loss": 1}\n{"loss": 1.0}\n' + b"[" * 9999 + b'\n{"step": 2'
    )
    assert [entry["step"] for entry in read_log(log)] == [1]
    RunLog(log, 5, tensorboard=False).close()
    assert log.read_bytes() == good
    assert read_log(tmp_path / "none") == []


def test_a_gradient_that_is_no_number_does_not_stop_soap() -> None:
    for value in (float("nan"), float("inf")):
        weight = torch.nn.Parameter(torch.ones(3, 4))
        optimizer = SOAP([weight])
        weight.grad = torch.full((3, 4), value)
        optimizer.step()
        assert bool(torch.isfinite(weight).all())  # the first step only gathers statistics


@pytest.mark.parametrize("name", ["soap", "adam", "adamw"])
def test_a_loss_that_is_no_number_from_the_start_is_divergence(
    tmp_path: Path, name: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = reconstruction_loss
    monkeypatch.setattr(objective, "reconstruction_loss", lambda *arguments: real(*arguments) * float("nan"))
    recipe = _recipe(_images(tmp_path / "images"), optimizer=Optimizer(name=name))
    with pytest.raises(TrainingDiverged):
        train(recipe, tmp_path / "run")


def test_a_small_folder_keeps_most_photographs_for_training() -> None:
    for count, holdout, expected in ((800, 24, 24), (91, 24, 24), (60, 24, 12), (10, 24, 4), (6, 2, 2), (2, 24, 1)):
        assert len(held_out_groups(map(str, range(count)), holdout)) == expected
    with pytest.raises(RecipeError, match="none can be held out"):
        held_out_groups(["one"], 24)


@pytest.mark.parametrize(
    ("names", "count"),
    [
        (["IMG_0001", "IMG_0002", "DSC_0003"], 3),
        (["20260101_120000", "20260101_120501"], 2),
        (["holiday2024_001", "holiday2024_002"], 2),
        (["0001_s001", "0001_s002", "0002_s001"], 2),
        (["0001_1", "0001_2", "0002_1"], 2),
        (["photo_1", "photo_2"], 2),
    ],
)
def test_names_of_cameras_are_photographs_and_tiles_are_not(tmp_path: Path, names: list[str], count: int) -> None:
    for name in names:
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    assert len(set(photographs(tmp_path).values())) == count


def test_sixty_photographs_of_a_camera_train(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(60):
        Image.fromarray(textured(20, 20, number)).save(tmp_path / "images" / f"IMG_{number:04}.png")
    recipe = _recipe(tmp_path / "images", data=Data(train=str(tmp_path / "images")))
    build_pack(tmp_path / "images", tmp_path / "x.pack", 2)
    training, held_out = Pack(tmp_path / "x.pack").split(recipe.data.holdout)
    assert (len(training), len(held_out)) == (48, 12)
    assert train(recipe, tmp_path / "run").step == 4


@pytest.mark.parametrize("name", ["log.jsonl", "curve.png", "validation.png", "recipe.toml", "best.pt", "last.pt"])
def test_a_full_disk_is_an_error_and_the_run_goes_on_afterwards(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = _recipe(_images(tmp_path / "images"))
    train(replace(recipe, schedule=replace(recipe.schedule, steps=4)), tmp_path / "whole")
    real_replace, real_write = Path.replace, RunLog.write

    def full(self: Path, target: Path) -> Path:
        if Path(target).name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_replace(self, target)

    def stop() -> bool:
        monkeypatch.setattr(Path, "replace", full)
        if name == "log.jsonl":
            monkeypatch.setattr(RunLog, "write", _refused)
        return False

    if name == "recipe.toml":
        stop()
    with pytest.raises(RepsrError, match="No space left") as raised:
        train(recipe, tmp_path / "run", should_stop=stop)
    assert raised.value.exit_code in (4, 6)
    monkeypatch.setattr(Path, "replace", real_replace)
    monkeypatch.setattr(RunLog, "write", real_write)
    train(recipe, tmp_path / "run", resume=True)
    whole, resumed = (load_training(tmp_path / each / "last.pt") for each in ("whole", "run"))
    for key, value in whole.net.state_dict().items():
        assert torch.equal(value, resumed.net.state_dict()[key])
    assert not list((tmp_path / "run").glob(".*"))


def _refused(self: RunLog, entry: dict[str, Any]) -> None:
    from repsr_cli.files import translated_errors

    with translated_errors(self._path, RecipeError):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_batch_beyond_memory_is_a_matter_of_the_device(tmp_path: Path) -> None:
    recipe = _recipe(_images(tmp_path / "images", side=200), batch=Batch(size=1 << 20, patch=96))
    with pytest.raises(DeviceError, match="not enough memory"), limited_memory(8 << 30):
        train(recipe, tmp_path / "run")


def test_check_tells_how_a_folder_is_split(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(20):
        Image.fromarray(textured(20, 20, number)).save(tmp_path / "images" / f"IMG_{number:04}.png")
    text = f"[network]\nscale = 2\n[data]\ntrain = '{tmp_path / 'images'}'\n[schedule]\nsteps = 5\n[batch]\npatch = 8"
    (tmp_path / "recipe.toml").write_text(text)
    command = ["train", str(tmp_path / "recipe.toml"), "-o", str(tmp_path / "run"), "--check"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "20 photographs: 16 to train on, 4 held out (data.holdout is 24)" in result.stderr
    only = tmp_path / "one"
    only.mkdir()
    Image.fromarray(textured(20, 20)).save(only / "IMG_0001.png")
    result = CliRunner().invoke(app, [*command, "--set", f"data.train={only}"])
    assert (result.exit_code, "none can be held out" in result.stderr) == (6, True)


@pytest.mark.parametrize("side", [1, 3, 8])
def test_images_too_small_to_measure_are_named(tmp_path: Path, side: int) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (side, side)).save(tmp_path / "images" / "a.png")
    result = CliRunner().invoke(app, ["eval", str(tmp_path / "images"), "-s", "4", "-n", "fast"])
    assert (result.exit_code, "too small to measure" in result.stderr) == (2, True)
    assert CliRunner().invoke(app, ["eval", str(tmp_path / "images"), "-s", "0"]).exit_code == 2


def test_eval_takes_lr_partners(tmp_path: Path) -> None:
    for folder, side in (("hr", 40), ("lr", 20)):
        (tmp_path / folder).mkdir()
        Image.fromarray(textured(side, side)).save(tmp_path / folder / "a.png")
    command = ["eval", str(tmp_path / "hr"), "-s", "2", "-n", "fast", "--lr"]
    assert CliRunner().invoke(app, [*command, str(tmp_path / "lr")]).exit_code == 0
    assert CliRunner().invoke(app, [*command, str(tmp_path / "none")]).exit_code == 2


@pytest.mark.parametrize("minutes", ["nan", "inf", "0", "-1", "1e300"])
def test_minutes_are_a_number(tmp_path: Path, minutes: str) -> None:
    command = ["finetune", str(tmp_path), "-s", "2", "-o", str(tmp_path / "x.safetensors"), f"--minutes={minutes}"]
    result = CliRunner().invoke(app, command)
    assert (result.exit_code, "--minutes: must be above 0" in result.stderr) == (2, True)
    assert not list(tmp_path.iterdir())


def test_fuse_takes_names(tmp_path: Path) -> None:
    target = tmp_path / "mine.safetensors"
    result = CliRunner().invoke(app, ["fuse", "fast-x2", "-o", str(target)])
    assert result.exit_code == 0, result.output
    assert target.is_file()
    assert CliRunner().invoke(app, ["fuse", "fastest", "-o", str(tmp_path / "b.safetensors")]).exit_code == 4


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="the system has no SIGHUP")
def test_a_closed_terminal_stops_a_run_that_can_be_resumed(tmp_path: Path) -> None:
    _images(tmp_path / "images")
    text = f"[network]\nscale = 2\nchannels = 4\nblocks = 1\n[data]\ntrain = '{tmp_path / 'images'}'\nholdout = 1\n"
    text += "[schedule]\nsteps = 1000000\n[batch]\nsize = 2\npatch = 8\n[run]\ndevice = 'cpu'\nlog_every = 1\n"
    (tmp_path / "recipe.toml").write_text(text)
    command = [sys.executable, "-m", "repsr_cli", "train", str(tmp_path / "recipe.toml"), "-o", str(tmp_path / "run")]

    pipe, heed_hangups = subprocess.PIPE, partial(heed, signal.SIGHUP)
    with subprocess.Popen([*command, "--json"], cwd=ROOT, preexec_fn=heed_hangups, stdout=pipe, stderr=pipe) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            process.send_signal(signal.SIGHUP)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, b"Go on with --resume" in errors) == (130, True)
    assert load_training(tmp_path / "run" / "last.pt").step >= 1
    assert not list((tmp_path / "run").glob(".*"))


def test_processes_judge_divergence_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where their own losses lie on different sides of the limit: one that goes on would wait forever."""
    lowest: list[float] = []
    exploded: list[bool] = []
    for own, other in ((0.1, 0.9), (0.9, 0.1)):
        seen: dict[str, Any] = {"lowest_loss": float("inf")}
        for factor in (1.0, 3.9, 4.1):
            theirs = torch.full((2,), factor * other)
            monkeypatch.setattr(dist, "all_reduce", lambda values, theirs=theirs: values.add_(theirs))
            try:
                divergence.check_losses([torch.tensor(factor * own)], seen, 2)
                exploded.append(False)
            except divergence.LossExploded:
                exploded.append(True)
        lowest.append(seen["lowest_loss"])
    assert lowest[0] == lowest[1] == pytest.approx(0.5)
    assert exploded == [False, False, True] * 2


def test_one_process_that_is_asked_stops_all(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    for own, other in ((True, False), (False, True), (True, True), (False, False)):
        monkeypatch.setattr(dist, "all_reduce", lambda flag, other=other: flag.add_(float(other)))
        assert divergence.any_process(asked=own, device=cpu) == (own or other)


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = _images(tmp_path / "images")
    (images / "private").mkdir()
    real = os.scandir

    def scandir(path: Any = ".") -> Any:
        # By number where pytest removes the folder.
        if not isinstance(path, int) and Path(path).name == "private":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(RecipeError, match=r"private: cannot be read: Permission denied"):
        find_images(images)


@pytest.mark.parametrize(
    ("name", "what", "why"),
    [
        ("e.jpg", b"", "is empty"),
        ("t.PNG", b"hello", "is not an image, whatever its name"),
        ("d.png", "nowhere", "cannot be read: No such file"),
        ("l.webp", "l.webp", "cannot be read"),
        ("p.tif", None, "cannot be read"),
    ],
)
def test_what_has_the_name_of_an_image_and_is_none_is_named(
    tmp_path: Path, name: str, what: bytes | str | None, why: str
) -> None:
    images = _images(tmp_path / "images")
    (images / "notes.txt").write_text("hello")
    (images / "._a.png").write_bytes(b"\0\5\x16\7")
    before = find_images(images)
    odd = images / name
    if what is None:
        os.mkfifo(odd)
    elif isinstance(what, str):
        odd.symlink_to(what)
    else:
        odd.write_bytes(what)
    with pytest.raises(RecipeError, match=rf"{re.escape(name)}: {why}"):
        find_images(images)
    odd.unlink()
    assert find_images(images) == before


def test_an_image_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = _images(tmp_path / "images")
    locked = find_images(images)[0]
    real = os.open

    def refused(path: Any, *arguments: Any, **options: Any) -> int:
        if os.fspath(path) == os.fspath(locked):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(dataset, "is_image", lambda path: path != locked)
    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(RecipeError, match=rf"{re.escape(locked.name)}: cannot be read: Permission denied"):
        find_images(images)
