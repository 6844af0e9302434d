"""Read a training recipe: a TOML file becomes a checked, frozen dataclass."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

from repsr_cli.errors import RecipeError
from repsr_cli.training.sections import MOST, build_section, read_toml, toml_value

# Both sides of what a discriminator sees are multiples of this, since it halves them three times.
DISCRIMINATOR_MULTIPLE = 8
# Smallest sides of crops, HR px: the window of SSIM, and what has a gradient once smoothing has lost its border.
SSIM_WINDOW, SMALLEST_GRADIENT = 11, 4
# Values above 0, each with the largest that is accepted.
POSITIVE: dict[str, float] = {
    "network.scale": 16,
    "network.blocks": 1000,
    "network.channels": 4096,
    "network.expansion": 64,
    "batch.size": 1 << 20,
    "batch.patch": 1 << 14,
    "batch.late_size": 1 << 20,
    "batch.late_patch": 1 << 14,
    "schedule.steps": MOST,
    "schedule.learning_rate": 1e6,
    "optimizer.refresh": MOST,
    "validation.every": MOST,
    "loss.vgg_layers": 5,
    "gan.channels": 4096,
    "gan.learning_rate": 1e6,
    "validation.statistics_batches": MOST,
    "run.checkpoint_every": MOST,
    "run.log_every": MOST,
    "run.threads": 1024,
}
SHARES = ("schedule.bn_freeze", "batch.late", "loss.late", "loss.vgg_warped", "ema.decay")
NOT_NEGATIVE = (
    *("schedule.warmup", "schedule.final_learning_rate", "loss.luma", "loss.chroma", "loss.weight", "loss.ssim"),
    *("loss.ms_ssim", "loss.fourier", "loss.grid", "loss.gradient", "loss.vgg", "loss.vgg_crops", "loss.vgg_patch"),
    *("gan.weight", "gan.warmup", "data.holdout", "optimizer.weight_decay"),
)


@dataclass(frozen=True, slots=True)
class Network:
    """The network to train.

    Attributes:
        scale: enlargement factor.
        blocks: body convolutions M of the plain network.
        channels: feature channels C.
        block: ``repsr`` (branches with BN), ``rep`` (branches without BN) or ``plain`` (the shipped network itself).
        expansion: inner width of a path over ``channels``.
        init: ``interpolation``: a fresh network interpolates; ``random``: torch's default.
    """

    scale: int
    blocks: int = 4
    channels: int = 16
    block: Literal["repsr", "rep", "plain"] = "repsr"
    expansion: int = 2
    init: Literal["interpolation", "random"] = "interpolation"


@dataclass(frozen=True, slots=True)
class Data:
    """The images to train on.

    Attributes:
        train: folder of HR images (searched recursively), or a packed crop file made from one.
        holdout: images held out for validation, each from another photograph, whose other images are dropped.
        validation: folder of HR images to validate on instead of ``holdout``; empty: none.
        channel_shuffle: whether colour channels of a training crop are shuffled.
        saturation: colour differences of every second training crop are multiplied by 1 to this.
        target: what a network learns to give: the ``original``, what the ``teacher`` of ``repsr prepare`` made, or
            ``teacher-luma``, the luma of that with the original's colour.
    """

    train: str
    holdout: int = 24
    validation: str = ""
    channel_shuffle: bool = False
    saturation: float = 1.0
    target: Literal["original", "teacher", "teacher-luma"] = "original"


@dataclass(frozen=True, slots=True)
class Batch:
    """Batch sizes, and those of the last part of the run.

    Attributes:
        size: crops per step.
        patch: side of a crop in LR px.
        late: share of the steps, at the end, that use the late size and patch; 0: none.
        late_size: crops per step in that part.
        late_patch: side of a crop there, LR px.
    """

    size: int = 16
    patch: int = 32
    late: float = 0.0
    late_size: int = 64
    late_patch: int = 32


@dataclass(frozen=True, slots=True)
class Schedule:
    """Length of the run and learning rate.

    Attributes:
        steps: length of the run.
        learning_rate: the largest, reached after the warm-up.
        final_learning_rate: at the end of the cosine.
        warmup: steps of linear warm-up.
        bn_freeze: share of the steps after which BN uses population statistics; 1: never.
    """

    steps: int
    learning_rate: float = 1e-2
    final_learning_rate: float = 0.0
    warmup: int = 100
    bn_freeze: float = 0.2


@dataclass(frozen=True, slots=True)
class Optimizer:
    """The optimiser.

    Attributes:
        name: ``soap``, ``adam`` or ``adamw``.
        betas: decay of the first and second moments.
        weight_decay: decoupled weight decay (``adam`` has none).
        refresh: steps between two refinements of SOAP's eigenbases.
    """

    name: Literal["soap", "adam", "adamw"] = "soap"
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    refresh: int = 10


@dataclass(frozen=True, slots=True)
class Loss:
    """The loss.

    Attributes:
        name: ``l1``, ``l2`` or ``charbonnier``, on RGB.
        luma: weight of the same loss on luma (BT.601), added; 0: none.
        chroma: weight of the same loss on its two colour differences, added; 0: none.
        late_name: the loss of the run's last part; empty: the same.
        late: share of the steps, at the end, that use ``late_name``.
        weight: of all that is named above, beside the terms below.
        ms_ssim: weight of 1 - MS-SSIM, added.
        ssim: weight of 1 - SSIM at the finest scale, added; it keeps the contrast of texture.
        fourier: weight of the distance of amplitudes and phases of the spectra, added.
        grid: weight of what the error has in common from one LR pixel to the next, added; it keeps a VGG term from
            drawing a cross-hatch.
        gradient: weight of the difference of the mean gradients of windows of 16 px from the original's, added; it
            keeps contrast whose exact place cannot be known.
        vgg: weight of the VGG distance, added; its weights come with ``repsr[perceptual]``.
        vgg_layers: how many of the five layers it uses.
        vgg_target: what it compares with: the ``original``, what the ``teacher`` made, or the mean features of
            ``both``. The original alone teaches texture that pleases this VGG more than the eye.
        vgg_crops: crops of a step that it looks at, since it costs more than the network; 0: all.
        vgg_patch: side of the part that it sees of each, near the middle, LR px; 0: the whole crop.
        vgg_warped: share of the steps that show it the crops zoomed and turned a little, against dots on rough
            surfaces.
    """

    name: Literal["l1", "l2", "charbonnier"] = "l1"
    luma: float = 0.5
    chroma: float = 0.0
    late_name: Literal["", "l1", "l2", "charbonnier"] = ""
    late: float = 0.0
    weight: float = 1.0
    ms_ssim: float = 0.0
    ssim: float = 0.0
    fourier: float = 0.0
    grid: float = 0.0
    gradient: float = 0.0
    vgg: float = 0.0
    vgg_layers: int = 4
    vgg_target: Literal["original", "teacher", "both"] = "original"
    vgg_crops: int = 0
    vgg_patch: int = 0
    vgg_warped: float = 0.0


@dataclass(frozen=True, slots=True)
class Gan:
    """Adversarial training: a discriminator learns to tell the network's images from real ones.

    Attributes:
        weight: of the adversarial term; 0: none.
        real: what counts as real: what the ``teacher`` made, or the ``original``.
        channels: width of the discriminator.
        learning_rate: of the discriminator, by Adam.
        warmup: steps in which only the discriminator learns from the network's images.
    """

    weight: float = 0.0
    real: Literal["original", "teacher"] = "teacher"
    channels: int = 32
    learning_rate: float = 2e-4
    warmup: int = 100


@dataclass(frozen=True, slots=True)
class Ema:
    """The averaged copy that is validated and shipped.

    Attributes:
        decay: upper bound of the decay; step t since the start uses min(decay, (1 + t) / (10 + t)).
    """

    decay: float = 0.999


@dataclass(frozen=True, slots=True)
class Validation:
    """How the averaged, fused network is validated.

    Attributes:
        every: steps between two validations; the last step is always validated.
        statistics_batches: batches to measure the average's BN statistics on, before the switch.
        keep: which network becomes ``best.pt``: the one with the ``best`` PSNR, or the ``last`` one, as adversarial
            training wants it.
    """

    every: int = 1000
    statistics_batches: int = 100
    keep: Literal["best", "last"] = "best"


@dataclass(frozen=True, slots=True)
class Run:
    """Where and how to run.

    Attributes:
        seed: of initial weights, crop choice and augmentation.
        threads: CPU threads of the network.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``; ``auto``: CUDA if present.
        precision: ``fp32``, or autocast to ``bf16`` or ``fp16``; ``bf16`` is faster on CPUs with AMX or AVX-512
            BF16 too.
        channels_last: memory layout of activations; faster in branches, on CPU too.
        compile: torch.compile the training step's network.
        checkpoint_every: steps between two checkpoints.
        log_every: steps between two log lines.
        tensorboard: write TensorBoard event files into the run directory too; needs ``repsr[tensorboard]``.
        start_from: a checkpoint or model file whose weights the run starts with, where shapes agree; empty: none. A
            ``plain`` network may also start from one of another scale, its tail resampled, and from a smaller one,
            grown; with ``network.init = "interpolation"`` and three new channels, its colour is interpolated.
    """

    seed: int = 0
    threads: int = 1
    device: str = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = True
    compile: bool = False
    checkpoint_every: int = 1000
    log_every: int = 100
    tensorboard: bool = False
    start_from: str = ""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A training run; two runs of equal recipes on one CPU are equal bit for bit."""

    network: Network
    data: Data
    schedule: Schedule
    batch: Batch = field(default_factory=Batch)
    optimizer: Optimizer = field(default_factory=Optimizer)
    loss: Loss = field(default_factory=Loss)
    gan: Gan = field(default_factory=Gan)
    ema: Ema = field(default_factory=Ema)
    validation: Validation = field(default_factory=Validation)
    run: Run = field(default_factory=Run)


