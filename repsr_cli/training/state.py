"""Hold the state of a training run, and save it to and restore it from checkpoints."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

from repsr_cli.errors import RecipeError
from repsr_cli.model.checkpoint import TrainingCheckpoint, damaged, load_training, save_training
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.repsr import RepSR
from repsr_cli.training.ema import copy_weights
from repsr_cli.training.networks import build_network
from repsr_cli.training.objective import Adversary
from repsr_cli.training.recipe import Recipe, deciding_values, recipe_from_dict
from repsr_cli.training.soap import SOAP


def _fresh_progress() -> dict[str, Any]:
    return {
        "averaged": 0,
        "rate_factor": 1.0,
        "lowest_loss": math.inf,
        "best_psnr_y": -math.inf,
        "best_step": 0,
    }


@dataclass(slots=True)
class TrainingState:
    """Networks, optimiser and counters of a run.

    Attributes:
        ema: its exponential moving average.
        scaler: scales gradients in fp16; disabled otherwise.
        adversary: the discriminator of adversarial training, with its optimiser.
        images: digests of the images of the run, as ``RunData`` has them; a checkpoint of other images is refused.
        progress: counters and best figures, as checkpoints hold them: ``averaged`` (updates of the average),
            ``rate_factor`` (of the learning rate), ``lowest_loss``, ``best_psnr_y`` (dB) and ``best_step``.
    """

    net: RepSR | PlainSR
    ema: RepSR | PlainSR
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    adversary: Adversary | None = None
    step: int = 0
    images: str = ""
    progress: dict[str, Any] = field(default_factory=_fresh_progress)

    def save(self, path: Path, recipe: Recipe) -> None:
        """Write a checkpoint; errors as ``save_training``."""
        optimizer = {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}
        if self.adversary is not None:
            optimizer["adversary"] = self.adversary.state_dict()
        values = asdict(recipe)
        save_training(
            path,
            TrainingCheckpoint(self.net, self.ema, values, self.step, optimizer, dict(self.progress), self.images),
        )

    def restore(self, path: Path, recipe: Recipe) -> None:
        """Take over a checkpoint of the same recipe.

        Raises:
            RecipeError: it was made by another recipe, or with other images.
        """
        checkpoint = load_training(path)
        # Keys that an older checkpoint does not know have their defaults.
        before = asdict(recipe_from_dict(checkpoint.recipe, str(path)))
        theirs, ours = (deciding_values(each) for each in (before, asdict(recipe)))
        for name, value in ours.items():
            if theirs.get(name) != value:
                happened = f"was made by another recipe: {name} was {theirs.get(name)}"
                raise RecipeError(path, happened, "Choose another -o.")
        digests = zip(("data.train", "data.validation"), checkpoint.images.split(), self.images.split(), strict=False)
        other = next((name for name, there, here in digests if there != here), None)
        if other is not None:
            raise RecipeError(
                path,
                f"was made with other images than {other} has now",
                "Put those images back, or begin another run from it: --set run.start_from=CHECKPOINT and another -o.",
            )
        try:
            self._take_over(checkpoint)
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise damaged(path, error) from error

    def _take_over(self, checkpoint: TrainingCheckpoint) -> None:
        for own, saved in ((self.net, checkpoint.net), (self.ema, checkpoint.ema)):
            copy_weights(own, saved)
        self.optimizer.load_state_dict(checkpoint.optimizer["optimizer"])
        _check_shapes(self.optimizer)
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(checkpoint.optimizer["scaler"])
        if self.adversary is not None:
            self.adversary.load_state_dict(checkpoint.optimizer["adversary"])
        self.step = checkpoint.step
        self.progress = {name: type(value)(checkpoint.progress[name]) for name, value in _fresh_progress().items()}


def _check_shapes(optimizer: Optimizer) -> None:
    """Check that the moments of every parameter have as many values as it has."""
    for parameter, state in optimizer.state.items():
        for name in ("mean", "square", "exp_avg", "exp_avg_sq"):
            if name in state and state[name].numel() != parameter.numel():
                raise ValueError(f"'{name}' of the optimiser has {state[name].numel()} values")


def _build_optimizer(parameters: Iterable[Tensor], recipe: Recipe) -> Optimizer:
    """The optimiser of a recipe; the schedule sets its learning rate before every step."""
    settings, rate = recipe.optimizer, recipe.schedule.learning_rate
    if settings.name == "soap":
        return SOAP(parameters, rate, settings.betas, weight_decay=settings.weight_decay, refresh=settings.refresh)
    if settings.name == "adamw":
        return AdamW(parameters, lr=rate, betas=settings.betas, weight_decay=settings.weight_decay)
    return Adam(parameters, lr=rate, betas=settings.betas)


def fresh_state(recipe: Recipe, device: torch.device, images: str = "") -> TrainingState:
    """The state of a run before its first step; it depends on the recipe's seed only.

    Args:
        images: digests of its images.
    """
    torch.manual_seed(recipe.run.seed)
    net, ema = build_network(recipe), build_network(recipe)
    net.to(device)
    ema.to(device)
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.run.precision == "fp16")
    return TrainingState(net, ema, _build_optimizer(net.parameters(), recipe), scaler, images=images)
