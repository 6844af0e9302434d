"""Fuse the best network of a run into weights/, evaluate it, and write its model card and its index entry.

    python train/publish.py runs/m4c16-x4 --benchmark BENCHMARK [--other NAME=FILE]
    python train/publish.py runs/m10c32-detail-x4 --kind detail --detail-default 0.4 --benchmark BENCHMARK \
        --stage runs/m10c32-real-x4 --teacher "4xNomos (CC BY 4.0)" --degrade jpeg:75 --degrade x264:26

BENCHMARK is a folder with one folder of HR images per set (Set5, Set14, B100). They are for evaluation only. A detail
model needs the real model of its size and scale in the index, since both make a dial.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tomllib
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.export.fuse import FuseReport, fuse_checkpoint, write_fused
from repsr_cli.model.checkpoint import TrainingCheckpoint, load_plain, load_training
from repsr_cli.model.repsr import RepSR
from repsr_cli.model.zoo import KINDS
from repsr_cli.training.conditions import parse_conditions
from repsr_cli.training.evaluate import evaluate, mean_scores

ROOT = Path(__file__).resolve().parents[1]
SIZES = {"M3C8": "light", "M4C16": "fast", "M10C32": "balanced", "M16C64": "best"}
SETS = ("Set5", "Set14", "B100")
DEGRADED = "B100"  # the set that is also measured compressed
PLACES = ("train", "validation")  # keys of a recipe that name places on a disk
FIGURES = {"psnr_y": ("Y-PSNR", 3), "ssimulacra2": ("SSIMULACRA2", 2), "vgg": ("VGG", 4), "gradient": ("gradient", 3)}
MEANT_FOR = {
    "clean": "clean images: no compression, no noise",
    "real": "compressed images and video, as faithfully as possible",
    "detail": "compressed images and video, as crisp as possible: it synthesizes detail. `--detail` mixes it with the "
    "`real` model of its size",
}
FAILURES = {
    "clean": "JPEG and video artefacts are sharpened like detail.",
    "real": "grain is smoothed.",
    "detail": "texture may be invented that the original does not have, text and faces included.",
}


def hours_of(log: Path) -> float:
    """Training time from the steps and speeds of the log, without validation."""
    seconds, done = 0.0, 0
    for line in log.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry["steps_per_second"] > 0 and entry["step"] > done:
            seconds += (entry["step"] - done) / entry["steps_per_second"]
            done = entry["step"]
    return seconds / 3600


def upscalers(networks: dict[str, Path]) -> list[tuple[str, Upscaler]]:
    """Networks, ready to be evaluated."""
    return [(name, Upscaler(load_plain(path), device="cpu", precision="fp32")) for name, path in networks.items()]


def evaluate_all(networks: dict[str, Path], benchmark: Path, scale: int) -> dict[str, dict[str, dict[str, float]]]:
    """Mean figures by network (bicubic first) and set."""
    rows = list(evaluate(upscalers(networks), [benchmark / name for name in SETS], scale))
    return {
        network: {
            name: mean_scores([r.scores for r in rows if (r.model, r.folder) == (network, name)]) for name in SETS
        }
        for network in ["bicubic", *networks]
    }


def degraded_table(networks: dict[str, Path], benchmark: Path, scale: int, degrade: Sequence[str]) -> str:
    """How results look on compressed images, as a table; empty where no degradation is asked for."""
    if not degrade:
        return ""
    made = {condition.name: condition.lr for condition in parse_conditions(degrade)}
    rows = list(evaluate(upscalers(networks), [benchmark / DEGRADED], scale, None, made, perceptual=True))
    lines = [
        f"| {DEGRADED} | | {' | '.join(title for title, _ in FIGURES.values())} |",
        f"|---|---|{'---|' * len(FIGURES)}",
    ]
    for condition in made:
        for network in ["bicubic", *networks]:
            means = mean_scores([r.scores for r in rows if (r.model, r.condition) == (network, condition)])
            figures = " | ".join(f"{means[name]:.{digits}f}" for name, (_, digits) in FIGURES.items())
            lines.append(f"| {condition} | {network} | {figures} |")
    names = " ".join(f"-n {name}" for name in networks)
    flags = " ".join(f"--degrade {condition}" for condition in degrade)
    command = f"Command: `repsr eval {DEGRADED} -s {scale} {names} --perceptual {flags}`."
    return "\n".join([*lines, "", command, "", ""])


def index_entries(folder: Path) -> list[dict[str, Any]]:
    """The entries of an index, none where there is no index."""
    index = folder / "index.toml"
    return list(tomllib.loads(index.read_text(encoding="utf-8"))["model"]) if index.exists() else []


def write_index(folder: Path, entry: dict[str, Any]) -> None:
    """Replace or add one network's entry; the others stay as they are."""
    entries = [e for e in index_entries(folder) if e["name"] != entry["name"]]
    text = "# Shipped models. Code reads no other file of this folder but the weights. Written by train/publish.py.\n"
    for item in sorted([*entries, entry], key=lambda e: str(e["file"])):
        figures = ", ".join(f"{name} = {value}" for name, value in item["psnr_y"].items())
        text += "\n[[model]]\n"
        text += "".join(f"{key} = {json.dumps(value)}\n" for key, value in item.items() if key != "psnr_y")
        text += f"psnr_y = {{ {figures} }}\n"
    (folder / "index.toml").write_text(text, encoding="utf-8")


