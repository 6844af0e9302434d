"""What can go wrong, kind by kind: each makes trials for every command that it concerns."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tests.faults.bench import PRECIOUS, Bench, Case, Disturbance
from tests.faults.child import Outcome, Setting
from tests.faults.commands import Command

ERRORS: dict[str, tuple[int, ...]] = {
    "open": (errno.EACCES, errno.EIO, errno.EMFILE),
    "create": (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO, errno.EMFILE),
    "read": (errno.EIO,),
    "write": (errno.ENOSPC, errno.EIO, errno.EDQUOT),
    "fsync": (errno.EIO, errno.ENOSPC, errno.EROFS),
    "link": (errno.EIO, errno.ENOSPC, errno.EACCES, errno.EPERM),
    "rename": (errno.EIO, errno.EROFS, errno.EACCES, errno.ENOSPC, errno.ENOSYS),
    "unlink": (errno.EIO, errno.EROFS, errno.EACCES),
    "mkdir": (errno.ENOSPC, errno.EROFS, errno.EACCES),
    "list": (errno.EIO, errno.EACCES),
    "close": (errno.EIO, errno.ENOSPC),
    "truncate": (errno.EIO, errno.ENOSPC),
    "chmod": (errno.EPERM, errno.EROFS),
    "lock": (errno.ENOLCK, errno.EIO),
    "stat": (errno.EIO, errno.EACCES),
    "thread": (errno.EAGAIN,),
}
# Where a run is killed, sent a signal, or meddled with.
PLACES = ("create", "write", "fsync", "link", "rename", "unlink", "mkdir")
# Of so many operations of a kind, this many are tried.
SAMPLE = 6


@dataclass(frozen=True, slots=True)
class Trial:
    """One thing that goes wrong with one command.

    Attributes:
        what: what it is, without what changes from trial to trial.
        detail: that.
        run: does it; how the command ended, what is wrong, whether the disturbance came.
        weight: the chance to be drawn.
    """

    kind: str
    command: str
    what: str
    detail: str
    run: Callable[[Bench], tuple[Outcome, list[str], bool]]
    weight: float = 1.0


def make(kind: str, command: Command, what: str, disturbance: Disturbance, case: Case) -> Trial:
    """A trial of the usual form."""
    detail = f"{disturbance.operation}#{disturbance.nth}" if disturbance.operation else ""
    weight = command.weight
    return Trial(kind, command.name, what, detail, lambda bench: bench.trial(command, disturbance, case), weight)


def some(count: int, chance: random.Random, size: int = SAMPLE) -> list[int]:
    """Numbers from 1 to ``count``: first and last, and some between."""
    if count <= size:
        return list(range(1, count + 1))
    return sorted({1, count, *chance.sample(range(2, count), size - 2)})


def errors(bench: Bench, chance: random.Random, commands: list[Command]) -> Iterator[Trial]:
    """An operation fails once, or from then on."""
    for command in commands:
        for operation, numbers in ERRORS.items():
            for nth in some(bench.references[command.name].counts[operation], chance):
                for number in numbers:
                    for sticky in (False, True):
                        disturbance = Disturbance(operation, nth, "errno", number, sticky)
                        what = f"{operation}: {errno.errorcode[number]}{', lasting' if sticky else ''}"
                        old = bool(command.replace) and chance.random() < 0.3
                        # An encoder with fewer threads gives other packets.
                        case = Case(loose=operation == "thread")
                        if old:
                            case = replace(case, extra=command.replace, old=True)
                        yield make("errno", command, what + (", -y" if old else ""), disturbance, case)


def short(bench: Bench, chance: random.Random, commands: list[Command]) -> Iterator[Trial]:
    """Less is read or written than was asked for, once or always."""
    for command in commands:
        for operation in ("read", "write"):
            for nth in some(bench.references[command.name].counts[operation], chance):
                for sticky in (False, True):
                    disturbance = Disturbance(operation, nth, "short", 0, sticky)
                    yield make("short", command, f"{operation}: half{', each' if sticky else ''}", disturbance, Case())


def kills(bench: Bench, chance: random.Random, commands: list[Command]) -> Iterator[Trial]:
    """SIGKILL just before or just after an operation."""
    for command in commands:
        for operation in PLACES:
            for nth in some(bench.references[command.name].counts[operation], chance):
                for action in ("kill", "kill after"):
                    case = Case(signals=frozenset({signal.SIGKILL}))
                    old = bool(command.replace) and chance.random() < 0.3
                    if old:
                        case = replace(case, extra=command.replace, old=True)
                    disturbance = Disturbance(operation, nth, action)
                    yield make("kill", command, f"{action} {operation}{', -y' if old else ''}", disturbance, case)


def signals(bench: Bench, chance: random.Random, commands: list[Command]) -> Iterator[Trial]:
    """A signal at an operation."""
    for command in commands:
        for operation in PLACES:
            for nth in some(bench.references[command.name].counts[operation], chance, 3):
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    setting = Setting(stopped=lambda process, number=number: os.kill(process, number))  # type: ignore[misc]
                    case = Case(setting=setting, signals=frozenset({number}))
                    yield make("signal", command, f"{number.name} at {operation}", Disturbance(operation, nth, "stop"),
                               case)  # fmt: skip


PLANTS = (
    "file",
    "link to a file",
    "link to a folder",
    "dangling link",
    "link to itself",
    "folder",
    "fifo",
    "hard link",
)


def plant(path: Path, what: str, folder: Path) -> None:
    """Put something at a name; nothing happens if the name is taken."""
    if os.path.lexists(path) or not path.parent.is_dir():
        return
    others = folder / "others"
    if what == "file":
        path.write_bytes(PRECIOUS)
    elif what == "folder":
        path.mkdir()
        (path / "thesis.txt").write_bytes(PRECIOUS)
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "hard link":
        path.hardlink_to(others / "thesis.txt")
    else:
        goals = {"link to a file": others / "thesis.txt", "link to a folder": others, "dangling link": others / "new"}
        path.symlink_to(goals.get(what, path))


def unplant(path: Path) -> None:
    """Remove what ``plant`` put at a name."""
    if path.is_symlink() or path.is_file() or path.is_fifo():
        path.unlink()
    elif path.is_dir() and (path / "thesis.txt").exists():
        (path / "thesis.txt").unlink()
        path.rmdir()


def appears(bench: Bench, chance: random.Random, commands: list[Command]) -> Iterator[Trial]:
    """Something takes the target's name while the command runs; without -y."""
    for command in commands:
        for operation in ("open", *PLACES):
            for nth in some(bench.references[command.name].counts[operation], chance, 4):
                if command.outputs and not command.again:
                    yield _appearing(command, operation, nth, chance.choice(PLANTS))


