"""Build optimisers by name."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

from repsr_cli.training.recipe import Recipe
from repsr_cli.training.soap import SOAP


def build_optimizer(parameters: Iterable[Tensor], recipe: Recipe) -> Optimizer:
    """The optimiser of a recipe; the schedule sets its learning rate before every step."""
    settings, rate = recipe.optimizer, recipe.schedule.learning_rate
    if settings.name == "soap":
        return SOAP(
            parameters,
            lr=rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            refresh=settings.refresh,
        )
    if settings.name == "adamw":
        return AdamW(parameters, lr=rate, betas=settings.betas, weight_decay=settings.weight_decay)
    return Adam(parameters, lr=rate, betas=settings.betas)
