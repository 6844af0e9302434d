"""The commands that are disturbed, each with inputs that are made for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from tests.conftest import textured
from tests.sample_videos import image, make_video

RECIPE = """
[network]
scale = 2
blocks = 1
channels = 4
[data]
train = "in/images"
holdout = 1
[batch]
size = 2
patch = 8
[schedule]
steps = 6
learning_rate = 1e-3
warmup = 1
bn_freeze = 0.4
[validation]
every = 3
statistics_batches = 1
[run]
device = "cpu"
threads = 1
log_every = 1
checkpoint_every = 2
"""
MODEL = ("-n", "fast", "-s", "2", "--threads", "1")
UPSCALE = (*MODEL, "--quiet")
VIDEO = (*UPSCALE, "--preset", "ultrafast", "--engine", "torch")


@dataclass(frozen=True, slots=True)
class Command:
    """A command line, relative to a folder of its own.

    Attributes:
        name: for tables.
        argv: its arguments; inputs are in ``in/``, what is written goes to ``out/``.
        make: makes the inputs.
        outputs: what is there at the end, below the folder.
        stdin: a file that it reads.
        again: what is added to finish an interrupted run.
        replace: what is added to replace outputs; empty if the command has no such option.
        exact: two runs give the same content.
        fails: exit codes with which it may end undisturbed, beside 0.
        weight: how many trials it gets for each that others get.
    """

    name: str
    argv: tuple[str, ...]
    make: Callable[[Path], None]
    outputs: tuple[str, ...] = ()
    stdin: str = ""
    again: tuple[str, ...] = ()
    replace: tuple[str, ...] = ("-y",)
    exact: bool = True
    fails: frozenset[int] = frozenset()
    weight: float = 1.0


def an_image(path: Path, seed: int = 0, size: tuple[int, int] = (14, 18)) -> None:
    """Write a small RGB image."""
    Image.fromarray(textured(*size, seed)).save(path)


def images(folder: Path) -> None:
    """Four images in ``in/`` and a folder in it, of three formats."""
    (folder / "in" / "sub").mkdir()
    for number, name in enumerate(("a.png", "b.jpg", "c.webp", "sub/d.png")):
        an_image(folder / "in" / name, number)


def training(folder: Path) -> None:
    """A recipe, and five images to train on."""
    (folder / "in" / "images").mkdir()
    for number in range(5):
        an_image(folder / "in" / "images" / f"photo {chr(97 + number)}.png", number, (40, 40))
    (folder / "in" / "recipe.toml").write_text(RECIPE)


def preparing(folder: Path) -> None:
    """Five images that are large enough to be degraded, and how."""
    (folder / "in" / "images").mkdir()
    for number in range(5):
        an_image(folder / "in" / "images" / f"photo {chr(97 + number)}.png", number, (160, 160))
    (folder / "in" / "mix.toml").write_text("[shot]\nframes = 2\nside = 160\n[jpeg]\nshare = 0.5\n")


def lessons(folder: Path) -> None:
    """Five images that are large enough to fine-tune on."""
    (folder / "in" / "images").mkdir()
    for number in range(5):
        an_image(folder / "in" / "images" / f"photo {chr(97 + number)}.png", number, (140, 140))


def trained(folder: Path) -> None:
    """The same, with a checkpoint that ``Bench.train`` made."""
    training(folder)
    shutil.copy(folder.parents[1] / "best.pt", folder / "in" / "best.pt")


def a_video(folder: Path) -> None:
    """A video of one segment with sound and subtitles, and the same as Matroska."""
    for suffix, text in ((".mp4", "mov_text"), (".mkv", "subrip")):
        make_video(folder / "in" / f"v{suffix}", range(12), size=(16, 24), subtitles=[text])


def a_long_video(folder: Path) -> None:
    """A video of several segments."""
    times = [1001 * n for n in range(520)]
    make_video(folder / "in" / "v.mp4", times, Fraction(1, 30000), (16, 16), gop=60, options={"preset": "ultrafast"})


def another_long_video(folder: Path) -> None:
    """The same with other frames."""
    times = [1001 * n for n in range(520)]
    frames = [image(n + 1000, 16, 16, "yuv420p") for n in range(520)]
    make_video(folder / "in" / "v.mp4", times, Fraction(1, 30000), (16, 16), gop=60, options={"preset": "ultrafast"},
               frames=frames)  # fmt: skip


def raw_video(folder: Path) -> None:
    """Eight frames of y4m."""
    random = np.random.default_rng(0)
    frames = (b"FRAME\n" + random.integers(16, 235, 16 * 16 * 3 // 2, np.uint8).tobytes() for _ in range(8))
    (folder / "in" / "v.y4m").write_bytes(b"YUV4MPEG2 W16 H16 F25:1 Ip A1:1 C420jpeg\n" + b"".join(frames))


def numbered(folder: Path) -> None:
    """Six numbered frames."""
    for number in range(6):
        an_image(folder / "in" / f"{number:03}.png", number, (16, 16))


def two_images(folder: Path) -> None:
    """An image and one of twice its size."""
    an_image(folder / "in" / "a.png", 0)
    an_image(folder / "in" / "b.png", 1, (28, 36))


def two_videos(folder: Path) -> None:
    """A video and one of twice its size."""
    make_video(folder / "in" / "v.mp4", range(6), size=(16, 24))
    make_video(folder / "in" / "w.mp4", range(6), size=(32, 48))


def upscale_image(suffix: str, weight: float) -> Command:
    """``repsr upscale`` of an image to a format."""
    argv = ("upscale", "in/a.png", "-o", f"out/a{suffix}", *UPSCALE, "--allow-loss")
    return Command(f"image {suffix}", argv, images, (f"out/a{suffix}",), weight=weight)


SEGMENTS = "video, segments"
UPSCALE_LONG = ("upscale", "in/v.mp4", "-o", "out/v.mp4", *VIDEO)
OTHER = Command("other video", UPSCALE_LONG, another_long_video, ("out/v.mp4",))
TRAIN = ("train", "in/recipe.toml", "-o", "out/run")
COMMANDS: tuple[Command, ...] = (
    *(
        upscale_image(suffix, weight)
        for suffix, weight in ((".png", 2), (".jpg", 1), (".tif", 1), (".webp", 0.5), (".gif", 0.5), (".bmp", 0.3),
                               (".ppm", 0.3), (".jp2", 0.5), (".avif", 0.5))
    ),
    Command("folder", ("upscale", "in", "-r", "-o", "out", *UPSCALE), images,
            ("out/a_x2.png", "out/b_x2.jpg", "out/c_x2.webp", "out/sub/d_x2.png")),
    Command("video .mp4", ("upscale", "in/v.mp4", "-o", "out/v.mp4", *VIDEO), a_video, ("out/v.mp4",), weight=3),
    Command("video .mkv", ("upscale", "in/v.mkv", "-o", "out/v.mkv", *VIDEO), a_video, ("out/v.mkv",)),
    Command("video, engine auto", ("upscale", "in/v.mp4", "-o", "out/v.mp4", *UPSCALE), a_video, ("out/v.mp4",),
            weight=0.1),
    Command(SEGMENTS, UPSCALE_LONG, a_long_video, ("out/v.mp4",), weight=2),
    Command("y4m to file", ("upscale", "-", "-o", "out/v.mkv", *VIDEO), raw_video, ("out/v.mkv",), "in/v.y4m",
            weight=0.5),
    Command("y4m to stdout", ("upscale", "-", "-o", "-", *UPSCALE), raw_video, (), "in/v.y4m", weight=0.5),
    Command("frames", ("upscale", "in/%03d.png", "--fps", "25", "-o", "out/v.mp4", *VIDEO), numbered, ("out/v.mp4",),
            weight=0.5),
    Command("compare", ("compare", "in/a.png", "in/b.png", "-o", "out/c.png", "--quiet"), two_images, ("out/c.png",)),
    Command("compare --html", ("compare", "in/a.png", "in/b.png", "--html", "-o", "out/c.html", "--quiet"), two_images,
            ("out/c.html",)),
    Command("compare --blink", ("compare", "in/b.png", "in/b.png", "--blink", "-o", "out/c.png", "--quiet"), two_images,
            ("out/c.png",), weight=0.5),
    Command("compare videos", ("compare", "in/v.mp4", "in/w.mp4", "-o", "out/c.mp4", "--quiet"), two_videos,
            ("out/c.mp4",)),
    Command("train", (*TRAIN, "--quiet"), training, ("out/run/best.pt", "out/run/last.pt"), again=("--resume",),
            replace=(), weight=3),
    Command("train --show-batch", (*TRAIN, "--quiet", "--show-batch", "out/b.png"), training, ("out/b.png",)),
    Command("fuse", ("fuse", "in/best.pt", "-o", "out/f.safetensors", "--quiet"), trained, ("out/f.safetensors",)),
    Command("export .onnx", ("export", "in/best.pt", "-o", "out/f.onnx", "--quiet"), trained, ("out/f.onnx",),
            weight=0.5),
    Command("export .param", ("export", "in/best.pt", "-o", "out/f.param", "--quiet"), trained, ("out/f.param",),
            weight=0.5),
    Command("export .pth", ("export", "in/best.pt", "-o", "out/f.pth", "--quiet"), trained, ("out/f.pth",), weight=0.5),
    Command("eval", ("eval", "in/images", "-n", "fast", "-s", "2", "--threads", "1", "--csv", "out/rows.csv"), training,
            ("out/rows.csv",)),
    Command("prepare", ("prepare", "in/images", "-o", "out/p.pack", "-s", "2", "--variants", "1", "--holdout", "1",
                        "--mix", "in/mix.toml", "--quiet"), preparing, ("out/p.pack",), weight=2),
    Command("prepare --teacher", ("prepare", "in/images", "-o", "out/t.pack", "-s", "2", "--teacher", "fast",
                                  "--holdout", "1", "--quiet"), training, ("out/t.pack",), weight=0.5),
    Command("finetune", ("finetune", "in/images", "-o", "out/l.safetensors", "-n", "fast", "-s", "2", "--minutes",
             "0.005", "--quiet"), lessons, ("out/l.safetensors",), exact=False, fails=frozenset({8}), weight=0.5),
    Command("models", ("models", "--no-speed", "--json"), images, replace=(), weight=0.2),
    Command("doctor", ("doctor", "--json"), images, replace=(), exact=False, weight=0.1),
    Command("bench", ("bench", "upscale", "in/v.mp4", *MODEL, "--rounds", "1", "--size", "16x16", "--engine", "torch",
                      "--json", "--quiet"), a_video, replace=(), exact=False, weight=0.2),
)  # fmt: skip