def _appearing(command: Command, operation: str, nth: int, what: str) -> Trial:
    name = command.outputs[0]

    def run(bench: Bench) -> tuple[Outcome, list[str], bool]:
        planted: list[tuple[str, int, int]] = []

        def stopped(process: int) -> None:
            folder = Path(f"/proc/{process}/cwd").readlink()
            path = folder / name
            if not os.path.lexists(path) and path.parent.is_dir():
                plant(path, what, folder)
                planted.append((os.fspath(path), path.lstat().st_ino, path.lstat().st_mode))

        lost: list[str] = []

        def look(folder: Path) -> None:
            for path, inode, mode in planted:
                there = Path(path)
                if not os.path.lexists(there) or (there.lstat().st_ino, there.lstat().st_mode) != (inode, mode):
                    lost.append(f"replaced what took the name {name} without -y")
                elif what in ("file", "hard link") and there.read_bytes() != PRECIOUS:
                    lost.append(f"wrote into what took the name {name}")
                else:
                    unplant(there)

        case = Case(setting=Setting(stopped=stopped), restore=look, mine=frozenset({name}),
                    excused=frozenset({f"{name}/thesis.txt"}))  # fmt: skip
        outcome, found, came = bench.trial(command, Disturbance(operation, nth, "stop"), case)
        if what in ("folder", "link to a folder"):  # early enough, it is as if a folder was given by -o
            harmless = ("exit 0, but", "left behind: others/", f"left behind: {name}/")
            found = [each for each in found if not each.startswith(harmless)]
        elif outcome.code == 0 and planted:  # the target was replaced, or another name was found for the output
            found.append(f"exit 0 though something took the name {name}")
        return outcome, found + lost, came and bool(planted)

    return Trial("appears", command.name, f"{what} at {operation}", f"{operation}#{nth}", run, command.weight)


