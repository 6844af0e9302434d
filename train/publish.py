"""Fuse the best network of a run into weights/, evaluate it, and write its model card and its index entry.

    python train/publish.py runs/m4c16-x4 --benchmark BENCHMARK [--other NAME=FILE]

BENCHMARK is a folder with one folder of HR images per set (Set5, Set14, B100). They are for evaluation only.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tomllib
from datetime import date
from pathlib import Path

from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.export.fuse import fuse_file
from repsr_cli.model.checkpoint import load_plain, load_training
from repsr_cli.model.zoo import KINDS
from repsr_cli.training.evaluate import evaluate, mean_scores

ROOT = Path(__file__).resolve().parents[1]
SIZES = {"M3C8": "light", "M4C16": "fast", "M10C32": "balanced", "M16C64": "best"}
SETS = ("Set5", "Set14", "B100")
PLACES = ("train", "validation")  # keys of a recipe that name places on a disk


def hours_of(log: Path) -> float:
    """Training time from the steps and speeds of the log, without validation."""
    seconds, done = 0.0, 0
    for line in log.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry["steps_per_second"] > 0 and entry["step"] > done:
            seconds += (entry["step"] - done) / entry["steps_per_second"]
            done = entry["step"]
    return seconds / 3600


def evaluate_all(networks: dict[str, Path], benchmark: Path, scale: int) -> dict[str, dict[str, dict[str, float]]]:
    """Mean figures by network (bicubic first) and set."""
    engines = [(name, Upscaler(load_plain(path), device="cpu", precision="fp32")) for name, path in networks.items()]
    rows = list(evaluate(engines, [benchmark / name for name in SETS], scale))
    return {
        network: {
            name: mean_scores([r.scores for r in rows if (r.model, r.folder) == (network, name)]) for name in SETS
        }
        for network in ["bicubic", *networks]
    }


def write_index(folder: Path, entry: dict[str, object]) -> None:
    """Replace or add one network's entry; the others stay as they are."""
    index = folder / "index.toml"
    entries = tomllib.loads(index.read_text(encoding="utf-8"))["model"] if index.exists() else []
    entries = sorted([e for e in entries if e["name"] != entry["name"]] + [entry], key=lambda e: str(e["file"]))
    text = "# Shipped models. Code reads no other file of this folder but the weights. Written by train/publish.py.\n"
    for item in entries:
        figures = ", ".join(f"{name} = {value}" for name, value in item["psnr_y"].items())
        text += "\n[[model]]\n"
        text += "".join(f"{key} = {json.dumps(value)}\n" for key, value in item.items() if key != "psnr_y")
        text += f"psnr_y = {{ {figures} }}\n"
    index.write_text(text, encoding="utf-8")


def main() -> None:
    """Publish one run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--benchmark", type=Path, required=True)
    parser.add_argument("--kind", choices=KINDS, default="clean")
    parser.add_argument("--other", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--note", default="", help="a sentence for the model card on how the run came about")
    arguments = parser.parse_args()

    checkpoint = load_training(arguments.run / "best.pt")
    spec = checkpoint.ema.spec
    size = SIZES[spec.name]
    middle = "" if arguments.kind == "clean" else f"-{arguments.kind}"
    name, stem = f"{size}{middle}-x{spec.scale}", f"repsr-{spec.name.lower()}{middle}-x{spec.scale}"
    target = ROOT / "weights" / f"{stem}.safetensors"
    report = fuse_file(arguments.run / "best.pt", target, overwrite=True, metadata={"licence": "Apache-2.0"})

    others = {key: Path(file) for key, _, file in (other.partition("=") for other in arguments.other)}
    table = evaluate_all({name: target, **others}, arguments.benchmark, spec.scale)
    figures = {label: round(score["psnr_y"], 3) for label, score in table[name].items()}
    write_index(
        target.parent,
        {
            "name": name,
            "size": size,
            "kind": arguments.kind,
            "scale": spec.scale,
            "network": spec.name,
            "file": target.name,
            "sha256": report.sha256,
            "psnr_y": figures,
        },
    )
    recipe = checkpoint.recipe
    rows = "\n".join(
        f"| {network} | "
        + " | ".join(f"{s['psnr_y']:.3f} / {s['psnr_rgb']:.3f} / {s['ssim_y']:.4f}" for s in scores.values())
        + " |"
        for network, scores in table.items()
    )
    settings = "\n".join(
        f"    [{section}]\n"
        + "\n".join(f"    {key} = {json.dumps(value)}" for key, value in values.items() if key not in PLACES)
        for section, values in recipe.items()
        if section != "run"
    )
    model_card = f"""# {stem}

`{name}`: {spec.name} at x{spec.scale}, {report.parameters:,} parameters, {spec.macs_per_pixel:,} multiply-accumulates
per LR pixel, {target.stat().st_size / 1000:.0f} kB. Use it with `repsr upscale INPUT -n {name}`.

| | {" | ".join(SETS)} |
|---|{"---|" * len(SETS)}
{rows}

Y-PSNR dB / RGB-PSNR dB / Y-SSIM; LR by MATLAB's bicubic, 8-bit output, border of {spec.scale} px cropped, grey images
as RGB. Command: `repsr eval Set5 Set14 B100 -s {spec.scale} -n {name}`.

- **Made by** `repsr train` (step {report.step:,} of {recipe["schedule"]["steps"]:,}, seed {recipe["run"]["seed"]},
  about {hours_of(arguments.run / "log.jsonl"):.1f} hours on {recipe["run"]["threads"]} core of a shared
  {platform.machine()} server CPU, in {recipe["run"]["precision"]}) on {
        date.today().isoformat()
    }, then `repsr fuse`: trained and fused network differ by
  {report.error_float64:.1e} in float64 and {report.error_float32:.1e} in float32. {arguments.note}
- **Data**: the images of train/data/README.md, which lists their licences. No benchmark image was used for training or
  tuning; {recipe["data"]["holdout"]} photographs were held out for validation.
- **Meant for** {
        "clean images: no compression, no noise" if arguments.kind == "clean" else "compressed images and video"
    }.
- **Known failures**: detail finer than the LR grid is guessed or stays soft; {
        "JPEG and video artefacts are sharpened like detail." if arguments.kind == "clean" else "grain is smoothed."
    }
- **Licence**: Apache-2.0. **sha256** {report.sha256}

Recipe:

{settings}
"""
    (target.parent / f"{stem}.md").write_text(model_card, encoding="utf-8")
    sys.stdout.write(f"{target}\n{json.dumps(figures)}\n")


if __name__ == "__main__":
    main()
