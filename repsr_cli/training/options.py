"""Declare options of ``repsr train``, ``eval``, ``finetune`` and ``prepare``. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from repsr_cli.options import option, shared
from repsr_cli.upscale.request import ModelOptions, RunOptions

MODEL, TRAINING, DATA, OUTPUT = "Model and device", "Training", "Training pairs", "Output"


@dataclass(frozen=True, slots=True)
class DrawingOptions:
    """What to draw in place of training."""

    show_batch: Path | None = option(
        "--show-batch", metavar="PNG", help="Draw the first batch (LR beside HR) and stop.", panel=OUTPUT
    )
    overwrite: bool = shared(RunOptions, "overwrite", help="Replace the image of --show-batch.", panel=OUTPUT)


@dataclass(frozen=True, slots=True)
class TableOptions:
    """Where to write the scores of single images."""

    csv: Path | None = option("--csv", help="File for one row per image.", panel=OUTPUT)
    overwrite: bool = shared(RunOptions, "overwrite", help="Replace the file of --csv.", panel=OUTPUT)


@dataclass(frozen=True, slots=True)
class EvalOptions:
    """What to evaluate, and where."""

    models: list[str] | None = option(
        "-n",
        "--model",
        aliases=("--network",),
        metavar="NAME|PATH",
        help="Name or file. Repeatable. Default: all shipped.",
        panel=MODEL,
    )
    scale: int = option("-s", "--scale", default=4, minimum=1, help="Enlargement factor.", panel=MODEL)
    degrade: list[str] | None = option(
        "--degrade",
        metavar="KIND:QUALITY",
        help="Compress LR: jpeg:75, x264:26, x265:28, vp9:35, clean. Repeatable.",
        panel=DATA,
    )
    perceptual: bool = option(
        "--perceptual",
        default=False,
        help="Also SSIMULACRA2, VGG distance, gradient ratio and, of clips, VMAF; needs repsr[perceptual].",
        panel=MODEL,
    )
    frames: int = option("--frames", default=48, minimum=3, help="Frames of each clip.", panel=DATA)
    threads: int | None = option("--threads", help="CPU threads.", panel=MODEL)
    device: str = option("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps.", panel=MODEL)


@dataclass(frozen=True, slots=True)
class StartOptions:
    """The model to fine-tune."""

    model: str = option(
        "-n", "--model", aliases=("--network",), default="fast", help="Model to start from: name or file.", panel=MODEL
    )
    scale: float | None = option("-s", "--scale", help="Enlargement factor.", panel=MODEL)


@dataclass(frozen=True, slots=True)
class FinetuneOptions:
    """How to fine-tune."""

    minutes: float = option("--minutes", default=2.0, help="Training time.", panel=TRAINING)
    threads: int = option("--threads", default=1, minimum=1, help="CPU threads.", panel=TRAINING)
    device: str = option("--device", default="auto", help="auto, cpu, cuda or mps.", panel=TRAINING)
    overwrite: bool = shared(RunOptions, "overwrite", panel=OUTPUT)


@dataclass(frozen=True, slots=True)
class PrepareOptions:
    """How to make training pairs."""

    scale: int = option("-s", "--scale", default=4, minimum=2, help="Enlargement factor, 2 to 8.", panel=DATA)
    mix: Path | None = option(
        "--mix", metavar="TOML", help="Degradations of LR, as in train/mixes. Default: none.", panel=DATA
    )
    teacher: str | None = option(
        "--teacher",
        metavar="NAME|FILE",
        help="Larger model whose output is added to each pair; without --mix, its luma replaces the target's.",
        panel=DATA,
    )
    holdout: int = option("--holdout", default=24, minimum=1, help="Photographs to validate on.", panel=DATA)
    precision: Literal["auto", "fp32", "fp16", "bf16"] = shared(
        ModelOptions, "precision", help="Of the teacher; bf16 is faster on CPUs with AMX or AVX-512 BF16.", panel=DATA
    )
    variants: int = option("--variants", default=2, minimum=1, help="Degradations of each image.", panel=DATA)
    seed: int = option("--seed", default=0, help="Seed of the degradations.", panel=DATA)
    overwrite: bool = shared(RunOptions, "overwrite", panel=OUTPUT)
