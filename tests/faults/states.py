"""Damaged and hostile files: what interrupted runs leave, names, packs, checkpoints, models, recipes, inputs."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.faults.bench import Bench, Case, Disturbance
from tests.faults.child import Outcome, Setting
from tests.faults.commands import RECIPE, SEGMENTS, Command
from tests.faults.kinds import PLACES, Maker, Trial, make, plant, some, unplant
from tests.fuzz.mutate import mutated

JOB = "out/.v.mp4.repsr"
Change = Callable[[Path, random.Random], object]


def journals(bench: Bench, chance: random.Random, commands: list[Command]) -> Iterator[Trial]:
    """The folder of an interrupted video is damaged."""
    command = next((each for each in commands if each.name == SEGMENTS), None)
    if command is None:
        return
    names = sorted(path.name for path in (bench.root / "broken off" / command.name / Path(JOB).name).iterdir())
    parts = [name for name in names if name.endswith(".segment")] or names
    record = next((name for name in names if name.endswith(".json")), names[0])
    for what, change in _records(bench, record):
        yield _journal(command, f"{record}: {what}", change, chance.random())
    for name in parts:
        for what, change in _parts(name, parts):
            yield _journal(command, f"a segment: {what}", change, chance.random(), name)
    for name in names:
        for what in ("link to a file", "dangling link", "link to itself", "folder", "fifo"):
            yield _journal(command, f"{Path(name).suffix or name}: {what} in its place", _in_place(name, what), 0, name)
    for name in (
        "999999.segment",
        "x.segment",
        "-1.segment",
        "000000 (1).segment",
        ".nfs0001",
        "thesis.txt",
        "folder/",
    ):
        yield _journal(command, f"{name} beside", _beside(name), 0)


def _journal(command: Command, what: str, change: Change, seed: float, detail: str = "") -> Trial:
    def before(folder: Path) -> None:
        shutil.rmtree(folder / "out")
        shutil.copytree(folder.parent / "broken off" / command.name, folder / "out")
        change(folder / JOB, random.Random(seed))

    def restore(folder: Path) -> None:  # as the message asks for where something else is at the place of the lock
        if what.endswith("in its place"):
            unplant(folder / JOB / detail)
        elif what == "folder/ beside" and (folder / JOB / "folder").is_dir():
            (folder / JOB / "folder").rmdir()

    case = Case(before=before, restore=restore, mine=frozenset({JOB, JOB + "/"}), excused=frozenset({JOB}),
                rerun=("--no-resume",))  # fmt: skip
    return replace(make("journal", command, what, Disturbance(), case), detail=detail or f"{seed:.4f}")


def _records(bench: Bench, name: str) -> Iterator[tuple[str, Change]]:
    """Changes of ``job.json``."""
    path = bench.root / "broken off" / SEGMENTS / Path(JOB).name / name
    whole = path.read_bytes()
    texts = {
        "empty": b"", "NULs": bytes(500), "half": whole[: len(whole) // 2], "a list": b"[]", "null": b"null",
        "a string": b'"x"', "a number": b"1", "an empty object": b"{}", "deep": b'{"a":' + b"[" * 100000,
        "5,000 digits": b'{"a":' + b"9" * 5000 + b"}", "not UTF-8": b'{"\xff": 1}', "NaN": b'{"source": NaN}',
        "16 MB of blanks": b" " * (1 << 24) + whole, "twice": whole + whole, "BOM": b"\xef\xbb\xbf" + whole,
        "a lone surrogate": b'{"source": "\\ud800"}', "ESC": b'{"source": "\\u001b[31m"}',
    }  # fmt: skip
    for what, data in texts.items():
        yield what, _written(name, data)
    try:
        keys = list(json.loads(whole))
    except (ValueError, TypeError):
        keys = []
    for key in keys:
        yield f"without {key}", _edited(name, key, None)
        odd: tuple[Any, ...] = (None, -1, 10**30, "x", "\x1b[31m", [], {}, [[[1]]], 1e308, True)
        for value in odd:
            yield f"{key} is odd", _edited(name, key, [value])
    for _ in range(12):
        yield "bits flipped", _flipped(name)


def _written(name: str, data: bytes) -> Change:
    return lambda job, chance: (job / name).write_bytes(data)


def _edited(name: str, key: str, value: list[Any] | None) -> Change:
    def change(job: Path, chance: random.Random) -> None:
        record = json.loads((job / name).read_text())
        if value is None:
            del record[key]
        else:
            record[key] = value[0]
        (job / name).write_text(json.dumps(record))

    return change


def _flipped(name: str, bits: int = 1) -> Change:
    def change(job: Path, chance: random.Random) -> None:
        data = bytearray((job / name).read_bytes())
        for _ in range(bits):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        (job / name).write_bytes(data)

    return change


def _parts(name: str, names: list[str]) -> Iterator[tuple[str, Change]]:
    """Changes of a segment."""
    others = [each for each in names if each != name]

    def cut(to: float) -> Change:
        return lambda job, chance: os.truncate(job / name, int((job / name).stat().st_size * to))

    yield from (("empty", cut(0)), ("half", cut(0.5)), ("nearly whole", cut(0.999)))
    yield "removed", lambda job, chance: (job / name).unlink()
    yield "one byte more", lambda job, chance: _append(job / name)
    for _ in range(6):
        yield "bits flipped", _flipped(name)
    for other in others:

        def swap(job: Path, chance: random.Random, other: str = other) -> None:
            (job / name).rename(job / "swap")
            (job / other).rename(job / name)
            (job / "swap").rename(job / other)

        yield "swapped with another", swap
        yield "another's copy", lambda job, chance, other=other: shutil.copy(job / other, job / name)  # type: ignore[misc]
    yield "of another video", _foreign(name)


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def _foreign(name: str) -> Change:
    def change(job: Path, chance: random.Random) -> None:
        root = job.parents[2]
        shutil.copy(root / "broken off" / "other video" / job.name / name, job / name)

    return change


def _in_place(name: str, what: str) -> Change:
    def change(job: Path, chance: random.Random) -> None:
        (job / name).unlink()
        plant(job / name, what, job.parents[1])

    return change


def _beside(name: str) -> Change:
    def change(job: Path, chance: random.Random) -> None:
        if name.endswith("/"):
            (job / name).mkdir()
        else:
            (job / name).write_bytes(b"precious\n")

    return change


def flips(bench: Bench, chance: random.Random, commands: list[Command]) -> Iterator[Trial]:
    """A bit flips in a finished segment while the video is at work."""
    for command in commands:
        if command.name != SEGMENTS:
            continue
        counts = bench.references[command.name].counts
        for operation in ("open", *PLACES):
            for nth in some(counts[operation], chance, 8):
                case = Case(setting=Setting(stopped=_flipper(chance.random())), rerun=("--no-resume",))
                yield make("flip", command, f"at {operation}", Disturbance(operation, nth, "stop"), case)


def _flipper(seed: float) -> Callable[[int], None]:
    def stopped(process: int) -> None:
        job = Path(f"/proc/{process}/cwd").readlink() / JOB
        chance = random.Random(seed)
        paths = sorted(job.glob("*.segment")) if job.is_dir() else []
        if paths:
            _flipped(chance.choice(paths).name)(job, chance)

    return stopped


def owners(bench: Bench, chance: random.Random, commands: list[Command]) -> Iterator[Trial]:
    """The job's folder belongs to somebody else, whole or empty, or something in it does."""
    for command in commands:
        if command.name != SEGMENTS:
            continue
        for foreign in (JOB, JOB + "/0", JOB + "/job.json", JOB + "/lock"):
            for whole in (True, False):

                def before(folder: Path, whole: bool = whole) -> None:
                    if whole:
                        shutil.rmtree(folder / "out")
                        shutil.copytree(folder.parent / "broken off" / SEGMENTS, folder / "out")
                    else:
                        (folder / JOB).mkdir(mode=0o777)

                case = Case(before=before, mine=frozenset({JOB, JOB + "/"}) if foreign != JOB else frozenset(),
                            refused=foreign == JOB, rerun=None)  # fmt: skip
                what = f"{'a job' if whole else 'an empty folder'} of another owner ({foreign.removeprefix('out/')})"
                yield make("owners", command, what, Disturbance(foreign=foreign), case)


