"""upscale/api.py: the Python interface."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import repsr_cli
from repsr_cli import CheckpointError, MediaError, Progress, UsageError
from repsr_cli.model.checkpoint import save_plain
from repsr_cli.model.plain import PlainSR, identity_network
from repsr_cli.model.spec import Spec
from repsr_cli.upscale.api import in_arguments
from tests.conftest import textured
from tests.sample_videos import frame_times, make_video

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """A network that enlarges twice by nearest neighbour."""
    save_plain(tmp_path / "nearest.safetensors", identity_network(2), {})
    return tmp_path / "nearest.safetensors"


@pytest.fixture
def model(network: Path) -> repsr_cli.Model:
    return repsr_cli.load_model(network, device="cpu")


@pytest.fixture
def restless(tmp_path: Path) -> repsr_cli.Model:
    """A model of which every weight matters."""
    torch.manual_seed(5)
    net = PlainSR(Spec(2, 8, 3)).eval()
    with torch.no_grad():
        net.convolutions[-1].weight.mul_(0.3)
    save_plain(tmp_path / "restless.safetensors", net, {})
    return repsr_cli.load_model(tmp_path / "restless.safetensors", device="cpu")


def noise(*shape: int, dtype: str = "uint8") -> NDArray[Any]:
    values = np.random.default_rng(1).random(shape)
    return values.astype(dtype) if "float" in dtype else (values * np.iinfo(dtype).max).astype(dtype)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64"])
def test_arrays_keep_shape_type_and_values(model: repsr_cli.Model, shape: tuple[int, ...], dtype: str) -> None:
    pixels = noise(*shape, dtype=dtype)
    big = model.upscale(pixels)
    assert big.dtype == pixels.dtype
    expected = pixels.repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_allclose(big, expected, atol=1e-6 if "float" in dtype else 0)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [2, 4])
def test_arrays_with_alpha(model: repsr_cli.Model, dtype: str, channels: int) -> None:
    pixels = noise(6, 5, channels, dtype=dtype)
    pixels[..., -1] = 1.0 if dtype == "float32" else np.iinfo(dtype).max
    expected = pixels.repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_allclose(model.upscale(pixels), expected, atol=1e-6 if dtype == "float32" else 0)


@pytest.mark.parametrize(
    ("mode", "made"),
    [
        *((mode, mode) for mode in ("L", "LA", "RGB", "RGBA", "I;16", "I", "F")),
        ("1", "L"),
        ("P", "RGB"),
    ],
)
def test_images_keep_their_mode(model: repsr_cli.Model, mode: str, made: str) -> None:
    grey = Image.fromarray(noise(6, 9))
    image = Image.fromarray(noise(6, 9, dtype="uint16")) if mode == "I;16" else grey.convert("RGB").convert(mode)
    image.info["dpi"] = (72, 72)
    big = model.upscale(image)
    assert (big.mode, big.size) == (made, (18, 12))
    assert big.info["dpi"] == (72, 72)
    expected = image.convert(made) if mode != made else image
    assert np.array_equal(np.asarray(big), np.asarray(expected).repeat(2, axis=0).repeat(2, axis=1))


@pytest.mark.parametrize("shape", [(3, 5, 7), (1, 5, 7), (2, 3, 5, 7), (2, 1, 5, 7)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16, torch.bfloat16])
def test_tensors_keep_layout_and_type(model: repsr_cli.Model, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    values = torch.rand(*shape, generator=generator)
    tensor = (values * 255).to(dtype) if dtype is torch.uint8 else values.to(dtype).requires_grad_()
    big = model.upscale(tensor)
    assert (big.dtype, big.requires_grad) == (dtype, False)
    expected = tensor.detach().repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
    torch.testing.assert_close(big, expected, atol=0.01 if dtype is torch.bfloat16 else 1e-3, rtol=0)


def test_all_types_give_the_same(restless: repsr_cli.Model) -> None:
    pixels = textured(20, 30, 4)
    big = restless.upscale(pixels)
    assert np.array_equal(np.asarray(restless.upscale(Image.fromarray(pixels))), big)
    tensor = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
    assert np.array_equal(restless.upscale(tensor).numpy().transpose(1, 2, 0), big)


def test_a_model_says_what_it_is(model: repsr_cli.Model, network: Path) -> None:
    assert repr(model) == f"Model({str(network)!r}, scale=2, device='cpu', precision='fp32')"
    assert repsr_cli.load_model("fast", 3, device="cpu").name == "fast-x3"
    assert repsr_cli.load_model("balanced", 2, kind="real", device="cpu").name == "balanced-real-x2"


def test_progress_may_stop_the_work(network: Path) -> None:
    model = repsr_cli.load_model(network, device="cpu", tile=4)
    seen: list[Progress] = []
    model.upscale(noise(8, 8, 3), progress=seen.append)
    assert [(step.done, step.total) for step in seen] == [(n, 4) for n in range(1, 5)]

    def stop(step: Progress) -> None:
        raise KeyError(step.done)

    with pytest.raises(KeyError):
        model.upscale(noise(8, 8, 3), progress=stop)


# Frames.


@pytest.mark.parametrize("shape", [(24, 32), (24, 32, 1), (24, 32, 3)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_frames_are_those_of_single_images(restless: repsr_cli.Model, shape: tuple[int, ...], dtype: str) -> None:
    grey = textured(24, 32, 2)[..., 0]
    pixels = textured(24, 32, 2) if shape[-1] == 3 else grey.reshape(shape)
    frame = pixels.astype(dtype) * (257 if dtype == "uint16" else 1)
    moved = np.ascontiguousarray(np.roll(frame, 3, axis=1))
    frames = [frame, frame, moved]  # the second one is taken from the first
    made = list(repsr_cli.upscale_frames(iter(frames), restless))
    assert len(made) == 3
    for before, after in zip(frames, made, strict=True):
        single = restless.upscale(before)
        assert (after.shape, after.dtype) == (single.shape, single.dtype)
        assert np.abs(after.astype(int) - single.astype(int)).max() <= 1
    assert np.array_equal(made[0], made[1])


def test_frames_come_as_they_are_made_and_may_change_size(model: repsr_cli.Model) -> None:
    taken = []

    def frames() -> Iterator[NDArray[Any]]:
        for number in range(9):
            taken.append(number)
            yield np.full((4, 4 + 2 * (number > 6), 3), number, np.uint8)

    enlarged = repsr_cli.upscale_frames(frames(), model)
    first = next(enlarged)
    assert first.shape == (8, 8, 3)
    assert len(taken) <= 1 + model.upscaler.threads  # a tile for each thread
    rest = list(enlarged)
    assert [frame[0, 0, 0] for frame in rest] == list(range(1, 9))
    assert [frame.shape[1] for frame in rest] == [8] * 6 + [12] * 2


# Files.


def test_files(network: Path, tmp_path: Path) -> None:
    Image.fromarray(noise(6, 8, 3)).save(tmp_path / "a.png")
    video = make_video(tmp_path / "b.mp4", range(6))
    outcome = repsr_cli.upscale_file(tmp_path / "a.png", str(tmp_path / "new" / "c.png"), model=str(network), scale=1.5)
    assert outcome.target == tmp_path / "new" / "c.png"
    with Image.open(outcome.target) as made:
        assert made.size == (12, 9)
    seen: list[Progress] = []
    messages: list[str] = []
    outcome = repsr_cli.upscale_file(
        video, tmp_path / "d.mkv", progress=seen.append, say=messages.append, model=str(network), preset="ultrafast"
    )
    assert outcome.facts["frames"] == 6
    assert frame_times(tmp_path / "d.mkv")
    assert [step.done for step in seen] == list(range(1, 7))
    assert any("model" in line for line in messages)


@pytest.mark.parametrize("name", ["a.png", "clip.mkv"])
def test_folders_that_were_made_for_nothing_are_removed(network: Path, tmp_path: Path, name: str) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    make_video(tmp_path / "clip.mkv", range(3))

    def stop(_step: Progress) -> None:
        raise KeyboardInterrupt

    (tmp_path / "there").mkdir()
    for folder in ("new/deep", "there/deep"):
        with pytest.raises(KeyboardInterrupt):
            repsr_cli.upscale_file(
                tmp_path / name, tmp_path / folder / name, model=str(network), progress=stop, resume=False
            )
    assert (tmp_path / "there").is_dir()
    assert not any((tmp_path / "there").iterdir())
    assert not (tmp_path / "new").exists()


def test_errors_speak_of_arguments(network: Path, tmp_path: Path) -> None:
    Image.fromarray(noise(6, 8, 3)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("precious")
    with pytest.raises(UsageError, match=r"b\.png: exists\. Add overwrite=True to replace it"):
        repsr_cli.upscale_file(tmp_path / "a.png", tmp_path / "b.png", model=str(network))
    with pytest.raises(UsageError, match=r"scale 0\.5: not a factor"):
        repsr_cli.upscale_file(tmp_path / "a.png", tmp_path / "c.png", scale=0.5)
    with pytest.raises(MediaError, match=r"none\.png: no such file"):
        repsr_cli.upscale_file(tmp_path / "none.png", tmp_path / "c.png", model=str(network))
    with pytest.raises(TypeError, match="no option 'crv'"):
        repsr_cli.upscale_file(tmp_path / "a.png", tmp_path / "c.png", crv=3)
    with pytest.raises(TypeError, match="got int"):
        repsr_cli.upscale_file(3, tmp_path / "c.png")  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png", "nearest.safetensors"]


@pytest.mark.parametrize(
    ("flags", "arguments"),
    [
        ("Add -y to replace it.", "Add overwrite=True to replace it."),
        ("Begin again with --no-resume.", "Begin again with resume=False."),
        ("Agree with --allow-loss, or try .mkv.", "Agree with allow_loss=True, or try .mkv."),
        ("Say it with --fps 24.", "Say it with fps 24."),
        ("a -1 b-y x--crf", "a -1 b-y x--crf"),
    ],
)
def test_flags_become_arguments(flags: str, arguments: str) -> None:
    assert in_arguments(flags) == arguments


def test_refusals(network: Path, model: repsr_cli.Model) -> None:
    with pytest.raises(CheckpointError):
        repsr_cli.load_model("no-such-network")
    with pytest.raises(UsageError, match="precision fp7"):
        repsr_cli.load_model(network, precision="fp7")  # type: ignore[arg-type]
    for wrong in (3, b"fast"):
        with pytest.raises(TypeError, match="expected a name or a path, got"):
            repsr_cli.load_model(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="kind 'movie'"):
        repsr_cli.load_model(network, kind="movie")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="PIL image, a numpy array or a torch tensor, got str"):
        model.upscale("a.png")  # type: ignore[type-var]
    array: NDArray[Any]
    for array in (np.zeros((4, 4), np.int64), np.zeros((4, 4, 3), bool)):
        with pytest.raises(TypeError, match="expected an array of uint8"):
            model.upscale(array)
    for array in (np.zeros((4, 4, 5), np.uint8), np.zeros(4, np.uint8), np.zeros((0, 4), np.uint8)):
        with pytest.raises(ValueError, match="expected an array of"):
            model.upscale(array)
    with pytest.raises(TypeError, match="expected a tensor of uint8"):
        model.upscale(torch.zeros(3, 4, 4, dtype=torch.int32))
    with pytest.raises(ValueError, match="expected a tensor of"):
        model.upscale(torch.zeros(4, 4))
    with pytest.raises(ValueError, match="mode CMYK"):
        model.upscale(Image.new("CMYK", (4, 4)))
    with pytest.raises(TypeError, match="expected frames as arrays of uint8"):
        list(repsr_cli.upscale_frames([np.zeros((4, 4, 3), np.float32)], model))
    with pytest.raises(ValueError, match="expected a frame"):
        list(repsr_cli.upscale_frames([np.zeros((4, 4, 4), np.uint8)], model))
    with pytest.raises(TypeError, match="from load_model, got str"):
        list(repsr_cli.upscale_frames([], "fast"))  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        _ = repsr_cli.upscale_everything


def test_importing_the_package_loads_nothing() -> None:
    code = "import sys, repsr_cli; dir(repsr_cli); sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
    assert {"Model", "RepsrError", "load_model", "upscale_file", "upscale_frames"} <= set(dir(repsr_cli))
    assert all(getattr(repsr_cli, name) is not None for name in repsr_cli.__all__)


OUTSIDE = """
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import repsr_cli

