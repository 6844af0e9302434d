"""Test videos from file to file: times, streams, tags and samples arrive, or an error explains why not."""

from __future__ import annotations

import functools
import io
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from repsr_cli.engine import planes as engine_planes
from repsr_cli.engine.planes import PlaneUpscaler
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import MediaError, RepsrError, UsageError
from repsr_cli.model.plain import identity_network
from repsr_cli.reporting import Outcome, Progress, Reporter
from repsr_cli.upscale import estimate as estimating
from repsr_cli.upscale import plan_video as planning
from repsr_cli.upscale import sinks as upscaling
from repsr_cli.upscale.plan_video import plan_video
from repsr_cli.upscale.request import Request
from repsr_cli.video.encode import EncodedPacket
from repsr_cli.video.mux import write_images
from repsr_cli.video.probe import probe
from repsr_cli.video.timeline import cut
from tests.conftest import present
from tests.sample_videos import damage, decoded, frame_times, image, make_video, other_packets, video_packets
from tests.upscaling import upscale_video, weight

VFR = (0, 3, 4, 9, 10, 11, 20, 22, 23, 24, 31, 40, 41, 42, 50, 51, 60, 61, 62, 75)


@functools.cache
def identity(scale: int) -> Upscaler:
    return Upscaler(identity_network(scale), device="cpu", threads=1)


def run(source: Path, target: Path, scale: int = 2, **options: Any) -> Outcome:
    wanted = Request.of(**options)
    return upscale_video(source, target, identity(scale), wanted, Reporter())


