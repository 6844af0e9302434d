"""Test comparisons of images and of videos."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from repsr_cli.compare import comparison
from repsr_cli.compare.images import GAP, shown
from repsr_cli.compare.options import CompareOptions, Crop, Form, PreviewOptions, parse_crop
from repsr_cli.compare.preview import preview
from repsr_cli.errors import MediaError, UsageError
from repsr_cli.image.files import open_image
from repsr_cli.reporting import Outcome
from repsr_cli.upscale.request import Request
from repsr_cli.yuv.formats import PlaneFormat
from repsr_cli.yuv.matrices import samples_from_rgb
from tests.e2e.test_video_reading import with_clean_aperture
from tests.sample_videos import make_video

RED, BLUE, WHITE = (200, 30, 30), (30, 30, 200), (255, 255, 255)


def plain(path: Path, colour: tuple[int, ...], size: tuple[int, int], format: str = "PNG") -> Path:
    Image.new("RGB", size, colour).save(path, format)
    return path


def one_colour_video(
    path: Path, colour: tuple[int, int, int], size: tuple[int, int], times: list[int], base: int
) -> Path:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", options={"crf": "1"})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv444p" if size[0] % 2 else "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, base)
        for time in times:
            frame = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), colour, np.uint8), "rgb24")
            frame.pts, frame.time_base = time, Fraction(1, base)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def compare(before: Path, after: Path, output: Path | None, form: str, **options: Any) -> Outcome:
    chosen: Any = {"beside": {}, "page": {"html": True}}.get(form, {form: True})
    return comparison.compare(before, after, CompareOptions(output, **chosen, **options))


def shown_frame(path: Path, number: int = 0) -> np.ndarray:
    """A frame of a video in RGB, by FFmpeg's decoder and scaler alone."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return frames[number].to_ndarray(format="rgb24")


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_images_side_by_side(tmp_path: Path) -> None:
    small, large = plain(tmp_path / "a [red].png", RED, (8, 6)), plain(tmp_path / "b.png", BLUE, (32, 24))
    outcome = compare(small, large, None, "beside")
    assert outcome.target == tmp_path / "a [red]_vs_b.png"
    result = pixels(outcome.target)
    assert result.shape == (24, 64 + GAP, 3)
    assert (result[:, :32] == RED).all()
    assert (result[:, 32 : 32 + GAP] == WHITE).all()
    assert (result[:, 32 + GAP :] == BLUE).all()


def test_images_split_and_cropped(tmp_path: Path) -> None:
    small, large = plain(tmp_path / "a.png", RED, (8, 6)), plain(tmp_path / "b.png", BLUE, (32, 24))
    result = pixels(compare(small, large, tmp_path / "s.png", "split", crop=Crop(20, 10, 12, 14)).target)
    assert result.shape == (10, 20, 3)
    assert (result[:, :9] == RED).all()
    assert (result[:, 11:] == BLUE).all()


@pytest.mark.parametrize("suffix", [".png", ".webp", ".gif"])
def test_images_blink(tmp_path: Path, suffix: str) -> None:
    small, large = plain(tmp_path / "a.png", RED, (8, 6)), plain(tmp_path / "b.png", BLUE, (32, 24))
    source = open_image(compare(small, large, tmp_path / f"c{suffix}", "blink", crop=Crop(20, 10, 2, 2)).target)
    assert (source.count, source.loop) == (2, 0)
    for page, colour in zip(source.pages(), (RED, BLUE), strict=True):
        assert page.duration == Fraction(7, 10)
        assert page.read().pixels.shape == (10, 20, 3)
        assert (page.read().pixels == colour).all()


def test_transparency_and_depth_as_a_screen_shows_them(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 65535, np.uint16)).save(tmp_path / "deep.png")
    Image.new("RGBA", (4, 4), (255, 255, 255, 0)).save(tmp_path / "clear.png")
    result = pixels(compare(tmp_path / "deep.png", tmp_path / "clear.png", tmp_path / "s.png", "beside").target)
    assert (result[:, :4] == 255).all()
    assert (result[:, 4 + GAP :] == 128).all()


