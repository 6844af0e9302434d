"""Makes the corpus of the fuzzer: a few small files of every kind that repsr reads.

    python -m tests.fuzz.seeds

What is in the corpus stays: a later run replaces files of the same name and leaves others, such as those that once
brought something down.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from PIL import Image, PngImagePlugin

from repsr_cli.model.checkpoint import TrainingCheckpoint, save_plain, save_training
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.repsr import RepSR
from repsr_cli.model.spec import Spec
from tests.sample_videos import VideoSettings, make_video

CORPUS = Path(__file__).parent / "corpus"
SPEC = Spec(scale=2, channels=2, blocks=1)


def networks(folder: Path) -> None:
    """Network files of all kinds that load, some hundred weights each."""
    torch.manual_seed(0)
    state = PlainSR(SPEC).state_dict()
    save_plain(folder / "fused.safetensors", PlainSR(SPEC), {"licence": "CC0-1.0"})
    torch.save({"params_ema": state}, folder / "compact.pth")
    torch.save({name: value.half() for name, value in state.items()}, folder / "half.pth")
    torch.save({"params": state}, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, folder / "wrapped.pth")
    small = Spec(scale=2, channels=2, blocks=0)
    save_training(folder / "training.pt", TrainingCheckpoint(RepSR(small), RepSR(small), {"run": {"seed": 1}}, 3))


def _square(mode: str, seed: int = 0) -> Image.Image:
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:9, :12]
    base = (20 * x + 9 * y) % 256
    channels = {"L": 1, "RGB": 3, "RGBA": 4}[mode]
    pixels = np.stack([np.roll(base, n + seed, n % 2) for n in range(channels)], -1) + random.integers(0, 9, (9, 12, 1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8).squeeze(), mode)


def _images() -> Iterator[tuple[str, bytes]]:
    def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
        file = io.BytesIO()
        image.save(file, kind, **options)
        return file.getvalue()

    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "hello")
    text.add_itxt("Title", "grüße", "de")
    exif = Image.Exif()
    exif[0x0112] = 6
    rgb, rgba, grey = _square("RGB"), _square("RGBA"), _square("L")
    frames = [_square("RGB", seed) for seed in (1, 2)]
    deep = Image.fromarray((np.arange(108, dtype=np.uint16) * 600).reshape(9, 12))
    floats = Image.fromarray(np.linspace(0, 2, 108, dtype=np.float32).reshape(9, 12))
    yield "rgba.png", saved(rgba, "PNG", pnginfo=text, exif=exif, dpi=(72, 72))
    yield "deep.png", saved(deep, "PNG")
    yield "palette.png", saved(rgb.quantize(7), "PNG", transparency=3)
    yield "bilevel.png", saved(grey.convert("1"), "PNG")
    yield "animated.png", saved(rgb, "PNG", save_all=True, append_images=frames, duration=40, loop=0)
    yield "baseline.jpg", saved(rgb, "JPEG", quality=60, exif=exif, comment=b"hello")
    yield "progressive.jpg", saved(rgb, "JPEG", quality=60, progressive=True, subsampling=0)
    yield "grey.jpg", saved(grey, "JPEG", quality=60)
    yield "cmyk.jpg", saved(rgb.convert("CMYK"), "JPEG", quality=60)
    yield "lossy.webp", saved(rgba, "WEBP", quality=50, exif=exif)
    yield "lossless.webp", saved(rgb, "WEBP", lossless=True)
    yield "animated.webp", saved(rgb, "WEBP", save_all=True, append_images=frames, duration=40)
    yield "still.gif", saved(rgb, "GIF", comment=b"hello")
    yield "animated.gif", saved(rgb, "GIF", save_all=True, append_images=frames, duration=40, loop=2, disposal=2)
    for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield f"{name}.tif", saved(rgb, "TIFF", compression=name, dpi=(72, 72))
    yield "pages.tif", saved(rgba, "TIFF", save_all=True, append_images=frames, compression="tiff_lzw")
    yield "deep.tif", saved(deep, "TIFF")
    yield "float.tif", saved(floats, "TIFF", compression="tiff_adobe_deflate")
    yield "big.tif", saved(rgb, "TIFF", big_tiff=True)
    yield "fax.tif", saved(grey.convert("1"), "TIFF", compression="group4")
    yield "rgb.bmp", saved(rgb, "BMP")
    yield "rgb.avif", saved(rgb, "AVIF", quality=40)
    yield "rgb.jp2", saved(rgb, "JPEG2000")
    yield "rgba.ico", saved(rgba, "ICO", sizes=[(9, 9)])
    yield "rgb.ppm", saved(rgb, "PPM")
    yield "rgb.qoi", b"qoif" + struct.pack(">IIBB", 4, 2, 3, 0) + b"\xfe\x10\x20\x30\xc6" + bytes(7) + b"\x01"


def images(folder: Path) -> None:
    """Images of twelve by nine pixels."""
    for name, data in _images():
        (folder / name).write_bytes(data)


def videos(folder: Path) -> None:
    """Videos of a few frames of 32 x 24 pixels."""

    def write(name: str, times: Sequence[int], **settings: Unpack[VideoSettings]) -> None:
        small: VideoSettings = {"audio": 0, "gop": 4, **settings}
        make_video(folder / name, times, size=(24, 32), **small)

    quiet = {"crf": "40", "x264-params": "info=0"}
    times = (0, 1, 2, 5, 6, 9)
    write("h264.mp4", times, options=quiet, chapters=True)
    write("rotated.mov", times, options=quiet, rotation=90)
    write("h264.mkv", times, options=quiet, subtitles=["subrip"], attachments={"a.ttf": b"font"})
    write("sound.mp4", range(3), options=quiet, audio=1)
    write("vp9.webm", times, codec="libvpx-vp9")
    write("ffv1.mkv", range(2), codec="ffv1", pix_fmt="yuv422p10le")
    write("mpeg4.avi", range(4), codec="mpeg4", tags=None)
    write("mpeg2.ts", range(4), codec="mpeg2video")
    write("prores.mov", range(2), codec="prores_ks", pix_fmt="yuv422p10le")
    write("mjpeg.mov", range(2), codec="mjpeg", pix_fmt="yuvj420p")


def main() -> None:
    """Write all of it."""
    for name, make in (("network", networks), ("image", images), ("video", videos)):
        folder = CORPUS / name
        folder.mkdir(parents=True, exist_ok=True)
        make(folder)
        sizes = [path.stat().st_size for path in folder.iterdir()]
        print(f"{name}: {len(sizes)} files, {sum(sizes)} bytes")


if __name__ == "__main__":
    main()
