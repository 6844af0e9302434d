from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from repsr_cli.errors import RecipeError
from repsr_cli.training.frame_sampling import (
    HELD_OUT_FRAMES,
    MARGIN,
    TRAINING_FRAMES,
    frames_at,
    held_out_stretches,
    sample_video,
)
from tests.conftest import textured


def write_video(path: Path, seconds: float, cuts: int = 1, height: int = 96, width: int = 128, rate: int = 10) -> None:
    """A video that pans over another texture after every cut, a keyframe at each."""
    frames = int(seconds * rate)
    scenes = [textured(height + frames, width + frames, scene) for scene in range(cuts)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "12", "preset": "veryfast", "g": "1000"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            scene, at = divmod(number, -(-frames // cuts))
            image = scenes[scene][at : at + height, at : at + width]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            if at == 0:
                frame.pict_type = av.video.frame.PictureType.I
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@given(start=st.floats(0, 100), length=st.floats(5, 20000))
def test_stretches_lie_inside_and_leave_most_of_the_video(start: float, length: float) -> None:
    stretches = held_out_stretches(start, start + length)
    assert 1 <= len(stretches) <= 12
    for (a, b), after in zip(stretches, [*stretches[1:], (start + length + 1, 0)], strict=True):
        assert start < a < b <= start + length + 1e-6
        assert b < after[0]
    assert sum(b - a for a, b in stretches) <= 0.21 * length


def test_training_frames_keep_their_distance_and_every_scene_is_met(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", 30, cuts=6)
    sampling = sample_video(tmp_path / "clip.mp4")
    tick = float(sampling.source.time_base)
    assert 0 < len(sampling.training) <= TRAINING_FRAMES
    assert 0 < len(sampling.held_out) <= HELD_OUT_FRAMES
    distances = [abs(a - b) * tick for a in sampling.training for b in sampling.held_out]
    assert min(distances) > MARGIN
    scenes = {int(pts * tick // 5) for pts in sampling.training}
    assert scenes >= {0, 1, 2, 3}


def test_chosen_frames_are_the_right_ones(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", 12, cuts=2)
    sampling = sample_video(tmp_path / "clip.mp4")
    got = list(frames_at(sampling.source, sampling.timeline, sampling.training, 3))
    assert [pts for pts, _ in got] == list(sampling.training)
    tick = float(sampling.source.time_base)
    scenes = [textured(96 + 120, 128 + 120, scene) for scene in range(2)]
    for pts, hr in got[:: len(got) // 4]:
        assert hr.shape == (96, 126, 3)
        scene, at = divmod(round(pts * tick * 10), 60)
        wanted = scenes[scene][at : at + 96, at : at + 126]
        beside = scenes[scene][at + 2 : at + 98, at + 2 : at + 128]
        error = np.abs(hr.astype(float) - wanted).mean()
        assert error < 0.5 * np.abs(hr.astype(float) - beside).mean()


def test_too_short(tmp_path: Path) -> None:
    write_video(tmp_path / "short.mp4", 2)
    with pytest.raises(RecipeError, match="too short"):
        sample_video(tmp_path / "short.mp4")
