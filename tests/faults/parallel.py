"""Start again with the injector, and share work among children."""

from __future__ import annotations

import os
import pickle
import select
import shutil
import struct
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.faults import shim


def start_again(module: str) -> None:
    """Replace this process by one that has the injector, in memory where there is a file system for that."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="repsr-faults-", dir=place))
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    plain = {"NO_COLOR": "1", "COLUMNS": "200", "REPSR_FAULTS_FOLDER": str(folder), "PYTHONFAULTHANDLER": ""}
    environment = {**os.environ, **one, **plain, **shim.preload(folder)}
    code = os.spawnve(os.P_WAIT, sys.executable, [sys.executable, "-m", module, *sys.argv[1:]], environment)
    shutil.rmtree(folder, ignore_errors=True)
    sys.exit(code)


def apart(function: Callable[[], object]) -> None:
    """Call a function in a child, so that its threads do not stay in this process.

    Raises:
        SystemExit: it fails.
    """
    process = os.fork()
    if process == 0:
        try:
            function()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    if os.waitpid(process, 0)[1]:
        raise SystemExit("the inputs could not be made")


def side_by_side(jobs: int, bench: Any, items: list[Any], function: Callable[..., Any]) -> Iterator[Any]:
    """Call a function for each item in so many children; yields ``{"name", "result"}`` as they come."""
    pipes = {}
    for job in range(jobs):
        reading, writing = os.pipe()
        process = os.fork()
        if process == 0:
            os.close(reading)
            try:
                bench.shim = shim.Shim()
                for item in items[job::jobs]:
                    _one(bench, item, function, writing)
            finally:
                os._exit(0)
        os.close(writing)
        pipes[reading] = (process, bytearray())
    while pipes:
        for reading in select.select(list(pipes), [], [])[0]:
            process, pending = pipes[reading]
            data = os.read(reading, 1 << 20)
            if not data:
                os.close(reading)
                os.waitpid(process, 0)
                del pipes[reading]
                continue
            pending += data
            while len(pending) >= 4 and len(pending) >= 4 + struct.unpack_from("<I", pending)[0]:
                size = struct.unpack_from("<I", pending)[0]
                yield pickle.loads(bytes(pending[4 : 4 + size]))
                del pending[: 4 + size]


def _one(bench: Any, item: Any, function: Callable[..., Any], pipe: int) -> None:
    try:
        result = function(bench, item)
    except Exception:
        sys.stderr.write(f"{getattr(item, 'name', item)}:\n{traceback.format_exc()}")
        return
    data = pickle.dumps({"name": getattr(item, "name", ""), "result": result})
    data = struct.pack("<I", len(data)) + data
    while data:
        data = data[os.write(pipe, data) :]
