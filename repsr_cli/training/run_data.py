"""Open the training and validation images of a recipe."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from repsr_cli.errors import RecipeError
from repsr_cli.files import check_target
from repsr_cli.training.dataset import CropDataset, Pack, PackEntry, build_pack, pack_digest
from repsr_cli.training.evaluate import check_measurable, pairs_of
from repsr_cli.training.metrics import Pixels
from repsr_cli.training.plots import batch_grid, write_rows
from repsr_cli.training.recipe import Recipe
from repsr_cli.training.schedule import batch_shape


@dataclass(frozen=True, slots=True)
class RunData:
    """The data of a run.

    Attributes:
        crops: to train on.
        digests: of the images to train on, and of those to validate on where these are not among them.
    """

    crops: CropDataset
    validation: Sequence[tuple[Pixels, Pixels]]
    digests: str


def open_pack(recipe: Recipe, cache: Path, progress: Callable[[int, int], None]) -> Pack:
    """The packed file of a recipe, made from its folder of images into ``cache`` if it is not there yet.

    Raises:
        RecipeError: the folder or the file cannot be used, or is packed for another scale.
    """
    source, scale = Path(recipe.data.train).expanduser(), recipe.network.scale
    if source.is_dir():
        path = cache / f"{source.name}-x{scale}-{pack_digest(source, scale)}.pack"
        if not path.is_file():
            build_pack(source, path, scale, progress)
        source = path
    elif not source.exists():
        raise RecipeError(
            source, "no such folder or packed file", "Set data.train, for example --set data.train=IMAGES."
        )
    pack = Pack(source)
    if pack.scale != scale:
        raise RecipeError(source, f"is packed for x{pack.scale}, not x{scale}", "Give the folder of images.")
    return pack


def open_run_data(recipe: Recipe, pack: Pack) -> RunData:
    """Split a packed file, or validate on the recipe's own folder.

    Raises:
        RecipeError: no image is large enough for a crop, or the validation folder cannot be used.
        UsageError: an image is too small to validate on.
    """
    training, held_out = pack.split(recipe.data.holdout if not recipe.data.validation else 0)
    for entry in held_out:
        check_measurable(entry.name, entry.height, entry.width, pack.scale)
    images = [(np.array(pack.lr(entry)), np.array(pack.hr(entry))) for entry in held_out]
    digests = pack.fingerprint()
    if recipe.data.validation:
        pairs = pairs_of(Path(recipe.data.validation).expanduser(), recipe.network.scale)
        images = [(lr, hr) for _name, lr, hr in pairs]
        digests += f" {_digest(images)}"
    largest = max(recipe.batch.patch, recipe.batch.late_patch if recipe.batch.late else 0)
    return RunData(_crops(recipe, pack, training, largest), images, digests)


def _digest(pairs: Sequence[tuple[Pixels, Pixels]]) -> str:
    """A digest of images, in their order."""
    digest = hashlib.sha256()
    for pair in pairs:
        for pixels in pair:
            digest.update(f"{pixels.shape} ".encode())
            digest.update(pixels.tobytes())
    return digest.hexdigest()


def draw_batch(
    recipe: Recipe, run: Path, target: Path, on_packing: Callable[[int, int], None], *, overwrite: bool = False
) -> None:
    """Draw the first batch of a run as PNG: each LR crop beside its HR crop and, where there is one, the teacher's.

    Raises:
        RecipeError: unusable data, or the image cannot be written.
        UsageError: the image exists and ``overwrite`` is false.
    """
    check_target(target, overwrite=overwrite, failure=RecipeError)
    pack = open_pack(recipe, run.parent / "packs", on_packing)
    training, _held_out = pack.split(recipe.data.holdout)
    size, patch = batch_shape(0, recipe)
    crops = _crops(recipe, pack, training, patch)
    try:
        batch = crops.batch(0, size, patch, teacher=crops.taught)
        write_rows(target, [batch_grid(batch)], overwrite=overwrite)
    except ValueError as error:
        raise RecipeError(target, f"cannot be written ({error})", "Give a path that ends in .png.") from error


def _crops(recipe: Recipe, pack: Pack, entries: Sequence[PackEntry], patch: int) -> CropDataset:
    """Crops of these images as a recipe asks for, at most ``patch`` LR px wide."""
    data = recipe.data
    return CropDataset(pack, entries, patch, recipe.run.seed, data.channel_shuffle, data.saturation)