def detail_default(arguments: argparse.Namespace, name: str, size: str, checkpoint: TrainingCheckpoint) -> float | None:
    """The dial's default that goes into the index: as asked for, or as it stands there.

    Raises:
        SystemExit: it is not asked for, out of bounds, or there is no real model to make a pair with.
    """
    if arguments.kind != "detail":
        return None
    spec, entries = checkpoint.ema.spec, index_entries(arguments.weights)
    real = [e for e in entries if (e["size"], e["kind"], e["scale"]) == (size, "real", spec.scale)]
    if not real or real[0]["network"] != spec.name:
        raise SystemExit(f"{name}: no real model of {spec.name} x{spec.scale} in the index. Publish that first.")
    known = next((e["default_detail"] for e in entries if e["name"] == name), None)
    value = known if arguments.detail_default is None else arguments.detail_default
    if value is None or not 0 <= value <= 1:
        raise SystemExit(f"{name}: the dial has no default. Give --detail-default, 0 to 1.")
    return float(value)


def model_card(
    arguments: argparse.Namespace, name: str, report: FuseReport, checkpoint: TrainingCheckpoint, tables: str
) -> str:
    """The model card as Markdown."""
    recipe, spec, target = checkpoint.recipe, checkpoint.ema.spec, report.target
    settings = "\n".join(
        f"    [{section}]\n"
        + "\n".join(f"    {key} = {json.dumps(value)}" for key, value in values.items() if key not in PLACES)
        for section, values in recipe.items()
        if section != "run"
    )
    hours = hours_of(arguments.run / "log.jsonl")
    earlier = arguments.earlier + sum(hours_of(run / "log.jsonl") for run in arguments.stage)
    stages = f", after {earlier:.1f} hours of earlier stages" if earlier else ""
    fused = ""
    if isinstance(checkpoint.ema, RepSR):
        errors = f"{report.error_float64:.1e} in float64 and {report.error_float32:.1e} in float32"
        fused = f": trained and fused network differ by\n  {errors}"
    cores = f"{recipe['run']['threads']} core of a shared {platform.machine()} server CPU"
    teachers = f"\n- **Teachers**: {'; '.join(arguments.teacher)}. They do not ship." if arguments.teacher else ""
    failures = " ".join(["Detail finer than the LR grid is guessed or stays soft;", FAILURES[arguments.kind]])
    return f"""# {target.stem}

`{name}`: {spec.name} at x{spec.scale}, {report.parameters:,} parameters, {spec.macs_per_pixel:,} multiply-accumulates
per LR pixel, {target.stat().st_size / 1000:.0f} kB. Use it with `repsr upscale INPUT -n {name}`.

{tables}- **Made by** `repsr train` (step {report.step:,} of {recipe["schedule"]["steps"]:,},
  seed {recipe["run"]["seed"]}, about {hours:.1f} hours on
  {arguments.machine or cores}, in {recipe["run"]["precision"]}{stages}) on {date.today().isoformat()},
  then `repsr fuse`{fused}. {arguments.note}
- **Data**: {arguments.data} No benchmark image was used for training or
  tuning; {recipe["data"]["holdout"]} photographs were held out for validation.{teachers}
- **Meant for** {MEANT_FOR[arguments.kind]}.
- **Known failures**: {" ".join([failures, *arguments.failure])}
- **Licence**: Apache-2.0. **sha256** {report.sha256}

Recipe:

{settings}
"""


