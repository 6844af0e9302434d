"""Describe which kind of model a source needs, as judged from the file itself."""

from __future__ import annotations

from dataclasses import dataclass

from repsr_cli.model.zoo import Kind

# Where the figures of the clean and the real model cross: train/kinds.py, docs/models.md.
JPEG_QUALITY = 90.0
BITS_PER_PIXEL = {
    "WEBP": 1.8,
    "AVIF": 1.7,
    "HEIF": 1.7,
    "h264": 0.9,
    "hevc": 0.65,
    "vp9": 1.1,
    "av1": 0.58,
}
# Of formats that were not measured: as JPEG, the least efficient of those that were.
OTHER_IMAGES = 3.7
OTHER_VIDEOS = 3.7


@dataclass(frozen=True, slots=True)
class Judged:
    """The kind of model that a source needs.

    Attributes:
        kind: ``clean`` or ``real``.
        why: a phrase that follows "for", e.g. ``JPEG of quality 75``.
    """

    kind: Kind
    why: str


def lossless(name: str) -> Judged:
    """Of a source that was stored without loss."""
    return Judged("clean", f"lossless {name}")


def by_bits(name: str, nbytes: int, pixels: int, threshold: float) -> Judged:
    """Of a source that is known by its size alone.

    Args:
        name: of its format or codec.
        nbytes: of its pixels as stored.
        pixels: of all its frames.
        threshold: bits per pixel from which on it has lost next to nothing.
    """
    bits = 8 * nbytes / max(1, pixels)
    return Judged("clean" if bits >= threshold else "real", f"{name} of {bits:.2g} bits per pixel")
