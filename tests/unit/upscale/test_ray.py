"""The driver's part of a cluster, by a stand-in for Ray that does every task at once, in this process.

The real one is in tests/e2e/test_ray.py, for where Ray is installed.
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from repsr_cli.engine.backends.registry import ENGINES, Engine, engine_name
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import DeviceError, MediaError, UsageError
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.spec import Spec
from repsr_cli.reporting import Outcome, Reporter
from repsr_cli.upscale import plan_video as planning
from repsr_cli.upscale.batch import run_jobs
from repsr_cli.upscale.executors import ray as cluster
from repsr_cli.upscale.executors.scratch import scratch_folder
from repsr_cli.upscale.image_sinks import FileSink, NullSink
from repsr_cli.upscale.inputs import Failure
from repsr_cli.upscale.jobs import Job, plan_jobs
from repsr_cli.upscale.models import ModelCache
from repsr_cli.upscale.plan_image import ImagePlan, plan_image
from repsr_cli.upscale.request import Naming, Request
from repsr_cli.video.timeline import Segment, Timeline, cut
from tests.conftest import textured
from tests.sample_videos import damage, frame_times, make_video, video_packets
from tests.upscaling import upscale_video


class Lost(Exception):
    """What Ray raises for a task whose worker is gone."""


class StandIn:
    """The few words of Ray that the product uses; tasks are done when their results are asked for."""

    exceptions = SimpleNamespace(RayTaskError=ZeroDivisionError, RayError=Lost)

    def __init__(self) -> None:
        self.under_way = self.most = 0
        self.lose = False
        self.free = {"CPU": 2.0}
        self.cpus = 1.0

    def is_initialized(self) -> bool:
        return True

    def put(self, value: Any) -> list[Any]:
        return [value]

    def get(self, reference: Any) -> Any:
        if not callable(reference):
            return reference[0]
        if self.lose:
            raise Lost
        return reference()

    def remote(self, **_needs: Any) -> Callable[..., Any]:
        def wrap(function: Callable[..., Any]) -> Any:
            def submit(task: list[Any], chunk: Any) -> Any:
                self.under_way += 1
                self.most = max(self.most, self.under_way)
                return functools.partial(function, task[0], chunk)

            return SimpleNamespace(remote=submit)

        return wrap

    def wait(self, references: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        self.under_way -= 1
        return references[-1:], references[:-1]  # out of order

    def cancel(self, reference: Any, force: bool) -> None:
        self.under_way -= 1

    def nodes(self) -> list[dict[str, Any]]:
        alive = {"Alive": True, "Resources": {"CPU": self.cpus, "object_store_memory": 1e9}}
        return [alive, alive, {"Alive": False, "Resources": {"CPU": 64.0}}]

    def available_resources(self) -> dict[str, float]:
        return self.free

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    standin = StandIn()
    monkeypatch.setitem(sys.modules, "ray", standin)
    monkeypatch.setattr(planning, "cut", functools.partial(cut, frames=5))
    monkeypatch.setattr(cluster, "_models", ModelCache())
    return standin


@pytest.fixture(scope="module")
def network() -> PlainSR:
    torch.manual_seed(3)
    return PlainSR(Spec(scale=2, channels=4, blocks=1)).eval()


def run(source: Path, target: Path, network: PlainSR, **more: Any) -> Outcome:
    options = Request.of(scale=2.0, threads=1, preset="ultrafast", engine="torch", **more)
    return upscale_video(source, target, Upscaler(network, "cpu", threads=1, engine="torch"), options, Reporter())


def test_results_out_of_order_make_the_packets_of_one_process(ray: StandIn, network: PlainSR, tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mkv", range(60), gop=5, options={"bf": "2"})
    run(source, tmp_path / "near.mkv", network)
    outcome = run(source, tmp_path / "far.mkv", network, ray="auto")
    assert video_packets(tmp_path / "far.mkv") == video_packets(tmp_path / "near.mkv")
    assert outcome.facts["segments"] > 8
    assert ray.most == 4  # two slots on nodes that live, two chunks for each
    assert not list(tmp_path.glob(".*"))


def test_damage_ends_as_it_does_in_one_process(ray: StandIn, network: PlainSR, tmp_path: Path) -> None:
    whole = make_video(tmp_path / "whole.mp4", range(30), gop=5, audio=0, options={"bf": "0"})
    source = damage(whole, tmp_path / "in.mp4", 12)
    messages, repeated = [], []
    for name, more in (("near.mp4", {}), ("far.mp4", {"ray": "auto"})):
        with pytest.raises(MediaError, match=r"damaged|missing") as caught:
            run(source, tmp_path / name, network, **more, resume=False)
        messages.append(str(caught.value))
        outcome = run(source, tmp_path / name, network, **more, on_error="keep", resume=False)
        repeated.append(outcome.facts["repeated_frames"])
    assert messages[0] == messages[1]
    assert repeated[0] == repeated[1] != []
    # What a decoder makes of the frames that refer to a damaged one depends on where it began: times only.
    assert frame_times(tmp_path / "far.mp4") == frame_times(tmp_path / "near.mp4")


def test_a_chunk_that_loses_its_workers_says_when(ray: StandIn, network: PlainSR, tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mkv", range(10), gop=5, audio=0)
    ray.lose = True
    with pytest.raises(DeviceError, match=r"segment at .* lost its worker 6 times"):
        run(source, tmp_path / "far.mkv", network, ray="auto")
    assert ray.under_way == 0


def test_workers_of_another_version_are_refused(
    ray: StandIn, network: PlainSR, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_video(tmp_path / "in.mkv", range(10), gop=5, audio=0)
    real = cluster.work

    def elsewhere(task: Any, chunk: Any) -> Any:
        monkeypatch.setattr("repsr_cli.version.__version__", "0.0.1")
        return real(task, chunk)

    monkeypatch.setattr(cluster, "work", elsewhere)
    with pytest.raises(UsageError, match=r"a worker has repsr 0\.0\.1"):
        run(source, tmp_path / "far.mkv", network, ray="auto")


def test_the_choice_of_the_driver_goes_to_the_workers(
    ray: StandIn, network: PlainSR, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_video(tmp_path / "in.mkv", range(10), gop=5, audio=0)
    monkeypatch.setitem(ENGINES, "ncnn", Engine("ncnn", ("torch",), "ncnn"))
    upscaler, tasks = Upscaler(network, "cpu", threads=1), list[Any]()
    name = engine_name("ncnn")

    def work(task: Any, _chunk: Any) -> Any:
        tasks.append(task)
        monkeypatch.setitem(ENGINES, "ncnn", Engine("ncnn", ("numpy",), "ncnn"))  # as elsewhere, in another version
        try:
            return task.upscaler()
        except UsageError as error:
            return error

    monkeypatch.setattr(cluster, "work", work)
    asked = Request.of(ray="auto", engine="ncnn", tile="auto:5000", threads=1)
    with pytest.raises(UsageError, match=r"a worker computes by ncnn .*, not by ncnn "):
        upscale_video(source, tmp_path / "far.mkv", upscaler, asked, Reporter())
    assert (tasks[0].compute.engine, tasks[0].compute.tile) == ("ncnn", "auto:5000")
    assert tasks[0].engine == name


def test_what_a_cluster_cannot_do_is_said(ray: StandIn, network: PlainSR, tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mkv", range(6), audio=0)
    with pytest.raises(DeviceError, match="has no GPU"):
        run(source, tmp_path / "far.mkv", network, ray="auto", device="cuda")
    with pytest.raises(UsageError, match="read twice"):
        run(source, tmp_path / "far.mkv", network, ray="auto", benchmark=True)


def test_a_busy_cluster_is_waited_for_and_an_empty_one_is_not(ray: StandIn, network: PlainSR, tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mkv", range(6), audio=0)
    lines = list[str]()
    upscaler, asked = Upscaler(network, "cpu", threads=1, engine="torch"), Request.of(scale=2.0, threads=1, ray="auto")
    upscale_video(source, tmp_path / "a.mkv", upscaler, asked, Reporter(say=lines.append))
    assert not any("busy" in line for line in lines)
    ray.free = {"CPU": 0.5}
    upscale_video(source, tmp_path / "b.mkv", upscaler, asked, Reporter(say=lines.append))
    assert "the cluster is busy: waiting for 1 CPU" in lines
    ray.cpus = 0.0
    with pytest.raises(DeviceError, match="no node has 1 CPU"):
        upscale_video(source, tmp_path / "c.mkv", upscaler, asked, Reporter())
    Image.fromarray(textured(8, 8, 1)).save(tmp_path / "a.png")
    job = Job("image", tmp_path / "a.png", tmp_path / "b.png")
    (failure,) = run_jobs([job], asked.having(model="fast"), lambda _job: Reporter())
    assert isinstance(failure, Failure)
    assert "no node has 1 CPU" in str(failure.error)


def test_sigterm_still_stops_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray installs a handler of its own when it connects."""

    class Fresh(StandIn):
        def is_initialized(self) -> bool:
            return False

        def init(self, **_settings: Any) -> None:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            if self.lose:
                raise ConnectionError

    def ours(_number: int, _frame: Any) -> None: ...

    standin = Fresh()
    monkeypatch.setitem(sys.modules, "ray", standin)
    before = signal.signal(signal.SIGTERM, ours)
    try:
        cluster.connect("auto")
        assert signal.getsignal(signal.SIGTERM) is ours
        standin.lose = True
        with pytest.raises(UsageError, match="no cluster answers"):
            cluster.connect("auto")
        assert signal.getsignal(signal.SIGTERM) is ours
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.skipif(sys.platform == "win32", reason="needs locks of files")
def test_what_a_killed_worker_leaves_is_removed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    program = (
        "import os, signal\nfrom repsr_cli.upscale.executors.scratch import scratch_folder\n"
        "with scratch_folder() as folder:\n"
        "    (folder / 'big').write_text('x')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program], env=os.environ | {"TMPDIR": str(tmp_path)}, check=False)
    (left,) = tmp_path.iterdir()
    fresh, other = tmp_path / "repsr-worker-new", tmp_path / "repsr-worker-link"
    fresh.mkdir()
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "lock").write_text("")
    other.symlink_to(tmp_path / "precious")
    with scratch_folder() as first:
        (first / "a").write_text("x")
        assert not left.exists()
        with scratch_folder() as second:
            assert first != second
            assert (first / "a").exists()
    assert {path.name for path in tmp_path.iterdir()} == {fresh.name, other.name, "precious"}
    assert (tmp_path / "precious" / "lock").exists()


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'repsr\[ray\]'"):
        cluster.connect("auto")


