"""Animations in image formats become videos."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repsr_cli.errors import UsageError
from repsr_cli.reporting import Outcome, Reporter
from repsr_cli.upscale.batch import run_jobs
from repsr_cli.upscale.inputs import Failure
from repsr_cli.upscale.jobs import plan_jobs
from repsr_cli.upscale.request import Naming, Request
from tests.sample_videos import decoded, frame_times

DURATIONS = [100, 50, 200, 100, 40, 120]


def animation(path: Path, transparent: bool = False, frames: int = 6, **options: object) -> Path:
    images = []
    for number in range(frames):
        pixels = np.zeros((24, 32, 4), np.uint8)
        pixels[..., 3] = 255
        pixels[..., 0] = number * 40
        pixels[4:12, number * 4 : number * 4 + 8, 1] = 255
        if transparent:
            pixels[0, 0] = 0
        images.append(Image.fromarray(pixels).convert("RGBA" if transparent else "RGB"))
    if path.suffix == ".webp":
        options["lossless"] = True
    images[0].save(
        path,
        save_all=True,
        append_images=images[1:],
        duration=DURATIONS[:frames],
        loop=0,
        **options,  # type: ignore[arg-type]
    )
    return path


def upscale(source: Path, naming: Naming, **options: object) -> Outcome:
    request = Request.of(scale=2, model="fast", **options)
    plan = plan_jobs([str(source)], request, naming)
    results = [*plan.failures, *run_jobs(plan.jobs, request, lambda _job: Reporter())]
    assert len(results) == 1
    if isinstance(results[0], Failure):
        raise results[0].error
    return results[0]


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".apng"])
@pytest.mark.parametrize("target", ["out.mp4", "out.mkv", "out.webm", "out.y4m", "%02d.png"])
def test_animations_become_videos(tmp_path: Path, suffix: str, target: str) -> None:
    source = animation(tmp_path / f"in{suffix}")
    lossy = target in ("out.y4m", "%02d.png")
    outcome = upscale(source, Naming(output=str(tmp_path / target)), allow_loss=lossy)
    assert outcome.source == source
    assert outcome.facts["frames"] == 6
    if not lossy:
        begin = [sum(DURATIONS[:number], 0) for number in range(6)]
        assert [time for time, _ in frame_times(tmp_path / target)] == [Fraction(time, 1000) for time in begin]
        assert any("repeats" in note for note in outcome.notes)
        means = [float(np.mean(planes[0])) for planes in decoded(tmp_path / target)]
        assert means == sorted(means)


def test_messages_name_the_animation(tmp_path: Path) -> None:
    source, lines = animation(tmp_path / "in.gif"), list[str]()
    request = Request.of(scale=2, model="fast")
    plan = plan_jobs([str(source)], request, Naming(output=str(tmp_path / "out.mkv")))
    (done,) = run_jobs(plan.jobs, request, lambda _job: Reporter(say=lines.append))
    assert isinstance(done, Outcome)
    assert any(line.startswith("in.gif: ") for line in lines)
    assert not any("apng" in line for line in lines)


def test_a_format_applies_to_animations(tmp_path: Path) -> None:
    outcome = upscale(animation(tmp_path / "in.gif"), Naming(format="mp4"))
    assert outcome.target == tmp_path / "in_x2.mp4"
    assert upscale(animation(tmp_path / "b.gif"), Naming()).target.suffix == ".gif"


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_transparency_of_animations_is_a_loss_to_agree_to(tmp_path: Path, suffix: str) -> None:
    source = animation(tmp_path / f"in{suffix}", transparent=True)
    with pytest.raises(UsageError, match="would lack transparency"):
        upscale(source, Naming(output=str(tmp_path / "out.mp4")))
    assert upscale(source, Naming(output=str(tmp_path / "out.mp4")), allow_loss=True).facts["frames"] == 6


def test_the_still_of_an_animated_png_is_not_part_of_it(tmp_path: Path) -> None:
    source = animation(tmp_path / "in.png", default_image=True)
    assert upscale(source, Naming(output=str(tmp_path / "out.mp4"))).facts["frames"] == 5


def test_metadata_that_no_video_holds_is_named(tmp_path: Path) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    source = animation(tmp_path / "in.webp", icc_profile=profile)
    with pytest.raises(UsageError, match="would lack its ICC profile, which no video holds"):
        upscale(source, Naming(output=str(tmp_path / "out.mp4")))


def test_a_still_does_not_become_a_video(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "in.gif")
    with pytest.raises(UsageError):
        upscale(tmp_path / "in.gif", Naming(output=str(tmp_path / "out.mp4")))
