"""Make the golden images again: ``python -m tests.golden.make``. Then look at them, and at what git says changed.

Their network is a small fixed one that lies beside them, so that shipping other networks changes nothing here; what is
held is everything around it: decoding, depth, alpha, tiling, the network's arithmetic, resizing, encoding.
"""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.image.files import write_image
from repsr_cli.image.page import Metadata, Page, page_of
from repsr_cli.model.checkpoint import load_plain, save_plain
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.spec import Spec
from repsr_cli.reporting import Reporter
from repsr_cli.upscale.request import Request
from tests.conftest import textured
from tests.upscaling import upscale_image

HERE = Path(__file__).parent
NETWORK = HERE / "tiny-x2.safetensors"
# Name of the golden image: how it is asked for.
CASES: dict[str, dict[str, Any]] = {
    "rgb.png": {},
    "resized.png": {"scale": 1.5},
    "ensemble.png": {"tta": True},
    "tiled.png": {"tile": 8},
    "deep.png": {},
    "grey.tif": {},
    "alpha.webp": {},
    "moving.png": {},
}


def write_sources(folder: Path) -> None:
    """The small images, one for every golden one, under the same names."""
    rgb = textured(20, 26, seed=1)
    deep = textured(16, 18, seed=2).astype(np.uint16) * 251 + 7
    disc = np.hypot(*np.mgrid[-10:10, -13:13]) < 8
    alpha = (disc * textured(20, 26, seed=3)[..., 0]).astype(np.uint8)
    frames = [page_of(textured(12, 14, seed), duration=Fraction(seed, 10)) for seed in (4, 5)]
    pages: dict[str, list[Page]] = {
        "deep.png": [page_of(deep, metadata=Metadata(text=(("Title", "16 bit"),)))],
        "grey.tif": [page_of(rgb[..., :1])],
        "alpha.webp": [page_of(rgb, alpha)],
        "moving.png": frames,
    }
    for name in CASES:
        chosen = pages.get(name, [page_of(rgb)])
        write_image(folder / name, chosen, count=len(chosen), loop=0 if len(chosen) > 1 else None)


def write_results(sources: Path, folder: Path) -> None:
    """Every source enlarged, by the code as it is now."""
    net = load_plain(NETWORK)
    for name, asked in CASES.items():
        options = dict(asked)
        upscaler = Upscaler(net, device="cpu", precision="fp32", tile=options.pop("tile", "auto"))
        upscale_image(sources / name, folder / name, upscaler, Request.of(overwrite=True, **options), Reporter())


def make_network() -> None:
    """A network in which every weight matters and that still shows the image."""
    net = PlainSR(Spec(scale=2, channels=6, blocks=2))
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.15)
        last = net.convolutions[-1]
        last.weight.mul_(0.15)
        assert last.bias is not None
        last.bias.zero_()
    save_plain(NETWORK, net, {})


if __name__ == "__main__":
    if not NETWORK.exists():
        make_network()
    with tempfile.TemporaryDirectory() as sources:
        write_sources(Path(sources))
        write_results(Path(sources), HERE)
