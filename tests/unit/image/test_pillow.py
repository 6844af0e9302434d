"""What Pillow writes is whole, or an error."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

from repsr_cli.errors import MediaError
from repsr_cli.image.files import Page, Strip, write_image

resource = pytest.importorskip("resource", reason="limits of files as POSIX has them")


def noise(height: int, width: int) -> Page:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
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
