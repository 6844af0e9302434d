"""Upscale job after job, continue after a failure and report it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Literal

from repsr_cli.errors import Interrupted, MediaError, RepsrError, UsageError, from_system
from repsr_cli.files import Noting
from repsr_cli.reporting import Outcome, Reporter
from repsr_cli.upscale.inputs import PIPE, Failure
from repsr_cli.upscale.jobs import Job, is_animated_image
from repsr_cli.upscale.request import Request

if TYPE_CHECKING:  # torch and the libraries for images and videos
    from repsr_cli.upscale.executors import Executor
    from repsr_cli.upscale.judged import Judged
    from repsr_cli.upscale.models import ModelCache
    from repsr_cli.upscale.plan_image import ImagePlan
    from repsr_cli.upscale.plan_video import VideoPlan

    Plan = ImagePlan | VideoPlan

# Pillow, and what uses it, refuses larger images.
LARGE_PIXELS = 178_956_970
# The longer and the shorter side.
EIGHT_K = (7680, 4320)

# How jobs are run: small images side by side on a CPU, medium ones several at a time on one network, large ones and
# videos alone; all that a cluster computes by as many threads as it takes tasks.
Mode = Literal["side by side", "in turns", "alone", "on a cluster"]
# Of a source, its target and the request.
NotingFor = Callable[[Path, Path, Request], Noting | None]
# LR pixels of an image of which several may be in flight: some 200 MB each at factor 4, 8 bit.
SMALL_PIXELS = 4 << 20


@dataclass(frozen=True, slots=True)
class _Planned:
    """A job and its plan, or why there is none."""

    job: Job
    plan: Plan | Failure


@dataclass(frozen=True, slots=True)
class _Run:
    """What the jobs of a run share: loaded models, reporters, finished jobs, and the folders that were made."""

    models: ModelCache
    reporter_for: Callable[[Job], Reporter]
    request: Request
    noting_for: NotingFor | None = None
    made: set[Path] = field(default_factory=set)


def settle_scale(request: Request) -> Request:
    """Fill in the factor where neither a factor nor a size was asked for: the model's own, else 4.

    Raises:
        UsageError: what is asked of it contradicts its name, or needs a pair that does not ship.
    """
    if request.size.asked:
        return request
    from repsr_cli.upscale.models import asked_model

    return request.having(scale=float(asked_model(request, None, "clean").scale))


def run_jobs(
    jobs: Sequence[Job],
    request: Request,
    reporter_for: Callable[[Job], Reporter],
    noting_for: NotingFor | None = None,
    models: ModelCache | None = None,
) -> Iterator[Outcome | Failure]:
    """Upscale one job after the other.

    Args:
        jobs: from ``plan_jobs``.
        request: the request, with its scale settled.
        reporter_for: gives each job its reporter, when work on it begins; called from several threads.
        noting_for: what is called with each complete result before it gets its name.
        models: models to share with other calls.

    Yields:
        An outcome or a failure for every job, in order, each as soon as it is known.

    Raises:
        Interrupted: the user stopped the work; what was yielded is done.
    """
    if not jobs:
        return
    from repsr_cli.upscale.models import ModelCache, check_compute

    check_compute(request)
    run, done = _Run(models or ModelCache(), reporter_for, request, noting_for), 0
    try:
        planned = (_planned(job, request) for job in jobs)
        for mode, group in groupby(planned, key=_mode):
            for result in _run_group(group, mode, run):
                yield result
                done += 1
    except KeyboardInterrupt as error:
        if done == len(jobs):
            raise
        raise _interrupted(jobs[done], done, len(jobs), request) from error
    finally:
        # Only now: a folder that is empty after one job failed may be where another is about to write.
        remove_empty(run.made)


def plan_job(job: Job, request: Request) -> Plan:
    """Decide everything about a job.

    Raises:
        RepsrError: what would stop it, as far as its input tells.
    """
    if job.kind == "image":
        from repsr_cli.upscale.plan_image import plan_image

        return plan_image(job.source, job.target, request)
    from repsr_cli.upscale.plan_video import plan_video

    if job.source == PIPE or not is_animated_image(job.source):
        plan = plan_video(job.source, job.target, request, judged=_judged_by_images(job.source))
        return replace(plan, anew=job.anew)
    from repsr_cli.upscale.animation import as_video

    animation = as_video(job.source)
    plan = plan_video(animation.path, job.target, request, judged=_judged_by_image(job.source))
    return replace(
        plan,
        original=job.source,
        anew=job.anew,
        losses=(*plan.losses, *animation.losses),
        notes=(*plan.notes, *animation.notes),
    )


def _judged_by_images(pattern: Path) -> Judged | None:
    """The kind of model that numbered images need, by the first of them; None: not a pattern, or none exist."""
    from repsr_cli.video.image_sequence import existing, is_pattern

    first = next(iter(existing(pattern).values()), None) if is_pattern(pattern) else None
    return None if first is None else _judged_by_image(first)


def _judged_by_image(path: Path) -> Judged | None:
    """The kind of model that an image needs; None: it is read as a video is, since image libraries cannot."""
    from repsr_cli.image.files import open_image
    from repsr_cli.upscale.judge_image import judge_image

    try:
        return judge_image(open_image(path))
    except MediaError:
        return None


def describe_jobs(
    jobs: Sequence[Job], request: Request, *, measure: bool = False
) -> Iterator[tuple[Job, list[str], Failure | None]]:
    """What ``run_jobs`` would do, line by line, and what it would refuse.

    Args:
        request: the request, with its scale settled.
        measure: of videos also how long, from a trial of a few seconds.

    Yields:
        Every job, what it would do, and what would stop it, as far as that can be seen before it runs.

    Raises:
        RepsrError: what would fail for every job.
    """
    if not jobs:
        return
    from repsr_cli.upscale.models import check_compute

    check_compute(request)
    for job in jobs:
        lines: list[str] = []
        try:
            if job.source == PIPE:
                option = "--estimate" if measure else "--dry-run"
                raise UsageError(option, "standard input can be read only once", "Name a file.")
            plan = plan_job(job, request)
            lines += _described(plan)
            _check_target(plan)
            if measure and plan.kind == "video":
                lines += _estimated(plan)
        except (RepsrError, OSError, MemoryError, RuntimeError, ImportError) as error:
            yield job, lines, _failure(job, error)
        else:
            yield job, [*lines, "nothing to be written" if plan.benchmark else f"to be written: {job.target}"], None


def _described(plan: Plan) -> list[str]:
    """What a plan says, line by line."""
    height, width = plan.shown
    model = plan.compute.model
    lines = [
        f"{plan.kind} of {width}x{height}, {plan.factor:g} times as large",
        f"model {model.name}{f' for {plan.compute.why}' if plan.compute.why else ''}"
        + ("" if model.scale == plan.factor else ", then a resize"),
        *str(plan).splitlines(),
    ]
    if model.architecture:
        from repsr_cli.model.foreign import MARGIN

        lines.insert(2, f"{model.architecture}: tiles overlap by {MARGIN} px and are not exact")
    if note := size_note(plan):
        lines.append(note)
    return lines


def _estimated(plan: VideoPlan) -> list[str]:
    """How long a video takes, by a trial."""
    from repsr_cli.engine.threads import torch_threads
    from repsr_cli.upscale.estimate import estimate
    from repsr_cli.upscale.models import ModelCache

    lines: list[str] = []
    upscaler = ModelCache().upscaler(plan.compute, plan.compute.devices[0])
    with torch_threads(plan.compute.threads):
        lines.append(estimate(plan, upscaler, lines.append))
    return lines


def _check_target(plan: Plan) -> None:
    """Refuse a target that the job would refuse."""
    if plan.kind == "image":
        from repsr_cli.upscale import image_sinks

        image_sinks.sink_for(plan).check()
    else:
        from repsr_cli.upscale import sinks

        sink = sinks.sink_for(plan)
        sink.check()
        sink.check_begun()


def size_note(plan: Plan) -> str | None:
    """A sentence on a result that is larger than many programs can show; None for all others."""
    if plan.kind == "image":
        from repsr_cli.sizes import target_size

        height, width = target_size(plan.shown, plan.size, plan.compute.model.scale)
        if height * width <= LARGE_PIXELS:
            return None
        return f"{width}x{height} are {height * width / 1e6:.0f} megapixels, more than many programs open"
    height, width = plan.size
    if max(height, width) <= EIGHT_K[0] and min(height, width) <= EIGHT_K[1]:
        return None
    return f"{width}x{height} is beyond 8K, more than most players and hardware decoders take"


def executor_for(plan: Plan, models: ModelCache) -> Executor:
    """Where a plan is carried out."""
    if plan.compute.ray is not None:
        from repsr_cli.upscale.executors.ray import Ray

        return Ray(models)
    if len(plan.compute.devices) > 1:
        from repsr_cli.upscale.executors.devices import Devices

        return Devices(models)
    from repsr_cli.upscale.executors.local import Local

    return Local(models)


def run_plan(
    plan: Plan, executor: Executor, reporter: Reporter, stop: Event | None = None, noting: Noting | None = None
) -> Outcome:
    """Carry out a plan, into the sink that it asks for.

    Args:
        stop: ends the work when it is set.
        noting: called with the complete result before it gets its name.
    """
    if plan.kind == "image":
        from repsr_cli.upscale import image_sinks

        return executor.run(plan, image_sinks.sink_for(plan, noting), reporter, stop)
    from repsr_cli.upscale import sinks

    return executor.run(plan, sinks.sink_for(plan, noting), reporter, stop)


def _planned(job: Job, request: Request) -> _Planned:
    try:
        return _Planned(job, plan_job(job, request))
    except (RepsrError, OSError, MemoryError, RuntimeError, ImportError) as error:
        return _Planned(job, _failure(job, error))


def _mode(planned: _Planned) -> Mode:
    """How a job is run, by the memory it takes and the cores that it keeps busy."""
    plan = planned.plan
    if isinstance(plan, Failure):
        return "in turns"
    if plan.kind == "video":
        return "alone"
    from repsr_cli.engine.settings import pick_device
    from repsr_cli.engine.tiling import CPU_CONTEXT_PIXELS

    if plan.compute.ray is not None:
        return "on a cluster"
    pixels = plan.shown[0] * plan.shown[1]
    if pixels > SMALL_PIXELS:
        return "alone"
    on_cpu = pick_device(plan.compute.devices[0]).type == "cpu"
    return "side by side" if pixels <= CPU_CONTEXT_PIXELS and on_cpu else "in turns"


def _run_group(group: Iterator[_Planned], mode: Mode, run: _Run) -> Iterator[Outcome | Failure]:
    """Run jobs of one mode; those that run alone are planned one after the other as well."""
    if mode == "alone":
        for planned in group:
            yield _run_one(planned, run)
        return
    several = list(group)
    plans = [planned.plan for planned in several if not isinstance(planned.plan, Failure)]
    if len(plans) < 2:
        for planned in several:
            yield _run_one(planned, run)
        return
    from repsr_cli.upscale.image_pool import run_at_once

    executor, at_once = _shared_executor(plans, mode, run.models)
    yield from run_at_once(lambda planned, stop: _run_one(planned, run, executor, stop), several, at_once)


def _shared_executor(plans: Sequence[Plan], mode: Mode, models: ModelCache) -> tuple[Executor, int]:
    """The executor of several images at once, and how many."""
    import torch

    from repsr_cli.upscale.executors.local import Local
    from repsr_cli.upscale.image_pool import IN_FLIGHT

    compute = plans[0].compute
    if mode == "on a cluster":
        from repsr_cli.upscale.executors.ray import Ray, images_at_once

        return Ray(models), images_at_once(compute)
    threads = compute.threads or torch.get_num_threads()
    # With fewer images than this, some cores would soon have none left.
    if mode == "side by side" and threads > 1 and len(plans) >= 2 * threads:
        return Local(models, side_by_side=threads), threads
    return Local(models), IN_FLIGHT


def _run_one(
    planned: _Planned, run: _Run, executor: Executor | None = None, stop: Event | None = None
) -> Outcome | Failure:
    """Carry out one plan; folders made for it are noted."""
    plan, job = planned.plan, planned.job
    if isinstance(plan, Failure):
        return plan
    try:
        if not plan.benchmark:
            make_folders(job.target.parent, run.made)
        reporter, note = run.reporter_for(job), size_note(plan)
        if note:
            reporter.say(f"{job.source.name}: {note}")
        noting = None if run.noting_for is None else run.noting_for(job.source, job.target, run.request)
        outcome = run_plan(plan, executor or executor_for(plan, run.models), reporter, stop, noting)
        if note:
            outcome = replace(outcome, notes=(note, *outcome.notes), announced=(note, *outcome.announced))
        return outcome
    except Interrupted:
        raise
    except (RepsrError, OSError, MemoryError, RuntimeError, ImportError) as error:
        return _failure(job, error)


def _failure(job: Job, error: Exception) -> Failure:
    """What is reported of a job that failed; bugs are raised."""
    known = error if isinstance(error, RepsrError) else from_system(error, job.source)
    if known is None:
        raise error
    return Failure(str(job.source), known)


def make_folders(folder: Path, made: set[Path]) -> None:
    """Make a folder and what leads to it; folders that did not exist are added to ``made``, whatever fails."""
    try:
        made.update(path for path in (folder, *folder.parents) if not path.exists())
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MediaError(folder, f"cannot be made ({error.strerror})", "Choose another folder with -o.") from error


def remove_empty(made: set[Path]) -> None:
    """Remove folders that were made and hold nothing."""
    for folder in sorted(made, key=lambda path: len(path.parts), reverse=True):
        with suppress(OSError):  # one that holds something stays
            folder.rmdir()


def _interrupted(job: Job, done: int, total: int, request: Request) -> Interrupted:
    before = f" after {done} of {total} inputs" if total > 1 else ""
    if job.kind == "video" and request.video.resume:
        remedy = "Finished segments are kept: the same command goes on from there."
    elif done:
        remedy = "Add --skip-existing to go on from there."
    else:
        remedy = "The same command starts again."
    return Interrupted(job.source, f"stopped{before}; {job.target.name} was not written", remedy)
