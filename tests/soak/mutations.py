"""Upscales damaged videos: bits flipped, cut off, blocks zeroed, heads swapped with another video's.

    python -m tests.soak.mutations [--inputs 200] [--seed 0]

Each input ends in an error of repsr's own, or in an output that has a frame for every one of the undamaged video;
under ``--on-error keep``, which says what is lost, for every one that a plain decoder finds in the damaged input. A
traceback, a hang of more than 30 s or a missing frame ends the run with exit code 1.
"""

from __future__ import annotations

import argparse
import faulthandler
import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import av

from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import RepsrError
from repsr_cli.model.plain import identity_network
from repsr_cli.reporting import Reporter
from repsr_cli.upscale.request import Request
from tests.sample_videos import VideoSettings, make_video
from tests.upscaling import upscale_video

FRAMES = 24
SECONDS = 30
MODES: Sequence[Literal["stop", "keep"]] = ("stop", "keep")
SOURCES: dict[str, VideoSettings] = {
    "h264.mp4": {},
    "h264.mkv": {},
    "prores.mov": {"codec": "prores_ks", "pix_fmt": "yuv422p10le"},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "mpeg4.avi": {"codec": "mpeg4", "audio": 0},
    "mpeg2.ts": {"codec": "mpeg2video", "audio": 0},
}


def mutated(whole: bytes, other: bytes, chance: random.Random) -> tuple[str, bytes]:
    """What was done, and the damaged bytes."""
    data = bytearray(whole)
    kind = chance.choice(("flipped", "flipped", "cut", "zeroed", "swapped"))
    if kind == "flipped":
        for _ in range(chance.randint(1, 6)):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif kind == "cut":
        del data[chance.randrange(1, len(data)) :]
    elif kind == "zeroed":
        at, span = chance.randrange(len(data)), chance.randint(1, 600)
        data[at : at + span] = bytes(len(data[at : at + span]))
    else:
        span = chance.choice((8, 64, 512, 1500))
        data[:span] = other[:span]
    return kind, bytes(data)


def decodable(path: Path) -> int:
    """Frames that a plain decoder of one thread gives, going on after errors; several threads may let more through."""
    count = 0
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            video = container.streams.video[0]
            video.codec_context.thread_count = 1
            for packet in container.demux(video):
                try:
                    count += len(packet.decode())
                except av.FFmpegError:
                    continue
    except (av.FFmpegError, IndexError):
        pass
    return count


def soak(inputs: int, seed: int) -> Counter[str]:
    """Try so many inputs; returns the figures.

    Raises:
        SystemExit: frames are missing from an output.
    """
    chance = random.Random(seed)
    upscaler = Upscaler(identity_network(1), device="cpu", threads=1)
    figures: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wholes = {
            file: make_video(folder / file, range(FRAMES), size=(32, 48), **settings).read_bytes()
            for file, settings in SOURCES.items()
        }
        for number in range(inputs):
            file = chance.choice(list(wholes))
            kind, data = mutated(wholes[file], wholes[chance.choice(list(wholes))], chance)
            source, target = folder / f"damaged-{file}", folder / "out.mkv"
            source.write_bytes(data)
            on_error = chance.choice(MODES)
            options = Request.of(preset="ultrafast", on_error=on_error, allow_loss=True, overwrite=True, resume=False)
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            try:
                frames = upscale_video(source, target, upscaler, options, Reporter()).facts["frames"]
            except RepsrError as error:
                figures[f"refused with exit code {error.exit_code}"] += 1
                continue
            finally:
                faulthandler.cancel_dump_traceback_later()
            there, due = decodable(target), FRAMES if on_error == "stop" else decodable(source)
            if there != frames or frames < due:
                raise SystemExit(f"input {number} ({file}, {kind}, {on_error}): {due} frames in, {there} out")
            figures[
                "all frames" if frames >= FRAMES else f"fewer than the whole {file}, {kind}, reported under keep"
            ] += 1
    return figures


def main() -> None:
    """Read the command line, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    figures = soak(asked.inputs, asked.seed)
    print("\n".join(f"{count:5} {name}" for name, count in figures.most_common()))


if __name__ == "__main__":
    main()
