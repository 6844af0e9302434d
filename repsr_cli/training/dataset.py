"""Pack LR/HR training pairs into a file, and draw batches of crops from it as a function of (seed, step).

A packed file holds decoded images and their LR versions for one scale as raw bytes, so that training reads crops
through a memory map and decodes nothing. Layout: ``MAGIC``, the header's length (8 bytes, little-endian), the header
(JSON), zeros up to a multiple of 64, then the images, HWC uint8, each HR followed by its LR.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from repsr_cli.errors import MediaError, RecipeError
from repsr_cli.files import Noting, check_target, is_file, open_regular, writing
from repsr_cli.image.files import read_image
from repsr_cli.image.formats import FORMATS, is_image
from repsr_cli.image.resize import downscale
from repsr_cli.model.plain import LUMA
from repsr_cli.training.metrics import Pixels

MAGIC = b"REPSRPK1"
_SUFFIXES = frozenset(suffix for fmt in FORMATS for suffix in fmt.suffixes)
_BLOCK, _MOST_HASHED = 1 << 16, 1 << 30  # bytes
_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class PackEntry:
    """Position of one image in the file.

    Attributes:
        name: path inside the folder it came from.
        group: the photograph it was cut from; validation is split by photograph.
        height: of the HR image, a multiple of the scale.
        width: of the HR image, a multiple of the scale.
        offset: of its first byte, from the start of the data.
        held_out: for validation only.
        teacher: whether what a larger model makes of the LR version follows it, in HR size.
    """

    name: str
    group: str
    height: int
    width: int
    offset: int
    held_out: bool = False
    teacher: bool = False


def find_images(folder: Path) -> list[Path]:
    """Every image under a folder, by content, sorted by path.

    Raises:
        RecipeError: no such folder, no image in it, or a folder or an image in it that cannot be read; a file with the
            name of an image that is none.
    """

    def refuse(error: OSError) -> None:
        happened = f"cannot be read: {error.strerror}"
        raise RecipeError(error.filename, happened, "Check its permissions, or move it elsewhere.") from error

    if not folder.is_dir():
        raise RecipeError(folder, "no such folder", "Give a folder of images.")
    paths = [Path(root, name) for root, _folders, names in os.walk(folder, onerror=refuse) for name in names]
    found = []
    for path in sorted(paths):
        if is_file(path) and is_image(path):
            found.append(path)
        elif path.suffix.lower() in _SUFFIXES and not path.name.startswith("."):
            raise RecipeError(path, _reason(path), "Remove it, or copy it again.")
    if not found:
        raise RecipeError(folder, "contains no images", "Give a folder of images.")
    return found


def _reason(path: Path) -> str:
    """Why a file is not an image though it has the name of one."""
    try:
        with open_regular(path.resolve()) as file:
            return "is not an image, whatever its name" if file.read(1) else "is empty"
    except (OSError, RuntimeError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or 'a link that leads to itself'}"


def photographs(folder: Path) -> dict[str, str]:
    """The photograph that each image of a folder was cut from, by the image's path in the folder.

    Read from ``index.csv`` (columns file, source_name) if the folder has one, else from names: 0001_s003.png (BasicSR's
    sub-images) and 0001_3.png are tiles of photograph 0001. IMG_0001.jpg and 20260101_120000.jpg, as cameras write
    them, are photographs of their own, and so is everything where the names would make one photograph of all.
    """
    named = _photographs_by_name(folder, find_images(folder))
    index = folder / "index.csv"
    if index.is_file():
        with index.open(newline="", encoding="utf-8") as lines:
            rows = csv.DictReader(lines)
            if {"file", "source_name"} <= set(rows.fieldnames or ()):
                named |= {row["file"]: f"{row.get('source', '')}/{row['source_name']}" for row in rows}
    return named


def _photographs_by_name(folder: Path, paths: Sequence[Path]) -> dict[str, str]:
    """As ``photographs``, by names alone; where all would be tiles of one photograph, each is its own."""
    tiles = {path: re.fullmatch(r"(.+)_s\d+|(.*\d)_\d{1,3}", path.stem, re.ASCII) for path in paths}
    named = {path: (tile[1] or tile[2]) if tile else path.stem for path, tile in tiles.items()}
    if len(set(named.values())) == 1:
        named = {path: path.stem for path in paths}
    return {path.relative_to(folder).as_posix(): name for path, name in named.items()}


def check_images(paths: Sequence[Path], scale: int, patch: int) -> list[str]:
    """One message for each unusable training image.

    Args:
        patch: side of a crop in LR px.
    """
    problems = []
    for path in paths:
        try:
            pixels = read_image(path).pixels
        except MediaError as error:
            problems.append(str(error))
            continue
        if min(pixels.shape[:2]) < scale * patch:
            height, width = pixels.shape[:2]
            problems.append(f"{path}: {width}x{height} is smaller than a crop of {scale * patch} px")
    return problems


def _hr(path: Path, scale: int) -> Pixels:
    pixels = read_image(path).pixels
    if pixels.dtype != np.uint8:
        raise RecipeError(path, f"is {pixels.dtype}, not 8 bit", "Convert it, or remove it.")
    height, width = (side - side % scale for side in pixels.shape[:2])
    return np.ascontiguousarray(np.broadcast_to(pixels[:height, :width], (height, width, 3)))


@dataclass(frozen=True, slots=True)
class Pair:
    """An image to pack.

    Attributes:
        name: unique in the file.
        group: the photograph it was cut from.
        hr: (height, width, 3), both multiples of the scale.
        lr: its LR version; None: MATLAB's antialiased bicubic.
        held_out: for validation only.
        teacher: what a larger model makes of the LR version, shaped as ``hr``.
    """

    name: str
    group: str
    hr: Pixels
    lr: Pixels | None = None
    held_out: bool = False
    teacher: Pixels | None = None


def write_pack(target: Path, scale: int, pairs: Iterable[Pair], *, overwrite: bool = False) -> None:
    """Write a packed file.

    Args:
        pairs: the images; taken one at a time.

    Raises:
        UsageError: the file exists and ``overwrite`` is false.
    """
    with writing_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    check_target(target, overwrite=overwrite, failure=RecipeError)
    # Without a name, so that it disappears whatever happens.
    with writing_errors(target), tempfile.TemporaryFile(dir=target.parent) as blobs:
        offset, images = 0, []
        for pair in pairs:
            entry, nbytes = append_pair(blobs, pair, scale, offset)
            images.append(entry)
            offset += nbytes
        assemble_pack(target, scale, images, blobs, overwrite=overwrite)


@contextmanager
def writing_errors(target: Path) -> Iterator[None]:
    """Turn an ``OSError`` into a ``RecipeError`` about the file that is being made."""
    try:
        yield
    except OSError as error:
        remedy = "Free some space, or choose another folder."
        raise RecipeError(target, f"cannot be written: {error.strerror}", remedy) from error


def append_pair(blobs: IO[bytes], pair: Pair, scale: int, offset: int) -> tuple[PackEntry, int]:
    """Write the pixels of a pair at the end of a file.

    Args:
        blobs: the file, at ``offset``.

    Returns:
        Where it lies, and how many bytes it takes.
    """
    height, width = pair.hr.shape[:2]
    lr = downscale(pair.hr, scale) if pair.lr is None else pair.lr
    parts = [pair.hr, lr] if pair.teacher is None else [pair.hr, lr, pair.teacher]
    nbytes = sum(blobs.write(np.ascontiguousarray(part).data) for part in parts)
    held_out, taught = pair.held_out, pair.teacher is not None
    return PackEntry(pair.name, pair.group, height, width, offset, held_out, taught), nbytes


def assemble_pack(
    target: Path,
    scale: int,
    images: Sequence[PackEntry],
    blobs: IO[bytes],
    *,
    overwrite: bool,
    noting: Noting | None = None,
) -> None:
    """Put a header before the pixels of pairs, and the whole under its final name.

    Args:
        blobs: a file of what ``append_pair`` wrote.
        noting: called with the complete file before it gets its name.

    Raises:
        RecipeError: the file exists, or cannot be written.
    """
    entries = [dataclasses.asdict(entry) for entry in images]
    header = json.dumps({"scale": scale, "bytes": blobs.seek(0, 2), "pictures": entries}).encode()
    blobs.seek(0)
    with writing(target, overwrite=overwrite, failure=RecipeError, noting=noting) as out:
        start = out.write(MAGIC + len(header).to_bytes(8, "little") + header)
        out.write(bytes(-start % 64))
        shutil.copyfileobj(blobs, out, 1 << 24)


def folder_pairs(
    folder: Path,
    scale: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    *,
    shuffled: bool = False,
) -> Iterator[Pair]:
    """Every image of a folder, decoded and cropped to a multiple of the scale.

    Args:
        folder: searched recursively.
        progress: called with (images done, images in all).
        shuffled: in the order of a hash of their paths, so that any first part is a sample of all of them.

    Raises:
        RecipeError: nothing found, or an image that cannot be used; ``check_images`` lists all of them.
    """
    paths = find_images(folder)
    if shuffled:
        paths.sort(key=lambda path: hashlib.sha256(os.fsencode(path.relative_to(folder).as_posix())).digest())
    groups = photographs(folder)
    for done, path in enumerate(paths):
        progress(done, len(paths))
        try:
            hr = _hr(path, scale)
        except MediaError as error:
            raise RecipeError(path, error.happened, "repsr train --check lists every such image.") from error
        if min(hr.shape[:2]) < scale:
            raise RecipeError(path, f"is smaller than the scale ({scale})", "Remove it.")
        name = path.relative_to(folder).as_posix()
        yield Pair(name, groups[name], hr)


def build_pack(
    folder: Path, target: Path, scale: int, progress: Callable[[int, int], None] = lambda _done, _total: None
) -> None:
    """Decode a folder of images into a packed file; arguments and errors as ``folder_pairs``."""
    # Processes that start at once may each build it; their files are equal.
    write_pack(target, scale, folder_pairs(folder, scale, progress), overwrite=True)


def pack_digest(folder: Path, scale: int) -> str:
    """A name for the pack of a folder's present content, from paths, sizes and times of its files."""
    digest = hashlib.sha256(os.fsencode(f"{os.path.realpath(folder)} x{scale} {MAGIC!r}"))
    paths = find_images(folder)
    groups = _photographs_by_name(folder, paths)
    for path in paths:
        facts = path.stat()
        digest.update(os.fsencode(f"{path.relative_to(folder)} {facts.st_size} {facts.st_mtime_ns}\n"))
        # Packs of earlier versions group these.
        if groups[path.relative_to(folder).as_posix()] != re.sub(r"_s?\d+$", "", path.stem):
            digest.update(b"a photograph of its own\n")
    return digest.hexdigest()[:16]


