"""Compute what a training step minimises: reconstruction, perceptual terms, an adversary trained beside the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Adam

from repsr_cli.errors import RecipeError
from repsr_cli.training.dataset import CropDataset
from repsr_cli.training.discriminator import Discriminator, discriminator_loss, generator_loss
from repsr_cli.training.feature_views import FeatureViews
from repsr_cli.training.losses import luma_of, reconstruction_loss
from repsr_cli.training.perceptual import VggFeatures, feature_distance
from repsr_cli.training.recipe import DISCRIMINATOR_MULTIPLE, Recipe
from repsr_cli.training.schedule import loss_name
from repsr_cli.training.structure import fourier_distance, gradient_distance, grid_pattern, ms_ssim, ssim

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Width of the border of a crop that a discriminator never sees, LR px.
_UNSEEN = 4


@dataclass(frozen=True, slots=True)
class Targets:
    """The images that a step compares with, each (N, 3, H, W).

    Attributes:
        original: the HR crops.
        teacher: what a larger model made of the LR crops; None where the recipe does not use it.
    """

    original: Tensor
    teacher: Tensor | None = None

    def named(self, name: str) -> Tensor:
        """``original``, ``teacher``, or ``teacher-luma``: the teacher's luma with the colour of the original."""
        if name == "original":
            return self.original
        assert self.teacher is not None, "the recipe's data were checked when the run began"
        if name == "teacher":
            return self.teacher
        return self.original + luma_of(self.teacher - self.original)


def uses_teacher(recipe: Recipe) -> bool:
    """Whether a recipe needs what a teacher made."""
    return (
        recipe.data.target != "original"
        or (recipe.gan.weight > 0 and recipe.gan.real == "teacher")
        or (recipe.loss.vgg > 0 and recipe.loss.vgg_target != "original")
    )


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """A context in which networks compute in the precision of a recipe."""
    half = _HALF.get(recipe.run.precision)
    return torch.autocast(device.type, dtype=half, enabled=half is not None)


def check_teacher(recipe: Recipe, crops: CropDataset) -> None:
    """Refuse a recipe whose packed file lacks what it asks for.

    Raises:
        RecipeError: it does.
    """
    if uses_teacher(recipe) and not crops.taught:
        remedy = "Make it with repsr prepare --teacher, or set data.target, gan.real and loss.vgg_target to original."
        raise RecipeError(recipe.data.train, "was packed without a teacher", remedy)


class Objective:
    """The loss of the network, without the adversarial term.

    Raises:
        UsageError: a VGG term is wanted, and its weights are not installed.
    """

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self._recipe, loss = recipe, recipe.loss
        side = loss.vgg_patch * recipe.network.scale
        self._views = FeatureViews(recipe.run.seed, side, loss.vgg_crops, loss.vgg_warped)
        self._vgg: VggFeatures | None = None
        if loss.vgg:
            features = VggFeatures(loss.vgg_layers).to(device)
            self._vgg = features.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._device = device

    def __call__(self, step: int, sr: Tensor, targets: Targets) -> Tensor:
        """The loss of a step, a scalar; ``sr`` is (N, 3, H, W) float32, not clamped."""
        recipe, loss = self._recipe, self._recipe.loss
        wanted = targets.named(recipe.data.target)
        total = loss.weight * reconstruction_loss(sr, wanted, loss_name(step, recipe), loss.luma, loss.chroma)
        if loss.ms_ssim:
            total = total + loss.ms_ssim * (1 - ms_ssim(sr, wanted))
        if loss.ssim:
            total = total + loss.ssim * (1 - ssim(sr, wanted))
        if loss.fourier:
            total = total + loss.fourier * fourier_distance(sr, wanted)
        if loss.grid:
            # Teachers have such patterns themselves; originals have none.
            total = total + loss.grid * grid_pattern(sr, targets.original, recipe.network.scale)
        if loss.gradient:
            total = total + loss.gradient * gradient_distance(sr, targets.original)
        if self._vgg is not None:
            total = total + loss.vgg * self._vgg_distance(step, sr, targets)
        return total

    def _vgg_distance(self, step: int, sr: Tensor, targets: Targets) -> Tensor:
        """Distance of the features of the crops, or of a part of some, to those that are wanted."""
        target = self._recipe.loss.vgg_target
        view = self._views.at(step, *sr.shape[-2:])
        names = ("original", "teacher") if target == "both" else (target,)
        with torch.no_grad():
            found = [self._features(view(targets.named(name))) for name in names]
            wanted = [torch.stack(layer).mean(0) for layer in zip(*found, strict=True)]
        return feature_distance(self._features(view(sr).clamp(0, 1)), wanted)

    def _features(self, crops: Tensor) -> list[Tensor]:
        assert self._vgg is not None, "asked for only where a VGG term is wanted"
        with autocast(self._recipe, self._device):
            features: list[Tensor] = self._vgg(crops.contiguous(memory_format=torch.channels_last))
        return [layer.float() for layer in features]


