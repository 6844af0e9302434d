"""The fuzzer's corpus opens, its inputs repeat, and a short run of every kind of file finds nothing."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from repsr_cli.image.files import open_image
from repsr_cli.video import open as video

pytest.importorskip("resource", reason="limits of memory as POSIX has them")
from tests.fuzz import fuzz

SEEDS = [(path.parent.name, path) for path in sorted(fuzz.CORPUS.glob("*/*"))]


@pytest.fixture(autouse=True)
def _usual_limits_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repsr_cli.upscale.image.open_image", open_image)
    monkeypatch.setattr(video, "MAX_PIXELS", video.MAX_PIXELS)


@pytest.mark.parametrize(("kind", "path"), SEEDS, ids=lambda value: getattr(value, "name", value))
def test_every_seed_ends_in_a_result_or_an_error_of_repsr(kind: str, path: Path, tmp_path: Path) -> None:
    """Those named ``found-...`` once brought something down; the others open."""
    result = fuzz.attempt(kind, path.read_bytes(), random.Random(0), tmp_path)
    assert result == "done" or (path.name.startswith("found-") and "\n" not in result), result


@pytest.mark.parametrize(("kind", "inputs"), [("network", 60), ("image", 60), ("video", 8)])
def test_damaged_seeds_end_likewise(kind: str, inputs: int, tmp_path: Path) -> None:
    for number in range(inputs):
        data, chance = fuzz.make_input(kind, number, 0)
        result = fuzz.attempt(kind, data, chance, tmp_path)
        assert "\n" not in result, f"python -m tests.fuzz.fuzz {kind} --first {number}: {result}"


def test_inputs_repeat_and_differ() -> None:
    inputs = [fuzz.make_input("image", number, 0)[0] for number in range(30)]
    assert inputs == [fuzz.make_input("image", number, 0)[0] for number in range(30)]
    assert len(set(inputs)) > 25


def test_a_crash_is_told_from_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path, chance: random.Random) -> None:
        raise ZeroDivisionError

    monkeypatch.setitem(fuzz.ENTRY_POINTS, "network", broken)
    assert "ZeroDivisionError\n" in fuzz.attempt("network", b"", random.Random(0), tmp_path)
