"""The training loop: recipe in, run directory out.

A run directory holds ``recipe.toml`` (resolved), ``log.jsonl``, ``last.pt`` and ``best.pt`` (checkpoints),
``curve.png``, and ``validation.png`` (bicubic, network, original) of the best network so far. Crops,
schedules and the phase of BN are functions of (recipe, step), and everything else is in the checkpoint, so a resumed
run is the uninterrupted one, bit for bit on a CPU.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import CheckpointError, DeviceError, Interrupted, RecipeError, TrainingDiverged
from repsr_cli.image.resize import imresize
from repsr_cli.model.checkpoint import TrainingCheckpoint, load_plain, load_training, save_training
from repsr_cli.model.init import colour_by_interpolation, start_as_interpolation
from repsr_cli.model.net2net import change_scale, grow
from repsr_cli.model.plain import PlainSR, Spec
from repsr_cli.model.repsr import RepSR, fuse
from repsr_cli.training.dataset import Pack, PackedImage, PairSource, build_pack, pack_digest
from repsr_cli.training.distributed import process_group
from repsr_cli.training.ema import average_into, copy_into, measure_statistics
from repsr_cli.training.evaluate import pairs_of, upscale_pixels
from repsr_cli.training.losses import reconstruction_loss
from repsr_cli.training.metrics import psnr_rgb, psnr_y
from repsr_cli.training.optimizers import build_optimizer
from repsr_cli.training.plots import batch_sheet, comparison, draw_curve, write_sheet
from repsr_cli.training.recipe import Recipe
from repsr_cli.training.schedule import batch_shape, ema_decay, freeze_step, learning_rate, loss_name

CHECK_EVERY = 20  # steps between two looks at the loss: each look waits for the device
DIVERGED = 4.0  # a mean loss this many times the lowest so far is no learning any more
SHOWN = 4  # validation images in a run's validation.png
STATISTICS_STREAM = 1 << 40  # first step number of the crops that statistics are measured on; no run gets there

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class StepReport:
    """What a run tells while it works.

    Attributes:
        step: steps done.
        steps: length of the run.
        loss: mean since the last report.
        learning_rate: of the last step.
        steps_per_second: since the last report, validation left out.
        data_share: share of that time spent waiting for crops, 0 to 1.
        psnr_y: of the averaged, fused network on the validation images, dB; None between validations.
        psnr_rgb: likewise.
        note: an event worth a line (the switch of BN, a rollback), else empty.
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
    """What a finished run leaves.

    Attributes:
        run: its directory.
        best: the checkpoint of the best validation.
        psnr_y: that validation's figure, dB.
        step: the step it belongs to.
    """

    run: Path
    best: Path
    psnr_y: float
    step: int


class _Forms(nn.Module):
    """Both forms of a network behind one ``forward``, which is what DDP and torch.compile wrap."""

    def __init__(self, net: RepSR | PlainSR) -> None:
        super().__init__()
        self.net = net

    def forward(self, lr: Tensor) -> Tensor:
        if isinstance(self.net, RepSR) and self.net.bn_frozen:
            return self.net.forward_merged(lr)
        return self.net(lr)  # type: ignore[no-any-return]


def build_network(recipe: Recipe) -> RepSR | PlainSR:
    """The network a recipe names, freshly initialised from torch's generator."""
    network = recipe.network
    spec = Spec(scale=network.scale, channels=network.channels, blocks=network.blocks)
    net: RepSR | PlainSR
    if network.block == "plain":
        net = PlainSR(spec)
    else:
        net = RepSR(spec, network.expansion, norm=network.block == "repsr")
    if network.init == "interpolation":
        start_as_interpolation(net)
    return net


def open_pack(recipe: Recipe, cache: Path, progress: Callable[[int, int], None]) -> Pack:
    """The packed crop file of a recipe, made from its folder into ``cache`` where it is not there yet.

    Raises:
        RecipeError: the folder or the file cannot be used, or is packed for another scale.
    """
    source, scale = Path(recipe.data.train).expanduser(), recipe.network.scale
    if source.is_dir():
        path = cache / f"{source.name}-x{scale}-{pack_digest(source, scale)}.pack"
        if not path.is_file():
            build_pack(source, path, scale, progress)
        source = path
    elif not source.exists():
        raise RecipeError(
            source, "no such folder or packed file", "Set data.train, for example --set data.train=IMAGES."
        )
    pack = Pack(source)
    if pack.scale != scale:
        raise RecipeError(source, f"is packed for x{pack.scale}, not x{scale}", "Give the folder of images.")
    return pack


