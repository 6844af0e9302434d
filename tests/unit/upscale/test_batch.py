"""upscale/batch.py and upscale/models.py: which model, in which order, and what remains after a failure."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Event, get_ident
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import CheckpointError, DeviceError, Interrupted, MediaError, UsageError
from repsr_cli.model import zoo
from repsr_cli.model.checkpoint import save_plain
from repsr_cli.model.plain import identity_network
from repsr_cli.model.spec import Spec
from repsr_cli.reporting import Outcome, Reporter
from repsr_cli.upscale.batch import run_jobs, settle_scale
from repsr_cli.upscale.executors.local import Local
from repsr_cli.upscale.inputs import Failure
from repsr_cli.upscale.jobs import Job, plan_jobs
from repsr_cli.upscale.judged import Judged
from repsr_cli.upscale.models import alternatives, choose_model
from repsr_cli.upscale.request import Naming, Request

CLEAN, REAL = Judged("clean", "lossless PNG"), Judged("real", "JPEG of quality 50")


@pytest.fixture
def zoo_of_three(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[zoo.ModelFile]:
    weights = []
    for scale in (2, 3, 4):
        for family in zoo.KINDS[:2]:
            path = tmp_path / f"{family}{scale}.safetensors"
            save_plain(path, identity_network(scale), {})
            weights.append(zoo.ModelFile(f"fast-{family}-x{scale}", path, scale, "fast", family, network="M4C16"))
    monkeypatch.setattr(zoo, "available", lambda: weights)
    return weights


def image(path: Path, size: tuple[int, int] = (8, 6)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 3), 99, np.uint8)).save(path)
    return path


def jobs(*sources: Path, options: Request, **naming: Path) -> tuple[Job, ...]:
    plan = plan_jobs([str(source) for source in sources], options, Naming(**naming))  # type: ignore[arg-type]
    assert not plan.failures
    return plan.jobs


@pytest.mark.parametrize(
    ("options", "scale"),
    [
        (Request.of(scale=1), 2),
        (Request.of(scale=2), 2),
        (Request.of(scale=2.1), 3),
        (Request.of(width=30), 4),
        (Request.of(height=12), 2),
        (Request.of(width=9, height=13), 3),
        (Request.of(fit=(18, 100)), 3),
        (Request.of(short_side=13), 3),
    ],
)
def test_smallest_factor_that_reaches(
    zoo_of_three: list[zoo.ModelFile], tmp_path: Path, options: Request, scale: int
) -> None:
    compute, _ = choose_model(options, tmp_path / "a.png", (6, 8), lambda: CLEAN)
    assert (compute.model.scale, compute.model.kind) == (scale, "clean")


@pytest.mark.parametrize(
    ("options", "name", "why"),
    [
        ({}, "fast-real-x3", "JPEG of quality 50"),
        ({"model": "fast"}, "fast-real-x3", "JPEG of quality 50"),
        ({"model": "fast-clean"}, "fast-clean-x3", ""),
        ({"kind": "clean"}, "fast-clean-x3", ""),
        ({"kind": "real"}, "fast-real-x3", ""),
    ],
)
def test_the_source_decides_where_the_request_does_not(
    zoo_of_three: list[zoo.ModelFile], tmp_path: Path, options: dict[str, str], name: str, why: str
) -> None:
    compute, factor = choose_model(Request.of(scale=3, **options), tmp_path / "a.jpg", (6, 8), lambda: REAL)
    assert (compute.model.name, compute.why, factor) == (name, why, 3)


def test_what_stands_in_for_a_kind_is_said(zoo_of_three: list[zoo.ModelFile], tmp_path: Path) -> None:
    zoo_of_three[:] = [model for model in zoo_of_three if model.kind == "clean"]
    compute, _ = choose_model(Request.of(scale=3), tmp_path / "a.jpg", (6, 8), lambda: REAL)
    assert compute.why == "JPEG of quality 50, fast x3 being clean only"


def test_factors_nobody_trained(zoo_of_three: list[zoo.ModelFile], tmp_path: Path) -> None:
    def choose(request: Request) -> None:
        choose_model(request, tmp_path / "a.png", (6, 8), lambda: CLEAN)

    with pytest.raises(CheckpointError):
        choose(Request.of(scale=4.5))
    with pytest.raises(CheckpointError, match="enlarges by 2, not 3"):
        choose(Request.of(scale=3, model=str(zoo_of_three[0].path)))
    for smaller in (Request.of(width=7), Request.of(fit=(100, 7)), Request.of(short_side=5)):
        with pytest.raises(UsageError, match="is 8x6 already"):
            choose(smaller)


def test_scale_is_the_networks_own_if_nothing_is_said(zoo_of_three: list[zoo.ModelFile]) -> None:
    assert settle_scale(Request()).size.scale == 4
    assert settle_scale(Request.of(model="fast-clean-x3")).size.scale == 3
    assert settle_scale(Request.of(model=str(zoo_of_three[0].path))).size.scale == 2
    assert settle_scale(Request.of(width=100)).size.scale is None


def test_what_would_be_faster(zoo_of_three: list[zoo.ModelFile]) -> None:
    mine = zoo.ModelFile("mine.safetensors", Path("mine.safetensors"), 4)
    assert re.fullmatch(r"; up to [\d.]+ times as fast: -n fast", alternatives(mine, Spec(4, channels=64, blocks=16)))
    assert alternatives(mine, Spec(4, channels=16, blocks=4)) == ""
    assert alternatives(mine, Spec(8, channels=64, blocks=16)) == ""
    large = replace(zoo_of_three[-1], name="best-real-x4", size="best", network="M16C64")
    zoo_of_three.append(large)
    assert alternatives(zoo_of_three[-2], Spec(4, channels=16, blocks=4)) == "; better, but slower: -n best"
    assert alternatives(zoo_of_three[-3], Spec(4, channels=16, blocks=4)) == "", "best ships as real only"


def test_what_would_be_crisper(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = [zoo.ModelFile(f"fast-{k}-x4", Path(k), 4, "fast", k, network="M4C16") for k in zoo.KINDS]
    monkeypatch.setattr(zoo, "available", lambda: pair)
    spec = Spec(4, channels=16, blocks=4)
    crisper, faithful = "; crisper: --detail 1", "; more faithful: --detail 0"
    assert alternatives(zoo.resolve("fast-real", 4, "real"), spec) == crisper
    assert alternatives(zoo.resolve("fast@0.5", 4, "real"), spec) == crisper + faithful
    assert alternatives(zoo.resolve("fast-detail", 4, "real"), spec) == faithful
    assert alternatives(zoo.resolve("fast-clean", 4, "real"), spec) == ""


def test_one_network_serves_all_and_is_announced_once(zoo_of_three: list[zoo.ModelFile], tmp_path: Path) -> None:
    options = Request.of(scale=2)
    planned = jobs(*(image(tmp_path / f"{n}.png") for n in range(5)), options=options)
    messages: list[str] = []
    results = list(run_jobs(planned, options, lambda _job: Reporter(say=messages.append)))
    assert [result.target for result in results if isinstance(result, Outcome)] == [job.target for job in planned]
    assert len(messages) == 1
    assert "fast-clean-x2" in messages[0]


@pytest.mark.parametrize("way", ["apart", "turns"])
def test_images_in_flight_use_the_cores_there_are(
    zoo_of_three: list[zoo.ModelFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Small images: a thread and a network each. Larger ones: all threads and one network for each."""
    options = Request.of(scale=2, threads=2)
    monkeypatch.setattr("repsr_cli.engine.tiling.CPU_CONTEXT_PIXELS", 48 if way == "apart" else 47)
    made, used, before = [], set(), torch.get_num_threads()
    real_init, real_call = Upscaler.__init__, Upscaler.__call__
    # Whoever is quick waits for the other, or one thread might do all the work.
    both, met = Barrier(2, timeout=30), set[int]()

    def init(self: Upscaler, *args: Any, **kwargs: Any) -> None:
        real_init(self, *args, **kwargs)
        made.append(self)

    def call(self: Upscaler, lr: torch.Tensor, *more: Any) -> torch.Tensor:
        if way == "apart" and get_ident() not in met:
            met.add(get_ident())
            both.wait()
        used.add(torch.get_num_threads())
        return real_call(self, lr, *more)

    monkeypatch.setattr(Upscaler, "__init__", init)
    monkeypatch.setattr(Upscaler, "__call__", call)
    planned = jobs(*(image(tmp_path / f"{n}.png") for n in range(8)), options=options)
    messages: list[str] = []
    try:
        results = list(run_jobs(planned, options, lambda _job: Reporter(say=messages.append)))
        assert torch.get_num_threads() == before
    finally:
        torch.set_num_threads(before)
    assert [result.target for result in results if isinstance(result, Outcome)] == [job.target for job in planned]
    assert (len(made), used) == ((2, {1}) if way == "apart" else (1, {2}))
    assert ["2 images at a time" in line for line in messages] == [way == "apart"]


