from __future__ import annotations

import errno
import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repsr_cli.engine.pixels import to_tensor
from repsr_cli.engine.planes import planes_from_rgb
from repsr_cli.errors import RecipeError, UsageError
from repsr_cli.image.resize import downscale
from repsr_cli.training.dataset import Pack
from repsr_cli.training.degradations import Encoding
from repsr_cli.training.metrics import Pixels
from repsr_cli.training.mix import ENCODERS, load_mix
from repsr_cli.training.prepare import Preparation, encoder_options, prepare
from repsr_cli.training.resumable import is_complete
from repsr_cli.video.lock import FolderLock
from repsr_cli.video.roundtrip import through_codec
from repsr_cli.yuv.formats import PlaneFormat
from tests.conftest import ROOT, textured

REAL = load_mix(ROOT / "train" / "mixes" / "real.toml")


@pytest.mark.parametrize("codec", sorted(ENCODERS))
def test_codec_damage_grows_with_the_quality_number_and_no_frame_is_lost(codec: str) -> None:
    fmt = PlaneFormat("bt709", False, 8, (2, 2), "left")
    shot = [planes_from_rgb(to_tensor(textured(64, 96, 5)[:, t : t + 64].copy()), fmt) for t in range(6)]
    errors = []
    for quality in (2, 31) if codec.startswith("mpeg") else (15, 40):
        options = encoder_options(Encoding(codec, quality, fast=True))
        decoded = through_codec(shot, "yuv420p", codec, options)
        assert len(decoded) == 6
        errors.append(np.mean([np.abs(a[0].astype(int) - b[0]).mean() for a, b in zip(shot, decoded, strict=True)]))
    assert 0 < errors[0] < errors[1]


def test_prepared_pairs_are_aligned_seeded_and_damaged(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(4):
        Image.fromarray(textured(180 + 8 * number, 200, number)).save(folder / f"p{number}.png")
    Image.fromarray(textured(140, 300)).save(folder / "small.png")
    for target in ("a", "b"):
        prepare(folder, tmp_path / f"{target}.pack", Preparation(2, REAL, variants=2, seed=3, holdout=1))
    a, b = Pack(tmp_path / "a.pack"), Pack(tmp_path / "b.pack")
    assert len([p for p in a.images if p.held_out]) == 1
    held_out = next(p.group for p in a.images if p.held_out)
    names = {f"p{n}.png#{v}" for n in range(4) for v in range(2)} - {f"{held_out}.png#1"}
    assert {p.name for p in a.images} == names
    assert {p.group for p in a.images} == {f"p{n}" for n in range(4)}
    damage = []
    for one, other in zip(a.images, b.images, strict=True):
        assert np.array_equal(a.lr(one), b.lr(other))
        assert np.array_equal(a.hr(one), b.hr(other))
        ideal = downscale(np.array(a.hr(one)), 2).astype(float)
        damage.append(np.abs(ideal - a.lr(one)).mean())
        # Even ruined by a low bit rate, LR shows the place that HR shows rather than one some pixels beside it.
        beside = min(np.abs(np.roll(ideal, shift, axis) - a.lr(one)).mean() for shift in (-2, 2) for axis in (0, 1))
        assert damage[-1] < beside
    assert max(damage) > 1


def doubled(lr: Pixels) -> Pixels:
    """A teacher that enlarges by repetition."""
    return lr.repeat(2, 0).repeat(2, 1)


def stopping_at(call: int) -> Callable[[Pixels], Pixels]:
    """The same teacher, stopped by the user at a call."""
    calls = itertools.count(1)

    def teacher(lr: Pixels) -> Pixels:
        if next(calls) == call:
            raise KeyboardInterrupt
        return doubled(lr)

    return teacher


def preparation_of(folder: Path, count: int, variants: int = 1) -> tuple[Path, Preparation, bytes]:
    """Images, what to make of them, and what an undisturbed run gives."""
    images = folder / "images"
    images.mkdir()
    for number in range(count):
        Image.fromarray(textured(180, 200, number)).save(images / f"p{number}.png")
    preparation = Preparation(2, REAL, variants=variants, seed=1, holdout=1, teacher="doubled")
    prepare(images, folder / "whole.pack", preparation, doubled)
    return images, preparation, (folder / "whole.pack").read_bytes()


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Preparation, bytes, Path]:
    """As ``preparation_of``, and the folder of a run that was stopped after three of four pairs."""
    folder = tmp_path_factory.mktemp("begun")
    images, preparation, whole = preparation_of(folder, 4)
    with pytest.raises(KeyboardInterrupt):
        prepare(images, folder / "stopped.pack", preparation, stopping_at(4))
    return images, preparation, whole, folder / "stopped.pack.parts"


