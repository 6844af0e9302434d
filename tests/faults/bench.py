"""Run a command in a folder of its own with a fault, judge the result, and run it again without the fault."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.faults.child import Outcome, Setting, run
from tests.faults.commands import Command
from tests.faults.oracle import below, content, difference, ending, last_error, made, plausible, snapshot
from tests.faults.shim import OPERATIONS, Shim

PRECIOUS = b"precious\n"


@dataclass(frozen=True, slots=True)
class Observation:
    """One undisturbed run: what it wrote, created, counted and imported."""

    contents: dict[str, str]
    outcome: Outcome
    created: list[str]
    counts: dict[str, int]
    modules: list[str]


@dataclass(frozen=True, slots=True)
class Reference:
    """What an undisturbed run does.

    Attributes:
        contents: of each output.
        counts: file operations by kind.
        created: names that it creates, the same in two runs, in order.
        seconds: how long it takes.
    """

    contents: dict[str, str]
    stdout: bytes | None
    counts: dict[str, int]
    created: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Disturbance:
    """What happens to a run.

    Attributes:
        operation: where; empty for nowhere.
        nth: at which of them, from 1 on.
        action: ``errno``, ``short``, ``kill``, ``kill after`` or ``stop``.
        error: the error number.
        sticky: also at all later ones.
        match: only where the path contains this.
        foreign: paths that contain this belong to somebody else.
    """

    operation: str = ""
    nth: int = 1
    action: str = "count"
    error: int = 0
    sticky: bool = False
    match: str = ""
    foreign: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """One disturbed run and what is expected of it.

    Attributes:
        extra: further arguments.
        before: what is done to the folder before the run.
        restore: what is undone before the command is given again.
        setting: streams, limits, what to do when the run stops.
        signals: by which it may die.
        loose: outputs may be anything that is whole, since the inputs are not those of the reference.
        mine: names that the run may change or remove though they were there; with a slash at the end, all below.
        excused: names that it may leave behind, and all below them; ``*`` for all.
        old: it replaces outputs that exist.
        rerun: further arguments of the run without the fault; None for no such run.
        refused: the only right end is a failure.
        same_stdout: success prints what it prints undisturbed.
    """

    extra: tuple[str, ...] = ()
    before: Callable[[Path], object] = lambda folder: None
    restore: Callable[[Path], object] = lambda folder: None
    setting: Setting = field(default_factory=Setting)
    signals: frozenset[int] = frozenset()
    loose: bool = False
    mine: frozenset[str] = frozenset()
    excused: frozenset[str] = frozenset()
    old: bool = False
    rerun: tuple[str, ...] | None = ()
    refused: bool = False
    same_stdout: bool = True


class Bench:
    """Where trials happen.

    Args:
        root: a folder for templates and trials.
        shim: the injector of this process.
    """

    def __init__(self, root: Path, shim: Shim) -> None:
        self.root, self.shim = root, shim
        self.references: dict[str, Reference] = {}
        self._number = 0

    def template(self, command: Command) -> Path:
        """The folder that trials of a command start from."""
        folder = self.root / "templates" / command.name.replace(" ", "_").replace(",", "")
        if not folder.exists():
            for name in ("in", "out", "others"):
                (folder / name).mkdir(parents=True)
            (folder / "others" / "thesis.txt").write_bytes(PRECIOUS)
            command.make(folder)
        return folder

    def train(self, command: Command) -> None:
        """Make the checkpoint that other commands start from.

        Raises:
            RuntimeError: training fails.
        """
        folder = self.place(command)
        outcome = self.run(command, folder, Disturbance(), Case())
        if outcome.code:
            raise RuntimeError(f"training: {outcome.end}: {outcome.stderr[-2000:]}")
        shutil.copy(folder / "out" / "run" / "best.pt", self.root / "best.pt")
        shutil.rmtree(folder)

    def place(self, command: Command) -> Path:
        """A fresh copy of it."""
        self._number += 1
        folder = self.root / f"trial-{os.getpid()}-{self._number}"
        shutil.copytree(self.template(command), folder, symlinks=True)
        return folder

    def run(self, command: Command, folder: Path, what: Disturbance, case: Case) -> Outcome:
        """The command, disturbed."""
        state = self.shim.clear(folder)
        if what.operation:
            state.op = OPERATIONS.index(what.operation)
        state.action = ("count", "errno", "short", "kill", "kill after", "stop").index(what.action)
        state.nth, state.error, state.sticky = what.nth, what.error, what.sticky
        state.match = os.fsencode(what.match)
        state.foreign, state.foreign_uid = os.fsencode(what.foreign), 54321
        setting = case.setting
        if command.stdin and setting.stdin is None:
            setting = replace(setting, stdin=folder / command.stdin)
        return run([*command.argv, *case.extra], folder, self.shim, setting)

    def observe(self, command: Command, known: frozenset[str] = frozenset()) -> Observation:
        """Run it undisturbed.

        Args:
            command: what to run.
            known: modules that need not be named.

        Raises:
            RuntimeError: that goes wrong.
        """
        folder = self.place(command)
        before = snapshot(folder)
        note = self.root / f"modules-{os.getpid()}"

        def prepare() -> None:
            atexit.register(lambda: note.write_text("\n".join(name for name in sys.modules if name not in known)))

        outcome = self.run(command, folder, Disturbance(), Case(setting=Setting(prepare=prepare)))
        if outcome.code not in {0, *command.fails}:
            raise RuntimeError(f"{command.name}: {outcome.end}: {outcome.stderr[-2000:]}")
        if left := self._left(command, before, snapshot(folder)):
            raise RuntimeError(f"{command.name} leaves {left}")
        contents = {name: content(folder / name) for name in command.outputs}
        kept = self.root / "artifacts" / command.name
        if not kept.exists():
            shutil.copytree(folder / "out", kept)
        names = [name for operation, name in self.shim.log() if operation in ("create", "mkdir")]
        counts = dict(zip(OPERATIONS, self.shim.state.counts, strict=True))
        shutil.rmtree(folder)
        return Observation(contents, outcome, names, counts, note.read_text().splitlines())

    def refer(self, command: Command, first: Observation) -> Reference:
        """Compare two undisturbed runs.

        Raises:
            RuntimeError: something is not that should be.
        """
        second = self.observe(command)
        if command.exact and first.contents != second.contents:
            raise RuntimeError(f"{command.name}: two runs differ")
        both = set(first.created) & set(second.created)
        created = tuple(dict.fromkeys(name for name in second.created if name in both and name.startswith("out/")))
        stdout = second.outcome.stdout if first.outcome.stdout == second.outcome.stdout else None
        return Reference(second.contents, stdout, second.counts, created, second.outcome.seconds)

    def broken_off(self, command: Command, counts: dict[str, int]) -> None:
        """Kill it half-way, and keep what it leaves in ``broken off/NAME``.

        Args:
            command: what is killed.
            counts: its file operations.

        Raises:
            RuntimeError: it leaves nothing.
        """
        operation = max(("link", "rename"), key=counts.__getitem__)
        folder = self.place(command)
        self.run(command, folder, Disturbance(operation, counts[operation] // 2 + 1, "kill after"), Case())
        if not any((folder / "out").iterdir()):
            raise RuntimeError(f"{command.name} leaves nothing when it is killed")
        shutil.copytree(folder / "out", self.root / "broken off" / command.name)
        shutil.rmtree(folder)

    def _left(
        self, command: Command, before: dict[str, tuple[str, str]], after: dict[str, tuple[str, str]]
    ) -> list[str]:
        allowed = {*command.outputs, "cache", *(str(Path(name).parent) for name in command.outputs)} - {"out"}
        # The images are packed once, beside the run.
        whole = {"out/run", "out/packs"} if command.argv[0] == "train" else set()
        allowed |= {name.replace(".param", ".bin").replace(".xml", ".bin") for name in command.outputs}
        return [
            name for name in made(before, after, frozenset({"cache"})) if name not in allowed and not below(name, whole)
        ]

    def trial(self, command: Command, what: Disturbance, case: Case) -> tuple[Outcome, list[str], bool]:
        """Run a command with a fault, then again without it.

        Returns:
            How it ended, what is wrong, and whether the disturbance came.
        """
        folder = self.place(command)
        try:
            if case.old:
                for name in command.outputs:
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    (folder / name).write_bytes(PRECIOUS)
            case.before(folder)
            before = snapshot(folder)
            outcome = self.run(command, folder, what, case)
            state = self.shim.state
            came = bool(state.fired) or what.action == "count"
            found = ending(outcome, case.signals)
            if case.setting.stderr != "file":
                found = [each for each in found if "without a message" not in each]
            if state.connections:
                found.append(f"network: {state.connected_to.decode(errors='replace')}")
            after = snapshot(folder)
            mine = frozenset(case.mine | (set(command.outputs) if case.old else set()))
            found += difference(before, after, mine)
            found += self._outputs(command, folder, outcome, case)
            found += self._leftovers(command, (before, after), outcome, (what, case))
            if outcome.code != 0 and case.rerun is not None:
                case.restore(folder)
                found += self._rerun(command, folder, what, case)
            return outcome, found, came
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _outputs(self, command: Command, folder: Path, outcome: Outcome, case: Case) -> list[str]:
        reference = self.references[command.name]
        found = []
        if outcome.code == 0 and case.refused:
            found.append("exit 0 where only a refusal is right")
        for name in command.outputs:
            path = folder / name
            there = os.path.lexists(path)
            right = self._right(command, name, path, case.loose)
            if outcome.code == 0 and not right and not case.refused:
                found.append(f"exit 0, but {name} is {'wrong' if there else 'missing'}")
            if outcome.code == 0 or not there or right or (case.old and path.read_bytes() == PRECIOUS):
                continue
            if name in case.mine or name in case.excused:
                continue  # planted by the trial
            if command.again and not content(path).startswith(("unreadable", "damaged")):
                continue  # a checkpoint of an earlier step
            found.append(f"partial {name} under its final name")
        known = reference.stdout is not None and case.setting.stdout == "file" and case.same_stdout and not case.extra
        if outcome.code == 0 and known and outcome.stdout != reference.stdout:
            found.append("exit 0, but stdout is different")
        return found

    def _right(self, command: Command, name: str, path: Path, loose: bool = False) -> bool:
        if not path.is_file():
            return False
        if not command.exact:
            return plausible(path)
        if loose:
            return not content(path).startswith(("unreadable", "damaged", "missing"))
        return content(path) == self.references[command.name].contents[name]

    def _leftovers(
        self,
        command: Command,
        states: tuple[dict[str, tuple[str, str]], dict[str, tuple[str, str]]],
        outcome: Outcome,
        trial: tuple[Disturbance, Case],
    ) -> list[str]:
        what, case = trial
        if what.operation in ("unlink", "list", "stat") or case.excused == {"*"}:
            return []
        if what.operation == "open" and what.sticky:  # a folder that cannot be opened cannot be emptied
            return []
        names = [name for name in self._left(command, *states) if not below(name, case.excused)]
        jobs = {f"out/.{Path(name).name}.repsr" for name in command.outputs}
        jobs |= {f"{name}.parts" for name in command.outputs if name.endswith(".pack")}
        if outcome.code != 0 or what.operation in ("open", "close"):  # a folder that cannot be used is not emptied
            names = [name for name in names if not any(name == job or name.startswith(job + "/") for job in jobs)]
        if outcome.code is None or outcome.code < 0:
            names = [name for name in names if "/." not in name]
        return [f"left behind: {', '.join(_general(name) for name in names[:3])}"] if names else []

    def _rerun(self, command: Command, folder: Path, what: Disturbance, case: Case) -> list[str]:
        complete = all(self._right(command, name, folder / name) for name in command.outputs) and command.outputs
        before = snapshot(folder)
        tries: list[Sequence[str]] = [(*case.extra, *(case.rerun or ()))]
        if command.again and (folder / "out" / "run").exists():
            tries.insert(0, (*tries[0], *command.again))
        for extra in tries:
            outcome = self.run(command, folder, Disturbance(), Case(extra=tuple(extra)))
            if outcome.code in {0, *command.fails}:
                break
        if what.sticky and outcome.code == 2 and "--skip-existing" in outcome.stderr:
            # Nothing could be written any more, so neither that a result was finished: its user does as the error says.
            outcome = self.run(command, folder, Disturbance(), Case(extra=(*case.extra, "--skip-existing")))
        found = [f"rerun: {each}" for each in ending(outcome)]
        done_before = complete and not case.old and outcome.code == 2
        if outcome.code not in {0, *command.fails} and not done_before:
            found.append(f"rerun: {outcome.end}: {last_error(outcome.stderr)}")
        if outcome.code == 0 or done_before:
            found += [
                f"rerun: {name} is wrong" for name in command.outputs if not self._right(command, name, folder / name)
            ]
            after = snapshot(folder)
            left = self._left(command, before, after) + [name for name in after if name.endswith(".repsr")]
            left = [name for name in left if not below(name, case.excused) and case.excused != {"*"}]
            if left:
                found.append(f"rerun: left behind: {', '.join(_general(name) for name in left[:3])}")
        return found


def _general(name: str) -> str:
    """A name without what is random in it."""
    head, tail = os.path.split(name)
    return f"{head}/.*" if tail.startswith(".") and not tail.endswith(".repsr") else name
