"""What a command says where it may open few files, start no threads, or use little memory."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from repsr_cli.__main__ import main
from repsr_cli.engine.backends.onnx_graph import Graph
from repsr_cli.engine.backends.quiet_import import quiet_import
from repsr_cli.errors import MediaError
from repsr_cli.image.opencv import decode
from repsr_cli.training.run_log import summary_writer
from tests.conftest import ROOT, textured

LIMITED = """
import os, resource, sys
kind, value = getattr(resource, sys.argv[1]), int(sys.argv[2])
resource.setrlimit(kind, (value, value))
os.execv(sys.executable, [sys.executable, "-m", "repsr_cli", *sys.argv[3:]])
"""


class Refusing:
    """A finder that raises as a module of some name is looked for."""

    def __init__(self, name: str, error: Exception) -> None:
        self.name, self.error = name, error

    def find_spec(self, name: str, *_: object) -> None:
        if name == self.name:
            raise self.error


def refuse(monkeypatch: pytest.MonkeyPatch, name: str, error: Exception) -> None:
    for loaded in [each for each in sys.modules if each == name or each.startswith(f"{name}.")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setattr(sys, "meta_path", [Refusing(name, error), *sys.meta_path])


NO_FILES = ImportError("libx.so: cannot open shared object file: Too many open files")


@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("onnx", Graph),
        ("openvino", lambda: quiet_import("openvino")),
        ("torch.utils.tensorboard", summary_writer),
        ("cv2", lambda: decode(Path("a.hdr"))),
    ],
)
def test_a_package_that_could_not_be_opened_is_not_called_missing(
    monkeypatch: pytest.MonkeyPatch, name: str, use: Callable[[], object]
) -> None:
    refuse(monkeypatch, name, NO_FILES)
    with pytest.raises(MediaError, match="no more files can be opened"):
        use()


ENDING = """
import atexit, sys
from repsr_cli.__main__ import main
def fail(): raise {error}("at the end")
atexit.register(fail)
sys.argv = ["repsr", "--version"]
main()
"""


@pytest.mark.parametrize(("error", "lines"), [("MemoryError", 0), ("ValueError", 1)])
def test_python_itself_says_no_more_where_memory_ends(error: str, lines: int) -> None:
    script = [sys.executable, "-c", ENDING.format(error=error)]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.count("Exception ignored") == lines, done.stderr


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, os.strerror(errno.EMFILE), "x.py"), NO_FILES])
def test_what_is_refused_while_the_command_line_is_imported_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    refuse(monkeypatch, "repsr_cli.cli", error)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # which the command replaces
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 3
    written = capsys.readouterr().err
    assert written.startswith("error: ")
    assert written.endswith("no more files can be opened. Raise the limit (ulimit -n).\n")


def test_a_missing_part_of_the_command_line_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, "repsr_cli.cli", ImportError("no such module"))
    with pytest.raises(ImportError, match="no such module"):
        main()


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
@pytest.mark.parametrize(
    ("limit", "value", "ends"),
    [("RLIMIT_NOFILE", 5, {3}), ("RLIMIT_NOFILE", 6, {0, 3}), ("RLIMIT_AS", 400 << 20, {5})],
)
def test_a_command_under_a_limit_ends_with_a_message(tmp_path: Path, limit: str, value: int, ends: set[int]) -> None:
    Image.fromarray(textured(14, 18)).save(tmp_path / "a.png")
    argv = ["upscale", "a.png", "-o", "b.png", "-n", "fast", "-s", "2", "--threads", "1", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", LIMITED, limit, str(value), *argv]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode in ends, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "damaged" not in ended.stderr
    assert "not installed" not in ended.stderr
    assert (tmp_path / "b.png").exists() == (ended.returncode == 0)
    assert ended.returncode == 0 or ended.stderr.startswith("error: ")
