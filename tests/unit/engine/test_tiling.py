from typing import Any

import numpy as np
import pytest

from repsr_cli.engine.tiling import Box, fit_tile, plan_tiles


def test_a_image_that_fits_is_one_tile_without_cuts() -> None:
    (tile,) = plan_tiles(5, 7, (8, 8), overlap=3)
    assert tile.core == tile.context == tile.inner == Box(0, 0, 5, 7)


def test_pieces_are_nearly_equal_and_none_is_larger_than_asked() -> None:
    widths = [tile.core.width for tile in plan_tiles(1, 100, (1, 33), overlap=0)]
    assert widths == [25, 25, 25, 25]


def test_context_reaches_out_by_the_overlap_and_is_clipped_at_borders() -> None:
    tiles = plan_tiles(30, 30, (10, 10), overlap=4)
    assert tiles[0].context == Box(0, 0, 14, 14)
    assert tiles[4].context == Box(6, 6, 24, 24)
    assert tiles[4].inner == Box(4, 4, 14, 14)
    assert tiles[8].context == Box(16, 16, 30, 30)


def test_slices_grow_with_the_scale() -> None:
    image = np.arange(24 * 24).reshape(24, 24)
    box = Box(1, 2, 3, 5)
    assert image[box.slices(4)].shape == (8, 12)
    assert image[box.slices(4)][0, 0] == image[4, 8]


@pytest.mark.parametrize("bad", [(0, 5, (4, 4), 1), (5, 5, (0, 4), 1), (5, 5, (4, 4), -1)])
def test_nonsense_is_refused(bad: Any) -> None:
    with pytest.raises(ValueError):
        plan_tiles(*bad)


def test_fit_keeps_contexts_within_the_budget_and_pays_little_overlap() -> None:
    core = fit_tile(1080, 1920, overlap=6, pixels=130_000)
    tiles = plan_tiles(1080, 1920, core, overlap=6)
    assert max(tile.context.area for tile in tiles) <= 130_000
    assert sum(tile.context.area for tile in tiles) < 1.06 * 1080 * 1920


def test_fit_takes_the_whole_image_if_it_may() -> None:
    assert fit_tile(270, 480, overlap=6, pixels=270 * 480) == (270, 480)


def test_fit_never_cuts_below_32_pixels() -> None:
    assert fit_tile(500, 500, overlap=18, pixels=1) == (32, 32)
    assert fit_tile(3, 2000, overlap=18, pixels=1)[0] == 3