def vanishes(bench: Bench, chance: random.Random, commands: list[Command]) -> Iterator[Trial]:
    """The folder of the target is moved away while the command runs."""
    for command in commands:
        for operation in PLACES:
            for nth in some(bench.references[command.name].counts[operation], chance, 3):
                if command.outputs:
                    yield _vanishing(command, Disturbance(operation, nth, "stop"))


def _vanishing(command: Command, disturbance: Disturbance) -> Trial:
    case = Case(
        setting=Setting(stopped=_move_away),
        restore=_put_back,
        mine=frozenset({"out", "out/"}),
        excused=frozenset({"*"}),
    )
    trial = make("vanish", command, f"target folder gone at {disturbance.operation}", disturbance, case)

    def run(bench: Bench) -> tuple[Outcome, list[str], bool]:
        outcome, found, came = trial.run(bench)
        if disturbance.operation in ("fsync", "unlink"):  # the output was there already, and went with its folder
            found = [each for each in found if "is missing" not in each]
        return outcome, found, came

    return replace(trial, run=run)


def _move_away(process: int) -> None:
    out = Path(f"/proc/{process}/cwd").readlink() / "out"
    if out.is_dir():
        out.rename(out.with_name("gone"))


def _put_back(folder: Path) -> None:
    if (folder / "gone").is_dir() and not (folder / "out").exists():
        (folder / "gone").rename(folder / "out")


def links(bench: Bench, chance: random.Random, commands: list[Command]) -> Iterator[Trial]:
    """What a command is going to create is there already, and leads elsewhere."""
    for command in commands:
        names = [name for name in bench.references[command.name].created if name not in command.outputs]
        for name in [*command.outputs[:1], *names[:12]]:
            for what in PLANTS:
                for foreign in (False, True):
                    if foreign and name in command.outputs:
                        continue
                    yield _planted(command, name, what, foreign)
        if command.replace:
            for name in command.outputs[:1]:
                for what in PLANTS:
                    yield _planted(command, name, what, False, command.replace)


def _planted(command: Command, name: str, what: str, foreign: bool, extra: tuple[str, ...] = ()) -> Trial:
    def before(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True, mode=0o777)
        plant(folder / name, what, folder)

    def restore(folder: Path) -> None:
        unplant(folder / name)
        parent = (folder / name).parent
        if parent.name.startswith(".") and parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()

    target = name in command.outputs
    # A file of the user's own in the job's folder, or under a temporary name, may go; a target may not, without -y.
    mine = frozenset({name, str(Path(name).parent), f"{name}/thesis.txt"} if not target or extra else ()) - {"out"}
    if what == "folder":
        mine -= {f"{name}/thesis.txt"}
    case = Case(extra=extra, before=before, restore=restore, mine=mine, excused=_under(name),
                rerun=() if not (target and what == "folder") else None)  # fmt: skip
    shown = "the target" if target else "a temporary name"
    says = f"{what} at {shown}{', of another owner' if foreign else ''}{', -y' if extra else ''}"
    disturbance = Disturbance(foreign=name if foreign else "")
    trial = replace(make("links", command, says, disturbance, case), detail=name)
    named = target or name.endswith("/packs") or any(other.startswith(f"{name}/") for other in command.outputs)
    return _into_folder(trial) if named and what in ("folder", "link to a folder") else trial


def _into_folder(trial: Trial) -> Trial:
    """A folder that has the target's name, or that of packed files, may be written into, as with ``-o FOLDER``."""

    def run(bench: Bench) -> tuple[Outcome, list[str], bool]:
        outcome, found, came = trial.run(bench)
        return outcome, [each for each in found if not each.startswith(("exit 0, but", "left behind: others/"))], came

    return replace(trial, run=run)


def _under(name: str) -> frozenset[str]:
    return frozenset({name, str(Path(name).parent)})


def existing(bench: Bench, chance: random.Random, commands: list[Command]) -> Iterator[Trial]:
    """The output is there already, and without -y."""
    for command in commands:
        for name in command.outputs:
            if command.again:
                continue
            for data in (PRECIOUS, b""):

                def before(folder: Path, name: str = name, data: bytes = data) -> None:
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    (folder / name).write_bytes(data)

                def restore(folder: Path, name: str = name) -> None:
                    (folder / name).unlink()

                case = Case(before=before, restore=restore, refused=True)
                case = replace(case, excused=frozenset(command.outputs))
                yield _existing(command, name, case)


