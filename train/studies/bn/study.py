"""Does batch norm that switches to population statistics train better networks? Four arms, two optimisers, some seeds.

    python train/studies/bn/study.py IMAGES -o runs/bn [--network m4c16] [--steps 1500] [--seeds 3]
    python train/studies/bn/study.py IMAGES -o runs/bn --switch 0.05 0.1 0.2 0.4 0.8 --optimisers SOAP

The second asks when to switch. Runs what is missing (interrupt it and give the same command again), then writes a
table and a plot beside this file.
Every run has the same crops in the same order for its seed, and one thread. A step's cost in seconds is the best that
was measured of its kind of step, and an arm's that of its fastest seed, since other programs only slow them.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ARMS = {
    "plain": {"network.block": "plain"},
    "branches": {"network.block": "rep"},
    "BN": {"network.block": "repsr", "schedule.bn_freeze": "1.0"},
    "BN, switched": {"network.block": "repsr", "schedule.bn_freeze": "0.2"},
}
# Adam as the paper has it; SOAP as the recipe has it.
OPTIMISERS = {"Adam": {"optimizer.name": "adam", "schedule.learning_rate": "1e-3"}, "SOAP": {}}
COLOURS = ("#777777", "#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e")


@dataclass(frozen=True)
class Run:
    """One training: (step, seconds of a core, dB of luma) at every validation."""

    points: tuple[tuple[int, float, float], ...]


def train(folder: Path, arguments: argparse.Namespace, choices: dict[str, str], seed: int) -> None:
    """Train one network, unless that was done before."""
    settings = {
        "data.train": str(arguments.images),
        # As the paper has it; the start that interpolates would help all arms alike.
        "network.init": "random",
        "data.saturation": 1,
        "batch.late": 0,
        "schedule.steps": arguments.steps,
        "validation.every": arguments.steps // 6,
        "run.seed": seed,
        "run.threads": 1,
        "run.precision": arguments.precision,
        "run.compile": str(arguments.compile).lower(),
        **choices,
    }
    recipe = HERE.parents[1] / "recipes" / f"{arguments.network}-x4.toml"
    command = [sys.executable, "-m", "repsr_cli", "train", str(recipe), "-o", str(folder), "--resume", "--quiet"]
    subprocess.run(
        command + [word for key, value in settings.items() for word in ("--set", f"{key}={value}")], check=True
    )


def read(folder: Path, steps: int) -> Run | None:
    """A finished run's figures, or None."""
    log = folder / "log.jsonl"
    entries = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    windows = [entry for entry in entries if entry.get("steps_per_second")]
    if not windows or windows[-1]["step"] < steps:
        return None
    switch = next((entry["step"] for entry in entries if "population" in (entry.get("note") or "")), 0)
    cost = {
        later: 1 / max(w["steps_per_second"] for w in windows if (w["step"] > switch) == later)
        for later in {w["step"] > switch for w in windows}
    }
    points = []
    for entry in entries:
        if entry.get("psnr_y") is not None:
            before = min(entry["step"], switch)
            seconds = before * cost.get(False, 0.0) + (entry["step"] - before) * cost.get(True, 0.0)
            points.append((entry["step"], seconds, entry["psnr_y"]))
    return Run(tuple(points))


def table(runs: dict[str, dict[str, list[Run]]]) -> str:
    """Markdown: the last validation of every arm, mean and spread over seeds."""
    lines = ["| optimiser | arm | seeds | dB, mean | lowest to highest | core-seconds |", "|---|---|---|---|---|---|"]
    for optimiser, arms in runs.items():
        for arm, found in arms.items():
            last = [run.points[-1] for run in found]
            values = [point[2] for point in last]
            if values:
                lines.append(
                    f"| {optimiser} | {arm} | {len(values)} | {statistics.mean(values):.3f} | "
                    f"{min(values):.3f} to {max(values):.3f} | {min(p[1] for p in last):.0f} |"
                )
    return "\n".join(lines) + "\n"


