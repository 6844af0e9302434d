"""Threads follow the cores that the process may use, not those that the machine has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from repsr_cli.cores import usable_cores
from repsr_cli.upscale.plan_video import plan_video
from repsr_cli.upscale.request import Request
from repsr_cli.video.open import main_stream, open_video
from tests.sample_videos import make_video


@pytest.fixture
def of_many(monkeypatch: pytest.MonkeyPatch) -> int:
    """A machine of 64 cores, of which this process may use three."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {1, 5, 7}, raising=False)
    return 3


def test_affinity_counts(of_many: int) -> None:
    assert usable_cores() == of_many


def test_decoders_and_encoders_have_as_many_threads_as_there_are_cores(tmp_path: Path, of_many: int) -> None:
    source = make_video(tmp_path / "in.mkv", range(2))
    with open_video(source) as container:
        assert main_stream(container, source).codec_context.thread_count == of_many
    assert plan_video(source, tmp_path / "out.mkv", Request.of(device="cpu")).encoding.threads == of_many
