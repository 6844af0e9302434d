"""Test what watching remembers: files that settle, and work that a process did not live to finish."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from repsr_cli.cli import app
from repsr_cli.errors import MediaError
from repsr_cli.model.checkpoint import save_plain
from repsr_cli.model.plain import identity_network
from repsr_cli.reporting import Outcome, Progress, Reporter
from repsr_cli.upscale import batch, watch
from repsr_cli.upscale.inputs import Failure, Inputs
from repsr_cli.upscale.jobs import Job
from repsr_cli.upscale.models import ModelCache
from repsr_cli.upscale.request import Naming, Request
from repsr_cli.video.timeline import read_video
from tests.sample_videos import make_video


def names(looks: watch._Looks, now: float) -> list[str]:
    return [path.name for path, _ in looks.settled(now, Inputs())]


def test_a_file_settles_when_it_has_not_changed_for_that_long(tmp_path: Path) -> None:
    looks = watch._Looks(tmp_path, Naming(output="elsewhere"), settle=3)
    file = tmp_path / "a.png"
    file.write_bytes(b"1")
    assert names(looks, 0) == []
    assert looks.waiting
    assert names(looks, 2) == []
    file.write_bytes(b"12")
    assert names(looks, 3) == []
    assert names(looks, 5.9) == []
    assert names(looks, 6) == ["a.png"]
    assert not looks.waiting
    assert names(looks, 100) == []
    os.utime(file, ns=(1, 1))
    assert names(looks, 101) == []
    assert names(looks, 104) == ["a.png"]


def test_hidden_and_unfinished_files_wait_and_subfolders_are_named_once(tmp_path: Path) -> None:
    for name in (".a.png", "b.mp4.part", "c.mkv.crdownload", "d.png"):
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "e.png").write_bytes(b"1")
    looks = watch._Looks(tmp_path, Naming(output="elsewhere"), settle=1)
    inside = Inputs()
    looks.settled(0, inside)
    assert inside.left_out == {"subfolders (-r looks into them)": [tmp_path / "deep"]}
    assert names(looks, 1) == ["d.png"]
    inside = Inputs()
    looks.settled(2, inside)
    assert not inside.left_out
    deep = watch._Looks(tmp_path, Naming(output="elsewhere", recursive=True), settle=1)
    names(deep, 0)
    assert names(deep, 1) == ["d.png", "e.png"]


def test_deaths_are_counted_until_the_file_changes_or_the_work_ends(tmp_path: Path) -> None:
    job = Job("image", tmp_path / "a.png", tmp_path / "a_x2.png")
    record = tmp_path / "record"
    for deaths in range(3):
        begun = watch._Begun(record)
        assert begun.deaths(job.source, (1, 2)) == deaths
        begun.begin(job, (1, 2))
    assert watch._Begun(record).deaths(job.source, (1, 3)) == 0
    begun = watch._Begun(record)
    begun.end([job.source])
    assert watch._Begun(record).deaths(job.source, (1, 2)) == 0


def test_what_a_killed_process_left_of_a_target_is_removed_and_nothing_else(tmp_path: Path) -> None:
    job = Job("image", tmp_path / "a.png", tmp_path / "a_x2.png")
    watch._Begun(tmp_path / "record").begin(job, (1, 2))
    mine, other = tmp_path / f".a_x2.png.{'0' * 16}.part.png", tmp_path / f".b_x2.png.{'0' * 16}.part.png"
    for path in (mine, other):
        path.write_bytes(b"half")
    watch._Begun(tmp_path / "record")
    assert not mine.exists()
    assert other.exists()


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", '{"a": 1}', '{"a": [1, 2, 3]}', '{"a": [1, 2, "x", "t"]}', '{"a": [1, "x", 0, "t"]}', "\ud800"],
)
def test_a_damaged_record_is_no_record(tmp_path: Path, content: str) -> None:
    (tmp_path / "record").write_text(content, errors="surrogatepass")
    assert watch._Begun(tmp_path / "record").deaths(tmp_path, (1, 2)) == 0
    job = Job("image", Path("b"), tmp_path / "b_x2.png")
    begun = watch._Begun(tmp_path / "record")
    begun.begin(job, (1, 2))
    assert begun.deaths(job.source, (1, 2)) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["in"], 2, "watch: has no folder for the results"),
        (["absent", "-o", "out"], 3, "absent: no such folder"),
        (["in", "-o", "in"], 2, "in: holds the folder to watch"),
        (["in", "-o", "."], 2, ".: holds the folder to watch"),
        (["in", "-o", "out", "--settle", "0"], 2, "--settle 0: not a positive"),
        (["in", "-o", "out", "-n", "absent"], 4, "absent"),
        (["in", "-o", "out", "-y"], 2, "No such option"),
    ],
)
def test_what_makes_no_sense_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    if code == 4:
        pytest.importorskip("watchfiles")
    result = CliRunner().invoke(app, ["watch", *arguments])
    assert result.exit_code == code
    assert message in result.output


def test_without_watchfiles_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    result = CliRunner().invoke(app, ["watch", str(tmp_path), "-o", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "pip install 'repsr[watch]'" in result.output
    assert not (tmp_path / "out").exists()


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Adds files with what they looked like to a queue, and returns which of them are upscaled next."""

    def run_jobs(jobs: list[Job], _request: Request, begin: Callable[[Job], Reporter], **_: object) -> Iterator[str]:
        for job in jobs:
            begin(job)
            yield job.source.name

    monkeypatch.setattr(batch, "run_jobs", run_jobs)
    (tmp_path / "out").mkdir()
    waiting = watch._Queue(
        tmp_path,
        Request.of(scale=2.0),
        Naming(output=str(tmp_path / "out"), skip_existing=True),
        ModelCache(),
        lambda _: Reporter(),
        watch._Begun(tmp_path / "record"),
    )

    def upscaled(*added: tuple[Path, watch.Stamp]) -> list[str]:
        assert not list(waiting.add(added, print))
        return [str(result) for result in waiting.upscale_next()]

    return upscaled


