"""Laws of target sizes."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from repsr_cli.sizes import VIDEO_STEP, Size, needed_factor, target_size, video_size

SIDES = st.integers(1, 5000)
SIZES = st.tuples(SIDES, SIDES)
STEPS = st.sampled_from([1, VIDEO_STEP])
FACTORS = st.one_of(st.integers(1, 8), st.fractions(1, 8, max_denominator=1000))


@dataclass(frozen=True)
class Asked:
    scale: float | None = None
    width: int | None = None
    height: int | None = None
    fit: Size | None = None
    short_side: int | None = None


@given(SIZES, FACTORS)
def test_an_image_has_the_nearest_size(source: tuple[int, int], factor: Fraction) -> None:
    size = target_size(source, Asked(scale=float(factor)), 4)
    for side, before in zip(size, source, strict=True):
        assert -Fraction(1, 2) < side - before * factor <= Fraction(1, 2)


@given(SIZES, FACTORS)
def test_a_video_differs_from_an_image_by_one_at_most(source: tuple[int, int], factor: Fraction) -> None:
    for asked in (Asked(scale=float(factor)), Asked(width=int(source[1] * factor))):
        image = target_size(source, asked, 4)
        video, note = video_size(source, asked, 4)
        assert all(abs(a - b) <= 1 for a, b in zip(image, video, strict=True))
        assert (note is None) == (image == video)


@given(SIZES, FACTORS)
def test_only_sides_that_are_rounded_become_even(source: tuple[int, int], factor: Fraction) -> None:
    size, _ = video_size(source, Asked(scale=float(factor)), 4)
    for side, before in zip(size, source, strict=True):
        exact = before * factor
        assert side == exact if exact.denominator == 1 else side % 2 == 0


@given(SIZES, SIZES, STEPS)
def test_what_was_asked_for_is_kept(source: tuple[int, int], wanted: tuple[int, int], step: int) -> None:
    height, width = wanted
    assert target_size(source, Asked(height=height, width=width), 4, step) == wanted
    assert target_size(source, Asked(height=height), 4, step)[0] == height
    assert target_size(source, Asked(width=width), 4, step)[1] == width
    assert width in target_size(source, Asked(short_side=width), 4, step)


@given(SIZES, SIZES)
def test_what_fits_fills_the_box_and_stays_inside(source: tuple[int, int], box: tuple[int, int]) -> None:
    for step in (1, VIDEO_STEP):
        size = target_size(source, Asked(fit=box), 4, step)
        assert any(side == limit for side, limit in zip(size, box, strict=True))
        assert all(side <= max(limit, step) for side, limit in zip(size, box, strict=True))


@given(SIZES, SIDES)
@example((4, 3), 1)
def test_the_shorter_side_stays_the_shorter(source: tuple[int, int], side: int) -> None:
    height, width = target_size(source, Asked(short_side=side), 4)
    assert side == min(height, width)
    assert (height - width) * (source[0] - source[1]) >= 0
    # Less than half a pixel longer, the other side rounds to the same length, as 4x3 does at a shorter side of 1.
    if Fraction(side * max(source), min(source)) >= side + Fraction(1, 2):
        assert source[0] == source[1] or (height <= width) == (source[0] <= source[1])


@given(SIZES, SIZES, STEPS)
def test_height_and_width_are_treated_alike(source: tuple[int, int], wanted: tuple[int, int], step: int) -> None:
    for first, second in [
        (Asked(height=wanted[0]), Asked(width=wanted[0])),
        (Asked(scale=1.7), Asked(scale=1.7)),
        (Asked(fit=wanted), Asked(fit=wanted[::-1])),
    ]:
        turned = target_size(source[::-1], second, 4, step)
        if source[0] * wanted[1] != source[1] * wanted[0]:  # of a box of the same shape, both sides are exact
            assert target_size(source, first, 4, step) == turned[::-1]


@given(SIZES, FACTORS)
def test_the_factor_needed(source: tuple[int, int], factor: Fraction) -> None:
    assert needed_factor(source, Asked(scale=float(factor))) == factor
    assert needed_factor(source, Asked()) is None
    wanted = Asked(height=source[0] * 3, width=source[1] * 2)
    assert needed_factor(source, wanted) == 3


@pytest.mark.parametrize(
    ("source", "asked", "image", "video"),
    [
        ((271, 480), Asked(scale=1.5), (407, 720), (406, 720)),
        ((273, 480), Asked(scale=1.5), (410, 720), (410, 720)),
        ((270, 480), Asked(scale=1.1), (297, 528), (297, 528)),
        ((273, 480), Asked(width=480), (273, 480), (274, 480)),
        ((21, 33), Asked(), (84, 132), (84, 132)),
        ((21, 33), Asked(scale=3), (63, 99), (63, 99)),
        ((100, 100), Asked(fit=(201, 300)), (201, 201), (201, 202)),
        ((100, 100), Asked(fit=(201, 201)), (201, 201), (200, 201)),
    ],
)
def test_one_rule_for_images_and_videos(source: tuple[int, int], asked: Any, image: Any, video: Any) -> None:
    assert target_size(source, asked, 4) == image
    assert video_size(source, asked, 4)[0] == video