def _parsed_header(header: Any) -> tuple[int, list[PackEntry], int]:
    """Scale, images and number of bytes from a packed file's header."""
    scale, length = header["scale"], header["bytes"]
    if type(scale) is not int or type(length) is not int or scale < 1:
        raise ValueError("scale or length")
    images = [parsed_entry(entry, scale, length) for entry in header["pictures"]]
    if not images:
        raise ValueError("no images")
    return scale, images, length


def parsed_entry(values: Any, scale: int, length: int) -> PackEntry:
    """Where one image lies, from the plain values of a file.

    Args:
        values: by attribute.
        length: bytes of pixels that there are.

    Raises:
        TypeError, ValueError: they are malformed, or lie outside of the pixels.
    """
    image = PackEntry(**values)
    sides = (image.height, image.width)
    if not isinstance(image.name, str) or not isinstance(image.group, str):
        raise TypeError("a name")
    if any(type(number) is not int for number in (*sides, image.offset)) or min(sides) < scale or image.offset < 0:
        raise ValueError(f"size or place of {image.name}")
    if any(type(flag) is not bool for flag in (image.held_out, image.teacher)):
        raise TypeError(f"flags of {image.name}")
    if any(side % scale for side in sides) or end_of(image, scale) > length:
        raise ValueError(f"{image.name} lies outside of the file")
    return image


