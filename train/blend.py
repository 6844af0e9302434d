"""Blend the network of a run with others of its size and ancestry, weight by weight, into a run of its own.

    python train/blend.py runs/texture/last.pt:0.65 weights/repsr-m16c64-detail-x4.safetensors:0.35 -o runs/blend

The mean of networks that were trained from one ancestor often does better than each of them (arXiv 2203.05482): what
one run invents, another does not. Recipe and log are those of the first run; the shares add up to 1. The new run can be
published (--checkpoint last.pt) and started from, not resumed.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from repsr_cli.errors import RecipeError
from repsr_cli.files import translated_errors, write_text
from repsr_cli.model.blend import blended
from repsr_cli.model.checkpoint import load_plain, load_training, save_training


def parsed_shares(words: Sequence[str]) -> list[tuple[Path, float]]:
    """Files and their shares, from FILE:SHARE.

    Raises:
        RecipeError: a share is missing or not above 0, or they do not add up to 1.
    """
    found = []
    for word in words:
        name, _, share = word.rpartition(":")
        try:
            value = float(share)
        except ValueError:
            value = math.nan
        if not name or not value > 0:
            raise RecipeError(word, "has no share above 0", "Write FILE:SHARE, e.g. runs/a/last.pt:0.6.")
        found.append((Path(name), value))
    if not math.isclose(sum(share for _, share in found), 1, abs_tol=1e-6):
        raise RecipeError("shares", "do not add up to 1", "Write FILE:SHARE with shares that do.")
    return found


def main(words: Sequence[str] | None = None) -> None:
    """Read the networks, write the run; ``words`` are those of the command line unless given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", metavar="FILE:SHARE", help="the first is a checkpoint of a run")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the new run")
    arguments = parser.parse_args(words)
    shares = parsed_shares(arguments.networks)
    first, total = shares[0]
    checkpoint, net = load_training(first), load_plain(first)
    for path, share in shares[1:]:
        total += share
        other = load_plain(path)
        if other.spec != net.spec:
            raise RecipeError(path, f"is {other.spec.name} x{other.spec.scale}, not {net.spec.name} x{net.spec.scale}")
        net = blended(net, other, share / total)
    log = first.with_name("log.jsonl")
    with translated_errors(log, RecipeError):
        text = log.read_text(encoding="utf-8")
    with translated_errors(arguments.output, RecipeError):
        arguments.output.mkdir(parents=True)
    write_text(arguments.output / "log.jsonl", text, overwrite=False, failure=RecipeError)
    save_training(arguments.output / "last.pt", replace(checkpoint, net=net, ema=net, optimizer={}, progress={}))


if __name__ == "__main__":
    main()
