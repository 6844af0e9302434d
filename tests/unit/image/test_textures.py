"""Test formats of games and workstations: SGI, DDS, TGA and PCX at their full depth."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from repsr_cli.errors import MediaError
from repsr_cli.image.files import read_image
from repsr_cli.image.formats import is_image


def noise(channels: int) -> NDArray[np.uint16]:
    samples = np.random.default_rng(channels).integers(0, 65536, (7, 9, channels), dtype=np.uint16)
    samples[2:5] = 40_000 + channels
    return samples


def sgi(samples: NDArray[np.uint16], packed: bool) -> bytes:
    height, width, channels = samples.shape
    dimensions = 3 if channels > 1 else 2
    head = struct.pack(">HBBHHHH", 474, packed, 2, dimensions, width, height, channels).ljust(512, b"\0")
    rows = samples[::-1].transpose(2, 0, 1).reshape(-1, width)
    if not packed:
        return head + rows.astype(">u2").tobytes()
    body, starts, lengths = b"", [], []
    for row in rows:
        words = [width, row[0]] if (row == row[0]).all() else [0x80 | width, *row]
        starts.append(512 + 8 * len(rows) + len(body))
        data = np.array([*words, 0]).astype(">u2").tobytes()
        lengths.append(len(data))
        body += data
    return head + struct.pack(f">{2 * len(rows)}I", *starts, *lengths) + body


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sgi_of_16_bit(tmp_path: Path, packed: bool, channels: int) -> None:
    samples = noise(channels)
    data = sgi(samples, packed)
    (tmp_path / "a.sgi").write_bytes(data)
    found = read_image(tmp_path / "a.sgi")
    assert np.array_equal(found.pixels, samples[..., : min(channels, 3)])
    assert (found.alpha is not None) == (channels == 4)
    for cut in (len(data) - 3, 300, 11):
        (tmp_path / "a.sgi").write_bytes(data[:cut])
        with pytest.raises(MediaError, match="damaged"):
            read_image(tmp_path / "a.sgi")


def dds(kind: bytes | int, data: bytes, dxgi: int | None = None) -> bytes:
    name = kind if isinstance(kind, bytes) else struct.pack("<I", kind)
    head = struct.pack("<4s7I44x", b"DDS ", 124, 0x1007, 7, 9, 0, 0, 0)
    head += struct.pack("<II4s5II16x", 32, 4, name, 0, 0, 0, 0, 0, 0x1000)
    return head + (b"" if dxgi is None else struct.pack("<5I", dxgi, 3, 0, 1, 0)) + data


@pytest.mark.parametrize(("kind", "dxgi"), [(b"DX10", 11), (36, None)])
def test_textures_of_16_bit(tmp_path: Path, kind: bytes | int, dxgi: int | None) -> None:
    samples = noise(4)
    data = dds(kind, samples.tobytes(), dxgi)
    (tmp_path / "a.dds").write_bytes(data)
    found = read_image(tmp_path / "a.dds")
    assert np.array_equal(found.pixels, samples[..., :3])
    assert found.alpha is not None
    assert np.array_equal(found.alpha, samples[..., 3])
    (tmp_path / "a.dds").write_bytes(data[:-1])
    with pytest.raises(MediaError, match="ends early"):
        read_image(tmp_path / "a.dds")


@pytest.mark.parametrize(("dxgi", "type"), [(10, "<f2"), (2, "<f4")])
def test_textures_of_floats(tmp_path: Path, dxgi: int, type: str) -> None:
    samples = (noise(4) / 10_000).astype(type)
    (tmp_path / "a.dds").write_bytes(dds(b"DX10", samples.tobytes(), dxgi))
    found = read_image(tmp_path / "a.dds")
    assert found.pixels.dtype == np.float32
    assert np.array_equal(found.pixels, samples[..., :3].astype(np.float32))


@pytest.mark.parametrize("suffix", [".tga", ".pcx", ".dds", ".sgi"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_8_bit_is_as_pillow_reads_it(tmp_path: Path, suffix: str, mode: str) -> None:
    if suffix == ".pcx" and mode == "RGBA":
        return
    path = tmp_path / f"a{suffix}"
    Image.fromarray(noise(4).astype(np.uint8)).convert(mode).save(path)
    assert is_image(path)
    found = read_image(path)
    with Image.open(path) as image:
        assert np.array_equal(found.pixels.squeeze(), np.asarray(image)[..., :3] if mode != "L" else np.asarray(image))


def test_targa_is_known_by_its_footer_or_its_name(tmp_path: Path) -> None:
    Image.fromarray(noise(3).astype(np.uint8)).save(tmp_path / "a.tga")
    data = (tmp_path / "a.tga").read_bytes()
    (tmp_path / "a.bin").write_bytes(data)
    assert is_image(tmp_path / "a.bin") == data.endswith(b"TRUEVISION-XFILE.\0")
    (tmp_path / "b.tga").write_bytes(data.removesuffix(data[-26:]))
    assert is_image(tmp_path / "b.tga")
    (tmp_path / "c.tga").write_bytes(b"not a texture at all, only some text" * 3)
    assert not is_image(tmp_path / "c.tga")


def test_an_unused_fourth_channel_is_not_transparency(tmp_path: Path) -> None:
    pixels = noise(4).astype(np.uint8)
    pixels[..., 3] = 0
    head = struct.pack("<3B5x4H2B", 0, 0, 2, 0, 0, 9, 7, 32, 0x20)
    (tmp_path / "a.tga").write_bytes(head + pixels[..., [2, 1, 0, 3]].tobytes())
    found = read_image(tmp_path / "a.tga")
    assert found.alpha is None
    assert "not marked as alpha" in found.notes[0]
    assert np.array_equal(found.pixels, pixels[..., :3])


@pytest.mark.parametrize(
    ("bits", "mode", "says"), [(16, 3, "16 bits per channel"), (32, 3, "32 bits per channel"), (8, 2, "palette")]
)
def test_photoshop_documents_that_are_not_read_are_called_what_they_are(
    tmp_path: Path, bits: int, mode: int, says: str
) -> None:
    head = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3 if mode == 3 else 1, 4, 4, bits, mode)
    (tmp_path / "a.psd").write_bytes(head + bytes(12) + bytes(2 + 4 * 4 * 3 * bits // 8))
    with pytest.raises(MediaError, match=says):
        read_image(tmp_path / "a.psd")
