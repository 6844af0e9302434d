"""Combine two images: side by side, one half of each, or alternating."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from repsr_cli.compare.options import Crop, Form
from repsr_cli.errors import UsageError

GAP = 4  # px of white between the two sides
BLINK_MILLISECONDS = 700
ANIMATED = (".png", ".apng", ".webp", ".gif")


def image_format(target: Path, *, animated: bool) -> str:
    """Pillow's name of the format that a file's extension stands for."""
    from PIL import Image

    suffix = target.suffix.lower()
    if animated and suffix not in ANIMATED:
        raise UsageError(target, "this format has no animation", f"Choose one of {' '.join(ANIMATED)}.")
    format = Image.registered_extensions().get(suffix)
    if format not in Image.SAVE:
        raise UsageError(target, "not an image format that can be written", "Choose another extension, e.g. .png.")
    return format


def shown(path: Path) -> NDArray[np.uint8]:
    """An image as a screen shows it: 8-bit RGB with transparency over grey. (H, W, 3)."""
    from repsr_cli.image.files import read_image

    image = read_image(path)
    peak = np.iinfo(image.pixels.dtype).max if image.pixels.dtype.kind == "u" else 1.0
    pixels = image.pixels.astype(np.float32) / peak
    if peak == 1.0 and not 0 <= float(np.median(pixels)) <= 1:
        # Measurements, such as heights, rather than light: the lowest becomes black, the highest white.
        low, high = float(pixels.min()), float(pixels.max())
        pixels = (pixels - low) / (high - low) if high > low else np.full_like(pixels, 0.5)
    if image.alpha is not None:
        alpha = image.alpha[..., None].astype(np.float32) / peak
        pixels = pixels * alpha + 0.5 * (1 - alpha)
    rgb = np.clip(np.floor(pixels * 255 + 0.5), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(rgb, (*rgb.shape[:2], 3)))


def compare_images(
    left: NDArray[np.uint8], right: NDArray[np.uint8], form: Form, crop: Crop | None
) -> tuple[NDArray[np.uint8], ...]:
    """Combine two images of (H, W, 3); the smaller is enlarged to the other's size first.

    Args:
        form: ``beside``, ``split`` or ``blink``.

    Returns:
        One image, or both for ``blink``.
    """
    from repsr_cli.image.resize import imresize

    size = (max(left.shape[0], right.shape[0]), max(left.shape[1], right.shape[1]))
    left, right = (side if side.shape[:2] == size else imresize(side, size) for side in (left, right))
    if crop is not None:
        if crop.top + crop.height > size[0] or crop.left + crop.width > size[1]:
            raise UsageError("--crop", f"reaches outside the image of {size[1]}x{size[0]}", "Choose a smaller window.")
        window = np.s_[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
        left, right = left[window], right[window]
    if form == "blink":
        return left, right
    height, width = left.shape[:2]
    if form == "split":
        whole = right.copy()
        whole[:, : width // 2] = left[:, : width // 2]
        whole[:, max(0, width // 2 - GAP // 4) : width // 2 + GAP // 4] = 255
        return (whole,)
    return (np.concatenate([left, np.full((height, GAP, 3), 255, np.uint8), right], axis=1),)


def encoded(images: tuple[NDArray[np.uint8], ...], format: str) -> bytes:
    """The bytes of an image file; of an animation that repeats for ever, if there is more than one image.

    Args:
        images: (H, W, 3) each.
        format: Pillow's name.
    """
    if len(images) == 1:
        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(images[0]).save(file, format)
        return file.getvalue()
    import imageio.v3 as iio

    options: dict[str, Any] = {"is_batch": True, "duration": BLINK_MILLISECONDS, "loop": 0, "lossless": True}
    extension = f".{format.lower()}"
    data: bytes = iio.imwrite("<bytes>", np.stack(images), plugin="pillow", extension=extension, **options)
    return data
