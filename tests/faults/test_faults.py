"""A brief selection of fault injection; in full: ``python -m tests.faults``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.faults import shim

COMMANDS = ("image .png", "video .mp4", "compare")
TRIALS = 36


@pytest.mark.skipif(bool(shim.unavailable()), reason=f"{TRIALS} trials: {shim.unavailable()}")
def test_disturbed_commands_keep_their_promises(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    argv = [sys.executable, "-m", "tests.faults", "--trials", str(TRIALS), "--jobs", "2", "--log", str(log)]
    for command in COMMANDS:
        argv += ["--command", command]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert log.exists(), ended.stderr
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(records) >= TRIALS
    wrong = [record for record in records if record["found"]]
    assert not wrong, json.dumps(wrong[:3], indent=1)
    assert ended.returncode == 0, ended.stdout + ended.stderr
