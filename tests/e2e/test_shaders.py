"""User shaders on Vulkan, by FFmpeg's libplacebo filter: what torch computes, within 2/255 everywhere.

Needs an ffmpeg with libplacebo and any Vulkan device; Mesa's software one does (Debian: ffmpeg mesa-vulkan-drivers).
Skipped without, unless ``REPSR_REQUIRE_SHADERS=1``: then that is a failure.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from repsr_cli.export.glsl import glsl_network
from repsr_cli.model.checkpoint import load_plain
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.spec import Spec

pytestmark = [pytest.mark.shaders, pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
CLIPS = (
    "bbb_720p_aac.mp4",
    "cockatoo_720p_yuv444p_mp3.mp4",
    "marathon_720x400_2997.mp4",
    "sintel_480p_mp3.mp4",
    "roadtrip_vp9_10bit_426x240.webm",
)
SIZE = (121, 173)  # odd, and more than one work group of a compute shader
MODELS = sorted(path.stem for path in (ROOT / "weights").glob("repsr-m[34]c*-x2.safetensors"))
# Everything that a player would do on top is off: linear light, sigmoid, dithering, debanding, another scaler.
OPTIONS = (
    "w=iw*2:h=ih*2:colorspace=gbr:range=pc:sigmoid=0:disable_linear=1:dithering=none:deband=0:peak_detect=0"
    ":upscaler=none:downscaler=none:format=rgba64le"
)


def through_ffmpeg(samples: np.ndarray, depth: int, shader: Path | None) -> subprocess.CompletedProcess[bytes]:
    """Frames (N, H, W, 3) of 8 or 10 bits through the filter; RGBA of 16 bits comes out."""
    count, height, width, _ = samples.shape
    if depth == 8:
        pixel_format = "rgba"
        data = np.concatenate([samples, np.full((count, height, width, 1), 255)], axis=3).astype(np.uint8)
    else:
        pixel_format = "x2rgb10le"
        red, green, blue = np.moveaxis(samples.astype("<u4"), 3, 0)
        data = 3 << 30 | red << 20 | green << 10 | blue
    custom = f":custom_shader_path={shader}" if shader else ""
    command = ["ffmpeg", "-v", "error", "-init_hw_device", "vulkan=vk", "-filter_hw_device", "vk"]
    command += ["-f", "rawvideo", "-pix_fmt", pixel_format, "-s", f"{width}x{height}"]
    command += ["-color_range", "pc", "-colorspace", "rgb", "-i", "-"]
    command += ["-vf", f"hwupload,libplacebo={OPTIONS}{custom},hwdownload,format=rgba64le", "-f", "rawvideo", "-"]
    environment = {**os.environ, "LP_NUM_THREADS": "2"}
    return subprocess.run(command, input=data.tobytes(), capture_output=True, check=False, env=environment)


@pytest.fixture(scope="module")
def _vulkan() -> None:
    happened = "no ffmpeg"
    if shutil.which("ffmpeg"):
        tried = through_ffmpeg(np.zeros((1, 8, 8, 3)), 8, None)
        happened = tried.stderr.decode(errors="replace").strip() if tried.returncode or not tried.stdout else ""
    if happened and os.environ.get("REPSR_REQUIRE_SHADERS"):
        pytest.fail(f"no ffmpeg with libplacebo and Vulkan: {happened}")
    if happened:
        pytest.skip(f"no ffmpeg with libplacebo and Vulkan: {happened[:200]}")


@pytest.fixture(scope="module")
def frames(real_data: Path) -> np.ndarray:
    """A frame of each clip as RGB of 16 bits, the bottom right corner of odd size: (N, H, W, 3)."""
    found = []
    for clip in CLIPS:
        with av.open(str(real_data / "clips" / clip)) as container:
            for index, frame in enumerate(container.decode(video=0)):
                if index == 30:
                    found.append(frame.to_ndarray(format="rgb48le")[-SIZE[0] :, -SIZE[1] :])
                    break
    return np.stack(found)


def differences(net: PlainSR, samples: np.ndarray, depth: int, shader: Path) -> np.ndarray:
    """Between the filter and torch, in 255ths: (N, H, W, 3)."""
    done = through_ffmpeg(samples, depth, shader)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    count, height, width, _ = samples.shape
    found = np.frombuffer(done.stdout, "<u2").reshape(count, 2 * height, 2 * width, 4)[..., :3] / 65535
    lr = torch.from_numpy(samples.transpose(0, 3, 1, 2).astype(np.float32) / (2**depth - 1))
    with torch.inference_mode():
        expected = net(lr).clamp(0, 1).numpy().transpose(0, 2, 3, 1)
    return np.asarray(np.abs(found - expected) * 255)


@pytest.mark.parametrize("depth", [8, 10])
@pytest.mark.parametrize("compute", [False, True], ids=["fragment", "compute"])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.usefixtures("_vulkan")
def test_shipped_models_on_frames_of_clips(
    model: str, compute: bool, depth: int, frames: np.ndarray, tmp_path: Path
) -> None:
    net = load_plain(ROOT / "weights" / f"{model}.safetensors")
    shader = tmp_path / "shader.glsl"
    shader.write_text(glsl_network(net, {"name": model}, compute), encoding="utf-8")
    found = differences(net, frames >> (16 - depth), depth, shader)
    psnr = 20 * np.log10(255 / np.sqrt((found**2).mean()))
    kind = "compute" if compute else "fragment"
    print(f"{model}, {kind}, {depth} bit: at most {found.max():.2f}/255, {psnr:.1f} dB")  # pytest -s shows it
    assert found.max() <= 2


@pytest.mark.parametrize("compute", [False, True], ids=["fragment", "compute"])
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (17, 16), (33, 1)], ids=str)
@pytest.mark.usefixtures("_vulkan")
def test_small_sizes(size: tuple[int, int], compute: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = PlainSR(Spec(2, 12, 1)).eval()
    shader = tmp_path / "shader.glsl"
    shader.write_text(glsl_network(net, {}, compute), encoding="utf-8")
    samples = np.random.default_rng(0).integers(0, 256, (1, *size, 3))
    assert differences(net, samples, 8, shader).max() <= 1
