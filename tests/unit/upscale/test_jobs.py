"""upscale/jobs.py: what was typed becomes jobs, and every refusal comes before any work."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repsr_cli.errors import MediaError, RepsrError, UsageError
from repsr_cli.upscale.jobs import Plan, natural_order, plan_jobs
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
    with pytest.raises(MediaError, match="no images or videos"):
        plan()
    with pytest.raises(MediaError, match="Add -r"):
        plan(tmp_path)


def test_natural_order() -> None:
    assert sorted(["b10", "b9", "a", "b", "10", "9"], key=natural_order) == ["9", "10", "a", "b", "b9", "b10"]
