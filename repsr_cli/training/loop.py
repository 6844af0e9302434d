"""Train by a recipe and write a run directory.

A run directory has ``recipe.toml`` (resolved), ``log.jsonl``, ``last.pt`` and ``best.pt`` (checkpoints), ``curve.png``
and ``validation.png`` (bicubic, network, original) of the best network so far. Crops, schedules and the phase of BN are
functions of (recipe, step), and everything else is in the checkpoint. So a resumed run equals an uninterrupted one, bit
for bit on a CPU.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from repsr_cli.engine.threads import torch_threads
from repsr_cli.errors import DeviceError, Interrupted, RecipeError, TrainingDiverged, lacks_memory
from repsr_cli.files import remove_leftovers, translated_errors, write_text
from repsr_cli.image.resize import imresize
from repsr_cli.model.repsr import RepSR
from repsr_cli.training.dataset import Pack
from repsr_cli.training.distributed import process_group
from repsr_cli.training.divergence import CHECK_EVERY, LossExploded, any_process, check_losses
from repsr_cli.training.ema import copy_weights, measure_statistics, update_ema
from repsr_cli.training.evaluate import Validated, validate
from repsr_cli.training.networks import ActiveForm, warm_start
from repsr_cli.training.objective import Adversary, Objective, Targets, autocast, check_teacher, uses_teacher
from repsr_cli.training.plots import draw_curve, side_by_side, write_rows
from repsr_cli.training.recipe import Recipe, toml_of
from repsr_cli.training.run_data import open_pack, open_run_data
from repsr_cli.training.run_log import RunLog, summary_writer
from repsr_cli.training.schedule import batch_shape, ema_decay, freeze_step, learning_rate
from repsr_cli.training.state import fresh_state

OUTPUTS = ("last.pt", "best.pt", "recipe.toml", "log.jsonl", "curve.png", "validation.png")
STATISTICS_STREAM = 1 << 40  # first step number of the crops that statistics are measured on; no run gets that far


@dataclass(frozen=True, slots=True)
class StepReport:
    """What a run reports while it trains.

    Attributes:
        learning_rate: of the last step.
        steps_per_second: since the last report, without validation.
        data_share: share of that time spent waiting for crops, 0 to 1.
        psnr_y: of the averaged, fused network on the validation images, dB; None between validations.
        note: an event (the switch of BN, a rollback), else empty.
    """

    step: int
    steps: int
    loss: float
    learning_rate: float
    steps_per_second: float
    data_share: float
    psnr_y: float | None = None
    psnr_rgb: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class TrainOutcome:
    """The result of a finished run.

    Attributes:
        best: the checkpoint of the best validation.
        psnr_y: of that validation, dB.
        step: of that validation.
    """

    run: Path
    best: Path
    psnr_y: float
    step: int


@dataclass(slots=True)
class _Window:
    """Measurements since the last report.

    Attributes:
        first: steps done when it began.
        started: seconds on the performance counter.
        waited: seconds spent waiting for crops.
        losses: means of the checks so far.
    """

    first: int
    started: float = field(default_factory=time.perf_counter)
    waited: float = 0.0
    losses: list[float] = field(default_factory=list)


def train(
    recipe: Recipe,
    run: Path,
    *,
    resume: bool = False,
    on_report: Callable[[StepReport], None] = lambda _report: None,
    on_packing: Callable[[int, int], None] = lambda _done, _total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainOutcome:
    """Train by a recipe.

    Args:
        run: the run directory; packed files are kept beside it in ``packs``.
        resume: go on from ``run/last.pt`` if there is one.
        on_report: called at log steps, validations and events.
        on_packing: called with (images done, images) while a folder is packed.
        should_stop: called after every step; True saves a checkpoint and ends the run.

    Raises:
        RecipeError: unusable data, or ``run`` holds another run and ``resume`` is False.
        TrainingDiverged: the loss exploded twice; ``last.pt`` is the last good state.
        Interrupted: ``should_stop`` returned True; the run can be resumed.
        DeviceError: the device cannot be used, or memory is short.
    """
    _check_folder(run, resume)
    if recipe.run.tensorboard:
        summary_writer()  # is it installed?
    on_gpu = recipe.run.device != "cpu" and torch.cuda.is_available()
    with process_group(on_gpu) as (rank, processes), torch_threads(recipe.run.threads):
        if recipe.batch.size % processes or (recipe.batch.late and recipe.batch.late_size % processes):
            raise RecipeError("batch.size", f"cannot be shared evenly by {processes} processes", "Use a multiple.")
        device = _device_of(recipe)
        with translated_errors(run, RecipeError):
            run.mkdir(parents=True, exist_ok=True)
        pack = _shared_pack(recipe, run, rank, processes, on_packing)
        try:
            return _Trainer(recipe, run, rank, processes, device, pack, on_report).train(resume, should_stop)
        except (MemoryError, RuntimeError) as error:
            if not lacks_memory(error):
                raise
            remedy = "Lower batch.size or batch.patch, or raise the limit."
            raise DeviceError("batch.size", "not enough memory to train", remedy) from error


def _check_folder(run: Path, resume: bool) -> None:
    """Check that a run starts in a folder without files of the names it writes, or goes on in its own."""
    with translated_errors(run, RecipeError):
        found = [name for name in OUTPUTS if (run / name).is_symlink() or (run / name).exists()]
    if "last.pt" in found:
        if not resume:
            raise RecipeError(run, "holds a run already", "Add --resume to go on with it, or choose another -o.")
    elif found:
        raise RecipeError(run / found[0], "exists, and a run would replace it", "Choose another -o.")


def _device_of(recipe: Recipe) -> torch.device:
    name = recipe.run.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and dist.is_initialized():
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(
            name, f"cannot be used ({str(error).partition(chr(10))[0][:200]})", "Set run.device to cpu or auto."
        ) from error
    return torch.device(name)


def _shared_pack(recipe: Recipe, run: Path, rank: int, processes: int, on_packing: Callable[[int, int], None]) -> Pack:
    """The packed file of a run, made by the first process while the others wait."""
    if rank != 0:
        dist.barrier()
    pack = open_pack(recipe, run.parent / "packs", on_packing)
    if rank == 0 and processes > 1:
        dist.barrier()
    return pack


class _Trainer:
    """One run in one process.

    Args:
        processes: that train together.
        on_report: called at log steps, validations and events.
    """

    def __init__(
        self,
        recipe: Recipe,
        run: Path,
        rank: int,
        processes: int,
        device: torch.device,
        pack: Pack,
        on_report: Callable[[StepReport], None],
    ) -> None:
        self.recipe, self.run, self.rank, self.processes, self.device = recipe, run, rank, processes, device
        self.on_report = on_report
        self.last = run / "last.pt"
        self.data = open_run_data(recipe, pack)
        check_teacher(recipe, self.data.crops)
        self.state = fresh_state(recipe, device, self.data.digests)
        self.objective = Objective(recipe, device)
        if recipe.gan.weight:
            self.state.adversary = Adversary(recipe, device)
        self.form = self._wrapped()

    def _wrapped(self) -> nn.Module:
        """The network as the training step calls it."""
        form: nn.Module = ActiveForm(self.state.net)
        if self.recipe.run.channels_last:
            form = form.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.processes > 1:
            ids = [self.device.index] if self.device.type == "cuda" else None
            form = DistributedDataParallel(form, device_ids=ids, broadcast_buffers=False)
        if self.recipe.run.compile:
            form = torch.compile(form)  # type: ignore[assignment]
        return form

    def train(self, resume: bool, should_stop: Callable[[], bool]) -> TrainOutcome:
        """Start or resume the run; arguments and errors as the function ``train``."""
        if resume and self.last.exists():
            self.state.restore(self.last, self.recipe)
        else:
            self._begin()
            self._save(self.last)
        log = None
        if self.rank == 0:
            with translated_errors(self.run, RecipeError):
                remove_leftovers(self.run)
            write_text(self.run / "recipe.toml", toml_of(self.recipe), overwrite=True, failure=RecipeError)
            log = RunLog(self.run / "log.jsonl", self.state.step, self.recipe.run.tensorboard)
        try:
            with ThreadPoolExecutor(1) as pool:
                while True:
                    try:
                        return self._loop(pool, log, should_stop)
                    except LossExploded as explosion:
                        self._roll_back(explosion, log)
        finally:
            if log is not None:
                log.close()

    def _begin(self) -> None:
        if self.recipe.run.start_from:
            start = Path(self.recipe.run.start_from).expanduser()
            warm_start(self.state.net, start, self.recipe.network.init == "interpolation")
        copy_weights(self.state.ema, self.state.net)

    def _save(self, path: Path) -> None:
        if self.rank == 0:
            self.state.save(path, self.recipe)

    def _loop(self, pool: ThreadPoolExecutor, log: RunLog | None, should_stop: Callable[[], bool]) -> TrainOutcome:
        recipe, state, steps = self.recipe, self.state, self.recipe.schedule.steps
        coming = pool.submit(self._batch, state.step)
        losses: list[Tensor] = []
        window = _Window(state.step)
        state.net.train()
        while state.step < steps:
            note = self._freeze_if_due()
            asked = time.perf_counter()
            crops = coming.result()
            window.waited += time.perf_counter() - asked
            if state.step + 1 < steps:
                coming = pool.submit(self._batch, state.step + 1)
            losses.append(self._train_step(crops))
            state.step += 1

            last = state.step == steps
            checkpoint = last or state.step % recipe.run.checkpoint_every == 0
            validation = last or state.step % recipe.validation.every == 0
            report = validation or bool(note) or state.step % recipe.run.log_every == 0
            checked = checkpoint or report or len(losses) >= CHECK_EVERY
            if checked:
                window.losses.append(check_losses(losses, state.progress, self.processes))
                losses = []
            if report:
                self._report_window(window, note, log, validation)
                window = _Window(state.step)
            if checkpoint:
                self._save(self.last)
            stop = should_stop()
            if self.processes > 1:  # at a step that all of them stop at
                stop = checked and any_process(stop, self.device)
            if stop and not last:
                check_losses(losses, state.progress, self.processes)
                self._save(self.last)
                raise Interrupted(self.run, f"stopped at step {state.step} of {steps}", "Go on with --resume.")
        progress = state.progress
        return TrainOutcome(self.run, self.run / "best.pt", progress["best_psnr_y"], int(progress["best_step"]))

    def _batch(self, step: int) -> tuple[Tensor, ...]:
        """This process's share of the crops of a step: LR, HR and, where the recipe needs it, the teacher's."""
        shape, teacher = batch_shape(step, self.recipe), uses_teacher(self.recipe)
        # This runs in another thread than the training step, and MPS is not safe to use from two threads at once.
        device = self.device if self.device.type == "cuda" else torch.device("cpu")
        share = slice(self.rank, None, self.processes)
        return self.data.crops.batch(step, *shape, teacher=teacher, share=share, device=device)

    def _freeze_if_due(self) -> str:
        """Switch BN to population statistics at the step the recipe names.

        Returns:
            A note for the report; empty where nothing was switched.
        """
        state, net = self.state, self.state.net
        if not isinstance(net, RepSR) or net.bn_frozen or state.step < freeze_step(self.recipe):
            return ""
        if not self.recipe.run.start_from or state.step > 0:
            measure_statistics(net, self._statistics_batches())
        net.freeze_bn()
        # From now on statistics are constants. Weights averaged before were trained with other statistics and would not
        # fit these.
        copy_weights(state.ema, net)
        state.progress["averaged"] = 0
        return f"BN uses population statistics from step {state.step} on"

    def _statistics_batches(self) -> Iterator[Tensor]:
        size, patch = self.recipe.batch.size, self.recipe.batch.patch
        count = self.recipe.validation.statistics_batches
        share = slice(self.rank, None, self.processes)
        for step in range(STATISTICS_STREAM, STATISTICS_STREAM + count):
            yield self.data.crops.batch(step, size, patch, share=share)[0].to(self.device)

    def _train_step(self, crops: tuple[Tensor, ...]) -> Tensor:
        """Update network, average and adversary.

        Returns:
            The loss, still on the device.
        """
        recipe, state = self.recipe, self.state
        rate = learning_rate(state.step, recipe) * state.progress["rate_factor"]
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        lr, *images = (tensor.to(self.device) for tensor in crops)
        targets = Targets(*images)
        if recipe.run.channels_last:
            lr = lr.contiguous(memory_format=torch.channels_last)
        state.optimizer.zero_grad(set_to_none=True)
        with autocast(recipe, self.device):
            sr = self.form(lr)
        sr = sr.float()
        loss = self.objective(state.step, sr, targets)
        whole = loss if state.adversary is None else loss + state.adversary.generator_term(state.step, sr)
        state.scaler.scale(whole).backward()  # type: ignore[no-untyped-call]
        state.scaler.step(state.optimizer)
        state.scaler.update()
        update_ema(state.ema, state.net, ema_decay(state.progress["averaged"], recipe))
        state.progress["averaged"] += 1
        if state.adversary is not None:
            state.adversary.learn(state.step, sr, targets)
        # Without the adversarial term, which rises and falls as the discriminator learns, so that it tells divergence.
        return loss.detach()

    def _report_window(self, window: _Window, note: str, log: RunLog | None, validation: bool) -> None:
        """Report the steps since the last report, and validate if that is due."""
        state = self.state
        seconds = time.perf_counter() - window.started
        validated = self._validate() if validation else None
        report = StepReport(
            step=state.step,
            steps=self.recipe.schedule.steps,
            loss=sum(window.losses) / max(1, len(window.losses)),
            learning_rate=state.optimizer.param_groups[0]["lr"],
            steps_per_second=(state.step - window.first) / seconds,
            data_share=window.waited / seconds,
            psnr_y=validated.psnr_y if validated else None,
            psnr_rgb=validated.psnr_rgb if validated else None,
            note=note,
        )
        self._report(report, log)
        if validated is not None:
            self._keep(validated)

    def _report(self, report: StepReport, log: RunLog | None) -> None:
        if log is not None:
            log.write({name: getattr(report, name) for name in StepReport.__slots__ if name != "steps"})
            self.on_report(report)

    def _validate(self) -> Validated:
        ema = self.state.ema
        if isinstance(ema, RepSR) and not ema.bn_frozen:
            measure_statistics(ema, self._statistics_batches())
        return validate(ema, self.data.validation, str(self.device), self.recipe.run.threads)

    def _keep(self, validated: Validated) -> None:
        """Draw the curve, and keep the network and its images if they are the best so far."""
        if self.rank == 0:
            draw_curve(self.run / "log.jsonl", self.run / "curve.png")
        if validated.psnr_y <= self.state.progress["best_psnr_y"] and self.recipe.validation.keep == "best":
            return
        self.state.progress |= {"best_psnr_y": validated.psnr_y, "best_step": self.state.step}
        self._save(self.run / "best.pt")
        if self.rank == 0:
            results = zip(self.data.validation, validated.shown, strict=False)
            rows = [side_by_side([imresize(lr, hr.shape[:2]), sr, hr]) for (lr, hr), sr in results]
            write_rows(self.run / "validation.png", rows, overwrite=True)

    def _roll_back(self, explosion: LossExploded, log: RunLog | None) -> None:
        """Go back to the last checkpoint and halve the learning rate, once."""
        state, failed_at = self.state, self.state.step
        if state.progress["rate_factor"] < 1:
            raise TrainingDiverged(
                self.run,
                f"{explosion} at step {failed_at}, although the learning rate was halved before",
                f"Lower schedule.learning_rate; the last good state is {self.last}.",
            )
        if self.processes > 1:
            dist.barrier()
        state.restore(self.last, self.recipe)
        state.progress["rate_factor"] = 0.5
        self._save(self.last)
        note = f"{explosion} at step {failed_at}; went back to step {state.step} and halved the learning rate"
        self._report(StepReport(state.step, self.recipe.schedule.steps, math.nan, 0.0, 0.0, 0.0, note=note), log)
