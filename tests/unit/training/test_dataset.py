from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch
from PIL import Image

from repsr_cli.errors import RecipeError, UsageError
from repsr_cli.image.resize import downscale
from repsr_cli.model.plain import LUMA
from repsr_cli.training.dataset import (
    CropDataset,
    Pack,
    Pair,
    build_pack,
    check_images,
    find_images,
    folder_pairs,
    pack_digest,
    write_pack,
)
from tests.conftest import textured


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    (root / "sub").mkdir(parents=True)
    for number in range(4):
        for tile in range(2):
            image = textured(50 + number, 61, seed=10 * number + tile)
            Image.fromarray(image).save(root / "sub" / f"p{number}_{tile}.png")
    Image.fromarray(textured(64, 64, 99)[..., 0]).save(root / "grey.png")
    (root / "notes.txt").write_text("not an image")
    return root


@pytest.fixture
def pack(folder: Path, tmp_path: Path) -> Pack:
    build_pack(folder, tmp_path / "x3.pack", 3)
    return Pack(tmp_path / "x3.pack")


def test_pack_holds_every_image_and_its_matlab_downscale(pack: Pack, folder: Path) -> None:
    assert len(pack.images) == 9
    assert pack.scale == 3
    for image in pack.images:
        original = np.asarray(Image.open(folder / image.name).convert("RGB"))
        hr = original[: image.height, : image.width]
        assert image.height % 3 == image.width % 3 == 0
        assert np.array_equal(pack.hr(image), hr)
        assert np.array_equal(pack.lr(image), downscale(np.ascontiguousarray(hr), 3))


def test_validation_is_split_by_photograph(pack: Pack) -> None:
    training, validation = pack.split(2)
    held_out = {image.group for image in validation}
    assert len(validation) == len(held_out) == 2
    assert not held_out & {image.group for image in training}
    assert {p.group for p in training} | held_out == {p.group for p in pack.images}
    assert pack.split(2)[1] == validation


def test_photographs_are_known_by_index_or_by_name(folder: Path) -> None:
    (folder / "index.csv").write_text("file,source,source_name\ngrey.png,museum,cat.jpg\n")
    groups = {pair.name: pair.group for pair in folder_pairs(folder, 2)}
    assert groups["grey.png"] == "museum/cat.jpg"
    assert groups["sub/p2_1.png"] == groups["sub/p2_0.png"] == "p2"


def test_pairs_may_bring_their_lr_and_their_split(tmp_path: Path) -> None:
    hr, lr = textured(32, 32), textured(16, 16, 1)
    write_pack(tmp_path / "own.pack", 2, [Pair("a", "a", hr, lr), Pair("b", "b", hr, held_out=True)])
    pack = Pack(tmp_path / "own.pack")
    training, validation = pack.split(0)
    assert [p.name for p in training] == ["a"]
    assert [p.name for p in validation] == ["b"]
    assert np.array_equal(pack.lr(training[0]), lr)
    assert np.array_equal(pack.lr(validation[0]), downscale(hr, 2))


def test_batches_depend_on_seed_and_step_alone(pack: Pack) -> None:
    source = CropDataset(pack, pack.images, 8, seed=5)
    first = source.batch(3, 4, 8)
    source.batch(9, 4, 8)
    again = CropDataset(pack, pack.images, 8, seed=5).batch(3, 4, 8)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], source.batch(4, 4, 8)[0])
    assert not np.array_equal(first[0], CropDataset(pack, pack.images, 8, seed=6).batch(3, 4, 8)[0])


def test_shares_of_processes_make_the_batch(pack: Pack) -> None:
    coloured = [image for image in pack.images if image.name != "grey.png"]
    source = CropDataset(pack, coloured, 8, seed=5, saturation=2)
    shares = [source.batch(3, 6, 8, share=slice(rank, None, 2)) for rank in range(2)]
    for whole, first, second in zip(source.batch(3, 6, 8), *shares, strict=True):
        assert torch.equal(whole[::2], first)
        assert torch.equal(whole[1::2], second)


@pytest.mark.parametrize("shuffle", [False, True])
def test_lr_and_hr_crops_show_the_same_place(pack: Pack, shuffle: bool) -> None:
    lr, hr = CropDataset(pack, pack.images, 8, seed=0, channel_shuffle=shuffle).batch(0, 16, 8)
    assert lr.shape == (16, 3, 8, 8)
    assert hr.shape == (16, 3, 24, 24)
    small = hr.reshape(16, 3, 8, 3, 8, 3).mean((3, 5))
    # Bicubic and box means differ, but a crop, flip or channel off by one would differ by far more.
    assert float((small - lr).abs().mean()) < 0.25 * float((small - lr.flip(3)).abs().mean())


