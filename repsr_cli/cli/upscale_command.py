"""Run ``repsr upscale``: from the arguments to the lines printed on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from repsr_cli.cli.console import Board, clock, friendly, print_json, print_line
from repsr_cli.cli.option_groups import grouped
from repsr_cli.cli.shared_options import Json, Quiet
from repsr_cli.options import option
from repsr_cli.reporting import SILENT, Outcome, Progress
from repsr_cli.upscale.request import FILES, Naming, Request, ignored_options

if TYPE_CHECKING:  # not for --help
    from repsr_cli.upscale.inputs import Failure
    from repsr_cli.upscale.jobs import Job, Plan

OUTPUT = "Output"


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """What is printed."""

    dry_run: bool = option("--dry-run", default=False, help="Print what would be done, and stop.", panel=OUTPUT)
    estimate: bool = option(
        "--estimate", default=False, help="The same, with the time of videos from a short trial.", panel=OUTPUT
    )
    verbose: bool = option("-v", "--verbose", default=False, help="Also what each job measured.", panel=OUTPUT)


@friendly
@grouped
def upscale(
    naming: Naming,
    request: Request,
    report: ReportOptions,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUTS...",
            help="Images, videos, folders, quoted patterns, @list.txt, - for y4m.",
            show_default=False,
        ),
    ] = None,
    more_inputs: Annotated[
        list[str] | None, typer.Option("-i", "--input", help="One more input.", rich_help_panel=FILES)
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Upscale images and videos.

    Writes clip_x4.mp4 beside clip.mp4, with every frame's time, all audio and all subtitles. Nothing is overwritten
    without -y, and an unfinished file never gets the final name. The paths written go to stdout, everything else to
    stderr.

    Example: repsr upscale clip.mp4 photo.png -s 4 -o upscaled/
    """
    from repsr_cli.upscale.batch import describe_jobs, run_jobs, settle_scale
    from repsr_cli.upscale.finished import Finished
    from repsr_cli.upscale.inputs import Failure
    from repsr_cli.upscale.jobs import plan_jobs

    request = settle_scale(request)
    known = Finished.here()
    plan = plan_jobs([*(inputs or []), *(more_inputs or [])], request, naming, known)
    several = len(plan.jobs) + len(plan.failures) > 1
    printer = ResultPrinter(
        Board(quiet), json=json, verbose=report.verbose, benchmark=request.run.benchmark, several=several
    )
    with printer.board as board:
        _announce(plan, request, printer)
        if report.dry_run or report.estimate:
            for job, lines, failure in describe_jobs(plan.jobs, request, measure=report.estimate):
                printer.planned(job, lines, failure)
        else:
            files = len(plan.jobs)
            total = board.reporter("total") if files > 1 else SILENT
            total.progress(Progress(0, files, "file"))
            results = run_jobs(plan.jobs, request, lambda job: board.reporter(job.source.name), known.noting)
            for done, result in enumerate(results, 1):
                printer.failed(result) if isinstance(result, Failure) else printer.done(result)
                total.progress(Progress(done, files, "file"))
    printer.end()


def _announce(plan: Plan, request: Request, printer: ResultPrinter) -> None:
    """Show what is left out of a plan, and which options have no effect on the rest."""
    for note in plan.notes:
        printer.board.say(note)
    for target in plan.skipped:
        printer.skipped(target, "exists")
    for target in plan.finished:
        printer.skipped(target, "done before by the same command")
    for failure in plan.failures:
        printer.failed(failure)
    for kind in dict.fromkeys(job.kind for job in plan.jobs):
        if ignored := ignored_options(kind, request):
            printer.board.say(f"{', '.join(ignored)}: no effect on {kind}s")


class ResultPrinter:
    """Prints what became of each input: records or paths on stdout, everything else on stderr.

    Args:
        benchmark: nothing is written, so that what was measured is the result.
        several: there is more than one input, so that a summary is due.
    """

    def __init__(self, board: Board, *, json: bool, verbose: bool, benchmark: bool, several: bool) -> None:
        self.board = board
        self.json, self.verbose, self.benchmark, self.several = json, verbose, benchmark, several
        self.failures: list[Failure] = []
        self.finished = 0

    def done(self, outcome: Outcome) -> None:
        """One input was upscaled."""
        self.finished += 1
        for note in outcome.notes:
            if note not in outcome.announced:
                self.board.say(f"{outcome.source.name}: {note}")
        if self.verbose or self.benchmark:
            for name, fact in outcome.facts.items():
                self.board.say(f"{outcome.source.name}: {name}: {fact}")
        self.board.say(f"{outcome.source.name}: done in {clock(outcome.seconds)}")
        record = {"status": "done", "source": outcome.source, "target": outcome.target, "seconds": outcome.seconds}
        record |= {"facts": outcome.facts, "notes": outcome.notes}
        if not self.benchmark:
            self._print(outcome.target, record)
        elif self.json:
            print_json(record | {"status": "measured", "target": None})

    def failed(self, failure: Failure, plan: Sequence[str] | None = None) -> None:
        """One input was not upscaled, or would not be: then with what is known of its plan."""
        self.failures.append(failure)
        error = failure.error
        self.board.fail(error)
        record = {"status": "failed", "source": failure.source, "error": str(error), "exit_code": error.exit_code}
        if self.json:
            print_json(record if plan is None else record | {"plan": plan})

    def skipped(self, target: Path, reason: str) -> None:
        """The target exists already."""
        self.board.say(f"{target}: {reason}, skipped")
        if self.json:
            print_json({"status": "skipped", "target": target, "reason": reason})

    def planned(self, job: Job, lines: Sequence[str], failure: Failure | None) -> None:
        """What would be done, and what would stop it."""
        for line in lines:
            self.board.say(f"{job.source.name}: {line}")
        if failure is not None:
            self.failed(failure, lines)
            return
        self.finished += 1
        target = None if self.benchmark else job.target
        record = {"status": "planned", "source": job.source, "target": target, "kind": job.kind, "plan": lines}
        if not self.benchmark:
            self._print(job.target, record)
        elif self.json:
            print_json(record)

    def end(self) -> None:
        """Sum up, and exit with the code of the first failure if there was one."""
        if not self.failures:
            return
        if self.several:
            total = len(self.failures) + self.finished
            self.board.say(f"{len(self.failures)} of {total} failed:")
            for failure in self.failures:
                self.board.say(f"  {failure.source}")
        raise typer.Exit(self.failures[0].error.exit_code)

    def _print(self, target: Path, record: dict[str, Any]) -> None:
        from repsr_cli.upscale.inputs import PIPE

        if target != PIPE:  # then stdout carries the frames
            print_json(record) if self.json else print_line(str(target))
