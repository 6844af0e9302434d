"""How the files of this folder were made: ``python make.py OUT`` with commit 1ae5a04 on PYTHONPATH.

It leaves OUT/images.pack, OUT/half/last.pt (step 9 of 24, before the switch of BN) and OUT/run/last.pt (the same run,
resumed by the same code). The first two are here compressed by xz, the weights of the third in end.safetensors.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from pathlib import Path

import numpy as np
from repsr_cli.pipelines.train import train  # type: ignore[import-untyped,import-not-found,unused-ignore]
from repsr_cli.training.pairs import Pair, write_pack  # type: ignore[import-untyped,import-not-found,unused-ignore]

from repsr_cli.errors import Interrupted
from repsr_cli.training.recipe import recipe_from_dict

SETTINGS = {
    "network": {"scale": 2, "blocks": 1, "channels": 3, "expansion": 1},
    "schedule": {"steps": 24, "bn_freeze": 0.5, "warmup": 4},
    "batch": {"size": 2, "patch": 8},
    "optimizer": {"refresh": 4},
    "loss": {"luma": 0.5},
    "validation": {"every": 6, "statistics_batches": 2},
    "run": {"device": "cpu", "log_every": 4, "checkpoint_every": 4, "seed": 3},
}


def main() -> None:
    out = Path(sys.argv[1])
    out.mkdir()
    random = np.random.default_rng(7)

    def image() -> np.ndarray:
        y, x = np.mgrid[0:32, 0:32] / 32
        a, b = random.uniform(1, 6, 2)
        waves = np.stack([np.sin(a * y + k) * np.cos(b * x - k) for k in range(3)], -1)
        return np.clip(127 + 100 * waves + random.normal(0, 6, waves.shape), 0, 255).astype(np.uint8)

    write_pack(out / "images.pack", 2, (Pair(f"{n}.png", str(n), image()) for n in range(3)))
    recipe = recipe_from_dict({**SETTINGS, "data": {"train": str(out / "images.pack"), "holdout": 1}}, "make.py")
    asked = iter([False] * 8 + [True])
    with contextlib.suppress(Interrupted):
        train(recipe, out / "run", should_stop=lambda: next(asked))
    shutil.copytree(out / "run", out / "half")
    train(recipe, out / "run", resume=True)


if __name__ == "__main__":
    main()
