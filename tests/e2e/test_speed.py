"""Speed as a user meets it: work saved changes no byte, and races are run as promised."""

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
from repsr_cli.model.plain import PlainSR, Spec

BENCH = Path(__file__).resolve().parents[2] / "bench"


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


def test_slides_are_enlarged_once_and_the_same_bytes_come_out(network: Path, tmp_path: Path) -> None:
    slides = tmp_path / "slides.mp4"
    subprocess.run([sys.executable, BENCH / "slides.py", slides], check=True)
    written, reused = [], []
    for switch in ("--reuse", "--no-reuse"):
        target = tmp_path / f"{switch}.y4m"
        told = repsr("upscale", slides, "-n", network, "-s", 2, switch, "-o", target, "--end", 3, "--json", "--quiet")
        written.append(target.read_bytes())
        reused.append(json.loads(told)["facts"]["reused"])
    # How small the pieces are that can be kept depends on the machine: see FoldedUpscaler.
    assert reused[0] > 0.2
    assert reused[1] == 0
    assert written[0] == written[1]


def test_a_race_against_a_rival(network: Path, tmp_path: Path) -> None:
    slides = tmp_path / "slides.mp4"
    subprocess.run([sys.executable, BENCH / "slides.py", slides, "--pages", "1", "--seconds", "1"], check=True)
    rival = f"{sys.executable} {BENCH / 'straightforward.py'} {{source}} {{target}} --network {network} --crf 30"
    record = json.loads(repsr("bench", slides, "-n", network, "--rounds", 2, "--json", "--rival", rival))
    rows = {row["name"]: row for row in record["rows"]}
    assert list(rows) == ["model", "pipeline", "end to end", "rival"]
    assert {rows[name]["frames"] for name in ("pipeline", "end to end", "rival")} == {25}
    assert rows["end to end"]["facts"]["codec"] == "libx264"
    # In a process of its own, as the rival: importing alone takes that long.
    assert rows["end to end"]["facts"]["start_up_s"] > 0.2
    ratio = rows["rival"]["seconds"] / rows["end to end"]["seconds"]
    assert rows["rival"]["facts"]["ours_over_rival"] == pytest.approx(ratio, abs=0.01)
