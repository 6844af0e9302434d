"""Decide what happens to every stream of a source, by testing it on the muxer before the first frame is decoded."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet

from repsr_cli.errors import MediaError, UsageError
from repsr_cli.video.clock import shifted
from repsr_cli.video.copy_times import Retimer, collect
from repsr_cli.video.encoders import Encoding
from repsr_cli.video.mux import (
    MIME_SUFFIXES,
    TEXT_IN,
    Output,
    StreamAction,
    Window,
    add_streams,
    copy_stream,
    has_own_tags,
    open_output,
)
from repsr_cli.video.open import translated
from repsr_cli.video.probe import StreamInfo, VideoSource, stream_info
from repsr_cli.video.scheduling import usual_scheduling
from repsr_cli.video.timeline import Timeline, is_ready

FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
IMAGES = "images"
Y4M = "y4m"

# Text subtitles.
_TEXT = frozenset({"subrip", "ass", "ssa", "mov_text", "webvtt", "text"})
# Streams that describe their own container.
_OF_CONTAINERS = {
    "dvd_nav_packet": "DVD navigation",
    "epg": "a programme guide",
    "scte_35": "cues for inserting advertisements",
}
# How many packets of a stream are tried on the muxer, and how much of the file is read for them.
_TRIED = 3
_TRIED_BYTES = 1 << 28
# FFmpeg's mark of streams that it reads for its own use, such as QuickTime's chapters (AVDISCARD_ALL).
_DISCARDED = 48


def format_of(target: Path) -> str:
    """FFmpeg's name of the container that a target's name stands for.

    ``-`` and ``.y4m`` mean raw frames; ``frames/%06d.png`` means a numbered image for every frame.

    Raises:
        UsageError: it stands for no container that can hold a video and its streams.
    """
    if str(target) == "-" or target.suffix.lower() == ".y4m":
        return Y4M
    found = FORMATS.get(target.suffix.lower())
    if found is None and "%" in target.name:
        numbered = target.suffix.lower() == ".png" and re.fullmatch(r"[^%]*%(0?[0-9]{1,2})?d[^%]*", target.name)
        if not numbered:
            raise UsageError(target, "not a pattern for numbered images", "Try frames/%06d.png.")
        return IMAGES
    if found is None:
        raise UsageError(target, "not a container for video", f"Choose from: {', '.join(FORMATS)}.")
    return found


def plan_streams(
    source: VideoSource, timeline: Timeline | None, format: str, encoding: Encoding
) -> tuple[StreamAction, ...]:
    """Decide what becomes of every stream, by asking the muxer.

    Raises:
        MediaError: the container cannot hold the upscaled stream itself.
    """
    if format in (IMAGES, Y4M):
        why = f"{format} cannot hold it"
        return tuple(
            StreamAction(info, "upscale") if info.index == source.index else StreamAction(info, "drop", why)
            for info in source.streams
        )
    if timeline is None:
        actions: tuple[StreamAction, ...] = (StreamAction(source.streams[0], "upscale"),)
        rehearse(Output(source, actions, format, encoding, Window()), None)
        return actions
    with source.open() as container:
        first = _first_packets(container, source, timeline)
        actions = tuple(
            _action(source, timeline, format, stream, first.get(stream.index, ())) for stream in container.streams
        )
        actions = _with_times(source, actions, timeline)
        rehearse(Output(source, actions, format, encoding, Window()), container, first)
    return actions


def _action(
    source: VideoSource, timeline: Timeline, format: str, stream: Any, packets: Sequence[Packet[Any]]
) -> StreamAction:
    """What becomes of a stream, by trying its first packets."""
    info, count = stream_info(stream), timeline.packets.get(stream.index, 0)
    if info.index == source.index:
        return StreamAction(info, "upscale")
    if info.codec == "bin_data" and stream.discard >= _DISCARDED and source.container.startswith("mov"):
        return StreamAction(info, "drop", "chapters are written from their list")
    if info.kind != "attachment" and not count:
        return StreamAction(info, "drop", "it is empty")
    if info.kind == "data" and "timecode" in stream.metadata:
        return _timecode(info, stream.metadata["timecode"], count, format)
    if meaning := _meaningless(stream, info):
        return StreamAction(info, "drop", f"{meaning}, which means nothing in another file")
    if info.cover:
        return _cover(info, stream, packets, format)
    if not is_ready(stream):
        return StreamAction(info, "drop", "nothing in it says what it contains: scrambled or damaged", loses=True)
    way = _way_into(format, stream, packets)
    if way is not None:
        return _copied(info, stream.container, way)
    if info.kind == "subtitle" and info.codec in _TEXT:
        styled = info.codec in ("ass", "ssa")
        more = ", without its styling" if styled else ""
        return StreamAction(info, "convert", f"to {TEXT_IN[format]}{more}", loses=styled)
    return StreamAction(info, "drop", f"{format} cannot hold it", loses=True)


def _copied(info: StreamInfo, container: InputContainer, way: str) -> StreamAction:
    """A stream that is copied, and what is lost for it."""
    if way == "riff" and _has_chapters(container):
        # FFmpeg's tee, through which such streams go, passes on no chapters.
        return StreamAction(info, "copy", "chapters cannot be written beside it", loses=True, riff=True)
    why = "only the first moving stream is upscaled" if info.kind == "video" else ""
    return StreamAction(info, "copy", why, riff=way == "riff")


def _cover(info: StreamInfo, stream: Any, packets: Sequence[Packet[Any]], format: str) -> StreamAction:
    if format == "matroska" and info.codec in MIME_SUFFIXES:
        return StreamAction(info, "attach", "cover")
    if format == "mov":
        return StreamAction(info, "drop", "mov has no cover art", loses=True)
    if format == "mp4" and has_own_tags(stream.container):
        return StreamAction(info, "drop", "mp4 holds a cover or tags of other names than its own, not both", loses=True)
    if _way_into(format, stream, packets) == "direct":
        return StreamAction(info, "copy")
    return StreamAction(info, "drop", f"{format} cannot hold it", loses=True)


def _timecode(info: StreamInfo, start: str, count: int, format: str) -> StreamAction:
    """A timecode track: QuickTime's and MP4's muxers write it anew, others keep its beginning as a tag of the video."""
    if format == "webm":
        return StreamAction(info, "drop", "webm cannot hold it", loses=True)
    if count > 1:
        why = f"only its beginning, {start}, is written, not its {count - 1} later values"
        return StreamAction(info, "drop", why, loses=True)
    where = "as a track" if format in ("mp4", "mov") else "as a tag of the video"
    return StreamAction(info, "drop", f"its timecode, {start}, is written anew {where}")


def _meaningless(stream: Any, info: StreamInfo) -> str:
    """What a stream holds that describes its own container only; an empty string otherwise."""
    if info.kind == "data" and "hint" in stream.metadata.get("handler_name", "").lower():
        return "hints for streaming"
    return _OF_CONTAINERS.get(info.codec, "")


def _way_into(format: str, stream: Any, packets: Sequence[Packet[Any]]) -> Literal["direct", "riff"] | None:
    """How a container takes a stream as it is, tried with its first packets; None if it does not."""
    if stream.type == "unknown" or (stream.type == "attachment" and format != "matroska"):
        return None
    ways: tuple[Literal["direct", "riff"], ...] = ("direct", "riff") if format == "matroska" else ("direct",)
    for way in ways:
        try:
            with _scratch(format, way == "riff") as scratch:
                copied = copy_stream(scratch, stream)
                scratch.start_encoding()
                _rehearse_packets(scratch, {stream.index: copied}, {stream.index: packets})
        except (av.FFmpegError, ValueError):
            continue
        return way
    return None


def _scratch(format: str, riff: bool) -> OutputContainer:
    """An output that is kept nowhere."""
    if riff:
        return open_output(Path(os.devnull), format, riff, {})
    return av.open(io.BytesIO(), "w", format=format, metadata_errors="surrogateescape")


def _first_packets(container: InputContainer, source: VideoSource, timeline: Timeline) -> dict[int, list[Packet[Any]]]:
    """The first packets of every stream but the upscaled one, as far as they come early in the file."""
    wanted = {index: min(_TRIED, count) for index, count in timeline.packets.items() if index != source.index}
    found: dict[int, list[Packet[Any]]] = {index: [] for index in wanted}
    read = 0
    packet: Any
    for packet in container.demux():
        index, read = packet.stream_index, read + packet.size
        if packet.size and index in wanted and len(found[index]) < wanted[index]:
            found[index].append(packet)
        if read > _TRIED_BYTES or all(len(found[index]) >= count for index, count in wanted.items()):
            break
    return found


def _with_times(source: VideoSource, actions: tuple[StreamAction, ...], timeline: Timeline) -> tuple[StreamAction, ...]:
    """The same, with the times of packets that are out of order."""
    taken = {each.stream.index for each in actions if each.action in ("copy", "convert") and not each.stream.cover}
    odd = timeline.unordered & taken
    if not odd:
        return actions
    with translated(source.path), source.open() as container:
        changes = collect(shifted(container.demux(), timeline.shifts), odd)
    return tuple(_with_its_times(each, changes.get(each.stream.index, {}), timeline) for each in actions)


def _with_its_times(action: StreamAction, changes: Mapping[int, tuple[int, int]], timeline: Timeline) -> StreamAction:
    if not changes:
        return action
    count = timeline.packets[action.stream.index]
    happened = f"{len(changes)} of {count} packets are out of order: their times are made to ascend"
    return replace(action, why="; ".join(filter(None, (action.why, happened))), times=changes)


def _rehearse_packets(
    scratch: OutputContainer, copies: Mapping[int, Any], first: Mapping[int, Sequence[Packet[Any]]]
) -> None:
    """Write copies of packets."""
    retimer = Retimer({})
    for index, stream in copies.items():
        for packet in first.get(index, ()):
            copy: Any = Packet(bytes(packet))
            copy.time_base, copy.duration, copy.is_keyframe = packet.time_base, packet.duration, packet.is_keyframe
            copy.dts = packet.dts if packet.dts is not None else packet.pts if packet.pts is not None else 0
            copy.pts = packet.pts if packet.pts is not None else copy.dts
            copy.stream = stream
            retimer.write(copy, stream, int(scratch.format.flags))
            scratch.mux_one(copy)


def rehearse(
    output: Output, container: InputContainer | None, first: Mapping[int, Sequence[Packet[Any]]] | None = None
) -> None:
    """Write the header and some packets of the output to memory, so that refusals are known before the first frame.

    Args:
        container: the source, open; None where it can be read only once.
        first: packets of the copied streams to try.
    """
    try:
        with _scratch(output.format, output.riff) as scratch:
            _, copies = add_streams(scratch, output, container)
            with usual_scheduling():
                scratch.start_encoding()
            converted = {each.stream.index for each in output.streams if each.action == "convert"}
            tried = {index: stream for index, stream in copies.items() if index not in converted}
            _rehearse_packets(scratch, tried, first or {})
    except (av.FFmpegError, ValueError) as error:
        codec, pix_fmt = output.encoding.codec, output.encoding.pix_fmt
        happened = f"{output.format} cannot hold {codec} in {pix_fmt} beside the other streams ({error})"
        remedy = "Choose .mkv as the target, or another encoder with -c."
        raise MediaError(output.source.path, happened, remedy) from error


def _has_chapters(container: InputContainer) -> bool:
    return bool(container.chapters())
