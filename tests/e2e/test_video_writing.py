"""What goes wrong while a video is written ends in the right file or in an error, and never touches other files."""

from __future__ import annotations

import dataclasses
import errno
import functools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from repsr_cli import files
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import MediaError, RepsrError, UsageError
from repsr_cli.model.plain import identity_network
from repsr_cli.reporting import Outcome, Progress, Reporter
from repsr_cli.upscale import job_record, sinks
from repsr_cli.upscale import plan_video as planning
from repsr_cli.upscale.jobs import plan_jobs
from repsr_cli.upscale.request import Naming, Request
from repsr_cli.upscale.sinks import sink_for
from repsr_cli.video.segments import Store, is_complete, job_folder
from repsr_cli.video.timeline import cut
from tests.e2e.test_video_reading import with_clean_aperture
from tests.sample_videos import damage, frame_times, make_video
from tests.upscaling import upscale_video, weight

Act = Callable[[], object]


@functools.cache
def identity() -> Upscaler:
    return Upscaler(identity_network(2), device="cpu", threads=1)


def run(source: Path, target: Path, say: list[str] | None = None, **options: object) -> Outcome:
    lines: list[str] = [] if say is None else say
    return upscale_video(source, target, identity(), Request.of(**options), Reporter(say=lines.append))


def run_until(frame: int, act: Act, source: Path, target: Path, **options: object) -> Outcome:
    """Do something once so many frames are done."""

    def progress(step: Progress) -> None:
        if step.done == frame:
            act()

    return upscale_video(source, target, identity(), Request.of(**options), Reporter(progress=progress))


