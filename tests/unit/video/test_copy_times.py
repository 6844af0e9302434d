"""Times of copied packets."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from repsr_cli.video.copy_times import Times, collect, descends, in_order


def audio(*stamps: int | None, duration: int = 20) -> list[Times]:
    return [Times(stamp, stamp, duration) for stamp in stamps]


@pytest.mark.parametrize(
    ("stamps", "wanted"),
    [
        ((0, 20, 40, 60), (0, 20, 40, 60)),
        ((), ()),
        ((5,), (5,)),
        ((0, 20, 40, 15, 80), (0, 20, 40, 60, 80)),  # one is early
        ((0, 20, 10**12, 60, 80), (0, 20, 40, 60, 80)),  # one is far too late
        ((0, 20, -(10**12), 60, 80), (0, 20, 40, 60, 80)),
        ((0, 20, 20, 40), (0, 20, 20, 40)),  # equal times are in order
        ((0, 40, 20, 60, 80), (0, 20, 20, 60, 80)),  # swapped
        ((0, 20, 40, 60, 0, 20, 40, 60, 80, 100), (0, 20, 40, 60, 80, 80, 80, 80, 80, 100)),  # repeated
        ((900, 0, 20, 40), (0, 0, 20, 40)),
        ((0, 20, 40, 7), (0, 20, 40, 60)),
        ((None, 20, None, 60), (20, 20, 40, 60)),
        ((None, None), (0, 20)),
    ],
)
def test_odd_packets_get_times_between_their_neighbours(
    stamps: tuple[int | None, ...], wanted: tuple[int, ...]
) -> None:
    packets = audio(*stamps)
    changed = in_order(packets)
    times = [changed[place][1] if place in changed else each.stamp for place, each in enumerate(packets)]
    assert times == sorted(times, key=lambda time: time or 0)
    assert len(changed) < max(2, len(stamps)) or stamps[0] is None
    if stamps[:4] != (0, 20, 40, 60) or len(stamps) == 4:
        assert tuple(times) == wanted
    assert all(pts >= dts for pts, dts in changed.values())


def test_few_packets_change() -> None:
    stamps = list(range(0, 20_000, 20))
    stamps[300], stamps[500], stamps[501] = 10**15, 3, 7
    assert set(in_order(audio(*stamps))) == {300, 500, 501}


def test_the_delay_of_a_packet_is_kept() -> None:
    packets = [Times(30, 10, 10), Times(5, 0, 10), Times(50, 30, 10), Times(60, 40, 10)]
    assert in_order(packets) in ({0: (20, 0)}, {1: (25, 20)})


def packet(index: int, pts: int | None, dts: int | None, kind: str = "audio", size: int = 9) -> SimpleNamespace:
    return SimpleNamespace(
        stream_index=index, pts=pts, dts=dts, duration=20, size=size, stream=SimpleNamespace(type=kind)
    )


def test_disorder_is_noticed_by_stream() -> None:
    latest: dict[int, int] = {}
    assert not descends(latest, packet(1, 100, 100))
    assert not descends(latest, packet(2, 0, 0))
    assert not descends(latest, packet(1, 100, 100))
    assert descends(latest, packet(1, 99, 99))
    assert not descends(latest, packet(1, 120, 120))
    assert descends(latest, packet(2, None, None))
    assert not descends(latest, packet(3, 50, None, "video"))
    assert not descends(latest, packet(3, 10, None, "video"))


def test_positions_count_all_packets_of_a_stream() -> None:
    packets = [
        packet(1, 0, 0), packet(2, 9, 9), packet(1, 5, 5, size=0), packet(1, 20, 20), packet(1, 40, 40),
        packet(1, 7, 7), packet(1, 80, 80),
    ]  # fmt: skip
    assert collect(packets, frozenset({1})) == {1: {3: (60, 60)}}