NAMES: tuple[bytes, ...] = (
    b"\xff\xfe",
    b"\x1b[31mred",
    b"\x1b]0;title\x07",
    b"[red]",
    b"[bold red]",
    b"[bold",
    b"two\nlines",
    b"tab\there",
    b" blank ",
    b"-y",
    b"--help",
    b"%06d",
    b"%s%n",
    b"*",
    b"a*?[x]",
    b"{stem}",
    b"$HOME",
    b"`id`",
    b"'\"",
    b"\\",
    b"a:b",
    b"http:",
    b"file:",
    b"pipe:",
    b"concat:x",
    b"@list",
    b"~",
    "\u202egnp".encode(),
    "e\u0301".encode(),
    "\U0001f600".encode(),
    b"\xc3\x28",
    b"z" * 251,
    b"z" * 245,
    b"z" * 236,
    b"CON",
    b"a.png",
    b".hidden",
    b"...",
    b"x.",
    b"\r",
    b"\x7f",
    b"\x9b31m",
    b"&lt;b&gt;<script>",
    b"\xed\xa0\x80",
)
LONG = "z" * 300
ODD_PATHS = {
    "300 letters": LONG,
    "a folder of 300 letters": f"{LONG}/x",
    "below a file": "in/a.png/x",
    "a loop of links": "in/loop/x",
    "nothing": "",
    "ESC": "in/\x1b[31m",
    "a folder that is not there": "in/none/x",
    "locked": "in/locked/x.png",
}


