"""Draw trials by chance, so many of each kind."""

from __future__ import annotations

import argparse
import random

from tests.faults.bench import Bench
from tests.faults.commands import Command
from tests.faults.kinds import KINDS, Trial
from tests.faults.states import STATES

# Of all trials, how many are of a kind, where there are so many.
SHARES = {"errno": 8.0, "kill": 4.0, "short": 1.5, "signal": 1.5, "appears": 2.0, "vanish": 1.0, "links": 3.0,
          "existing": 0.5, "streams": 2.0, "limits": 3.0, "journal": 2.0, "flip": 0.5, "owners": 0.2, "names": 4.0,
          "files": 4.0, "checkpoints": 1.0, "recipes": 1.0}  # fmt: skip


def draw(bench: Bench, commands: list[Command], words: argparse.Namespace) -> list[Trial]:
    """The trials of a seed, in an order that mixes kinds."""
    kinds = {kind: make for kind, make in (KINDS | STATES).items() if not words.only or kind in words.only}
    total = sum(SHARES.get(kind, 1.0) for kind in kinds)
    found = []
    spare = []
    for kind, make in kinds.items():
        trials = []
        for command in commands:  # with a chance of its own, so that its trials are the same without the others
            of_command = make(bench, random.Random(f"{words.seed} {kind} {command.name}"), [command])
            trials += [each for each in of_command if words.what in each.what and words.detail in each.detail]
        chance = random.Random(f"{words.seed} {kind}")
        # Heavier ones come first more often.
        trials.sort(key=lambda trial: chance.random() ** (1 / trial.weight), reverse=True)
        due = round(words.trials * SHARES.get(kind, 1.0) / total)
        found += trials[:due]
        spare += trials[due:]
    chance = random.Random(words.seed)
    chance.shuffle(spare)
    found += spare[: max(0, words.trials - len(found))]
    chance.shuffle(found)
    return found if not words.list else found + spare
