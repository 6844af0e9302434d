"""Give the packets of copied streams ascending times, as muxers require.

One block that is early, a packet that comes twice, a repeated cluster: players pass over them, and muxers end the whole
job. The bytes stay; the few packets that are out of order get times between their neighbours'.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from av.rational import AVRational

# Flag of a container: decoding times may repeat (AVFMT_TS_NONSTRICT).
_MAY_REPEAT = 0x20000


@dataclass(frozen=True, slots=True)
class Times:
    """The times of a packet in units of its stream's time base.

    Attributes:
        pts: when it is presented; None if unknown.
        dts: when it is decoded; None if unknown.
        duration: 0 if unknown.
    """

    pts: int | None
    dts: int | None
    duration: int

    @property
    def stamp(self) -> int | None:
        """The time that must ascend."""
        return self.pts if self.dts is None else self.dts


def in_order(packets: Sequence[Times]) -> dict[int, tuple[int, int]]:
    """New times for the packets of a stream that are out of order or have none.

    The longest ascending run of packets keeps its times. Each of the others follows the one before it by that one's
    duration, at most to the time of the next that is kept.

    Args:
        packets: of a stream, in the order of the file.

    Returns:
        (pts, dts) by position, of the packets that change.
    """
    kept = _ascending([(place, each.stamp) for place, each in enumerate(packets) if each.stamp is not None])
    changed: dict[int, tuple[int, int]] = {}
    end: int | None = None
    for place, each in enumerate(packets):
        if kept and kept[0][0] == place:
            _, stamp = kept.popleft()
        else:
            later = kept[0][1] if kept else None
            stamp = min((time for time in (end, later) if time is not None), default=0)
            delay = 0 if each.pts is None or each.dts is None else max(0, each.pts - each.dts)
            changed[place] = (stamp + delay, stamp)
        end = stamp + max(each.duration, 0)
    return changed


def _ascending(stamps: Sequence[tuple[int, int]]) -> deque[tuple[int, int]]:
    """A longest subsequence of (position, time) whose times never descend."""
    tops: list[int] = []  # the smallest last value of a subsequence, by its length
    places: list[int] = []
    before: list[int] = []
    for place, (_, stamp) in enumerate(stamps):
        length = bisect_right(tops, stamp)
        before.append(places[length - 1] if length else -1)
        tops[length : length + 1] = [stamp]
        places[length : length + 1] = [place]
    found: deque[tuple[int, int]] = deque()
    place = places[-1] if places else -1
    while place >= 0:
        found.appendleft(stamps[place])
        place = before[place]
    return found


class Retimer:
    """Changes the times of copied packets while they are written.

    Args:
        changes: by stream: (pts, dts) by position, from ``in_order``.
    """

    def __init__(self, changes: Mapping[int, Mapping[int, tuple[int, int]]]) -> None:
        self._changes = changes
        self._position: dict[int, int] = {}
        self._last: dict[int, int] = {}

    def read(self, packet: Any) -> None:
        """Give a packet of the source its new times, if it gets any. Packets come in the order of the file."""
        index = packet.stream_index
        position = self._position[index] = self._position.get(index, -1) + 1
        new = self._changes.get(index, {}).get(position)
        if new is not None:
            packet.pts, packet.dts = new

    def write(self, packet: Any, stream: Any, flags: int) -> None:
        """Round the times of a packet to those of the stream it is written to, so that they still ascend there.

        Args:
            packet: the packet; its time base becomes the stream's.
            stream: the stream of the output, whose header is written.
        """
        base = stream.time_base
        packet.rescale_ts(AVRational(base.numerator, base.denominator))
        if packet.dts is None:
            return
        step = 0 if flags & _MAY_REPEAT or stream.type in ("subtitle", "data") else 1
        least = self._last.get(stream.index)
        if least is not None and packet.dts < least + step:
            packet.dts = least + step
        if packet.pts is not None:
            packet.pts = max(packet.pts, packet.dts)
        self._last[stream.index] = packet.dts


def descends(latest: dict[int, int], packet: Any) -> bool:
    """Whether the next packet of a file is out of order, or has no time.

    Args:
        latest: the latest time of each stream so far; updated.
    """
    times = _times(packet)
    if times is None:
        return False
    stamp = times.stamp
    if stamp is None or stamp < latest.get(packet.stream_index, stamp):
        return True
    latest[packet.stream_index] = stamp
    return False


def collect(packets: Iterable[Any], indices: frozenset[int]) -> dict[int, dict[int, tuple[int, int]]]:
    """``in_order`` for the streams with these indices, from all packets of their file."""
    found: dict[int, dict[int, Times]] = {index: {} for index in indices}
    count: Counter[int] = Counter()
    for packet in packets:
        index = packet.stream_index
        if packet.size and index in found:
            times = _times(packet)
            if times is not None:
                found[index][count[index]] = times
            count[index] += 1
    changes = {}
    for index, own in found.items():
        positions = list(own)
        changes[index] = {positions[at]: new for at, new in in_order(list(own.values())).items()}
    return changes


def _times(packet: Any) -> Times | None:
    """The times of a packet; None for one of a video that has no decoding time, which muxers find out."""
    if packet.dts is None and packet.pts is not None and packet.stream.type == "video":
        return None
    return Times(packet.pts, packet.dts, packet.duration or 0)