@pytest.fixture
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut every few frames, so that small videos have many segments."""
    monkeypatch.setattr(planning, "cut", functools.partial(cut, frames=4))


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.usefixtures("short_segments")
@pytest.mark.parametrize(
    ("suffix", "time_base", "pts"),
    [
        (".mp4", Fraction(1, 25), tuple(range(20))),
        (".mp4", Fraction(1, 12800), tuple(9000 + 512 * n for n in range(20))),
        (".mp4", Fraction(1, 90000), tuple(1001 * t for t in VFR)),
        (".mov", Fraction(1001, 30000), VFR),
        (".mkv", Fraction(1, 1000), tuple(500 + 33 * t for t in VFR)),
    ],
)
def test_times_arrive(tmp_path: Path, suffix: str, time_base: Fraction, pts: tuple[int, ...]) -> None:
    source = make_video(tmp_path / f"in{suffix}", pts, time_base, options={"bf": "3"})
    outcome = run(source, tmp_path / f"out{suffix}")
    before, after = frame_times(source), frame_times(tmp_path / f"out{suffix}")
    assert [time for time, _ in after] == [time for time, _ in before]
    assert len(after) == 20 == outcome.facts["frames"]
    assert outcome.facts["segments"] > 2
    assert other_packets(source) == other_packets(tmp_path / f"out{suffix}")
    assert hidden(tmp_path) == []


def test_durations_arrive(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mkv", VFR, Fraction(1, 1000), options={"bf": "0"})
    run(source, tmp_path / "out.mkv")
    assert frame_times(tmp_path / "out.mkv") == frame_times(source)


@pytest.mark.usefixtures("short_segments")
def test_everything_else_arrives(tmp_path: Path) -> None:
    cover = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(cover, "png")
    source = make_video(
        tmp_path / "in.mkv",
        audio=3,
        subtitles=["subrip", "subrip"],
        attachments={"a.ttf": b"not really a font" * 9, "b.ttf": b"nor this"},
        cover=cover.getvalue(),
        chapters=True,
        metadata={"TITLE": "A title", "MY_OWN": "tag"},
        rotation=90,
        sar=Fraction(4, 3),
    )
    run(source, tmp_path / "out.mkv")
    with av.open(str(source)) as before, av.open(str(tmp_path / "out.mkv")) as after:
        assert [s.type for s in before.streams] == [s.type for s in after.streams]
        languages = [[s.language for s in container.streams] for container in (before, after)]
        assert languages[0] == languages[1]
        assert [int(s.disposition) for s in before.streams] == [int(s.disposition) for s in after.streams]
        attached = [[(s.name, s.mimetype, s.data) for s in c.streams.attachments] for c in (before, after)]
        assert attached[0] == attached[1]
        assert len(attached[0]) == 2
        assert before.chapters() == after.chapters()
        assert len(after.chapters()) == 2
        titles = [{k: v for k, v in c.metadata.items() if k.upper() != "ENCODER"} for c in (before, after)]
        assert titles[0] == titles[1]
        assert titles[0]["MY_OWN"] == "tag"
    there = other_packets(source)
    assert len(there) == 6  # three of sound, two of text, one cover
    assert there == other_packets(tmp_path / "out.mkv")
    one, two = probe(source), probe(tmp_path / "out.mkv")
    assert (one.rotation, one.sar) == (two.rotation, two.sar) == (90, Fraction(4, 3))
    assert two.display_size == (one.display_size[0] * 2, one.display_size[1] * 2)


FORMATS = [
    ("yuv420p", (1, 1, 1, 1)),
    ("yuv420p", (6, 2, 6, 6)),
    ("yuv422p", (5, 1, 5, 6)),
    ("yuv444p", (1, 2, 1, 1)),
    ("yuv420p10le", (9, 1, 9, 16)),
    ("yuv422p10le", (1, 1, 1, 1)),
    ("yuv444p10le", (9, 1, 9, 18)),
    ("gray", (1, 1, 1, 1)),
]


@pytest.mark.parametrize(("pix_fmt", "tags"), FORMATS)
def test_identity_network_changes_no_code_and_no_tag(
    tmp_path: Path, pix_fmt: str, tags: tuple[int, int, int, int]
) -> None:
    source = make_video(tmp_path / "in.mkv", range(3), codec="ffv1", pix_fmt=pix_fmt, tags=tags, audio=0)
    run(source, tmp_path / "out.mkv", scale=1, codec="ffv1")
    for before, after in zip(decoded(source), decoded(tmp_path / "out.mkv"), strict=True):
        for one, two in zip(before, after, strict=True):
            assert one.dtype == two.dtype
            assert int(np.abs(one.astype(int) - two.astype(int)).max()) <= 1
    old, new = probe(source), probe(tmp_path / "out.mkv")
    assert (old.pix_fmt, old.tags) == (new.pix_fmt, new.tags)
    assert (new.found.matrix, new.found.range, new.found.primaries, new.found.transfer) == tags


def test_missing_tags_are_written_as_resolved_by_the_size_of_the_source(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4", range(4), tags=None, audio=0, size=(36, 64))
    outcome = run(source, tmp_path / "out.mp4")
    found = probe(tmp_path / "out.mp4").found
    assert (found.matrix, found.range, found.primaries, found.transfer) == (5, 1, 5, 6)
    assert any("no colour matrix" in note for note in outcome.notes)
    run(source, tmp_path / "asked.mp4", matrix="bt709", full_range=True)
    assert (probe(tmp_path / "asked.mp4").found.matrix, probe(tmp_path / "asked.mp4").found.range) == (1, 2)


@pytest.mark.parametrize(("suffix", "pix_fmt"), [(".mp4", "yuv444p"), (".mkv", "yuv444p"), (".webm", "yuv420p")])
def test_odd_sizes_stay_what_they_are(tmp_path: Path, suffix: str, pix_fmt: str) -> None:
    source = make_video(tmp_path / "in.mkv", range(3), size=(21, 33), codec="ffv1", audio=0)
    outcome = run(source, tmp_path / f"out{suffix}", scale=3)
    made = probe(tmp_path / f"out{suffix}")
    assert (made.height, made.width, made.pix_fmt) == (63, 99, pix_fmt)
    assert any("odd" in note for note in outcome.notes) == (pix_fmt == "yuv444p")


@pytest.mark.parametrize(
    ("size", "options", "made", "pix_fmt", "note"),
    [
        ((22, 33), {"scale": 1.5}, (33, 50), "yuv422p", None),
        ((22, 32), {"width": 48}, (34, 48), "yuv420p", "48x34: 48x33"),
        ((271, 48), {"scale": 1.5}, (406, 72), "yuv420p", "72x406: 72x407"),
    ],
)
def test_computed_sizes_are_even_and_the_plan_says_so(
    tmp_path: Path,
    size: tuple[int, int],
    options: dict[str, Any],
    made: tuple[int, int],
    pix_fmt: str,
    note: str | None,
) -> None:
    source = make_video(tmp_path / "in.mkv", range(3), size=size, codec="ffv1", audio=0)
    outcome = upscale_video(source, tmp_path / "out.mp4", identity(2), Request.of(**options), Reporter())
    found = probe(tmp_path / "out.mp4")
    assert (found.height, found.width, found.pix_fmt) == (*made, pix_fmt)
    reason = "is odd, and computed sides of a video are even numbers"
    assert [text for text in outcome.notes if reason in text] == ([f"written at {note} {reason}"] if note else [])


def test_asked_sizes_are_those_of_the_image_as_shown(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4", range(2), size=(36, 64), rotation=90, audio=0)
    run(source, tmp_path / "out.mp4", width=100)
    made = probe(tmp_path / "out.mp4")
    assert made.display_size == (178, 100)
    with pytest.raises(UsageError, match="smaller than the source"):
        run(source, tmp_path / "small.mp4", width=20)


@pytest.mark.parametrize(
    ("codec", "suffix", "depth"),
    [
        ("libx264", ".mp4", 10),
        ("libx265", ".mp4", 8),
        ("libx265", ".mkv", 10),
        ("libsvtav1", ".mp4", 10),
        ("libvpx-vp9", ".webm", 8),
        ("prores_ks", ".mov", 10),
        ("ffv1", ".mkv", 8),
    ],
)
@pytest.mark.usefixtures("short_segments")
def test_every_encoder_joins_its_segments(tmp_path: Path, codec: str, suffix: str, depth: int) -> None:
    pix_fmt = "yuv420p" if depth == 8 else "yuv420p10le"
    source = make_video(
        tmp_path / "in.mkv", range(0, 400, 40), Fraction(1, 1000), codec="ffv1", pix_fmt=pix_fmt, audio=0
    )
    crf = None if codec in ("prores_ks", "ffv1") else 10.0
    outcome = run(source, tmp_path / f"out{suffix}", codec=codec, crf=crf)
    assert outcome.facts["segments"] > 1
    made = [time for time, _ in frame_times(tmp_path / f"out{suffix}")]
    assert made == [time for time, _ in frame_times(source)]
    before, after = decoded(source)[5][0].astype(int), decoded(tmp_path / f"out{suffix}")[5][0].astype(int)
    assert float(np.abs(after[::2, ::2] - before).mean()) < 6 * 2 ** (depth - 8)
    assert probe(tmp_path / f"out{suffix}").found.matrix == 1


def test_start_and_end_move_all_streams_alike(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4", [512 * n for n in range(25)], Fraction(1, 12800), subtitles=["mov_text"])
    outcome = run(source, tmp_path / "out.mp4", start=0.4, end=0.8)
    assert outcome.facts["frames"] == 10
    assert [time for time, _ in frame_times(tmp_path / "out.mp4")] == [Fraction(n, 25) for n in range(10)]
    sound = other_packets(source)[1]
    kept = [(time - Fraction(2, 5), data) for time, data in sound if Fraction(2, 5) <= time < Fraction(4, 5)]
    assert [data for _, data in other_packets(tmp_path / "out.mp4")[1]] == [data for _, data in kept]
    moved = [time for time, _ in other_packets(tmp_path / "out.mp4")[1]]
    assert max(abs(a - b) for a, (b, _) in zip(moved, kept, strict=True)) <= Fraction(1, 48000)
    with pytest.raises(UsageError, match="no frames are left"):
        run(source, tmp_path / "late.mp4", start=50.0)


def test_subtitles_are_converted_where_the_container_asks_for_it(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mkv", subtitles=["subrip"])
    run(source, tmp_path / "out.mp4")
    run(tmp_path / "out.mp4", tmp_path / "back.mkv", scale=1)
    with av.open(str(tmp_path / "out.mp4")) as made:
        assert made.streams.subtitles[0].codec_context.name == "mov_text"
        assert made.streams.subtitles[0].language == "eng"
    assert other_packets(tmp_path / "back.mkv")[2] == other_packets(source)[2]
    assert [data for _, data in other_packets(source)[2]] == [b"Line 0", b"Line 1"]


def test_losing_something_needs_a_flag(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mkv", attachments={"a.ttf": b"font"})
    with pytest.raises(UsageError, match=r"would lack #2 attachment font/ttf.*--allow-loss.*\.mkv") as error:
        run(source, tmp_path / "out.mp4")
    assert error.value.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]
    outcome = run(source, tmp_path / "out.mp4", allow_loss=True)
    assert any("lost: #2 attachment" in note for note in outcome.notes)


def test_interlaced_material_is_told_from_material_flagged_so(tmp_path: Path) -> None:
    def scene(shift: int) -> tuple[np.ndarray, ...]:
        _, x = np.mgrid[0:64, 0:96]
        luma = (16 + 200 * ((x + shift) // 12 % 2)).astype(np.uint8)
        return luma, np.full((32, 48), 128, np.uint8), np.full((32, 48), 128, np.uint8)

    combed, whole = [], []
    for n in range(24):
        first, second = scene(8 * n), scene(8 * n + 4)
        woven = first[0].copy()
        woven[1::2] = second[0][1::2]
        combed.append((woven, *first[1:]))
        whole.append(first)
    kinds = {"combed": combed, "video": whole}
    for name, frames in kinds.items():
        fine = {"qmax": "2", "b": "9M"}
        path = tmp_path / f"{name}.mkv"
        make_video(path, codec="mpeg2video", size=(64, 96), frames=frames, options=fine, interlaced=True, audio=0)
        assert probe(tmp_path / f"{name}.mkv").flagged_interlaced
    with pytest.raises(MediaError, match=r"interlaced: in .*% of its frames.*Add --deinterlace"):
        run(tmp_path / "combed.mkv", tmp_path / "out.mkv")
    outcome = run(tmp_path / "video.mkv", tmp_path / "out.mkv", scale=1)
    assert any("taken as progressive" in note for note in outcome.notes)
    run(tmp_path / "combed.mkv", tmp_path / "bob.mkv", scale=1, deinterlace=True, codec="ffv1")
    assert [t for t, _ in frame_times(tmp_path / "bob.mkv")] == [t for t, _ in frame_times(tmp_path / "combed.mkv")]

    def combing(frames: list[tuple[np.ndarray, ...]]) -> float:
        luma = np.stack([frame[0] for frame in frames]).astype(float)
        return float(np.abs(luma[:, 1:-1] - (luma[:, :-2] + luma[:, 2:]) / 2).mean())

    assert combing(decoded(tmp_path / "bob.mkv")) < 0.3 * combing(decoded(tmp_path / "combed.mkv"))


def test_numbered_images(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mkv", range(3), codec="ffv1", pix_fmt="yuv444p", tags=(1, 2, 1, 1), audio=0)
    run(source, tmp_path / "%03d.png", scale=1)
    names = sorted(path.name for path in tmp_path.glob("*.png"))
    assert names == ["001.png", "002.png", "003.png"]
    y, _, v = (plane.astype(float) for plane in decoded(source)[1])
    red = y + 1.5748 * (v - 128)
    made = np.asarray(Image.open(tmp_path / "002.png"))
    assert np.abs(made[..., 0] - red.clip(0, 255)).max() <= 1
    with pytest.raises(UsageError, match="exists"):
        run(source, tmp_path / "%03d.png", scale=1)
    assert hidden(tmp_path) == []


def test_numbered_images_are_a_video(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    frames = np.random.default_rng(1).integers(0, 256, (5, 18, 32, 3), dtype=np.uint8)
    for number, frame in enumerate(frames, 98):
        Image.fromarray(frame).save(tmp_path / "frames" / f"a{number:03d}.png")
    Image.fromarray(frames[0]).save(tmp_path / "frames" / "a7.png")  # not one of them
    pattern, target = tmp_path / "frames" / "a%03d.png", tmp_path / "out.mkv"
    run(pattern, target, scale=1, fps=Fraction(24000, 1001), codec="ffv1")
    assert probe(target).rate == Fraction(24000, 1001)
    made = decoded(target)
    assert len(made) == 5
    for planes, frame in zip(made, frames, strict=True):
        # FFV1 has no planes of RGB with fewer than nine bits.
        assert np.array_equal((np.stack(planes, axis=-1) * (255 / 511)).round(), frame)
    back = [round(n * 1001 / 24) for n in range(5)]
    assert [round(time * 1000) for time, _ in frame_times(target)] == back
    run(pattern, tmp_path / "out.mp4", fps=Fraction(24000, 1001))
    assert [time for time, _ in frame_times(tmp_path / "out.mp4")] == [Fraction(1001 * n, 24000) for n in range(5)]
    with pytest.raises(UsageError, match="--fps 24"):
        run(pattern, tmp_path / "no.mp4")
    with pytest.raises(UsageError, match="has times of its own"):
        run(target, tmp_path / "no.mp4", fps=Fraction(24))
    (tmp_path / "frames" / "a100.png").unlink()
    with pytest.raises(MediaError, match=r"a100\.png: is missing, but a102\.png exists"):
        run(pattern, tmp_path / "no.mp4", fps=Fraction(24))
    with pytest.raises(MediaError, match="no such images"):
        run(tmp_path / "frames" / "b%d.png", tmp_path / "no.mp4", fps=Fraction(24))
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("suffix", [".mkv", ".y4m"])
def test_a_file_that_appears_during_the_job_is_kept(tmp_path: Path, suffix: str) -> None:
    source, target = make_video(tmp_path / "in.mkv", range(6), codec="ffv1", audio=0), tmp_path / f"out{suffix}"

    def meddle(_progress: Progress) -> None:
        target.write_bytes(b"precious")

    reporter = Reporter(progress=meddle)
    with pytest.raises(UsageError, match=r"appeared while this was running\. It was kept; add -y to replace it\."):
        upscale_video(source, target, identity(2), Request(), reporter)
    assert target.read_bytes() == b"precious"


def test_numbered_images_are_never_overwritten_and_a_stopped_job_ends_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_video(tmp_path / "in.mkv", range(6), codec="ffv1", audio=0)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "5.png").write_text("precious")
    target = tmp_path / "out" / "%d.png"
    with pytest.raises(UsageError, match=r"5\.png: exists"):
        run(source, target)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["5.png"]
    (tmp_path / "out" / "5.png").unlink()
    honest = write_images

    def stopped(packets: Iterator[EncodedPacket], target: Path, *, overwrite: bool) -> None:
        honest(itertools.islice(packets, 2), target, overwrite=overwrite)
        raise KeyboardInterrupt

    monkeypatch.setattr(upscaling, "write_images", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(source, target)
    monkeypatch.undo()
    (tmp_path / "out" / "5.png").write_text("precious")
    with pytest.raises(UsageError, match=r"5\.png: exists"):
        run(source, target)
    assert (tmp_path / "out" / "5.png").read_text() == "precious"
    (tmp_path / "out" / "5.png").unlink()
    outcome = run(source, target)
    assert outcome.facts["resumed_frames"] == 6
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"{n}.png" for n in range(1, 7)]
    with pytest.raises(UsageError, match=r"1\.png: exists"):
        run(source, target)


def test_transparency_is_not_lost_in_silence(tmp_path: Path) -> None:
    for number in range(2):
        Image.new("RGBA", (16, 16), (200, 100, 50, 128)).save(tmp_path / f"{number}.png")
    with pytest.raises(UsageError, match=r"would lack transparency\. Agree with --allow-loss"):
        run(tmp_path / "%d.png", tmp_path / "out.mkv", fps=Fraction(24))
    outcome = run(tmp_path / "%d.png", tmp_path / "out.mkv", fps=Fraction(24), allow_loss=True)
    assert "lost: transparency" in outcome.announced


def test_pipes(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mkv", range(5), codec="ffv1", audio=0)
    run(source, tmp_path / "in.y4m", scale=1)
    script = (
        "from pathlib import Path\n"
        "from repsr_cli.engine.upscaler import Upscaler\n"
        "from repsr_cli.model.plain import identity_network\n"
        "from repsr_cli.reporting import Reporter\n"
        "from repsr_cli.upscale.request import Request\n"
        "from tests.upscaling import upscale_video\n"
        "upscale_video(Path('-'), Path('-'), Upscaler(identity_network(2), 'cpu', threads=1), Request(),"
        " Reporter())\n"
    )
    with (tmp_path / "in.y4m").open("rb") as piped:
        done = subprocess.run([sys.executable, "-c", script], stdin=piped, capture_output=True, check=True)
    assert done.stdout.startswith(b"YUV4MPEG2 W128 H72 F25:1 ")
    (tmp_path / "out.y4m").write_bytes(done.stdout)
    before, after = decoded(source), decoded(tmp_path / "out.y4m")
    assert len(after) == 5
    for one, two in zip(before, after, strict=True):
        assert int(np.abs(two[0][::2, ::2].astype(int) - one[0]).max()) <= 1


def test_benchmark_writes_nothing(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4", range(6))
    outcome = run(source, tmp_path / "out.mp4", benchmark=True)
    assert outcome.facts["frames"] == 6
    assert set(outcome.facts["occupancy"]) == {"decode", "network", "encode"}
    assert any("slowest stage" in note for note in outcome.notes)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_plan_is_printable_without_a_network(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mkv", attachments={"a.ttf": b"font"})
    text = str(plan_video(source, tmp_path / "out.mp4", Request(), weight(4)))
    assert "64x36 h264 yuv420p, 24 frames, 25 fps" in text
    assert "256x144 libx264 yuv420p" in text
    assert "needs --allow-loss: #2 attachment" in text
    assert "about" in text
    assert not (tmp_path / "out.mp4").exists()


def test_the_time_is_estimated_by_a_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(PlaneUpscaler):
        """Ten frames a second at most."""

        def begin(self, planes: Any, progress: Any = None) -> Any:
            time.sleep(0.1)
            return super().begin(planes, progress)

    monkeypatch.setattr(engine_planes, "PlaneUpscaler", Slow)
    monkeypatch.setattr(estimating, "_SECONDS", 0.5)
    source = make_video(tmp_path / "in.mp4", range(240), audio=0)
    plan = plan_video(source, tmp_path / "out.mp4", Request.of(preset="ultrafast"), weight(2))
    messages = estimating.estimate(plan, identity(2), pytest.fail)
    found = re.fullmatch(r"time: about 0:(\d\d):(\d\d), an estimate from (\d+) frames at ([\d.]+) a second", messages)
    assert found is not None, messages
    assert 1 <= int(found[3]) <= 8
    assert float(found[4]) <= 10
    assert int(found[1]) * 60 + int(found[2]) == pytest.approx(240 / float(found[4]), abs=1)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


# Failures: message, exit code, nothing left behind.


def bad_files(folder: Path) -> Iterator[tuple[str, Path, str]]:
    whole = make_video(folder / "whole.mkv", range(30))
    text = folder / "text.mp4"
    text.write_text("This is not a video. " * 50)
    empty = folder / "empty.mp4"
    empty.touch()
    cut_off = folder / "cut.mkv"
    cut_off.write_bytes(whole.read_bytes()[:-2000])
    sound = folder / "sound.m4a"
    with av.open(str(sound), "w", format="mp4") as out:
        track = out.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        out.mux(track.encode(frame))
        out.mux(track.encode(None))
    yield "missing", folder / "missing.mp4", "no such file"
    yield "text", text, "not a video that can be read"
    yield "empty", empty, "not a video that can be read"
    yield "sound", sound, "no video stream, only audio"
    yield "cut off", cut_off, "damaged or cut off: "
    yield "folder", folder, "a folder|not a video"


def test_bad_inputs_say_what_they_are_and_leave_nothing(tmp_path: Path) -> None:
    for name, path, message in bad_files(tmp_path):
        with pytest.raises(MediaError, match=message) as error:
            run(path, tmp_path / "out.mp4")
        assert error.value.exit_code == 3, name
        assert not (tmp_path / "out.mp4").exists()
        assert hidden(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codec": "libx999"}, "no such encoder"),
        ({"codec": "aac"}, "encodes audio"),
        ({"crf": 77.0}, "off the scale"),
        ({"crf": 10.0, "codec": "ffv1"}, "lossless"),
        ({"preset": "warp"}, "cannot encode"),
        ({"encoder_options": {"bogus": "1"}}, "no such option"),
        ({"pix_fmt": "yuv999"}, "no such pixel format"),
        ({"matrix": "bt0"}, "not a known matrix"),
        ({"start": -1.0}, "before the beginning"),
    ],
)
def test_bad_options_are_refused_before_the_first_frame(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    source = make_video(tmp_path / "in.mkv", range(3), audio=0)
    with pytest.raises(UsageError, match=message):
        run(source, tmp_path / "out.mkv", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


def test_targets_are_not_overwritten_and_must_be_containers(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4", range(3))
    (tmp_path / "out.mp4").write_text("precious")
    with pytest.raises(UsageError, match="exists"):
        run(source, tmp_path / "out.mp4")
    assert (tmp_path / "out.mp4").read_text() == "precious"
    run(source, tmp_path / "out.mp4", overwrite=True)
    assert probe(tmp_path / "out.mp4").height == 72
    with pytest.raises(UsageError, match="not a container"):
        run(source, tmp_path / "out.xyz")
    with pytest.raises(UsageError, match="not a pattern"):
        run(source, tmp_path / "%s.png")


def test_no_room_is_said_before_the_first_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from repsr_cli.upscale import sinks as module

    source = make_video(tmp_path / "in.mp4", range(3))
    monkeypatch.setattr(module, "free_space", lambda _folder: 10)
    with pytest.raises(MediaError, match=r"needs about [\d.]+ kB, and 10 bytes are free"):
        run(source, tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_while_working_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from repsr_cli.video import segments as video_segments

    source = make_video(tmp_path / "in.mp4", range(3))
    monkeypatch.setattr(
        video_segments.SegmentWriter, "_write", lambda _self, _data: (_ for _ in ()).throw(OSError(28, "No space left"))
    )
    with pytest.raises(MediaError, match="No space left"):
        run(source, tmp_path / "out.mp4")
    assert hidden(tmp_path) == []


def test_a_damaged_frame_stops_or_is_repeated_by_name(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4", range(24), options={"bf": "0", "slices": "1"}, gop=6)
    broken = damage(source, tmp_path / "broken.mp4", 6)
    with pytest.raises(MediaError, match=r"the frame at 0\.\d+ s is (damaged|missing).*--on-error keep"):
        run(broken, tmp_path / "out.mp4")
    outcome = run(broken, tmp_path / "out.mp4", on_error="keep")
    assert [t for t, _ in frame_times(tmp_path / "out.mp4")] == [t for t, _ in frame_times(source)]
    assert 0.24 in outcome.facts["repeated_frames"]
    assert any("repeat the one before, at 0.24" in note for note in outcome.notes)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_mutated_files_end_in_an_error_or_in_all_frames(tmp_path: Path, suffix: str) -> None:
    whole = make_video(tmp_path / f"whole{suffix}", range(24), size=(32, 48)).read_bytes()
    random = np.random.default_rng(7)
    refused = 0
    for number in range(40):
        data = bytearray(whole)
        if number % 4 == 3:
            data = data[: int(random.integers(1, len(data)))]
        for _ in range(int(random.integers(1, 6))):
            data[int(random.integers(0, len(data)))] ^= 1 << int(random.integers(0, 8))
        source = tmp_path / f"mutated{suffix}"
        source.write_bytes(data)
        target = tmp_path / f"out{suffix}"
        try:
            outcome = run(source, target, scale=1, overwrite=True, allow_loss=True)
        except RepsrError:
            refused += 1
            continue
        assert len(frame_times(target)) == outcome.facts["frames"]
        assert outcome.facts["frames"] == 24, number
    assert refused > 5


# Interrupted work.

KILLED = """
import functools, os, sys, time
from pathlib import Path
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.video.timeline import cut
from repsr_cli.model.plain import identity_network
from repsr_cli.upscale import plan_video as planning
from repsr_cli.reporting import Progress, Reporter
from repsr_cli.upscale.request import Request
from tests.upscaling import upscale_video
planning.cut = functools.partial(cut, frames=4)
def progress(step: Progress) -> None:
    print(step.done, flush=True)
    time.sleep(0.004)