@pytest.mark.parametrize("form", ["beside", "split"])
def test_videos_meet_by_time(tmp_path: Path, form: Form) -> None:
    before = one_colour_video(tmp_path / "a.mkv", RED, (32, 16), [0, 33, 67, 100], 1000)
    after = one_colour_video(tmp_path / "b.mp4", BLUE, (65, 32), [0, 1000, 2100, 3000, 4500], 30_000)
    target = compare(before, after, tmp_path / "c.mp4", form).target
    with av.open(str(target)) as result:
        frames = list(result.decode(video=0))
    assert [float(frame.time or 0) for frame in frames] == pytest.approx([0, 1 / 30, 0.07, 0.1, 0.15], abs=1e-4)
    assert (frames[0].colorspace, frames[0].color_range) == (1, 1)  # BT.709, video range
    luma = frames[-1].to_ndarray()[:32].astype(float)
    half = luma.shape[1] // 2
    assert half == (32 if form == "split" else 64)
    matrix, offset = samples_from_rgb(PlaneFormat("bt709", full_range=False, depth=8))
    for colour, side in ((RED, luma[:, : half - 4]), (BLUE, luma[:, half + 4 :])):
        assert np.abs(side - (matrix @ np.array(colour) / 255 + offset)[0]).max() < 4


@pytest.mark.parametrize("form", ["beside", "split"])
@pytest.mark.parametrize("size", [(34, 48), (36, 64), (62, 96), (30, 46), (180, 320)])
def test_every_row_of_videos_is_shown(tmp_path: Path, form: Form, size: tuple[int, int]) -> None:
    before = make_video(tmp_path / "a.mp4", range(3), size=size, audio=0)
    after = make_video(tmp_path / "b.mp4", range(3), size=(2 * size[0], 2 * size[1]), audio=0)
    result = shown_frame(compare(before, after, tmp_path / "c.mp4", form).target).astype(float)
    width, height = 2 * size[1], 2 * size[0]
    assert result.shape == (height, width * (1 if form == "split" else 2), 3)
    enlarged = Image.fromarray(shown_frame(before)).resize((width, height), Image.Resampling.BICUBIC)
    sides = np.asarray(enlarged, float), shown_frame(after).astype(float)
    if form == "split":
        middle = width // 4 * 2
        sides = sides[0][:, :middle], sides[1][:, middle:]
    parts = result[:, : sides[0].shape[1] - 6], result[:, -sides[1].shape[1] + 6 :]
    wanted = sides[0][:, :-6], sides[1][:, 6:]
    for part, whole in zip(parts, wanted, strict=True):
        assert np.abs(part - whole).mean(axis=(1, 2)).max() < 20


@pytest.mark.parametrize("form", ["beside", "split"])
@pytest.mark.parametrize("size", [(64, 34), (66, 38), (65, 35), (67, 33), (2, 2)])
def test_videos_of_any_size_are_shown(tmp_path: Path, form: Form, size: tuple[int, int]) -> None:
    before = one_colour_video(tmp_path / "a.mkv", RED, (32, 16), [0, 1, 2], 30)
    after = one_colour_video(tmp_path / "b.mkv", BLUE, size, [0, 1, 2], 30)
    result = shown_frame(compare(before, after, tmp_path / "c.mp4", form).target, 2).astype(int)
    width, height = (side // 2 * 2 for side in size)
    assert result.shape == (height, width if form == "split" else 2 * width, 3)
    if width > 16:
        assert np.abs(result[:, :8] - RED).max() < 9
        assert np.abs(result[:, -8:] - BLUE).max() < 9


def test_videos_that_begin_at_different_times_are_shown_in_step(tmp_path: Path) -> None:
    early = make_video(tmp_path / "a.mp4", range(20), size=(48, 64), audio=1)
    late = tmp_path / "b.mkv"
    with av.open(str(early)) as source, av.open(str(late), "w") as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None and packet.pts is not None:
                two_seconds = round(2 / packet.time_base)
                packet.pts, packet.dts = packet.pts + two_seconds, packet.dts + two_seconds
                packet.stream = streams[packet.stream_index]
                out.mux(packet)
    for number, (before, after) in enumerate(((early, late), (late, early))):
        with av.open(str(compare(before, after, tmp_path / f"{number}.mp4", "beside").target)) as result:
            frames = [frame.to_ndarray(format="gray").astype(float) for frame in result.decode(video=0)]
            begins = [float((stream.start_time or 0) * (stream.time_base or 0)) for stream in result.streams]
        assert len(frames) == 20
        assert max(np.abs(frame[:, :60] - frame[:, 64:124]).mean() for frame in frames) < 12
        assert begins[0] == pytest.approx(begins[1], abs=0.05)
        shown = pixels(compare(before, after, tmp_path / f"{number}.png", "beside", at=0.5).target).astype(float)
        assert np.abs(shown[:, :64] - shown[:, 64 + GAP :]).mean() < 3


@pytest.mark.parametrize("longer", ["first", "second"])
def test_the_last_frame_of_the_shorter_video_stays(tmp_path: Path, longer: str) -> None:
    long = make_video(tmp_path / "a.mp4", range(40), size=(48, 64), audio=1)
    short = one_colour_video(tmp_path / "b.mkv", BLUE, (64, 48), [0, 40, 80], 1000)
    before, after = (long, short) if longer == "first" else (short, long)
    with av.open(str(compare(before, after, tmp_path / "c.mp4", "beside").target)) as result:
        frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in result.decode(video=0)]
    assert len(frames) == 40
    assert np.abs((frames[-1][:, -40:] if longer == "first" else frames[-1][:, :40]) - BLUE).max() < 9


