"""The choice of engine and tiles: the fastest wins, it is remembered, and a job keeps its own."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from repsr_cli.diagnostics.bench import VIDEO
from repsr_cli.engine.backends.registry import installed_engines
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import UsageError
from repsr_cli.job_records import identity
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.spec import Spec
from repsr_cli.reporting import Outcome, Progress, Reporter
from repsr_cli.upscale import calibrate, choices
from repsr_cli.upscale import plan_video as planning
from repsr_cli.upscale.calibrate import BUDGETS, Trial, calibrated, measure
from repsr_cli.upscale.choices import Choice, choices_file, keep_choice, kind_of, recall_choices
from repsr_cli.upscale.plan_video import plan_video
from repsr_cli.upscale.request import Request
from repsr_cli.video.timeline import cut
from tests.sample_videos import make_video, video_packets
from tests.upscaling import upscale_video, weight

SIZE = (36, 64)


@pytest.fixture
def upscaler() -> Upscaler:
    torch.manual_seed(1)
    return Upscaler(PlainSR(Spec(2, 4, 1)).eval(), "cpu", threads=1, engine="torch")


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return choices_file()


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A video of five segments of four frames."""
    monkeypatch.setattr(planning, "cut", functools.partial(cut, frames=4))
    return make_video(tmp_path / "in.mp4", range(20), audio=0)


class Timed:
    """Frames that take as long as a table says, by engine and tile, on a clock of their own; exceptions are raised."""

    def __init__(self, table: dict[tuple[str, str], Any]) -> None:
        self.table = table
        self.tried: list[tuple[str, str]] = []
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def __call__(self, variant: Upscaler, *_arguments: object, **_more: object) -> Any:
        key = (variant.engine, variant.tile)
        self.tried.append(key)
        found = self.table.get(key, self.table.get((variant.engine, ""), 0.004))
        if isinstance(found, Exception):
            raise found

        def run() -> None:
            self.now += found

        return SimpleNamespace(engine="torch", sample=lambda _lr, _pixels: (run, 1.0))


def test_everything_installed_is_tried(upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "_SAMPLE", 1e6)
    trials = measure(upscaler, VIDEO, VIDEO, SIZE, pytest.fail)
    assert {trial.choice for trial in trials} == {
        Choice(engine, f"auto:{budget}") for engine in installed_engines() for budget in BUDGETS
    }
    assert [trial.seconds for trial in trials] == sorted(trial.seconds for trial in trials)
    assert all(0 < trial.seconds < 60 for trial in trials)


def test_the_fastest_comes_first(upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch) -> None:
    timed = Timed({("torch", "auto:20000"): 0.001})
    monkeypatch.setattr(calibrate, "TiledFrames", timed)
    monkeypatch.setattr(calibrate, "installed_engines", lambda _precision: ["torch"])
    trials = measure(upscaler, VIDEO, VIDEO, SIZE, pytest.fail, limit=5, clock=timed.clock)
    assert trials[0].choice == Choice("torch", "auto:20000")
    assert [trial.seconds for trial in trials] == pytest.approx([0.001, 0.004, 0.004])  # then the rest is hopeless


