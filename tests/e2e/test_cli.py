"""Test whole commands: arguments, files written, messages and exit codes."""

from __future__ import annotations

import errno
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from repsr_cli.cli import app
from repsr_cli.model.checkpoint import save_plain
from repsr_cli.model.plain import PlainSR, identity_network
from repsr_cli.model.spec import Spec
from repsr_cli.model.zoo import available
from repsr_cli.upscale.models import ModelCache
from tests.conftest import ROOT
from tests.sample_videos import make_video


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that enlarges twice by nearest neighbour."""
    path = tmp_path_factory.mktemp("network") / "nearest.safetensors"
    save_plain(path, identity_network(2), {})
    return path


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def repsr(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def process(*arguments: object, before: str = "") -> list[str]:
    code = f"{before}\nimport sys\nfrom repsr_cli.cli import app\napp(sys.argv[1:])"
    return [sys.executable, "-c", code, *map(str, arguments)]


def image(path: str, size: tuple[int, int] = (8, 6)) -> Path:
    pixels = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "PNG")
    return Path(path)


def video(path: str, frames: int = 5, size: tuple[int, int] = (32, 24)) -> Path:
    """A video of constant rate with sound."""
    with av.open(path, "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        audio = out.add_stream("aac", rate=44100, layout="mono")
        for number in range(frames):
            pixels = np.full((size[1], size[0], 3), 40 + 20 * number % 200, np.uint8)
            out.mux(video.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        out.mux(video.encode(None))
        for number in range(frames):
            out.mux(audio.encode(silence(number)))
        out.mux(audio.encode(None))
    return Path(path)


def silence(number: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
    frame.rate, frame.pts, frame.time_base = 44100, 1024 * number, Fraction(1, 44100)
    return frame


def files() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*") if path.is_file())


def test_a_image_and_a_video(network: Path) -> None:
    image("a.png"), video("b.mp4")
    result = repsr("upscale", "a.png", "b.mp4", "-s", 2, "-n", network)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == ["a_x2.png", "b_x2.mp4"]
    assert "on cpu" in result.stderr
    before, after = np.asarray(Image.open("a.png")), np.asarray(Image.open("a_x2.png"))
    assert (after == before.repeat(2, 0).repeat(2, 1)).all()
    with av.open("b.mp4") as source, av.open("b_x2.mp4") as target:
        stream = target.streams.video[0]
        assert (stream.width, stream.height) == (64, 48)
        assert [f.time for f in target.decode(video=0)] == [f.time for f in source.decode(video=0)]
    assert sound("b_x2.mp4") == sound("b.mp4")


def sound(path: str) -> list[tuple[int | None, bytes]]:
    with av.open(path) as file:
        return [(packet.pts, bytes(packet)) for packet in file.demux(audio=0)]


def test_raw_frames_through_pipes(network: Path) -> None:
    video("b.mp4")
    with av.open("b.mp4") as source, av.open("b.y4m", "w", format="yuv4mpegpipe") as out:
        stream = out.add_stream("rawvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        for frame in source.decode(video=0):
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    raw = Path("b.y4m").read_bytes()
    run = subprocess.run(
        process("upscale", "-", "-o", "-", "-s", 2, "-n", network), input=raw, capture_output=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(b"YUV4MPEG2 W64 H48 ")
    assert run.stdout.count(b"FRAME\n") == raw.count(b"FRAME\n") == 5
    assert len(run.stdout.partition(b"\n")[2]) == 5 * (6 + 64 * 48 * 3 // 2)
    assert "have no name" in repsr("upscale", "-", "-s", 2, "-n", network).stderr


def test_json_and_quiet(network: Path) -> None:
    image("a.png")
    result = repsr("upscale", "a.png", "missing.png", "-s", 2, "-n", network, "--json", "--quiet")
    done, failed = sorted(
        (json.loads(line) for line in result.stdout.splitlines()), key=lambda record: record["status"]
    )
    assert (done["status"], done["source"], done["target"]) == ("done", "a.png", "a_x2.png")
    assert (failed["status"], failed["source"], failed["exit_code"]) == ("failed", "missing.png", 3)
    assert result.exit_code == 3
    assert result.stderr == "error: missing.png: no such file. Check the path, and quote names with spaces.\n"


def test_benchmark_measures_and_writes_nothing(network: Path) -> None:
    image("a.png"), video("b.mp4"), image("a_x2.png")
    before = files()
    result = repsr("upscale", "a.png", "b.mp4", "-s", 2, "-n", network, "--benchmark", "--json", "-o", "new/")
    assert result.exit_code == 0, result.stderr
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [record["status"] for record in records] == ["measured", "measured"]
    assert records[1]["facts"]["fps"] > 0
    assert repsr("upscale", "a.png", "-s", 2, "-n", network, "--benchmark").stdout == ""
    assert files() == before
    assert not Path("new").exists()


def test_models_doctor_compare() -> None:
    image("a.png")
    shown = repsr("models", "--no-speed")
    assert shown.exit_code == 0
    assert shown.stdout.splitlines()[0].split()[:3] == ["name", "network", "scale"]
    assert {"name", "scale", "psnr_y"} <= set(
        json.loads(repsr("models", "--no-speed", "--json").stdout.splitlines()[0])
    )
    assert "cpu fp32" in repsr("doctor").stdout
    assert repsr("compare", "a.png", "a.png").stdout == "a_vs_a.png\n"
    assert repsr("compare", "a.png", "a.png").exit_code == 2


def test_models_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    smallest = available()[:1]
    monkeypatch.setattr("repsr_cli.model.zoo.available", lambda: smallest)
    shown, listed = (repsr("models", *option, "--json") for option in ((), ("--no-speed",)))
    assert json.loads(shown.stdout)["megapixels_per_second"] > 0
    assert json.loads(listed.stdout)["megapixels_per_second"] is None


def test_dry_run_writes_nothing(network: Path) -> None:
    image("a.png"), video("b.mp4")
    before = files()
    result = repsr("upscale", "a.png", "b.mp4", "-s", 1.5, "-n", network, "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == ["a_x1.5.png", "b_x1.5.mp4"]
    assert "image of 8x6, 1.5 times as large" in result.stderr
    assert "then a resize" in result.stderr
    assert "time: about" not in result.stderr
    result = repsr("upscale", "a.png", "b.mp4", "-s", 1.5, "-n", network, "--estimate")
    assert result.exit_code == 0, result.stderr
    assert "b.mp4: time: about 0:00:" in result.stderr
    assert files() == before


def test_dry_run_refuses_what_the_run_refuses(network: Path) -> None:
    image("a.png", (20, 10))
    video("b.mp4")
    for arguments in (
        ("a.png", "--device", "nosuch"),
        ("b.mp4", "--device", "cpu,nosuch"),
        ("a.png", "--engine", "nosuch"),
        ("b.mp4", "--engine", "tensorrt", "--device", "cpu"),
        ("b.mp4", "--engine", "ncnn", "--precision", "bf16"),
        ("a.png", "--tile", "7k"),
        ("b.mp4", "--tile", "0"),
        ("b.mp4", "-o", "a.png/b.mp4"),
        ("a.png", "-o", f"new/{'n' * 300}/a.png"),
        ("a.png", "-o", f"new/deep/{'n' * 300}.png"),
        ("b.mp4", "-o", f"new/../{'n' * 300}/b.mp4"),
        ("b.mp4", "-o", f"new/{'n' * 247}.mkv"),
        ("b.mp4", "-o", f"{'n' * 247}.mkv"),
        ("b.mp4", "-o", f"new/{'n' * 247}.y4m", "--allow-loss"),
        ("b.mp4", "-o", f"new/{'n' * 242}%04d.png", "--allow-loss"),
    ):
        dry = repsr("upscale", *arguments, "-s", 2, "-n", network, "--dry-run")
        run = repsr("upscale", *arguments, "-s", 2, "-n", network)
        assert (dry.exit_code, dry.stderr) == (run.exit_code, run.stderr), arguments
        assert run.exit_code != 0
        assert not Path("new").exists()


@pytest.mark.parametrize("precision", ["nosuch", "fp64"])
def test_dry_run_reads_the_environment_as_the_run_does(
    network: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    image("a.png")
    monkeypatch.setenv("REPSR_PRECISION", precision)
    command = ("upscale", "a.png", "-s", 2, "-n", network)
    dry, run = repsr(*command, "--dry-run"), repsr(*command)
    assert (dry.exit_code, dry.stderr) == (run.exit_code, run.stderr)
    assert f"REPSR_PRECISION={precision}" in dry.stderr
    assert repsr(*command, "--precision", "fp32", "--dry-run").exit_code == 0


def test_dry_run_for_a_cluster_without_ray(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image("a.png"), image("b.png")
    monkeypatch.setitem(sys.modules, "ray", None)
    command = ("upscale", "a.png", "b.png", "-s", 2, "-n", network, "--ray", "auto")
    dry, run = repsr(*command, "--dry-run"), repsr(*command)
    assert (dry.exit_code, dry.stderr) == (run.exit_code, run.stderr)
    assert dry.stderr.count("Ray is not installed") == 1


def test_a_folder_that_is_made_for_nothing_is_removed(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image("a.png")
    mkdir = Path.mkdir

    def refused(self: Path, *arguments: object, **options: object) -> None:
        if self.name == "deep":
            mkdir(self.parent, exist_ok=True)
            raise OSError(errno.EIO, "Input/output error")
        mkdir(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", refused)
    result = repsr("upscale", "a.png", "-s", 2, "-n", network, "-o", "new/deep/")
    assert (result.exit_code, "cannot be made" in result.stderr) == (3, True), result.stderr
    assert not Path("new").exists()


def test_dry_run_shows_the_plan_of_what_it_refuses(network: Path) -> None:
    make_video(Path("b.mkv"), (0, 1, 3, 4, 9), audio=0)
    command = ("upscale", "b.mkv", "-o", "frames/%03d.png", "-s", 2, "-n", network)
    dry, run = repsr(*command, "--dry-run"), repsr(*command)
    assert (dry.exit_code, run.exit_code) == (2, 2)
    assert run.stderr.splitlines()[-1] in dry.stderr
    assert "stream #0 video" in dry.stderr
    assert "to be written" not in dry.stderr
    assert not dry.stdout
    record = json.loads(repsr(*command, "--dry-run", "--json").stdout)
    assert (record["status"], record["exit_code"]) == ("failed", 2)
    assert any("stream #0 video" in line for line in record["plan"])


def test_dry_run_without_space(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from repsr_cli.upscale import sinks

    video("b.mkv")
    monkeypatch.setattr(sinks, "free_space", lambda _folder: 10)
    dry = repsr("upscale", "b.mkv", "-s", 2, "-n", network, "--dry-run")
    assert (dry.exit_code, "10 bytes are free" in dry.stderr) == (3, True), dry.stderr

    def refused(_folder: Path) -> int:
        raise PermissionError(13, "Permission denied")

    image("a.png")
    monkeypatch.setattr(sinks, "free_space", refused)
    several = repsr("upscale", "b.mkv", "a.png", "-s", 2, "-n", network, "--dry-run")
    assert several.stdout == "a_x2.png\n"
    assert "Permission denied" in several.stderr


def test_dry_run_of_nothing_checks_nothing(network: Path) -> None:
    image("a.png"), image("done.png")
    command = ("upscale", "a.png", "-o", "done.png", "-n", network, "--skip-existing", "--device", "nosuch")
    assert repsr(*command).exit_code == repsr(*command, "--dry-run").exit_code == 0


@pytest.mark.parametrize("target", ["out/", "out/deep/a.png", "out/b.mkv", "out/b.y4m", "out/%03d.png"])
def test_dry_run_into_a_folder_that_is_not_there(network: Path, target: str) -> None:
    image("a.png"), video("b.mkv", size=(16, 12))
    source = "a.png" if target in ("out/", "out/deep/a.png") else "b.mkv"
    command = ("upscale", source, "-o", target, "-s", 2, "-n", network, "--allow-loss")
    dry = repsr(*command, "--dry-run")
    assert dry.exit_code == 0, dry.stderr
    assert not Path("out").exists()
    assert repsr(*command).exit_code == 0


def test_dry_run_loads_no_model(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image("a.png"), video("b.mp4")

    def load(*_arguments: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(ModelCache, "network", load)
    for model in ("fast", network):
        result = repsr("upscale", "a.png", "b.mp4", "-s", 2, "-n", model, "--dry-run")
        assert result.exit_code == 0, result.output


def test_numbered_images_in_and_out(network: Path) -> None:
    for number in range(3):
        image(f"in/{number:02d}.png", (16, 16))
    result = repsr("upscale", "in/%02d.png", "-s", 2, "-n", network, "--fps", 24, "-o", "out.mkv")
    assert (result.exit_code, result.stdout) == (0, "out.mkv\n"), result.stderr
    result = repsr("upscale", "in/%02d.png", "-s", 2, "-n", network, "--fps", 24, "-o", "out/%d.png")
    assert result.exit_code == 0, result.stderr
    assert sorted(files())[-4:] == ["out.mkv", "out/1.png", "out/2.png", "out/3.png"]
    for arguments in (["in/%02d.png", "--fps", 24], ["in/%02d.png", "-o", "a.mkv"], ["out.mkv", "--fps", "fast"]):
        assert repsr("upscale", *arguments, "-n", network).exit_code == 2


def test_folder_mirrored_one_failure_does_not_stop_the_rest(network: Path) -> None:
    image("in/1.png"), image("in/deep/2.png")
    whole = image("in/torn.png", (64, 64)).read_bytes()
    Path("in/torn.png").write_bytes(whole[: len(whole) // 2])
    result = repsr("upscale", "in", "-r", "-o", "out", "-s", 2, "-n", network)
    assert result.stdout.splitlines() == ["out/1_x2.png", "out/deep/2_x2.png"]
    assert result.exit_code == 3
    assert "1 of 3 failed:\n  in/torn.png\n" in result.stderr
    assert files() == ["in/1.png", "in/deep/2.png", "in/torn.png", "out/1_x2.png", "out/deep/2_x2.png"]


def test_the_same_command_again_skips_what_it_has_done(network: Path) -> None:
    image("in/1.png"), image("in/2.png"), video("in/3.mkv")
    command = ("upscale", "in", "-o", "out", "-s", 2, "-n", network)
    Path("in/3.mkv").rename("3.mkv")
    assert len(repsr(*command).stdout.splitlines()) == 2
    Path("3.mkv").rename("in/3.mkv")
    before = Path("out/1_x2.png").stat()
    again = repsr(*command)
    assert (again.exit_code, again.stdout) == (0, "out/3_x2.mkv\n")
    assert "out/1_x2.png: done before by the same command, skipped" in again.stderr
    assert Path("out/1_x2.png").stat() == before
    third = repsr(*command, "--json")
    assert third.exit_code == 0
    assert [json.loads(line)["status"] for line in third.stdout.splitlines()] == ["skipped"] * 3
    other = repsr(*command, "--strip-metadata")
    assert other.exit_code == 2
    assert "out/1_x2.png: exists" in other.stderr
    image("in/1.png", (18, 12))
    changed = repsr(*command)
    assert changed.exit_code == 2
    assert "out/1_x2.png: exists" in changed.stderr


def test_records_name_width_and_height(network: Path) -> None:
    image("a.png", (20, 10)), video("b.mkv", size=(32, 24))
    result = repsr("upscale", "a.png", "b.mkv", "-s", 2, "-n", network, "--json")
    assert result.exit_code == 0, result.stderr
    facts = [json.loads(line)["facts"] for line in result.stdout.splitlines()]
    names = ("width", "height", "source_width", "source_height")
    assert [[each[name] for name in names] for each in facts] == [[40, 20, 20, 10], [64, 48, 32, 24]]
    described = (ROOT / "docs" / "options.md").read_text()
    assert all(f"`{name}`" in described for each in facts for name in each)


def test_options_without_effect_are_named(network: Path) -> None:
    image("a.png"), video("b.mkv")
    command = ("upscale", "a.png", "b.mkv", "-s", 2, "-n", network, "--dry-run")
    result = repsr(*command, "--crf", 20, "--no-resume", "--engine", "openvino", "--tta")
    assert "--crf, --no-resume, --engine: no effect on images\n" in result.stderr
    assert "--tta: no effect on videos\n" in result.stderr
    assert "no effect" not in repsr(*command, "--engine", "torch").stderr


def test_results_that_few_programs_show(network: Path) -> None:
    Image.new("L", (9600, 9600)).save("a.png")
    image("b.png")
    video("c.mkv", size=(40, 2200))
    result = repsr("upscale", "a.png", "b.png", "c.mkv", "-s", 2, "-n", network, "--dry-run")
    assert "a.png: 19200x19200 are 369 megapixels, more than many programs open\n" in result.stderr
    assert "c.mkv: 80x4400 is beyond 8K" not in result.stderr
    assert "b.png: 24x16" not in result.stderr
    wide = repsr("upscale", "c.mkv", "--height", 7800, "-n", "fast-x4", "--dry-run")
    assert "7800 is beyond 8K" in wide.stderr


def test_several_inputs_have_a_total(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repsr_cli.cli.console.PLAIN_LINE_SECONDS", 0.0)
    for number in range(3):
        image(f"in/{number}.png")
    result = repsr("upscale", "in", "-o", "out", "-s", 2, "-n", network)
    assert "total: 2 of 3 files, " in result.stderr
    assert "total: 3 of 3 files" in result.stderr
    assert "total" not in repsr("upscale", "in/0.png", "-s", 2, "-n", network).stderr


def test_sizes(network: Path) -> None:
    image("a.png", (20, 10))
    for arguments, size in (
        (("--width", 30), (30, 15)),
        (("--height", 20), (40, 20)),
        (("--size", "25x15"), (25, 15)),
        (("--fit", "30x99"), (30, 15)),
        (("--short-side", 16), (32, 16)),
    ):
        result = repsr("upscale", "a.png", "-n", network, *arguments, "--json")
        assert result.exit_code == 0, result.stderr
        with Image.open(json.loads(result.stdout)["target"]) as done:
            assert done.size == size
    assert "is 20x10 already" in repsr("upscale", "a.png", "-n", network, "--width", 10).stderr
    video("b.mkv", size=(32, 24))
    for arguments, size in ((("--fit", "60x40"), (54, 40)), (("--short-side", 36), (48, 36))):
        result = repsr("upscale", "b.mkv", "-n", network, *arguments, "--json")
        assert result.exit_code == 0, result.stderr
        with av.open(json.loads(result.stdout)["target"]) as done:
            assert (done.streams.video[0].width, done.streams.video[0].height) == size
    assert repsr("upscale", "a.png", "-n", network, "-s", 3).exit_code == 4


def test_sizes_with_a_model_that_has_no_x4() -> None:
    image("a.png", (20, 10))
    for arguments in (("--width", 40), ("--height", 18), ("--size", "40x20"), ("--fit", "30x99"), ("--short-side", 16)):
        result = repsr("upscale", "a.png", "-n", "light", *arguments, "-y")
        assert result.exit_code == 0, result.stderr
        assert result.exit_code == repsr("upscale", "a.png", "-n", "light", *arguments, "-y", "--dry-run").exit_code
    refused = repsr("upscale", "a.png", "-n", "light", "--width", 60, "-y")
    assert refused.exit_code == 4
    assert "enlarges by up to 2, not 3" in refused.stderr
    unknown = repsr("upscale", "a.png", "-n", "lighter", "--width", 40, "-y")
    assert unknown.exit_code == 4


@pytest.mark.parametrize("size", [("--width", 80), ("--width", 50), ("--fit", "40x40"), ("-s", 2), ("-s", 1.5)])
def test_sizes_with_a_pair_that_has_no_x2(size: tuple[object, ...]) -> None:
    image("a.png", (20, 10))
    for arguments in (("--detail", 0.5), ("-n", "balanced@0.5"), ("--detail", 1), ("-n", "balanced-detail")):
        result = repsr("upscale", "a.png", *arguments, *size, "-y", "--dry-run")
        assert result.exit_code == 0, result.stderr
        assert re.search(r"model balanced-(real-x[34]@0.5|detail-x[34])", result.stderr), result.stderr
    assert repsr("upscale", "a.png", "-n", "balanced-real-x2@0.5", "--width", 40).exit_code == 2


def test_numbered_images_do_not_replace_a_folder(network: Path) -> None:
    video("b.mkv", size=(16, 12))
    Path("out/003.png").mkdir(parents=True)
    for more in ((), ("-y",), ("-y", "--dry-run")):
        result = repsr("upscale", "b.mkv", "-o", "out/%03d.png", "-s", 2, "-n", network, "--allow-loss", *more)
        assert (result.exit_code, "003.png: is a folder" in result.stderr) == (2, True), result.stderr
    assert [path.name for path in Path("out").iterdir()] == ["003.png"]


def test_dry_run_of_a_benchmark_names_no_target(network: Path) -> None:
    image("a.png")
    assert repsr("upscale", "a.png", "-s", 2, "-n", network, "--benchmark", "-o", f"new/{'n' * 300}/").exit_code == 0
    result = repsr("upscale", "a.png", "-s", 2, "-n", network, "--benchmark", "--dry-run")
    assert (result.exit_code, result.stdout) == (0, ""), result.stdout
    assert "nothing to be written" in result.stderr
    record = json.loads(repsr("upscale", "a.png", "-s", 2, "-n", network, "--benchmark", "--dry-run", "--json").stdout)
    assert record["target"] is None


@pytest.mark.parametrize("name", ["a b.png", "写真.png", "[red].png", "#1.png", "-x.png", "100%.png", "ä'\".png"])
def test_odd_names(network: Path, name: str) -> None:
    image(name)
    result = repsr("upscale", "-s", 2, "-n", network, "--", name)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == name.replace(".png", "_x2.png\n")
    assert Path(result.stdout.removesuffix("\n")).is_file()


BAD = {
    "missing": (["none.mp4"], 3, "none.mp4: no such file"),
    "text": (["text.mp4"], 3, "text.mp4: neither an image nor a video"),
    "sound only": (["sound.m4a"], 3, "sound.m4a: "),
    "torn image": (["torn.png"], 3, "torn.png: "),
    "wrong scale": (["a.png", "-s", "0.5"], 2, "--scale 0.5: not a factor of 1 or more"),
    "scale of nothing": (["a.png", "-s", "0"], 2, "--scale 0: not a factor of 1 or more"),
    "width of nothing": (["a.png", "--width", "0"], 2, "--width 0: not a size"),
    "no scale": (["a.png", "-s", "four"], 2, "--scale four: not a factor of 1 or more"),
    "encoder": (["b.mkv", "-c", "libx256"], 2, "--codec libx256: no such encoder here. Did you mean libx265?"),
    "encoder's option": (
        ["b.mkv", "-c", "h264", "-e", "psyrd=1"],
        2,
        "libx264 has no such option. Did you mean psy-rd?",
    ),
    "unwritable": (["a.png", "-o", "text.mp4/b.png"], 3, "text.mp4 cannot be written to"),
    "existing": (["a.png", "-o", "old.png"], 2, "old.png: exists. Add -y to replace it"),
    "itself": (["a.png", "-o", "a.png", "-y"], 2, "a.png: is the input itself"),
    "no input": ([], 2, "repsr upscale: nothing to upscale. Name images, videos or folders"),
    "network": (["a.png", "-n", "fastt"], 4, "fastt: no such model. Did you mean 'fast'?"),
    "size": (["a.png", "-n", "bset"], 4, "bset: no such model. Did you mean 'best'?"),
    "no network file": (["a.png", "-n", "none.safetensors"], 4, "none.safetensors: no such file"),
    "not a network": (["a.png", "-n", "text.mp4"], 4, "text.mp4: "),
    "device": (["a.png", "--device", "cuda:77"], 5, "cuda:77: "),
    "device name": (["a.png", "--device", "abacus"], 2, "abacus: no such device"),
    "tile": (["a.png", "-t", "tiny"], 2, "tiny: not a tile size"),
    "encoder option": (["a.png", "-e", "tune"], 2, "-e tune: not of the form key=value"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_requests_by_message_and_code(network: Path, case: str) -> None:
    arguments, code, message = BAD[case]
    image("a.png"), image("old.png")
    whole = image("torn.png", (64, 64)).read_bytes()
    Path("torn.png").write_bytes(whole[: len(whole) // 2])
    Path("text.mp4").write_text("this is not a video\n" * 30)
    with av.open("sound.m4a", "w", format="ipod") as out:
        stream = out.add_stream("aac", rate=44100, layout="mono")
        out.mux(stream.encode(silence(0)))
        out.mux(stream.encode(None))
    video("b.mkv")
    before = files()
    chosen = [] if "-n" in arguments else ["-n", network]
    result = repsr("upscale", *(arguments if "-s" in arguments else ["-s", 2, *arguments]), *chosen)
    assert result.exit_code == code, result.output
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert files() == before


BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] == {name!r}:
            raise ImportError('libGL.so.1: cannot open shared object file')
sys.meta_path.insert(0, Block())
"""


