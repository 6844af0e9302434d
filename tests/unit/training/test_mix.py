from __future__ import annotations

from pathlib import Path

import pytest

from repsr_cli.errors import RecipeError
from repsr_cli.training.mix import Mix, load_mix
from tests.conftest import ROOT


@pytest.mark.parametrize("file", sorted((ROOT / "train" / "mixes").glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_mixes_load(file: Path) -> None:
    assert load_mix(file) != Mix()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[noize]\nshare = 0.1", "unknown key 'noize'"),
        ("[noise]\nshare = 1.5", "noise.share must be between 0 and 1"),
        ("[noise]\nshare = nan", "noise.share must be a finite number"),
        ("[noise]\nsigma = [5, 1]", "noise.sigma must be two ascending bounds"),
        ("[noise]\nsigma = [1]", "noise.sigma must be a list of 2 values"),
        ("[rescale]\nkernels = ['cubic']", "rescale.kernels must name"),
        ("[rescale]\ntwice_factor = [0.01, 1]", "rescale.twice_factor must lie between"),
        ("[video]\npasses = [0, 0]", "video.passes must be weights"),
        ("[video]\npasses = [0, 1]", "names no encoder"),
        ("[[video.codecs]]\nname = 'h264'", "unknown encoder 'h264'"),
        ("[[video.codecs]]\nname = 'libx264'\nquality = [10, 90]", "quality of libx264 must lie between 0 and 51"),
        ("[shot]\nframes = 1", "shot.frames must lie between 2 and 250"),
        ("[shot]\nframes = 999999999", "shot.frames must lie between 2 and 250"),
        ("[shot]\nshrink_factor = [0.5, 2]", "shot.shrink_factor must be 1 or more"),
        ("[jpeg]\nquality = [200, 300]", "jpeg.quality must lie between 1 and 100"),
        ("shot = 3", "'shot' must be a section"),
        ("[shot", "cannot be read"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "mix.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=reason.replace("[", r"\[")):
        load_mix(file)


def test_a_missing_mix_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such mix"):
        load_mix(tmp_path / "none.toml")