def names(bench: Bench, chance: random.Random, commands: list[Command]) -> Iterator[Trial]:
    """Inputs and outputs with odd names."""
    for command in commands:
        for number, name in enumerate(NAMES):
            yield from _named(command, name, number)
        for place, argv in enumerate(_paths(command)):
            for what, path in ODD_PATHS.items():
                yield _odd_path(command, what, argv(path), place)


def _paths(command: Command) -> list[Callable[[str], tuple[str, ...]]]:
    """Ways to put another path into a command line, one for each path in it."""
    found: list[Callable[[str], tuple[str, ...]]] = []
    for place, word in enumerate(command.argv):
        if word.startswith(("in/", "out/")) or word in ("in", "out", "fast"):

            def argv(path: str, place: int = place, word: str = word) -> tuple[str, ...]:
                suffix = Path(word).suffix if path and not path.endswith(".png") else ""
                return (*command.argv[:place], path + suffix, *command.argv[place + 1 :])

            found.append(argv)
    return found


def _odd_path(command: Command, what: str, argv: tuple[str, ...], place: int) -> Trial:
    def before(folder: Path) -> None:
        (folder / "in" / "loop").symlink_to("loop")
        (folder / "in" / "locked").mkdir()

    other = replace(command, argv=argv)
    case = Case(before=before, rerun=None, loose=True, same_stdout=False, excused=frozenset({"*"}))

    def run(bench: Bench) -> tuple[Outcome, list[str], bool]:
        disturbance = (
            Disturbance("stat", 1, "errno", errno.EACCES, True, "in/locked/") if what == "locked" else Disturbance()
        )
        outcome, found, came = bench.trial(other, disturbance, case)
        return outcome, [each for each in found if "is missing" not in each], came

    return Trial("names", command.name, f"a path is {what}", str(place), run, command.weight)


def _named(command: Command, name: bytes, number: int) -> Iterator[Trial]:
    """The first input has the name; so has the output, or it is in a folder of that name."""
    places = [word for word in command.argv if word.startswith("in/") or word == "in"]
    if not places or "%" in places[0] or b"/" in name:
        return
    old = places[0]
    stem = os.fsdecode(name)
    suffix = Path(old).suffix if Path(old).suffix else ""
    new = f"in/{stem}{suffix}" if old != "in" else "in"
    if len(os.fsencode(f"{stem}{suffix}")) > 255:
        return

    def before(folder: Path) -> None:
        if old == "in":
            (folder / "in" / "a.png").rename(folder / "in" / f"{stem}.png")
        else:
            (folder / old).rename(folder / new)

    argv = tuple(new if word == old else word for word in command.argv if word != "--quiet")
    outs = [word for word in argv if word.startswith("out/")]
    target = f"out/{stem}{Path(outs[0]).suffix}" if outs else ""
    both = tuple(target if outs and word == outs[0] else word for word in argv)
    for line, where in ((argv, "input"), (both, "input and output")) if len(stem) < 240 else ((argv, "input"),):
        yield _odd_name(replace(command, argv=line), where, stem, before, target if where != "input" else "")