def work(source: str, target: str) -> None:
    network = Upscaler(identity_network(2), "cpu", threads=1)
    upscale_video(Path(source), Path(target), network, Request(), Reporter(progress))
    print("finished", flush=True)
"""
ONCE = KILLED + "work(*sys.argv[1:])\n"
# For every target that it reads a process of its own, which finds all that it needs imported.
AGAIN = (
    KILLED
    + """
import repsr_cli.upscale.sinks, repsr_cli.upscale.video
for line in sys.stdin:
    child = os.fork()
    if not child:
        print(os.getpid(), flush=True)
        work(sys.argv[1], line.strip())
        os._exit(0)
    os.waitpid(child, 0)
    print("ended", flush=True)
"""
)


def test_killed_again_and_again_it_ends_in_the_same_packets(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4", [1001 * t for t in range(72)], Fraction(1, 30000), gop=25)
    command = [sys.executable, "-c", AGAIN, str(source)]
    random = np.random.default_rng(3)
    target = tmp_path / "killed.mp4"
    kills, resumed = 0, False
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def lives(path: Path) -> Iterator[tuple[int, str]]:
            """The process that works on a target, and each line it prints."""
            present(process.stdin).write(f"{path}\n")
            number = int(present(process.stdout).readline())
            for line in iter(present(process.stdout).readline, "ended\n"):
                assert line
                yield number, line.strip()

        assert [line for _, line in lives(tmp_path / "whole.mp4")][-1] == "finished"
        for _ in range(40):
            last = int(random.integers(4, 40))
            lines: list[str] = []
            for number, line in lives(target):
                lines.append(line)
                if len(lines) == last + 1 and line != "finished":
                    os.kill(number, signal.SIGKILL)
            resumed = resumed or int(lines[0]) > 1
            if done := lines[-1] == "finished":
                break
            kills += 1
            assert not target.exists()
        process.stdin.close()
    assert done
    assert kills >= 4
    assert resumed
    assert video_packets(target) == video_packets(tmp_path / "whole.mp4")
    assert other_packets(target) == other_packets(tmp_path / "whole.mp4")
    assert target.read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert hidden(tmp_path) == []


@pytest.mark.usefixtures("short_segments")
def test_a_job_is_not_resumed_with_other_settings(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4", range(24), gop=6)
    target = tmp_path / "out.mp4"

    def stop(step: object) -> None:
        if getattr(step, "done", 0) >= 14:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upscale_video(source, target, identity(2), Request(), Reporter(progress=stop))
    assert not target.exists()
    assert hidden(tmp_path) == [".out.mp4.repsr"]
    with pytest.raises(UsageError, match=r"begun with another encoding.*--no-resume"):
        run(source, target, crf=30.0)
    messages: list[str] = []
    outcome = upscale_video(source, target, identity(2), Request(), Reporter(say=messages.append))
    assert outcome.facts["resumed_frames"] > 0
    assert any("segments are there already" in line for line in messages)
    run(source, tmp_path / "whole.mp4")
    assert target.read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert hidden(tmp_path) == []


def test_two_processes_do_not_write_one_target(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4", range(72))
    target = tmp_path / "out.mp4"
    command = [sys.executable, "-c", ONCE, str(source), str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(UsageError, match=rf"is being written by another process \({process.pid}\)\. Wait") as error:
            run(source, target)
        assert error.value.exit_code == 2
        assert process.wait() == 0
    assert len(frame_times(target)) == 72
    assert hidden(tmp_path) == []


@pytest.mark.usefixtures("short_segments")
def test_several_devices_write_what_one_writes(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4", [512 * t for t in range(60)], Fraction(1, 12800), gop=7)
    run(source, tmp_path / "one.mp4")
    target = tmp_path / "three.mp4"
    others = [Upscaler(identity_network(2), device="cpu", threads=1) for _ in range(2)]

    def stop(step: Progress) -> None:
        if step.done >= 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upscale_video(source, target, identity(2), Request(), Reporter(progress=stop), others)
    assert not target.exists()
    counts: list[int] = []
    reporter = Reporter(progress=lambda step: counts.append(step.done))
    outcome = upscale_video(source, target, identity(2), Request(), reporter, others)
    assert outcome.facts["devices"] == ["cpu"] * 3
    assert counts == list(range(outcome.facts["resumed_frames"] + 1, 61))
    assert target.read_bytes() == (tmp_path / "one.mp4").read_bytes()
    assert hidden(tmp_path) == []


def test_what_a_video_needs_to_be_known_is_said_before_its_first_frame(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mkv", range(4), tags=None, audio=0)
    messages: list[str] = []
    reporter = Reporter(progress=lambda step: messages.append(str(step.done)), say=messages.append)
    outcome = upscale_video(source, tmp_path / "out.mkv", identity(2), Request(), reporter)
    assert "no colour matrix" in messages[0]
    assert messages[0].startswith("in.mkv: ")
    assert messages.index("1") >= len(outcome.announced) > 0
    assert outcome.notes[: len(outcome.announced)] == outcome.announced


def test_videos_need_no_opencv(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4", range(3))
    script = ONCE.replace("import functools", "import sys; sys.modules['cv2'] = None\nimport functools")
    command = [sys.executable, "-c", script, str(source), str(tmp_path / "out.mp4")]
    subprocess.run(command, check=True, capture_output=True)
    assert probe(tmp_path / "out.mp4").height == 72


MEMORY = """
import resource, sys
from pathlib import Path
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.model.plain import identity_network
from repsr_cli.reporting import Reporter
from repsr_cli.upscale.request import Request
from tests.upscaling import upscale_video
for source in map(Path, sys.argv[1:]):
    network = Upscaler(identity_network(1), "cpu", threads=1)
    upscale_video(source, source.with_suffix(".out.mp4"), network, Request.of(preset="ultrafast"), Reporter())
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length_of_a_video(tmp_path: Path) -> None:
    fast = {"preset": "ultrafast"}
    # Large enough for the memory of lost frames to be seen beside that of everything else.
    frames = [image(n, 180, 320, "yuv420p") for n in range(8)] * 120
    sources = [
        make_video(tmp_path / f"{count}.mp4", range(count), frames=frames, size=(180, 320), options=fast)
        for count in (240, 960)
    ]
    environment = {**os.environ, "MALLOC_ARENA_MAX": "2"}
    command = [sys.executable, "-c", MEMORY, *map(str, sources)]
    done = subprocess.run(command, check=True, capture_output=True, env=environment)
    peaks = [int(line) for line in done.stdout.split()]
    assert len(peaks) == 2
    assert peaks[1] < peaks[0] * 1.1


