"""Probing videos."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av.logging
import pytest

from repsr_cli.errors import MediaError
from repsr_cli.video import open as video_open
from repsr_cli.video.colour_tags import ColourTags
from repsr_cli.video.probe import is_video, probe
from repsr_cli.video.timeline import scan
from tests.sample_videos import make_video


def test_probe_says_what_is_there(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a b ü [x].mkv", size=(38, 50), sar=Fraction(8, 9), subtitles=["subrip"])
    source = probe(path)
    assert (source.height, source.width, source.codec, source.pix_fmt) == (38, 50, "h264", "yuv420p")
    assert (source.time_base, source.rate, source.sar) == (Fraction(1, 1000), Fraction(25), Fraction(8, 9))
    assert [str(stream) for stream in source.streams][1:] == ["#1 audio aac", "#2 subtitle subrip (eng)"]
    assert source.tags == ColourTags(1, 1, 1, 1, "left")
    assert not source.alpha
    assert not source.flagged_interlaced


def test_a_name_with_a_colon_is_a_file_and_not_an_address(tmp_path: Path) -> None:
    path = make_video(tmp_path / "http:x.mp4", range(2), audio=0)
    assert probe(path).height == 36


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "libx264"), (".webm", "libvpx-vp9")])
def test_frames_beyond_the_limit_are_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, codec: str
) -> None:
    path = make_video(tmp_path / f"large{suffix}", range(2), codec=codec, audio=0)
    monkeypatch.setattr(video_open, "MAX_PIXELS", 36 * 64)
    assert probe(path).height == 36
    monkeypatch.setattr(video_open, "MAX_PIXELS", 36 * 64 - 1)
    with pytest.raises(MediaError, match="of more than 0 million pixels, or damaged"):
        probe(path)


def test_videos_are_told_by_content(tmp_path: Path) -> None:
    video = make_video(tmp_path / "clip.mp4", range(2), audio=0)
    hidden = tmp_path / "video.txt"
    hidden.write_bytes(video.read_bytes())
    text = tmp_path / "text.mp4"
    text.write_text("hello " * 500)
    playlist = tmp_path / "list.m3u8"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{video}\n#EXT-X-ENDLIST\n")
    assert [is_video(path) for path in (video, hidden, text, playlist)] == [True, True, False, False]
    with pytest.raises(MediaError, match="No such file"):
        is_video(tmp_path / "missing.mp4")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
@pytest.mark.parametrize("codec", ["libx265", "libx264"])
def test_no_decoder_runs_threads_while_messages_are_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str
) -> None:
    private = "x265-params" if codec == "libx265" else "x264-params"
    path = make_video(tmp_path / "in.mkv", codec=codec, options={private: "interlace=tff"}, audio=0)
    set_level = av.logging.set_level
    asked: list[list[str]] = []

    def threads() -> dict[str, str]:
        names = {task.name: (task / "comm").read_text() for task in Path("/proc/self/task").iterdir()}
        return {task: name for task, name in names.items() if name.startswith("av:")}

    def checked(level: int | None) -> None:
        if level is not None:
            asked.append([name for task, name in threads().items() if task not in before])
        set_level(level)

    before = threads()  # of decoders that other tests have not let go

    monkeypatch.setattr(av.logging, "set_level", checked)
    monkeypatch.setattr(video_open, "usable_cores", lambda: 4)
    with suppress(MediaError):  # a video of single fields
        scan(probe(path))
    assert asked
    assert not any(asked), asked
