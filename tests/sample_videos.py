"""Small videos made on the spot, with whatever a test is about. Imported by tests of the video path."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.codec.context import Flags
from av.video.format import VideoFormat

from repsr_cli.video.planes import Planes, new_frame


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


def make_video(
    path: Path,
    pts: Sequence[int] = tuple(range(24)),
    time_base: Fraction = Fraction(1, 25),
    size: tuple[int, int] = (36, 64),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: Mapping[str, str] | None = None,
    tags: tuple[int, int, int, int] | None = (1, 1, 1, 1),
    audio: int = 1,
    sar: Fraction | None = None,
    rotation: int = 0,
    subtitles: Sequence[str] = (),
    attachments: Mapping[str, bytes] | None = None,
    cover: bytes | None = None,
    chapters: bool = False,
    metadata: Mapping[str, str] | None = None,
    frames: Sequence[Planes] | None = None,
    gop: int = 12,
    interlaced: bool = False,
) -> Path:
    """Write a video.

    Args:
        path: its suffix says which container.
        pts: times of its frames in units of ``time_base``; one more is taken as the end.
        tags: matrix, range, primaries, transfer by ITU-T H.273; None leaves them out.
        audio: number of tracks, each another tone.
        subtitles: codecs of tracks: ``subrip``, ``mov_text``.
        frames: planes to use in place of the pattern.
    """
    height, width = size
    out = av.open(str(path), "w")
    video: Any = out.add_stream(
        codec, rate=25, options=dict({"crf": "12", "preset": "fast"} if codec == "libx264" else {})
    )
    video.codec_context.options = {**video.codec_context.options, **(options or {})}
    video.width, video.height, video.pix_fmt = width, height, pix_fmt
    video.codec_context.time_base = time_base
    video.codec_context.gop_size = gop
    video.codec_context.thread_count = 1
    if tags:
        ctx = video.codec_context
        ctx.colorspace, ctx.color_range, ctx.color_primaries, ctx.color_trc = tags
    if sar:
        video.codec_context.sample_aspect_ratio = sar
    if interlaced:
        video.codec_context.flags |= Flags.interlaced_dct | Flags.interlaced_me
    if rotation:
        video.set_display_rotation(rotation)
    tracks = [_add_audio(out, path) for _ in range(audio)]
    texts = []
    for number, name in enumerate(subtitles):
        text: Any = out.add_mux_stream(name)
        text.time_base = Fraction(1, 1000)
        text.metadata["language"] = ["eng", "deu", "fra"][number % 3]
        texts.append((name, text))
    for name, data in (attachments or {}).items():
        out.add_attachment(name, "font/ttf", data)
    if cover is not None:
        out.add_attachment("cover.png", "image/png", cover)
    if chapters:
        out.set_chapters(
            [
                {"id": n, "start": 300 * n, "end": 300 * (n + 1), "time_base": Fraction(1, 1000),
                 "metadata": {"title": f"Part {n}"}}
                for n in range(2)
            ]
        )  # fmt: skip
    out.metadata.update(metadata or {})
    for number, track in enumerate(tracks):
        for packet in _tone(track, number):
            out.mux(packet)
    for name, text in texts:
        for n in range(2):
            data = f"Line {n}".encode()
            packet = av.Packet(len(data).to_bytes(2, "big") + data if name == "mov_text" else data)
            packet.stream, packet.time_base = text, Fraction(1, 1000)
            packet.pts = packet.dts = 300 * n
            packet.duration = 250
            out.mux(packet)
    full = bool(tags and tags[1] == 2)
    for index, time in enumerate(pts):
        frame = new_frame(frames[index] if frames else image(index, height, width, pix_fmt, full), pix_fmt)
        frame.pts, frame.time_base = time, time_base
        following = pts[index + 1] if index + 1 < len(pts) else time + (time - pts[index - 1] if index else 1)
        frame.duration = following - time
        if tags:
            frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc = tags
        out.mux(video.encode(frame))
    out.mux(video.encode(None))
    out.close()
    return path


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
        samples = wave if name.startswith("flt") else (wave * 32000).astype(np.int16)
        frame = AudioFrame.from_ndarray(samples[None, :], format=name, layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, n * size, Fraction(1, 48000)
        packets += track.encode(frame)
    return [*packets, *track.encode(None)]


def frame_times(path: Path) -> list[tuple[Fraction, Fraction]]:
    """(time, duration) in seconds of every frame as it decodes."""
    with av.open(str(path), metadata_errors="surrogateescape") as container:
        return [
            (frame.pts * Fraction(frame.time_base), frame.duration * Fraction(frame.time_base))
            for frame in container.decode(video=0)
        ]


def other_packets(path: Path) -> dict[int, list[tuple[Fraction, bytes]]]:
    """(time, bytes) of the packets of all streams but the first video, by stream."""
    found: dict[int, list[tuple[Fraction, bytes]]] = {}
    with av.open(str(path), metadata_errors="surrogateescape") as container:
        video = container.streams.video[0].index
        for packet in container.demux():
            if packet.size and packet.stream_index != video:
                time = (packet.pts or 0) * Fraction(packet.time_base)  # cover art has no time
                found.setdefault(packet.stream_index, []).append((time, bytes(packet)))
    return found


def video_packets(path: Path) -> list[tuple[int, int, int, str]]:
    """(pts, dts, key, digest) of the first video stream's packets."""
    with av.open(str(path)) as container:
        return [
            (packet.pts, packet.dts, packet.is_keyframe, hashlib.sha256(bytes(packet)).hexdigest())
            for packet in container.demux(container.streams.video[0])
            if packet.size
        ]


def decoded(path: Path) -> list[Planes]:
    """The planes of every frame."""
    from repsr_cli.video.decode import Decoder
    from repsr_cli.video.probe import probe

    source = probe(path)
    return [tuple(plane.copy() for plane in frame.planes) for frame in Decoder(source, None).frames()]


def damage(path: Path, target: Path, frame: int) -> Path:
    """A copy of a video in which the packet of one frame is nonsense."""
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(container.streams.video[0]) if p.size]
        where, size = packets[frame].pos, packets[frame].size
    data = bytearray(path.read_bytes())
    data[where + 8 : where + size] = bytes(255 - byte for byte in data[where + 8 : where + size])
    target.write_bytes(data)
    return target
