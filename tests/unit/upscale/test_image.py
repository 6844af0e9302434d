"""An image file enlarged: exact with a network that changes nothing, seamless with one that does."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from repsr_cli.engine.pixels import to_pixels, to_tensor
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import MediaError, UsageError
from repsr_cli.image.files import open_image, read_image, write_image
from repsr_cli.image.page import Metadata, Page, page_of
from repsr_cli.image.resize import imresize
from repsr_cli.model.plain import PlainSR, identity_network
from repsr_cli.model.spec import Spec
from repsr_cli.reporting import Outcome, Progress, Reporter
from repsr_cli.sizes import target_size
from repsr_cli.upscale import image as module
from repsr_cli.upscale.image import enlarged
from repsr_cli.upscale.request import Request, SizeOptions
from tests.conftest import present
from tests.upscaling import upscale_image


def identity(scale: int = 2) -> Upscaler:
    return Upscaler(identity_network(scale), device="cpu")


def restless(scale: int = 2, blocks: int = 4) -> Upscaler:
    """A network whose every weight matters."""
    net = PlainSR(Spec(scale, 8, blocks)).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    return Upscaler(net, device="cpu", precision="fp32")


def noise(*shape: int, dtype: Any = np.uint8) -> NDArray[Any]:
    values = np.random.default_rng(3).random(shape)
    return (values if np.dtype(dtype).kind == "f" else values * np.iinfo(dtype).max).astype(dtype)


def run(source: Path, target: Path, upscaler: Upscaler, reporter: Reporter | None = None, **options: Any) -> Outcome:
    return upscale_image(source, target, upscaler, Request.of(**options), reporter or Reporter())


def nearest(samples: NDArray[Any], scale: int = 2) -> NDArray[Any]:
    return samples.repeat(scale, 0).repeat(scale, 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_identity_is_exact(tmp_path: Path, dtype: Any, channels: int, suffix: str) -> None:
    if (dtype, suffix) == (np.float32, ".png"):
        pytest.skip("PNG holds no floats")
    pixels = noise(17, 23, channels, dtype=dtype)
    write_image(tmp_path / f"a{suffix}", [page_of(pixels)])
    outcome = run(tmp_path / f"a{suffix}", tmp_path / f"b{suffix}", identity())
    found = read_image(tmp_path / f"b{suffix}")
    assert found.pixels.dtype == dtype
    assert np.array_equal(found.pixels, nearest(pixels))
    assert outcome.notes == ()
    assert outcome.facts["bits"] == 8 * np.dtype(dtype).itemsize


def test_every_16_bit_value_comes_back(tmp_path: Path) -> None:
    """Dark images too: no step of the way goes through 8 bits."""
    pixels = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    write_image(tmp_path / "a.png", [page_of(pixels)])
    run(tmp_path / "a.png", tmp_path / "b.png", identity(1))
    assert np.array_equal(read_image(tmp_path / "b.png").pixels, pixels)


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("size", [(80, 58), (63, 47), (100, 40), (79, 58), (30, 20)])
@pytest.mark.parametrize("tta", [False, True])
def test_strips_leave_no_trace(monkeypatch: pytest.MonkeyPatch, alpha: bool, size: tuple[int, int], tta: bool) -> None:
    upscaler = restless()
    hidden = (noise(40, 29) // 128 * 255).astype(np.uint8) if alpha else None
    page = page_of(noise(40, 29, 3), hidden)
    whole = enlarged(page, size, upscaler, tta=tta).read()
    monkeypatch.setattr(module, "_STRIP_PIXELS", 58 * 9)
    cuts = [(a, min(a + 7, 40)) for a in range(0, 40, 7)]
    pieces = [page_of(page.read().pixels[a:b], None if hidden is None else hidden[a:b]).read() for a, b in cuts]
    piecewise = Page(40, 29, 3, page.dtype, alpha, lambda: iter(pieces))
    strips = list(enlarged(piecewise, size, upscaler, tta=tta).strips())
    assert len(strips) > 3
    found = np.concatenate([strip.pixels for strip in strips]).astype(int)
    # Other shapes may be summed in another order: a value at the border of two samples may fall to either side.
    assert np.abs(found - whole.pixels).max() <= 1
    assert (found != whole.pixels).mean() < 0.001
    if alpha:
        assert np.array_equal(np.concatenate([present(strip.alpha) for strip in strips]), present(whole.alpha))


def test_a_strip_that_sees_too_little_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: with one row of context less it does."""
    upscaler = restless()
    page = page_of(noise(40, 29, 3))
    whole = enlarged(page, (80, 58), upscaler).read().pixels.astype(int)
    monkeypatch.setattr(module, "_STRIP_PIXELS", 58 * 9)
    monkeypatch.setattr(Spec, "reach", property(lambda spec: spec.blocks))
    assert np.abs(enlarged(page, (80, 58), upscaler).read().pixels - whole).max() > 3


