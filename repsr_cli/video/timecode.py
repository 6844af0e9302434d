"""Calculate with timecodes.

Source: SMPTE ST 12-1: drop-frame timecode leaves out the first two (at 60 frames: four) numbers of every minute but
each tenth.
"""

from __future__ import annotations

import re
from fractions import Fraction

_FORM = re.compile(r"(\d{2}):(\d{2}):(\d{2})([:;.])(\d{2,3})")


def later(timecode: str, frames: int, rate: Fraction) -> str:
    """A timecode some frames on.

    Args:
        timecode: ``hh:mm:ss:ff``, with ``;`` before the frames if it drops numbers.

    Returns:
        The same form; what cannot be read is returned as it is.
    """
    found = _FORM.fullmatch(timecode.strip())
    count = round(rate)
    if found is None or count < 1:
        return timecode
    hours, minutes, seconds, number = (int(found[place]) for place in (1, 2, 3, 5))
    mark = found[4]
    dropped = round(count / 15) if mark in ";." else 0
    minute = hours * 60 + minutes
    total = (minute * 60 + seconds) * count + number - dropped * (minute - minute // 10) + frames
    if dropped:
        tens, rest = divmod(total, 600 * count - 9 * dropped)
        extra = 0 if rest < 60 * count else 1 + (rest - 60 * count) // (60 * count - dropped)
        total += dropped * (9 * tens + extra)
    total %= 24 * 3600 * count
    seconds, number = divmod(total, count)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{mark}{number:02}"
