"""Fold colour conversion into a network's weights, so that it reads and writes a codec's planes without an RGB image.

The first and the last convolution are linear, and so are the maps between samples and RGB and the averages that shrink
chroma. Their products are convolutions of the same kind:

* **Head.** With samples counted from black, the map to RGB is a matrix without an offset, so that the zeros padded
  around the image stand for black in both spaces and the fold is exact at borders too.
* **Tail.** Each kind of plane takes its own combination of the RGB outputs. On an axis where chroma is centred between
  luma samples and the scale is even, the pairs that are averaged lie inside one LR pixel: the average folds too, and
  the network writes half as many chroma samples. Where chroma is co-sited across, as in most videos, the filter reaches
  into both neighbours: the network then writes what an LR pixel gives to its own samples and what to its neighbours',
  and ``cross`` adds them up. On other axes it writes chroma at luma size and the ordinary filter follows.
* **Skip.** The nearest-neighbour skip becomes a matrix from samples to samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from repsr_cli.engine.tiling import Box
from repsr_cli.yuv.filters import CENTRED, COSITED
from repsr_cli.yuv.formats import PlaneFormat
from repsr_cli.yuv.matrices import rgb_from_samples, samples_from_rgb

Weights = NDArray[np.float32]
# Weight (out, in, 3, 3) and bias.
Convolution = tuple[Weights, Weights]


@dataclass(frozen=True, slots=True)
class Part:
    """Where one plane lies among the features that an LR pixel becomes.

    Attributes:
        start: first channel.
        rows: samples per LR pixel, down.
        columns: samples per LR pixel, across.
        unfinished: whether the chroma filter must still shrink it, (vertically, horizontally).
        crossing: whether further channels follow, ``rows`` that the LR pixel at the right gets and ``rows`` for the one
            at the left.
    """

    start: int
    rows: int
    columns: int
    unfinished: tuple[bool, bool] = (False, False)
    crossing: bool = False

    def window(self, box: Box) -> tuple[slice, slice]:
        """Where a box of LR pixels lies in the finished plane, (rows, columns)."""
        down, across = (2 if axis else 1 for axis in self.unfinished)
        return (
            slice(-(-box.top * self.rows // down), -(-box.bottom * self.rows // down)),
            slice(-(-box.left * self.columns // across), -(-box.right * self.columns // across)),
        )

    @property
    def own(self) -> slice:
        """The channels of its samples."""
        return slice(self.start, self.start + self.rows * self.columns)

    @property
    def stop(self) -> int:
        """One past the last channel."""
        return self.start + self.rows * (self.columns + 2 * self.crossing)


@dataclass(frozen=True, slots=True)
class FoldedArrays:
    """The weights of a network from planes to planes.

    In: ``(samples - black) * gain`` with chroma at luma size. Out: samples plus one half, so that rounding half up is
    dropping the fraction.

    Attributes:
        convolutions: head to tail.
        slopes: of the PReLUs, one after every convolution but the tail.
        skip: (C, K): what each input channel adds to each output channel.
        black: the sample of each input plane where RGB is (0, 0, 0).
        gain: what keeps the numbers near one, where half precision is at its best.
        parts: one for each plane out.
    """

    convolutions: tuple[Convolution, ...]
    slopes: tuple[Weights, ...]
    skip: Weights
    black: tuple[float, ...]
    gain: float
    parts: tuple[Part, ...]

    @property
    def macs_per_pixel(self) -> int:
        """Multiply-accumulates per LR pixel in the convolutions."""
        return sum(weight.size for weight, _ in self.convolutions)

    @property
    def margin(self) -> int:
        """Pixels around its core that a tile needs for what follows the network.

        The chroma filter reaches two samples out, which at scale 1 is two pixels; and two is even, so that chroma
        begins on a core's first sample at odd scales too.
        """
        if any(any(part.unfinished) for part in self.parts):
            return 2
        return 1 if any(part.crossing for part in self.parts) else 0


def fold_arrays(
    convolutions: Sequence[tuple[NDArray[Any], NDArray[Any]]],
    slopes: Sequence[NDArray[Any]],
    scale: int,
    formats: tuple[PlaneFormat, PlaneFormat],
    crossing: bool = True,
) -> FoldedArrays:
    """Fold plane formats into the weights of an RGB network, in float64.

    Args:
        convolutions: weight and bias of each, head to tail; two at least, left untouched.
        formats: the planes to read, and those to write.
        crossing: whether parts may be crossing; otherwise such chroma is written at luma size, for a filter to shrink.
    """
    fmt_in, fmt_out = formats
    head, *inner, tail = convolutions
    gain = 1 / fmt_in.peak
    to_rgb, offset = rgb_from_samples(fmt_in)
    if fmt_in.matrix == "grey":
        to_rgb, black = to_rgb[:, :1], -offset[:1] / to_rgb[0, 0]
    else:
        black = -np.linalg.solve(to_rgb, offset)
    to_rgb = to_rgb / gain

    to_samples, zero = samples_from_rgb(fmt_out)
    parts = _parts(scale, fmt_out, crossing)
    weight, bias = (numbers.astype(np.float64) for numbers in tail)
    into = weight.shape[1:]
    weight = weight.reshape(3, scale, scale, -1)
    bias = bias.reshape(3, scale, scale)
    weights, biases, skips = [], [], []
    for part, row, start in zip(parts, to_samples, zero, strict=False):
        # (samples of the part, samples of an LR pixel), by rows and by columns.
        down, across = _averages(scale, part.rows), _averages(scale, part.columns)
        if part.crossing:
            across = _across(scale)
        # The own samples row by row, then what neighbours get, neighbour by neighbour.
        mix = np.einsum("yi,xj->yxij", down, across)
        mix = np.concatenate(
            [
                mix[:, : part.columns].reshape(-1, scale, scale),
                *(mix[:, column] for column in range(part.columns, len(across))),
            ]
        )
        weights.append(np.einsum("kij,c,cijd->kd", mix, row, weight))
        biases.append(np.einsum("kij,c,cij->k", mix, row, bias) + mix.sum((1, 2)) * (start + 0.5))
        skips.append(np.outer(row @ to_rgb, mix.sum((1, 2))))

    first = (np.einsum("ocyx,ck->okyx", head[0].astype(np.float64), to_rgb), head[1])
    last = (np.concatenate(weights).reshape(-1, *into), np.concatenate(biases))
    return FoldedArrays(
        tuple((weight.astype(np.float32), bias.astype(np.float32)) for weight, bias in (first, *inner, last)),
        tuple(each.astype(np.float32) for each in slopes),
        np.concatenate(skips, axis=1).astype(np.float32),
        tuple(float(sample) for sample in black),
        gain,
        parts,
    )


def cross(samples: Any, part: Part, at_left: bool, at_right: bool) -> None:
    """Add to an LR pixel's samples what its neighbours contribute.

    Args:
        samples: (h, w, K), the features of a window, a tensor or an array; the part's own channels are changed.
        part: one that is ``crossing``.
        at_left: whether the window begins at the image's left border, where the filter mirrors.
        at_right: the same for the right border.
    """
    outer, _, centre, *_ = COSITED.down
    own = samples[..., part.own].reshape(*samples.shape[:2], part.rows, part.columns)
    middle = part.own.stop + part.rows
    to_right, to_left = samples[..., part.own.stop : middle], samples[..., middle : part.stop]
    first, last = own[..., 0], own[..., -1]
    if part.columns == 1:
        mirrored = to_left[:, -1:]
    else:
        # The outer tap times the sample before the last, from the four sums of four samples that the network writes.
        sums = to_right[:, -1:] + own[:, -1:, :, 0] + (1 - centre / outer) * to_left[:, -1:] - own[:, -1:, :, 1]
        mirrored = sums * (outer / (2 * outer - centre))
    # Row by row, so that inner loops are as long as the window; and without `own[...] +=`, which copies once more.
    for row in range(part.rows):
        after, before = first[:, 1:, row], last[:, :-1, row]
        after += to_right[:, :-1, row]
        before += to_left[:, 1:, row]
    if at_right:
        last[:, -1:] += mirrored
    if at_left:
        first[:, :1] = 2 * first[:, :1] - (centre / outer) * to_left[:, :1]


def _across(scale: int) -> NDArray[np.float64]:
    """The co-sited filter over the samples of an LR pixel.

    Returns:
        (scale / 2 + 2, scale): what they add to each of its own chroma samples, to the first one of the LR pixel at
        the right, and to the last one of that at the left.
    """
    taps = dict(enumerate(COSITED.down, COSITED.start))
    chroma = [*range(scale // 2), scale // 2, -1]
    return np.array([[taps.get(sample - 2 * at, 0.0) for sample in range(scale)] for at in chroma])


# The scales at which ``cross`` can mirror at the right border.
_CROSSING_SCALES = (2, 4)


def _parts(scale: int, fmt: PlaneFormat, may_cross: bool) -> tuple[Part, ...]:
    luma = Part(0, scale, scale)
    if fmt.matrix == "grey":
        return (luma,)
    samples, unfinished, crossing = [scale, scale], [False, False], False
    for axis in (0, 1):
        if fmt.matrix != "rgb" and fmt.subsample[axis] == 2:
            if scale % 2 == 0 and not fmt.cosited[axis]:
                samples[axis] = scale // 2
            elif axis == 1 and may_cross and scale in _CROSSING_SCALES and not unfinished[0]:
                samples[axis], crossing = scale // 2, True
            else:
                unfinished[axis] = True
    u = Part(luma.stop, samples[0], samples[1], (unfinished[0], unfinished[1]), crossing)
    return luma, u, replace(u, start=u.stop)


def _averages(scale: int, samples: int) -> NDArray[np.float64]:
    """(samples, scale): the centred filter where it leaves half of the samples, else the identity."""
    return np.eye(scale) if samples == scale else np.kron(np.eye(samples), np.array([CENTRED.down]))
