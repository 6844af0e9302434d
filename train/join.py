"""Join packed files of one scale into one, such as those of several mixes or teachers.

    python train/join.py dense-x4.pack soft-x4.pack --taught harsh-x4.pack -o three-x4.pack

Images that are held out for validation are taken from the first file alone. In the pairs of a file after ``--taught``,
the teacher's images replace the originals, which is for sources that say too little about their originals.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from repsr_cli.errors import RecipeError
from repsr_cli.training.dataset import Pack, Pair, write_pack


def pairs_of(packs: Sequence[Pack], names: Sequence[str], taught: int) -> Iterator[Pair]:
    """The pairs of all packed files, each named after the file it comes from; the last ``taught`` have no originals."""
    for number, (pack, name) in enumerate(zip(packs, names, strict=True)):
        only_teacher = number >= len(packs) - taught
        for entry in pack.images:
            if entry.held_out and number:
                continue
            teacher = pack.teacher(entry) if entry.teacher else None
            hr = teacher if only_teacher and teacher is not None else pack.hr(entry)
            yield Pair(f"{name}/{entry.name}", entry.group, hr, pack.lr(entry), entry.held_out, teacher)


def main(words: Sequence[str] | None = None) -> None:
    """Read the packed files, write the one; ``words`` are those of the command line unless given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packs", nargs="+", type=Path)
    parser.add_argument("--taught", action="append", default=[], type=Path, metavar="PACK")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args(words)
    paths = [*arguments.packs, *arguments.taught]
    packs = [Pack(path) for path in paths]
    for pack, path in zip(packs, paths, strict=True):
        if pack.scale != packs[0].scale or pack.images[0].teacher != packs[0].images[0].teacher:
            raise RecipeError(path, "has another scale than the first, or a teacher where that has none")
    if arguments.taught and not packs[0].images[0].teacher:
        raise RecipeError(arguments.taught[0], "--taught needs packed files with a teacher")
    pairs = pairs_of(packs, [path.stem for path in paths], len(arguments.taught))
    write_pack(arguments.output, packs[0].scale, pairs)


if __name__ == "__main__":
    main()
