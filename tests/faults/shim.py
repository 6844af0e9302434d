"""Compile, load and control the C library that makes file operations fail."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

OPERATIONS = ("open", "create", "read", "write", "fsync", "link", "rename", "unlink", "mkdir", "list", "close",
              "truncate", "chmod", "lock", "stat", "thread")  # fmt: skip
ACTIONS = ("count", "errno", "short", "kill", "kill after", "stop")
_LOADED = "REPSR_FAULTS_SHIM"


class State(ctypes.Structure):
    """The page that the library and this process share; the layout of ``struct state`` in shim.c."""

    _fields_ = [
        ("op", ctypes.c_int),
        ("action", ctypes.c_int),
        ("error", ctypes.c_int),
        ("sticky", ctypes.c_int),
        ("nth", ctypes.c_long),
        ("foreign_uid", ctypes.c_long),
        ("under", ctypes.c_char * 512),
        ("match", ctypes.c_char * 128),
        ("foreign", ctypes.c_char * 128),
        ("counts", ctypes.c_long * len(OPERATIONS)),
        ("matched", ctypes.c_long),
        ("fired", ctypes.c_long),
        ("connections", ctypes.c_long),
        ("logged", ctypes.c_long),
        ("fired_at", ctypes.c_char * 512),
        ("connected_to", ctypes.c_char * 128),
        ("log", ctypes.c_char * (1 << 18)),
    ]


def unavailable() -> str:
    """Why faults cannot be injected here, or nothing if they can."""
    if sys.platform != "linux":
        return "not Linux"
    return "" if shutil.which("gcc") else "no gcc"


def preload(folder: Path) -> dict[str, str]:
    """Compile the library into a folder; the environment of a process that has it."""
    library = folder / "shim.so"
    source = Path(__file__).with_name("shim.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return {"LD_PRELOAD": str(library), _LOADED: str(library)}


class Shim:
    """The library that was loaded into this process."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(os.environ[_LOADED])
        self._library.fault_fresh.restype = ctypes.POINTER(State)
        self.state: State = self._library.fault_fresh().contents

    def clear(self, folder: Path) -> State:
        """Forget the last trial; from now on operations below ``folder`` count."""
        ctypes.memset(ctypes.byref(self.state), 0, ctypes.sizeof(self.state))
        self.state.under = os.fsencode(folder)
        self.state.op = -1
        return self.state

    def arm(self) -> None:
        """Begin to count and to inject, in this process."""
        self._library.fault_arm(1)

    def log(self) -> list[tuple[str, str]]:
        """(operation, path below the folder) in order."""
        under = len(self.state.under) + 1
        lines = self.state.log.decode("utf-8", "surrogateescape").splitlines()
        return [(OPERATIONS[ord(line[0]) - ord("a")], line[1:][under:]) for line in lines if line]
