"""Videos that OpenVINO upscales alone: torch is not imported, and the bytes are the same as where it is."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from repsr_cli.engine.backends.registry import ENGINES
from tests.conftest import textured

pytestmark = pytest.mark.skipif(not ENGINES["openvino"].installed, reason="needs openvino")

# Python that runs the command, and prints at the end whether torch was imported.
_RUN = """
import sys
{before}
from repsr_cli.cli import app
sys.argv[0] = "repsr"
try:
    app()
except SystemExit as end:
    print("torch" if "torch" in sys.modules else "alone", end.code or 0, file=sys.stderr)
"""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    image = textured(54, 96)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(25))
        stream.height, stream.width, stream.pix_fmt = 54, 96, "yuv420p"
        for step in range(4):
            frame = av.VideoFrame.from_ndarray(np.roll(image, step, 1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def run(*arguments: object, before: str = "", environment: dict[str, str] | None = None) -> tuple[str, str]:
    """What was printed: whether torch was imported and the exit code; everything."""
    command = [sys.executable, "-c", _RUN.format(before=before), "upscale", *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, **(environment or {})}
    )
    *_, last = done.stderr.splitlines()
    return last, done.stderr


@pytest.mark.parametrize("engine", ["auto", "openvino"])
def test_a_short_video_needs_no_torch_and_has_the_same_bytes(clip: Path, tmp_path: Path, engine: str) -> None:
    with_torch, alone = tmp_path / "torch.mp4", tmp_path / "alone.mp4"
    options = ("-n", "fast", "--device", "cpu", "--preset", "ultrafast", "--engine", engine)
    assert run(clip, "-o", with_torch, *options, before="import torch")[0] == "torch 0"
    last, printed = run(clip, "-o", alone, *options)
    assert last == "alone 0"
    assert "model fast-x4" in printed
    assert "videos by OpenVINO" in printed
    assert alone.read_bytes() == with_torch.read_bytes()


def test_it_stays_alone_where_the_number_format_is_known(clip: Path, tmp_path: Path) -> None:
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "REPSR_PRECISION": "auto"}
    options = ("-n", "fast", "--device", "cpu", "--preset", "ultrafast", "-y")
    first, second = tmp_path / "first.mp4", tmp_path / "second.mp4"
    run(clip, "-o", first, *options, environment=environment)
    last, printed = run(clip, "-o", second, *options, environment=environment)
    assert last == "alone 0"
    assert first.read_bytes() == second.read_bytes()
    assert ("bf16" in printed) == (tmp_path / "cache" / "repsr" / "precision.json").exists()


@pytest.mark.parametrize(
    "options",
    [
        ("-n", "fast", "--engine", "torch"),
        ("-n", "fast", "-s", "3.5"),
        ("-n", "fast", "--tile", "64"),
        ("-n", "fast", "--precision", "fp16"),
        ("-n", "fast", "-s", "3"),  # chroma that OpenVINO does not write
    ],
)
def test_what_needs_torch_gets_it(clip: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    last, printed = run(clip, "-o", tmp_path / "out.mp4", "--device", "cpu", "--preset", "ultrafast", *options)
    assert last == "torch 0", printed


def test_an_image_and_a_video_in_one_run(clip: Path, tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(textured(20, 30)).save(tmp_path / "image.png")
    target = tmp_path / "out"
    last, printed = run(clip, tmp_path / "image.png", clip, "-o", target, "-n", "fast", "--device", "cpu")
    assert last.startswith("torch"), printed
    assert len(list(target.iterdir())) == 2