def test_segments_without_a_keyframe_travel_with_the_one_before() -> None:
    timeline = Timeline(tuple(range(40)), (0, 20), {}, {}, None, None)  # type: ignore[arg-type]
    segments = [Segment(n, 10 * n, 10 * n + 10, 10) for n in range(4)]
    assert [[s.index for s in group] for group in cluster._groups(segments, timeline)] == [[0, 1], [2, 3]]
    # A gap, because the first is done: what follows must begin its own chunk.
    assert [[s.index for s in group] for group in cluster._groups(segments[1:], timeline)] == [[1], [2, 3]]


def test_images_go_there_and_back(ray: StandIn, tmp_path: Path) -> None:
    names = ["a.png", "b.jpg", "broken.png", "text.png"]
    for name in names[:2]:
        Image.fromarray(textured(20, 30, 1)).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes((tmp_path / "a.png").read_bytes()[:200])
    (tmp_path / "text.png").write_text("no image")
    results: dict[str, list[Any]] = {}
    for place, more in (("near", {}), ("far", {"ray": "auto"})):
        options = Request.of(scale=2.0, model="fast", threads=1, **more)
        plan = plan_jobs([str(tmp_path / name) for name in names], options, Naming(output=f"{tmp_path / place}/"))
        results[place] = list(run_jobs(plan.jobs, options, lambda _job: Reporter()))
    for near, far in zip(results["near"], results["far"], strict=True):
        if isinstance(near, Outcome):
            assert far.target.read_bytes() == near.target.read_bytes()
            assert (far.source, far.facts, far.notes) == (near.source, near.facts, near.notes)
        else:
            assert str(far.error) == str(near.error)
            assert far.error.exit_code == 3
    assert sorted(path.name for path in (tmp_path / "far").iterdir()) == ["a_x2.png", "b_x2.jpg"]