def load_recipe(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe.

    Args:
        overrides: ``section.key=value`` strings with TOML values; a bare word is taken as a string.

    Raises:
        RecipeError: no such file, not TOML, unknown section or key (with the nearest name), wrong type or value.
    """
    values = read_toml(path, "recipe", "train/recipes")
    for override in overrides or []:
        key, equals, text = override.partition("=")
        section, dot, name = key.strip().partition(".")
        if not equals or not dot:
            raise RecipeError(override, "is not section.key=value", "For example --set schedule.steps=2000.")
        if not isinstance(values.setdefault(section, {}), dict):
            raise RecipeError(override, f"'{section}' is not a section")
        values[section][name] = toml_value(text.strip())
    return recipe_from_dict(values, str(path))


def recipe_from_dict(values: dict[str, Any], subject: str) -> Recipe:
    """Build and check a recipe from nested plain values; ``subject`` names it in errors.

    Raises:
        RecipeError: as ``load_recipe``.
    """
    recipe = build_section(Recipe, values, subject)
    _check(recipe, subject)
    return recipe


def toml_of(recipe: Recipe) -> str:
    """A recipe as TOML text that loads to an equal recipe."""
    # JSON strings, numbers, booleans and lists of them are valid TOML.
    return "\n".join(
        f"[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
        for section, values in dataclasses.asdict(recipe).items()
    )


def deciding_values(recipe: dict[str, Any]) -> dict[str, Any]:
    """The values of a recipe that determine the result, by ``section.key``; a resumed run must have the same.

    Left out are the places of images, validation, how and where the run computes, and ``start_from``, which matters
    only at its beginning.
    """
    flat = {f"{section}.{key}": value for section, values in recipe.items() for key, value in values.items()}
    may_change = {"data.train", "data.validation", "validation.every"} | {key for key in flat if key.startswith("run.")}
    decides = {key: value for key, value in flat.items() if key not in may_change - {"run.seed"}}
    same_types: dict[str, Any] = json.loads(json.dumps(decides))  # makes tuples and lists of equal values equal
    return same_types


def _check(recipe: Recipe, subject: str) -> None:
    for name, most in POSITIVE.items():
        value = attrgetter(name)(recipe)
        if value <= 0:
            raise RecipeError(subject, f"{name} must be above 0, not {value}")
        if value > most:
            raise RecipeError(subject, f"{name} must be at most {most:g}, not {value}")
    for name in SHARES:
        value = attrgetter(name)(recipe)
        if not 0 <= value <= 1:
            raise RecipeError(subject, f"{name} must be between 0 and 1, not {value}")
    for name in NOT_NEGATIVE:
        if attrgetter(name)(recipe) < 0:
            raise RecipeError(subject, f"{name} must not be negative")
    _check_single(recipe, subject)
    _check_crops(recipe, subject)


def _check_single(recipe: Recipe, subject: str) -> None:
    for value in recipe.optimizer.betas:
        if not 0 <= value < 1:
            raise RecipeError(subject, f"optimizer.betas must be 0 or more and below 1, not {value}")
    if recipe.run.seed < 0:
        raise RecipeError(subject, f"run.seed must not be negative, but is {recipe.run.seed}")
    if recipe.network.init == "interpolation" and recipe.network.channels < 3:
        raise RecipeError(subject, "network.channels must be 3 or more to start as an interpolation")
    if recipe.data.saturation < 1:
        raise RecipeError(subject, f"data.saturation must be 1 or more, not {recipe.data.saturation}")
    if recipe.data.holdout == 0 and not recipe.data.validation:
        raise RecipeError(subject, "nothing to validate on", "Set data.holdout above 0 or data.validation to a folder.")


def _check_crops(recipe: Recipe, subject: str) -> None:
    smallest = min(recipe.batch.patch, recipe.batch.late_patch) * recipe.network.scale
    terms = (
        ("a discriminator", recipe.gan.weight, DISCRIMINATOR_MULTIPLE),
        ("loss.ssim", recipe.loss.ssim, SSIM_WINDOW),
        ("loss.ms_ssim", recipe.loss.ms_ssim, SSIM_WINDOW),
        ("loss.gradient", recipe.loss.gradient, SMALLEST_GRADIENT),
    )
    for name, weight, side in terms:
        if weight and smallest < side:
            happened = f"crops of {smallest} px are too small for {name}, which needs {side}"
            raise RecipeError(subject, happened, "Raise batch.patch and batch.late_patch.")