@dataclass(frozen=True, slots=True)
class Judgement:
    """Mean figures over the validation images, dB, and the first few of what was judged."""

    psnr_y: float
    psnr_rgb: float
    shown: tuple[Pixels, ...]


def validate(net: RepSR | PlainSR, images: Sequence[tuple[Pixels, Pixels]], device: str, threads: int) -> Judgement:
    """Judge the fused network through the tiled engine on (lr, hr) images."""
    plain = fuse(net) if isinstance(net, RepSR) else net
    upscaler = Upscaler(plain, device=device, precision="fp32", threads=threads)
    border = plain.spec.scale
    figures: list[tuple[float, float]] = []
    shown: list[Pixels] = []
    for lr, hr in images:
        sr = upscale_pixels(upscaler, lr)
        figures.append((psnr_y(sr, hr, border), psnr_rgb(sr, hr, border)))
        if len(shown) < SHOWN:
            shown.append(sr)
    mean = np.mean(figures, axis=0)
    return Judgement(float(mean[0]), float(mean[1]), tuple(shown))


def _warm_start(net: RepSR | PlainSR, path: Path, interpolate: bool) -> None:
    """Copy every tensor of the same name and shape from another run's average, or from a fused network.

    A plain network of another factor starts with the fused one's tail, resized; one that is larger starts as that one,
    grown; with ``interpolate``, and three channels more, its colour starts as an interpolation.
    """
    source: nn.Module
    try:
        if isinstance(net, PlainSR):
            source = small = change_scale(load_plain(path), net.spec.scale)
            with contextlib.suppress(ValueError):  # smaller in some way: what agrees is copied
                source = grow(small, net.spec)
                if interpolate and net.spec.channels >= small.spec.channels + net.spec.colors:
                    colour_by_interpolation(source, small.spec.channels)
        else:
            source = load_training(path).ema
    except CheckpointError as error:
        raise RecipeError("run.start_from", f"cannot start from {path} ({error})") from error
    own, theirs = net.state_dict(), source.state_dict()
    agreeing = {key: value for key, value in theirs.items() if key in own and own[key].shape == value.shape}
    if not any(key.endswith("weight") and value.ndim == 4 for key, value in agreeing.items()):
        raise RecipeError("run.start_from", f"{path} has no convolution of this network's shapes")
    net.load_state_dict(own | agreeing)


def _device_of(recipe: Recipe) -> torch.device:
    name = recipe.run.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and dist.is_initialized():
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(name, f"cannot be used ({error})", "Set run.device to cpu or auto.") from error
    return torch.device(name)


class _Log:
    """``log.jsonl``: one JSON object a line; lines past the step a run resumes from are dropped, to be made again.

    Args:
        path: the file.
        step: what the run starts or resumes from.
        tensorboard: write TensorBoard's event files beside it too.
    """

    def __init__(self, path: Path, step: int, tensorboard: bool) -> None:
        # What an earlier part of the run wrote past the step is hidden.
        self._board = _summary_writer()(str(path.parent), purge_step=step + 1) if tensorboard else None
        kept = []
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError):  # a kill may have cut the last line
                    if json.loads(line)["step"] <= step:
                        kept.append(line)
        path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")

    def write(self, entry: dict[str, Any]) -> None:
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in entry.items():
                if name != "step" and isinstance(value, float):
                    self._board.add_scalar(name, value, entry["step"])
            self._board.flush()

    def close(self) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()


