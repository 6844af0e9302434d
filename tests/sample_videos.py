"""Make small videos with whatever a test needs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, TypedDict, Unpack

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.codec.context import Flags
from av.video.format import VideoFormat

from repsr_cli.video.planes import Planes, new_frame

TAGS = (1, 1, 1, 1)  # BT.709, limited range


def image(index: int, height: int, width: int, pix_fmt: str, full: bool = False) -> Planes:
    """Planes of a moving pattern with texture, colour and samples near both ends of the range."""
    layout = VideoFormat(pix_fmt, width, height)
    depth = layout.components[0].bits
    unit = 2 ** (depth - 8)
    noise = np.random.default_rng(index // 4)
    planes = []
    for number in range(len(layout.components)):
        luma = number == 0 or layout.is_rgb
        h, w = (height, width) if luma else (layout.chroma_height(height), layout.chroma_width(width))
        y, x = np.mgrid[0:h, 0:w]
        low, high = (0, 255) if full or layout.is_rgb else (16, 235 if luma else 240)
        wave = 0.5 + 0.45 * np.sin((x * (1 + number) + y * 2 + 3 * index) / 7) + noise.uniform(-0.04, 0.04, (h, w))
        samples = (low + (high - low) * wave.clip(0, 1)) * unit
        planes.append(samples.round().astype(np.uint8 if depth == 8 else np.uint16))
    return tuple(planes)


class VideoSettings(TypedDict, total=False):
    """What a test may ask for beside the frames' times and sizes.

    ``tags``: matrix, range, primaries, transfer by ITU-T H.273; None leaves them out. ``audio``: number of tracks, each
    another tone. ``subtitles``: codecs of tracks, ``subrip`` or ``mov_text``. ``frames``: planes to use in place of the
    pattern.
    """

    codec: str
    pix_fmt: str
    options: Mapping[str, str] | None
    tags: tuple[int, int, int, int] | None
    audio: int
    sar: Fraction | None
    rotation: int
    subtitles: Sequence[str]
    attachments: Mapping[str, bytes] | None
    cover: bytes | None
    chapters: bool
    metadata: Mapping[str, str] | None
    frames: Sequence[Planes] | None
    gop: int
    interlaced: bool


def make_video(
    path: Path,
    pts: Sequence[int] = tuple(range(24)),
    time_base: Fraction = Fraction(1, 25),
    size: tuple[int, int] = (36, 64),
    **settings: Unpack[VideoSettings],
) -> Path:
    """Write a video.

    Args:
        path: its suffix selects the container.
        pts: times of its frames in units of ``time_base``.
        time_base: seconds per unit.
        size: (height, width) in px.
        settings: see ``VideoSettings``.
    """
    out = av.open(str(path), "w")
    video = _add_video(out, time_base, size, settings)
    tracks = [_add_audio(out, path) for _ in range(settings.get("audio", 1))]
    texts = [_add_subtitles(out, name, number) for number, name in enumerate(settings.get("subtitles", ()))]
    for name, data in (settings.get("attachments") or {}).items():
        out.add_attachment(name, "font/ttf", data)
    cover = settings.get("cover")
    if cover is not None:
        out.add_attachment("cover.png", "image/png", cover)
    if settings.get("chapters"):
        out.set_chapters(
            [
                {"id": n, "start": 300 * n, "end": 300 * (n + 1), "time_base": Fraction(1, 1000),
                 "metadata": {"title": f"Part {n}"}}
                for n in range(2)
            ]
        )  # fmt: skip
    out.metadata.update(settings.get("metadata") or {})
    for number, track in enumerate(tracks):
        for packet in _tone(track, number):
            out.mux(packet)
    for packet in (packet for text in texts for packet in _lines(text)):
        out.mux(packet)
    _encode_frames(out, video, pts, settings)
    out.close()
    return path


def _add_video(out: Any, time_base: Fraction, size: tuple[int, int], settings: VideoSettings) -> Any:
    codec = settings.get("codec", "libx264")
    video = out.add_stream(codec, rate=25, options=dict({"crf": "12", "preset": "fast"} if codec == "libx264" else {}))
    context = video.codec_context
    context.options = {**context.options, **(settings.get("options") or {})}
    (video.height, video.width), video.pix_fmt = size, settings.get("pix_fmt", "yuv420p")
    context.time_base = time_base
    context.gop_size = settings.get("gop", 12)
    context.thread_count = 1
    tags = settings.get("tags", TAGS)
    if tags:
        context.colorspace, context.color_range, context.color_primaries, context.color_trc = tags
    if settings.get("sar"):
        context.sample_aspect_ratio = settings["sar"]
    if settings.get("interlaced"):
        context.flags |= Flags.interlaced_dct | Flags.interlaced_me
    if settings.get("rotation"):
        video.set_display_rotation(settings["rotation"])
    return video


def _add_subtitles(out: Any, name: str, number: int) -> tuple[str, Any]:
    text = out.add_mux_stream(name)
    text.time_base = Fraction(1, 1000)
    text.metadata["language"] = ["eng", "deu", "fra"][number % 3]
    return name, text


def _lines(track: tuple[str, Any]) -> Iterator[Any]:
    name, text = track
    for n in range(2):
        data = f"Line {n}".encode()
        packet: Any = av.Packet(len(data).to_bytes(2, "big") + data if name == "mov_text" else data)
        packet.stream, packet.time_base = text, Fraction(1, 1000)
        packet.pts = packet.dts = 300 * n
        packet.duration = 250
        yield packet


def _encode_frames(out: Any, video: Any, pts: Sequence[int], settings: VideoSettings) -> None:
    tags, frames = settings.get("tags", TAGS), settings.get("frames")
    full = bool(tags and tags[1] == 2)
    for index, time in enumerate(pts):
        planes = frames[index] if frames else image(index, video.height, video.width, video.pix_fmt, full)
        frame: Any = new_frame(planes, video.pix_fmt)
        frame.pts, frame.time_base = time, video.codec_context.time_base
        following = pts[index + 1] if index + 1 < len(pts) else time + (time - pts[index - 1] if index else 1)
        frame.duration = following - time
        if tags:
            frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc = tags
        out.mux(video.encode(frame))
    out.mux(video.encode(None))


def _add_audio(out: Any, path: Path) -> Any:
    codec = {".webm": "libopus", ".avi": "mp3"}.get(path.suffix, "aac")
    track = out.add_stream(codec, rate=48000)
    track.codec_context.layout = "mono"
    return track


def _tone(track: Any, number: int) -> list[Any]:
    size = 960
    packets = []
    for n in range(50):
        t = (np.arange(size) + n * size) / 48000
        wave = (0.3 * np.sin(2 * np.pi * 220 * (number + 1) * t)).astype(np.float32)
        name = track.codec_context.format.name
        whole = np.int32 if name.startswith("s32") else np.int16
        samples: Any = wave if name.startswith("flt") else (wave * (0.95 * np.iinfo(whole).max)).astype(whole)
        frame = AudioFrame.from_ndarray(samples[None, :], format=name, layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, n * size, Fraction(1, 48000)
        packets += track.encode(frame)
    return [*packets, *track.encode(None)]


def frame_times(path: Path) -> list[tuple[Fraction, Fraction]]:
    """(time, duration) in seconds of every frame as it decodes."""
    with av.open(str(path), metadata_errors="surrogateescape") as container:
        frames: Iterator[Any] = container.decode(video=0)
        return [(frame.pts * Fraction(frame.time_base), frame.duration * Fraction(frame.time_base)) for frame in frames]


def other_packets(path: Path) -> dict[int, list[tuple[Fraction, bytes]]]:
    """(time, bytes) of the packets of all streams but the first video, by stream."""
    found: dict[int, list[tuple[Fraction, bytes]]] = {}
    with av.open(str(path), metadata_errors="surrogateescape") as container:
        video = container.streams.video[0].index
        packets: Iterator[Any] = container.demux()
        for packet in packets:
            if packet.size and packet.stream_index != video:
                time = (packet.pts or 0) * Fraction(packet.time_base)  # cover art has no time
                found.setdefault(packet.stream_index, []).append((time, bytes(packet)))
    return found


def video_packets(path: Path) -> list[tuple[int, int, int, str]]:
    """(pts, dts, key, digest) of the first video stream's packets."""
    with av.open(str(path), metadata_errors="surrogateescape") as container:
        packets: Iterator[Any] = container.demux(container.streams.video[0])
        return [
            (packet.pts, packet.dts, packet.is_keyframe, hashlib.sha256(bytes(packet)).hexdigest())
            for packet in packets
            if packet.size
        ]


def decoded(path: Path) -> list[Planes]:
    """The planes of every frame."""
    from repsr_cli.video.decode import Decoder
    from repsr_cli.video.probe import probe
    from repsr_cli.yuv.device_planes import on_host

    source = probe(path)
    return [tuple(plane.copy() for plane in on_host(frame.planes)) for frame in Decoder(source, None).frames()]


def damage(path: Path, target: Path, frame: int) -> Path:
    """A copy of a video in which the packet of one frame is nonsense."""
    with av.open(str(path)) as container:
        packets: list[Any] = [p for p in container.demux(container.streams.video[0]) if p.size]
        where, size = packets[frame].pos, packets[frame].size
    data = bytearray(path.read_bytes())
    data[where + 8 : where + size] = bytes(255 - byte for byte in data[where + 8 : where + size])
    target.write_bytes(data)
    return target
