"""Run a folder of inputs and scripts that once went wrong, and say which come out right.

    python -m tests.faults.cases FOLDER [--only PART] [--log FILE]

FOLDER holds ``images/``, ``video/`` and ``reproductions/``. What is right for each file stands in the tables below: how
the command has to end, and a look at what it wrote. The exit code is 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, ImageOps

from tests.conftest import ROOT, textured
from tests.faults.commands import RECIPE
from tests.faults.oracle import content, last_error
from tests.sample_videos import image, make_video

OPTIONS = ("-n", "fast", "-s", "2", "--threads", "1", "--quiet")
LOUD = OPTIONS[:-1]


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended.

    Attributes:
        code: its exit code.
        messages: what it wrote to stderr.
        source, target: its input, and what it wrote, if it did.
    """

    code: int
    messages: str
    source: Path
    target: Path | None


Check = Callable[[Done], str]
"""What is wrong, or nothing."""


# Images.


def shown(path: Path) -> Any:
    """The pixels as a viewer shows them, uint8 RGB."""
    with Image.open(path) as image:
        image.load()
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB")).astype(np.float64)


def raw(path: Path) -> Any:
    """The pixels without any orientation, uint8 RGB."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(np.float64)


def like(pixels: Callable[[Path], Any], limit: float = 12) -> Check:
    """Half the size of the output is the input, as ``pixels`` reads it."""

    def check(done: Done) -> str:
        assert done.target
        wanted, there = pixels(done.source), shown(done.target)
        if there.shape[0] != 2 * wanted.shape[0] or there.shape[1] != 2 * wanted.shape[1]:
            return f"{wanted.shape[1]}x{wanted.shape[0]} became {there.shape[1]}x{there.shape[0]}"
        small = (there[::2, ::2] + there[1::2, ::2] + there[::2, 1::2] + there[1::2, 1::2]) / 4
        error = np.abs(small - wanted).mean()
        return "" if error < limit else f"other pixels: {error:.0f} levels away"

    return check


def chunks(path: Path) -> dict[bytes, list[bytes]]:
    """The chunks of a PNG file."""
    data, at, found = path.read_bytes(), 8, {}  # type: ignore[var-annotated]
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        found.setdefault(data[at + 4 : at + 8], []).append(data[at + 8 : at + 8 + size])
        at += 12 + size
    return found


def cicp(*wanted: int) -> Check:
    """The PNG says these primaries, transfer."""

    def check(done: Done) -> str:
        assert done.target
        found = chunks(done.target)
        there = tuple(found.get(b"cICP", [b""])[0][: len(wanted)])
        return "" if there == wanted or (b"iCCP" in found and wanted[1] == 13) else f"cICP {there}, not {wanted}"

    return check


def depth(bits: int) -> Check:
    """The PNG has so many bits."""

    def check(done: Done) -> str:
        assert done.target
        there = chunks(done.target)[b"IHDR"][0][8]
        return "" if there == bits else f"{there} bits"

    return check


def holds(*parts: bytes) -> Check:
    """The file contains these bytes."""

    def check(done: Done) -> str:
        assert done.target
        data = done.target.read_bytes()
        missing = [part for part in parts if part not in data]
        return f"{missing[0]!r} is lost" if missing else ""

    return check


def density(x: int, y: int) -> Check:
    """Pixels are so wide, whatever the unit."""

    def check(done: Done) -> str:
        assert done.target
        with Image.open(done.target) as image:
            there = image.info.get("jfif_density") or image.info.get("aspect") or image.info.get("dpi") or (1, 1)
        return "" if there[0] * y == there[1] * x else f"aspect {there}"

    return check


def grey(done: Done) -> str:
    """One channel stays one."""
    assert done.target
    with Image.open(done.target) as image:
        return "" if image.mode in ("L", "I;16") else f"became {image.mode}"


def not_white(done: Done) -> str:
    """Something can be seen."""
    assert done.target
    with Image.open(done.target) as image:
        return "" if np.asarray(image.convert("L")).std() > 1 else "nothing can be seen"


def second_done(done: Done) -> str:
    """The other input of the batch is done."""
    return "" if list(done.source.parent.glob("second*_x2.*")) else "the rest of the batch is not done"


@dataclass(frozen=True, slots=True)
class Want:
    """What is right.

    Attributes:
        exit_codes: with which the command may end.
        words: any of them must appear on stderr; case does not matter.
        never: must not appear there.
        checks: of what was written, if the command ended with 0.
        otherwise_named: where a check fails, ``words`` on stderr are right too.
        arguments: to the command.
        command: ``upscale`` or ``compare``.
    """

    exit_codes: tuple[int, ...] = (0,)
    checks: tuple[Check, ...] = ()
    words: str = ""
    never: str = ""
    otherwise_named: bool = False
    arguments: tuple[str, ...] = ()
    command: str = "upscale"
    with_second: bool = False


UPRIGHT = Want(checks=(like(raw),))
ONCE = Want(checks=(like(shown),))
OPENS = Want()
NAMED_OR_REFUSED = (0, 2, 3)
IMAGES: dict[str, tuple[Want, ...]] = {
    "A1_exif1_xmp6.jpg": (UPRIGHT,),
    "A7_png_exif1_xmp8.png": (UPRIGHT,),
    "A8_webp_exif1_xmp3.webp": (UPRIGHT,),
    "A9_tiff_orient1_xmp6.tif": (UPRIGHT,),
    "B3_png_xmp80k.png": (Want(NAMED_OR_REFUSED, (second_done,), arguments=("-f", "jpg"), with_second=True),),
    "B4_png_exif70k.png": (Want(NAMED_OR_REFUSED, (second_done,), arguments=("-f", "jpg"), with_second=True),),
    "B1_iptc.jpg": (
        Want(NAMED_OR_REFUSED, (holds(b"8BIM"),), "IPTC", otherwise_named=True, arguments=("-f", "jpg")),
        Want(NAMED_OR_REFUSED, (holds(b"8BIM"),), "IPTC", otherwise_named=True),
    ),
    "C2_nclx_p3.avif": (
        Want(checks=(cicp(12, 13),), arguments=("-f", "png")),
        Want(checks=(holds(b"colrnclx\0\x0c\0\x0d"),)),
    ),
    "C3_pq2020_10bit.avif": (Want(checks=(cicp(9, 16),)),),
    "D1_rgb16.ppm": (Want(checks=(depth(16),), arguments=("-f", "png")),),
    "g4_o3.tif": (ONCE,),
    "g4_o6.tif": (ONCE,),
    "bilevel_o8.tif": (Want(checks=(like(shown, 60),)),),  # noise: 46 levels; turned wrongly, 108 and more
    "B6_jfif_aspect_2_1.jpg": (
        Want(NAMED_OR_REFUSED, (density(2, 1),), "aspect|density", otherwise_named=True, arguments=("-f", "jpg")),
    ),
    "B6_png_phys_unit0_2_1.png": (Want(NAMED_OR_REFUSED, (density(2, 1),), "aspect|density", otherwise_named=True),),
    "x.pdf": (Want((2, 3), words="neither an image nor a video"),),
    "G1_badcrc_tEXt.png": (OPENS,),
    "G2_bad_iccp_deflate.png": (OPENS,),
    "G2_bad_ztxt.png": (OPENS,),
    "G3_palette_short.png": (OPENS,),
    "G_jpg_noeoi.jpg": (OPENS,),
    "G5_cgbi.png": (Want((0, 3), words="CgBI|Apple|iOS|iPhone"),),
    "D1_floatgrey.pfm": (OPENS,),
    "D1_rgba.pam": (OPENS,),
    "1395_image-tiff_quad-tile.tif": (Want(checks=(like(shown),)),),
    "E1_unspec.tif": (Want(NAMED_OR_REFUSED, (), "sample|channel|alpha"),),
    "C5_grey_rgbicc.jpg": (Want(NAMED_OR_REFUSED, (grey,), "gr[ae]y|profile", otherwise_named=True),),
    "B5_ai_text.png": tuple(
        Want(NAMED_OR_REFUSED, (holds(b"masterpiece"),), "text|metadata", otherwise_named=True, arguments=("-f", each))
        for each in ("jpg", "webp", "tiff")
    ),
    "C1_gamma1.png": (
        Want(NAMED_OR_REFUSED, (holds(b"ICC_PROFILE"),), "gamma|gAMA", otherwise_named=True, arguments=("-f", "jpg")),
    ),
    "C1_cicp_p3.png": (
        Want(NAMED_OR_REFUSED, (holds(b"ICC_PROFILE"),), "cICP|colou?r|primaries|P3", otherwise_named=True,
             arguments=("-f", "jpg")),
        Want(checks=(cicp(12, 13),)),
    ),
    "B9_chunks.png": (Want(NAMED_OR_REFUSED, (holds(b"bKGD", b"caBX"),), "bKGD|caBX|C2PA", otherwise_named=True),),
    "B10_comments.jpg": (Want(checks=(lambda done: comments(done),), words="comment", otherwise_named=True,
                              arguments=("-f", "jpg")),),
    "K19_loop3.gif": (Want(NAMED_OR_REFUSED, (), "loop|animat|frames|pages", arguments=("-f", "avif")),),
    "D5_dem.tif": (Want(checks=(not_white,), command="compare"),),
    "few_strips.tif": (Want((0, 3), (), "strip|missing|cut|incomplete|short|damaged"),),
}  # fmt: skip


def comments(done: Done) -> str:
    """All comments of a JPEG file are there."""
    assert done.target
    before, after = (path.read_bytes().count(b"\xff\xfe") for path in (done.source, done.target))
    return "" if after >= before else f"{after} of {before} comments"


# Videos.


def times(path: Path) -> list[Fraction]:
    """When each frame of the first video stream is shown, in seconds, in order of time."""
    found = []
    with av.open(str(path), metadata_errors="replace") as container:
        for frame in container.decode(video=0):
            assert frame.pts is not None
            assert frame.time_base is not None
            found.append(frame.pts * Fraction(frame.time_base))
    return sorted(found)


def frames(count: int) -> Check:
    """So many frames."""

    def check(done: Done) -> str:
        assert done.target
        there = len(times(done.target))
        return "" if there == count else f"{there} of {count} frames"

    return check


def steady(count: int, seconds: float) -> Check:
    """So many frames, each as long as the others but for rounding to 1 ms."""

    def check(done: Done) -> str:
        assert done.target
        found = times(done.target)
        steps = [float(b - a) for a, b in pairwise(found)]
        odd = [step for step in steps if abs(step - seconds) > 0.0011]
        if len(found) != count:
            return f"{len(found)} of {count} frames"
        return f"{len(odd)} odd steps, e.g. {odd[0]:.3f} s" if odd else ""

    return check


def all_packets(done: Done) -> str:
    """As many packets of sound as in the source."""
    assert done.target

    # Far enough to find streams that begin late.
    probing = {"probesize": "100000000", "analyzeduration": "60000000", "fpsprobesize": "10000"}

    def sound(path: Path) -> int:
        with av.open(str(path), metadata_errors="replace", container_options=probing) as container:
            return sum(1 for packet in container.demux() if packet.size and packet.stream.type == "audio")

    before, after = sound(done.source), sound(done.target)
    return "" if after >= before else f"{after} of {before} packets of sound"


def stream(name: str, wanted: Any) -> Check:
    """A property of the first video stream."""

    def check(done: Done) -> str:
        assert done.target
        with av.open(str(done.target)) as container:
            there = getattr(container.streams.video[0].codec_context, name)
            there = container.streams.video[0].sample_aspect_ratio if name == "sample_aspect_ratio" else there
        return "" if there == wanted else f"{name} {there}, not {wanted}"

    return check


def smaller(done: Done) -> str:
    """The crop was applied."""
    assert done.target
    sizes = []
    for path in (done.source, done.target):
        with av.open(str(path)) as container:
            sizes.append((container.streams.video[0].width, container.streams.video[0].height))
    (width, height), there = sizes
    return "" if there != (2 * width, 2 * height) else "the crop is ignored"


VIDEOS: dict[str, tuple[Want, ...]] = {
    "timecode_track.mov": (OPENS, Want(arguments=("-f", "mp4"))),
    "joined_ts_clock_restarts_video_only.ts": (Want((0, 3), (steady(100, 0.04),)),),
    "mvhevc_spatial_5frames.mov": (Want(checks=(frames(5),)),),
    "mjpeg_with_exif.avi": (OPENS,),
    "audio_stream_appears_after_probe.flv": (Want((0, 3), (all_packets,), never="cannot hold"),),
    "pmt_adds_audio_at_9s.ts": (Want((0, 3), (all_packets,), never="cannot hold"),),
    "h264_bframes.avi": (Want(checks=(frames(50),)),),
    "h264_bframes_real_exoplayer.avi": (OPENS,),
    "mpeg4_packed_bframes.avi": (Want(checks=(lambda done: evenly(done),)),),
    "wmv2_wmav2.wmv": (Want(checks=(all_packets,)),),
    "insta360_trailer.mp4": (OPENS,),
    "raw.h264": (Want(checks=(lambda done: as_many(done),)),),
    "raw.mjpeg": (Want(checks=(lambda done: as_many(done),)),),
    "progressive_start_then_interlaced.mp4": (Want((0, 2, 3), (), "interlac"),),
    "pixelcrop.mkv": (Want((0, 3), (smaller,)),),
    "anamorphic_vp9.webm": (Want(checks=(stream("sample_aspect_ratio", Fraction(35, 24)),)),),
    "dolbyvision_profile5.mp4": (Want((2, 3), (), "Dolby"),),
    # Where libvpx is built without more than 8 bits, the loss of chroma is named and refused.
    "vp9_10bit_444.webm": (Want((0, 2), (stream("pix_fmt", "yuv444p10le"),)),),
    "vfr_over_240fps_10bit.webm": (Want(checks=(lambda done: as_many(done),)),),
    "gif_to_mp4.gif": (Want(checks=(lambda done: as_many(done),), arguments=("-f", "mp4")),),
    "ts_cut_inside_packet.ts": (Want((0, 3)),),
    "audio_back40.mkv": (Want(checks=(all_packets,)),),
    "one_pts_wrong.ts": (Want((0, 3), (steady(24, 0.04),), never="missing"),),
}


def as_many(done: Done) -> str:
    """As many frames as a plain decoder gives."""
    assert done.target
    counts = []
    for path in (done.source, done.target):
        with av.open(str(path)) as container:
            counts.append(sum(1 for _ in container.decode(video=0)))
    return "" if counts[0] == counts[1] else f"{counts[1]} of {counts[0]} frames"


def evenly(done: Done) -> str:
    """Frames come at one rate."""
    assert done.target
    found = times(done.target)
    steps = sorted(float(b - a) for a, b in pairwise(found))
    return "" if steps[-1] - steps[0] < 0.0021 else f"steps from {steps[0]:.3f} to {steps[-1]:.3f} s"


# Scripts.


@dataclass(frozen=True, slots=True)
class Script:
    """What is right for a script.

    Attributes:
        arguments: its arguments; ``CLIP`` and the like are made.
        right: must be found in what it prints, in this order.
        wrong: must not be found.
        result: a file it writes, below its temporary folder, that must be what an undisturbed run gives, unless the
            command failed.
    """

    arguments: tuple[str, ...] = ()
    right: tuple[str, ...] = ()
    wrong: tuple[str, ...] = (r"^exit 1\b", "Traceback")
    result: str = ""


SCRIPTS: dict[str, Script] = {
    "damaged_job.sh": Script(("CLIP",), (r"^exit [023]",), result="dj.mp4"),
    "escapes.sh": Script(("PNG",), (), (r"^(?!.*_x2\.png$).*\^\[", "Traceback")),
    "folder_gone.sh": Script(("CLIP",), (r"^exit [023]", r"^exit [23]")),
    "foreign_segment.sh": Script(("CLIP", "OTHER"), (r"^exit [023]",), result="fs/a.mp4"),
    "long_names.sh": Script(("PNG",), (r"^exit [2346]",) * 6),
    "overwrites.sh": Script(("IMAGES", "RECIPE"), ("^precious", "^prec", "^precious")),
    "recipes.sh": Script(("RECIPE", "IMAGES"), (r"^exit [67]",) * 5),
    "segment_flipped_during_run.sh": Script(("CLIP",), (r"^exit [03]",), result="sw.mp4"),
    "silent_folder.sh": Script(("PNG",), (r"^exit [23]",)),
    "streams.sh": Script(("PNG",), ("^exit 0: stdout closed", "^exit [03]: stdout full", "^exit 0: stderr full",
                                    "^exit 0: both closed", "^exit 0: stdout's reader")),
    "symlink_loop.sh": Script(("PNG",), (r"^exit [023]", r"^a_x2\.png")),
    # The script ends where the command refuses; where it does not, it prints the file.
    "symlink_work_folder.sh": Script(("CLIP", "PNG"), (), (r" \.\.\n(?!.*thesis\.txt$)", r"^\d+$", "^<!DOCTYPE",
                                                          "Traceback", r"^exit 1\b")),
    "target_appears.sh": Script(("CLIP",), (r"^exit [23]", "precious")),
    "checkpoint_bits.py": Script(("LAST",), (), ("DIFFERS", "Traceback")),
    "networks.py": Script((), ("^exit 4",) * 6),
    "net_memory.py": Script((), (), (r"grew by \d{4,} MB", "Traceback")),
}  # fmt: skip
NEEDS_A_USER = {"silent_folder.sh"}
"""Mean nothing to root, who may read everything."""


class Workshop:
    """Runs commands and scripts in a temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        bin_folder = folder / "bin"
        bin_folder.mkdir()
        (bin_folder / "repsr").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m repsr_cli "$@"\n')
        (bin_folder / "repsr").chmod(0o755)
        self.environment = {
            **os.environ,
            "PATH": f"{bin_folder}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "NO_COLOR": "1",
            "OMP_NUM_THREADS": "1",
        }
        self._made: dict[str, Path] = {}

    def call(self, argv: Sequence[str], folder: Path, seconds: float = 1800) -> tuple[int, str]:
        """Run a program; returns its exit code and all that it wrote."""
        with tempfile.TemporaryFile() as file:
            process = subprocess.Popen(
                argv, cwd=folder, env={**self.environment, "TMPDIR": str(folder)}, stdin=subprocess.DEVNULL,
                stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait()
                code = 124
            file.seek(0)
            return code, file.read().decode("utf-8", "backslashreplace")

    def made(self, name: str) -> str:
        """The path of an input that scripts ask for."""
        if name not in self._made:
            self._made[name] = self._make(name, self.folder / "made")
        return str(self._made[name])

    def _make(self, name: str, folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        if name in ("CLIP", "OTHER"):
            path = folder / f"{name}.mp4"
            first = 0 if name == "CLIP" else 1000
            planes = [image(first + number, 48, 64, "yuv420p") for number in range(600)]
            stamps = [1001 * number for number in range(600)]
            return make_video(path, stamps, Fraction(1, 30000), (48, 64), gop=60, frames=planes)
        if name == "PNG":
            Image.fromarray(textured(24, 32)).save(folder / "picture.png")
            return folder / "picture.png"
        if name == "IMAGES":
            (folder / "images").mkdir()
            for number in range(5):
                Image.fromarray(textured(40, 40, number)).save(folder / "images" / f"photo {chr(97 + number)}.png")
            return folder / "images"
        (folder / "recipe.toml").write_text(RECIPE)
        if name == "RECIPE":
            return folder / "recipe.toml"
        argv = ("repsr", "train", str(folder / "recipe.toml"), "-o", str(folder / "run"), "--quiet", "--set")
        code, messages = self.call((*argv, f"data.train={self.made('IMAGES')}"), folder)
        if code:
            raise SystemExit(f"training: {messages}")
        return folder / "run" / "last.pt"

    def image_or_video(self, path: Path, want: Want) -> str:
        """Run an input; returns what is wrong, or nothing."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        source = folder / f"input{path.suffix}"
        shutil.copyfile(path, source)
        argv = ["repsr", want.command, source.name, *want.arguments]
        if want.command == "compare":
            argv += [source.name, "-o", "out.png"]
        else:
            argv += LOUD
        if want.with_second:
            Image.fromarray(textured(24, 32)).save(folder / "second.png")
            argv.insert(3, "second.png")
        there = set(folder.rglob("*"))
        code, messages = self.call(argv, folder)
        new = [each for each in sorted(set(folder.rglob("*")) - there) if each.is_file() and "second" not in each.name]
        return judged(want, Done(code, messages, source, new[0] if new else None))

    def script(self, path: Path, want: Script) -> str:
        """Run a script; returns what is wrong, or nothing."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        arguments = [self.made(name) for name in want.arguments]
        if path.name == "networks.py":
            messages = self._networks(path, folder)
        elif path.name == "net_memory.py":
            messages = "".join(self.call((sys.executable, str(path), how), folder)[1] for how in ("bytearray", "zip"))
        else:
            program = sys.executable if path.suffix == ".py" else "bash"
            code, messages = self.call((program, str(path), *arguments), folder)
            if code == 124:
                return "hangs"
        for wrong in want.wrong:
            if found := re.search(wrong, messages, re.MULTILINE):
                line = messages[found.start() :].splitlines()[0]
                return f"{line[:100]}: {last_error(messages)}"
        at = 0
        for right in want.right:
            found = re.compile(right, re.MULTILINE).search(messages, at)
            if not found:
                return f"no {right!r} in: {' / '.join(messages.splitlines()[-8:])[:300]}"
            at = found.end()
        return self._same(want, folder, messages) if want.result else ""

    def _same(self, want: Script, folder: Path, messages: str) -> str:
        results = list(folder.glob(f"tmp.*/{want.result}"))
        if not results:
            return "" if re.search("^exit [23]", messages, re.MULTILINE) else "no result"
        right = folder / "right.mp4"
        self.call(("repsr", "upscale", self.made("CLIP"), "-n", "fast", "-s", "2", "-o", str(right), "--quiet"), folder)
        return "" if content(results[0]) == content(right) else "the result is not that of an undisturbed run"

    def _networks(self, path: Path, folder: Path) -> str:
        self.call((sys.executable, str(path)), folder)
        messages = ""
        for model in sorted(each for each in folder.iterdir() if each.suffix in (".safetensors", ".pt", ".pth")):
            argv = ("repsr", "upscale", self.made("PNG"), "-s", "2", "-n", model.name, "-o", "x.png")
            code, words = self.call(argv, folder)
            messages += f"{words}\nexit {code}: {model.name}\n"
        return messages


def judged(want: Want, done: Done) -> str:
    """What is wrong with an input's result, or nothing."""
    messages = " ".join(done.messages.split())
    if "Traceback" in done.messages or done.code == 1:
        return f"traceback: {last_error(done.messages)}"
    if done.code == 124:
        return "hangs"
    if done.code not in want.exit_codes:
        return f"exit {done.code}: {messages[-200:]}"
    if want.never and re.search(want.never, messages, re.IGNORECASE):
        return f"says: {messages[-200:]}"
    named = bool(want.words and re.search(want.words, messages, re.IGNORECASE))
    if done.code == 0:
        if done.target is None:
            return "nothing was written"
        try:
            wrong = [found for check in want.checks if (found := check(done))]
        except (OSError, ValueError, IndexError, KeyError, av.FFmpegError) as error:
            wrong = [f"the output cannot be read: {error!r}"]
        if wrong and not (want.otherwise_named and named):
            return f"exit 0, {'; '.join(wrong)}"
        if want.otherwise_named:
            return ""
    return "" if named or not want.words else f"exit {done.code}, without mentioning it: {messages[-200:]}"


def trials(folder: Path, workshop: Workshop, only: str) -> Iterator[tuple[str, str, str]]:
    """(file, arguments, what is wrong) of every file; files that no table knows are wrong too."""
    for part, table in (("images", IMAGES), ("video", VIDEOS)):
        for path in sorted((folder / part).iterdir()):
            if path.suffix == ".txt" or only not in path.name:
                continue
            for want in table.get(path.name, ()):
                words = " ".join((*want.arguments, *([want.command] if want.command != "upscale" else [])))
                yield path.name, words, workshop.image_or_video(path, want)
            if path.name not in table:
                yield path.name, "", "not listed in tests/faults/cases.py"
    for path in sorted((folder / "reproductions").iterdir()):
        if path.suffix in (".sh", ".py") and only in path.name:
            if path.name in NEEDS_A_USER and os.geteuid() == 0:
                yield path.name, "", "(not tried: needs a user other than root)"
            elif path.name in SCRIPTS:
                yield path.name, "", workshop.script(path, SCRIPTS[path.name])
            else:
                yield path.name, "", "not listed in tests/faults/cases.py"


def main() -> None:
    """Run all, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="a part of a file's name")
    parser.add_argument("--log", type=Path, help="JSON lines")
    words = parser.parse_args()
    counts = {True: 0, False: 0}
    log = words.log.open("w") if words.log else None
    with tempfile.TemporaryDirectory(prefix="repsr-cases-") as name:
        for file, arguments, wrong in trials(words.folder, Workshop(Path(name)), words.only):
            right = not wrong or wrong.startswith("(")
            counts[right] += 1
            sys.stdout.write(f"{'right' if right else 'WRONG'}  {file} {arguments}  {wrong}".rstrip() + "\n")
            sys.stdout.flush()
            if log:
                log.write(json.dumps({"file": file, "arguments": arguments, "wrong": wrong}) + "\n")
                log.flush()
    sys.stdout.write(f"{counts[True]} right, {counts[False]} wrong\n")
    sys.exit(bool(counts[False]))


if __name__ == "__main__":
    main()