def _summary_writer() -> Any:
    """TensorBoard's class that writes event files."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RecipeError(
            "run.tensorboard", "TensorBoard is not installed", "pip install 'repsr[tensorboard]', or leave it out."
        ) from error
    return SummaryWriter


def _what_decides(recipe: dict[str, Any]) -> dict[str, Any]:
    """The values of a recipe that decide what is learnt, by ``section.key``: a run goes on with no others.

    Not among them: where images lie, on what it is judged, on what and how it runs, and ``start_from``, which a run
    needs only to begin.
    """
    flat = {f"{section}.{key}": value for section, values in recipe.items() for key, value in values.items()}
    may_change = {"data.train", "data.validation", "validation.every"} | {key for key in flat if key.startswith("run.")}
    decides = {key: value for key, value in flat.items() if key not in may_change - {"run.seed"}}
    same_types: dict[str, Any] = json.loads(json.dumps(decides))  # a tuple and a list of the same values are the same
    return same_types


def toml_of(recipe: Recipe) -> str:
    """A recipe as TOML text that loads to an equal recipe."""
    # JSON's strings, numbers, booleans and lists of them are TOML too.
    return "\n".join(
        f"[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
        for section, values in recipe.as_dict().items()
    )


def pair_source(recipe: Recipe, pack: Pack, images: Sequence[PackedImage], patch: int) -> PairSource:
    """The crops that a recipe asks for, of these images, ``patch`` LR px wide at most; errors as ``PairSource``."""
    data = recipe.data
    return PairSource(pack, images, patch, recipe.run.seed, data.channel_shuffle, data.saturation)


def draw_batch(recipe: Recipe, run: Path, target: Path, on_packing: Callable[[int, int], None]) -> None:
    """Draw the first batch of a run as PNG, each LR crop beside its HR crop.

    Raises:
        RecipeError: unusable data, or the image cannot be written.
    """
    pack = open_pack(recipe, run.parent / "packs", on_packing)
    training, _held_out = pack.split(recipe.data.holdout)
    size, patch = batch_shape(0, recipe)
    source = pair_source(recipe, pack, training, patch)
    try:
        write_sheet(target, [batch_sheet(*source.batch(0, size, patch))])
    except (OSError, ValueError) as error:
        raise RecipeError(target, f"cannot be written ({error})", "Give a path that ends in .png.") from error


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
        recipe: what to do.
        run: the run directory; packed crop files are kept beside it in ``packs``.
        resume: go on from ``run/last.pt`` if there is one.
        on_report: called at log steps, validations and events.
        on_packing: called with (images done, images) while a folder is packed.
        should_stop: asked after every step; True saves a checkpoint and ends the run.

    Raises:
        RecipeError: unusable data, or ``run`` holds another run and ``resume`` is False.
        TrainingDiverged: the loss exploded twice; ``last.pt`` is the last good state.
        Interrupted: ``should_stop`` said so; the run can be resumed.
        DeviceError: the device cannot be used.
    """
    last = run / "last.pt"
    if last.exists() and not resume:
        raise RecipeError(run, "holds a run already", "Add --resume to go on with it, or choose another -o.")
    if recipe.run.tensorboard:
        _summary_writer()
    on_gpu = recipe.run.device != "cpu" and torch.cuda.is_available()
    with process_group(on_gpu) as (rank, processes):
        return _Trainer(recipe, run, rank, processes, on_report, on_packing).train(resume, should_stop)


