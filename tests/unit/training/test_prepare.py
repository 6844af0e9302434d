from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repsr_cli.engine.pixels import to_tensor
from repsr_cli.engine.planes import planes_from_rgb
from repsr_cli.image.resize import downscale
from repsr_cli.training.dataset import Pack
from repsr_cli.training.prepare import prepare
from repsr_cli.video.roundtrip import through_codec
from repsr_cli.yuv.formats import PlaneFormat
from tests.conftest import textured


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_codec_damage_grows_with_crf_and_no_frame_is_lost(codec: str) -> None:
    fmt = PlaneFormat("bt709", False, 8, (2, 2), "left")
    shot = [planes_from_rgb(to_tensor(textured(64, 96, 5)[:, t : t + 64].copy()), fmt) for t in range(6)]
    errors = []
    for crf in ("15", "40"):
        options = {"crf": crf, "preset": "veryfast"}
        if codec == "libx265":
            options["x265-params"] = "log-level=none:pools=none:frame-threads=1"
        decoded = through_codec(shot, "yuv420p", codec, options)
        assert len(decoded) == 6
        errors.append(np.mean([np.abs(a[0].astype(int) - b[0]).mean() for a, b in zip(shot, decoded, strict=True)]))
    assert 0 < errors[0] < errors[1]


def test_prepared_pairs_are_aligned_seeded_and_damaged(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(4):
        Image.fromarray(textured(180 + 8 * number, 200, number)).save(folder / f"p{number}.png")
    Image.fromarray(textured(140, 300)).save(folder / "small.png")
    for target in ("a", "b"):
        prepare(folder, tmp_path / f"{target}.pack", 2, variants=2, seed=3)
    a, b = Pack(tmp_path / "a.pack"), Pack(tmp_path / "b.pack")
    assert [p.name for p in a.images] == [f"p{n}.png#{v}" for n in range(4) for v in range(2)]
    assert {p.group for p in a.images} == {f"p{n}" for n in range(4)}
    damage = []
    for one, other in zip(a.images, b.images, strict=True):
        assert np.array_equal(a.lr(one), b.lr(other))
        assert np.array_equal(a.hr(one), b.hr(other))
        ideal = downscale(np.array(a.hr(one)), 2).astype(float)
        damage.append(np.abs(ideal - a.lr(one)).mean())
        # Even ruined by a low bit rate, LR shows the place that HR shows rather than one some pixels beside it.
        beside = min(np.abs(np.roll(ideal, shift, axis) - a.lr(one)).mean() for shift in (-2, 2) for axis in (0, 1))
        assert damage[-1] < beside
    assert max(damage) > 1