@pytest.fixture
def stopped(begun: tuple[Path, Preparation, bytes, Path], tmp_path: Path) -> tuple[Path, Preparation, bytes, Path]:
    """The same, with a copy of the folder that the test may damage."""
    images, preparation, whole, parts = begun
    return images, preparation, whole, Path(shutil.copytree(parts, tmp_path / parts.name))


def test_a_stopped_preparation_continues_to_the_same_file(tmp_path: Path) -> None:
    folder, preparation, whole = preparation_of(tmp_path, 5, variants=2)
    target = tmp_path / "stopped.pack"
    with pytest.raises(KeyboardInterrupt):
        prepare(folder, target, preparation, stopping_at(4))
    assert not target.exists()
    # A kill may leave pixels without a line, or half a line.
    parts = tmp_path / "stopped.pack.parts"
    with (parts / "pixels").open("ab") as file:
        file.write(b"torn")
    with (parts / "pairs.jsonl").open("ab") as file:
        file.write(b'{"name": "torn')
    with pytest.raises(UsageError, match="unfinished file of other settings"):
        prepare(folder, target, Preparation(2, REAL, variants=2, seed=2, holdout=1, teacher="doubled"), doubled)
    made = 0

    def counted(lr: Pixels) -> Pixels:
        nonlocal made
        made += 1
        return doubled(lr)

    prepare(folder, target, preparation, counted)
    assert made == 9 - 3
    assert target.read_bytes() == whole
    assert not parts.exists()
    pack = Pack(target)
    for entry in pack.images:
        assert np.array_equal(pack.teacher(entry), doubled(np.array(pack.lr(entry))))


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line[:-5] + b"\n",
        lambda line: b"[" * 50000 + b"\n",
        lambda line: line.replace(b'"offset": ', b'"offset": 7'),
        lambda line: line.replace(b'"height": ', b'"height": 9'),
        lambda line: line.replace(b'"name"', b'"nome"'),
        lambda line: b"\xff\xfe" + line,
    ],
)
def test_damaged_lines_cost_the_pairs_after_them_and_nothing_else(
    stopped: tuple[Path, Preparation, bytes, Path], damage: Callable[[bytes], bytes]
) -> None:
    images, preparation, whole, parts = stopped
    first, second, third = (parts / "pairs.jsonl").read_bytes().splitlines(keepends=True)
    (parts / "pairs.jsonl").write_bytes(first + damage(second) + third)
    prepare(images, parts.with_suffix(""), preparation, doubled)
    assert parts.with_suffix("").read_bytes() == whole


@pytest.mark.parametrize("name", ["pixels", "pairs.jsonl"])
@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
def test_flipped_bits_of_an_unfinished_file_cost_work_and_do_no_harm(
    stopped: tuple[Path, Preparation, bytes, Path], name: str, at: float
) -> None:
    images, preparation, whole, parts = stopped
    data = bytearray((parts / name).read_bytes())
    data[int(at * len(data))] ^= 1
    (parts / name).write_bytes(data)
    prepare(images, parts.with_suffix(""), preparation, doubled)
    assert parts.with_suffix("").read_bytes() == whole


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"job": 1, "digest": 2}', b"[" * 50000, b"\xff", "pipe", "bit"])
def test_a_damaged_description_of_an_unfinished_file_refuses_nothing(
    stopped: tuple[Path, Preparation, bytes, Path], damage: bytes | str
) -> None:
    images, preparation, whole, parts = stopped
    record = parts / "job.json"
    if damage == "bit":
        record.write_text(record.read_text().replace('"seed": 1', '"seed": 3'))
    elif damage == "pipe":
        record.unlink()
        os.mkfifo(record)
    else:
        record.write_bytes(bytes(damage))  # type: ignore[arg-type]
    prepare(images, parts.with_suffix(""), preparation, doubled)
    assert parts.with_suffix("").read_bytes() == whole


def test_files_of_others_beside_an_unfinished_file_stay(tmp_path: Path) -> None:
    images, preparation, whole = preparation_of(tmp_path, 3)
    parts = tmp_path / "a.pack.parts"
    parts.mkdir()
    (parts / "thesis.txt").write_bytes(b"precious")
    lines: list[str] = []
    prepare(images, tmp_path / "a.pack", preparation, doubled, say=lines.append)
    assert (tmp_path / "a.pack").read_bytes() == whole
    assert {path.name: path.read_bytes() for path in parts.iterdir()} == {"thesis.txt": b"precious"}
    assert f"{parts} could not be removed: it holds thesis.txt, which repsr did not put there" in lines[-1]