def _odd_name(command: Command, where: str, stem: str, before: Callable[[Path], None], target: str) -> Trial:
    quoted = ascii(stem)[:40]
    # What is written about a folder of images names them.
    loose = command.argv[0] in ("eval", "train", "prepare", "finetune") or "--html" in command.argv
    case = Case(before=before, rerun=None, excused=frozenset({"*"}), same_stdout=False, loose=loose)

    def run(bench: Bench) -> tuple[Outcome, list[str], bool]:
        outcome, found, came = bench.trial(command, Disturbance(), case)
        if target or "in" in command.argv:
            found = [each for each in found if "is missing" not in each]
        return outcome, found, came

    return Trial("names", command.name, f"{where} named {quoted}", "", run, command.weight)


def files(bench: Bench, chance: random.Random, commands: list[Command]) -> Iterator[Trial]:
    """Packs, checkpoints, models and inputs, mutated."""
    there = {command.name: command for command in commands}
    for name, path, argv in (
        ("image .png", "in/a.png", ()), ("folder", "in/b.jpg", ()), ("folder", "in/c.webp", ()),
        ("video .mp4", "in/v.mp4", ()), ("video .mkv", "in/v.mkv", ()), ("y4m to file", "in/v.y4m", ()),
        ("compare", "in/b.png", ()), ("compare videos", "in/w.mp4", ()), ("eval", "in/images/photo a.png", ()),
        ("prepare", "in/images/photo b.png", ()), ("train", "in/images/photo c.png", ()), ("frames", "in/002.png", ()),
        ("fuse", "in/best.pt", ()), ("export .onnx", "in/best.pt", ()), ("train", "in/recipe.toml", ()),
        ("train", "in/p.pack", ("--set", "data.train=in/p.pack")),
        ("image .png", "in/f.safetensors", ("-n", "in/f.safetensors")), ("eval", "in/f.safetensors",
                                                                          ("-n", "in/f.safetensors")),
    ):  # fmt: skip
        kept = {"in/p.pack": "prepare", "in/f.safetensors": "fuse"}.get(path, name)
        if name in there and kept in bench.references:
            for _ in range(24):
                yield _mutated(there[name], path, argv, chance.random())


def _mutated(command: Command, path: str, extra: tuple[str, ...], seed: float) -> Trial:
    def before(folder: Path) -> None:
        goal = folder / path
        if not goal.exists():
            kept = {"p.pack": "prepare", "f.safetensors": "fuse"}[goal.name]
            shutil.copy(folder.parent / "artifacts" / kept / goal.name, goal)
        goal.write_bytes(mutated([goal.read_bytes()], random.Random(seed)))

    case = Case(extra=extra, before=before, loose=True, rerun=None, same_stdout=False)

    def run(bench: Bench) -> tuple[Outcome, list[str], bool]:
        outcome, found, came = bench.trial(command, Disturbance(), case)
        return outcome, [each for each in found if not each.startswith("partial")], came

    return Trial("files", command.name, f"{Path(path).name} mutated", str(seed), run, command.weight)


def checkpoints(bench: Bench, chance: random.Random, commands: list[Command]) -> Iterator[Trial]:
    """One bit flips in a checkpoint: it is noticed, or makes no difference."""
    for command in commands:
        if command.name == "train":
            for name in ("last.pt", "best.pt", "log.jsonl"):
                for _ in range(24):
                    yield _resumed(command, name, chance.random())
        if command.name == "fuse":
            for _ in range(24):
                seed = chance.random()
                case = Case(before=lambda folder, seed=seed: _flipped("best.pt")(folder / "in", random.Random(seed)),  # type: ignore[misc]
                            rerun=None)  # fmt: skip
                yield replace(make("checkpoints", command, "best.pt: a bit flipped", Disturbance(), case),
                              detail=str(seed))  # fmt: skip


