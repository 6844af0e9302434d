"""Describe the size of a plain network, without loading any."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spec:
    """The size of a network.

    Attributes:
        scale: enlargement factor, 1 or more (1 restores without enlarging).
        channels: feature channels C.
        blocks: body convolutions M, so that the network has M + 2 convolutions.
        colors: image channels in and out, 3 for RGB or 1 for luma.
    """

    scale: int
    channels: int
    blocks: int
    colors: int = 3

    def __post_init__(self) -> None:
        for name in ("scale", "channels", "blocks", "colors"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < (0 if name == "blocks" else 1):
                raise ValueError(f"Spec.{name} must be a positive integer, not {value!r}")

    @property
    def exact(self) -> bool:
        """Whether tiles that overlap by ``reach`` give the whole image's output."""
        return True

    @property
    def reach(self) -> int:
        """Receptive radius in LR pixels: one per stacked 3x3 convolution."""
        return self.blocks + 2

    @property
    def name(self) -> str:
        """The field's name for this size, e.g. ``M4C16``."""
        return f"M{self.blocks}C{self.channels}"

    @property
    def macs_per_pixel(self) -> int:
        """Multiply-accumulates per LR pixel in the convolutions."""
        c, out = self.channels, self.colors * self.scale**2
        return 9 * (self.colors * c + self.blocks * c * c + c * out)
