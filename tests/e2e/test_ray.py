"""Videos on a Ray cluster of two nodes: the packets of a local run, whatever becomes of the nodes."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import DeviceError, MediaError, UsageError
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.spec import Spec
from repsr_cli.reporting import Outcome, Progress, Reporter
from repsr_cli.upscale import plan_video as planning
from repsr_cli.upscale.batch import run_jobs
from repsr_cli.upscale.inputs import Failure
from repsr_cli.upscale.jobs import plan_jobs
from repsr_cli.upscale.request import Naming, Request
from repsr_cli.video.segments import job_folder
from repsr_cli.video.timeline import cut
from tests.conftest import textured
from tests.sample_videos import damage, frame_times, make_video, other_packets, video_packets
from tests.upscaling import upscale_video

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
ray = pytest.importorskip("ray")
FRAMES = 60


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A driver's node without a CPU for tasks, and two workers of one each."""
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes.workers = [nodes.add_node(num_cpus=1) for _ in range(2)]
    yield nodes
    ray.shutdown()
    nodes.shutdown()


@pytest.fixture(autouse=True)
def _short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "cut", functools.partial(cut, frames=5))


@pytest.fixture(scope="module")
def network() -> PlainSR:
    import torch

    torch.manual_seed(3)
    return PlainSR(Spec(scale=2, channels=4, blocks=1)).eval()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("videos") / "in.mkv"
    return make_video(path, range(FRAMES), gop=5, options={"bf": "2"}, subtitles=["subrip"])


@pytest.fixture(scope="module")
def local(source: Path, network: PlainSR) -> Path:
    """What one process makes of it."""
    target = source.with_name("local.mkv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "cut", functools.partial(cut, frames=5))
        run(source, target, network)
    return target


def run(
    source: Path, target: Path, network: PlainSR, progress: Callable[[Progress], None] | None = None, **more: Any
) -> Outcome:
    options = Request.of(scale=2.0, threads=1, **more)
    upscaler = Upscaler(network, device="cpu", threads=1)
    return upscale_video(source, target, upscaler, options, Reporter(progress or (lambda _: None)))


def same(one: Path, two: Path) -> bool:
    return video_packets(one) == video_packets(two) and other_packets(one) == other_packets(two)


def test_a_cluster_gives_the_packets_of_one_process(
    cluster: Any, source: Path, local: Path, network: PlainSR, tmp_path: Path
) -> None:
    outcome = run(source, tmp_path / "far.mkv", network, ray=cluster.address)
    assert same(tmp_path / "far.mkv", local)
    assert outcome.facts["frames"] == FRAMES
    assert outcome.facts["segments"] > 8
    assert [path.name for path in tmp_path.iterdir()] == ["far.mkv"]


def test_a_job_goes_from_a_cluster_to_a_laptop_and_back(
    cluster: Any, source: Path, local: Path, network: PlainSR, tmp_path: Path
) -> None:
    target = tmp_path / "out.mkv"

    def stop(progress: Progress) -> None:
        if progress.done >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(source, target, network, stop, ray=cluster.address)
    begun = len(list(job_folder(target).glob("*.segment")))
    assert begun >= 3

    def stop_later(progress: Progress) -> None:
        if progress.done >= 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(source, target, network, stop_later)
    assert len(list(job_folder(target).glob("*.segment"))) > begun
    outcome = run(source, target, network, ray=cluster.address)
    assert outcome.facts["resumed_frames"] >= 30
    assert same(target, local)


def test_a_video_with_one_keyframe_goes_as_one_chunk(cluster: Any, network: PlainSR, tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4", range(20), gop=100, audio=0)
    run(source, tmp_path / "near.mp4", network)
    run(source, tmp_path / "far.mp4", network, ray=cluster.address)
    assert same(tmp_path / "far.mp4", tmp_path / "near.mp4")


def test_damage_ends_as_it_does_in_one_process(cluster: Any, network: PlainSR, tmp_path: Path) -> None:
    whole = make_video(tmp_path / "whole.mp4", range(30), gop=5, audio=0, options={"bf": "0"})
    source = damage(whole, tmp_path / "in.mp4", 12)
    messages, repeated = [], []
    for place in ("near", "far"):
        more = {"ray": cluster.address} if place == "far" else {}
        with pytest.raises(MediaError, match=r"damaged|missing") as caught:
            run(source, tmp_path / f"{place}.mp4", network, **more, resume=False)
        messages.append(str(caught.value))
        outcome = run(source, tmp_path / f"{place}.mp4", network, **more, on_error="keep", resume=False)
        repeated.append(outcome.facts["repeated_frames"])
    assert messages[0] == messages[1]
    assert repeated[0] == repeated[1] != []
    # What a decoder makes of the frames that refer to a damaged one depends on where it began: times only.
    assert frame_times(tmp_path / "far.mp4") == frame_times(tmp_path / "near.mp4")


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"device": "cuda"}, DeviceError, "has no GPU"),
        ({"benchmark": True}, UsageError, "read twice"),
    ],
)
def test_what_a_cluster_cannot_do_is_said(
    cluster: Any, source: Path, network: PlainSR, tmp_path: Path, more: dict[str, Any], error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        run(source, tmp_path / "out.mkv", network, ray=cluster.address, **more)


def test_a_node_that_dies_costs_nothing_but_time(
    cluster: Any, source: Path, local: Path, network: PlainSR, tmp_path: Path
) -> None:
    """Last in this file: one node is gone afterwards."""
    killed: list[int] = []

    def kill(progress: Progress) -> None:
        if progress.done >= FRAMES // 3 and not killed:
            killed.append(progress.done)
            cluster.remove_node(cluster.workers[1], allow_graceful=False)

    run(source, tmp_path / "far.mkv", network, kill, ray=cluster.address)
    assert killed
    assert killed[0] < FRAMES
    assert same(tmp_path / "far.mkv", local)


def test_images_of_a_cluster_are_those_of_one_process(cluster: Any, tmp_path: Path) -> None:
    for number in range(5):
        Image.fromarray(textured(40, 60, number)).save(tmp_path / f"{number}.png")
    Image.fromarray(textured(40, 60, 9)).save(tmp_path / "9.jpg")
    (tmp_path / "8.png").write_bytes((tmp_path / "0.png").read_bytes()[:200])
    names = sorted(str(path) for path in tmp_path.iterdir())
    for place, more in (("near", {}), ("far", {"ray": cluster.address})):
        options = Request.of(scale=2.0, model="fast", threads=1, **more)
        plan = plan_jobs(names, options, Naming(output=f"{tmp_path / place}/"))
        results = list(run_jobs(plan.jobs, options, lambda _job: Reporter()))
        assert [type(result) for result in results].count(Failure) == 1
    made = {path.name: path.read_bytes() for path in (tmp_path / "near").iterdir()}
    assert made == {path.name: path.read_bytes() for path in (tmp_path / "far").iterdir()}
    assert len(made) == 6
