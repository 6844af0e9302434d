"""upscale/finished.py: the same command again skips what it has finished, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repsr_cli import files, version
from repsr_cli.reporting import Outcome, Reporter
from repsr_cli.upscale.batch import run_jobs
from repsr_cli.upscale.finished import Finished
from repsr_cli.upscale.jobs import plan_jobs
from repsr_cli.upscale.request import Naming, Request
from tests.sample_videos import make_video

X2 = Request.of(scale=2.0)


def image(path: Path, value: int = 120) -> Path:
    Image.fromarray(np.full((6, 8, 3), value, np.uint8)).save(path, format="PNG")
    return path


def remember(known: Finished, source: Path, target: Path, request: Request) -> None:
    """Note a job as if it had just made a target."""
    noting = known.noting(source, target, request)
    assert noting is not None
    noting(target)


@pytest.fixture
def job(tmp_path: Path) -> tuple[Path, Path, Finished]:
    """A job that was finished: its source, its target, and what is known."""
    source, target = image(tmp_path / "a.png"), image(tmp_path / "a_x2.png", 1)
    known = Finished(tmp_path / "known")
    assert not known.holds(source, target, X2)
    remember(known, source, target, X2)
    return source, target, known


def test_the_same_job_is_known(job: tuple[Path, Path, Finished]) -> None:
    source, target, known = job
    assert known.holds(source, target, X2)
    for harmless in ({"overwrite": True}, {"tile": "off"}):
        assert known.holds(source, target, X2.having(**harmless))
    plan = plan_jobs([str(source)], X2, Naming(), known)
    assert (plan.jobs, plan.failures, plan.finished) == ((), (), (target,))
    again = plan_jobs([str(source)], X2.having(overwrite=True), Naming(), known)
    assert [each.target for each in again.jobs] == [target]
    assert "exists" in str(plan_jobs([str(source)], X2, Naming()).failures[0].error)


def test_a_damaged_record_of_it_costs_nothing(job: tuple[Path, Path, Finished]) -> None:
    source, target, known = job
    (record,) = known.folder.iterdir()
    content = bytearray(record.read_bytes())
    content[len(content) // 3] ^= 4
    record.write_bytes(content)
    assert known.holds(source, target, X2)


@pytest.mark.parametrize(
    "option", [{"scale": 2.5}, {"model": "fast"}, {"crf": 20.0}, {"tta": True}, {"strip_metadata": True}]
)
def test_another_request_is_not(job: tuple[Path, Path, Finished], option: dict[str, object]) -> None:
    source, target, known = job
    assert not known.holds(source, target, X2.having(**option))
    plan = plan_jobs([str(source)], X2.having(**option), Naming(output=str(target)), known)
    assert "exists" in str(plan.failures[0].error)


def test_changed_files_are_not(job: tuple[Path, Path, Finished], monkeypatch: pytest.MonkeyPatch) -> None:
    source, target, known = job
    before = source.stat()
    data = bytearray(source.read_bytes())
    data[-20] ^= 1
    source.write_bytes(data)
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))  # same size, same time
    assert not known.holds(source, target, X2)
    remember(known, source, target, X2)
    assert known.holds(source, target, X2)
    monkeypatch.setattr(version, "__version__", "0")
    assert not known.holds(source, target, X2)
    monkeypatch.undo()
    image(target, 2)
    assert not known.holds(source, target, X2)


def test_another_file_of_the_name_is_not(job: tuple[Path, Path, Finished]) -> None:
    source, target, known = job
    copy = target.with_name("copy.png")
    copy.write_bytes(target.read_bytes())
    os.utime(copy, ns=(target.stat().st_atime_ns, target.stat().st_mtime_ns))
    copy.replace(target)
    assert not known.holds(source, target, X2)
    target.unlink()
    target.symlink_to(source)
    assert not known.holds(source, target, X2)
    target.unlink()
    assert not known.holds(source, target, X2)


def test_a_model_that_changed_is_not(job: tuple[Path, Path, Finished], tmp_path: Path) -> None:
    source, target, known = job
    model = tmp_path / "a.safetensors"
    model.write_bytes(b"1")
    asked = X2.having(model=str(model))
    remember(known, source, target, asked)
    assert known.holds(source, target, asked)
    model.write_bytes(b"2")
    assert not known.holds(source, target, asked)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b'{"job": 1}', b"[" * 5000])
def test_damaged_records_are_no_records(job: tuple[Path, Path, Finished], content: bytes) -> None:
    source, target, known = job
    (file,) = known.folder.iterdir()
    file.write_bytes(content)
    assert not known.holds(source, target, X2)
    remember(known, source, target, X2)
    assert known.holds(source, target, X2)


def test_a_folder_that_cannot_be_written(job: tuple[Path, Path, Finished], tmp_path: Path) -> None:
    source, target, _ = job
    (tmp_path / "file").write_text("")
    known = Finished(tmp_path / "file" / "known")
    remember(known, source, target, X2)
    assert not known.holds(source, target, X2)


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.mark.parametrize("kind", ["image", "video"])
def test_a_job_that_is_killed_as_its_result_gets_its_name_is_known(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "image":
        source, target = image(tmp_path / "a.png"), tmp_path / "a_x2.png"
    else:
        source, target = make_video(tmp_path / "a.mp4", range(3), size=(16, 16)), tmp_path / "a_x2.mp4"
    asked = Request.of(scale=2.0, model="fast", threads=1, engine="torch", preset="ultrafast")
    known = Finished(tmp_path / "known")
    synced = files._sync_folder

    def killed(folder: Path) -> None:
        if target.exists() and folder == tmp_path:
            raise Killed
        synced(folder)

    monkeypatch.setattr(files, "_sync_folder", killed)
    jobs = plan_jobs([str(source)], asked, Naming(), known).jobs
    with pytest.raises(Killed):
        list(run_jobs(jobs, asked, lambda job: Reporter(), known.noting))
    monkeypatch.undo()
    made = target.read_bytes()
    again = plan_jobs([str(source)], asked, Naming(), known)
    assert not again.failures
    # Of a video, the folder is removed.
    results = list(run_jobs(again.jobs, asked, lambda job: Reporter(), known.noting))
    assert all(isinstance(each, Outcome) for each in results)
    assert target.read_bytes() == made
    assert not list(tmp_path.glob(".*"))
    assert plan_jobs([str(source)], asked, Naming(), known).finished == (target,)


def test_a_source_that_changes_during_the_job_makes_no_record_of_itself(tmp_path: Path) -> None:
    source, target = image(tmp_path / "a.png"), image(tmp_path / "a_x2.png", 1)
    known = Finished(tmp_path / "known")
    noting = known.noting(source, target, X2)
    assert noting is not None
    image(source, 3)
    noting(target)
    assert not known.holds(source, target, X2)
