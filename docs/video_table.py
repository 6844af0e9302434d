"""Make the table of docs/video.md: every video of a folder through the whole path, with an identity network.

    python docs/video_table.py FOLDER

Prints Markdown. The comparison is of what a reader of the output finds.
"""

from __future__ import annotations

import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import av

from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import MediaError
from repsr_cli.model.plain import identity_network
from repsr_cli.model.zoo import ModelFile
from repsr_cli.reporting import SILENT, Outcome
from repsr_cli.upscale.plan_video import plan_video
from repsr_cli.upscale.request import Request
from repsr_cli.upscale.sinks import sink_for
from repsr_cli.upscale.video import upscale_video
from repsr_cli.video.decode import Decoder
from repsr_cli.video.probe import is_video, probe
from repsr_cli.video.timeline import scan

FAST = {".webm": {"codec": "libvpx-vp9", "preset": "8"}}


def packets(path: Path, video: int) -> list[tuple[bytes, ...]]:
    """The packets of every stream but one that has any."""
    found: dict[int, list[bytes]] = {}
    with av.open(str(path), metadata_errors="surrogateescape") as container:
        for packet in container.demux():
            if packet.size and packet.stream_index != video:
                found.setdefault(packet.stream_index, []).append(bytes(packet))
    return sorted(map(tuple, found.values()))


def times(path: Path, deinterlace: bool = False) -> list[Fraction]:
    """Seconds at which frames are shown."""
    source = probe(path)
    decoder = Decoder(source, scan(source), deinterlace=deinterlace)
    return [frame.pts * source.time_base for frame in decoder.frames()]


def upscaled(path: Path, target: Path, upscaler: Upscaler, request: Request) -> Outcome:
    """Upscale a video by a network that is in no file."""
    plan = plan_video(path, target, request, ModelFile("identity", Path("identity"), upscaler.scale))
    return upscale_video(plan, sink_for(plan), (upscaler,), SILENT)


def row(path: Path, folder: Path, upscaler: Upscaler) -> str:
    """One video's line."""
    suffix = path.suffix if path.suffix in (".mp4", ".mov", ".mkv", ".webm") else ".mkv"
    target = folder / f"{path.stem}{suffix}"
    settings = FAST.get(suffix, {"preset": "ultrafast"})
    try:
        if suffix == ".webm" and probe(path).planar.endswith("10le"):
            settings = {"preset": "12"}
        options = Request.of(**settings, allow_loss=True)
        try:
            outcome = upscaled(path, target, upscaler, options)
        except MediaError as error:
            if "--deinterlace" not in error.remedy:
                raise
            options = Request.of(**settings, allow_loss=True, deinterlace=True)
            outcome = upscaled(path, target, upscaler, options)
    except MediaError as error:
        return f"| {path.name} | refused: {error.happened} | | | | |"
    before, after = times(path), times(target)
    shift = after[0] - before[0]
    worst = max(abs(b - a - shift) for a, b in zip(before, after, strict=True))
    moved = f", moved by {float(shift):.3f} s" if shift else ""
    one, two = probe(path), probe(target)
    mine, theirs = packets(target, two.index), packets(path, one.index)
    others = (
        "none" if not theirs else "identical" if mine == theirs else f"{len(set(mine) & set(theirs))} of {len(theirs)}"
    )
    tags = "equal" if one.tags == two.found else f"{one.tags} / {two.found}"
    kept = "kept" if (one.rotation, one.sar, one.hdr) == (two.rotation, two.sar, two.hdr) else "CHANGED"
    exact = "equal" if worst == 0 else f"within {float(worst) * 1000:.2f} ms"
    lost = "; ".join(note for note in outcome.notes if note.startswith(("lost", "not carried", "deinterlaced")))
    made = f"{outcome.facts['codec']} {suffix[1:]}"
    frames = f"{len(after)} of {len(before)} frames"
    return f"| {path.name} | {made}, {frames} | {exact}{moved} | {others} | {tags}, {kept} | {lost} |"


def main(folder: Path) -> None:
    """Print the table."""
    upscaler = Upscaler(identity_network(1), device="cpu", threads=1)
    lines = [
        "| video | output | times of frames | other packets | tags; rotation, SAR, HDR | remarks |",
        "|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as made:
        for path in sorted(folder.iterdir()):
            if path.suffix != ".md" and (is_video(path) or "invalid" in path.name):
                lines.append(row(path, Path(made), upscaler))
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
