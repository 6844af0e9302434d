"""Jobs -> files: choose the network, run job after job, go on after a failure and report it. Floor 4."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from repsr_cli.errors import CheckpointError, Interrupted, MediaError, RepsrError, UsageError
from repsr_cli.pipelines.jobs import Failure, Job, source_size
from repsr_cli.pipelines.options import Outcome, Reporter, UpscaleOptions

if TYPE_CHECKING:
    from repsr_cli.engine.upscaler import Upscaler
    from repsr_cli.model.plain import Spec
    from repsr_cli.model.zoo import Weight
    from repsr_cli.pipelines.neighbours import Turns


# LR pixels of a picture of which several may be in flight: some 200 MB each at factor 4, 8 bit.
SMALL_PIXELS = 4 << 20


def settle_scale(options: UpscaleOptions) -> UpscaleOptions:
    """Fill in the factor where neither a factor nor a size was asked for: the network's own, else 4.

    Raises:
        CheckpointError: there is no such network.
    """
    if options.scale or options.width or options.height:
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
    done = 0
    try:
        for parallel, group in groupby(jobs, key=_is_small):
            for result in _run_group(list(group), parallel, options, networks, reporter_for):
                yield result
                done += 1
    except KeyboardInterrupt as error:
        raise _interrupted(jobs[done], done, len(jobs), options) from error


def _is_small(job: Job) -> bool:
    """Whether some of its kind may be in memory at once."""
    if job.kind == "clip":
        return False
    try:
        height, width = source_size(job.kind, job.source)
    except RepsrError:  # reported when its turn comes
        return True
    return height * width <= SMALL_PIXELS


def _run_group(
    jobs: Sequence[Job],
    parallel: bool,
    options: UpscaleOptions,
    networks: Networks,
    reporter_for: Callable[[Job], Reporter],
) -> Iterator[Outcome | Failure]:
    def work(job: Job) -> Outcome | Failure:
        try:
            return run_job(job, options, networks, reporter_for(job))
        except Interrupted:
            raise
        except RepsrError as error:
            return Failure(str(job.source), error)

    if parallel and len(jobs) > 1:
        from repsr_cli.pipelines.neighbours import Turns

        networks.turns = Turns()
        yield from networks.turns.run(work, jobs)
        networks.turns = None
    else:
        yield from map(work, jobs)


def run_job(job: Job, options: UpscaleOptions, networks: Networks, reporter: Reporter) -> Outcome:
    """Upscale one picture or clip.

    Raises:
        RepsrError: the job failed; neither the target nor a folder made for it is left behind.
    """
    made = [] if options.benchmark else _make_folders(job.target.parent)
    try:
        upscaler = networks.upscaler_for(job, reporter)
        if job.kind == "picture":
            from repsr_cli.pipelines.upscale_image import upscale_image

            return upscale_image(job.source, job.target, upscaler, options, reporter)
        from repsr_cli.pipelines.upscale_video import upscale_video

        return upscale_video(job.source, job.target, upscaler, options, reporter)
    except BaseException:
        for folder in made:
            if not any(folder.iterdir()):
                folder.rmdir()
        raise


def describe_job(job: Job, options: UpscaleOptions) -> list[str]:
    """What a job would do, line by line, without loading a network or decoding more than a header.

    Raises:
        RepsrError: what would stop the job, as far as that can be seen from here.
    """
    weight = choose_weight(job, options)
    height, width = source_size(job.kind, job.source)
    factor = wanted_factor(job, options)
    lines = [
        f"{job.kind} of {width}x{height}, {factor:g} times as large",
        f"network {weight.name}" + ("" if weight.scale == factor else ", then a resize"),
    ]
    if job.kind == "clip":
        from repsr_cli.pipelines.plan_video import plan_video

        lines += str(plan_video(job.source, job.target, weight.scale, options)).splitlines()
    return [*lines, f"to be written: {job.target}"]


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder and what leads to it; returns the folders made, deepest first.

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
    if job.kind == "clip" and options.resume:
        remedy = "Finished segments are kept: the same command goes on from there."
    elif done:
        remedy = "Add --skip-existing to go on from there."
    else:
        remedy = "The same command starts again."
    return Interrupted(job.source, f"stopped{before}; {job.target.name} was not written", remedy)


class Networks:
    """The upscalers of a run, each loaded when the first job needs it and shared by the others.

    Args:
        options: the request, with its scale settled.

    Attributes:
        turns: set while several threads ask; upscalers are then handed out as views that take turns.
    """

    def __init__(self, options: UpscaleOptions) -> None:
        self.options = options
        self.turns: Turns | None = None
        self._loaded: dict[Path, Upscaler] = {}
        self._loading = Lock()

    def check(self) -> None:
        """Refuse what would fail for every job, so that it is said once.

        Raises:
            CheckpointError: no such network.
            DeviceError: no such device.
            UsageError: no such kind of device.
        """
        from repsr_cli.engine.upscaler import pick_device
        from repsr_cli.model.zoo import resolve

        resolve(self.options.network, self.options.scale, "clean")
        pick_device(self.options.device)

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
        with self._loading:
            if weight.path not in self._loaded:
                net = load_weight(weight)
                upscaler = Upscaler(
                    net, options.device, options.precision, options.tile, options.threads, say=reporter.say
                )
                reporter.say(f"network {weight.name}: {upscaler.describe()}{faster(net.spec)}")
                self._loaded[weight.path] = upscaler
            upscaler = self._loaded[weight.path]
        return upscaler if self.turns is None else self.turns.share(upscaler)


def choose_weight(job: Job, options: UpscaleOptions) -> Weight:
    """The network with the smallest factor that reaches the size asked for; a resize does the rest.

    Raises:
        CheckpointError: no network fits the request.
        MediaError: the source's size was needed and cannot be read.
        UsageError: the source is larger than the size asked for.
    """
    from repsr_cli.model.zoo import resolve

    factor = wanted_factor(job, options)
    weight = resolve(options.network, factor, "clean" if job.kind == "picture" else "video")
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
    height, width = source_size(job.kind, job.source)
    factor = max((options.height or 0) / height, (options.width or 0) / width)
    if factor < 1:
        asked = f"--width {options.width}" if options.width else f"--height {options.height}"
        raise UsageError(job.source, f"is {width}x{height} already, more than {asked}", "repsr only enlarges.")
    return factor