def _existing(command: Command, name: str, case: Case) -> Trial:
    def run(bench: Bench) -> tuple[Outcome, list[str], bool]:
        outcome, found, came = bench.trial(command, Disturbance(), case)
        return outcome, [each for each in found if not each.startswith("partial")], came

    return Trial("existing", command.name, "the output exists", name, run, command.weight)


def streams(bench: Bench, chance: random.Random, commands: list[Command]) -> Iterator[Trial]:
    """stdout and stderr closed, full, or without a reader."""
    states = ("file", "closed", "full", "gone")
    for command in commands:
        for out in states:
            for err in states:
                if out != "file" or err != "file":
                    yield _streaming(command, out, err)


def _streaming(command: Command, out: str, err: str) -> Trial:
    setting = Setting(stdout=out, stderr=err)
    talk = tuple(each for each in command.argv if each != "--quiet") if err != "file" else command.argv
    loud = replace(command, argv=talk)

    def run(bench: Bench) -> tuple[Outcome, list[str], bool]:
        outcome, found, came = bench.trial(loud, Disturbance(), Case(setting=setting))
        frames = command.argv[-1] == "-" or "-o -" in " ".join(command.argv)  # which nobody gets
        files = command.outputs and command.name != "eval"  # whose result is the table on stdout too
        must = out == "file" or (out == "gone" and not frames) or (out == "closed" and files)
        if must and outcome.code not in {0, *command.fails}:
            found.append(f"{outcome.end}, though all was done")
        if not must and outcome.code == 0 and not command.outputs:
            found.append("exit 0 though the output was lost")
        return outcome, found, came

    return Trial("streams", command.name, f"stdout {out}, stderr {err}", "", run, command.weight)


def limits(bench: Bench, chance: random.Random, commands: list[Command]) -> Iterator[Trial]:
    """``ulimit -n``, ``-v``, ``-d``, ``-f``, and ``-u`` by way of threads that cannot be started."""
    for command in commands:
        for _ in range(4):
            for name, number, low, high in (
                ("-n", resource.RLIMIT_NOFILE, 3, 24),
                ("-v", resource.RLIMIT_AS, 1 << 16, 400 << 20),
                ("-d", resource.RLIMIT_DATA, 1 << 16, 160 << 20),
                ("-f", resource.RLIMIT_FSIZE, 1, 20000),
            ):
                value = chance.randrange(low, high)
                # Where memory ends, libraries in C++ and Rust abort, and some do not look.
                ends = {signal.SIGABRT, signal.SIGSEGV} if name in ("-v", "-d") else set()
                case = Case(setting=Setting(prepare=_limiter(number, value)), signals=frozenset(ends))
                trial = make("limits", _talking(command), f"ulimit {name}", Disturbance(), case)
                yield _naming_frames(replace(trial, detail=str(value)))
        for nth in some(bench.references[command.name].counts["thread"], chance):
            case = Case(loose=True)
            yield make("limits", command, "ulimit -u", Disturbance("thread", nth, "errno", errno.EAGAIN, True), case)


def _talking(command: Command) -> Command:
    """A comparison of videos, with what it says about their frames; other commands unchanged."""
    if command.name != "compare videos":
        return command
    return replace(command, argv=tuple(word for word in command.argv if word != "--quiet"))


def _naming_frames(trial: Trial) -> Trial:
    """A comparison shows the frame before where a decoder found no memory for one, and says so."""

    def run(bench: Bench) -> tuple[Outcome, list[str], bool]:
        outcome, found, came = trial.run(bench)
        if trial.command == "compare videos" and "could not be decoded and repeat the one before" in outcome.stderr:
            found = [each for each in found if not each.startswith("exit 0, but")]
        return outcome, found, came

    return replace(trial, run=run)


def _limiter(number: int, value: int) -> Callable[[], None]:
    def prepare() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        held = {resource.RLIMIT_AS: 0, resource.RLIMIT_DATA: 5}.get(number)
        if held is not None:
            fields = Path("/proc/self/statm").read_text().split()
            base = int(fields[held]) * resource.getpagesize()
        resource.setrlimit(number, (value + (base if held is not None else 0),) * 2)

    return prepare


Maker = Callable[[Bench, random.Random, list[Command]], Iterator[Trial]]
KINDS: dict[str, Maker] = {
    "errno": errors,
    "short": short,
    "kill": kills,
    "signal": signals,
    "appears": appears,
    "vanish": vanishes,
    "links": links,
    "existing": existing,
    "streams": streams,
    "limits": limits,
}