def test_a_slow_engine_gets_one_trial_and_one_that_fails_is_named(
    upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = Timed({("slow", ""): 0.05, ("broken", ""): OSError("no such library")})
    messages: list[str] = []
    monkeypatch.setattr(calibrate, "TiledFrames", timed)
    monkeypatch.setattr(calibrate, "installed_engines", lambda _precision: ["torch", "slow", "broken"])
    monkeypatch.setattr(calibrate, "engine_name", lambda word: "torch" if word == "slow" else word)
    monkeypatch.setattr(Upscaler, "variant", lambda _self, engine, tile: SimpleNamespace(engine=engine, tile=tile))
    trials = measure(upscaler, VIDEO, VIDEO, SIZE, messages.append, limit=5, clock=timed.clock)
    assert [trial.choice.engine for trial in trials] == ["torch"] * len(BUDGETS) + ["slow"]
    assert messages == ["broken fails here and is left out: no such library"]


def test_no_trial_begins_when_the_time_is_up(upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "installed_engines", lambda _precision: ["torch"])
    # A trial is two runs of 4 ms: the second begins within 9 ms, the third does not.
    for limit, count in ((0.0, 1), (0.009, 2)):
        timed = Timed({})
        monkeypatch.setattr(calibrate, "TiledFrames", timed)
        assert len(measure(upscaler, VIDEO, VIDEO, SIZE, pytest.fail, limit, timed.clock)) == count
        assert timed.tried == [("torch", f"auto:{budget}") for budget in BUDGETS[:count]]


def test_choices_are_remembered(memory: Path, tmp_path: Path) -> None:
    assert memory == tmp_path / "cache" / "repsr" / "engines.json"
    assert recall_choices(pytest.fail) == {}
    choices = {"one": Choice("torch", "auto:20000"), "two": Choice("ncnn", "auto:80000")}
    for key, choice in choices.items():
        keep_choice(key, choice, pytest.fail)
    assert recall_choices(pytest.fail) == choices
    assert [path.name for path in memory.parent.iterdir()] == ["engines.json"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        '{"one": 1}',
        '{"one": {"engine": "torch"}}',
        '{"one": {"engine": "torch", "tile": "auto:0"}}',
        '{"one": {"engine": "x", "tile": "auto:9"}}',
    ],
)
def test_a_damaged_file_is_said_and_replaced(memory: Path, content: str) -> None:
    memory.parent.mkdir(parents=True)
    memory.write_text(content)
    messages: list[str] = []
    assert recall_choices(messages.append) == {}
    assert len(messages) == 1
    assert "damaged" in messages[0]
    keep_choice("two", Choice("torch", "auto:900"), pytest.fail)
    assert recall_choices(pytest.fail) == {"two": Choice("torch", "auto:900")}


def test_a_folder_that_cannot_be_written_is_no_failure(memory: Path) -> None:
    memory.parent.parent.write_text("a file where the folder should be")
    messages: list[str] = []
    keep_choice("one", Choice("torch", "auto:900"), messages.append)
    assert len(messages) == 1
    assert "cannot be written" in messages[0]


def test_kinds_tell_apart_what_matters(upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch) -> None:
    grey = VIDEO.__class__("grey", True, 8)
    wider = Upscaler(PlainSR(Spec(2, 8, 1)), "cpu", threads=1)
    kinds = [
        kind_of(upscaler, VIDEO, VIDEO, (270, 480)),
        kind_of(upscaler, VIDEO, VIDEO, (540, 960)),
        kind_of(upscaler, grey, grey, (270, 480)),
        kind_of(wider, VIDEO, VIDEO, (270, 480)),
    ]
    assert kind_of(upscaler, VIDEO, VIDEO, (272, 480)) == kinds[0]
    kinds.append(kind_of(upscaler.variant("torch", "auto", "bf16"), VIDEO, VIDEO, (270, 480)))
    monkeypatch.setattr(choices, "processor", lambda: "another")
    kinds.append(kind_of(upscaler, VIDEO, VIDEO, (270, 480)))
    monkeypatch.setattr(choices, "installed_engines", lambda _precision: ["torch", "ncnn"])
    monkeypatch.setattr(choices, "engine_name", lambda word: f"{word} 1")
    kinds.append(kind_of(upscaler, VIDEO, VIDEO, (270, 480)))
    assert len(set(kinds)) == len(kinds)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Choice]:
    """What a calibration finds, one after the other; every video is worth one."""
    found = [Choice("torch", "auto:500"), Choice("torch", "auto:900")]

    def give(*_arguments: object) -> list[Trial]:
        return [Trial(found.pop(0), 0.01, lambda: None, 1.0)]

    monkeypatch.setattr(calibrate, "measure", give)
    monkeypatch.setattr(choices, "WORTH", 0.0)
    return found


def run(source: Path, target: Path, upscaler: Upscaler, reporter: Reporter, **more: Any) -> Outcome:
    return upscale_video(source, target, upscaler, Request.of(preset="ultrafast", **more), reporter)


def interrupted(source: Path, target: Path, upscaler: Upscaler) -> None:
    """A run that is stopped with half of its segments done."""

    def stop(progress: Progress) -> None:
        if progress.done > 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(source, target, upscaler, Reporter(progress=stop))


