"""train/join.py: packed files of several mixes as one."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from repsr_cli.errors import RecipeError
from repsr_cli.training.dataset import Pack, Pair, write_pack
from tests.conftest import ROOT, textured

Join = Callable[[Sequence[str]], None]


@pytest.fixture
def join() -> Join:
    found: Join = runpy.run_path(str(ROOT / "train" / "join.py"))["main"]
    return found


def packed(path: Path, seed: int, *, taught: bool = True, scale: int = 2) -> Path:
    hr, lr, teacher = textured(32, 32, seed), textured(32 // scale, 32 // scale, seed + 1), textured(32, 32, seed + 2)
    pairs = [Pair(name, name, hr, lr, name == "b", teacher if taught else None) for name in ("a", "b")]
    write_pack(path, scale, pairs)
    return path


def test_both_files_are_trained_on_and_the_first_is_validated_on(tmp_path: Path, join: Join) -> None:
    paths = [packed(tmp_path / f"{name}.pack", seed) for name, seed in (("one", 0), ("two", 10))]
    join([*map(str, paths), "-o", str(tmp_path / "both.pack")])
    both = Pack(tmp_path / "both.pack")
    training, validation = both.split(0)
    assert [image.name for image in training] == ["one/a", "two/a"]
    assert [image.name for image in validation] == ["one/b"]
    for image, path in zip(training, paths, strict=True):
        source = Pack(path)
        for part in (Pack.hr, Pack.lr, Pack.teacher):
            assert np.array_equal(part(both, image), part(source, source.images[0]))


def test_files_that_do_not_go_together_are_refused(tmp_path: Path, join: Join) -> None:
    first = packed(tmp_path / "one.pack", 0)
    plain, other = packed(tmp_path / "plain.pack", 1, taught=False), packed(tmp_path / "x4.pack", 2, scale=4)
    for second in (plain, other):
        with pytest.raises(RecipeError, match="another scale than the first, or a teacher"):
            join([str(first), str(second), "-o", str(tmp_path / "both.pack")])
    assert not (tmp_path / "both.pack").exists()


def test_a_teacher_replaces_the_originals_of_the_files_it_is_told_of(tmp_path: Path, join: Join) -> None:
    first, taught = packed(tmp_path / "one.pack", 0), packed(tmp_path / "two.pack", 10)
    join([str(first), "--taught", str(taught), "-o", str(tmp_path / "both.pack")])
    both = Pack(tmp_path / "both.pack")
    (one, two), _ = both.split(0)
    assert np.array_equal(both.hr(one), Pack(first).hr(Pack(first).images[0]))
    assert not np.array_equal(both.hr(one), both.teacher(one))
    assert np.array_equal(both.hr(two), Pack(taught).teacher(Pack(taught).images[0]))
    assert np.array_equal(both.lr(two), Pack(taught).lr(Pack(taught).images[0]))


def test_without_a_teacher_nothing_replaces_originals(tmp_path: Path, join: Join) -> None:
    first, second = (packed(tmp_path / f"{name}.pack", 0, taught=False) for name in ("one", "two"))
    with pytest.raises(RecipeError, match="--taught needs packed files with a teacher"):
        join([str(first), "--taught", str(second), "-o", str(tmp_path / "both.pack")])
