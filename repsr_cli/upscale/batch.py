"""Jobs -> files: choose the network, run job after job, go on after a failure and report it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from threading import Event, Lock, get_ident
from typing import TYPE_CHECKING, Literal

from repsr_cli.errors import CheckpointError, Interrupted, MediaError, RepsrError, UsageError
from repsr_cli.sizes import asked_sides, needed_factor
from repsr_cli.upscale.jobs import Failure, Job, source_size
from repsr_cli.upscale.request import Outcome, Reporter, UpscaleOptions

if TYPE_CHECKING:
    from repsr_cli.engine.upscaler import Upscaler
    from repsr_cli.model.plain import PlainSR, Spec
    from repsr_cli.model.zoo import Weight
    from repsr_cli.upscale.executors.ray import Cluster
    from repsr_cli.upscale.image_pool import Turns


# How images are run: small ones side by side on a CPU, medium ones in turns, large ones and videos alone; all that a
# cluster does by as many threads as it takes tasks.
Way = Literal["apart", "turns", "alone", "far"]
# LR pixels of an image of which several may be in flight: some 200 MB each at factor 4, 8 bit.
SMALL_PIXELS = 4 << 20


def settle_scale(options: UpscaleOptions) -> UpscaleOptions:
    """Fill in the factor where neither a factor nor a size was asked for: the network's own, else 4.

    Raises:
        CheckpointError: there is no such network.
    """
    if options.scale or options.width or options.height or options.fit or options.short_side:
        return options
    from repsr_cli.model.zoo import resolve

    return replace(options, scale=float(resolve(options.network, None, "clean").scale))


def run_jobs(
    jobs: Sequence[Job], options: UpscaleOptions, reporter_for: Callable[[Job], Reporter]
) -> Iterator[Outcome | Failure]:
    """Upscale one job after the other.

    Args:
        jobs: from ``plan_jobs``.
        options: the request, with its scale settled.
        reporter_for: gives each job its reporter.

    Yields:
        An outcome or a failure for every job, in order, each as soon as it is known.

    Raises:
        CheckpointError: no such network.
        DeviceError: no such device.
        Interrupted: the user stopped the work; what was yielded is done.
    """
    networks = Networks(options)
    if jobs:
        networks.check()
    done, made = 0, set[Path]()
    try:
        for way, group in groupby(jobs, key=networks.way_for):
            for result in _run_group(list(group), way, options, networks, reporter_for, made):
                yield result
                done += 1
    except KeyboardInterrupt as error:
        raise _interrupted(jobs[done], done, len(jobs), options) from error
    finally:
        # Not before: what is empty after one job failed may be where another is about to write.
        for folder in sorted(made, key=lambda path: len(path.parts), reverse=True):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def _run_group(
    jobs: Sequence[Job],
    way: Way,
    options: UpscaleOptions,
    networks: Networks,
    reporter_for: Callable[[Job], Reporter],
    made: set[Path],
) -> Iterator[Outcome | Failure]:
    from repsr_cli.engine.threads import torch_threads

    def work(job: Job) -> Outcome | Failure:
        try:
            # In the thread that computes. Images that work apart have a thread each.
            with torch_threads(1 if networks.turns is not None and networks.turns.apart else options.threads):
                return run_job(job, options, networks, reporter_for(job), made)
        except Interrupted:
            raise
        except RepsrError as error:
            return Failure(str(job.source), error)

    if way == "alone" or len(jobs) == 1:
        yield from map(work, jobs)
        return
    import torch

    from repsr_cli.upscale.image_pool import Turns

    threads = options.threads or torch.get_num_threads()
    # With fewer images than this, some cores would soon have none left.
    apart = way == "apart" and threads > 1 and len(jobs) >= 2 * threads
    if way == "far":
        from repsr_cli.upscale.executors.ray import images_at_once

        networks.turns = Turns(images_at_once(options))
    else:
        networks.turns = Turns(threads, apart=True) if apart else Turns()
    try:
        yield from networks.turns.run(work, jobs)
    finally:
        networks.turns = None


def run_job(job: Job, options: UpscaleOptions, networks: Networks, reporter: Reporter, made: set[Path]) -> Outcome:
    """Upscale one image or video; folders made for it are added to ``made``.

    Raises:
        RepsrError: the job failed; the target is not left behind.
    """
    if not options.benchmark:
        made.update(_make_folders(job.target.parent))
    if job.kind == "image" and options.ray is not None:
        return networks.cluster_for(job, reporter).upscale_image(job.source, job.target, reporter, networks.stop())
    upscaler = networks.upscaler_for(job, reporter)
    if job.kind == "image":
        from repsr_cli.upscale.image import upscale_image

        return upscale_image(job.source, job.target, upscaler, options, reporter)
    from repsr_cli.upscale.video import upscale_video

    others = networks.others_for(upscaler)
    return upscale_video(job.source, job.target, upscaler, options, reporter, others)


def describe_job(job: Job, options: UpscaleOptions) -> list[str]:
    """What a job would do, line by line; of a video also how long, from a trial of a few seconds.

    Raises:
        RepsrError: what would stop the job, as far as that can be seen from here.
    """
    weight = choose_weight(job, options)
    height, width = source_size(job.kind, job.source, options.max_pixels)
    factor = wanted_factor(job, options)
    lines = [
        f"{job.kind} of {width}x{height}, {factor:g} times as large",
        f"network {weight.name}" + ("" if weight.scale == factor else ", then a resize"),
    ]
    if job.kind == "video":
        from repsr_cli.engine.threads import torch_threads
        from repsr_cli.upscale.estimate import estimate
        from repsr_cli.upscale.plan_video import plan_video

        plan = plan_video(job.source, job.target, weight.scale, options)
        lines += str(plan).splitlines()
        with torch_threads(options.threads):
            lines.append(estimate(plan, Networks(options).upscaler_for(job, Reporter()), options, lines.append))
    return [*lines, f"to be written: {job.target}"]


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder and what leads to it; returns the folders that were not there.

    Raises:
        MediaError: it cannot be made.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MediaError(folder, f"cannot be made ({error.strerror})", "Choose another folder with -o.") from error
    return missing


def _interrupted(job: Job, done: int, total: int, options: UpscaleOptions) -> Interrupted:
    before = f" after {done} of {total} inputs" if total > 1 else ""
    if job.kind == "video" and options.resume:
        remedy = "Finished segments are kept: the same command goes on from there."
    elif done:
        remedy = "Add --skip-existing to go on from there."
    else:
        remedy = "The same command starts again."
    return Interrupted(job.source, f"stopped{before}; {job.target.name} was not written", remedy)


class Networks:
    """The upscalers of a run, each made when the first job needs it, and used by the others.

    Args:
        options: the request, with its scale settled.

    Attributes:
        turns: set while several threads ask. They then get views that take turns at one upscaler, or, where threads
            work apart, an upscaler each that keeps to its thread.
    """

    def __init__(self, options: UpscaleOptions) -> None:
        self.options = options
        self.turns: Turns | None = None
        self._networks: dict[Path, PlainSR] = {}
        self._upscalers: dict[tuple[Path, int], Upscaler] = {}
        self._others: dict[Upscaler, tuple[Upscaler, ...]] = {}
        self._clusters: dict[PlainSR, Cluster] = {}
        self._loading = Lock()

    def check(self) -> None:
        """Refuse what would fail for every job, so that it is said once.

        Raises:
            CheckpointError: no such network.
            DeviceError: no such device.
            UsageError: no such kind of device, or devices of several kinds.
        """
        from repsr_cli.engine.upscaler import pick_device
        from repsr_cli.model.zoo import resolve

        resolve(self.options.network, self.options.scale, "clean")
        devices = [pick_device(name) for name in (self.options.device, *self.options.more_devices)]
        if len({device.type for device in devices}) > 1:
            names = ", ".join(map(str, devices))
            raise UsageError(f"devices {names}", "their results differ in the last digits", "Name devices of one kind.")

    def others_for(self, upscaler: Upscaler) -> tuple[Upscaler, ...]:
        """The same network on the further devices.

        Args:
            upscaler: of the first one.
        """
        if upscaler not in self._others:
            options, kind = self.options, type(upscaler)
            self._others[upscaler] = tuple(
                kind(upscaler.net, name, options.precision, options.tile, options.threads, engine=options.engine)
                for name in options.more_devices
            )
        return self._others[upscaler]

    def cluster_for(self, job: Job, reporter: Reporter) -> Cluster:
        """The cluster, with the network for an image.

        Raises:
            RepsrError: as ``upscaler_for``, or there is no cluster.
        """
        from repsr_cli.upscale.executors.ray import Cluster

        assert self.options.ray is not None
        upscaler = self.upscaler_for(job, reporter)
        with self._loading:
            if upscaler.net not in self._clusters:
                self._clusters[upscaler.net] = Cluster.join(self.options.ray, None, upscaler, self.options)
            return self._clusters[upscaler.net]

    def stop(self) -> Event:
        """Set when the images in flight are to end."""
        return Event() if self.turns is None else self.turns.stop

    def upscaler_for(self, job: Job, reporter: Reporter) -> Upscaler:
        """The upscaler for a job; says which network and device were chosen when it is first loaded.

        Raises:
            CheckpointError: no network fits the request.
            DeviceError: the device is not there or not sound.
            UsageError: the job's source is larger than the size asked for.
        """
        from repsr_cli.engine.upscaler import Upscaler
        from repsr_cli.model.zoo import load_weight

        options = self.options
        weight = choose_weight(job, options)
        apart = self.turns is not None and self.turns.apart
        key = (weight.path, get_ident() if apart else 0)
        with self._loading:
            new = weight.path not in self._networks
            net = self._networks.get(weight.path) or load_weight(weight)
            if key not in self._upscalers:
                threads = 1 if apart else options.threads
                self._upscalers[key] = Upscaler(
                    net,
                    options.device,
                    options.precision,
                    options.tile,
                    threads,
                    say=reporter.say,
                    engine=options.engine,
                )
            upscaler = self._upscalers[key]
            if new:
                self._networks[weight.path] = net
                several = f", {self.turns.at_once} images at a time" if self.turns and apart else ""
                reporter.say(f"network {weight.name}: {upscaler.describe()}{several}{faster(net.spec)}")
        return upscaler if self.turns is None else self.turns.share(upscaler)

    def way_for(self, job: Job) -> Way:
        """How a job is run, by the memory it takes and the cores that it keeps busy."""
        from repsr_cli.engine.runner import CPU_CONTEXT_PIXELS, pick_device

        if job.kind == "video":
            return "alone"
        if self.options.ray is not None:
            return "far"
        try:
            height, width = source_size(job.kind, job.source, self.options.max_pixels)
        except RepsrError:  # reported when its turn comes
            return "turns"
        if height * width > SMALL_PIXELS:
            return "alone"
        small = height * width <= CPU_CONTEXT_PIXELS
        return "apart" if small and pick_device(self.options.device).type == "cpu" else "turns"


def choose_weight(job: Job, options: UpscaleOptions) -> Weight:
    """The network with the smallest factor that reaches the size asked for; a resize does the rest.

    Raises:
        CheckpointError: no network fits the request.
        MediaError: the source's size was needed and cannot be read.
        UsageError: the source is larger than the size asked for.
    """
    from repsr_cli.model.zoo import resolve

    factor = wanted_factor(job, options)
    weight = resolve(options.network, factor, "clean" if job.kind == "image" else "video")
    if factor > weight.scale:
        raise CheckpointError(
            weight.name, f"enlarges by {weight.scale}, not {factor:.4g}", f"Use -s {weight.scale}, twice if need be."
        )
    return weight


def faster(spec: Spec) -> str:
    """What would be faster than a network, by its share of the multiplications; empty if nothing shipped is.

    Args:
        spec: the network chosen.
    """
    from repsr_cli.model.plain import Spec
    from repsr_cli.model.zoo import available

    costs = {}
    for weight in available():
        if weight.scale == spec.scale and (size := re.fullmatch(r"M(\d+)C(\d+)", weight.network)):
            costs[weight.size] = Spec(spec.scale, channels=int(size[2]), blocks=int(size[1])).macs_per_pixel
    name = min(costs, key=lambda size: costs[size], default="")
    ratio = spec.macs_per_pixel / costs[name] if name else 1
    return f" (-n {name} would be up to {ratio:.1f} times as fast)" if ratio >= 1.5 else ""


def wanted_factor(job: Job, options: UpscaleOptions) -> float:
    """How many times a job's source is to be enlarged, on the axis that grows more.

    Raises:
        MediaError: the source's size was needed and cannot be read.
        UsageError: the source is larger than the size asked for.
    """
    if options.scale is not None:
        return options.scale
    height, width = source_size(job.kind, job.source, options.max_pixels)
    factor = float(needed_factor((height, width), options) or 0)
    if factor < 1:
        asked_height, asked_width = asked_sides((height, width), options)
        asked = f"a width of {asked_width}" if asked_width else f"a height of {asked_height}"
        raise UsageError(job.source, f"is {width}x{height} already, more than {asked} px", "repsr only enlarges.")
    return factor