model: repsr_cli.Model = repsr_cli.load_model("fast", scale=2, kind="real", device="cpu", precision="fp32")
image: Image.Image = model.upscale(Image.new("RGB", (4, 4)))
array: NDArray[np.uint8] = model.upscale(np.zeros((4, 4, 3), np.uint8))
tensor: torch.Tensor = model.upscale(torch.zeros(3, 4, 4), tta=True)
frames: Iterator[NDArray[np.uint8]] = repsr_cli.upscale_frames([array, array], model)
try:
    outcome: repsr_cli.Outcome = repsr_cli.upscale_file("a.png", Path("b.png"), scale=2, progress=lambda step: None)
    print(outcome.seconds + model.scale, outcome.target.name)
except (repsr_cli.MediaError, repsr_cli.RepsrError) as error:
    code: int = error.exit_code
"""


def test_types_as_seen_from_outside(tmp_path: Path) -> None:
    pytest.importorskip("mypy")

    (tmp_path / "outside.py").write_text(f'{OUTSIDE}model.upscale("a.png")\nrepsr_cli.load_model(3)\n')
    # With the settings of this repository, since under others nothing that mypy remembers of it is of use.
    options = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache")]
    command = [sys.executable, "-m", "mypy", *options, "outside.py"]
    environment = os.environ | {"MYPYPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280)
    wrong = len(OUTSIDE.splitlines()) + 1, len(OUTSIDE.splitlines()) + 2
    found = [int(line) for line in re.findall(r"^outside\.py:([0-9]+): error: ", done.stdout, re.MULTILINE)]
    assert found == list(wrong), done.stdout + done.stderr
