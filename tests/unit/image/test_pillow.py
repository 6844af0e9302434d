"""What Pillow writes is whole, or an error."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repsr_cli.errors import MediaError
from repsr_cli.image.files import open_image, write_image
from repsr_cli.image.page import Page, Strip
from repsr_cli.image.pillow import write_pillow

resource = pytest.importorskip("resource", reason="limits of files as POSIX has them")


def noise(height: int, width: int, seed: int = 0) -> Page:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Page(height, width, 3, np.dtype(np.uint8), False, lambda: iter((Strip(pixels),)))


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".bmp", ".jp2", ".ppm", ".avif"])
def test_a_disk_that_is_full_a_byte_too_early_is_noticed(tmp_path: Path, suffix: str) -> None:
    """A write that crosses the limit is cut short and reports how much it wrote; only the next one fails."""
    target = tmp_path / f"out{suffix}"
    write_image(target, iter((noise(90, 120),)))
    size = target.stat().st_size
    target.unlink()
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        for short in (1, 100):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size - short, usual[1]))
            with pytest.raises(MediaError, match="cannot be written"):
                write_image(target, iter((noise(90, 120),)))
            assert not list(tmp_path.iterdir())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_ends_a_jpeg_2000() -> None:
    """Its encoder would try for ever to write to a descriptor."""
    with Path("/dev/full").open("w+b", buffering=0) as full, pytest.raises(OSError, match="No space left"):
        write_pillow(full, "JPEG2000", [noise(90, 120)], count=1, loop=None, lossless=True)


def fail_with(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Let Pillow's encoders raise this."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr(Image.Image, "save", fail)


def test_an_encoder_that_fails_is_an_error_of_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, "Failed to encode image: Encoding of color planes failed")
    with pytest.raises(MediaError, match="the AVIF encoder refuses it: Failed to encode image"):
        write_image(tmp_path / "a.avif", iter((noise(16, 24),)))
    assert not list(tmp_path.iterdir())


def test_what_fails_while_pages_are_made_is_not_the_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, "the network failed")
    with pytest.raises(RuntimeError, match="the network failed"):
        write_image(tmp_path / "a.avif", iter((noise(16, 24),)))


@pytest.mark.parametrize("suffix", [".webp", ".avif"])
def test_only_one_frame_of_an_animation_is_asked_for_at_a_time(tmp_path: Path, suffix: str) -> None:
    asked: list[int] = []

    def pages() -> Iterator[Page]:
        for number in range(4):
            asked.append(number)
            yield replace(noise(16, 24, number), duration=Fraction(number + 1, 10))

    write_image(tmp_path / f"a{suffix}", pages(), count=4, loop=0)
    assert asked == [0, 1, 2, 3]
    found = list(open_image(tmp_path / f"a{suffix}").pages())
    assert [page.duration for page in found] == [Fraction(number + 1, 10) for number in range(4)]