def test_augmentation_reaches_all_eight_poses(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    Image.fromarray(textured(24, 24)).save(folder / "a.png")
    build_pack(folder, tmp_path / "x1.pack", 1)
    pack = Pack(tmp_path / "x1.pack")
    _lr, hr = CropDataset(pack, pack.images, 24, seed=0).batch(0, 80, 24)
    assert len({crop.numpy().tobytes() for crop in hr}) == 8


def test_check_lists_every_unusable_image(folder: Path) -> None:
    (folder / "broken.png").write_bytes((folder / "grey.png").read_bytes()[:200])
    Image.fromarray(textured(9, 9)).save(folder / "tiny.png")
    problems = check_images(find_images(folder), 3, 8)
    assert len(problems) == 2
    assert "broken.png" in problems[0]
    assert "tiny.png: 9x9 is smaller than a crop of 24 px" in problems[1]


def test_unusable_packs_and_folders(folder: Path, tmp_path: Path, pack: Pack) -> None:
    with pytest.raises(RecipeError, match="no such folder"):
        find_images(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecipeError, match="contains no images"):
        find_images(tmp_path / "empty")
    with pytest.raises(RecipeError, match="is not a packed file"):
        Pack(folder / "grey.png")
    whole = (tmp_path / "x3.pack").read_bytes()
    (tmp_path / "cut.pack").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RecipeError, match="is cut short"):
        Pack(tmp_path / "cut.pack")
    with pytest.raises(RecipeError, match="no image holds a crop"):
        CropDataset(pack, pack.images, 400, seed=0)


def test_a_failed_build_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    (folder / "broken.png").write_bytes((folder / "grey.png").read_bytes()[:200])
    target = tmp_path / "out" / "x2.pack"
    with pytest.raises(RecipeError, match=r"broken\.png"):
        build_pack(folder, target, 2)
    assert list(target.parent.iterdir()) == []


def test_two_may_build_the_same_pack_at_once(folder: Path, tmp_path: Path) -> None:
    target, meet = tmp_path / "a.pack", Barrier(2)

    def progress(done: int, _total: int) -> None:
        if done == 1:
            meet.wait(10)

    with ThreadPoolExecutor(2) as pool:
        for built in [pool.submit(build_pack, folder, target, 2, progress) for _ in range(2)]:
            built.result()
    assert [path.name for path in tmp_path.iterdir() if path != folder] == ["a.pack"]
    assert len(Pack(target).images) == len(find_images(folder))


def test_digest_follows_the_folder(folder: Path) -> None:
    before = pack_digest(folder, 2)
    assert before == pack_digest(folder, 2)
    assert before != pack_digest(folder, 3)
    Image.fromarray(textured(30, 30)).save(folder / "new.png")
    assert before != pack_digest(folder, 2)


def test_saturation_multiplies_colour_differences_of_some_crops_and_keeps_luma(pack: Pack) -> None:
    luma = torch.tensor(LUMA)
    coloured = [image for image in pack.images if image.name != "grey.png"]
    plain = CropDataset(pack, coloured, 8, 3).batch(5, 64, 8)
    vivid = CropDataset(pack, coloured, 8, 3, saturation=3).batch(5, 64, 8)
    gains = []
    for before, after in zip(plain, vivid, strict=True):
        grey, grey_after = (torch.einsum("c,nchw->nhw", luma, side)[:, None] for side in (before, after))
        assert torch.allclose(grey, grey_after, atol=1e-5)
        colour, colour_after = before - grey, after - grey
        gain = (colour * colour_after).sum((1, 2, 3)) / colour.square().sum((1, 2, 3))
        assert torch.allclose(colour_after, colour * gain[:, None, None, None], atol=1e-4)
        gains.append(gain)
    assert torch.allclose(gains[0], gains[1], atol=1e-3)  # LR as HR
    assert 16 < int((gains[0] > 1.001).sum()) < 48
    assert float(gains[0].min()) > 1 - 1e-4
    assert 2 < float(gains[0].max()) < 3


def test_a_pack_is_replaced_only_when_asked(tmp_path: Path) -> None:
    target, pairs = tmp_path / "a.pack", [Pair("a", "a", np.zeros((8, 8, 3), np.uint8))]
    target.write_bytes(b"precious")
    with pytest.raises(UsageError, match="exists"):
        write_pack(target, 2, pairs)
    assert target.read_bytes() == b"precious"
    write_pack(target, 2, pairs, overwrite=True)
    assert len(Pack(target).images) == 1
    with pytest.raises(RecipeError, match="cannot be written: No space left"):
        write_pack(tmp_path / "b.pack", 2, (raise_full() for _ in range(1)))
    assert [path.name for path in tmp_path.iterdir()] == ["a.pack"]


def raise_full() -> Pair:
    raise OSError(28, "No space left on device")
