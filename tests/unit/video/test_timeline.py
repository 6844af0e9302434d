"""Timelines and segments."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from repsr_cli.video.timeline import Timeline, cut


@given(
    gaps=st.lists(st.integers(1, 9), min_size=1, max_size=300),
    every=st.integers(1, 60),
    frames=st.integers(1, 50),
    start=st.integers(0, 400),
    end=st.none() | st.integers(0, 1500),
)
@settings(max_examples=100, deadline=None)
def test_segments_cover_a_stretch_once(gaps: list[int], every: int, frames: int, start: int, end: int | None) -> None:
    pts = tuple(int(t) for t in np.cumsum(gaps))
    timeline = Timeline(pts, pts[::every], {}, {}, Fraction(0), None)
    segments = cut(timeline, start, end, frames)
    wanted = [t for t in pts if t >= start and (end is None or t < end)]
    held = [[t for t in pts if t >= s.first and (s.end is None or t < s.end)] for s in segments]
    assert [t for part in held for t in part] == wanted
    assert [len(part) for part in held] == [s.frames for s in segments]
    assert [s.index for s in segments] == list(range(len(segments)))
    assert all(s.frames <= 2 * frames + frames // 4 for s in segments)
