"""Plans hold everything that the work needs, and travel between processes."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import UsageError
from repsr_cli.image.files import read_image, write_image
from repsr_cli.image.page import page_of
from repsr_cli.model.checkpoint import save_plain
from repsr_cli.model.plain import identity_network
from repsr_cli.reporting import SILENT
from repsr_cli.upscale.batch import describe_jobs, executor_for, run_plan
from repsr_cli.upscale.executors.devices import Devices
from repsr_cli.upscale.executors.local import Local
from repsr_cli.upscale.image_sinks import sink_for as image_sink_for
from repsr_cli.upscale.jobs import Job
from repsr_cli.upscale.models import ModelCache
from repsr_cli.upscale.plan_image import plan_image
from repsr_cli.upscale.plan_video import VideoPlan, plan_video
from repsr_cli.upscale.request import Request
from repsr_cli.upscale.sinks import FileSink, NullSink, PipeSink, sink_for
from tests.sample_videos import make_video, video_packets


@pytest.fixture
def request_of_a_file(tmp_path: Path) -> Request:
    save_plain(tmp_path / "nearest.safetensors", identity_network(2), {})
    return Request.of(model=str(tmp_path / "nearest.safetensors"), device="cpu", threads=1)


def video_plan(folder: Path, request: Request, target: str = "out.mkv") -> VideoPlan:
    return plan_video(make_video(folder / "in.mkv", range(6), audio=0), folder / target, request)


ELSEWHERE = """
import pickle, sys
from repsr_cli.upscale.batch import executor_for, run_plan
from repsr_cli.upscale.models import ModelCache
from repsr_cli.reporting import SILENT
for plan in pickle.loads(sys.stdin.buffer.read()):
    run_plan(plan, executor_for(plan, ModelCache()), SILENT)
"""


def test_a_plan_is_carried_out_by_another_process(request_of_a_file: Request, tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (6, 8, 3), np.uint8)
    write_image(tmp_path / "a.png", [page_of(pixels)])
    videos = [video_plan(tmp_path, request_of_a_file, name) for name in ("here.mkv", "there.mkv")]
    run_plan(videos[0], executor_for(videos[0], ModelCache()), SILENT)
    plans = [plan_image(tmp_path / "a.png", tmp_path / "b.png", request_of_a_file), videos[1]]
    assert pickle.loads(pickle.dumps(plans)) == plans
    subprocess.run([sys.executable, "-c", ELSEWHERE], input=pickle.dumps(plans), check=True, timeout=120)
    assert np.array_equal(read_image(tmp_path / "b.png").pixels, pixels.repeat(2, 0).repeat(2, 1))
    assert video_packets(tmp_path / "there.mkv") == video_packets(tmp_path / "here.mkv")


def test_describing_a_job_loads_no_model(
    request_of_a_file: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(Upscaler, "__init__", loaded)
    write_image(tmp_path / "a.png", [page_of(np.zeros((6, 8, 3), np.uint8))])
    make_video(tmp_path / "in.mkv", range(6), audio=0)
    jobs = [
        Job("image", tmp_path / "a.png", tmp_path / "b.png"),
        Job("video", tmp_path / "in.mkv", tmp_path / "out.mkv"),
    ]
    for job, (described, lines, failure) in zip(jobs, describe_jobs(jobs, request_of_a_file), strict=True):
        assert described is job
        assert failure is None
        assert any("nearest" in line for line in lines)
    with pytest.raises(AssertionError, match="was loaded"):
        list(describe_jobs(jobs, request_of_a_file, measure=True))


def test_a_plan_does_not_change(request_of_a_file: Request, tmp_path: Path) -> None:
    plan = video_plan(tmp_path, request_of_a_file)
    with pytest.raises(FrozenInstanceError):
        plan.resume = False  # type: ignore[misc]


def test_a_plan_says_which_executor_and_which_sink(request_of_a_file: Request, tmp_path: Path) -> None:
    def plan(target: str = "out.mkv", **more: object) -> VideoPlan:
        return video_plan(tmp_path, request_of_a_file.having(**more), target)

    models = ModelCache()
    assert type(executor_for(plan(), models)) is Local
    assert type(executor_for(plan(device="cpu,cpu"), models)) is Devices
    assert type(sink_for(plan())) is FileSink
    assert type(sink_for(plan("out.y4m"))) is PipeSink
    assert type(sink_for(plan(benchmark=True))) is NullSink


def test_sinks_do_not_depend_on_executors(request_of_a_file: Request, tmp_path: Path) -> None:
    """Every executor of this machine fills every sink."""
    frames = []
    for device in ("cpu", "cpu,cpu"):
        for target, more in (("out.mkv", {}), ("out.y4m", {}), ("none.mkv", {"benchmark": True})):
            plan = video_plan(tmp_path, request_of_a_file.having(device=device, overwrite=True, **more), target)
            frames.append(run_plan(plan, executor_for(plan, ModelCache()), SILENT).facts["frames"])
    assert frames == [6] * 6
    assert not (tmp_path / "none.mkv").exists()


def test_a_target_that_appears_after_planning_is_not_replaced(request_of_a_file: Request, tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", [page_of(np.zeros((6, 8, 3), np.uint8))])
    image = plan_image(tmp_path / "a.png", tmp_path / "b.png", request_of_a_file)
    video = video_plan(tmp_path, request_of_a_file)
    for plan, sink in ((image, image_sink_for(image)), (video, sink_for(video))):
        plan.target.write_text("precious")
        with pytest.raises(UsageError, match="exists"):
            Local(ModelCache()).run(plan, sink)
        assert plan.target.read_text() == "precious"


def test_a_model_is_loaded_once_for_all_that_use_it(request_of_a_file: Request, tmp_path: Path) -> None:
    models, messages = ModelCache(), list[str]()
    compute = video_plan(tmp_path, request_of_a_file).compute
    first = models.upscaler(compute, "cpu", messages.append)
    assert models.upscaler(compute, "cpu", messages.append) is first
    other = models.upscaler(compute, "cpu", messages.append, slot=1)
    assert other is not first
    assert other.net is first.net is models.network(compute.model)
    assert len(messages) == 1


@pytest.mark.parametrize(("base", "rounded"), [(Fraction(1, 25), False), (Fraction(1001, 30000), True)])
def test_times_that_matroska_rounds_are_said_and_others_are_not(
    request_of_a_file: Request, tmp_path: Path, base: Fraction, rounded: bool
) -> None:
    source = make_video(tmp_path / "in.mp4", range(6), base, audio=0)
    notes = plan_video(source, tmp_path / "out.mkv", request_of_a_file).notes
    assert any("the times of frames are rounded" in note for note in notes) == rounded
    assert not any("rounded" in note for note in plan_video(source, tmp_path / "out.mp4", request_of_a_file).notes)
