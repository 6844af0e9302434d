"""Give every frame of a video its time where the times in the file are missing, made up or wrong.

Some containers store no presentation times (AVI, raw streams), and demuxers make some up, in the order of decoding.
Joined recordings begin again in the middle, and damaged ones have single times that are hours off.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from fractions import Fraction
from heapq import heappush, heapreplace
from itertools import accumulate, pairwise
from statistics import median, median_low
from typing import Any, NamedTuple

from av.packet import Packet
from av.video.frame import VideoFrame

# Demuxers of streams without a container, and so without times.
RAW = frozenset(
    {
        "h264", "hevc", "vvc", "evc", "mjpeg", "m4v", "mpegvideo", "vc1", "h261", "h263", "obu", "cavsvideo", "dirac",
        "avs2", "avs3", "dnxhd",
    }
)  # fmt: skip
# Codecs whose decoders hand on the number of the packet that a frame was in, and whose keyframes divide the others:
# what comes before one in the order of decoding is shown before it.
_DIVIDED = frozenset({"h264", "hevc", "vvc", "mpeg1video", "mpeg2video"})
# Codecs of which every packet that is shown becomes one frame. Two fields may be two packets in others.
_FRAMES = frozenset({"vp8", "vp9", "av1", "mjpeg", "prores", "dnxhd", "ffv1"})
# A time is wrong if it is so many seconds and so many usual steps away from those around it.
_FAR, _FAR_STEPS = 10, 100
# Packets to each side that a time is compared with: more than decoders reorder.
_AROUND = 8
# Frames in a row, as shown, whose times may be out of place; more are another recording.
_RUN = 4
# Packets to each side that tell whether time goes on where it seems to go back, and steps that are a pause.
_WIDE, _PAUSE = 24, 8
# Streams that can be joined by appending files count 33 bits. What seems to jump by more than half of that jumped back.
_COUNTING = ("mpegts", "mpeg")
_HALF_TURN = Fraction(1 << 32, 90000)


class PacketTimes(NamedTuple):
    """What is known of a packet's time.

    ``shown``: whether a frame is shown for it; ``key``: whether it is a keyframe.
    """

    pts: int | None
    dts: int | None
    key: bool
    shown: bool


@dataclass(frozen=True, slots=True)
class Jump:
    """A place where the clock of a video is set back and goes on by an offset.

    Attributes:
        packet: number of the first packet of the video after it.
        seconds: by how much the video's decoding times jump.
        offset: what is added to all times from here on.
    """

    packet: int
    seconds: Fraction
    offset: Fraction


@dataclass(frozen=True, slots=True)
class Clock:
    """The times of a video's frames, in place of those that are stored.

    Attributes:
        times: of its packets by number, in the order of reading; None if no frame is shown for one. If ``by_order``, of
            its frames, ascending.
        by_order: whether the order in which frames are decoded decides, because no time belongs to a packet.
        ranks: if ``by_order``: how many frames are shown for the packets before each packet.
        keys: if ``by_order``: numbers of the keyframes' packets, where the codec allows counting anew at these.
    """

    times: tuple[int | None, ...]
    by_order: bool = False
    ranks: tuple[int, ...] = field(default=(), repr=False)
    keys: frozenset[int] = field(default=frozenset(), repr=False)


@dataclass(frozen=True, slots=True)
class Reading:
    """The times of a video as read from its packets.

    Attributes:
        clock: times in place of the stored ones; None: those are right.
        jumps: where the stored clock is set back.
        notes: what was done, a sentence each.
    """

    clock: Clock | None = None
    jumps: tuple[Jump, ...] = ()
    notes: tuple[str, ...] = ()


def ordered_clock(packets: Sequence[PacketTimes], codec: str, times: Sequence[int] | None = None) -> Clock:
    """A clock of a video whose packets have no presentation times: the frames take the times there are in turn.

    Args:
        packets: in the order of reading.
        times: of the frames, ascending; None: those of the packets.
    """
    shown = [packet for packet in packets if packet.shown]
    if times is None:
        stamps = [packet.dts if packet.pts is None else packet.pts for packet in shown]
        times = _distinct(sorted(0 if stamp is None else stamp for stamp in stamps))
        steps = [b - a for a, b in pairwise(times)]
        if len(steps) > 1 and steps[-1] < (usual := median_low(steps)):
            # Demuxers that make times up take each from the packet after it, and guess the last.
            times[-1] = times[-2] + usual
    ranks = tuple(accumulate((packet.shown for packet in packets), initial=0))[:-1]
    keys = {number for number, packet in enumerate(packets) if packet.key} if codec in _DIVIDED else set()
    return Clock(tuple(times), by_order=True, ranks=ranks, keys=frozenset(keys))


@dataclass(frozen=True, slots=True)
class Order:
    """How the order in which frames are shown can differ from that of their packets.

    Attributes:
        depth: how many frames at most are decoded before another and shown after it.
        shown: finds the numbers of the packets in the order in which their frames are shown, by decoding them all.
    """

    depth: int
    shown: Callable[[], Sequence[int]]


def read_clock(
    packets: Sequence[PacketTimes], codec: str, container: str, time_base: Fraction, order: Order | None = None
) -> Reading:
    """Check the stored times of a video, and correct what is wrong.

    Args:
        packets: in the order of reading.
        container: FFmpeg's name of the demuxer.
        time_base: seconds per unit of its times.
        order: tells which times are out of place; None: only times that are far off are noticed.
    """
    pts = [packet.pts if packet.shown else None for packet in packets]
    known = sorted({time for time in pts if time is not None})
    if len(known) < 2:
        return Reading()
    step = _usual_step([packet.dts for packet in packets if packet.shown], known)
    notes = []
    wrong = _outliers(pts, max(_FAR / time_base, Fraction(_FAR_STEPS * step)), time_base)
    placed: dict[int, int] = {}
    ascending = False
    if order is not None and (wrong or _is_disordered(pts, order.depth, step)):
        shown = order.shown()
        if sorted(shown) == [number for number, time in enumerate(pts) if time is not None]:
            # What is shown after all others may be far off; of every other frame, those beside it tell.
            turned = _HALF_TURN / time_base
            wrong = [number for number in wrong if number == shown[-1] and (pts[number] or 0) - known[-2] > turned]
            placed = _out_of_place(shown, [pts[number] or 0 for number in shown], step)
            ascending = all(b > a for a, b in pairwise(placed.get(number, pts[number] or 0) for number in shown))
    if placed:
        at = float((pts[min(placed)] or 0) * time_base)
        notes.append(f"{_count(placed, 'timestamp')} out of place ({at:.3f} s): taken from the frames around")
        for number, new in placed.items():
            pts[number] = new
    if wrong:
        at = float((pts[wrong[0]] or 0) * time_base)
        notes.append(f"{_count(wrong, 'timestamp')} far from all around ({at:.3f} s): taken from the cadence")
        _replace(pts, wrong, step)
    jumps: tuple[Jump, ...] = ()
    # Some decoding times are made up by FFmpeg, from times that are out of place too.
    if not ascending or container in _COUNTING:
        jumps = _jumps(packets, pts, frozenset(wrong) | placed.keys(), container, time_base, step)
    for jump in jumps:
        at = float((packets[jump.packet].dts or 0) * time_base)
        notes.append(
            f"its clock jumps to {at:.3f} s after {jump.packet} frames: it is continued, for all streams alike"
        )
    moved = [round(jump.offset / time_base) for jump in jumps]
    starts = [jump.packet for jump in jumps]
    for number, time in enumerate(pts):
        epoch = bisect_left(starts, number + 1)
        pts[number] = time if time is None or not epoch else time + moved[epoch - 1]
    if codec in _FRAMES and (shared := _part(pts)):
        notes.append(f"{shared} frames share a time with another: each is moved to the next that is free")
    if not notes:
        return Reading()
    return Reading(Clock(tuple(pts)), jumps, tuple(notes))


def numbered(packets: Iterator[Packet[Any]], clock: Clock | None) -> Iterator[Packet[Any]]:
    """The packets of a video from its beginning, with their times by a clock, or their numbers if it is by order.

    Empty ones, as Theora has where the frame before is shown for longer, would end the decoder and are left out.
    """
    number = 0
    for packet in packets:
        if not packet.size and packet.pts is not None:
            continue
        if clock is not None and packet.size:
            if clock.by_order:
                packet.pts = number
            elif number < len(clock.times):
                packet.pts = clock.times[number]
            number += 1
        yield packet


def shifted(
    packets: Iterator[Packet[Any]], shifts: Mapping[int, Sequence[tuple[int, Fraction]]]
) -> Iterator[Packet[Any]]:
    """The packets of a file from its beginning, moved as the clock of its video is.

    Args:
        packets: in the order of reading.
        shifts: by stream: (number of the first packet that is moved, by how many seconds), in order.
    """
    counts: dict[int, int] = {}
    for packet in packets:
        own = shifts.get(packet.stream_index, ())
        if packet.size and own:
            number = counts[packet.stream_index] = counts.get(packet.stream_index, -1) + 1
            shift(packet, next((seconds for first, seconds in reversed(own) if number >= first), Fraction(0)))
        yield packet


def shift(packet: Packet[Any], seconds: Fraction) -> None:
    """Move the times of a packet."""
    ticks = round(seconds / Fraction(packet.time_base))
    packet.pts = None if packet.pts is None else packet.pts + ticks
    packet.dts = None if packet.dts is None else packet.dts + ticks


def in_order(images: Iterator[VideoFrame | None], clock: Clock | None, step: int) -> Iterator[VideoFrame | None]:
    """Frames of ``numbered`` packets with their times; other than by a clock by order, these are theirs already.

    At a keyframe all frames before it are counted, whether they were decoded or not.

    Args:
        images: from the beginning of the video.
        step: usual time between two frames, for more frames than the clock has times.
    """
    if clock is None or not clock.by_order:
        yield from images
        return
    place = 0
    ahead: list[int] = []  # numbers of the packets of the frames since the last keyframe
    for image in images:
        if image is None:
            yield None
            continue
        number = image.pts
        if number is not None and number in clock.keys:
            leading = sum(other > number for other in ahead)
            place = max(place, clock.ranks[number] + leading)
            ahead = []
        elif number is not None and clock.keys:
            ahead.append(number)
        last = clock.times[-1] or 0
        image.pts = clock.times[place] if place < len(clock.times) else last + (place - len(clock.times) + 1) * step
        place += 1
        yield image


def shifts_of(
    jumps: Sequence[Jump], boundaries: Sequence[Mapping[int, int]], seen: Mapping[int, Sequence[StreamJump]]
) -> dict[int, tuple[tuple[int, Fraction], ...]]:
    """By how much the packets of the other streams are moved.

    A stream is set back where its own times jump, near the place where the video's do; where none do, at that place.

    Args:
        boundaries: packets that every stream had when each jump was read, by stream.
        seen: jumps of every other stream.

    Returns:
        By stream: (number of its first packet that is moved, by how many seconds), in order.
    """
    found: dict[int, list[tuple[int, Fraction]]] = {}
    streams = {stream for boundary in boundaries for stream in boundary}
    for stream in streams | seen.keys():
        own = found.setdefault(stream, [])
        for jump, boundary in zip(jumps, boundaries, strict=True):
            alike = [
                each
                for each in seen.get(stream, ())
                if abs(each.seconds) > abs(jump.seconds) / 4 and (each.seconds < 0) == (jump.seconds < 0)
            ]
            near = min(alike, key=lambda each: abs(each.video - jump.packet), default=None)
            if near is not None and abs(near.video - jump.packet) <= _AROUND * 16:
                own.append((near.packet, jump.offset))
            else:
                own.append((boundary.get(stream, 0), jump.offset))
    return {stream: tuple(own) for stream, own in found.items()}


class StreamJump(NamedTuple):
    """A place where the times of a stream jump.

    ``packet``: number of its first packet after it; ``video``: packets of the video read before; ``seconds``: how far.
    """

    packet: int
    video: int
    seconds: Fraction


def jumps_back(last: Fraction, stamp: Fraction, container: str) -> bool:
    """Whether a clock was set back between two decoding times: seemingly forward where it counts 33 bits."""
    return stamp < last or (container in _COUNTING and stamp - last > _HALF_TURN)


def _usual_step(dts: Sequence[int | None], known: Sequence[int]) -> int:
    """The median time between two frames, in the order of decoding, as recordings that overlap mix otherwise."""
    steps = [b - a for a, b in pairwise(dts) if a is not None and b is not None and b > a]
    return max(1, round(median(steps or [b - a for a, b in pairwise(known)])))


def _count(items: Sized, what: str) -> str:
    return f"{len(items)} {what} is" if len(items) == 1 else f"{len(items)} {what}s are"


def _is_disordered(pts: Sequence[int | None], depth: int, step: int) -> bool:
    """Whether times may be out of place.

    One is earlier than those of more packets before it than can be, and time goes on after it; or, where frames are
    shown in another order than they are decoded, few are closer together, or the last further away, than usual. A pause
    before the last is usual, unless others are decoded after it.
    """
    times = [time for time in pts if time is not None]
    latest: list[int] = []  # so many times before as may be later, and one: a heap
    for place, time in enumerate(times):
        if len(latest) > depth and latest[0] > time:
            before, after = times[max(0, place - _WIDE) : place], times[place : place + _WIDE]
            if len(before) < _WIDE or len(after) < _WIDE or median(after) > median(before):
                return True
            latest = []  # set back for good
        if len(latest) <= depth:
            heappush(latest, time)
        elif time > latest[0]:
            heapreplace(latest, time)
    gaps = [b - a for a, b in pairwise(sorted(times))]
    usual = (_PAUSE if times[-1] == max(times) else 2) * step
    return bool(depth) and (gaps[-1] > usual or 0 < sum(2 * gap <= step for gap in gaps) <= _RUN)


def _out_of_place(shown: Sequence[int], times: list[int], step: int) -> dict[int, int]:
    """New times of frames that would be shown in another order by those they have.

    Args:
        shown: numbers of the packets in the order in which their frames are shown.
        times: of these.

    Returns:
        By number of the packet.
    """
    mended = list(times)
    for place in range(len(mended) - 1):
        if mended[place] >= mended[place + 1]:
            _exchange(mended, place, step) or _put_between(mended, place, step)
    return {number: new for number, old, new in zip(shown, times, mended, strict=True) if new != old}


def _put_between(times: list[int], place: int, step: int) -> bool:
    """Move some frames that end or begin where times descend between those beside them, in place, if they fit there."""
    for ends in (False, True):
        for length in range(1, _RUN + 1):
            for first in (place - length + 1, place + 1):
                following = first + length
                at_end = first == 0 or following == len(times)
                if first < 0 or following > len(times) or at_end != ends or length == len(times):
                    continue
                lower = times[first - 1] if first else times[following] - (length + 1) * step
                upper = times[following] if following < len(times) else times[first - 1] + (length + 1) * step
                if 2 * (upper - lower) >= (2 * length + 1) * step:
                    for index in range(length):
                        times[first + index] = lower + (upper - lower) * (index + 1) // (length + 1)
                    return True
    return False


def _exchange(times: list[int], place: int, step: int) -> bool:
    """Put a few times around a descent into order, in place, if frames then follow each other as usual."""
    for length in range(2, _RUN + 1):
        for first in range(max(0, place + 2 - length), place + 1):
            ordered = sorted(times[first : first + length])
            beside = [*times[max(0, first - 1) : first], *ordered, *times[first + length : first + length + 1]]
            if all(3 * step <= 4 * (b - a) <= 5 * step for a, b in pairwise(beside)):
                times[first : first + length] = ordered
                return True
    return False


def _outliers(pts: Sequence[int | None], far: Fraction, time_base: Fraction) -> list[int]:
    """Numbers of the packets whose times are far above, or far below, those before and those after them."""
    times = [(number, time) for number, time in enumerate(pts) if time is not None]
    steps = [b[1] - a[1] for a, b in pairwise(times)]
    # A time that is wrong makes the next one step back, or is the last.
    suspects = {at + side for at, step in enumerate(steps) if step < -far for side in range(-_AROUND, _AROUND + 1)}
    if steps and steps[-1] > _HALF_TURN / time_base:
        suspects.add(len(times) - 1)
    found = []
    for place in sorted(suspects):
        if not 0 <= place < len(times):
            continue
        number, time = times[place]
        before = [other for _, other in times[max(0, place - _AROUND) : place]]
        after = [other for _, other in times[place + 1 : place + 1 + _AROUND]]
        above = all(_most(other < time - far for other in side) for side in (before, after))
        below = bool(before and after) and all(_most(other > time + far for other in side) for side in (before, after))
        if (above and (after or steps[-1] > _HALF_TURN / time_base)) or below:
            found.append(number)
    return found


def _most(tests: Iterator[bool]) -> bool:
    """Whether at least three of four are true; true of none."""
    results = list(tests)
    return 4 * sum(results) >= 3 * len(results)


def _replace(pts: list[int | None], wrong: Sequence[int], step: int) -> None:
    """Give packets whose times are wrong those that are free around them, in place."""
    for number in wrong:
        pts[number] = None
    taken = sorted({time for time in pts if time is not None})
    for number in wrong:
        around = [time for time in pts[max(0, number - _AROUND) : number + _AROUND + 1] if time is not None]
        if not around:
            continue
        begin, end = bisect_left(taken, min(around)), bisect_left(taken, max(around))
        gap = max(range(begin, end), key=lambda place: taken[place + 1] - taken[place], default=None)
        if gap is not None and 2 * (taken[gap + 1] - taken[gap]) >= 3 * step:
            time = taken[gap] + step
        elif number + _AROUND >= len(pts):
            time = taken[-1] + step
        elif number < _AROUND:
            time = taken[0] - step
        else:
            time = taken[end] - 1  # no frame is missing around it
        pts[number] = time
        insort(taken, time)


def _jumps(
    packets: Sequence[PacketTimes],
    pts: Sequence[int | None],
    wrong: frozenset[int],
    container: str,
    time_base: Fraction,
    step: int,
) -> tuple[Jump, ...]:
    """Where the clock is set back for good."""
    if container.startswith("mov"):  # edit lists set decoding times back, and the times are right
        return ()
    stamps = [
        (number, packet.dts * time_base)
        for number, packet in enumerate(packets)
        if packet.dts is not None and packet.shown and number not in wrong
    ]
    starts: list[tuple[int, Fraction]] = []
    last: Fraction | None = None
    for place, (number, stamp) in enumerate(stamps):
        again = stamp == last and packets[number].key and container in _COUNTING
        if last is not None and (again or jumps_back(last, stamp, container)):
            following = [other for _, other in stamps[place : place + 4]]
            stays = all(jumps_back(last, other, container) for other in following) and len(following) > 1
            if stamp <= last and not _set_back(pts, number, packets[number].key, stays):
                continue  # one decoding time that is wrong
            starts.append((number, stamp - last))
        last = stamp
    jumps: list[Jump] = []
    offset = 0
    for index, (number, seconds) in enumerate(starts):
        begin = starts[index - 1][0] if index else 0
        end = starts[index + 1][0] if index + 1 < len(starts) else len(pts)
        before = [time for time in pts[begin:number] if time is not None]
        after = [time for time in pts[number:end] if time is not None]
        if before and after:
            offset += max(before) + step - min(after)
            jumps.append(Jump(number, seconds, offset * time_base))
    return tuple(jumps)


def _set_back(pts: Sequence[int | None], number: int, key: bool, stays: bool) -> bool:
    """Whether presentation times too are earlier from a packet on than before it.

    Args:
        pts: of all packets.
        number: of the packet.
        key: whether it is a keyframe, after which no frame is shown before those that precede it.
        stays: whether several decoding times are earlier.
    """
    before = [time for time in pts[max(0, number - _AROUND) : number] if time is not None]
    after = [time for time in pts[number : number + _AROUND] if time is not None]
    if not before or not after:
        return False
    return min(after) <= max(before) if key else stays and median(after) <= max(before)


def _part(pts: list[int | None]) -> int:
    """Move times that are used twice to the next free ones, in place; how many were."""
    known = [time for time in pts if time is not None]
    shared = len(known) - len(set(known))
    if not shared:
        return 0
    last: int | None = None
    for time, number in sorted((time, number) for number, time in enumerate(pts) if time is not None):
        last = time if last is None or time > last else last + 1
        pts[number] = last
    return shared


def _distinct(times: Sequence[int]) -> list[int]:
    """Ascending times without repeats."""
    parted: list[int | None] = list(times)
    _part(parted)
    return [time for time in parted if time is not None]
