"""Upscale a video with the script most people write first, with the same model and encoder settings as repsr.

Decode to RGB, run the network on the whole frame, clamp, convert to bytes, let swscale make 4:2:0, encode: one step
after the other, like the video scripts of well-known upscalers, without sound.

    python bench/straightforward.py VIDEO TARGET --model fast-x4 --codec libx264 --preset veryfast --crf 17
"""

from __future__ import annotations

import argparse
from fractions import Fraction

import av
import numpy as np
import torch

from repsr_cli.model.zoo import load, resolve


def main() -> None:
    """Upscale a video, frame by frame."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--model", default="fast-x4")
    parser.add_argument("--codec", default="libx264")
    parser.add_argument("--preset", default="veryfast")
    parser.add_argument("--crf", default="17")
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    net = load(resolve(arguments.model, None, "clean")).eval()

    with av.open(arguments.source) as source, av.open(arguments.target, "w") as target, torch.no_grad():
        video = source.streams.video[0]
        out = None
        for count, frame in enumerate(source.decode(video)):
            lr = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1).float().div(255)[None]
            sr = net(lr).clamp(0, 1).mul(255).round().byte()[0].permute(1, 2, 0).numpy()
            if out is None:
                out = target.add_stream(arguments.codec, rate=video.average_rate or Fraction(25))
                out.height, out.width = sr.shape[:2]
                out.pix_fmt = "yuv420p"
                out.options = {"preset": arguments.preset, "crf": arguments.crf}
            image = av.VideoFrame.from_ndarray(np.ascontiguousarray(sr), format="rgb24")
            image.pts = count
            target.mux(out.encode(image))
        if out is not None:
            target.mux(out.encode(None))


if __name__ == "__main__":
    main()