class _Trainer:
    """State of one run: networks, optimiser, data, and the counters that a checkpoint carries."""

    def __init__(
        self,
        recipe: Recipe,
        run: Path,
        rank: int,
        processes: int,
        on_report: Callable[[StepReport], None],
        on_packing: Callable[[int, int], None],
    ) -> None:
        if recipe.batch.size % processes or (recipe.batch.late and recipe.batch.late_size % processes):
            raise RecipeError("batch.size", f"cannot be shared evenly by {processes} processes", "Use a multiple.")
        torch.set_num_threads(recipe.run.threads)
        self.recipe, self.run, self.rank, self.processes = recipe, run, rank, processes
        self.on_report = on_report
        self.device = _device_of(recipe)
        run.mkdir(parents=True, exist_ok=True)
        if rank == 0:
            pack = open_pack(recipe, run.parent / "packs", on_packing)
        if processes > 1:
            dist.barrier()
        if rank != 0:
            pack = open_pack(recipe, run.parent / "packs", on_packing)
        training, held_out = pack.split(recipe.data.holdout if not recipe.data.validation else 0)
        self.images = [(np.array(pack.lr(p)), np.array(pack.hr(p))) for p in held_out]
        if recipe.data.validation:
            pairs = pairs_of(Path(recipe.data.validation).expanduser(), recipe.network.scale)
            self.images = [(lr, hr) for _name, lr, hr in pairs]
        largest = max(recipe.batch.patch, recipe.batch.late_patch if recipe.batch.late else 0)
        self.source = pair_source(recipe, pack, training, largest)

        torch.manual_seed(recipe.run.seed)
        self.net = build_network(recipe)
        self.average = build_network(recipe)
        self.net.to(self.device)
        self.average.to(self.device)
        self.optimizer = build_optimizer(self.net.parameters(), recipe)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.run.precision == "fp16")
        self.step = 0
        self.progress: dict[str, Any] = {
            "averaged": 0,
            "rate_factor": 1.0,
            "lowest_loss": math.inf,
            "best_psnr_y": -math.inf,
            "best_step": 0,
        }
        self._wrap()

    def _wrap(self) -> None:
        forms: nn.Module = _Forms(self.net)
        if self.recipe.run.channels_last:
            forms = forms.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.processes > 1:
            ids = [self.device.index] if self.device.type == "cuda" else None
            forms = DistributedDataParallel(forms, device_ids=ids, broadcast_buffers=False)
        if self.recipe.run.compile:
            forms = torch.compile(forms)  # type: ignore[assignment]
        self.forms = forms

    def _begin(self) -> None:
        if self.recipe.run.start_from:
            start = Path(self.recipe.run.start_from).expanduser()
            _warm_start(self.net, start, self.recipe.network.init == "interpolation")
        copy_into(self.average, self.net)

    # Checkpoints -----------------------------------------------------------------------------------------------

    def _save(self, path: Path) -> None:
        if self.rank == 0:
            optimizer = {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}
            save_training(
                path,
                TrainingCheckpoint(
                    self.net, self.average, self.recipe.as_dict(), self.step, optimizer, dict(self.progress)
                ),
            )

    def _restore(self, path: Path) -> None:
        checkpoint = load_training(path)
        theirs, ours = (_what_decides(recipe) for recipe in (checkpoint.recipe, self.recipe.as_dict()))
        for name, value in ours.items():
            if theirs.get(name) != value:
                raise RecipeError(
                    path, f"was made by another recipe: {name} was {theirs.get(name)}", "Choose another -o."
                )
        for own, saved in ((self.net, checkpoint.net), (self.average, checkpoint.ema)):
            copy_into(own, saved)
        self.optimizer.load_state_dict(checkpoint.optimizer["optimizer"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(checkpoint.optimizer["scaler"])
        self.step = checkpoint.step
        self.progress = dict(checkpoint.progress)

    # The loop --------------------------------------------------------------------------------------------------

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        lr, hr = self.source.batch(step, *batch_shape(step, self.recipe))
        return lr[self.rank :: self.processes], hr[self.rank :: self.processes]

    def _statistics_batches(self) -> Iterator[Tensor]:
        size, patch = self.recipe.batch.size, self.recipe.batch.patch
        count = self.recipe.validation.statistics_batches
        for lr in self.source.batches(STATISTICS_STREAM, count, size, patch):
            yield lr[self.rank :: self.processes].to(self.device)

    def _freeze(self) -> None:
        assert isinstance(self.net, RepSR)
        if not self.recipe.run.start_from or self.step > 0:
            measure_statistics(self.net, self._statistics_batches())
        self.net.freeze_bn()
        # From here on statistics are constants of the raw network's parametrisation; an average of weights that
        # were trained against other statistics would not fit them.
        copy_into(self.average, self.net)
        self.progress["averaged"] = 0

    def _learn(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        recipe = self.recipe
        rate = learning_rate(self.step, recipe) * self.progress["rate_factor"]
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        lr, hr = (tensor.to(self.device, non_blocking=True) for tensor in pair)
        if recipe.run.channels_last:
            lr = lr.contiguous(memory_format=torch.channels_last)
        self.optimizer.zero_grad(set_to_none=True)
        half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(recipe.run.precision)
        with torch.autocast(self.device.type, dtype=half, enabled=half is not None):
            sr = self.forms(lr)
        loss = reconstruction_loss(sr.float(), hr, loss_name(self.step, recipe), recipe.loss.luma, recipe.loss.chroma)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        average_into(self.average, self.net, ema_decay(self.progress["averaged"], recipe))
        self.progress["averaged"] += 1
        return loss.detach()

    def _validate(self) -> Judgement:
        judged = self.average
        if isinstance(judged, RepSR) and not judged.bn_frozen:
            measure_statistics(judged, self._statistics_batches())
        return validate(judged, self.images, str(self.device), self.recipe.run.threads)

    def _keep(self, judged: Judgement) -> None:
        """Save what a validation showed: the network and its images if it is the best so far, and the curve."""
        if self.rank == 0:
            draw_curve(self.run / "log.jsonl", self.run / "curve.png")
        if judged.psnr_y <= self.progress["best_psnr_y"]:
            return
        self.progress |= {"best_psnr_y": judged.psnr_y, "best_step": self.step}
        self._save(self.run / "best.pt")
        if self.rank == 0:
            rows = zip(self.images, judged.shown, strict=False)
            sheets = [comparison([imresize(lr, hr.shape[:2]), sr, hr]) for (lr, hr), sr in rows]
            write_sheet(self.run / "validation.png", sheets)

    def _report(self, report: StepReport) -> None:
        if self.rank == 0:
            self.log.write({name: getattr(report, name) for name in StepReport.__slots__ if name != "steps"})
            self.on_report(report)

    def train(self, resume: bool, should_stop: Callable[[], bool]) -> TrainOutcome:
        last = self.run / "last.pt"
        if resume and last.exists():
            self._restore(last)
        else:
            self._begin()
            self._save(last)
        if self.rank == 0:
            (self.run / "recipe.toml").write_text(toml_of(self.recipe), encoding="utf-8")
            self.log = _Log(self.run / "log.jsonl", self.step, self.recipe.run.tensorboard)
        try:
            with ThreadPoolExecutor(1) as pool:
                while True:
                    try:
                        return self._loop(pool, should_stop)
                    except _Exploded as explosion:
                        self._roll_back(explosion)
        finally:
            if self.rank == 0:
                self.log.close()

    def _roll_back(self, explosion: _Exploded) -> None:
        last = self.run / "last.pt"
        failed_at, was_lowered = self.step, self.progress["rate_factor"] < 1
        if was_lowered:
            raise TrainingDiverged(
                self.run,
                f"{explosion} at step {failed_at}, although the learning rate was halved before",
                f"Lower schedule.learning_rate; the last good state is {last}.",
            )
        if self.processes > 1:
            dist.barrier()
        self._restore(last)
        self.progress["rate_factor"] = 0.5
        self._save(last)
        note = f"{explosion} at step {failed_at}; went back to step {self.step} and halved the learning rate"
        self._report(StepReport(self.step, self.recipe.schedule.steps, math.nan, 0.0, 0.0, 0.0, note=note))

    def _loop(self, pool: ThreadPoolExecutor, should_stop: Callable[[], bool]) -> TrainOutcome:
        recipe, steps = self.recipe, self.recipe.schedule.steps
        switch = freeze_step(recipe)
        coming = pool.submit(self._batch, self.step)
        window: list[Tensor] = []
        since_report: list[float] = []
        started, waited, reported = time.perf_counter(), 0.0, self.step
        self.net.train()
        while self.step < steps:
            note = ""
            if isinstance(self.net, RepSR) and not self.net.bn_frozen and self.step >= switch:
                self._freeze()
                note = f"BN uses population statistics from step {self.step} on"
            asked = time.perf_counter()
            pair = coming.result()
            waited += time.perf_counter() - asked
            if self.step + 1 < steps:
                coming = pool.submit(self._batch, self.step + 1)
            window.append(self._learn(pair))
            self.step += 1

            due = self.step == steps
            checkpoint_due = due or self.step % recipe.run.checkpoint_every == 0
            log_due = due or note or self.step % recipe.run.log_every == 0
            validate_due = due or self.step % recipe.validation.every == 0
            if checkpoint_due or log_due or validate_due or len(window) >= CHECK_EVERY:
                since_report.append(self._check(window))
                window = []
            if log_due or validate_due:
                seconds = time.perf_counter() - started
                judged = self._validate() if validate_due else None
                self._report(
                    StepReport(
                        self.step,
                        steps,
                        sum(since_report) / max(1, len(since_report)),
                        self.optimizer.param_groups[0]["lr"],
                        (self.step - reported) / seconds,
                        waited / seconds,
                        judged.psnr_y if judged else None,
                        judged.psnr_rgb if judged else None,
                        note,
                    )
                )
                if judged is not None:
                    self._keep(judged)
                since_report, started, waited, reported = [], time.perf_counter(), 0.0, self.step
            if checkpoint_due:
                self._save(self.run / "last.pt")
            if not due and should_stop():
                self._check(window)
                self._save(self.run / "last.pt")
                raise Interrupted(self.run, f"stopped at step {self.step} of {steps}", "Go on with --resume.")
        return TrainOutcome(
            self.run, self.run / "best.pt", self.progress["best_psnr_y"], int(self.progress["best_step"])
        )

    def _check(self, window: list[Tensor]) -> float:
        """The mean loss of a window of steps; raises ``_Exploded`` if it is no number or far above the lowest."""
        if not window:
            return self.progress["lowest_loss"]  # type: ignore[no-any-return]
        losses = torch.stack(window).mean()
        if self.processes > 1:
            # Every process must come to the same verdict.
            dist.all_reduce(losses)
        mean = float(losses) / self.processes
        if self.progress["lowest_loss"] == math.inf:
            self.progress["lowest_loss"] = float(window[0])
        if not math.isfinite(mean):
            raise _Exploded(f"the loss became {mean}")
        if mean > DIVERGED * self.progress["lowest_loss"]:
            raise _Exploded(f"the loss rose to {mean:.4f} from {self.progress['lowest_loss']:.4f}")
        if len(window) >= CHECK_EVERY:
            self.progress["lowest_loss"] = min(self.progress["lowest_loss"], mean)
        return mean


class _Exploded(Exception):
    """The loss is no number any more, or far above what it was."""