def test_failures_come_in_order_and_leave_no_folder(zoo_of_three: list[zoo.ModelFile], tmp_path: Path) -> None:
    options = Request.of(scale=2)
    good, torn = image(tmp_path / "in" / "1.png"), image(tmp_path / "in" / "2" / "torn.png", (64, 64))
    torn.write_bytes(torn.read_bytes()[:-40])
    naming = Naming(output=str(tmp_path / "out"), recursive=True)
    planned = plan_jobs([str(tmp_path / "in")], options, naming).jobs
    first, second = run_jobs(planned, options, lambda _job: Reporter())
    assert isinstance(first, Outcome)
    assert first.source == good
    assert isinstance(second, Failure)
    assert isinstance(second.error, MediaError)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["1_x2.png"]


def test_a_failure_takes_no_folder_from_under_its_neighbour(
    zoo_of_three: list[zoo.ModelFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = Request.of(scale=2, threads=1)
    good, bad = image(tmp_path / "good.png"), image(tmp_path / "bad.png")
    failed, real = Event(), Local.run

    def slowly(self: Local, plan: Any, *rest: Any) -> Outcome:
        if plan.source == bad:
            failed.set()
            raise MediaError(bad, "is bad")
        assert failed.wait(30)
        time.sleep(0.2)  # for what follows a failure
        return real(self, plan, *rest)

    monkeypatch.setattr(Local, "run", slowly)
    planned = plan_jobs([str(good), str(bad)], options, Naming(output=f"{tmp_path / 'new'}/")).jobs
    first, second = run_jobs(planned, options, lambda _job: Reporter())
    assert isinstance(first, Outcome)
    assert isinstance(second, Failure)


def test_what_would_fail_every_job_is_said_once(zoo_of_three: list[zoo.ModelFile], tmp_path: Path) -> None:
    planned = jobs(image(tmp_path / "a.png"), image(tmp_path / "b.png"), options=Request.of(scale=2))
    for options, error in (
        (Request.of(scale=2, model="slow"), CheckpointError),
        (Request.of(scale=2, device="cuda:77"), DeviceError),
    ):
        with pytest.raises(error):
            list(run_jobs(planned, options, lambda _job: Reporter()))


@pytest.mark.parametrize("several", [False, True])
def test_control_c(
    zoo_of_three: list[zoo.ModelFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, several: bool
) -> None:
    options = Request.of(scale=2)
    planned = jobs(*(image(tmp_path / f"{n}.png") for n in range(3 if several else 1)), options=options)
    real = Local.run

    def interrupted(self: Local, plan: Any, *rest: Any) -> Outcome:
        if plan.target == planned[-1].target:
            raise KeyboardInterrupt
        return real(self, plan, *rest)

    monkeypatch.setattr(Local, "run", interrupted)
    done: list[Outcome | Failure] = []
    with pytest.raises(Interrupted) as caught:
        done.extend(run_jobs(planned, options, lambda _job: Reporter()))
    assert caught.value.exit_code == 130
    if several:
        assert len(done) == 2
        assert "stopped after 2 of 3 inputs; 2_x2.png was not written. Add --skip-existing" in str(caught.value)
    assert not planned[-1].target.exists()
