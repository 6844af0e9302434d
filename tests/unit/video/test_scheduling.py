"""Encoders do not change how the process is scheduled."""

from __future__ import annotations

import os
import sys
import threading
from fractions import Fraction
from pathlib import Path

import av
import pytest

from repsr_cli.video.colour_tags import ColourTags
from repsr_cli.video.encode import open_encoder
from repsr_cli.video.encoders import Encoding
from repsr_cli.video.roundtrip import through_codec
from repsr_cli.video.scheduling import usual_scheduling
from tests.conftest import textured

USUAL = os.sched_getscheduler(0) if sys.platform == "linux" else None
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux is where encoders take real-time priority")
SVT = Encoding("libsvtav1", "yuv420p", 128, 128, Fraction(1, 25), Fraction(25), None, ColourTags(1, 1, 1, 1, None))


def policies() -> set[int | None]:
    return {os.sched_getscheduler(int(task.name)) for task in Path("/proc/self/task").iterdir()}


def real_time() -> None:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


def test_no_thread_of_svt_av1_runs_in_real_time() -> None:
    encoder = open_encoder(SVT)
    assert policies() == {USUAL}
    assert encoder.is_open


def test_no_thread_runs_in_real_time_after_a_round_trip() -> None:
    planes = tuple(textured(size, size)[..., 0] for size in (128, 64, 64))
    through_codec([planes] * 2, "yuv420p", "libsvtav1", {"preset": "12"})
    assert policies() == {USUAL}


def test_this_thread_and_those_that_begin_get_what_this_thread_had() -> None:
    done = threading.Event()
    other = threading.Thread(target=done.wait)
    try:
        with usual_scheduling():
            try:
                real_time()
            except PermissionError:
                pytest.skip("real-time scheduling needs root")
            other.start()
        assert policies() == {USUAL}
    finally:
        done.set()
    other.join()


def test_a_thread_that_was_scheduled_otherwise_before_stays_so() -> None:
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        real_time()
    except PermissionError:
        pytest.skip("real-time scheduling needs root")
    try:
        open_encoder(SVT)
        assert os.sched_getscheduler(0) == os.SCHED_FIFO
        assert os.sched_getparam(0).sched_priority == 1
    finally:
        os.sched_setscheduler(0, *before)


def test_the_encoder_itself_would_change_it() -> None:
    if os.geteuid():
        pytest.skip("SVT-AV1 takes real-time priority only where it is run by root")
    plain = av.CodecContext.create("libsvtav1", "w")
    assert isinstance(plain, av.VideoCodecContext)
    plain.width, plain.height, plain.pix_fmt, plain.time_base = 128, 128, "yuv420p", Fraction(1, 25)
    with usual_scheduling():
        plain.open()
        changed = os.SCHED_FIFO in policies()
    if not changed:
        pytest.skip("this SVT-AV1 leaves scheduling alone")
    assert policies() == {USUAL}
