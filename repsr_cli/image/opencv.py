"""Decode with OpenCV what Pillow cannot: Radiance HDR, and AVIF and JPEG 2000 at more than 8 bit.

OpenCV is imported when such a file is met and no sooner: its usual package wants a system library that servers lack,
and there everything else works.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from repsr_cli.errors import MediaError, shortage
from repsr_cli.files import reading
from repsr_cli.image.page import Metadata, Page, Stored, page_of

# The only order of rows and columns that OpenCV, and nearly every writer, knows.
_RESOLUTION = re.compile(rb"\n-Y ([0-9]{1,9}) \+X ([0-9]{1,9})\n")


def open_hdr(path: Path) -> Stored:
    """Read the header of a Radiance HDR image (RGBE): linear light as floats, no upper end.

    Raises:
        MediaError: it is damaged or of a rare layout; later, from pages: OpenCV is not there, or cannot decode it.
    """
    with reading(path) as file:
        found = _RESOLUTION.search(file.read(1 << 14))
    if found is None or not (int(found[1]) and int(found[2])):
        raise MediaError(path, "the HDR's header gives no size from top left on", "Re-export it.")

    def pages() -> Iterator[Page]:
        pixels = decode(path)
        if pixels is None or pixels.dtype != np.float32:
            raise MediaError(path, "the HDR cannot be decoded", "Repair or re-export it.")
        yield page_of(pixels)

    return Stored(int(found[1]), int(found[2]), pages, Metadata())


def decode(path: Path) -> NDArray[Any] | None:
    """An image as OpenCV decodes it.

    Returns:
        (H, W, 1, 3 or 4), grey, RGB or RGBA: samples as the file stores them, before any rotation; None if it cannot.

    Raises:
        MediaError: OpenCV cannot be imported.
    """
    try:
        import cv2
    except ImportError as error:
        happened = f"it needs OpenCV, which cannot be imported here ({error})"
        remedy = "Install it: pip install opencv-python-headless."
        raise shortage(error, path) or MediaError(path, happened, remedy) from error
    data = np.frombuffer(path.read_bytes(), np.uint8)
    log = cv2.utils.logging
    level = log.setLogLevel(log.LOG_LEVEL_SILENT)  # the caller reports failures, once
    try:
        samples: NDArray[Any] | None = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    finally:
        log.setLogLevel(level)
    if samples is None:
        return None
    if samples.ndim == 2:
        return samples[..., None]
    order = [2, 1, 0, 3][: samples.shape[2]] if samples.shape[2] >= 3 else slice(None)
    return np.ascontiguousarray(samples[..., order])
