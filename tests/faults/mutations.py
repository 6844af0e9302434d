"""Damage the images or videos of folders by chance, and upscale them by the command.

    python -m tests.faults.mutations image|video FOLDER... [--inputs 1000] [--seed 0] [--jobs 2] [--log FILE]

Each input ends in a documented exit code without a traceback, or in an output that is whole: of an image, what Pillow
(else FFmpeg) reads without complaint, at twice the size, and if Pillow complains, so does the command; of a video, as
many frames as a plain decoder finds. Videos are cut to a few million pixels first. The exit code is 1 if anything is
wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults import shim
from tests.faults.parallel import side_by_side, start_again

PIXELS = 500_000
BYTES = 1 << 21
VIDEOS = {".mp4", ".mkv", ".mov", ".webm", ".avi", ".ts", ".flv", ".3gp", ".wmv", ".h264", ".mjpeg", ".m4v", ".gif"}
OTHER = {".txt", ".md", ".py", ".sh", ".toml", ".pdf"}


@dataclass(frozen=True, slots=True)
class Input:
    """Number ``number`` of a seed: always the same damage to the same file."""

    number: int
    seed: int
    seeds: tuple[Path, ...]

    @property
    def name(self) -> str:
        """For messages."""
        return f"input {self.number}"


@dataclass
class Place:
    """Where inputs are written, and the injector of the process."""

    root: Path
    shim: Any


def cut(path: Path, target: Path) -> bool:
    """Copy the first packets of a video, so many that its frames hold a few million pixels.

    Returns:
        Whether that could be done; a video that is small enough, or cannot be copied, is copied as it is.
    """
    import av

    try:
        with av.open(str(path), metadata_errors="replace") as source:
            video = source.streams.video[0]
            due = max(2, PIXELS // max(1, video.width * video.height))
            with av.open(str(target), "w") as out:
                pairs: dict[int, Any] = {video.index: out.add_stream_from_template(video)}
                for sound in source.streams.audio[:1]:
                    pairs[sound.index] = out.add_stream_from_template(sound)
                for packet in source.demux(list(source.streams.get(*pairs))):
                    if packet.dts is None:
                        continue
                    due -= packet.stream.type == "video"
                    if due < 0:
                        break
                    packet.stream = pairs[packet.stream_index]
                    out.mux(packet)
    except (av.FFmpegError, ValueError, IndexError, OSError, UnicodeDecodeError):
        target.unlink(missing_ok=True)
    if not target.exists() and path.stat().st_size <= 1 << 17:
        shutil.copyfile(path, target)
    return target.exists()


def gather(kind: str, folders: Sequence[Path], root: Path) -> tuple[Path, ...]:
    """The files to damage."""
    found: list[Path] = []
    for path in sorted(path for folder in folders for path in folder.rglob("*") if path.is_file()):
        video = path.suffix in VIDEOS and path.suffix != ".gif"
        if path.suffix in OTHER or video != (kind == "video"):
            continue
        goal = root / f"{len(found):03}-{path.name}"
        if video and cut(path, goal):
            found.append(goal)
        elif not video and path.stat().st_size <= BYTES:
            shutil.copyfile(path, goal)
            found.append(goal)
    return tuple(found)


def attempt(place: Place, what: Input) -> dict[str, Any]:
    """Damage one file, upscale it, judge."""
    from tests.faults.child import run
    from tests.faults.oracle import ending
    from tests.fuzz.mutate import mutated

    chance = random.Random(f"{what.seed} {what.number}")
    seed = chance.choice(what.seeds)
    folder = Path(tempfile.mkdtemp(dir=place.root))
    source = folder / f"in{seed.suffix}"
    source.write_bytes(mutated([seed.read_bytes()], chance))
    video = seed.suffix in VIDEOS and seed.suffix != ".gif"
    target = folder / ("out.mkv" if video else "out" + chance.choice((".png", ".png", ".jpg", ".tif", ".webp")))
    argv = ["upscale", source.name, "-o", target.name, "-n", "fast", "-s", "1" if video else "2", "--threads", "1"]
    argv += ["--allow-loss", "--max-pixels", "4000000"]
    if video:
        argv += ["--engine", "torch", "--preset", "ultrafast", "--on-error", chance.choice(("stop", "keep"))]
    place.shim.clear(folder)
    outcome = run(argv, folder, place.shim)
    found = ending(outcome)
    if outcome.code == 0:
        wrong = _video(source, target) if video else _image(source, target, outcome.stderr)
        found += [wrong] if wrong else []
    elif target.exists():
        found.append("a partial file has the final name")
    if place.shim.state.connections:
        found.append("network")
    shutil.rmtree(folder)
    return {
        "number": what.number, "file": seed.name, "end": outcome.end, "argv": " ".join(argv), "found": found,
        "seconds": round(outcome.seconds, 2), "stderr": outcome.stderr[-500:] if found else "",
    }  # fmt: skip


def _video(source: Path, target: Path) -> str:
    from tests.soak.mutations import decodable

    due, there = decodable(source), decodable(target)
    return f"{there} frames of {due}" if there < due else ""


def _decoded_size(path: Path) -> tuple[int, int]:
    """Of an image that FFmpeg reads, px; (0, 0): it does not."""
    import av

    try:
        with av.open(str(path)) as opened:
            frame = next(opened.decode(video=0))
    except (av.FFmpegError, StopIteration):
        return 0, 0
    return frame.width, frame.height


def _image(source: Path, target: Path, stderr: str) -> str:
    from PIL import Image, ImageOps, UnidentifiedImageError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(target) as image:
                image.load()
                there = ImageOps.exif_transpose(image).size
        except UnidentifiedImageError:  # such as a TIFF of grey and alpha in 16 bits, which FFmpeg reads
            there = _decoded_size(target)
        except Exception as error:
            return f"the output cannot be opened: {error}"
        try:
            with Image.open(source) as image:
                image.load()
                size = ImageOps.exif_transpose(image).size
                wanted = {(2 * size[0], 2 * size[1]), (2 * image.size[0], 2 * image.size[1])}
        except Exception as error:
            return (
                ""
                if stderr.strip() or "cannot identify" in str(error)
                else f"no mention of damage: Pillow says {error}"
            )
    return "" if there in wanted else f"{size[0]}x{size[1]} became {there[0]}x{there[1]}"


def main() -> None:
    """Parse, run, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("image", "video"))
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="also write the damaged inputs that come out wrong here")
    parser.add_argument("--log", type=Path, help="JSON lines")
    words = parser.parse_args()
    if why := shim.unavailable():
        sys.stdout.write(f"0 of {words.inputs} inputs: {why}\n")
        return
    if "LD_PRELOAD" not in os.environ:
        start_again("tests.faults.mutations")
    sys.exit(run_all(words))


