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
