"""Colour tags and HDR metadata."""

from __future__ import annotations

from fractions import Fraction

import pytest

from repsr_cli.errors import MediaError, UsageError
from repsr_cli.video.colour_tags import ColourTags, HdrMetadata, override_tags, plane_format, resolve_tags


@pytest.mark.parametrize(
    ("size", "rate", "found", "matrix"),
    [
        ((480, 640), Fraction(30), ColourTags(), 6),
        ((576, 720), Fraction(25), ColourTags(), 5),
        ((720, 960), Fraction(25), ColourTags(), 1),
        ((534, 1280), Fraction(24), ColourTags(), 1),
        ((240, 426), Fraction(24), ColourTags(primaries=9), 9),
        ((240, 426), Fraction(24), ColourTags(transfer=16), 9),
        ((2160, 3840), Fraction(24), ColourTags(matrix=6), 6),
        ((480, 640), None, ColourTags(matrix=1), 1),
    ],
)
def test_missing_tags_follow_the_size_of_the_source(
    size: tuple[int, int], rate: Fraction | None, found: ColourTags, matrix: int
) -> None:
    tags, notes = resolve_tags(found, "yuv420p", *size, rate)
    assert tags.matrix == matrix
    assert tags.range == 1
    assert 2 not in (tags.matrix, tags.primaries, tags.transfer)
    assert bool([note for note in notes if "matrix" in note]) == (found.matrix == 2)
    again, more = resolve_tags(tags, "yuv420p", 9000, 9000, rate)
    assert (again, more) == (tags, ())


@pytest.mark.parametrize("found", [ColourTags(primaries=9), ColourTags(transfer=16), ColourTags(transfer=18)])
def test_a_missing_matrix_is_said_to_follow_the_other_tags_where_it_does(found: ColourTags) -> None:
    tags, notes = resolve_tags(found, "yuv420p10le", 480, 640, Fraction(25))
    assert tags.matrix == 9
    assert "no colour matrix in the stream: taken as BT.2020, as its other tags say" in notes


def test_jpeg_formats_are_full_range_and_centred() -> None:
    tags, _ = resolve_tags(ColourTags(), "yuvj420p", 100, 100, None)
    assert (tags.range, tags.siting) == (2, "center")


def test_plane_formats() -> None:
    tags = ColourTags(9, 1, 9, 16, "topleft")
    fmt = plane_format("yuv422p10le", tags)
    assert (fmt.matrix, fmt.full_range, fmt.depth, fmt.subsample, fmt.siting) == (
        "bt2020",
        False,
        10,
        (1, 2),
        "topleft",
    )
    assert plane_format("gray", tags).matrix == "grey"
    assert plane_format("gbrp12le", tags).depth == 12
    with pytest.raises(MediaError, match="colour matrix 8"):
        plane_format("yuv444p", ColourTags(8, 1, 1, 1, "left"))
    with pytest.raises(UsageError, match="not a known matrix"):
        override_tags(tags, "bt9000", None)


def test_hdr_metadata_in_the_words_of_encoders() -> None:
    points = tuple((Fraction(n, 10), Fraction(n, 20)) for n in range(1, 5))
    hdr = HdrMetadata(points, (Fraction(1, 100), Fraction(1000)), (900, 300))
    assert hdr.x26x() == "G(10000,5000)B(15000,7500)R(5000,2500)WP(20000,10000)L(10000000,100)"
    assert hdr.svtav1() == (
        "G(0.20000,0.10000)B(0.30000,0.15000)R(0.10000,0.05000)WP(0.40000,0.20000)L(1000.0000,0.0100)"
    )