def plot(runs: dict[str, dict[str, list[Run]]]) -> str:
    """SVG: PSNR over steps and over core-seconds for each optimiser; lines are means, bands reach over the seeds."""
    width, height, pad = 420, 260, 46
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * width}" height="{len(runs) * height + 24}" '
        'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>'
    ]
    for row, (optimiser, arms) in enumerate(runs.items()):
        shown = [point for found in arms.values() for run in found for point in run.points]
        if not shown:
            continue
        # Where runs begin says nothing about where they end.
        low = sorted(point[2] for point in shown)[len(shown) // 6]
        high = max(point[2] for point in shown)
        for column, label in enumerate(("steps", "core-seconds")):
            left, top = column * width + pad, row * height + 20
            right, bottom = (column + 1) * width - 12, (row + 1) * height - 26
            most = max(point[column] for point in shown)

            def place(
                x: float,
                y: float,
                box: tuple[int, int, int, int] = (left, top, right, bottom),
                most: float = most,
                span: tuple[float, float] = (low, high),
            ) -> str:
                down = min(1.0, (span[1] - y) / (span[1] - span[0]))
                return f"{box[0] + (box[2] - box[0]) * x / most:.1f},{box[1] + (box[3] - box[1]) * down:.1f}"

            parts.append(
                f'<rect x="{left}" y="{top}" width="{right - left}" height="{bottom - top}" fill="none" stroke="#ccc"/>'
                f'<text x="{left}" y="{top - 6}">{optimiser}: validation dB over {label}, 0 to {most:,.0f}</text>'
                f'<text x="{left - 4}" y="{top + 8}" text-anchor="end">{high:.2f}</text>'
                f'<text x="{left - 4}" y="{bottom}" text-anchor="end">{low:.2f}</text>'
            )
            for colour, found in zip(COLOURS, arms.values(), strict=False):
                columns = list(zip(*(run.points for run in found), strict=True))
                if not columns:
                    continue
                xs = [min(point[column] for point in at) for at in columns]
                ys = [[point[2] for point in at] for at in columns]
                band = [place(x, max(y)) for x, y in zip(xs, ys, strict=True)]
                band += [place(x, min(y)) for x, y in zip(reversed(xs), reversed(ys), strict=True)]
                line = [place(x, statistics.mean(y)) for x, y in zip(xs, ys, strict=True)]
                parts.append(f'<polygon points="{" ".join(band)}" fill="{colour}" opacity="0.2"/>')
                parts.append(f'<polyline points="{" ".join(line)}" fill="none" stroke="{colour}" stroke-width="2"/>')
    for number, (arm, colour) in enumerate(zip(next(iter(runs.values())), COLOURS, strict=False)):
        x, y = pad + 120 * number, len(runs) * height + 12
        parts.append(
            f'<rect x="{x}" y="{y - 9}" width="12" height="10" fill="{colour}"/><text x="{x + 16}" y="{y}">{arm}</text>'
        )
    return "\n".join(parts) + "\n</svg>\n"


def main() -> None:
    """Train what is missing, then write the table and the plot of what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--network", default="m4c16", help="a recipe's name without its factor")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--optimisers", nargs="+", choices=OPTIMISERS, default=list(OPTIMISERS))
    parser.add_argument("--switch", type=float, nargs="+", help="shares of the steps after which BN switches")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--report", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    network, arms = arguments.network, ARMS
    if arguments.switch:
        arms = {f"BN until {share:.0%}": ARMS["BN"] | {"schedule.bn_freeze": str(share)} for share in arguments.switch}
    runs: dict[str, dict[str, list[Run]]] = {name: {arm: [] for arm in arms} for name in arguments.optimisers}
    for seed in range(arguments.seeds):
        for optimiser in arguments.optimisers:
            for arm, choices in arms.items():
                words = re.findall(r"\w+", f"{network} {optimiser} {arm} {seed}".lower())
                folder = arguments.output / "-".join(words)
                if not arguments.report and read(folder, arguments.steps) is None:
                    train(folder, arguments, OPTIMISERS[optimiser] | choices, seed)
                found = read(folder, arguments.steps)
                if found is not None:
                    runs[optimiser][arm].append(found)
    stem = f"{network}-switch" if arguments.switch else network
    (HERE / f"{stem}.md").write_text(table(runs))
    (HERE / f"{stem}.svg").write_text(plot(runs))
    sys.stdout.write(table(runs))


if __name__ == "__main__":
    main()