def test_a_image_that_is_there_is_not_overwritten_from_afar(ray: StandIn, tmp_path: Path) -> None:
    Image.fromarray(textured(8, 8, 1)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("precious")
    options = Request.of(scale=2.0, model="fast", ray="auto")
    job = Job("image", tmp_path / "a.png", tmp_path / "b.png")
    (failure,) = run_jobs([job], options, lambda _job: Reporter())
    assert isinstance(failure, Failure)
    assert failure.error.exit_code == 2
    assert (tmp_path / "b.png").read_text() == "precious"


def test_images_from_afar_go_into_the_sink_that_is_given(ray: StandIn, tmp_path: Path) -> None:
    class Collecting(FileSink):
        def __init__(self, plan: ImagePlan) -> None:
            super().__init__(plan)
            self.data = b""

        def put(self, data: bytes) -> None:
            self.data = data

    Image.fromarray(textured(8, 8, 1)).save(tmp_path / "a.png")
    plan = plan_image(tmp_path / "a.png", tmp_path / "b.png", Request.of(scale=2.0, model="fast", ray="auto"))
    sink = Collecting(plan)
    cluster.Ray(ModelCache()).run(plan, sink)
    assert sink.data.startswith(b"\x89PNG")
    assert not plan.target.exists()
    with pytest.raises(UsageError, match="--ray"):
        cluster.Ray(ModelCache()).run(plan, NullSink())