def end_of(entry: PackEntry, scale: int) -> int:
    """The first byte after an image."""
    pixels = entry.height * entry.width
    return entry.offset + 3 * (pixels * (1 + entry.teacher) + pixels // scale**2)


class Pack:
    """A packed file, memory-mapped.

    Raises:
        RecipeError: missing, not a packed file, or cut short.
    """

    def __init__(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                magic, size = file.read(len(MAGIC)), int.from_bytes(file.read(8), "little")
                if magic != MAGIC or size > path.stat().st_size:
                    raise RecipeError(path, "is not a packed file", "Give a folder of images to make one.")
                header = json.loads(file.read(size))
        except (OSError, ValueError, RecursionError) as error:
            raise RecipeError(path, f"cannot be read ({error})", "Give a folder of images to make one.") from error
        start = -(-(len(MAGIC) + 8 + size) // 64) * 64
        try:
            self.scale, self.images, length = _parsed_header(header)
        except (LookupError, TypeError, ValueError) as error:
            raise RecipeError(path, f"has a damaged header ({error})", "Delete it, and make it again.") from error
        if path.stat().st_size < start + length:
            raise RecipeError(path, "is cut short", "Delete it; it will be made again from the folder.")
        self._bytes: NDArray[np.uint8] = np.memmap(path, np.uint8, "r", start, (length,))

    def fingerprint(self) -> str:
        """A digest of the images, wherever they lie: of every pixel up to 1 GiB, of evenly spaced ones beyond."""
        entries = [dataclasses.astuple(image) for image in self.images]
        digest = hashlib.sha256(json.dumps([self.scale, entries]).encode())
        for place in range(0, len(self._bytes), _BLOCK * -(-len(self._bytes) // _MOST_HASHED)):
            digest.update(self._bytes[place : place + _BLOCK].data)
        return digest.hexdigest()

    def hr(self, image: PackEntry) -> Pixels:
        """The HR image, (height, width, 3), a view of the file."""
        return self._view(image.offset, image.height, image.width)

    def lr(self, image: PackEntry) -> Pixels:
        """Its LR version, (height / scale, width / scale, 3), a view of the file."""
        start = image.offset + 3 * image.height * image.width
        return self._view(start, image.height // self.scale, image.width // self.scale)

    def teacher(self, image: PackEntry) -> Pixels:
        """What a larger model makes of the LR version, (height, width, 3), a view of the file."""
        assert image.teacher, f"{image.name} was packed without a teacher"
        start = end_of(image, self.scale) - 3 * image.height * image.width
        return self._view(start, image.height, image.width)

    def _view(self, start: int, height: int, width: int) -> Pixels:
        return self._bytes[start : start + 3 * height * width].reshape(height, width, 3)

    def split(self, holdout: int) -> tuple[list[PackEntry], list[PackEntry]]:
        """Split into (training, validation): one image each of ``holdout`` photographs, whose other images are dropped.

        Photographs are chosen by the hash of their name, so the choice is the same for every scale and machine. A file
        that marks held-out images is split by that.
        """
        if any(image.held_out for image in self.images):
            chosen = [image for image in self.images if image.held_out]
            return [image for image in self.images if not image.held_out], chosen
        by_group: dict[str, list[PackEntry]] = {}
        for image in self.images:
            by_group.setdefault(image.group, []).append(image)
        validation = [by_group.pop(group)[0] for group in held_out_groups(by_group, holdout)]
        return [image for group in by_group.values() for image in group], validation


def held_out_groups(groups: Iterable[str], holdout: int) -> list[str]:
    """The photographs that are held out from training, chosen by the hash of their name alone.

    Where ``holdout`` is more than a third of them, at most a fifth, or four if that is no more than half.

    Raises:
        RecipeError: there is one photograph only, and it is to be held out.
    """
    found = sorted(set(groups), key=lambda group: hashlib.sha256(group.encode("utf-8", "replace")).digest())
    if holdout and len(found) == 1:
        happened = f"all images are parts of one photograph ({found[0]}), so none can be held out"
        raise RecipeError("data.train", happened, "Add others, or set data.validation to a folder.")
    share = max(len(found) // 5, min(4, len(found) // 2))
    return found[: holdout if 3 * holdout <= len(found) else min(holdout, share)]


class CropDataset:
    """Random, augmented crops of a pack's images; the batch of a step depends on (seed, step) alone.

    Args:
        images: the images to draw from, each with a probability proportional to its area.
        patch: the largest side of a crop in LR px that will be asked for; smaller images are left out.
        saturation: upper bound of the factor on colour differences, in every second crop; 1: unchanged.

    Raises:
        RecipeError: no image is large enough.
    """

    def __init__(
        self,
        pack: Pack,
        images: Sequence[PackEntry],
        patch: int,
        seed: int,
        channel_shuffle: bool = False,
        saturation: float = 1.0,
    ) -> None:
        side = patch * pack.scale
        self.pack, self.seed, self.channel_shuffle, self.saturation = pack, seed, channel_shuffle, saturation
        self.images = [p for p in images if min(p.height, p.width) >= side]
        if not self.images:
            largest = max((min(p.height, p.width) for p in images), default=0)
            happened = f"no image holds a crop of {side} px ({largest} px at most)"
            raise RecipeError("data.train", happened, f"Lower batch.patch, to {largest // pack.scale} or less.")
        areas = np.array([p.height * p.width for p in self.images], np.float64)
        self._cumulative = np.cumsum(areas / areas.sum())

    @property
    def taught(self) -> bool:
        """Whether every image comes with what a teacher made of it."""
        return all(image.teacher for image in self.images)

    def batch(
        self,
        step: int,
        size: int,
        patch: int,
        *,
        teacher: bool = False,
        share: slice = slice(None),
        device: torch.device = _CPU,
    ) -> tuple[Tensor, ...]:
        """The crops of a step.

        Args:
            patch: side in LR px.
            teacher: whether the teacher's crops are wanted too; the pack must have them.
            share: the crops of the step that are returned; which crops there are does not depend on it.
            device: of the returned tensors; pixels are copied there as 8-bit integers, a quarter of float32's bytes.

        Returns:
            lr (N, 3, patch, patch), hr (N, 3, patch * scale, patch * scale), and in the same shape as hr the
            teacher's, if wanted; float32 in [0, 1], or beyond where saturation was raised.
        """
        random = np.random.Generator(np.random.Philox(key=[self.seed, step]))
        views = [(self.pack.lr, 1), (self.pack.hr, self.pack.scale)]
        if teacher:
            views.append((self.pack.teacher, self.pack.scale))
        batch = [np.empty((size, patch * scale, patch * scale, 3), np.uint8) for _view, scale in views]
        chosen = np.searchsorted(self._cumulative, random.random(size), side="right")
        for slot, index in enumerate(chosen):
            image = self.images[min(int(index), len(self.images) - 1)]
            y = int(random.integers(image.height // self.pack.scale - patch + 1))
            x = int(random.integers(image.width // self.pack.scale - patch + 1))
            turns, mirror = int(random.integers(4)), bool(random.integers(2))
            channels = random.permutation(3) if self.channel_shuffle else slice(None)
            for (view, factor), crops in zip(views, batch, strict=True):
                crop = view(image)[y * factor :, x * factor :][: patch * factor, : patch * factor]
                crop = np.rot90(crop[:, ::-1] if mirror else crop, turns)
                crops[slot] = crop[..., channels]
        images = [_as_tensor(crops[share], device) for crops in batch]
        if self.saturation == 1:
            return tuple(images)
        # Luma and colour differences are linear, so scaling them commutes with downscaling.
        gains = np.where(random.random(size) < 0.5, random.uniform(1, self.saturation, size), 1)
        return tuple(saturated(crops, gains[share]) for crops in images)


def saturated(images: Tensor, gains: NDArray[np.float64]) -> Tensor:
    """Multiply colour differences of images (N, 3, H, W) by N gains and keep luma; not clamped."""
    luma = torch.tensor(LUMA)
    gain = torch.from_numpy(gains).float()[:, None, None]
    mix = gain * torch.eye(3) + (1 - gain) * luma.expand(3, 3)
    return torch.einsum("noc,nchw->nohw", mix.to(images.device), images)


def _as_tensor(pixels: Pixels, device: torch.device) -> Tensor:
    return torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).contiguous().float().div_(255)