def test_a_preparation_that_was_killed_as_it_tidied_up_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, preparation, whole = preparation_of(tmp_path, 3)
    target = tmp_path / "a.pack"

    def killed(lock: FolderLock, *_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(FolderLock, "remove", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(images, target, preparation, doubled)
    monkeypatch.undo()
    note = tmp_path / "a.pack.parts" / "complete.json"
    note.write_bytes(b"x" + note.read_bytes()[1:])  # damage at one place
    assert is_complete(target)
    prepare(images, target, preparation, stopping_at(1))
    assert target.read_bytes() == whole
    assert not (tmp_path / "a.pack.parts").exists()
    (tmp_path / "a.pack.parts").mkdir()  # killed a moment later
    with pytest.raises((UsageError, RecipeError), match="exists"):
        prepare(images, target, preparation, doubled)
    assert not (tmp_path / "a.pack.parts").exists()


def test_a_folder_of_others_that_is_named_like_parts_stays(tmp_path: Path) -> None:
    (tmp_path / "book.parts").mkdir()
    assert not is_complete(tmp_path / "book")
    assert (tmp_path / "book.parts").is_dir()
    assert not any(is_complete(path) for path in (Path(), Path("/"), tmp_path))


def test_images_that_are_too_small_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(textured(40, 200, number)).save(folder / f"small{number}.png")
    preparation = Preparation(2, REAL, variants=1, seed=1, holdout=1, teacher="doubled")
    with pytest.raises(RecipeError, match="all its images are smaller than 160 px"):
        prepare(folder, tmp_path / "a.pack", preparation, doubled)
    assert not list(tmp_path.glob("a.pack*"))
    for number in range(2):
        Image.fromarray(textured(180, 200, number)).save(folder / f"large{number}.png")
    lines: list[str] = []
    preparation = Preparation(2, REAL, variants=1, seed=2, holdout=1, teacher="doubled")
    prepare(folder, tmp_path / "b.pack", preparation, doubled, say=lines.append)
    assert len(lines) == 1
    assert all(f"small{number}.png" in lines[0] for number in range(3))
    assert len(Pack(tmp_path / "b.pack").images) == 2


def test_a_folder_that_cannot_be_removed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, preparation, _ = preparation_of(tmp_path, 2)

    def refused(self: FolderLock, *_: object, **__: object) -> None:
        self.release()
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(FolderLock, "remove", refused)
    lines: list[str] = []
    prepare(images, tmp_path / "a.pack", preparation, doubled, say=lines.append)
    folder = tmp_path / "a.pack.parts"
    assert lines == [f"a.pack is complete; {folder} could not be removed: Input/output error"]
    assert folder.exists()
    monkeypatch.undo()
    prepare(images, tmp_path / "a.pack", preparation, doubled, say=lines.append)
    assert len(lines) == 1
    assert not folder.exists()


def test_two_preparations_do_not_write_one_file(tmp_path: Path) -> None:
    images, preparation, _ = preparation_of(tmp_path, 2)
    lock = FolderLock.take(tmp_path / "a.pack.parts", tmp_path / "a.pack")
    with pytest.raises(UsageError, match="another process"):
        prepare(images, tmp_path / "a.pack", preparation, doubled)
    lock.release()


def test_pixels_that_are_cut_short_are_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(textured(180, 200, number)).save(folder / f"p{number}.png")
    preparation = Preparation(2, REAL, variants=1, seed=1, holdout=1, teacher="doubled")
    prepare(folder, tmp_path / "whole.pack", preparation, doubled)
    with pytest.raises(KeyboardInterrupt):
        prepare(folder, tmp_path / "cut.pack", preparation, stopping_at(3))
    with (tmp_path / "cut.pack.parts" / "pixels").open("r+b") as file:
        file.truncate(100)
    prepare(folder, tmp_path / "cut.pack", preparation, doubled)
    assert (tmp_path / "cut.pack").read_bytes() == (tmp_path / "whole.pack").read_bytes()


@pytest.mark.parametrize("name", ["", "pixels", "pairs.jsonl"])
def test_links_in_the_place_of_an_unfinished_file_are_not_followed(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    Image.fromarray(textured(180, 200)).save(folder / "a.png")
    Image.fromarray(textured(180, 200, 1)).save(folder / "b.png")
    victim = tmp_path / "victim"
    if name:
        victim.write_bytes(b"precious")
        (tmp_path / "a.pack.parts").mkdir()
        (tmp_path / "a.pack.parts" / name).symlink_to(victim)
    else:
        victim.mkdir()
        (tmp_path / "a.pack.parts").symlink_to(victim)
    with pytest.raises((UsageError, RecipeError)):
        prepare(folder, tmp_path / "a.pack", Preparation(2, REAL, variants=1, holdout=1))
    assert victim.read_bytes() == b"precious" if name else not list(victim.iterdir())