def run_all(words: argparse.Namespace) -> int:
    """Gather, damage, upscale; returns the exit code."""
    from tests.faults.child import warm_up
    from tests.faults.parallel import apart
    from tests.fuzz.mutate import mutated

    os.environ.pop("LD_PRELOAD")
    warm_up(("rich.console", "rich.text", "pydantic", "safetensors.torch", "safetensors.numpy"))
    root = Path(os.environ["REPSR_FAULTS_FOLDER"])
    seeds = root / "seeds"
    seeds.mkdir()
    apart(lambda: gather(words.kind, words.folders, seeds))
    files = tuple(sorted(seeds.iterdir()))
    inputs = [Input(number, words.seed, files) for number in range(words.first, words.first + words.inputs)]
    ends: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    log = words.log.open("w") if words.log else None
    for each in side_by_side(words.jobs, Place(root, None), inputs, attempt):
        record = each["result"]
        ends[record["end"]] += 1
        wrong.update(record["found"])
        if log:
            log.write(json.dumps(record) + "\n")
            log.flush()
        if record["found"]:
            sys.stdout.write(f"{record['number']} {record['file']}: {'; '.join(record['found'])}\n")
            sys.stdout.flush()
        if record["found"] and words.keep:
            words.keep.mkdir(parents=True, exist_ok=True)
            chance = random.Random(f"{words.seed} {record['number']}")
            seed = chance.choice(files)
            data = mutated([seed.read_bytes()], chance)
            (words.keep / f"{record['number']}-{record['file']}").write_bytes(data)
    sys.stdout.write(f"{ends.total()} damaged inputs of {len(files)} files (seed {words.seed}): ")
    sys.stdout.write(", ".join(f"{end} {count}" for end, count in ends.most_common()) + "\n")
    for what, count in wrong.most_common():
        sys.stdout.write(f"{count:5} {what}\n")
    return int(bool(wrong))


if __name__ == "__main__":
    main()
