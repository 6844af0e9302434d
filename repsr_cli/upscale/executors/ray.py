"""Carry out plans on the workers of a Ray cluster: files and packets are sent, no folder is shared.

An image is sent there and back as a file. Of a video, a task gets a chunk of compressed packets, and returns the files
of its segments as the local store holds them. So the records beside the target are those of a local run, and either can
continue from the other's. Ray is imported when a cluster is asked for.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Lock, current_thread, main_thread
from typing import Any

from repsr_cli import version
from repsr_cli.engine.settings import pick_precision, precision_name
from repsr_cli.engine.threads import torch_threads
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import DeviceError, Interrupted, MediaError, RepsrError, UsageError
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.spec import Spec
from repsr_cli.reporting import Outcome, Progress, Reporter
from repsr_cli.upscale.calibrate import calibrated
from repsr_cli.upscale.executors import Executor
from repsr_cli.upscale.executors.ray_library import import_ray
from repsr_cli.upscale.executors.scratch import scratch_folder
from repsr_cli.upscale.image import upscale_image
from repsr_cli.upscale.image_sinks import FileSink, ImageSink
from repsr_cli.upscale.job_record import job_record
from repsr_cli.upscale.models import Compute, ModelCache
from repsr_cli.upscale.plan_image import ImagePlan
from repsr_cli.upscale.plan_video import VideoPlan
from repsr_cli.upscale.sinks import VideoSink
from repsr_cli.upscale.video import (
    STAGES,
    Finished,
    FrameCounter,
    Summary,
    announce,
    complete,
    earlier_repeats,
    unfinished,
    upscale_chunk,
    video_outcome,
)
from repsr_cli.video.packet_chunks import PacketChunk, chunks
from repsr_cli.video.timeline import Segment, Timeline

# Threads of a task where the user gives no number: a decoder and an encoder run beside the network.
_THREADS = 2
# Chunks in flight for every task that can run: the next one is there when a worker has finished.
_AHEAD = 2
# Share of the space for objects on the driver's node that chunks may take; the rest is for results.
_SHARE = 0.25
# How often a chunk may lose its worker.
_RETRIES = 5

# Ray's names of what tasks need.
_RESOURCES = {"num_cpus": "CPU", "num_gpus": "GPU"}

# What this worker has loaded.
_models = ModelCache()


@dataclass(frozen=True, slots=True)
class Task:
    """What all chunks of a video have in common, or all images that use one model.

    Attributes:
        version: of repsr, which must be the same everywhere.
        plan: of the video; None for images.
        compute: what computes, its device one of the worker's.
        network: digest of the weights.
        weights: reference to the weights, fetched by workers that do not have them.
        engine: name and version of what must compute videos.
        job: what the packets of a video depend on.
    """

    version: str
    plan: VideoPlan | None
    compute: Compute
    network: str
    spec: Spec
    weights: Any
    engine: str
    job: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """See that this worker is of the same version."""
        if self.version != version.__version__:
            happened = f"a worker has repsr {version.__version__}, this is {self.version}"
            raise UsageError("--ray", happened, "Install the same version everywhere.")

    def upscaler(self) -> Upscaler:
        """The network on this worker's device, loaded once in the life of a worker.

        Raises:
            UsageError: the worker lacks the engine, or has another version of it.
        """
        # By its digest: a path means something on the driver only.
        model = replace(self.compute.model, path=Path(self.network), sha256="", blend=None)
        _models.network(model, lambda _model: self._network())
        upscaler = _models.upscaler(replace(self.compute, model=model), self.compute.devices[0])
        if upscaler.engine_name != self.engine:
            happened = f"a worker computes by {upscaler.engine_name}, not by {self.engine}"
            raise UsageError("--ray", happened, "Install the same version everywhere, or add --engine torch.")
        return upscaler

    def _network(self) -> PlainSR:
        import ray

        net = PlainSR(self.spec)
        net.load_state_dict(ray.get(self.weights))
        return net.eval()


def work(task: Task, chunk: PacketChunk) -> Finished | RepsrError | None:
    """Upscale a chunk, in a worker; our own errors are returned, not raised."""
    assert task.plan is not None
    try:
        task.check()
        with scratch_folder() as folder, torch_threads(task.compute.threads):
            return upscale_chunk(task.plan, chunk, task.upscaler(), folder, task.job)
    except RepsrError as error:
        return error


def work_image(task: Task, image: tuple[ImagePlan, bytes]) -> tuple[bytes, Outcome] | RepsrError:
    """Upscale an image file (its plan and its bytes), in a worker."""
    plan, data = image
    try:
        task.check()
        with scratch_folder() as folder, torch_threads(task.compute.threads):
            source = folder / "source" / plan.source.name
            target = folder / "target" / plan.target.name
            try:
                source.parent.mkdir()
                target.parent.mkdir()
                source.write_bytes(data)
            except OSError as error:
                happened = f"a worker has no space for it: {error.strerror}"
                return MediaError(plan.source.name, happened, "Free some there.")
            here = replace(plan, source=source, target=target)
            outcome = upscale_image(here, FileSink(here), task.upscaler(), Reporter())
            return target.read_bytes(), outcome
    except RepsrError as error:
        return error


class Ray(Executor):
    """Computes on the workers of a cluster."""

    def __init__(self, models: ModelCache) -> None:
        self._models = models
        self._tasks: dict[object, Task] = {}
        self._lock = Lock()

    def run_image(self, plan: ImagePlan, sink: ImageSink, reporter: Reporter, stop: Event | None) -> Outcome:
        """As ``Executor`` says."""
        if not sink.keyed:
            raise _cannot()
        started = time.perf_counter()
        sink.check()
        ray = connect(plan.compute.ray)
        try:
            data = plan.source.read_bytes()
        except OSError as error:
            raise MediaError(plan.source, f"cannot be read ({error.strerror})", "Check the path.") from error
        task = self._image_task(ray, plan.compute, reporter)
        needs = _needs(task.compute)
        remote = ray.remote(max_retries=_RETRIES, **needs)(work_image)
        reference = remote.remote(ray.put(task), (plan, data))
        while not ray.wait([reference], timeout=0.5)[0]:
            if stop is not None and stop.is_set():
                ray.cancel(reference, force=True)
                raise Interrupted("stopped", "another image in flight ended the run")
        result = _fetch(ray, reference, plan.source.name)
        if isinstance(result, RepsrError):
            subject = plan.target if plan.target.name in result.subject else plan.source
            raise type(result)(subject, result.happened, result.remedy)
        made: bytes = result[0]
        outcome: Outcome = result[1]
        sink.put(made)
        reporter.progress(Progress(1, 1, "page"))
        return replace(outcome, source=plan.source, target=plan.target, seconds=time.perf_counter() - started)

    def _image_task(self, ray: Any, compute: Compute, reporter: Reporter) -> Task:
        """What all images of a model have in common."""
        with self._lock:
            if compute.model.key not in self._tasks:
                there = _there(ray, compute)
                check_free(ray, there, reporter.say)
                self._tasks[compute.model.key] = _task(ray, None, there, self._models, "torch")
                why = f" for {compute.why}" if compute.why else ""
                reporter.say(f"model {compute.model.name}{why}: on a cluster, {there.devices[0]}, {there.precision}")
            return self._tasks[compute.model.key]

    def run_video(self, plan: VideoPlan, sink: VideoSink, reporter: Reporter) -> Outcome:
        """As ``Executor`` says."""
        began = time.perf_counter()
        if not sink.keyed or plan.timeline is None:
            raise _cannot()
        sink.check()
        announced = announce(plan, reporter)
        ray = connect(plan.compute.ray)
        there, name = self._resolved(ray, plan, reporter)
        check_free(ray, there, reporter.say)
        task = _task(ray, replace(plan, compute=there), there, self._models, name)
        job = job_record(plan, task.network, there.devices[0], there.precision, name, there.tile)
        with sink.open(job, reporter.say):
            summary = _Run(ray, replace(task, job=job), plan, plan.timeline).upscaled(sink, reporter)
            complete(plan, sink, summary.frames)
        return video_outcome(plan, summary, announced, time.perf_counter() - began)

    def _resolved(self, ray: Any, plan: VideoPlan, reporter: Reporter) -> tuple[Compute, str]:
        """What computes on the workers, and their engine with its version: on CPUs what is the fastest here."""
        there = _there(ray, plan.compute)
        if there.devices[0] != "cpu":
            return there, "torch"
        local = self._models.upscaler(replace(plan.compute, precision=there.precision, ray=None), "cpu", reporter.say)
        local = calibrated(local, plan, lambda line: reporter.say(f"{plan.original.name}: {line}"))
        return replace(there, engine=local.engine, tile=local.tile), local.engine_name


def _cannot() -> UsageError:
    return UsageError("--ray", "needs a source that can be read twice and a file to write", "Leave it out.")


def _there(ray: Any, compute: Compute) -> Compute:
    """What computes, resolved for the workers of a cluster; the engine is torch."""
    import torch

    threads = min(compute.threads or _THREADS, int(max(_each(ray, "CPU"), default=1)) or 1)
    device = _device(compute.devices[0], ray.cluster_resources())
    precision = precision_name(pick_precision(compute.precision, torch.device(device)))
    return replace(compute, devices=(device,), precision=precision, engine="torch", threads=threads, ray=None)


def check_free(ray: Any, compute: Compute, say: Callable[[str], None]) -> None:
    """See that the cluster can run a task, and say so where it cannot at present.

    Raises:
        DeviceError: it has no node that could ever run one.
    """
    needs = _needs(compute)
    wanted = " and ".join(f"{amount} {_RESOURCES[need]}" for need, amount in needs.items())
    if not _slots(ray, needs):
        raise DeviceError("cluster", f"no node has {wanted} for a task", "Add workers, or lower --threads.")
    free = ray.available_resources()
    if any(free.get(_RESOURCES[need], 0.0) < amount for need, amount in needs.items()):
        say(f"the cluster is busy: waiting for {wanted}")


def _task(ray: Any, plan: VideoPlan | None, compute: Compute, models: ModelCache, engine: str) -> Task:
    """Put the weights on the cluster."""
    net = models.network(compute.model)
    if not isinstance(net, PlainSR):
        raise UsageError("--ray", f"computes by Compact models only, not by {net.spec.name}", "Choose another model.")
    digest = models.upscaler(Compute(compute.model, engine="torch"), "cpu").digest()
    weights = ray.put({name: value.cpu() for name, value in net.state_dict().items()})
    return Task(version.__version__, plan, compute, digest, net.spec, weights, engine)


@dataclass(frozen=True, slots=True)
class _Run:
    """A video under way on a cluster."""

    ray: Any
    task: Task
    plan: VideoPlan
    timeline: Timeline

    def upscaled(self, sink: VideoSink, reporter: Reporter) -> Summary:
        """Upscale the segments that are not done, and put them into a sink.

        Raises:
            RepsrError: what happened in a worker.
            DeviceError: a chunk lost its worker again and again.
        """
        began, compute = time.perf_counter(), self.task.compute
        resumed = sum(sink.done.values())
        counter = FrameCounter(self.plan, reporter, resumed)
        stages = dict.fromkeys(STAGES, 0.0)
        repeated, notes = [*earlier_repeats(self.plan, sink)], list[str]()
        for finished in self._segments(unfinished(self.plan, sink)):
            counter.add(sum(sink.put(index, data) for index, data in finished.segments.items()))
            repeated += finished.repeated
            notes += finished.notes
            # As if one after the other.
            stages = {name: stages[name] + finished.stages[name] for name in STAGES}
        spec = self.task.spec
        return Summary(
            frames=counter.count,
            resumed=resumed,
            network=f"{spec.name} x{spec.scale} on a cluster, {compute.devices[0]}, {compute.precision}",
            engine=self.task.engine,
            tile=compute.tile,
            devices=compute.devices,
            reused=0.0,
            repeated=tuple(repeated),
            notes=tuple(notes),
            stages=stages | {"wall": time.perf_counter() - began},
        )

    def _segments(self, segments: Sequence[Segment]) -> Iterator[Finished]:
        """What comes of each chunk, as it comes."""
        source, timeline = self.plan.source, self.timeline
        groups = _groups(segments, timeline)
        unclean: list[tuple[Segment, ...]] = []
        yield from self._all(chunks(source, timeline, groups), unclean)
        groups = sorted(unclean, key=lambda group: group[0].index)
        yield from self._all(chunks(source, timeline, groups, whole=True), unclean)

    def _all(self, waiting: Iterator[PacketChunk], unclean: list[tuple[Segment, ...]]) -> Iterator[Finished]:
        """Send chunks as long as there is space, and hand on what comes back."""
        ray = self.ray
        needs = _needs(self.task.compute)
        remote = ray.remote(max_retries=_RETRIES, **needs)(work)
        task = ray.put(self.task)
        limit = _SHARE * min(_each(ray, "object_store_memory"), default=2**30)
        under_way: dict[Any, PacketChunk] = {}
        following = next(waiting, None)
        try:
            while following is not None or under_way:
                held = sum(chunk.nbytes for chunk in under_way.values())
                more = len(under_way) < _AHEAD * _slots(ray, needs) and held < limit
                if following is not None and (more or not under_way):
                    under_way[remote.remote(task, following)] = following
                    following = next(waiting, None)
                    continue
                for done in ray.wait(list(under_way), timeout=5.0)[0]:
                    chunk = under_way.pop(done)
                    finished = self._result(done, chunk)
                    if finished is None:
                        unclean.append(chunk.segments)
                    else:
                        yield finished
        finally:
            for reference in under_way:
                ray.cancel(reference, force=True)

    def _result(self, reference: Any, chunk: PacketChunk) -> Finished | None:
        source, precision = self.plan.source, self.task.compute.precision
        at = float((chunk.segments[0].first - source.start) * source.time_base)
        result: Finished | RepsrError | None = _fetch(self.ray, reference, f"the segment at {at:.3f} s")
        if isinstance(result, RepsrError):
            raise result
        if result is not None and result.precision != precision:
            happened = f"a worker went from {precision} to {result.precision}, which mixes packets of two kinds"
            raise DeviceError("cluster", happened, f"Begin again with --precision {result.precision} --no-resume.")
        return result


def images_at_once(compute: Compute) -> int:
    """How many images to have in flight on the cluster that is asked for.

    Raises:
        UsageError: no cluster answers.
        DeviceError: it has no such device.
    """
    ray = connect(compute.ray)
    return max(1, _AHEAD * _slots(ray, _needs(_there(ray, compute))))


def _needs(compute: Compute) -> dict[str, int]:
    """What a task takes of a node."""
    if compute.devices[0] == "cuda":
        return {"num_gpus": 1, "num_cpus": 1}
    return {"num_cpus": compute.threads or _THREADS}


def _fetch(ray: Any, reference: Any, what: str) -> Any:
    """A task's result."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError:
        raise  # a bug, with its traceback
    except ray.exceptions.RayError as error:
        happened = f"{what} lost its worker {_RETRIES + 1} times ({type(error).__name__})"
        raise DeviceError("cluster", happened, "Look at Ray's logs; the same command goes on.") from error


def connect(address: str | None) -> Any:
    """Ray, connected.

    Raises:
        UsageError: it is not installed, or nothing answers.
    """
    ray = import_ray()
    if not ray.is_initialized():
        # Ray replaces the handler by which the command stops as it does for Ctrl-C.
        before = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", namespace="repsr")
        except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
            remedy = "Start one with: ray start --head, or name another address."
            raise UsageError(f"--ray {address}", "no cluster answers there", remedy) from error
        finally:
            if current_thread() is main_thread() and before is not None:
                signal.signal(signal.SIGTERM, before)
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
    """The kind of device that workers use."""
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
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(
        int(min(resources.get(_RESOURCES[need], 0.0) // amount for need, amount in needs.items()))
        for resources in nodes
    )
