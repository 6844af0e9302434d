"""Timecodes."""

from __future__ import annotations

from fractions import Fraction

import pytest

from repsr_cli.video.timecode import later

NTSC = Fraction(30000, 1001)


@pytest.mark.parametrize(
    ("start", "frames", "rate", "wanted"),
    [
        ("01:00:00:00", 0, Fraction(25), "01:00:00:00"),
        ("01:00:00:00", 25 * 61 + 3, Fraction(25), "01:01:01:03"),
        ("23:59:59:24", 1, Fraction(25), "00:00:00:00"),
        ("00:00:00:00", 1, Fraction(24000, 1001), "00:00:00:01"),
        ("00:00:59;29", 1, NTSC, "00:01:00;02"),
        ("00:09:59;29", 1, NTSC, "00:10:00;00"),
        ("00:00:00;00", 17982, NTSC, "00:10:00;00"),
        ("00:00:00;00", 107892, NTSC, "01:00:00;00"),
        ("00:00:59;59", 1, 2 * NTSC, "00:01:00;04"),
        ("00:00:59:29", 1, NTSC, "00:01:00:00"),
        ("nonsense", 5, NTSC, "nonsense"),
    ],
)
def test_a_timecode_some_frames_on(start: str, frames: int, rate: Fraction, wanted: str) -> None:
    assert later(start, frames, rate) == wanted


def test_drop_frame_timecode_visits_every_number_once() -> None:
    seen = [later("00:58:00;02", frames, NTSC) for frames in range(0, 40000)]
    assert len(set(seen)) == len(seen)
    assert not any(code[6:] in ("00;00", "00;01") and code[4] != "0" for code in seen)
