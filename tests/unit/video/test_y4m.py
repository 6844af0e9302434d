"""YUV4MPEG2."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction

import pytest

from repsr_cli.video.y4m import is_steady


def test_steady_times() -> None:
    assert is_steady([0, 33, 67, 100, 133, 167, 200], Fraction(1, 1000), Fraction(30))
    assert not is_steady([0, 33, 67, 120, 133, 167, 200], Fraction(1, 1000), Fraction(30))


@pytest.mark.parametrize("content", [b"", b"nonsense"])
def test_other_input_is_named(content: bytes) -> None:
    command = [sys.executable, "-c", "from repsr_cli.video.y4m import open_pipe; open_pipe()"]
    result = subprocess.run(command, input=content, capture_output=True, check=False)
    assert b"standard input: not y4m. Give it YUV4MPEG2, or name a file." in result.stderr