@pytest.mark.parametrize("form", ["beside", "split"])
def test_videos_are_cropped_as_for_upscaling(tmp_path: Path, form: Form) -> None:
    plain = make_video(tmp_path / "a.mp4", range(6), size=(48, 96), audio=0)
    whole = shown_frame(plain).astype(int)
    source = with_clean_aperture(plain, 8, 4, 2, 6, (48, 96))
    wanted, beside = whole[8:44, 2:90], whole[6:42, :88]
    result = pixels(compare(source, source, tmp_path / "c.png", form, at=0.0).target).astype(int)
    assert result.shape[:2] == (36, 88 if form == "split" else 2 * 88 + GAP)
    for part in (slice(None, 40), slice(-40, None)):
        error, other = (np.abs(result[:, part] - each[:, part]).mean() for each in (wanted, beside))
        assert error < other / 4
    target = compare(source, source, tmp_path / "c.mp4", form).target
    moving = shown_frame(target).astype(int)
    assert moving.shape[:2] == (36, 88 if form == "split" else 2 * 88)
    error, other = (np.abs(moving[:, :40] - each[:, :40]).mean() for each in (wanted, beside))
    assert error < other / 2


def test_videos_are_timed_as_for_upscaling(tmp_path: Path) -> None:
    part = make_video(tmp_path / "part.ts", range(24), size=(48, 64), options={"bf": "2"})
    source = tmp_path / "a.ts"
    source.write_bytes(2 * part.read_bytes())  # the clock starts again
    target = compare(source, source, tmp_path / "c.mp4", "beside").target
    with av.open(str(target)) as result:
        times = [frame.time or 0.0 for frame in result.decode(video=0)]
    assert np.diff(times) == pytest.approx(np.full(47, 0.04), abs=1e-4)
    with av.open(str(target)) as result:
        heard = [frame.time or 0.0 for frame in result.decode(audio=0)]
    assert min(np.diff(heard)) > 0
    assert heard[-1] == pytest.approx(times[-1], abs=0.2)
    one = pixels(compare(source, source, tmp_path / "c.png", "beside", at=times[30] - times[0] + 0.001).target).astype(
        int
    )
    frames = [np.abs(one[:, :64] - shown_frame(part, number)).mean() for number in range(24)]
    assert int(np.argmin(frames)) == 6


