"""cli/: words to options, errors to exit codes, talk to stderr, and help in a moment."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from repsr_cli.cli import app
from repsr_cli.cli.console import Board, Pace, clock, describe, friendly, print_line, remaining, shorten
from repsr_cli.cli.option_groups import grouped
from repsr_cli.errors import Interrupted, MediaError, RepsrError, UsageError
from repsr_cli.options import (
    option,
    parse_box,
    parse_pairs,
    parse_rate,
    parse_scale,
    parse_seconds,
)
from repsr_cli.reporting import Progress
from repsr_cli.upscale.request import GROUPS, Naming, Request, device_names


def run(*arguments: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, **kwargs)


def test_commands_keep_freed_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repsr_cli.engine.memory.keep_freed_memory", lambda: print("kept"))
    assert CliRunner().invoke(app, ["models", "--no-speed"]).stdout.startswith("kept")


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from repsr_cli.cli import app\n"
        "try: app(['--help'])\n"
        "except SystemExit as end: code = end.code\n"
        "heavy = {'torch', 'av', 'cv2', 'PIL', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)\n"
    )
    ours, bare = list[float](), list[float]()
    for _ in range(4):
        # Side by side: what else the machine does slows both.
        for seconds, program in ((ours, code), (bare, "import typer.main, typer.rich_utils")):
            started = time.monotonic()
            result = run("-c", program)
            seconds.append(time.monotonic() - started)
            assert result.returncode == 0, result.stderr
            assert "upscale" in result.stdout or program is not code
    assert min(ours) < 3 * min(bare)


def test_python_dash_m_and_version() -> None:
    from repsr_cli import __version__

    assert run("-m", "repsr_cli", "--version").stdout == f"repsr {__version__}\n"
    assert "Usage: repsr upscale" in run("-m", "repsr_cli", "upscale", "-h").stdout


def test_shell_completion_is_offered() -> None:
    # Typer asks which shell is its parent's; a test may run without any.
    env = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    assert "_REPSR_COMPLETE" in run("-m", "repsr_cli", "--show-completion", "bash", env=env).stdout


@pytest.mark.parametrize("line", ["repsr upscale --output= --sc", "repsr upscale '' --sc"])
def test_shells_may_ask_how_to_go_on_after_an_empty_argument(line: str) -> None:
    env = os.environ | {"_REPSR_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": line}
    done = run("-m", "repsr_cli", env=env)
    assert "--scale" in done.stdout
    assert "is empty" not in done.stderr


def test_a_bug_keeps_its_traceback_and_exits_1() -> None:
    broken = "from repsr_cli.upscale import jobs; jobs.plan_jobs = None; "
    result = run("-c", broken + "from repsr_cli.cli import app; app(['upscale', 'x', '-s', '2'])")
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "TypeError" in result.stderr


@pytest.mark.parametrize("error", RepsrError.__subclasses__())
def test_every_error_has_its_own_exit_code(error: type[RepsrError], capsys: pytest.CaptureFixture[str]) -> None:
    samples = [other.exit_code for other in RepsrError.__subclasses__()]
    assert samples.count(error.exit_code) == 1
    assert error.exit_code not in (0, 1)

    @friendly
    def command() -> None:
        raise error("a [red] b.png", "broke", "Mend it.")

    with pytest.raises(typer.Exit) as caught:
        command()
    assert caught.value.exit_code == error.exit_code
    messages = capsys.readouterr()
    assert messages.err == "error: a [red] b.png: broke. Mend it.\n"
    assert not messages.out


def test_control_c_exits_130(capsys: pytest.CaptureFixture[str]) -> None:
    @friendly
    def command() -> None:
        raise KeyboardInterrupt

    with pytest.raises(typer.Exit) as caught:
        command()
    assert caught.value.exit_code == Interrupted.exit_code == 130
    assert "stopped" in capsys.readouterr().err


def test_size() -> None:
    assert parse_box("--size", "1920x1080") == (1080, 1920)
    for wrong in ("1920", "x", "1920x", "-1x2", "a×b"):
        with pytest.raises(UsageError):
            parse_box("--size", wrong)
    with pytest.raises(UsageError, match="one of the two"):
        Request.of(size=(1, 1), width=1).size.check()


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90.5", 90.5), ("1:30", 90), ("1:02:03.5", 3723.5), ("0", 0)]
)
def test_time(text: str, seconds: float) -> None:
    assert parse_seconds("--start", text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "1:", "::", "1h", "nan"])
def test_no_time(text: str) -> None:
    with pytest.raises(UsageError, match="not a time"):
        parse_seconds("--end", text)


@pytest.mark.parametrize("text", ["4", "4x", "x4", "4X", "×4", " 4 ", "4.0"])
def test_scale(text: str) -> None:
    assert parse_scale("--scale", text) == 4


@pytest.mark.parametrize("text", ["", "x", "four", "4xx", "4x4", "1920x1080", "\x1b[31m"])
def test_no_scale(text: str) -> None:
    with pytest.raises(UsageError, match="not a factor"):
        parse_scale("--scale", text)


def test_rate() -> None:
    assert parse_rate("--fps", "24000/1001") == Fraction(24000, 1001)
    for wrong in ("0", "24/0", "fast", "-1"):
        with pytest.raises(UsageError, match="not a rate"):
            parse_rate("--fps", wrong)


def test_pairs() -> None:
    assert parse_pairs("-e", ["a=1", "b=c=d", "e="]) == {"a": "1", "b": "c=d", "e": ""}
    for wrong in ("a", "=1", ""):
        with pytest.raises(UsageError):
            parse_pairs("-e", [wrong])


def test_device_by_number() -> None:
    known = {None: ("auto",), "-1": ("cpu",), "3": ("cuda:3",), "0,1": ("cuda:0", "cuda:1")}
    assert {gpu: device_names("auto", gpu) for gpu in known} == known
    assert device_names("cpu,cpu", None) == ("cpu", "cpu")
    for device, gpu in (("cpu", "0"), ("auto", "0,"), ("auto", "one")):
        with pytest.raises(UsageError):
            device_names(device, gpu)


def command_line(*arguments: str) -> tuple[Naming, Request]:
    """What a command with the options of ``repsr upscale`` is called with."""
    called: list[tuple[Naming, Request]] = []

    def command(naming: Naming, request: Request) -> None:
        called.append((naming, request))

    app = typer.Typer()
    app.command()(grouped(command))
    app(arguments, standalone_mode=False)
    return called[0]


def test_options_that_are_not_given_have_their_declared_defaults() -> None:
    assert command_line() == (Naming(), Request())


def test_options_reach_their_groups() -> None:
    naming, request = command_line(
        *("-o", "out", "-s", "2", "--fit", "30x20", "-n", "fast", "-g", "0,1", "-x", "--fps", "24", "-y"),
        *("-e", "a=1", "-e", "b=2", "--start", "1:30", "--no-resume", "--limited-range", "--threads", "3"),
    )
    assert naming == Naming(output="out")
    assert request == Request.of(
        scale=2.0,
        fit=(20, 30),
        model="fast",
        gpu="0,1",
        tta=True,
        fps=Fraction(24),
        overwrite=True,
        encoder_options={"a": "1", "b": "2"},
        start=90.0,
        resume=False,
        full_range=False,
        threads=3,
    )
    assert request.model.devices == ("cuda:0", "cuda:1")


def test_the_old_name_of_model_still_works() -> None:
    assert command_line("--network", "fast")[1].model.model == "fast"
    assert "--network" not in CliRunner().invoke(app, ["upscale", "-h"]).stdout


def test_a_new_option_is_declared_in_one_place() -> None:
    @dataclass(frozen=True)
    class Group:
        """Of one option."""

        depth: int | None = option("--depth", minimum=1, help="Depth.", panel="Group")

    called: list[Group] = []

    def command(group: Group) -> None:
        called.append(group)

    # Annotations are looked up by name, where Group is not.
    command.__annotations__["group"] = Group
    app = typer.Typer()
    app.command()(grouped(command))
    app(["--depth", "3"], standalone_mode=False)
    assert called == [Group(3)]


def test_no_option_belongs_to_two_groups() -> None:
    names = [each.name for group in (*GROUPS.values(), Naming) for each in fields(group)]
    assert len(names) == len(set(names))
    with pytest.raises(TypeError, match="no option 'colour'"):
        Request.of(colour="red")


def test_words_about_progress() -> None:
    assert describe(Progress(120, 900, "frame"), 1 / 24) == "120 of 900 frames, 24 fps"
    assert describe(Progress(1, 1, "page"), 5) == "1 of 1 page"
    assert describe(Progress(7, None, "tile"), 5) == "7 tiles"
    assert remaining(Progress(100, 400, "frame"), 0.1) == "30.0 s"
    assert remaining(Progress(0, 400, "frame"), None) == remaining(Progress(5, None, "frame"), 10) == ""
    assert remaining(Progress(401, 400, "frame"), 10) == ""
    assert remaining(Progress(1, 400, "frame"), None) == ""
    assert describe(Progress(1, 400, "frame"), None) == "1 of 400 frames"


def test_neither_warming_up_nor_what_was_done_before_counts_as_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("repsr_cli.cli.console.time.monotonic", lambda: now[0])
    pace = Pace()
    now[0] = 160.0
    assert pace.seconds_each(Progress(501, 900, "frame")) is None
    now[0] = 162.0
    assert pace.seconds_each(Progress(521, 900, "frame")) == pytest.approx(0.1)
    assert [clock(s) for s in (8.31, 250, 7500)] == ["8.3 s", "4 min 10 s", "2 h 05 min"]
    assert shorten("short.mp4", 40) == "short.mp4"
    assert shorten("0123456789", 5) == "01…89"


def test_board_off_a_terminal_prints_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr("repsr_cli.cli.console.time.monotonic", lambda: now[0])
    with Board() as board:
        reporter = board.reporter("[red] a.mp4")
        for frame in range(1, 13):
            now[0] += 1
            reporter.progress(Progress(frame, 20, "frame"))
        reporter.say("hello")
    messages = capsys.readouterr()
    assert messages.err.splitlines() == [
        "[red] a.mp4: 5 of 20 frames, 1 fps, 15.0 s left",
        "[red] a.mp4: 10 of 20 frames, 1 fps, 10.0 s left",
        "hello",
    ]
    assert not messages.out


def test_board_on_a_terminal_draws_bars() -> None:
    screen = io.StringIO()
    board = Board()
    board.console = Console(file=screen, force_terminal=True, width=100, markup=False)
    with board:
        reporter = board.reporter("[red] a.mp4")
        reporter.progress(Progress(5, 20, "frame"))
        time.sleep(0.3)  # bars are drawn eight times a second
        reporter.say("a line above")
        reporter.progress(Progress(20, 20, "frame"))
    assert "[red] a.mp4" in screen.getvalue()
    assert "5 of 20 frames" in screen.getvalue()
    assert "a line above\n" in screen.getvalue()


def test_quiet_board_says_errors_only(capsys: pytest.CaptureFixture[str]) -> None:
    with Board(quiet=True) as board:
        board.reporter("a").say("nothing")
        board.reporter("a").progress(Progress(1, 1, "page"))
        board.say("nothing")
        board.fail(MediaError("a.png", "is torn"))
    assert capsys.readouterr().err == "error: a.png: is torn.\n"


@pytest.mark.parametrize(
    ("encoding", "line", "written"),
    [
        ("utf-8", "写真.png", "写真.png".encode()),
        ("ascii", "写真.png", b"\\u5199\\u771f.png"),
        ("utf-8", b"caf\xe9.png".decode("utf-8", "surrogateescape"), b"caf\xe9.png"),
    ],
)
def test_names_on_stdout(monkeypatch: pytest.MonkeyPatch, encoding: str, line: str, written: bytes) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    print_line(line)
    assert raw.getvalue() == written + b"\n"