def test_transparency_does_not_colour_what_shows() -> None:
    """What files keep where nothing shows must not reach what does."""
    upscaler = restless()
    alpha = np.zeros((24, 24), np.uint8)
    alpha[8:16, 8:16] = 255
    black, wild = np.zeros((24, 24, 3), np.uint8), noise(24, 24, 3)
    black[8:16, 8:16] = wild[8:16, 8:16] = 180
    shown = nearest(alpha) > 0
    results = [enlarged(page_of(colour, alpha), (48, 48), upscaler).read().pixels for colour in (black, wild)]
    assert np.array_equal(results[0][shown], results[1][shown])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_opaque_stays_opaque(tmp_path: Path, dtype: Any) -> None:
    peak = np.iinfo(dtype).max
    write_image(tmp_path / "a.png", [page_of(noise(20, 20, 3, dtype=dtype), np.full((20, 20), peak, dtype))])
    run(tmp_path / "a.png", tmp_path / "b.png", restless(), scale=1.7)
    found = read_image(tmp_path / "b.png")
    assert found.alpha is not None
    assert found.alpha.shape == (34, 34)
    assert (found.alpha == peak).all()


@pytest.mark.parametrize("value", [0, 1, 77, 254, 255])
def test_constants_stay_constant_through_the_resize(tmp_path: Path, value: int) -> None:
    write_image(tmp_path / "a.png", [page_of(np.full((20, 31, 3), value, np.uint8))])
    outcome = run(tmp_path / "a.png", tmp_path / "b.png", identity(), scale=1.37)
    assert (read_image(tmp_path / "b.png").pixels == value).all()
    assert "then resized to 42 x 27 px" in outcome.notes[0]


def test_other_factors_are_the_network_and_then_the_resize(tmp_path: Path) -> None:
    pixels, upscaler = noise(20, 30, 3), restless()
    write_image(tmp_path / "a.png", [page_of(pixels)])
    run(tmp_path / "a.png", tmp_path / "b.png", upscaler, scale=1.5)
    sr = upscaler(to_tensor(pixels))
    resized = imresize(np.ascontiguousarray(sr[0].permute(1, 2, 0).numpy()), (30, 45))
    expected = to_pixels(torch.from_numpy(resized).permute(2, 0, 1)[None], np.uint8, grey=False)
    assert np.array_equal(read_image(tmp_path / "b.png").pixels, expected)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, (200, 300)),
        ({"scale": 1.5}, (150, 225)),
        ({"width": 299}, (199, 299)),
        ({"height": 201}, (201, 302)),
        ({"width": 10, "height": 20}, (20, 10)),
        ({"fit": (400, 450)}, (300, 450)),
        ({"fit": (200, 450)}, (200, 300)),
        ({"short_side": 201}, (201, 302)),
        ({"scale": 0.001}, (1, 1)),
    ],
)
def test_size_asked_for(options: dict[str, Any], size: tuple[int, int]) -> None:
    assert target_size((100, 150), SizeOptions(**options), 2) == size


def test_pages_are_sized_one_by_one(tmp_path: Path) -> None:
    """An upright and a lying page both fit the box."""
    write_image(tmp_path / "a.tif", [page_of(noise(10, 20, 1)), page_of(noise(20, 10, 1))], count=2)
    run(tmp_path / "a.tif", tmp_path / "b.tif", identity(), fit=(30, 30))
    assert [(page.height, page.width) for page in open_image(tmp_path / "b.tif").pages()] == [(15, 30), (30, 15)]


def test_more_pixels_than_allowed_are_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "a.bmp", [page_of(noise(20, 10, 3))])
    with pytest.raises(MediaError, match="--max-pixels 200,"):
        run(tmp_path / "a.bmp", tmp_path / "b.png", identity(), max_pixels=199)
    run(tmp_path / "a.bmp", tmp_path / "b.png", identity(), max_pixels=200)


def test_self_ensemble_is_the_mean_of_eight_views() -> None:
    upscaler, lr = restless(), torch.rand(1, 3, 9, 13)
    views = []
    for turns in range(4):
        for mirrored in (False, True):
            seen = torch.rot90(lr.flip(3) if mirrored else lr, turns, (2, 3))
            sr = torch.rot90(upscaler(seen), -turns, (2, 3))
            views.append(sr.flip(3) if mirrored else sr)
    expected = to_pixels(torch.stack(views).mean(0), np.float32, grey=False)
    page = page_of(lr[0].permute(1, 2, 0).numpy())
    assert np.allclose(enlarged(page, (18, 26), upscaler, tta=True).read().pixels, expected, atol=1e-6)
    assert not np.allclose(enlarged(page, (18, 26), upscaler).read().pixels, expected, atol=1e-3)


def test_floats_beyond_one_keep_their_range(tmp_path: Path) -> None:
    pixels = noise(10, 10, 3, dtype=np.float32) * 1000
    write_image(tmp_path / "a.tif", [page_of(pixels)])
    run(tmp_path / "a.tif", tmp_path / "b.tif", identity())
    assert np.allclose(read_image(tmp_path / "b.tif").pixels, nearest(pixels), rtol=1e-6)


