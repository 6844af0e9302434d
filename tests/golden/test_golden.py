"""Images as they were: a small fixed network's results, held to one code value."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from repsr_cli.image.files import open_image
from tests.golden.make import CASES, HERE, write_results, write_sources


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sources, folder = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("results")
    write_sources(sources)
    write_results(sources, folder)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_image_is_as_it_was(results: Path, name: str) -> None:
    golden, found = open_image(HERE / name), open_image(results / name)
    assert (found.format, found.count, found.loop) == (golden.format, golden.count, golden.loop)
    for old, new in zip(golden.pages(), found.pages(), strict=True):
        assert (new.dtype, new.channels, new.alpha, new.duration) == (old.dtype, old.channels, old.alpha, old.duration)
        assert new.metadata == old.metadata
        code = 257 if new.dtype == np.uint16 else 1  # 1/255, whatever the depth
        for before, after in zip(old.read(), new.read(), strict=True):
            if before is not None:
                assert after is not None
                difference = np.abs(after.astype(int) - before.astype(int))
                assert difference.max() <= code, f"samples off: {np.unique(difference, return_counts=True)}"


def test_golden_images_are_small() -> None:
    assert sum(path.stat().st_size for path in HERE.iterdir() if path.suffix != ".py" and path.is_file()) < 50_000