# Real videos, where they are at hand.


def test_real_videos_arrive(tmp_path: Path, real_data: Path) -> None:
    names = [
        "carphone_qcif_sar128-117.mp4",
        "desks_h263_vfr14fps_sar12-11.3gp",
        "hevc_914x686_sar.ts",
        "keyboard_rot-90_3frames.mov",
        "man_640x428_bt601_aac.mov",
        "paper1_cif_rot90_vfr_aac.mp4",
        "vp6_112x80.flv",
        "roadtrip_vp9_10bit_426x240.webm",
    ]
    for name in names:
        source = real_data / "clips" / name
        suffix = source.suffix if source.suffix in (".mp4", ".mov", ".webm") else ".mkv"
        target = tmp_path / f"{source.stem}{suffix}"
        preset = "12" if suffix == ".webm" else "ultrafast"
        run(source, target, scale=1, preset=preset)
        before, after = frame_times(source), frame_times(target)
        shift = after[0][0] - before[0][0]
        slack = Fraction(1, 2000) if suffix in (".mkv", ".webm") else 0
        assert len(before) == len(after), name
        assert all(abs(a - b - shift) <= 2 * slack for (a, _), (b, _) in zip(after, before, strict=True)), name
        ours = [[data for _, data in packets] for packets in other_packets(target).values()]
        theirs = [[data for _, data in packets] for packets in other_packets(source).values()]
        assert ours == theirs, name
        one, two = probe(source), probe(target)
        assert (one.tags, one.rotation, one.sar) == (two.found, two.rotation, two.sar), name