@pytest.mark.parametrize(
    ("blocked", "arguments"),
    [
        ("cv2", ["--help"]),
        ("cv2", ["train", "--help"]),
        ("cv2", ["upscale", "b.mp4", "a.png", "-s", "2"]),
        ("av", ["train", "--help"]),
        ("av", ["upscale", "a.png", "-s", "2"]),
    ],
)
def test_bare_server(network: Path, blocked: str, arguments: list[str]) -> None:
    image("a.png"), video("b.mp4")
    chosen = ["-n", network] if arguments[0] == "upscale" else []
    result = subprocess.run(
        process(*arguments, *chosen, before=BLOCK.format(name=blocked)), capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout


@pytest.mark.parametrize(
    ("number", "interrupt"),
    [(signal.SIGINT, "default_int_handler"), (signal.SIGTERM, "default_int_handler"), (signal.SIGTERM, "SIG_IGN")],
)
def test_stopped_by_a_signal(tmp_path: Path, number: signal.Signals, interrupt: str) -> None:
    # Shells let what they start in the background ignore SIGINT, these tests perhaps among it.
    before_all = f"import signal; signal.signal(signal.SIGINT, signal.{interrupt})"
    save_plain(tmp_path / "slow.safetensors", PlainSR(Spec(scale=2, channels=64, blocks=16)), {})
    image("a.png", (1500, 1500))
    before = files()
    run = subprocess.Popen(
        process("upscale", "a.png", "-n", "slow.safetensors", "-t", "32", before=before_all),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stderr is not None
    assert "model slow.safetensors" in run.stderr.readline()
    time.sleep(0.5)
    run.send_signal(number)
    messages = run.communicate(timeout=60)[1]
    assert run.returncode == 130, messages
    assert "a.png: stopped; a_x2.png was not written. The same command starts again." in messages
    assert "Traceback" not in messages
    assert files() == before


def test_bars_on_a_terminal(network: Path) -> None:
    video("b.mp4", frames=60)
    main, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    run = subprocess.Popen(
        process("upscale", "b.mp4", "-s", 2, "-n", network), stderr=terminal, stdout=subprocess.PIPE, env=environment
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            chunk = os.read(main, 4096)
        except OSError:  # the terminal's other end is closed
            break
        if not chunk:
            break
        shown += chunk
    assert run.communicate(timeout=60)[0] == b"b_x2.mp4\n"
    assert b"frames" in shown
    assert b"\x1b[" in shown
    assert run.returncode == 0
