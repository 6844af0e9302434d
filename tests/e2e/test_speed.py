"""Speed: saved work changes no byte, and measurements cover what they name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from repsr_cli.cli import app
from repsr_cli.model.checkpoint import save_plain
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.spec import Spec

BENCH = Path(__file__).resolve().parents[2] / "bench"


def make_slides(target: Path, seconds: int) -> Path:
    length = ("--pages", "1", "--seconds", str(seconds))
    subprocess.run([sys.executable, BENCH / "slides.py", target, *length], check=True)
    return target


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of them."""
    return make_slides(tmp_path_factory.mktemp("slides") / "slides.mp4", 1)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("network") / "small.safetensors"
    save_plain(path, PlainSR(Spec(scale=2, channels=8, blocks=1)), {})
    return path


def repsr(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.stderr
    return result.stdout


def test_slides_are_upscaled_once_and_the_bytes_stay_the_same(network: Path, tmp_path: Path) -> None:
    slides = make_slides(tmp_path / "slides.mp4", 3)
    written, reused = [], []
    for switch in ("--reuse", "--no-reuse"):
        target = tmp_path / f"{switch}.y4m"
        printed = repsr("upscale", slides, "-n", network, "-s", 2, switch, "-o", target, "--json", "--quiet")
        written.append(target.read_bytes())
        reused.append(json.loads(printed)["facts"]["reused"])
    # How much can be reused depends on the machine: see tile_reuse.ChangedTiles.
    assert reused[0] > 0.2
    assert reused[1] == 0
    assert written[0] == written[1]


def test_bench_measures_the_pipeline_and_the_whole_command(network: Path, slides: Path) -> None:
    record = json.loads(repsr("bench", slides, "-n", network, "--rounds", 1, "--size", "64x36", "--json"))
    rows = {row["name"]: row for row in record["rows"]}
    assert list(rows) == ["model", "pipeline", "end to end"]
    assert {rows[name]["frames"] for name in ("pipeline", "end to end")} == {25}
    assert rows["end to end"]["facts"]["codec"] == "libx264"
    # In a process of its own: importing alone takes that long.
    assert rows["end to end"]["facts"]["start_up_s"] > 0.2
    parts = rows["end to end"]["facts"]["start_up"]
    assert list(parts) == ["python", "torch", "pyav", "repsr"]
    assert parts["torch"] > parts["python"] > 0


def test_a_race_against_another_command(network: Path, slides: Path, tmp_path: Path) -> None:
    svg = tmp_path / "bars.svg"
    rival = f"{sys.executable} {BENCH / 'straightforward.py'} {{source}} {{target}} --model {network} --crf 30"
    race: list[str | Path] = [
        sys.executable,
        BENCH / "race.py",
        slides,
        rival,
        "--rounds",
        "1",
        "--svg",
        svg,
        "--",
        "-n",
        network,
    ]
    printed = subprocess.run(race, check=True, capture_output=True, text=True, cwd=BENCH.parent).stdout
    result = json.loads(printed)
    assert result["ratio"] == pytest.approx(result["rival"] / result["repsr"], abs=0.05)
    assert svg.read_text().startswith("<svg")