@pytest.mark.parametrize("channels", [1, 2])
def test_sound_of_the_first_video_is_kept(tmp_path: Path, channels: int) -> None:
    before, after = tmp_path / "a.mkv", one_colour_video(tmp_path / "b.mp4", BLUE, (64, 32), list(range(30)), 30)
    tone = np.sin(np.arange(44_100) * 2 * np.pi * 441 / 44_100).astype(np.float32) / 2
    with av.open(str(before), "w") as out:
        image = out.add_stream("libx264", rate=30)
        image.width, image.height, image.pix_fmt = 32, 16, "yuv420p"
        sound = out.add_stream("flac", rate=44_100, layout="mono" if channels == 1 else "stereo")
        for _ in range(30):
            out.mux(image.encode(av.VideoFrame.from_ndarray(np.full((16, 32, 3), RED, np.uint8), "rgb24")))
        frame = av.AudioFrame.from_ndarray(np.repeat(tone[None], channels, 0), "fltp", sound.layout.name)
        frame.sample_rate, frame.pts = 44_100, 0
        out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
        out.mux(image.encode(None))
    with av.open(str(compare(before, after, tmp_path / "c.mp4", "split").target)) as result:
        (stream,) = result.streams.audio
        heard = np.concatenate([frame.to_ndarray() for frame in result.decode(stream)], axis=1)
        assert (stream.codec_context.name, len(heard)) == ("aac", channels)
    assert heard.shape[1] == pytest.approx(44_100, abs=2048)
    # AAC is lossy; what must be there is the tone, at its time and loudness.
    middle = heard[0, 4096:40_000]
    assert np.corrcoef(middle, tone[4096:40_000])[0, 1] > 0.99
    assert np.abs(middle).max() == pytest.approx(0.5, rel=0.1)


def test_one_frame_of_videos_as_a_image(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "b.mkv"), "w") as out:  # red for 1 s, then blue
        stream = out.add_stream("libx264", rate=2, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        for colour in (RED, RED, BLUE, BLUE):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((32, 64, 3), colour, np.uint8), "rgb24")))
        out.mux(stream.encode(None))
    after = tmp_path / "b.mkv"
    before = one_colour_video(tmp_path / "a.mkv", RED, (32, 16), [0, 500, 1000, 1500], 1000)
    for at, colour in ((0.0, RED), (0.9, RED), (1.0, BLUE), (1.7, BLUE)):
        target = compare(before, after, tmp_path / f"{at}.png", "beside", at=at, crop=Crop(20, 10, 5, 5)).target
        shown = pixels(target).astype(int)
        assert shown.shape == (10, 40 + GAP, 3)
        assert np.abs(shown[:, :20] - RED).max() < 6
        assert np.abs(shown[:, 20 + GAP :] - colour).max() < 6
    with pytest.raises(UsageError, match="is shorter than 9 s"):
        compare(before, after, None, "beside", at=9)


@pytest.mark.parametrize("at", [None, 0.0])
def test_a_file_named_like_an_address_is_read_and_not_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: float | None
) -> None:
    connections: list[object] = []

    def hang_up() -> None:
        with suppress(OSError):  # the server is closed
            while True:
                connection, address = server.accept()
                connections.append(address)
                connection.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        folder = tmp_path / "http:" / f"127.0.0.1:{server.getsockname()[1]}"
        folder.mkdir(parents=True)
        for name, colour in (("a.mkv", RED), ("b.mkv", BLUE)):
            one_colour_video(tmp_path / name, colour, (32, 16), [0, 1], 30).replace(folder / name)
        monkeypatch.chdir(tmp_path)
        before, after = (folder.relative_to(tmp_path) / name for name in ("a.mkv", "b.mkv"))
        assert compare(before, after, None, "beside", at=at).target.exists()
        assert not connections
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_page_is_one_file_and_names_are_text(tmp_path: Path) -> None:
    before = plain(tmp_path / "<script>.bmp", RED, (8, 6), "BMP")
    after = plain(tmp_path / "b.webp", BLUE, (32, 24), "WEBP")
    page = compare(before, after, None, "page").target.read_text()
    assert "<script>." not in page
    assert "&lt;script&gt;.bmp" in page
    assert page.count("data:image/png;base64,") == page.count("data:image/webp;base64,") == 1
    assert "http" not in page
    assert "clip-path: inset(" in page
    videos = [one_colour_video(tmp_path / f"{n}.mp4", RED, (32, 16), [0, 1], 30) for n in "xy"]
    assert compare(videos[0], videos[1], None, "page").target.read_text().count("data:video/mp4;base64,") == 2


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_page_in_a_browser(tmp_path: Path) -> None:
    before, after = plain(tmp_path / "a.png", RED, (40, 20)), plain(tmp_path / "b.png", BLUE, (160, 80))
    page = compare(before, after, tmp_path / "p.html", "page").target
    shot = tmp_path / "shot.png"
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--window-size=400,300"]
    subprocess.run([*command, f"--screenshot={shot}", page.as_uri()], check=True, capture_output=True, timeout=60)
    shown = pixels(shot)
    assert (shown == RED).all(axis=-1).sum() == pytest.approx(80 * 80, rel=0.15)
    assert (shown == BLUE).all(axis=-1).sum() == pytest.approx(80 * 80, rel=0.15)