def _resumed(command: Command, name: str, seed: float) -> Trial:
    def before(folder: Path) -> None:
        shutil.rmtree(folder / "out")
        shutil.copytree(folder.parent / "broken off" / command.name, folder / "out")
        if (folder / "out" / "run" / name).exists():
            _flipped(name)(folder / "out" / "run", random.Random(seed))

    # What is refused stays as it is.
    excused = frozenset({f"out/run/{name}"})
    mine = frozenset({"out/run/", "out/packs/"})
    case = Case(extra=("--resume",), before=before, mine=mine, excused=excused, rerun=None)
    return replace(make("checkpoints", command, f"{name}: a bit flipped", Disturbance(), case), detail=str(seed))


SETTINGS = (
    "loss.luma=nan",
    "loss.luma=inf",
    "loss.luma=1e308",
    "schedule.learning_rate=1e300",
    "schedule.learning_rate=nan",
    "schedule.learning_rate=-1",
    "optimizer.betas=[2.0,3.0]",
    "optimizer.betas=[]",
    'optimizer.name="none"',
    "batch.size=0",
    "batch.size=-1",
    "batch.size=999999999999",
    "batch.patch=0",
    "batch.patch=7",
    "batch.patch=100000",
    "schedule.steps=0",
    "schedule.steps=-5",
    "network.scale=0",
    "network.scale=3",
    "network.scale=99",
    "network.channels=0",
    "network.channels=1000000",
    "network.blocks=0",
    "data.holdout=0",
    "data.holdout=5",
    "data.holdout=500",
    'data.train=""',
    "data.train=1",
    'data.train="in/none"',
    'data.train="in"',
    "data.train=in/a\x1b[31m",
    "validation.every=0",
    "run.threads=0",
    'run.device="\\u001b[31m"',
    "nothing=1",
    "a.b.c=1",
    "=",
    "x",
    "network.scale=" + "9" * 5000,
    "a=" + "[" * 2000,
    "schedule.warmup=100",
    "schedule.bn_freeze=7",
    "run.seed=-1",
    "run.seed=" + "9" * 30,
    "run.checkpoint_every=0",
    "run.log_every=0",
    'network="x"',
    "network.channels=4.5",
    "network.channels=true",
    "batch={}",
    "validation.statistics_batches=0",
    "run={threads=-1}",
)
RECIPES = (
    b"",
    b"\xff\xfe",
    bytes(100),
    b"a=" + b"[" * 2000,
    b"[network]\nscale = " + b"9" * 5000,
    b"[network]\nscale = 2\nscale = 2",
    b"[a.b.c.d]\nx = nan",
    b"\x1b[31m = 1",
    b'"\\u001b[31m" = 1',
    b"[network]\nscale = 1979-05-27",
    b"network = 3",
    b"[[network]]\nscale = 2",
    b"[" * 5000,
    b"a." * 5000 + b"b = 1",
    RECIPE.encode("utf-16"),
    RECIPE.encode("utf-8-sig"),
)


def recipes(bench: Bench, chance: random.Random, commands: list[Command]) -> Iterator[Trial]:
    """Recipes and settings that make no sense."""
    command = next((each for each in commands if each.name == "train"), None)
    if command is None:
        return
    for text in SETTINGS:
        case = Case(extra=("--set", text), loose=True, rerun=None)
        yield make("recipes", command, f"--set {ascii(text)[1:40]}", Disturbance(), case)
    for data in RECIPES:
        case = Case(before=lambda folder, data=data: (folder / "in" / "recipe.toml").write_bytes(data),  # type: ignore[misc]
                    loose=True, rerun=None)  # fmt: skip
        yield make("recipes", command, f"a recipe of {ascii(data)[1:40]}", Disturbance(), case)


STATES: dict[str, Maker] = {
    "journal": journals,
    "flip": flips,
    "owners": owners,
    "names": names,
    "files": files,
    "checkpoints": checkpoints,
    "recipes": recipes,
}
