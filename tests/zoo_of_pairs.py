"""A folder of models with a pair of kinds real and detail, as no shipped one has them yet."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch

from repsr_cli.model.checkpoint import save_plain
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.spec import Spec


def network(seed: int, spec: Spec) -> PlainSR:
    """A small network with weights of its own."""
    torch.manual_seed(seed)
    return PlainSR(spec).eval()


def weights_with_pairs(folder: Path, default_detail: float = 0.5) -> Path:
    """``balanced`` in all three kinds at x2 and x4, ``fast`` in ``clean`` and ``real`` at x2."""
    folder.mkdir()
    index = ""
    names = [(size, kind, scale) for size in ("balanced",) for kind in ("clean", "real", "detail") for scale in (2, 4)]
    for size, kind, scale in [*names, ("fast", "clean", 2), ("fast", "real", 2)]:
        middle = "" if kind == "clean" else f"{kind}-"
        file = folder / f"repsr-{size}-{kind}-x{scale}.safetensors"
        channels = 6 if size == "balanced" else 4
        save_plain(file, network(len(index), Spec(scale, channels, 1)), {})
        entry = {
            "name": f"{size}-{middle}x{scale}",
            "size": size,
            "kind": kind,
            "scale": scale,
            "network": f"M1C{channels}",
            "file": file.name,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
        index += "[[model]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in entry.items())
        index += f"default_detail = {default_detail}\n" if kind == "detail" else ""
        index += "psnr_y = { Set5 = 1.0 }\n\n"
    (folder / "index.toml").write_text(index, encoding="utf-8")
    return folder
