"""Make a video of a talk with slides: a page every eight seconds, each with a moving pointer and a line being typed.

Little changes from frame to frame, as in most screen recordings. To measure how much work that saves:

    python bench/slides.py slides.mp4
    repsr upscale slides.mp4 -n fast -s 4 --benchmark
    repsr upscale slides.mp4 -n fast -s 4 --benchmark --no-reuse
"""

from __future__ import annotations

import argparse

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, RATE = 480, 270, 25
TITLES = ("What was asked", "What was measured", "What was found", "What comes next")
POINTS = ("a point that takes one line", "another, with a figure in it: 42", "and one that is typed while all look on")


def draw(page: int, typed: int, pointer: tuple[int, int]) -> Image.Image:
    """One frame: a page with its last line typed so far, and the pointer."""
    image = Image.new("RGB", (WIDTH, HEIGHT), (250, 250, 245))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, WIDTH, 44), fill=(30 + 40 * page, 70, 140 - 25 * page))
    pen.text((16, 10), f"{page + 1}. {TITLES[page]}", fill="white", font=ImageFont.load_default(20))
    for line, point in enumerate(POINTS):
        text = point[:typed] if line == len(POINTS) - 1 else point
        pen.text((36, 70 + 34 * line), text, fill=(40, 40, 40), font=ImageFont.load_default(16))
    for bar in range(6):
        height = 10 + (bar * 7 + page * 13) % 45
        pen.rectangle((40 + 40 * bar, 250 - height, 66 + 40 * bar, 250), fill=(60, 120 + 15 * bar, 160))
    x, y = pointer
    pen.polygon([(x, y), (x, y + 14), (x + 4, y + 11), (x + 10, y + 11)], fill="black")
    return image


def main() -> None:
    """Write the video."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target")
    parser.add_argument("--pages", type=int, default=len(TITLES), choices=range(1, len(TITLES) + 1))
    parser.add_argument("--seconds", type=int, default=8, help="how long a page is shown")
    arguments = parser.parse_args()
    frames = RATE * arguments.seconds
    with av.open(arguments.target, "w") as video:
        stream = video.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"crf": "20", "preset": "medium"}
        for index in range(arguments.pages * frames):
            page, within = divmod(index, frames)
            # The pointer goes from place to place for two fifths of a second; then a line is typed.
            moved = min(within / 10, 1)
            pointer = (int(420 - 300 * moved) + 20 * page, int(60 + 150 * moved))
            typed = max(0, within - 10) // 2 * 3
            frame = av.VideoFrame.from_ndarray(np.asarray(draw(page, typed, pointer)), format="rgb24")
            video.mux(stream.encode(frame))
        video.mux(stream.encode(None))


if __name__ == "__main__":
    main()