def test_a_long_video_is_measured_once(
    upscaler: Upscaler, memory: Path, measured: list[Choice], tmp_path: Path
) -> None:
    source = make_video(tmp_path / "in.mp4", range(8), audio=0)
    messages: list[str] = []
    for name in ("one.mp4", "two.mp4"):
        outcome = run(source, tmp_path / name, upscaler, Reporter(say=messages.append))
        assert (outcome.facts["engine"], outcome.facts["tile"]) == ("torch", "auto:500")
        assert "tile auto:500" in outcome.facts["network"]
    assert len(measured) == 1
    assert sum("ways tried in" in line for line in messages) == 1
    assert sum("as measured before" in line for line in messages) == 1
    assert [entry["tile"] for entry in json.loads(memory.read_text()).values()] == ["auto:500"]


@pytest.mark.usefixtures("memory")
def test_where_it_does_not_pay_or_was_not_left_open_nothing_is_measured(
    upscaler: Upscaler, measured: list[Choice], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_video(tmp_path / "in.mp4", range(8), audio=0)

    def chosen(**more: Any) -> Upscaler:
        options = Request.of(**more)
        return calibrated(upscaler, plan_video(source, tmp_path / "out.mp4", options, weight(2)), pytest.fail)

    assert chosen(engine="torch") is upscaler
    assert chosen(tile="64") is upscaler
    assert chosen(width=100) is upscaler
    monkeypatch.setattr(choices, "WORTH", 30.0)
    assert chosen() is upscaler
    assert len(measured) == 2


@pytest.mark.usefixtures("measured")
def test_a_job_that_goes_on_keeps_its_choice(upscaler: Upscaler, memory: Path, tmp_path: Path, source: Path) -> None:
    target = tmp_path / "out.mp4"
    interrupted(source, target, upscaler)
    memory.unlink()  # measured anew it would be another
    outcome = run(source, target, upscaler, Reporter())
    assert outcome.facts["resumed_frames"] > 0
    assert outcome.facts["tile"] == "auto:500"
    run(source, tmp_path / "whole.mp4", upscaler, Reporter(), tile="auto:500")
    assert video_packets(target) == video_packets(tmp_path / "whole.mp4")


@pytest.mark.usefixtures("memory", "measured")
def test_a_job_begun_by_an_engine_that_is_gone_is_refused(upscaler: Upscaler, tmp_path: Path, source: Path) -> None:
    interrupted(source, tmp_path / "out.mp4", upscaler)
    record = tmp_path / ".out.mp4.repsr" / "job.json"
    job = json.loads(record.read_text())["job"] | {"engine": "ncnn 0.1"}
    record.write_text(json.dumps({"job": job, "digest": identity(job)}))
    with pytest.raises(UsageError, match=r"begun with another engine \(was \"ncnn 0.1\".*--no-resume"):
        run(source, tmp_path / "out.mp4", upscaler, Reporter())


@pytest.mark.usefixtures("memory", "measured")
def test_a_job_that_goes_on_keeps_its_precision(upscaler: Upscaler, tmp_path: Path, source: Path) -> None:
    """What ``auto`` meant when it was begun, whatever it means now; and the packets are those of one run."""
    target = tmp_path / "out.mp4"
    half = upscaler.variant("torch", "auto", "bf16")
    interrupted(source, target, half)
    messages: list[str] = []
    outcome = run(source, target, upscaler, Reporter(say=messages.append))
    assert outcome.facts["resumed_frames"] > 0
    assert "bf16" in outcome.facts["network"]
    assert any("goes on in bf16" in line for line in messages)
    # With AMX, the order of bf16's sums depends on the size of the tiles.
    whole = upscaler.variant("torch", "auto:500", "bf16")
    run(source, tmp_path / "whole.mp4", whole, Reporter(), tile="auto:500", engine="torch")
    assert video_packets(target) == video_packets(tmp_path / "whole.mp4")


@pytest.mark.usefixtures("memory", "measured")
def test_a_job_that_goes_on_in_a_precision_that_was_asked_for_is_refused_where_it_had_another(
    upscaler: Upscaler, tmp_path: Path, source: Path
) -> None:
    target = tmp_path / "out.mp4"
    interrupted(source, target, upscaler.variant("torch", "auto", "bf16"))
    with pytest.raises(UsageError, match="begun with another precision"):
        run(source, target, upscaler, Reporter(), precision="fp32")


def test_only_engines_that_support_a_precision_are_tried(upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "_SAMPLE", 1e6)
    half = upscaler.variant("torch", "auto", "bf16")
    engines = {trial.choice.engine for trial in measure(half, VIDEO, VIDEO, SIZE, pytest.fail)}
    assert engines == set(installed_engines("bf16")) <= {"torch", "openvino"}
