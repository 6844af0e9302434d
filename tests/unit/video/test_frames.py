"""Frames and their planes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from hypothesis import given, settings
from hypothesis import strategies as st

from repsr_cli.errors import MediaError
from repsr_cli.video import frames as video_frames
from repsr_cli.video.frames import read_planes, side_data
from repsr_cli.video.open import open_video
from repsr_cli.video.planes import new_frame, planar_name, planes_of
from tests.sample_videos import image, make_video


@pytest.mark.parametrize(
    ("name", "planar"),
    [
        ("nv12", "yuv420p"),
        ("p010le", "yuv420p10le"),
        ("yuyv422", "yuv422p"),
        ("rgb24", "gbrp"),
        ("bgra", "gbrp"),
        ("gray16be", "gray16le"),
        ("yuva444p10le", "yuv444p10le"),
        ("yuvj422p", "yuv422p"),
        ("pal8", "gbrp"),
        ("yuv411p", "yuv422p"),
    ],
)
def test_planar_names(name: str, planar: str) -> None:
    assert planar_name(name) == planar


@pytest.mark.parametrize("name", ["gbrpf32le", "bayer_rggb8"])
def test_formats_that_do_not_fit_are_refused(name: str) -> None:
    with pytest.raises(MediaError):
        planar_name(name)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p10le", "yuv444p", "gbrp", "gbrp10le", "gray", "gray10le"])
@given(height=st.integers(1, 20), width=st.integers(1, 70))
@settings(max_examples=15, deadline=None)
def test_planes_go_into_frames_and_come_back(pix_fmt: str, height: int, width: int) -> None:
    planes = image(1, height, width, pix_fmt)
    back = planes_of(new_frame(planes, pix_fmt), pix_fmt)
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(planes, back, strict=True))


@pytest.mark.parametrize("packed", ["nv12", "yuyv422", "rgb24"])
def test_packed_frames_are_read_without_loss(packed: str) -> None:
    planar = planar_name(packed)
    planes = image(0, 16, 32, planar)
    frame = VideoReformatter().reformat(new_frame(planes, planar), format=packed)
    read, _ = read_planes(frame, planar, VideoReformatter())
    assert all(np.array_equal(a, b) for a, b in zip(planes, read, strict=True))


def test_side_data_is_carried_to_a_larger_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_frames, "CARRIED", frozenset({"SEI_UNREGISTERED"}))
    with open_video(make_video(tmp_path / "a.mp4", range(2), audio=0)) as container:
        frame = next(iter(container.decode(video=0)))
        larger = video_frames.carry(frame, VideoReformatter(), 256, 144, "yuv420p")
        assert (larger.width, larger.height, larger.format.name) == (256, 144, "yuv420p")
        assert side_data(larger)["SEI_UNREGISTERED"] == side_data(frame)["SEI_UNREGISTERED"]
        assert not side_data(video_frames.carry(None, VideoReformatter(), 256, 144, "yuv420p"))
