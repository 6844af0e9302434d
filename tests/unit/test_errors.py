from __future__ import annotations

import inspect

from repsr_cli import errors


def test_message_reads_subject_happened_remedy() -> None:
    assert str(errors.MediaError("talk.m4a", "no video stream", "Give a video.")) == (
        "talk.m4a: no video stream. Give a video."
    )
    assert str(errors.UsageError("-s", "is 0")) == "-s: is 0."


def test_exit_codes_are_the_documented_ones() -> None:
    kinds = {
        name: kind.exit_code
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.RepsrError) and kind is not errors.RepsrError
    }
    assert kinds == {
        "UsageError": 2,
        "MediaError": 3,
        "CheckpointError": 4,
        "DeviceError": 5,
        "RecipeError": 6,
        "TrainingDiverged": 7,
        "LearningDidNotWin": 8,
        "Interrupted": 130,
    }


def test_what_the_system_refuses_is_no_bug() -> None:
    named = errors.from_system(PermissionError(13, "Permission denied", "a.png"), "b.png")
    assert (str(named), named and named.exit_code) == (
        "a.png: the system refused it (Permission denied). Check the path, permissions and free space.",
        3,
    )
    assert str(errors.from_system(OSError(5, "Input/output error"), "b.png")).startswith("b.png: the system refused it")
    for error in (MemoryError(), RuntimeError("can't start new thread")):
        found = errors.from_system(error)
        assert found is not None
        assert found.exit_code == 5
    for bug in (RuntimeError("x"), OSError("x"), KeyError(1)):
        assert errors.from_system(bug) is None
