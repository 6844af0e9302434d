"""upscale/jobs.py: what was typed becomes jobs, and every refusal comes before any work."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repsr_cli.errors import MediaError, RepsrError, UsageError
from repsr_cli.upscale.inputs import natural_order
from repsr_cli.upscale.jobs import Plan, plan_jobs
from repsr_cli.upscale.request import Naming, Request

X4 = Request.of(scale=4)


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 8, 3), 120, np.uint8)).save(path, format="PNG")
    return path


def plan(*inputs: object, options: Request = X4, **naming: object) -> Plan:
    given = {name: str(value) if name == "output" else value for name, value in naming.items()}
    return plan_jobs([str(one) for one in inputs], options, Naming(**given))  # type: ignore[arg-type]


def targets(plan: Plan) -> list[str]:
    assert not plan.failures, plan.failures
    return [str(job.target) for job in plan.jobs]


def only_error(plan: Plan) -> RepsrError:
    assert not plan.jobs
    (failure,) = plan.failures
    return failure.error


def test_target_is_beside_the_input(tmp_path: Path) -> None:
    source = image(tmp_path / "a.png")
    assert targets(plan(source)) == [str(tmp_path / "a_x4.png")]
    assert targets(plan(source, options=Request.of(scale=1.5))) == [str(tmp_path / "a_x1.5.png")]
    assert targets(plan(source, options=Request.of(width=64))) == [str(tmp_path / "a_64w.png")]
    assert targets(plan(source, options=Request.of(width=64, height=32))) == [str(tmp_path / "a_64x32.png")]
    assert targets(plan(source, suffix="-big", format="JPG")) == [str(tmp_path / "a-big.jpg")]


def test_output_is_a_file_if_it_has_an_extension(tmp_path: Path) -> None:
    source = image(tmp_path / "a.png")
    assert targets(plan(source, output=tmp_path / "b.png")) == [str(tmp_path / "b.png")]
    assert targets(plan(source, output=tmp_path / "out")) == [str(tmp_path / "out" / "a_x4.png")]
    assert targets(plan(source, output=f"{tmp_path}/new.d/")) == [str(tmp_path / "new.d" / "a_x4.png")]
    (tmp_path / "dir.d").mkdir()
    assert targets(plan(source, output=tmp_path / "dir.d")) == [str(tmp_path / "dir.d" / "a_x4.png")]


def test_content_decides_not_the_extension(tmp_path: Path) -> None:
    source = image(tmp_path / "really_a_png.mp4")
    (job,) = plan(source).jobs
    assert (job.kind, job.target.name) == ("image", "really_a_png_x4.png")
    (tmp_path / "text.mp4").write_text("not a video")
    error = only_error(plan(tmp_path / "text.mp4"))
    assert isinstance(error, MediaError)
    assert "neither an image nor a video" in str(error)


def test_folder_in_natural_order_other_files_left_alone(tmp_path: Path) -> None:
    for name in ("10.png", "2.png", ".hidden.png"):
        image(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("hello")
    image(tmp_path / "in" / "deep" / "3.png")
    assert [job.source.name for job in plan(tmp_path / "in").jobs] == ["2.png", "10.png"]
    out = tmp_path / "out"
    assert targets(plan(tmp_path / "in", output=out, recursive=True)) == [
        str(out / "2_x4.png"),
        str(out / "10_x4.png"),
        str(out / "deep" / "3_x4.png"),
    ]


def test_results_of_an_earlier_run_are_no_inputs(tmp_path: Path) -> None:
    image(tmp_path / "in" / "a.png")
    image(tmp_path / "in" / "a_x4.png")
    image(tmp_path / "in" / "b_x4.png")
    result = plan(tmp_path / "in", skip_existing=True)
    assert [path.name for path in result.skipped] == ["a_x4.png"]
    assert [job.source.name for job in result.jobs] == ["b_x4.png"]
    assert [path.name for path in plan(tmp_path / "in", skip_existing=True, output=tmp_path / "in").skipped] == [
        "a_x4.png"
    ]
    assert len(plan(tmp_path / "in", output=tmp_path / "elsewhere").jobs) == 3
    image(tmp_path / "in" / "out" / "c.png")
    inside = plan(tmp_path / "in", output=tmp_path / "in" / "out", recursive=True)
    assert "c.png" not in [job.source.name for job in inside.jobs]


def test_patterns_lists_and_names_that_look_like_them(tmp_path: Path) -> None:
    odd = [image(tmp_path / name) for name in ("[red].png", "-x.png", "a b#.png", "写真.png")]
    assert [job.source for job in plan(*odd).jobs] == odd
    assert len(plan(tmp_path / "*.png").jobs) == 4
    listed = tmp_path / "list.txt"
    listed.write_text(f"{odd[3]}\n\n{odd[0]}\n", encoding="utf-8")
    assert [job.source for job in plan(f"@{listed}").jobs] == [odd[3], odd[0]]
    assert isinstance(only_error(plan(f"@{tmp_path / 'none.txt'}")), MediaError)


def test_named_twice_is_done_once(tmp_path: Path) -> None:
    source = image(tmp_path / "a.png")
    assert len(plan(source, source, tmp_path).jobs) == 1


def test_existing_target_is_kept(tmp_path: Path) -> None:
    source, target = image(tmp_path / "a.png"), image(tmp_path / "a_x4.png")
    error = only_error(plan(source))
    assert isinstance(error, UsageError)
    assert str(error) == f"{target}: exists. Add -y to replace it, or --skip-existing to leave it."
    assert targets(plan(source, options=Request.of(scale=4, overwrite=True))) == [str(target)]
    assert plan(source, skip_existing=True).skipped == (target,)


def test_an_input_is_never_a_target(tmp_path: Path) -> None:
    a, b = image(tmp_path / "a.png"), image(tmp_path / "a_x4.png")
    force = Request.of(scale=4, overwrite=True)
    assert "is the input itself" in str(only_error(plan(a, output=a, options=force)))
    (tmp_path / "link.png").symlink_to(a)
    assert "is the input itself" in str(only_error(plan(a, output=tmp_path / "link.png", options=force)))
    result = plan(a, b, options=force)
    assert [job.source for job in result.jobs] == [b]
    assert "is an input" in str(result.failures[0].error)


def test_two_jobs_never_share_a_target(tmp_path: Path) -> None:
    a, b = image(tmp_path / "1" / "a.png"), image(tmp_path / "2" / "a.png")
    result = plan(a, b, output=tmp_path / "out")
    assert [job.source for job in result.jobs] == [a]
    assert isinstance(result.failures[0].error, UsageError)


@pytest.mark.parametrize("scale", [0.0, -2.0, 0.5, float("nan"), float("inf")])
def test_wrong_scale(tmp_path: Path, scale: float) -> None:
    with pytest.raises(UsageError, match="not a factor"):
        plan(image(tmp_path / "a.png"), options=Request.of(scale=scale))


def test_requests_that_contradict_themselves(tmp_path: Path) -> None:
    a, b = image(tmp_path / "a.png"), image(tmp_path / "b.png")
    for options, naming in (
        (Request.of(scale=2, width=100), {}),
        (Request.of(width=0), {}),
        (Request.of(fit=(0, 100)), {}),
        (Request.of(short_side=0), {}),
        (Request.of(fit=(100, 100), width=100), {}),
        (Request.of(short_side=100, height=100), {}),
        (Request.of(scale=2, max_pixels=0), {}),
        (Request.of(scale=2, overwrite=True), {"skip_existing": True}),
        (X4, {"format": "docx"}),
        (X4, {"format": "mkv"}),
        (X4, {"suffix": "../x"}),
        (X4, {"output": image(tmp_path / "c.png")}),
    ):
        with pytest.raises(UsageError):
            plan(a, b, options=options, **naming)
    assert "no image format has the suffix '.mp4'" in str(only_error(plan(a, output=tmp_path / "a.mp4")))
    assert "is a folder" in str(only_error(plan(a, options=X4, suffix="", output=_folder(tmp_path / "o", "a.png"))))


def _folder(parent: Path, name: str) -> Path:
    (parent / name).mkdir(parents=True)
    return parent


def test_a_target_that_cannot_be_written(tmp_path: Path) -> None:
    source = image(tmp_path / "a.png")
    error = only_error(plan(source, output=source / "inside.png"))
    assert isinstance(error, MediaError)
    assert "cannot be written to" in str(error)
    if os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o500)
        assert isinstance(only_error(plan(source, output=tmp_path / "locked" / "b.png")), MediaError)


def test_one_bad_input_does_not_stop_the_others(tmp_path: Path) -> None:
    good = image(tmp_path / "a.png")
    result = plan(tmp_path / "missing.png", good)
    assert [job.source for job in result.jobs] == [good]
    assert "no such file" in str(result.failures[0].error)


def test_nothing_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to upscale"):
        plan()
    with pytest.raises(MediaError, match="Add -r"):
        plan(tmp_path)


def test_natural_order() -> None:
    assert sorted(["b10", "b9", "a", "b", "10", "9"], key=natural_order) == ["9", "10", "a", "b", "b9", "b10"]


def failed(plan: Plan) -> dict[str, str]:
    return {Path(failure.source).name: failure.error.happened for failure in plan.failures}


def test_nothing_in_a_folder_is_left_out_silently(tmp_path: Path) -> None:
    image(tmp_path / "in" / "a.png")
    for name, data in {
        "empty.jpg": b"",
        "text.png": b"hello, this is text\n" * 9,
        "sound.mp4": b"RIFF\0\0\0\0WAVE",
        "game.TGA": b"\0" * 30,
        "torn.mkv": b"\x1a\x45\xdf\xa3",
        "raw.dng": b"MM\0\x01",
        "notes.txt": b"",
        "README": b"hello",
        ".shot.png": b"",
        ".DS_Store": b"",
        f".a.png.{'0' * 16}.part.png": b"",
    }.items():
        (tmp_path / "in" / name).write_bytes(data)
    image(tmp_path / "in" / "deep" / "b.png")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "in" / "deep")
    (tmp_path / "in" / "loop.png").symlink_to("loop.png")
    (tmp_path / "in" / "circle").symlink_to("..")
    (tmp_path / "in" / "nowhere.png").symlink_to("none.png")
    os.mkfifo(tmp_path / "in" / "pipe")
    result = plan(tmp_path / "in")
    assert [job.source.name for job in result.jobs] == ["a.png"]
    happened = failed(result)
    assert "it is empty" in happened.pop("empty.jpg")
    assert "no such file" in happened.pop("nowhere.png")
    assert "levels of symbolic links" in happened.pop("loop.png")
    assert happened.pop("pipe") == "not a file"
    assert set(happened) == {"text.png", "sound.mp4", "game.TGA", "torn.mkv", "raw.dng"}
    assert all(why.startswith("neither an image nor a video") for why in happened.values())
    folder = tmp_path / "in"
    assert set(result.notes) == {
        f"left out, not images or videos: {folder / 'README'}, {folder / 'notes.txt'}",
        f"left out, hidden files: {folder / '.shot.png'}",
        f"left out, links to folders: {folder / 'circle'}, {folder / 'linked'}",
        f"left out, subfolders (-r looks into them): {folder / 'deep'}",
    }
    deep = plan(tmp_path / "in", recursive=True)
    assert [job.source.name for job in deep.jobs] == ["a.png", "b.png"]
    assert sum("links to folders" in note for note in deep.notes) == 1
    assert not any("subfolders" in note for note in deep.notes)


def test_results_and_repeats_are_counted(tmp_path: Path) -> None:
    a = image(tmp_path / "a.png")
    image(tmp_path / "a_x4.png")
    (tmp_path / "link.png").symlink_to(a)
    result = plan(a, tmp_path, skip_existing=True)
    assert result.notes == (
        f"left out, the same file as {a}: {tmp_path / 'link.png'}",
        f"left out, results of an earlier run: {tmp_path / 'a_x4.png'}",
    )
    many = [tmp_path / "many" / f"{number}.txt" for number in range(9)]
    image(tmp_path / "many" / "a.png")
    for path in many:
        path.write_text("hello")
    (note,) = plan(tmp_path / "many").notes
    assert note.endswith(f"{many[4]} and 4 more")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root reads everything")
def test_folders_that_may_not_be_read(tmp_path: Path) -> None:
    image(tmp_path / "a" / "1.png")
    image(tmp_path / "b" / "2.png")
    (tmp_path / "b").chmod(0)
    try:
        for inputs in ([tmp_path], [tmp_path / "**" / "*.png"], [tmp_path / "*" / "*.png"]):
            result = plan(*inputs, recursive=True)
            assert [job.source.name for job in result.jobs] == ["1.png"]
            assert "Permission denied" in failed(result)["b"]
        assert "Permission denied" in failed(plan(tmp_path / "b" / "2.png"))["2.png"]
        assert "Permission denied" in failed(plan(tmp_path / "b" / "*.png"))["b"]
    finally:
        (tmp_path / "b").chmod(0o755)


def test_folders_that_cannot_be_listed_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for root, to whom the system refuses nothing."""
    image(tmp_path / "a" / "1.png")
    image(tmp_path / "b" / "2.png")
    listed = os.scandir

    def scandir(path: str | int) -> object:
        # By number where pytest removes the folder.
        if not isinstance(path, int) and Path(path).name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    result = plan(tmp_path, recursive=True)
    assert [job.source.name for job in result.jobs] == ["1.png"]
    assert "Permission denied" in failed(result)["b"]