def test_hdr_keeps_its_depth_and_its_metadata(tmp_path: Path, real_data: Path) -> None:
    source = real_data / "clips" / "hdr10_pq_10bit_1080p60_av1_mdcv_clli.mp4"
    outcome = run(source, tmp_path / "out.mp4", scale=1, end=0.05, preset="ultrafast")
    one, two = probe(source), probe(tmp_path / "out.mp4")
    assert (two.pix_fmt, two.codec) == ("yuv420p10le", "hevc")
    assert one.tags == two.found
    assert one.hdr is not None
    assert two.hdr is not None
    assert one.hdr.content == two.hdr.content
    assert one.hdr.primaries is not None
    assert two.hdr.primaries is not None
    differences = [
        abs(a - b) for p, q in zip(one.hdr.primaries, two.hdr.primaries, strict=True) for a, b in zip(p, q, strict=True)
    ]
    assert max(differences) <= Fraction(1, 50000)
    assert one.hdr.luminance == two.hdr.luminance
    assert any("HDR" in note for note in outcome.notes)


def test_broadcasts(tmp_path: Path, real_data: Path) -> None:
    videos = real_data / "clips"
    flagged = videos / "dvb_576_mpeg2_flagged-interlaced_progressive-content_sar64-45.ts"
    outcome = run(flagged, tmp_path / "clip.mkv", scale=1, preset="ultrafast", end=0.6)
    assert any("taken as progressive" in note for note in outcome.notes)
    with pytest.raises(MediaError, match="Add --deinterlace"):
        run(videos / "dvb_576i_mpeg2_interlaced_tff_dvbsub.ts", tmp_path / "tv.mkv", scale=1)