def stopped(frame: int, source: Path, target: Path, **options: object) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_until(frame, stop, source, target, **options)


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "cut", functools.partial(cut, frames=4))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_video(tmp_path / "in.mp4", range(24), gop=6)


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_a_segment_that_changes_during_the_run_is_not_joined(tmp_path: Path, source: Path) -> None:
    target = tmp_path / "out.mp4"

    def flip() -> None:
        first = job_folder(target) / "000000.segment"
        data = bytearray(first.read_bytes())
        data[900] ^= 1
        first.write_bytes(data)

    with pytest.raises(MediaError, match=r"000000\.segment: this finished segment changed on disk"):
        run_until(20, flip, source, target)
    assert not target.exists()
    outcome = run(source, target)
    assert 0 < outcome.facts["resumed_frames"] < 24
    run(source, tmp_path / "whole.mp4")
    assert target.read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_a_segment_of_another_video_is_not_joined(tmp_path: Path, source: Path) -> None:
    other = make_video(tmp_path / "other.mp4", range(24), gop=6, options={"crf": "40"})
    for video, target in ((source, "a.mp4"), (other, "b.mp4")):
        stopped(16, video, tmp_path / target)
    name = "000000.segment"
    shutil.copy(job_folder(tmp_path / "b.mp4") / name, job_folder(tmp_path / "a.mp4") / name)
    run(source, tmp_path / "a.mp4")
    run(source, tmp_path / "whole.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_a_job_is_resumed_by_the_same_versions_and_source_only(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.mp4"
    stopped(16, source, target)
    for name, module, read in (
        ("repsr", job_record, "__version__"),
        ("av", av, "__version__"),
        ("torch", job_record, "version"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(module, read, (lambda _package: "0.0.0") if name == "torch" else "0.0.0")
            with pytest.raises(UsageError, match=rf"begun with another version of {name} .*0\.0\.0.*--no-resume"):
                run(source, target)
    versions = dict(av.library_versions, libavcodec=(1, 2, 3))
    with monkeypatch.context() as patched:
        patched.setattr(av, "library_versions", versions)
        with pytest.raises(UsageError, match="begun with another version of libavcodec"):
            run(source, target)
    assert run(source, target).facts["resumed_frames"] > 0


def test_a_dry_run_sees_that_another_job_was_begun(tmp_path: Path, source: Path) -> None:
    target = tmp_path / "out.mp4"
    stopped(16, source, target)

    def refusal(**options: object) -> str:
        plan = planning.plan_video(source, target, Request.of(**options), weight(2))
        try:
            sink = sink_for(plan)
            sink.check()
            sink.check_begun()
        except UsageError as error:
            return str(error)
        return ""

    before = {path: path.read_bytes() for path in job_folder(target).iterdir()}
    for options in ({"crf": 30.0}, {"pix_fmt": "yuv444p"}, {"deinterlace": "on"}, {"preset": "ultrafast"}):
        with pytest.raises(UsageError, match="begun with another") as error:
            run(source, target, **options)
        assert refusal(**options) == str(error.value)
        assert not refusal(**options, resume=False)
    assert not refusal()
    assert {path: path.read_bytes() for path in job_folder(target).iterdir()} == before
    assert run(source, target).facts["resumed_frames"] > 0


def test_segments_that_are_there_are_not_counted_again(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.mkv"
    stopped(16, source, target, codec="ffv1")
    there = sum(path.stat().st_size for path in job_folder(target).glob("*.segment"))
    plan = planning.plan_video(source, target, Request.of(codec="ffv1"), weight(2))
    assert 0 < there < plan.bytes_needed
    monkeypatch.setattr(sinks, "free_space", lambda _folder: plan.bytes_needed - there - 1)
    with pytest.raises(MediaError, match="are free"):
        run(source, target, codec="ffv1")
    monkeypatch.setattr(sinks, "free_space", lambda _folder: plan.bytes_needed - there)
    assert run(source, target, codec="ffv1").facts["resumed_frames"] > 0


def test_a_byte_in_the_middle_of_the_source_makes_another_job(tmp_path: Path) -> None:
    from tests.sample_videos import image

    frames = [image(n, 240, 320, "yuv420p") for n in range(24)]
    source = make_video(tmp_path / "in.mkv", range(24), size=(240, 320), codec="rawvideo", frames=frames, audio=0)
    assert source.stat().st_size > 2 * 2**20 + 200_000
    target = tmp_path / "out.mkv"
    stopped(16, source, target)
    data = bytearray(source.read_bytes())
    data[len(data) // 2] ^= 255
    source.write_bytes(data)
    with pytest.raises(UsageError, match="begun with another source"):
        run(source, target)


def test_frames_that_an_earlier_run_could_not_decode_are_named(tmp_path: Path) -> None:
    whole = make_video(tmp_path / "in.mp4", range(24), options={"bf": "0", "slices": "1"}, gop=6)
    source, target = damage(whole, tmp_path / "broken.mp4", 6), tmp_path / "out.mp4"
    at_once = run(source, tmp_path / "once.mp4", on_error="keep")
    assert 0.24 in at_once.facts["repeated_frames"]
    stopped(20, source, target, on_error="keep")
    outcome = run(source, target, on_error="keep")
    assert outcome.facts["resumed_frames"] > 6
    assert outcome.facts["repeated_frames"] == at_once.facts["repeated_frames"]
    assert any("repeat the one before, at 0.24" in note for note in outcome.notes)


def test_frames_that_an_earlier_run_could_not_decode_are_kept_only_if_asked_for(tmp_path: Path) -> None:
    whole = make_video(tmp_path / "in.mp4", range(24), options={"bf": "0", "slices": "1"}, gop=6)
    source, target = damage(whole, tmp_path / "broken.mp4", 6), tmp_path / "out.mp4"
    stopped(20, source, target, on_error="keep")
    with pytest.raises(MediaError, match=r"the frame at 0\.\d+ s is (damaged|missing)"):
        run(source, target)
    assert not target.exists()
    outcome = run(source, target, on_error="keep")
    assert outcome.facts["resumed_frames"] > 0
    assert 0.24 in outcome.facts["repeated_frames"]


def test_an_index_in_the_middle_of_the_source_makes_another_job(tmp_path: Path) -> None:
    noise = np.random.default_rng(1)
    frames = [
        tuple(noise.integers(16, 235, size, np.uint8) for size in ((240, 320), *[(120, 160)] * 2)) for _ in range(24)
    ]
    source = make_video(tmp_path / "in.mp4", range(24), size=(240, 320), options={"qp": "1"}, frames=frames, audio=0)
    with_clean_aperture(source, 4, 0, 0, 0, (240, 320))
    free = 1_200_000
    whole = source.read_bytes() + free.to_bytes(4, "big") + b"free" + bytes(free - 8)
    source.write_bytes(whole)
    target = tmp_path / "out.mkv"
    stopped(16, source, target)
    at = whole.index(b"moov")
    assert 2**20 < at < len(whole) - 2**20
    crop, level = bytearray(whole), bytearray(whole)
    down = whole.index(b"clap", at) + 28  # by how many halves of a row: cut off at the bottom instead of the top
    assert whole[down : down + 4] == (4).to_bytes(4, "big")
    crop[down : down + 4] = (-4).to_bytes(4, "big", signed=True)
    level[whole.index(b"avcC", at) + 7] ^= 1  # which the decoder reads
    for changed, data in (("crop", crop), ("source", level)):
        source.write_bytes(data)
        with pytest.raises(UsageError, match=f"begun with another {changed}"):
            run(source, target)


@pytest.mark.parametrize("suffix", [".mp4", ".y4m", "%03d.png"])
def test_the_targets_folder_may_vanish(tmp_path: Path, source: Path, suffix: str) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    target = folder / f"out{suffix}"
    with pytest.raises(RepsrError, match="does not exist"):
        run_until(10, lambda: shutil.rmtree(folder), source, target)
    assert not folder.exists()


def test_a_folder_takes_the_targets_name(tmp_path: Path, source: Path) -> None:
    target = tmp_path / "out.mp4"
    with pytest.raises(UsageError, match=r"out\.mp4: is a folder"):
        run_until(10, target.mkdir, source, target)
    assert hidden(tmp_path) == [".out.mp4.repsr"]
    target.rmdir()
    assert run(source, target).facts["resumed_frames"] == 24
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS])
@pytest.mark.parametrize("suffix", [".mp4", ".y4m"])
def test_errors_of_the_final_rename_keep_the_work(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, code: int, suffix: str
) -> None:
    target = tmp_path / f"out{suffix}"
    honest = files._move

    def fails(temporary: Path, to: Path, overwrite: bool) -> None:
        if to == target:
            raise OSError(code, os.strerror(code))
        honest(temporary, to, overwrite)

    with monkeypatch.context() as patched:
        patched.setattr(files, "_move", fails)
        with pytest.raises(MediaError, match=f"cannot be written: {os.strerror(code)}"):
            run(source, target)
    assert not target.exists()
    run(source, target)
    assert hidden(tmp_path) == []


def test_a_target_is_complete_whatever_tidying_up_runs_into(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, lines = tmp_path / "out.mp4", list[str]()
    with monkeypatch.context() as patched:
        patched.setattr(Store, "remove", lambda _self: "Input/output error")
        outcome = run(source, target, lines)
    assert any("out.mp4 is complete" in line and "could not be removed: Input/output error" in line for line in lines)
    assert outcome.target == target
    assert len(frame_times(target)) == 24


class Killed(BaseException):
    """Stands for a process that ends at once."""


def killed_after_rename(source: Path, target: Path, removed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop when the target has its name and so many files of its folder are removed."""
    from repsr_cli.video.lock import FolderLock

    honest, count = FolderLock._unlink, [0]

    def counted(lock: FolderLock, name: str) -> None:
        if target.exists():
            count[0] += 1
            if count[0] > removed:
                raise Killed
        honest(lock, name)

    with monkeypatch.context() as patched:
        patched.setattr(FolderLock, "_unlink", counted)
        with pytest.raises(Killed):
            run(source, target)
    assert job_folder(target).exists()


@pytest.mark.parametrize("removed", [0, 1, 3, 5, 6, 7])
def test_the_same_command_tidies_up_after_a_kill(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, removed: int
) -> None:
    target = tmp_path / "out.mp4"
    killed_after_rename(source, target, removed, monkeypatch)
    before = target.read_bytes()
    if removed == 0:  # damage at one place
        note = job_folder(target) / "complete.json"
        note.write_bytes(b"x" + note.read_bytes()[1:])
    assert is_complete(target)
    plan = plan_jobs([str(source)], Request.of(scale=2), Naming(output=str(target)))
    assert [job.target for job in plan.jobs] == [target]
    assert not plan.failures
    outcome = run(source, target)
    assert outcome.facts["frames"] == 24
    assert target.read_bytes() == before
    assert hidden(tmp_path) == []
    with pytest.raises(UsageError, match="exists"):
        run(source, target)


@pytest.mark.parametrize("naming", [Naming(), Naming(skip_existing=True)], ids=["refused", "skipped"])
def test_the_empty_folder_of_a_job_killed_at_its_very_end_goes(tmp_path: Path, source: Path, naming: Naming) -> None:
    target = tmp_path / "out.mp4"
    run(source, target)
    job_folder(target).mkdir()
    plan_jobs([str(source)], Request.of(scale=2), dataclasses.replace(naming, output=str(target)))
    assert hidden(tmp_path) == []
    job_folder(target).mkdir()
    with pytest.raises(UsageError, match="exists"):
        run(source, target)
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("suffix", [".mp4", ".y4m"])
def test_files_of_others_in_the_folder_of_a_job_stay(tmp_path: Path, source: Path, suffix: str) -> None:
    target = tmp_path / f"out{suffix}"
    folder = job_folder(target)
    folder.mkdir()
    for name in ("thesis.txt", "x.segment", ".DS_Store", "lock.txt", "job.json.bak"):
        (folder / name).write_text("precious")
    lines: list[str] = []
    run(source, target, lines)
    why = "it holds .DS_Store, which repsr did not put there"
    assert f"{target.name} is complete; {folder} could not be removed: {why}" in lines
    assert {path.name for path in folder.iterdir()} == {
        "thesis.txt", "x.segment", ".DS_Store", "lock.txt", "job.json.bak",
    }  # fmt: skip
    assert {path.read_text() for path in folder.iterdir()} == {"precious"}


def test_a_complete_target_is_not_another_jobs(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out.mp4"
    killed_after_rename(source, target, 0, monkeypatch)
    with pytest.raises(UsageError, match="begun with another encoding"):
        run(source, target, crf=30.0)
    before = target.read_bytes()
    with pytest.raises(UsageError, match="exists"):
        run(source, target, resume=False)
    assert target.read_bytes() == before
    target.write_bytes(b"precious")
    assert not is_complete(target)
    with pytest.raises(UsageError, match="exists"):
        run(source, target)
    assert target.read_bytes() == b"precious"


@pytest.mark.parametrize("kind", ["file", "link", "dangling link", "link to itself"])
@pytest.mark.parametrize("suffix", [".mp4", ".y4m"])
def test_what_takes_the_targets_name_is_kept(tmp_path: Path, source: Path, kind: str, suffix: str) -> None:
    target, victim = tmp_path / f"out{suffix}", tmp_path / "victim"
    victim.write_text("precious")

    def appear() -> None:
        if kind == "file":
            target.write_text("precious")
        else:
            target.symlink_to({"link": victim, "dangling link": tmp_path / "new"}.get(kind, target))

    for _ in range(2):  # the second time it is there from the beginning
        with pytest.raises(UsageError, match=r"appeared while|exists"):
            run_until(10, appear, source, target)
        assert target.is_symlink() == (kind != "file")
        assert victim.read_text() == "precious"
        assert not (tmp_path / "new").exists()


def test_the_joined_file_is_on_disk_before_its_segments_go(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from repsr_cli.video.lock import FolderLock

    target, steps = tmp_path / "out.mp4", list[Any]()
    fsync, unlink = os.fsync, FolderLock._unlink

    def synced(descriptor: int) -> None:
        steps.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def unlinked(lock: FolderLock, name: str) -> None:
        if name.endswith(".segment"):
            steps.append(name)
        unlink(lock, name)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(FolderLock, "_unlink", unlinked)
    run(source, target)
    first = next(place for place, step in enumerate(steps) if isinstance(step, str))
    assert target.stat().st_ino in steps[:first]
    assert steps.index(tmp_path.stat().st_ino) < first