PRESSED = """<script>
  for (const target of [document.body, slider])
    target.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true, cancelable: true }));
  document.title = "line at " + slider.value;
</script>"""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_arrow_keys_move_the_line_whether_the_slider_has_the_focus_or_not(tmp_path: Path) -> None:
    before, after = plain(tmp_path / "a.png", RED, (40, 20)), plain(tmp_path / "b.png", BLUE, (160, 80))
    compared = compare(before, after, tmp_path / "c.html", "page").target
    previewed = preview([str(before)], Request.of(scale=2.0), PreviewOptions(models=("light",)), print)
    for page in (compared, previewed):
        page.write_text(page.read_text() + PRESSED)
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", page.as_uri()]
        shown = subprocess.run(command, check=True, capture_output=True, timeout=60, text=True).stdout
        assert "<title>line at 54</title>" in shown


def test_refusals_leave_nothing_behind(tmp_path: Path) -> None:
    a, b = plain(tmp_path / "a.png", RED, (8, 6)), plain(tmp_path / "b.png", BLUE, (8, 6))
    video = one_colour_video(tmp_path / "c.mkv", RED, (32, 16), [0, 1], 30)
    torn = tmp_path / "torn.png"
    torn.write_bytes(a.read_bytes()[:60])
    names = sorted(path.name for path in tmp_path.iterdir())
    for before, after, form, error, text in (
        (a, video, "beside", UsageError, "one is an image, one a video"),
        (a, tmp_path / "none.png", "beside", MediaError, "no such file"),
        (video, video, "page", UsageError, "browsers show mp4 and webm only"),
        (video, video, "blink", UsageError, "is for images"),
        (torn, b, "beside", MediaError, "torn.png"),
    ):
        with pytest.raises(error, match=text):
            compare(before, after, None, form)
    with pytest.raises(UsageError, match="has no animation"):
        compare(a, b, tmp_path / "c.jpg", "blink")
    with pytest.raises(UsageError, match="outside"):
        compare(a, b, None, "split", crop=Crop(8, 6, 1, 0))
    for still in ({"at": 1.0}, {"crop": Crop(1, 1, 0, 0)}):
        with pytest.raises(UsageError, match="is for"):
            compare(*((a, b) if "at" in still else (video, video)), None, "split", **still)
        with pytest.raises(UsageError, match="is for"):
            compare(a, b, None, "page", **still)
    for name in ("c.xyz", "c"):
        with pytest.raises(UsageError, match="not an image format"):
            compare(a, b, tmp_path / name, "split")
    with pytest.raises(UsageError, match="is one of the files to compare"):
        compare(a, b, a, "split", overwrite=True)
    with pytest.raises(UsageError, match="exists"):
        compare(a, b, torn, "split")
    with pytest.raises(UsageError, match="more than one was given"):
        comparison.compare(a, b, CompareOptions(html=True, split=True))
    with pytest.raises(MediaError, match="cannot be written"):
        compare(a, b, a / "x.png", "split")
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_crop_as_typed() -> None:
    assert parse_crop("--crop", "640x360+100+50") == Crop(640, 360, 100, 50)
    for wrong in ("640x360", "0x1+0+0", "axb+0+0", "1x1-1+0"):
        with pytest.raises(UsageError):
            parse_crop("--crop", wrong)


def test_measurements_are_stretched_and_light_is_clipped(tmp_path: Path) -> None:
    ramp = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    for offset, factor in ((300, 2000), (-500, 100)):
        Image.fromarray(ramp * factor + offset).save(tmp_path / "a.tif")
        assert np.array_equal(shown(tmp_path / "a.tif")[..., 0], np.floor(ramp * 255 + 0.5))
    Image.fromarray(ramp * 1.5).save(tmp_path / "a.tif")
    assert np.array_equal(shown(tmp_path / "a.tif")[..., 0], np.floor(np.minimum(ramp * 1.5, 1) * 255 + 0.5))
