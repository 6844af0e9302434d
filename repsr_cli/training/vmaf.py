"""Measure clips by VMAF, and by VMAF-NEG, which gives no credit for mere sharpening.

Both are computed by FFmpeg's libvmaf, whose binary comes with PyPI's ``imageio-ffmpeg`` (extra ``perceptual``).
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from repsr_cli.errors import UsageError, shortage
from repsr_cli.video.planes import Planes
from repsr_cli.video.y4m import write_frame

_EXTRA = "Install it: pip install 'repsr[perceptual]'."
_FILTER = (
    "libvmaf=log_fmt=json:log_path=vmaf.json:n_threads=1:"
    "model='version=vmaf_v0.6.1\\:name=vmaf|version=vmaf_v0.6.1neg\\:name=vmaf_neg'"
)


def vmaf(sr: Sequence[Planes], hr: Sequence[Planes]) -> dict[str, float]:
    """VMAF and VMAF-NEG, each the mean over the frames of a clip; 100 where nothing is lost.

    Args:
        sr: frames of the result, 8-bit 4:2:0 planes.
        hr: frames of the original, of the same number and size.

    Returns:
        ``vmaf`` and ``vmaf_neg``.

    Raises:
        UsageError: FFmpeg with libvmaf is not installed.
    """
    try:
        from imageio_ffmpeg import get_ffmpeg_exe
    except ImportError as error:
        raise shortage(error) or UsageError("VMAF", "the package imageio-ffmpeg is not installed", _EXTRA) from error
    with tempfile.TemporaryDirectory(prefix="repsr-") as folder:
        for name, frames in (("sr.y4m", sr), ("hr.y4m", hr)):
            _write(Path(folder) / name, frames)
        command = [get_ffmpeg_exe(), "-v", "error", "-nostdin", "-i", "sr.y4m", "-i", "hr.y4m"]
        command += ["-lavfi", _FILTER, "-f", "null", "-"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
        if done.returncode:
            raise UsageError("VMAF", f"FFmpeg failed: {done.stderr.strip()[-200:]}", _EXTRA)
        means = json.loads((Path(folder) / "vmaf.json").read_text())["pooled_metrics"]
    return {name: float(means[name]["mean"]) for name in ("vmaf", "vmaf_neg")}


def _write(path: Path, frames: Sequence[Planes]) -> None:
    height, width = frames[0][0].shape
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F25:1 Ip A1:1 C420mpeg2\n".encode())
        for planes in frames:
            write_frame(file, planes)
