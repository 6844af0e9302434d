from __future__ import annotations

import ast
import errno
import inspect

import pytest

from repsr_cli import errors
from tests.conftest import ROOT


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


_NO_FILES = OSError(errno.EMFILE, "Too many open files", "/lib/x.py")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (_NO_FILES, 3, "/lib/x.py: no more files can be opened. Raise the limit (ulimit -n)."),
        (ImportError("libx.so: cannot open shared object file: Too many open files"), 3, "a.png: no more files"),
        (ImportError("libx.so: failed to map segment from shared object"), 5, "a.png: out of memory"),
        (ImportError("libx.so: cannot allocate memory in static TLS block"), 5, "a.png: out of memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 5, "a.png: out of memory"),
        (RuntimeError("Exception from plugin.cpp:54:\nstd::bad_alloc\n"), 5, "a.png: out of memory"),
        (RuntimeError("Could not allocate AVFilterContext"), 5, "a.png: out of memory"),
        (RuntimeError("Cannot load library libx.so: cannot map zero-fill pages"), 5, "a.png: out of memory"),
        (RuntimeError("Exception from plugin.cpp:921:\nResource temporarily unavailable\n"), 5, "more threads"),
    ],
)
def test_shortages_are_told_from_what_they_lead_to(error: Exception, code: int, words: str) -> None:
    later = ImportError("a package is not installed")
    later.__cause__ = error
    damage = ValueError("damaged")
    damage.__context__ = error
    for each in (error, later, damage):
        found = errors.shortage(each, "a.png")
        assert found is not None
        assert found.exit_code == code
        assert words in str(found)
        with pytest.raises(type(found)):
            errors.raise_shortage(each)


def test_other_errors_are_no_shortage() -> None:
    named_so = FileNotFoundError(errno.ENOENT, "No such file or directory", "out of memory.png")
    unrelated = ValueError("damaged")
    unrelated.__context__, unrelated.__suppress_context__ = _NO_FILES, True
    for error in (named_so, unrelated, ImportError("No module named 'av'"), RuntimeError("x"), KeyError(1)):
        assert errors.shortage(error) is None
        errors.raise_shortage(error)


def test_whoever_misses_a_package_asks_for_a_shortage_first() -> None:
    """But for streams, a module of Windows, and trials whose failures are printed."""
    exempt = {"cli/console.py", "upscale/executors/scratch.py", "upscale/calibrate.py"}
    asked = {"shortage", "raise_shortage", "_failure", "quiet_import"}
    silent = []
    for path in (ROOT / "repsr_cli").rglob("*.py"):
        name = path.relative_to(ROOT / "repsr_cli").as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Try) and name not in exempt:
                caught = {each for handler in node.handlers for each in _names(handler.type)}
                if "ImportError" in caught and not asked & set(_names(node)):
                    silent.append(f"{name}:{node.lineno}")
    assert not silent


def _names(node: ast.AST | None) -> list[str]:
    return [each.id for each in ast.walk(node) if isinstance(each, ast.Name)] if node is not None else []
