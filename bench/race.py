"""Race a command against ``repsr upscale`` on one video, in turns, and print the ratio of their times.

    python bench/race.py VIDEO "python bench/straightforward.py {source} {target} --model fast-x4" \
        -- -n fast -c libx264 --preset veryfast

What follows ``--`` is passed to ``repsr upscale``. Both are timed as whole commands; the best of several rounds counts,
and the medians are printed too.
``--svg FILE`` draws the result as bars.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from html import escape
from pathlib import Path
from statistics import median


def seconds(command: list[str]) -> float:
    """The wall time of a command, which must succeed."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def race(video: Path, rival: str, options: list[str], rounds: int) -> dict[str, list[float]]:
    """The times of both, in seconds."""
    times: dict[str, list[float]] = {"repsr": [], "rival": []}
    with tempfile.TemporaryDirectory(prefix="repsr-race-") as folder:
        ours, theirs = Path(folder) / "ours.mp4", Path(folder) / "theirs.mp4"
        upscale = [sys.executable, "-m", "repsr_cli", "upscale", str(video), "-o", str(ours), "-y", "--no-resume"]
        command = [part.replace("{source}", str(video)).replace("{target}", str(theirs)) for part in shlex.split(rival)]
        for _ in range(rounds):  # in turns, so that both see the same machine
            times["repsr"].append(seconds([*upscale, *options, "--quiet"]))
            times["rival"].append(seconds(command))
    return times


def bars(title: str, values: dict[str, float], unit: str) -> str:
    """Values as an SVG bar chart."""
    largest, left = max(values.values()), 120
    rows = []
    for index, (name, value) in enumerate(values.items()):
        top, width = 40 + 34 * index, (540 - left) * value / largest
        rows.append(
            f'<text x="{left - 10}" y="{top + 16}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{left}" y="{top}" width="{width:.1f}" height="24" fill="#4477aa"/>'
            f'<text x="{left + 6 + width:.1f}" y="{top + 16}">{value:.2f} {unit}</text>'
        )
    height = 50 + 34 * len(values)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="640" height="{height}" font-family="sans-serif" '
        f'font-size="13"><rect width="640" height="{height}" fill="#ffffff"/>'
        f'<text x="10" y="22">{escape(title)}</text>{"".join(rows)}</svg>\n'
    )


def main() -> None:
    """Race, and print one JSON record."""
    arguments = sys.argv[1:]
    split = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("rival", help="a command with {source} and {target} in it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--svg", type=Path)
    given = parser.parse_args(arguments[:split])
    if "{source}" not in given.rival or "{target}" not in given.rival:
        parser.error("the rival needs {source} and {target} in its command")
    times = race(given.video, given.rival, arguments[split + 1 :], given.rounds)
    best = {name: min(values) for name, values in times.items()}
    middle = {name: median(values) for name, values in times.items()}
    record = {name: round(value, 2) for name, value in best.items()}
    record["ratio"] = round(best["rival"] / best["repsr"], 2)
    record["ratio_of_medians"] = round(middle["rival"] / middle["repsr"], 2)
    sys.stdout.write(json.dumps(record) + "\n")
    if given.svg is not None:
        given.svg.write_text(bars(f"{given.video.name}: seconds", best, "s"), encoding="utf-8")


if __name__ == "__main__":
    main()
