"""Times of frames where the stored ones are wrong."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from av import Packet
from hypothesis import given
from hypothesis import strategies as st

from repsr_cli.video.clock import Order, PacketTimes, numbered, read_clock, shifts_of
from repsr_cli.video.clock import StreamJump as Seen

BASE = Fraction(1, 90000)
STEP = 3600


def packets(frames: int, start: int = 0, reordered: bool = True) -> list[PacketTimes]:
    """A stream in the order of decoding: I, then P B B in groups."""
    order = list(range(frames))
    if reordered:
        order = [0]
        for first in range(1, frames - 2, 3):
            order += [first + 2, first, first + 1]
        order += range(len(order), frames)
    return [
        PacketTimes(start + (shown + 2) * STEP, start + place * STEP, place == 0, True)
        for place, shown in enumerate(order)
    ]


def clocked(found: list[PacketTimes], container: str = "mpegts", codec: str = "h264") -> list[int]:
    clock = read_clock(found, codec, container, BASE).clock
    times = [each.pts for each in found] if clock is None else clock.times
    return sorted(time for time in times if time is not None)


@given(st.integers(2, 60), st.integers(0, 10**9), st.booleans(), st.sampled_from(["mpegts", "matroska,webm", "avi"]))
def test_times_that_are_right_stay(frames: int, start: int, reordered: bool, container: str) -> None:
    assert read_clock(packets(frames, start, reordered), "h264", container, BASE).clock is None


@given(st.lists(st.integers(1, 10**7), min_size=2, max_size=60))
def test_pauses_stay(gaps: list[int]) -> None:
    times = list(itertools.accumulate(gaps))
    found = [PacketTimes(time, time, n % 7 == 0, True) for n, time in enumerate(times)]
    assert clocked(found, "matroska,webm") == times


@given(st.lists(st.tuples(st.integers(8, 40), st.integers(0, 10**9)), min_size=2, max_size=4), st.booleans())
def test_every_recording_follows_the_one_before(parts: list[tuple[int, int]], reordered: bool) -> None:
    starts: list[int] = []
    for frames, start in parts:
        # Each begins before the one before it ended.
        starts.append(start if not starts else min(start, starts[-1] + (frames - 7) * STEP))
    found = [
        packet for (frames, _), start in zip(parts, starts, strict=True) for packet in packets(frames, start, reordered)
    ]
    ends = [start + (frames - 1) * STEP for (frames, _), start in zip(parts, starts, strict=True)]
    expected = all(start <= end for start, end in zip(starts[1:], ends, strict=False))
    times = clocked(found)
    assert len(set(times)) == len(found)
    if expected:
        assert {b - a for a, b in itertools.pairwise(times)} == {STEP}


@given(st.integers(20, 60), st.data(), st.booleans())
def test_a_single_wrong_time_is_replaced(frames: int, data: st.DataObject, reordered: bool) -> None:
    found = packets(frames, 10**9, reordered)
    number = data.draw(st.integers(1, frames - 2))
    wrong = data.draw(st.sampled_from([(1 << 33) - 1, 5, 10**9 + 90000 * 3600]))
    found[number] = found[number]._replace(pts=wrong)
    times = clocked(found)
    assert times == sorted(each.pts or 0 for each in packets(frames, 10**9, reordered))


def order_of(found: list[PacketTimes], reordered: bool = True) -> Order:
    """The order in which frames are shown, as their true times tell."""
    times = [each.pts or 0 for each in found]
    return Order(int(reordered), lambda: sorted(range(len(times)), key=times.__getitem__))


@pytest.mark.parametrize(
    ("frames", "number", "half_steps"), [(30, 27, 20), (30, 27, 22), (30, 25, 20), (32, 30, 20), (33, 28, 20)]
)
@pytest.mark.parametrize("container", ["mpegts", "matroska,webm"])
def test_a_time_out_of_place_near_the_end_is_no_pause(
    frames: int, number: int, half_steps: int, container: str
) -> None:
    right = packets(frames, 10**9)
    found = list(right)
    found[number] = found[number]._replace(pts=(right[number].pts or 0) + half_steps * STEP // 2)
    clock = read_clock(found, "h264", container, BASE, order_of(right)).clock
    assert clock is not None
    assert list(clock.times) == [each.pts for each in right]


@given(st.integers(30, 60), st.data(), st.booleans(), st.sampled_from(["mpegts", "matroska,webm"]))
def test_a_time_out_of_place_is_found_by_the_order(
    frames: int, data: st.DataObject, reordered: bool, container: str
) -> None:
    right = packets(frames, 10**9, reordered)
    order = order_of(right, reordered)
    number = data.draw(st.sampled_from(list(order.shown())[1:-1]))
    wrong = (right[number].pts or 0) + data.draw(st.integers(20, 10**7)) * STEP // 2
    found = [each if n != number else each._replace(pts=wrong) for n, each in enumerate(right)]
    clock = read_clock(found, "h264", container, BASE, order).clock
    assert clock is not None
    assert list(clock.times) == [each.pts for each in right]


def test_frames_that_changed_places_change_them_back() -> None:
    right = packets(40, 10**9)
    found = list(right)
    found[20], found[21] = (
        one._replace(pts=other.pts) for one, other in ((found[20], found[21]), (found[21], found[20]))
    )
    clock = read_clock(found, "h264", "mpegts", BASE, Order(0, order_of(right).shown)).clock
    assert clock is not None
    assert list(clock.times) == [each.pts for each in right]


@given(st.integers(0, 30), st.booleans())
def test_recordings_that_overlap_are_not_out_of_place(shared: int, reordered: bool) -> None:
    first, second = packets(40, 10**9, reordered), packets(40, 10**9 + (40 - shared) * STEP, reordered)
    shown = [*order_of(first).shown(), *(40 + number for number in order_of(second).shown())]
    with_order, without = (
        read_clock(first + second, "h264", "mpegts", BASE, order) for order in (Order(1, lambda: shown), None)
    )
    assert with_order == without


def test_a_counter_that_turned_over_was_set_back() -> None:
    found = packets(30, 10**9) + packets(30, (1 << 33) + 10**8)
    assert {b - a for a, b in itertools.pairwise(clocked(found))} == {STEP}
    jump = 90000 * 3600 * 2  # a recording that was paused for two hours
    found = packets(30, 10**9) + packets(30, 10**9 + jump)
    assert read_clock(found, "h264", "mpegts", BASE).clock is None


@pytest.mark.parametrize("codec", ["vp9", "av1"])
def test_frames_that_share_a_time_are_parted(codec: str) -> None:
    found = [PacketTimes(time, time, False, True) for time in (0, 1, 1, 2, 3, 3, 9)]
    assert clocked(found, "matroska,webm", codec) == [0, 1, 2, 3, 4, 5, 9]


def test_streams_move_at_their_own_jump_or_at_that_of_the_video() -> None:
    found = packets(30, 10**9) + packets(30, 10**6)
    jumps = read_clock(found, "h264", "mpegts", BASE).jumps
    assert len(jumps) == 1
    seen = {1: [Seen(40, 31, jumps[0].seconds + Fraction(1, 10)), Seen(90, 59, Fraction(-1, 50))]}
    shifts = shifts_of(jumps, [{0: 30, 1: 38, 2: 3}], seen)
    assert shifts[1] == ((40, jumps[0].offset),)
    assert shifts[2] == ((3, jumps[0].offset),)


def test_empty_packets_do_not_end_the_decoder() -> None:
    """Theora has them where nothing moves; the one after the last, without a time, flushes the decoder."""
    first, empty, last, flush = Packet(b"a"), Packet(), Packet(b"b"), Packet()
    for time, packet in enumerate((first, empty, last)):
        packet.pts = time
    assert list(numbered(iter((first, empty, last, flush)), None)) == [first, last, flush]