class Adversary:
    """A discriminator and its optimiser."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self._recipe, self._gan, self._device = recipe, recipe.gan, device
        self._unseen = _UNSEEN * recipe.network.scale
        net = Discriminator(recipe.gan.channels).to(device)
        # More than twice as fast as with channels first, in bf16 on a CPU.
        self._net: nn.Module = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimizer = Adam(self._net.parameters(), lr=recipe.gan.learning_rate, betas=(0.9, 0.99))

    def generator_term(self, step: int, sr: Tensor) -> Tensor:
        """The weighted adversarial loss of the network's images; 0 while the discriminator warms up."""
        if step < self._gan.warmup:
            return sr.new_zeros(())
        self._net.requires_grad_(requires_grad=False)
        try:
            return self._gan.weight * generator_loss(self._scores(step, sr))
        finally:
            self._net.requires_grad_(requires_grad=True)

    def learn(self, step: int, sr: Tensor, targets: Targets) -> None:
        """Take one step of the discriminator on the network's images, as they are now, and on real ones."""
        self._optimizer.zero_grad(set_to_none=True)
        real = targets.named(self._gan.real)
        loss = discriminator_loss(self._scores(step, real), self._scores(step, sr.detach()))
        loss.backward()  # type: ignore[no-untyped-call]
        if dist.is_initialized():
            for parameter in self._net.parameters():
                assert parameter.grad is not None, "every layer of a discriminator is used"
                dist.all_reduce(parameter.grad)
                parameter.grad.div_(dist.get_world_size())
        self._optimizer.step()

    def _scores(self, step: int, images: Tensor) -> Tensor:
        seen = images[self._part(step, *images.shape[-2:])].contiguous(memory_format=torch.channels_last)
        with autocast(self._recipe, self._device):
            return torch.as_tensor(self._net(seen)).float()

    def _part(self, step: int, height: int, width: int) -> tuple[slice, ...]:
        """What the discriminator sees of a step's crops: a part elsewhere in every step, without their borders.

        Both networks pad with zeros. Were the crops seen whole, the network would learn where the discriminator sees
        least, and draw dots along the borders of its images.
        """
        random = np.random.default_rng((self._recipe.run.seed, step, 2))
        places = []
        for length in (height, width):
            inner = length - 4 * self._unseen
            side = max(DISCRIMINATOR_MULTIPLE, inner - inner % DISCRIMINATOR_MULTIPLE)
            slack = length - side
            border = min(self._unseen, slack // 2)
            start = int(random.integers(border, slack - border + 1))
            places.append(slice(start, start + side))
        return (slice(None), slice(None), *places)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"net": self._net.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what a checkpoint holds."""
        self._net.load_state_dict(state["net"])
        self._optimizer.load_state_dict(state["optimizer"])
