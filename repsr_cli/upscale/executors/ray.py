"""Videos and images on the workers of a Ray cluster: files and packets travel, no folder is shared.

An image goes there and back as the file it is. Of a video, a task gets a chunk of compressed packets, and gives back
the files of its segments as the local store holds them. So the journal beside the target is that of a local run, and
either can go on from the other's. Ray is imported by whoever asks for a cluster, and is in nobody else's way.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any, Self

from repsr_cli import version
from repsr_cli.engine.runner import name_of, pick_precision
from repsr_cli.engine.threads import torch_threads
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import DeviceError, Interrupted, MediaError, RepsrError, UsageError
from repsr_cli.image.files import whole_file
from repsr_cli.model.plain import PlainSR, Spec
from repsr_cli.upscale.image import upscale_image
from repsr_cli.upscale.request import Outcome, Progress, Reporter, UpscaleOptions
from repsr_cli.upscale.video import Finished, VideoPlan, upscale_chunk
from repsr_cli.video.packet_chunks import PacketChunk, chunks
from repsr_cli.video.timeline import Segment, Timeline

# Threads of a task where the user names no number: a decoder and an encoder keep the network company.
_THREADS = 2
# Chunks under way for every task that can run: the next one is there when a worker has finished.
_AHEAD = 2
# Of the room for objects on the driver's node; the rest is for results.
_SHARE = 0.25
# How often a chunk may lose its worker.
_RETRIES = 5

# The networks of this worker, by digest, device and the like.
_networks: dict[tuple[object, ...], Upscaler] = {}


@dataclass(frozen=True, slots=True)
class Task:
    """What all chunks of a video have in common, or all images that go through one network.

    Attributes:
        version: of repsr, which must be the same everywhere.
        plan: of the video; None for images.
        options: the request, its device one of the worker's.
        network: digest of the weights.
        spec: of the network.
        weights: reference to the weights, fetched by who does not have them.
        threads: CPU threads of the network.
        engine: name and version of what must compute videos.
    """

    version: str
    plan: VideoPlan | None
    options: UpscaleOptions
    network: str
    spec: Spec
    weights: Any
    threads: int
    engine: str

    def check(self) -> None:
        """See that this worker is of the same version.

        Raises:
            UsageError: it is not.
        """
        if self.version != version.__version__:
            happened = f"a worker has repsr {version.__version__}, this is {self.version}"
            raise UsageError("--ray", happened, "Install the same version everywhere.")

    def upscaler(self) -> Upscaler:
        """The network, loaded once in the life of a worker.

        Raises:
            UsageError: the worker lacks the engine, or has another version of it.
        """
        import ray

        options = self.options
        key = (self.network, options.device, options.precision, options.engine, options.tile, self.threads)
        if key not in _networks:
            net = PlainSR(self.spec)
            net.load_state_dict(ray.get(self.weights))
            _networks[key] = Upscaler(
                net.eval(), options.device, options.precision, options.tile, self.threads, engine=options.engine
            )
        upscaler = _networks[key]
        if upscaler.engine_name != self.engine:
            happened = f"a worker computes by {upscaler.engine_name}, not by {self.engine}"
            raise UsageError("--ray", happened, "Install the same version everywhere, or add --engine torch.")
        return upscaler


def work(task: Task, chunk: PacketChunk) -> Finished | RepsrError | None:
    """Upscale a chunk, in a worker; failures of the house are handed back, not raised."""
    assert task.plan is not None
    try:
        task.check()
        with tempfile.TemporaryDirectory(prefix="repsr-") as folder, torch_threads(task.threads):
            return upscale_chunk(task.plan, chunk, task.upscaler(), task.options, Path(folder))
    except RepsrError as error:
        return error


def work_image(task: Task, image: tuple[str, bytes, str]) -> tuple[bytes, Outcome] | RepsrError:
    """Upscale an image file (its name, its bytes, the name of what it becomes), in a worker."""
    name, data, wanted = image
    try:
        task.check()
        with tempfile.TemporaryDirectory(prefix="repsr-") as folder, torch_threads(task.threads):
            source, target = Path(folder) / "source" / name, Path(folder) / "target" / wanted
            try:
                source.parent.mkdir()
                target.parent.mkdir()
                source.write_bytes(data)
            except OSError as error:
                return MediaError(name, f"a worker has no room for it: {error.strerror}", "Make room there.")
            outcome = upscale_image(source, target, task.upscaler(), task.options, Reporter())
            return target.read_bytes(), outcome
    except RepsrError as error:
        return error


@dataclass(slots=True)
class Cluster:
    """A cluster at work on one video, or on the images that go through one network.

    Attributes:
        device: kind of device of its workers: ``cuda`` or ``cpu``.
        precision: of the network there.
        engine: what runs it there, with its version.
        tile: its tiles there.
        seconds: wall time of the work.
    """

    task: Task
    device: str
    precision: str
    engine: str
    tile: str
    seconds: float = 0.0

    @classmethod
    def join(cls, address: str, plan: VideoPlan | None, upscaler: Upscaler, options: UpscaleOptions) -> Self:
        """Connect, and bring the network there.

        Args:
            address: ``auto``, ``HOST:PORT`` or ``ray://HOST:PORT``.
            plan: of the video; None for images.
            upscaler: the network.
            options: the request.

        Raises:
            UsageError: Ray is not installed, no cluster answers, or the source can be read only once.
            DeviceError: the cluster has no such device.
        """
        if options.benchmark or (plan is not None and plan.timeline is None):
            raise UsageError("--ray", "needs a source that can be read twice and a file to write", "Leave it out.")
        ray = connect(address)
        device, threads = _means(ray, options)
        import torch

        precision = name_of(pick_precision(options.precision, torch.device(device)))
        # What was picked for videos here; images are torch's, and other devices have their own tiles.
        engine, name, tile = "torch", "torch", options.tile
        if plan is not None and device == upscaler.device.type:
            engine, name, tile = upscaler.engine, upscaler.engine_name, upscaler.tile
        there = replace(
            options,
            device=device,
            more_devices=(),
            precision=precision,
            engine=engine,
            tile=tile,
            threads=threads,
            ray=None,
        )
        weights = ray.put({name: value.cpu() for name, value in upscaler.net.state_dict().items()})
        task = Task(version.__version__, plan, there, upscaler.digest(), upscaler.spec, weights, threads, name)
        return cls(task, device, precision, name, tile)

    def run(self, segments: Sequence[Segment]) -> Iterator[Finished]:
        """Upscale segments.

        Args:
            segments: those that are left, in order.

        Yields:
            What comes of each chunk, as it comes.

        Raises:
            RepsrError: what happened in a worker.
            DeviceError: a chunk lost its worker again and again.
        """
        began = time.perf_counter()
        plan = self.task.plan
        assert plan is not None
        assert plan.timeline is not None
        source, timeline = plan.source, plan.timeline
        groups = _groups(segments, timeline)
        unclean: list[tuple[Segment, ...]] = []
        yield from self._all(chunks(source, timeline, groups), unclean)
        groups = sorted(unclean, key=lambda group: group[0].index)
        yield from self._all(chunks(source, timeline, groups, whole=True), unclean)
        self.seconds = time.perf_counter() - began

    def upscale_image(self, source: Path, target: Path, reporter: Reporter, stop: Event) -> Outcome:
        """Upscale an image file there; several threads may ask.

        Args:
            source: the file.
            target: the file to be written.
            reporter: told when it is done.
            stop: set when the caller wants no result any more.

        Raises:
            RepsrError: as ``upscale_image`` here.
            DeviceError: the image lost its worker again and again.
            Interrupted: ``stop`` was set.
        """
        import ray

        started = time.perf_counter()
        if target.exists() and not self.task.options.overwrite:
            raise UsageError(target, "exists", "Add -y to replace it.")
        try:
            data = source.read_bytes()
        except OSError as error:
            raise MediaError(source, f"cannot be read ({error.strerror})", "Check the path.") from error
        remote = ray.remote(max_retries=_RETRIES, **_needs(self.device, self.task.threads))(work_image)
        reference = remote.remote(ray.put(self.task), (source.name, data, target.name))
        while not ray.wait([reference], timeout=0.5)[0]:
            if stop.is_set():
                ray.cancel(reference, force=True)
                raise Interrupted("stopped", "another image in flight ended the run")
        result = _fetch(ray, reference, source.name)
        if isinstance(result, RepsrError):
            raise type(result)(target if target.name in result.subject else source, result.happened, result.remedy)
        made: bytes = result[0]
        outcome: Outcome = result[1]
        with whole_file(target) as file:
            file.write(made)
        reporter.progress(Progress(1, 1, "page"))
        return replace(outcome, source=source, target=target, seconds=time.perf_counter() - started)

    def _all(self, waiting: Iterator[PacketChunk], unclean: list[tuple[Segment, ...]]) -> Iterator[Finished]:
        """Send chunks as long as there is room, and hand on what comes back."""
        import ray

        needs = _needs(self.device, self.task.threads)
        remote = ray.remote(max_retries=_RETRIES, **needs)(work)
        task = ray.put(self.task)
        limit = _SHARE * min(_each(ray, "object_store_memory"), default=2**30)
        under_way: dict[Any, PacketChunk] = {}
        following = next(waiting, None)
        try:
            while following is not None or under_way:
                held = sum(chunk.nbytes for chunk in under_way.values())
                room = len(under_way) < _AHEAD * _slots(ray, needs) and held < limit
                if following is not None and (room or not under_way):
                    under_way[remote.remote(task, following)] = following
                    following = next(waiting, None)
                    continue
                for done in ray.wait(list(under_way), timeout=5.0)[0]:
                    chunk = under_way.pop(done)
                    finished = self._result(ray, done, chunk)
                    if finished is None:
                        unclean.append(chunk.segments)
                    else:
                        yield finished
        finally:
            for reference in under_way:
                ray.cancel(reference, force=True)

    def _result(self, ray: Any, reference: Any, chunk: PacketChunk) -> Finished | None:
        assert self.task.plan is not None
        source = self.task.plan.source
        at = float((chunk.segments[0].first - source.start) * source.time_base)
        result: Finished | RepsrError | None = _fetch(ray, reference, f"the segment at {at:.3f} s")
        if isinstance(result, RepsrError):
            raise result
        if result is not None and result.precision != self.precision:
            happened = f"a worker went from {self.precision} to {result.precision}, which mixes packets of two kinds"
            raise DeviceError("cluster", happened, f"Begin again with --precision {result.precision} --no-resume.")
        return result


def images_at_once(options: UpscaleOptions) -> int:
    """How many images to have under way on the cluster of a request.

    Raises:
        UsageError: no cluster answers.
        DeviceError: it has no such device.
    """
    assert options.ray is not None
    ray = connect(options.ray)
    return max(1, _AHEAD * _slots(ray, _needs(*_means(ray, options))))


def _means(ray: Any, options: UpscaleOptions) -> tuple[str, int]:
    """The kind of device of a task, and the CPU threads."""
    threads = min(options.threads or _THREADS, int(max(_each(ray, "CPU"), default=1)) or 1)
    return _device(options.device, ray.cluster_resources()), threads


def _needs(device: str, threads: int) -> dict[str, int]:
    """What a task takes of a node."""
    return {"num_gpus": 1, "num_cpus": 1} if device == "cuda" else {"num_cpus": threads}


def _fetch(ray: Any, reference: Any, what: str) -> Any:
    """A task's result.

    Raises:
        DeviceError: it lost its worker too often.
    """
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError:
        raise  # a bug, with its traceback
    except ray.exceptions.RayError as error:
        happened = f"{what} lost its worker {_RETRIES + 1} times ({type(error).__name__})"
        raise DeviceError("cluster", happened, "Look at Ray's logs; the same command goes on.") from error


def connect(address: str) -> Any:
    """Ray, connected.

    Raises:
        UsageError: it is not installed, or nothing answers.
    """
    try:
        import ray
    except ImportError as error:
        raise UsageError("--ray", "Ray is not installed", "Install it: pip install 'repsr[ray]'.") from error
    # Ray reports its use to its makers unless told not to.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", namespace="repsr")
        except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
            remedy = "Start one with: ray start --head, or name another address."
            raise UsageError(f"--ray {address}", "no cluster answers there", remedy) from error
    return ray


def _groups(segments: Sequence[Segment], timeline: Timeline) -> list[tuple[Segment, ...]]:
    """Segments by the chunks they travel in: one that begins without a keyframe goes with the one before it."""
    keys = set(timeline.keys)
    groups: list[list[Segment]] = []
    for segment in segments:
        if groups and segment.first not in keys and groups[-1][-1].index == segment.index - 1:
            groups[-1].append(segment)
        else:
            groups.append([segment])
    return [tuple(group) for group in groups]


def _device(asked: str, resources: dict[str, float]) -> str:
    """The kind of device that workers use.

    Raises:
        DeviceError: the cluster has none of the kind asked for.
    """
    kind = asked.partition(":")[0]
    if kind == "auto":
        return "cuda" if resources.get("GPU") else "cpu"
    if kind == "cuda" and not resources.get("GPU"):
        raise DeviceError(f"--device {asked}", "the cluster has no GPU", "Leave it out.")
    if kind not in ("cpu", "cuda"):
        raise DeviceError(f"--device {asked}", "not a device for a cluster", "Use cpu or cuda.")
    return kind


def _each(ray: Any, resource: str) -> list[float]:
    """How much of a resource every node has."""
    return [node["Resources"].get(resource, 0.0) for node in ray.nodes() if node["Alive"]]


def _slots(ray: Any, needs: dict[str, int]) -> int:
    """How many tasks can run at once."""
    names = {"num_cpus": "CPU", "num_gpus": "GPU"}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(
        int(min(resources.get(names[need], 0.0) // amount for need, amount in needs.items())) for resources in nodes
    )
