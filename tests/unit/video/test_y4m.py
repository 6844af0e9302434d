"""YUV4MPEG2."""

from __future__ import annotations

from fractions import Fraction

from repsr_cli.video.y4m import is_steady


def test_steady_times() -> None:
    assert is_steady([0, 33, 67, 100, 133, 167, 200], Fraction(1, 1000), Fraction(30))
    assert not is_steady([0, 33, 67, 120, 133, 167, 200], Fraction(1, 1000), Fraction(30))