def stamped(path: Path) -> tuple[Path, watch.Stamp]:
    stamp = watch._stamp(path)
    assert stamp is not None
    return path, stamp


def test_what_lands_meanwhile_does_not_wait_for_all_that_waits(tmp_path: Path, queue: Callable[..., list[str]]) -> None:
    videos = [tmp_path / f"{number}.mp4" for number in range(3)]
    for video in videos:
        make_video(video, [0, 1], Fraction(1, 25))
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    assert queue(*map(stamped, videos)) == ["0.mp4"]
    assert queue(stamped(tmp_path / "a.png"), stamped(tmp_path / "b.png")) == ["a.png", "b.png"]
    assert queue() == ["1.mp4"]
    assert queue(stamped(tmp_path / "c.png")) == ["c.png"]
    assert queue() == ["2.mp4"]
    assert queue() == []


def test_what_changes_while_it_waits_is_upscaled_once_it_has_settled_and_what_has_gone_is_named(
    tmp_path: Path, queue: Callable[..., list[str]]
) -> None:
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    before = [stamped(tmp_path / name) for name in ("a.png", "b.png", "c.png")]
    Image.new("RGB", (16, 8)).save(tmp_path / "a.png")
    make_video(tmp_path / "d.mp4", [0, 1], Fraction(1, 25))
    gone = stamped(tmp_path / "d.mp4")
    assert queue(*before, gone) == ["b.png", "c.png"]
    (tmp_path / "d.mp4").unlink()
    assert queue(stamped(tmp_path / "a.png")) == ["a.png"]
    assert queue() == ["d.mp4"]  # and fails there, as any file that is not there
    assert queue() == []


def test_a_result_of_a_file_that_changes_meanwhile_is_not_kept(tmp_path: Path) -> None:
    model, output = tmp_path / "model.safetensors", tmp_path / "out"
    save_plain(model, identity_network(2), {})
    output.mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    make_video(tmp_path / "b.mkv", [0, 40], Fraction(1, 1000))
    replaced: list[str] = []

    def replace_once(job: Job) -> Reporter:
        def progress(_: Progress) -> None:
            if job.source.name not in replaced:
                replaced.append(job.source.name)
                if job.kind == "image":
                    Image.new("RGB", (16, 8)).save(job.source)
                else:
                    make_video(job.source, [0, 40, 80], Fraction(1, 1000))

        return Reporter(progress=progress)

    waiting = watch._Queue(
        tmp_path,
        Request.of(scale=2.0, model=str(model), threads=1),
        Naming(output=str(output), skip_existing=True),
        ModelCache(),
        replace_once,
        watch._Begun(tmp_path / "record"),
    )
    for name, result in (("a.png", "a_x2.png"), ("b.mkv", "b_x2.mkv")):
        assert not list(waiting.add([stamped(tmp_path / name)], print))
        (failed,) = waiting.upscale_next()
        assert isinstance(failed, Failure)
        assert "changed while it was being upscaled" in str(failed.error)
        assert not (output / result).exists()
        assert not list(waiting.add([stamped(tmp_path / name)], print))
        (done,) = waiting.upscale_next()
        assert isinstance(done, Outcome), done
    with Image.open(output / "a_x2.png") as large:
        assert large.size == (32, 16)
    assert len(read_video(output / "b_x2.mkv")[1].pts) == 3


def test_stopped_after_the_last_job_nothing_is_left_to_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def group(*_: object) -> Iterator[str]:
        yield "done"
        raise KeyboardInterrupt

    monkeypatch.setattr(batch, "_run_group", group)
    monkeypatch.setattr(
        batch, "_planned", lambda job, _request: batch._Planned(job, Failure("a", MediaError("a", "b")))
    )
    results = batch.run_jobs(
        [Job("image", tmp_path / "a", tmp_path / "b")], Request.of(scale=2.0), lambda _: Reporter()
    )
    assert str(next(results)) == "done"
    with pytest.raises(KeyboardInterrupt):
        next(results)
