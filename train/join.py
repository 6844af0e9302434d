"""Join packed files of one scale into one, such as those of several mixes or teachers.

    python train/join.py detail-x4.pack soft-x4.pack -o both-x4.pack

Images that are held out for validation are taken from the first file alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from repsr_cli.errors import RecipeError
from repsr_cli.training.dataset import Pack, Pair, write_pack


def pairs_of(packs: Sequence[Pack], names: Sequence[str]) -> Iterator[Pair]:
    """The pairs of all packed files, each named after the file it comes from."""
    for number, (pack, name) in enumerate(zip(packs, names, strict=True)):
        for entry in pack.images:
            if entry.held_out and number:
                continue
            teacher = pack.teacher(entry) if entry.teacher else None
            yield Pair(f"{name}/{entry.name}", entry.group, pack.hr(entry), pack.lr(entry), entry.held_out, teacher)


def main(words: Sequence[str] | None = None) -> None:
    """Read the packed files, write the one; ``words`` are those of the command line unless given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packs", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args(words)
    packs = [Pack(path) for path in arguments.packs]
    for pack, path in zip(packs, arguments.packs, strict=True):
        if pack.scale != packs[0].scale or pack.images[0].teacher != packs[0].images[0].teacher:
            raise RecipeError(path, "has another scale than the first, or a teacher where that has none")
    write_pack(arguments.output, packs[0].scale, pairs_of(packs, [path.stem for path in arguments.packs]))


if __name__ == "__main__":
    main()
