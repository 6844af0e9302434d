"""Freed memory stays with the process, so that the system need not clear it for every layer."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, threading
import torch
from repsr_cli.engine.memory import keep_freed_memory
torch.set_num_threads(1)

def work():
    for _ in range(4):
        a = torch.ones(2_000_000)
        b = torch.ones(5_000_000)
        del a, b

def count():
    for _ in range(3):
        work()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        work()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

for _ in range(2):
    thread = threading.Thread(target=count)
    thread.start()
    thread.join()
    keep_freed_memory()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")
def test_layers_take_the_memory_of_those_before() -> None:
    """28 MB twenty times, 4 KiB a fault."""
    usual, kept = map(int, subprocess.check_output([sys.executable, "-c", FAULTS], text=True).split())
    assert kept < 1000 < 20_000 < usual