def test_lines_of_a_list_fail_one_by_one(tmp_path: Path) -> None:
    a, b = image(tmp_path / "a.png"), image(tmp_path / "b \x85\u2028.png")
    raw = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    image(raw)
    listed = tmp_path / "list.txt"
    lines = [os.fsencode(a), b"", os.fsencode(tmp_path / "none.png"), os.fsencode(b), b"z" * 300, os.fsencode(raw)]
    listed.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines))
    result = plan(f"@{listed}")
    assert [job.source for job in result.jobs] == [a, b, raw]
    assert [len(failure.source) for failure in result.failures] == [len(str(tmp_path / "none.png")), 300]
    listed.write_bytes(b"a.png\0b.png")
    assert "null characters" in str(only_error(plan(f"@{listed}")))
    assert "Is a directory" in str(only_error(plan(f"@{tmp_path}")))


def test_paths_that_the_system_refuses(tmp_path: Path) -> None:
    good = image(tmp_path / "a.png")
    (tmp_path / "loop").symlink_to("loop")
    long = "z" * 300
    bad = [long, f"{long}/a.png", tmp_path / "loop", tmp_path / "loop" / "a.png", "@" + long, good / "b.png", ""]
    result = plan(*bad, good)
    assert [job.source for job in result.jobs] == [good]
    assert len(result.failures) == len(bad)
    outputs = [f"{long}.png", f"{long}/", tmp_path / "loop" / "a.png", f"{good}/b.png"]
    for output in outputs:
        for options in (X4, Request.of(scale=4, overwrite=True)):
            found = plan(good, output=output, options=options)
            assert isinstance(only_error(found), (MediaError, UsageError))
    assert len(plan(tmp_path / ("?" * 300), good).jobs) == 1


def test_a_dangling_link_is_a_target_that_exists(tmp_path: Path) -> None:
    a = image(tmp_path / "a.png")
    (tmp_path / "a_x4.png").symlink_to("none.png")
    assert "exists" in str(only_error(plan(a)))
