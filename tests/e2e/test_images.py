"""Real images, the hard ones, in and out: every one comes back alike, or is refused with its reason."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import RepsrError
from repsr_cli.image.files import open_image, read_image, write_image
from repsr_cli.image.formats import FORMATS, is_image
from repsr_cli.image.page import Page, Strip
from repsr_cli.model.plain import identity_network
from repsr_cli.reporting import Outcome, Reporter
from repsr_cli.upscale.request import Request
from tests.conftest import ROOT
from tests.upscaling import upscale_image

# Why each of these cannot be upscaled; every other one must be.
REFUSED = {
    "apng_sequence_gap.png": "missing or out of order",
    "balloon_eciRGBv2_aware.jp2": "broken data stream",
    "broken.png": "damaged",
    "broken_data_stream.png": "damaged",
    "corrupt_openexr_heap_overflow.exr": "OpenEXR",
    "crash-0e16d3bfb83be87356d026d66919deaefca44dac.tif": "damaged",
    "crash-338516dbd2f0e83caddb8ce256c22db3bd6dc40f.tif": "damaged",
    "decompression_bomb.gif": "limit",
    "decompression_bomb.ico": "cannot be decoded",
    "exr_BrightRingsNanInf.exr": "OpenEXR",
    "exr_displaywindow_t05.exr": "OpenEXR",
    "exr_yc_Garden.exr": "OpenEXR",
    "hopper_unknown_pixel_mode.tif": "32-bit integers",
    "truncated_end_chunk.png": "ends early",
    "truncated_image.png": "ends early",
    "ultrahdr.jpg": "truncated",
    "zero_width.gif": "damaged or of an unknown kind",
}
# Formats that lose something by their nature: how far pixels may move.
LOSSY = {"JPEG": 32, "WEBP": 48, "AVIF": 32, "JPEG2000": 0, "GIF": 80}


def hard_images() -> list[str]:
    folder = Path(os.environ.get("REPSR_TEST_DATA", ROOT.parent / "shared" / "data")) / "images"
    return sorted(path.name for path in folder.glob("*.*") if path.suffix != ".md") or ["none"]


@pytest.fixture(scope="module")
def upscalers() -> dict[int, Upscaler]:
    return {scale: Upscaler(identity_network(scale), device="cpu") for scale in (1, 2)}


def target_for(source: Path, folder: Path) -> Path:
    known = {suffix for fmt in FORMATS for suffix in fmt.suffixes}
    deep_jp2 = source.suffix == ".jp2"
    return folder / (source.stem + (source.suffix if source.suffix in known and not deep_jp2 else ".png"))


@pytest.mark.parametrize("name", hard_images())
def test_in_and_out(real_data: Path, tmp_path: Path, upscalers: dict[int, Upscaler], name: str) -> None:
    source = real_data / "images" / name
    target = target_for(source, tmp_path)
    # Enlarging by 1 sends the large ones the same way in a fraction of the time.
    scale = 2 if source.stat().st_size < 200_000 and source.suffix != ".gif" and "g4" not in name else 1
    if name in REFUSED:
        with pytest.raises(RepsrError, match=REFUSED[name]) as caught:
            upscale(source, target, upscalers[scale])
        assert name in str(caught.value)
        assert caught.value.remedy
        assert not list(tmp_path.iterdir())
        return
    upscale(source, target, upscalers[scale])
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    before, after = open_image(source), open_image(target)
    assert (after.count, after.loop) == (before.count, before.loop)
    assert (after.height, after.width) == (before.height * scale, before.width * scale)
    for old, new in zip(before.pages(), after.pages(), strict=True):
        compare(old, new, scale, LOSSY.get(after.format, 0))


def upscale(source: Path, target: Path, upscaler: Upscaler) -> Outcome:
    return upscale_image(source, target, upscaler, Request(), Reporter())


def compare(old: Page, new: Page, scale: int, tolerance: int) -> None:
    assert new.dtype == old.dtype
    assert new.duration == old.duration
    assert new.channels == old.channels
    assert (new.alpha, new.metadata.icc) == (old.alpha, old.metadata.icc)
    assert new.metadata.xmp == old.metadata.xmp
    assert new.metadata.text == old.metadata.text
    assert new.metadata.colour == old.metadata.colour
    if old.metadata.dpi is not None:
        assert new.metadata.dpi == pytest.approx(old.metadata.dpi, rel=0.001)
    before, after = old.read(), new.read()
    expected = before.pixels.repeat(scale, 0).repeat(scale, 1)
    difference = np.maximum(expected, after.pixels) - np.minimum(expected, after.pixels)
    if before.alpha is not None:
        assert after.alpha is not None
        shows = before.alpha.repeat(scale, 0).repeat(scale, 1) > 0
        difference = difference[shows & (after.alpha > 0)]
        assert (before.alpha.min() == after.alpha.min()) or tolerance
        assert (before.alpha.max() == after.alpha.max()) or tolerance
    assert difference.max(initial=0) <= tolerance


def test_pillow_agrees_about_what_was_written(real_data: Path, tmp_path: Path, upscalers: dict[int, Upscaler]) -> None:
    """A reader that is not ours finds the modes, profiles and depths of the originals."""
    for name, mode in {
        "flower_ga.png": "LA",
        "i_trns.png": "RGBA",
        "hopper_gray.jpg": "L",
        "flower_cmyk.jpg": "RGB",
        "icc_profile.png": "RGBA",
        "16bit.cropped.tif": "I;16",
        "tiff_16bit_RGBa.tiff": "RGBA",
        "hopper.iccprofile.tif": "RGB",
    }.items():
        source = real_data / "images" / name
        target = tmp_path / name
        upscale(source, target, upscalers[1])
        with Image.open(source) as before, Image.open(target) as after:
            after.load()
            assert after.mode == mode
            assert after.info.get("icc_profile") == before.info.get("icc_profile")
            assert after.size == before.size


MUTATED = (
    *("7x13.png", "apng_delay.png", "pil123p.png", "i_trns.png", "hopper_gray.jpg", "hopper_orientation_6.webp"),
    *("hopper.avif", "star.avifs", "dispose_bgnd_transparency.gif", "tiff_16bit_RGBa.tiff", "12in16bit.tif"),
    *("tiff_strip_cmyk_jpeg.tif", "multipage.tiff", "16bit.cropped.jp2", "python.ico", "hopper.bmp"),
)


@pytest.mark.parametrize("name", MUTATED)
def test_mutated_images_are_read_or_refused(real_data: Path, tmp_path: Path, name: str) -> None:
    whole = (real_data / "images" / name).read_bytes()
    path = tmp_path / name
    for seed in range(20):
        dice = random.Random(f"{name} {seed}")
        data = bytearray(whole)
        match seed % 4:
            case 0:
                del data[dice.randrange(1, len(data)) :]
            case 1:
                for _ in range(8):
                    data[dice.randrange(len(data))] = dice.randrange(256)
            case 2:
                for _ in range(3):
                    data[dice.randrange(min(len(data), 300))] = dice.choice((0, 1, 127, 128, 255))
            case 3:
                at = dice.randrange(len(data))
                data[at : at + dice.randrange(9)] = dice.randbytes(dice.randrange(9))
        path.write_bytes(bytes(data))
        # Anything but a RepsrError fails the test; so would a header that claims more memory than there is.
        with suppress(RepsrError):
            for page in open_image(path, max_pixels=1 << 20).pages():
                for _ in page.strips():
                    pass


def test_every_hard_image_is_known_for_one(real_data: Path) -> None:
    unknown = [path.name for path in (real_data / "images").glob("*.*") if not is_image(path)]
    assert unknown == ["README.md"]


PEAK = """
import resource, sys
from pathlib import Path
import torch
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.spec import Spec
from repsr_cli.reporting import Reporter
from repsr_cli.upscale.request import Request
from repsr_cli.upscale import image as module
from tests.upscaling import upscale_image
from repsr_cli.image import png as image_png
from repsr_cli.image import tiff as image_tiff
from tests.upscaling import upscale_image
module._STRIP_PIXELS = image_png._STRIP_BYTES = image_tiff._BLOCK_BYTES = image_tiff._WRITTEN_BYTES = 1 << 18
upscaler = Upscaler(PlainSR(Spec(2, 4, 1)), device="cpu", threads=1)
upscaler(torch.rand(1, 3, 256, 1000))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for source in map(Path, sys.argv[1:]):
    upscale_image(source, source.with_stem(source.stem + "_x2"), upscaler, Request(), Reporter())
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only")
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_memory_does_not_grow_with_the_image(tmp_path: Path, suffix: str) -> None:
    """Four times the rows, no more memory; the larger one's output alone would be 49 MB."""
    rows = np.random.default_rng(0).integers(0, 4, (64, 1000, 3), np.uint8)
    heights = (1024, 4096)
    for height in heights:
        strips = [Strip(rows)] * (height // 64)
        write_image(tmp_path / f"{height}{suffix}", [Page(height, 1000, 3, rows.dtype, False, strips.__iter__)])
    command = [sys.executable, "-c", PEAK, *(str(tmp_path / f"{height}{suffix}") for height in heights)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    peaks = [int(line) for line in printed.split()]
    assert len(peaks) == 2
    assert peaks[1] < peaks[0] + 16, peaks


def test_a_written_page_is_read_by_its_strips(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (700, 4500, 3), np.uint8)
    for suffix in (".png", ".tif"):
        write_image(tmp_path / f"a{suffix}", [read_page(pixels)])
        (page,) = open_image(tmp_path / f"a{suffix}").pages()
        assert len(list(page.strips())) > 1
        assert np.array_equal(read_image(tmp_path / f"a{suffix}").pixels, pixels)


def read_page(pixels: np.ndarray) -> Page:
    height, width, channels = pixels.shape
    return Page(height, width, channels, pixels.dtype, False, lambda: iter([Strip(pixels)]))
