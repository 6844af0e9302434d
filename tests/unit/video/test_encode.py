"""Encoder options, pixel formats and packets."""

from __future__ import annotations

from fractions import Fraction
from io import BytesIO
from itertools import islice

import av
import pytest

from repsr_cli.errors import MediaError, UsageError
from repsr_cli.video.colour_tags import ColourTags, HdrMetadata
from repsr_cli.video.encode import SegmentEncoder, open_encoder
from repsr_cli.video.encoders import Encoding, choose_pix_fmt, encoder_named, encoder_options, find_encoder
from repsr_cli.video.planes import planes_of
from repsr_cli.video.y4m import write_frame
from tests.conftest import ROOT
from tests.sample_videos import image

EXAMPLE = ROOT / "examples" / "bbb_480x270.mp4"


def encoding(**changes: object) -> Encoding:
    base = {
        "codec": "libx264",
        "pix_fmt": "yuv420p",
        "height": 36,
        "width": 64,
        "time_base": Fraction(1, 1000),
        "rate": Fraction(25),
        "sar": None,
        "tags": ColourTags(1, 1, 1, 1, "left"),
        "options": (("crf", "20"), ("preset", "ultrafast")),
    }
    return Encoding(**{**base, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("codec", "expected"),
    [
        ("libx264", ("crf", "17")),
        ("libx265", ("crf", "20")),
        ("libsvtav1", ("crf", "26")),
        ("libvpx-vp9", ("crf", "24")),
    ],
)
def test_one_quality_for_all(codec: str, expected: tuple[str, str]) -> None:
    assert expected in encoder_options(codec, None, None, {}, None)


def test_x264_is_told_to_compute_alike_everywhere_and_the_user_may_say_more() -> None:
    hdr = HdrMetadata(None, None, (900, 300))
    assert dict(encoder_options("libx264", None, None, {}, None))["x264-params"] == "cpu-independent=1"
    options = encoder_options("libx264", None, None, {"x264-params": "keyint=7:cpu-independent=0"}, hdr)
    assert dict(options)["x264-params"] == "cpu-independent=1:cll=900,300:keyint=7:cpu-independent=0"
    encoder = SegmentEncoder(encoding(options=options))
    given = [p for n in range(16) for p in encoder.encode(image(n, 36, 64, "yuv420p"), n * 40, 40)]
    assert [p.pts // 40 for p in [*given, *encoder.finish()] if p.key] == [0, 7, 14]


def test_options_of_the_user_win_and_unknown_ones_are_errors() -> None:
    options = dict(encoder_options("libx265", 20, None, {"x265-params": "aq-mode=1", "preset": "fast"}, None))
    assert options["x265-params"] == "log-level=error:aq-mode=1"
    assert options["preset"] == "fast"
    with pytest.raises(UsageError, match="-e nonsense: libx264 has no such option"):
        open_encoder(encoding(options=(("nonsense", "1"),)))


@pytest.mark.parametrize(
    ("codec", "wanted", "size", "chosen"),
    [
        ("libx264", "yuv420p", (36, 64), "yuv420p"),
        ("libx264", "yuv420p", (36, 63), "yuv444p"),
        ("libx264", "yuv420p10le", (35, 64), "yuv422p10le"),
        ("libx264", "yuv422p", (35, 64), "yuv422p"),
        ("libvpx-vp9", "yuv420p", (35, 63), "yuv420p"),
        ("libx264", "gbrp", (36, 64), "yuv444p"),
        ("libx265", "yuv420p12le", (36, 64), "yuv420p12le"),
        ("libsvtav1", "yuv444p", (36, 64), "yuv420p"),
        ("libsvtav1", "gray", (36, 64), "yuv420p"),
        ("ffv1", "gbrp", (36, 64), "gbrp"),
        ("prores_ks", "yuv420p", (36, 64), "yuv422p10le"),
        ("png", "gbrp", (35, 63), "gbrp"),
    ],
)
def test_the_nearest_pixel_format(codec: str, wanted: str, size: tuple[int, int], chosen: str) -> None:
    if codec == "ffv1":
        chosen = choose_pix_fmt(codec, wanted, *size)[0]
        assert chosen in ("gbrp", "gbrp9le", "gbrp10le")
        return
    found, why = choose_pix_fmt(codec, wanted, *size)
    assert found == chosen
    assert (why is None) == (chosen == wanted)


def test_an_encoder_that_loses_frames_is_not_believed() -> None:
    encoder = SegmentEncoder(encoding())
    encoder.encode(image(0, 36, 64, "yuv420p"), 0, 40)
    encoder.frames += 1
    with pytest.raises(MediaError, match="gave 1 packets for 2 frames"):
        encoder.finish()


@pytest.mark.parametrize(
    ("codec", "pix_fmt"),
    [
        ("ffv1", "yuv420p"),
        ("ffv1", "yuv444p"),
        ("ffv1", "yuv420p10le"),
        ("ffvhuff", "yuv420p"),
        ("huffyuv", "yuv422p"),
        ("utvideo", "yuv444p"),
        ("png", "gbrp"),
        ("png", "gbrp16le"),
        ("png", "gray"),
        ("png", "gray16le"),
        ("jpeg2000", "yuv420p"),
        ("prores_ks", "yuv422p10le"),
    ],
)
def test_encoders_need_about_what_is_expected(codec: str, pix_fmt: str) -> None:
    settings = encoding(codec=codec, pix_fmt=pix_fmt, height=540, width=960, options=())
    encoder, size = SegmentEncoder(settings), 0
    with av.open(str(EXAMPLE)) as clip:
        for number, frame in enumerate(islice(clip.decode(video=0), 3)):
            enlarged = frame.reformat(960, 540, pix_fmt, interpolation="BICUBIC")
            size += sum(len(packet.data) for packet in encoder.encode(planes_of(enlarged, pix_fmt), 40 * number, 40))
    size += sum(len(packet.data) for packet in encoder.finish())
    assert 0.6 * size < settings.bytes_expected(3) < 2 * size, size / (3 * 540 * 960) * 8


@pytest.mark.parametrize(("pix_fmt", "bits"), [("yuv420p", 12), ("yuv422p10le", 32), ("yuv444p", 24), ("gray", 8)])
def test_raw_frames_need_what_is_expected(pix_fmt: str, bits: int) -> None:
    settings = encoding(codec="rawvideo", pix_fmt=pix_fmt)
    file = BytesIO()
    write_frame(file, image(0, 36, 64, pix_fmt))
    assert settings.bytes_expected(1) == bits * 36 * 64 // 8
    assert settings.bytes_expected(3) == 3 * (len(file.getvalue()) - len(b"FRAME\n"))


@pytest.mark.parametrize("frames", [1, 2, 3, 7])
def test_x265_decodes_every_frame_before_it_shows_it(frames: int) -> None:
    options = (("x265-params", "log-level=error:frame-threads=2"),)
    for _ in range(4):  # what x265 makes of few frames depends on what lay in memory before
        encoder = SegmentEncoder(encoding(codec="libx265", options=options))
        given = [p for n in range(frames) for p in encoder.encode(image(n, 36, 64, "yuv420p"), 400 + n * 40, 40)]
        packets = [*given, *encoder.finish()]
        times = [p.dts for p in packets]
        assert times == sorted(set(times))
        assert all(400 - 17 * 40 <= p.dts <= p.pts for p in packets)


@pytest.mark.parametrize(
    ("name", "encoder"),
    [
        ("h264", "libx264"),
        ("H.265", "libx265"),
        ("hevc", "libx265"),
        ("av1", "libsvtav1"),
        ("vp9", "libvpx-vp9"),
        ("prores", "prores_ks"),
        ("ffv1", "ffv1"),
        ("hevc_nvenc", "hevc_nvenc"),
    ],
)
def test_codecs_have_an_encoder(name: str, encoder: str) -> None:
    assert encoder_named(name) == encoder


@pytest.mark.parametrize(
    ("name", "near"), [("libx256", "libx265"), ("h256", "h265"), ("libsvt-av1", "libsvtav1"), ("porres", "prores")]
)
def test_misspelt_encoders(name: str, near: str) -> None:
    with pytest.raises(UsageError, match=f"Did you mean {near}?"):
        find_encoder(name)