def clean_table(name: str, table: dict[str, dict[str, dict[str, float]]], scale: int) -> str:
    """Fidelity on the benchmark sets, as a table."""
    rows = "\n".join(
        f"| {network} | "
        + " | ".join(f"{s['psnr_y']:.3f} / {s['psnr_rgb']:.3f} / {s['ssim_y']:.4f}" for s in scores.values())
        + " |"
        for network, scores in table.items()
    )
    return f"""| | {" | ".join(SETS)} |
|---|{"---|" * len(SETS)}
{rows}

Y-PSNR dB / RGB-PSNR dB / Y-SSIM; LR by MATLAB's bicubic, 8-bit output, border of {scale} px cropped, grey images
as RGB. Command: `repsr eval {" ".join(SETS)} -s {scale} -n {name}`.

"""


def parsed(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--benchmark", type=Path, required=True)
    parser.add_argument("--kind", choices=KINDS, default="clean")
    parser.add_argument("--detail-default", type=float, help="detail models: the dial where nothing is asked for")
    parser.add_argument("--checkpoint", default="best.pt", help="file of the run to publish")
    parser.add_argument("--stage", action="append", default=[], type=Path, help="an earlier run, for its hours")
    parser.add_argument("--earlier", default=0.0, type=float, help="hours of still earlier runs, from a model card")
    parser.add_argument("--machine", default="", help="the machine that trained the run; default: a core of this one")
    parser.add_argument("--other", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--degrade", action="append", default=[], help=f"also measure {DEGRADED} so: jpeg:75, x264:26")
    parser.add_argument(
        "--data", default="the images of train/data/README.md, which lists their licences.", help="a sentence"
    )
    parser.add_argument("--teacher", action="append", default=[], help="a teacher, with its licence")
    parser.add_argument("--failure", action="append", default=[], help="a sentence on what it does badly")
    parser.add_argument("--note", default="", help="a sentence for the model card on how the run came about")
    parser.add_argument("--weights", type=Path, default=ROOT / "weights", help="folder to publish into")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Publish one run."""
    arguments = parsed(words)
    checkpoint = load_training(arguments.run / arguments.checkpoint)
    spec = checkpoint.ema.spec
    size = SIZES[spec.name]
    middle = "" if arguments.kind == "clean" else f"-{arguments.kind}"
    name, stem = f"{size}{middle}-x{spec.scale}", f"repsr-{spec.name.lower()}{middle}-x{spec.scale}"
    default = detail_default(arguments, name, size, checkpoint)
    target = arguments.weights / f"{stem}.safetensors"
    source = arguments.run / arguments.checkpoint
    report = write_fused(fuse_checkpoint(source, {"licence": "Apache-2.0"}), target, overwrite=True)

    others = {key: Path(file) for key, _, file in (other.partition("=") for other in arguments.other)}
    networks = {name: target, **others}
    table = evaluate_all(networks, arguments.benchmark, spec.scale)
    entry: dict[str, Any] = {
        "name": name,
        "size": size,
        "kind": arguments.kind,
        "scale": spec.scale,
        "network": spec.name,
        "file": target.name,
        "sha256": report.sha256,
        **({} if default is None else {"default_detail": default}),
        "psnr_y": {label: round(score["psnr_y"], 3) for label, score in table[name].items()},
    }
    write_index(target.parent, entry)
    tables = clean_table(name, table, spec.scale)
    tables += degraded_table(networks, arguments.benchmark, spec.scale, arguments.degrade)
    target.with_suffix(".md").write_text(model_card(arguments, name, report, checkpoint, tables), encoding="utf-8")
    sys.stdout.write(f"{target}, {target.with_suffix('.md')}; now run docs/zoo.py and train/shaders.py\n")


if __name__ == "__main__":
    main()