def test_pages_of_different_kinds(tmp_path: Path) -> None:
    pages = [page_of(noise(5, 4, 3)), page_of(noise(9, 2, 1, dtype=np.uint16)), page_of(noise(3, 3, 3), noise(3, 3))]
    write_image(tmp_path / "a.tif", pages, count=3)
    seen: list[Progress] = []
    run(tmp_path / "a.tif", tmp_path / "b.tif", identity(), Reporter(progress=seen.append))
    for found, page in zip(open_image(tmp_path / "b.tif").pages(), pages, strict=True):
        assert np.array_equal(found.read().pixels, nearest(page.read().pixels))
    assert seen == [Progress(1, 3, "page"), Progress(2, 3, "page"), Progress(3, 3, "page")]


@pytest.mark.parametrize("suffix", [".png", ".gif", ".webp"])
def test_frames_and_times(tmp_path: Path, suffix: str) -> None:
    colours = np.array([[0, 0, 0], [250, 10, 20], [0, 200, 90]], np.uint8)
    images = [colours[np.random.default_rng(i).integers(0, 3, (12, 10))] for i in range(4)]
    times = [Fraction(n, 100) for n in (5, 70, 5, 11)]
    source, target = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    write_image(source, [page_of(p, None, Metadata(), t) for p, t in zip(images, times, strict=True)], count=4, loop=2)
    run(source, target, identity())
    result = open_image(target)
    assert (result.count, result.loop) == (4, 2)
    for page, image, seconds in zip(result.pages(), images, times, strict=True):
        assert page.duration == seconds
        assert np.array_equal(page.read().pixels, nearest(image))


def test_progress_of_a_single_page_ends_at_its_total(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STRIP_PIXELS", 60 * 16)
    write_image(tmp_path / "a.png", [page_of(noise(40, 30, 3))])
    for tta in (False, True):
        seen: list[Progress] = []
        upscaler = identity()
        run(tmp_path / "a.png", tmp_path / "b.png", upscaler, Reporter(progress=seen.append), tta=tta, overwrite=True)
        assert [p.done for p in seen] == sorted(p.done for p in seen)
        assert {p.unit for p in seen} == {"tile"}
        assert seen[-1].done == seen[-1].total


def test_metadata_arrive_or_are_stripped(tmp_path: Path) -> None:
    meta = Metadata(
        xmp=b"<x/>", dpi=(300.0, 300.0), text=(("Author", "me"),), colour=((b"cICP", bytes([9, 16, 0, 1])),)
    )
    write_image(tmp_path / "a.png", [page_of(noise(4, 4, 3), None, meta)])
    run(tmp_path / "a.png", tmp_path / "b.png", identity())
    found = read_image(tmp_path / "b.png").metadata
    assert (found.xmp, found.text, found.colour) == (meta.xmp, meta.text, meta.colour)
    assert found.dpi == pytest.approx((300, 300), abs=0.02)
    run(tmp_path / "a.png", tmp_path / "c.png", identity(), strip_metadata=True)
    assert read_image(tmp_path / "c.png").metadata == Metadata()


def test_what_the_target_cannot_hold_is_refused_or_left_out_on_request(tmp_path: Path) -> None:
    alpha = np.zeros((6, 6), np.uint16)
    write_image(tmp_path / "a.png", [page_of(noise(6, 6, 3, dtype=np.uint16), alpha)])
    with pytest.raises(UsageError, match="16 bits per channel and transparency"):
        run(tmp_path / "a.png", tmp_path / "b.jpg", identity())
    assert not (tmp_path / "b.jpg").exists()
    outcome = run(tmp_path / "a.png", tmp_path / "b.jpg", identity(), allow_loss=True)
    assert "left out" in outcome.notes[0]
    assert read_image(tmp_path / "b.jpg").alpha is None


def test_what_is_too_large_for_the_format_is_refused_before_work(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", [page_of(noise(2, 9000, 3))])
    with pytest.raises(UsageError, match="16383"):
        run(tmp_path / "a.png", tmp_path / "b.webp", restless())
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_nothing_is_overwritten_without_leave(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", [page_of(noise(4, 4, 3))])
    (tmp_path / "b.png").write_bytes(b"precious")
    with pytest.raises(UsageError, match="exists"):
        run(tmp_path / "a.png", tmp_path / "b.png", identity())
    assert (tmp_path / "b.png").read_bytes() == b"precious"
    run(tmp_path / "a.png", tmp_path / "b.png", identity(), overwrite=True)
    assert read_image(tmp_path / "b.png").pixels.shape == (8, 8, 3)


def test_a_image_that_breaks_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STRIP_PIXELS", 100 * 20)
    monkeypatch.setattr("repsr_cli.image.png._STRIP_BYTES", 151 * 10)
    write_image(tmp_path / "a.png", [page_of(noise(300, 50, 3))])
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[len(data) - 1000] ^= 1
    (tmp_path / "a.png").write_bytes(bytes(data))
    with pytest.raises(MediaError, match="damaged"):
        run(tmp_path / "a.png", tmp_path / "b.png", identity())
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_benchmark_writes_nothing(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", [page_of(noise(4, 4, 3))])
    outcome = run(tmp_path / "a.png", tmp_path / "b.png", identity(), benchmark=True)
    assert outcome.seconds > 0
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
