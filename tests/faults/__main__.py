"""Inject faults into commands and print what was wrong.

    python -m tests.faults [--trials 1500] [--seed 0] [--jobs 2] [--only KIND] [--command NAME] [--log FILE]
    python -m tests.faults --command "video .mp4" --only errno --what "unlink: EIO" --verbose
    python -m tests.faults --command train --only kill --trials 20

Every trial runs one command line in a folder of its own while one thing goes wrong: a file operation fails, transfers
less than asked for or is the last before SIGKILL; names are taken or are hostile links; streams are closed or full;
limits are low; the files of an interrupted run are damaged. The trial then checks the exit code, the outputs and all
other files, and runs the same command again without the fault. The trials of a seed are always the same. The exit code
is 1 if anything was wrong. Needs Linux and gcc.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from tests.faults import shim
from tests.faults.parallel import apart, side_by_side, start_again


def main() -> None:
    """Parse, load the injector by starting again, run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1500)
    parser.add_argument("--first", type=int, default=0, help="leave out so many trials, which ran before")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", action="append", default=[], help="a kind; repeatable")
    parser.add_argument(
        "--command", action="append", default=[], help="a command by its name, or by a part; repeatable"
    )
    parser.add_argument("--what", default="", help="a part of what goes wrong")
    parser.add_argument("--detail", default="", help="a part of its detail, such as write#3")
    parser.add_argument("--log", type=Path, help="JSON lines, one per trial")
    parser.add_argument("--again", type=Path, help="a log of this seed: only the trials in it that went wrong")
    parser.add_argument("--list", action="store_true", help="say how many trials there are of each kind, and stop")
    parser.add_argument("--verbose", action="store_true", help="print each trial that goes wrong")
    words = parser.parse_args()
    if why := shim.unavailable():
        sys.stdout.write(f"0 of {words.trials} trials: {why}\n")
        return
    if "LD_PRELOAD" not in os.environ:
        start_again("tests.faults")
    sys.exit(run(words))


def run(words: argparse.Namespace) -> int:
    """Prepare, draw the trials, run them; returns the exit code."""
    from tests.faults.bench import Bench
    from tests.faults.child import warm_up
    from tests.faults.commands import COMMANDS
    from tests.faults.draw import draw

    began = time.perf_counter()
    os.environ.pop("LD_PRELOAD")
    warm_up()
    bench = Bench(Path(os.environ["REPSR_FAULTS_FOLDER"]), shim.Shim())
    names = {each.name for each in COMMANDS}
    exact = set(words.command) & names
    parts = [part for part in words.command if part not in names]
    commands = [
        each for each in COMMANDS if not words.command or each.name in exact or any(part in each.name for part in parts)
    ]
    wrong = wrong_in(words.again) if words.again else None
    if wrong is not None:
        commands = [each for each in commands if each.name in {command for _, command, *_ in wrong}]
        words.trials = 1_000_000
    apart(lambda: prepare(bench, commands))
    known = frozenset(sys.modules)
    first = side_by_side(words.jobs, bench, commands, lambda bench, command: bench.observe(command, known))
    seen = {each["name"]: each["result"] for each in first}
    warm_up(name for observation in seen.values() for name in observation.modules)
    both = [command for command in commands if command.name in seen]
    second = side_by_side(words.jobs, bench, both, lambda bench, command: bench.refer(command, seen[command.name]))
    bench.references.update((each["name"], each["result"]) for each in second)
    missing = [each.name for each in commands if each.name not in bench.references]
    if missing:
        sys.stderr.write(f"without reference, and left out: {', '.join(missing)}\n")
    commands = [each for each in commands if each.name not in missing]
    apart(lambda: break_off(bench, commands))
    trials = draw(bench, commands, words)[words.first :]
    if wrong is not None:
        trials = [each for each in trials if (each.kind, each.command, each.what, each.detail) in wrong]
    if words.list:
        for kind, count in Counter(trial.kind for trial in trials).items():
            sys.stdout.write(f"{count:6} {kind}\n")
        return 0
    log = words.log.open("w") if words.log else None
    results = []
    for record in side_by_side(words.jobs, bench, trials, one_trial):
        results.append(record["result"])
        if log:
            log.write(json.dumps(record["result"]) + "\n")
            log.flush()
        if words.verbose and record["result"]["found"]:
            sys.stdout.write(json.dumps(record["result"]) + "\n")
    sys.stdout.write(table(results, words, time.perf_counter() - began) + "\n")
    return int(bool(missing) or any(record["found"] for record in results))


def wrong_in(log: Path) -> set[tuple[str, ...]]:
    """What identifies the trials of a log that went wrong."""
    records = [json.loads(line) for line in log.read_text().splitlines()]
    return {tuple(each[key] for key in ("kind", "command", "what", "detail")) for each in records if each["found"]}


def prepare(bench: Any, commands: list[Any]) -> None:
    """Make the inputs of commands."""
    from tests.faults.commands import COMMANDS, trained

    if any(command.make is trained for command in commands):
        bench.train(next(command for command in COMMANDS if command.name == "train"))
    for command in commands:
        bench.template(command)


def break_off(bench: Any, commands: list[Any]) -> None:
    """Leave interrupted runs to be damaged."""
    from tests.faults.commands import OTHER, SEGMENTS

    for command in commands:
        if command.name in (SEGMENTS, "train"):
            counts = bench.references[command.name].counts
            bench.broken_off(command, counts)
            if command.name == SEGMENTS:
                bench.broken_off(OTHER, counts)


def one_trial(bench: Any, trial: Any) -> dict[str, Any]:
    """Run a trial; returns its record."""
    outcome, found, came = trial.run(bench)
    return {
        "kind": trial.kind,
        "command": trial.command,
        "what": trial.what,
        "detail": trial.detail,
        "end": outcome.end,
        "came": came,
        "found": found,
        "seconds": round(outcome.seconds, 2),
        "stderr": outcome.stderr[-600:] if found else "",
    }


def table(results: list[dict[str, Any]], words: argparse.Namespace, seconds: float) -> str:
    """What was tried, and what was wrong, as Markdown."""
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    for record in results:
        kind = rows[record["kind"]]
        kind["trials"] += 1
        kind["came"] += record["came"]
        kind["wrong"] += bool(record["found"])
        kind[f"end {record['end']}"] += 1
    wrong = sum(bool(record["found"]) for record in results)
    lines = [f"{len(results)} trials, {wrong} wrong, {seconds:.0f} s (seed {words.seed}).", ""]
    lines += ["| kind | trials | fault came | wrong | how commands ended |", "|---|---|---|---|---|"]
    for name, found in rows.items():
        ends = ", ".join(f"{how[4:]} ({count})" for how, count in found.most_common() if how.startswith("end "))
        lines.append(f"| {name} | {found['trials']} | {found['came']} | {found['wrong']} | {ends} |")
    classes: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in results:
        for each in record["found"]:
            classes[each].append(record)
    if classes:
        lines += ["", "| what was wrong | times | for example |", "|---|---|---|"]
    for each, records in sorted(classes.items(), key=lambda item: -len(item[1])):
        first = records[0]
        example = f"{first['command']}: {first['kind']}, {first['what']} {first['detail']}"
        lines.append(f"| {each} | {len(records)} | {example} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
