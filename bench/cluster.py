"""Measure a video on a Ray cluster: one worker against several, and the driver's work for each segment.

    python bench/cluster.py [VIDEO] [--frames 24] [--rounds 2] [--workers 4 --share 0.4]

Starts a cluster on this machine: one node for the driver, and one node per core, each pinned to its core, so that a
worker has the same resources alone and among others. With ``--share`` workers are not pinned, but each gets at most
that part of a core (control groups; needs Linux and root), so there can be more workers than cores. Needs
``repsr[ray]``. Prints JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import ray
from av.video.frame import PictureType
from ray.cluster_utils import Cluster

from repsr_cli.reporting import Outcome
from repsr_cli.upscale import plan_video as planning
from repsr_cli.upscale.executors.ray import Ray, _groups
from repsr_cli.upscale.models import ModelCache
from repsr_cli.upscale.request import Request
from repsr_cli.upscale.sinks import sink_for
from repsr_cli.video.packet_chunks import PacketChunk, chunks
from repsr_cli.video.segments import Store
from repsr_cli.video.timeline import cut

VIDEO = Path(__file__).resolve().parents[1] / "examples" / "bbb_480x270.mp4"
OPTIONS = Request.of(scale=2.0, model="fast", threads=1, preset="veryfast", engine="torch", reuse=False)


def with_keyframes(source: Path, target: Path, frames: int) -> Path:
    """The same video with a keyframe every few frames: what a chunk can begin with."""
    with av.open(str(source)) as read, av.open(str(target), "w") as write:
        old = read.streams.video[0]
        new = write.add_stream(
            "libx264", rate=old.average_rate, options={"crf": "18", "g": str(frames), "sc_threshold": "0"}
        )
        new.width, new.height, new.pix_fmt = old.width, old.height, "yuv420p"
        for frame in read.decode(old):
            frame.pict_type = PictureType.NONE
            write.mux(new.encode(frame))
        write.mux(new.encode())
    return target


def upscale(source: Path, address: str, folder: Path) -> tuple[Outcome, int]:
    """Upscale a video on a cluster; what was measured, and the size of what was written."""
    target = folder / "out.mp4"
    plan = planning.plan_video(source, target, OPTIONS.having(ray=address))
    outcome = Ray(ModelCache()).run(plan, sink_for(plan))
    size = target.stat().st_size
    target.unlink()
    return outcome, size


@contextlib.contextmanager
def confined(number: int, core: int, share: float | None) -> Iterator[None]:
    """Processes started in this block are tied to a core, or get their part of one and no more."""
    if share is None:
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {core})
        yield
        os.sched_setaffinity(0, cores)
        return
    root = Path("/sys/fs/cgroup/cpu")
    group = root / f"repsr-worker-{number}"
    group.mkdir(exist_ok=True)
    (group / "cpu.cfs_quota_us").write_text("-1")
    (group / "cgroup.procs").write_text(str(os.getpid()))
    yield
    (root / "cgroup.procs").write_text(str(os.getpid()))
    period = 20_000  # microseconds: short beside a frame
    (group / "cpu.cfs_period_us").write_text(str(period))
    # Only now: a node that starts at half speed is taken for one that is lost.
    (group / "cpu.cfs_quota_us").write_text(str(round(period * share)))


def driver_costs(source: Path, folder: Path, results: int) -> dict[str, float]:
    """Seconds that the driver spends on a segment: reading and wrapping, sending, taking in."""
    plan = planning.plan_video(source, folder / "none.mp4", OPTIONS)
    assert plan.timeline is not None
    began = time.perf_counter()
    made: list[PacketChunk] = list(chunks(plan.source, plan.timeline, _groups(plan.segments, plan.timeline)))
    read = time.perf_counter()
    references = [ray.put(chunk) for chunk in made]
    sent = time.perf_counter()
    del references
    store = Store.begin(folder / "store", {}, False)
    data = os.urandom(results // len(made))
    for index in range(len(made)):
        store.path(index).write_bytes(data)
        with store.path(index).open("rb") as file:
            os.fsync(file.fileno())
    taken = time.perf_counter()
    store.remove()
    remote = ray.remote(num_cpus=1)(lambda: None)
    ray.get(remote.remote())
    asked = time.perf_counter()
    ray.get([remote.remote() for _ in range(20)])
    trip = (time.perf_counter() - asked) / 20
    count = len(made)
    return {
        "segments": count,
        "parcel_bytes": sum(chunk.nbytes for chunk in made) // count,
        "result_bytes": results // count,
        "read_s": (read - began) / count,
        "put_s": (sent - read) / count,
        "take_s": (taken - sent) / count,
        "task_s": trip,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", nargs="?", type=Path, default=VIDEO)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, help="default: one for each core")
    parser.add_argument("--share", type=float, help="part of a core that each worker gets; default: one of its own")
    words = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    planning.cut = functools.partial(cut, frames=words.frames)  # type: ignore[attr-defined]
    cores = sorted(os.sched_getaffinity(0))
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    found: dict[str, Any] = {"video": words.video.name, "workers": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = with_keyframes(words.video, folder / "source.mp4", words.frames)
        size = 0
        for number in range(1, (words.workers or len(cores)) + 1):
            with confined(number, cores[(number - 1) % len(cores)], words.share):
                nodes.add_node(num_cpus=1)
            upscale(source, nodes.address, folder)  # every worker loads its libraries
            best: dict[str, float] = {}
            for _ in range(words.rounds):
                outcome, size = upscale(source, nodes.address, folder)
                facts = outcome.facts
                if facts["fps"] > best.get("fps", 0):
                    best = {"fps": facts["fps"], "frames": facts["frames"], **facts["occupancy"]}
            found["workers"][number] = best
        found["segment"] = {name: round(value, 6) for name, value in driver_costs(source, folder, size).items()}
    print(json.dumps(found))
    ray.shutdown()
    nodes.shutdown()


if __name__ == "__main__":
    main()
