"""Segment files and job folders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from repsr_cli.errors import UsageError
from repsr_cli.video.encode import (
    EncodedPacket,
)
from repsr_cli.video.segments import SegmentWriter, Store, fingerprint, job_folder


@contextmanager
def file_size_limit(nbytes: int) -> Iterator[None]:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def packets() -> list[EncodedPacket]:
    return [EncodedPacket(n, n - 2, 1, n == 0, bytes([n]) * (n * 100)) for n in range(1, 6)]


def write(store: Store, index: int) -> None:
    writer = SegmentWriter(store, index, {"pts": 1})
    for packet in packets():
        writer.add(packet)
    writer.finish()


def test_segments_come_back_and_damaged_ones_are_thrown_away(tmp_path: Path) -> None:
    store = Store.begin(tmp_path / "out.mp4", {"a": 1}, resume=True)
    write(store, 0)
    write(store, 1)
    left = SegmentWriter(store, 2, {})
    left.add(packets()[0])
    left.abandon()
    full = SegmentWriter(store, 2, {})
    full.add(packets()[0])
    with file_size_limit(10):  # closing the file fails, because its buffer cannot be written
        full.abandon()
    assert not list(store.folder.glob("*.part"))
    assert store.finished() == {0: 5, 1: 5}
    assert list(store.packets(1)) == packets()
    spoilers: list[Callable[[bytes], bytes]] = [
        lambda data: data[:-1],
        lambda data: data[:200] + b"x" + data[201:],
        lambda data: data[:-33] + data[-32:],
    ]
    for spoil in spoilers:
        path = store.path(1)
        path.write_bytes(spoil(path.read_bytes()))
        assert store.finished() == {0: 5}
        assert not path.exists()
        write(store, 1)
    assert store.close()
    again = Store.begin(tmp_path / "out.mp4", {"a": 1}, resume=True)
    assert again.finished() == {0: 5, 1: 5}
    again.close()
    with pytest.raises(UsageError, match=r"begun with another a \(was 1, is 2\)"):
        Store.begin(tmp_path / "out.mp4", {"a": 2}, resume=True)
    fresh = Store.begin(tmp_path / "out.mp4", {"a": 2}, resume=False)
    assert fresh.finished() == {}
    assert not fresh.close()
    assert not job_folder(tmp_path / "out.mp4").exists()


def test_a_job_that_finished_nothing_binds_nobody(tmp_path: Path) -> None:
    left = Store.begin(tmp_path / "out.mp4", {"a": 1}, resume=True)
    left.lock.release()  # as the death of a process does
    assert left.folder.exists()
    Store.begin(tmp_path / "out.mp4", {"a": 2}, resume=True).remove()
    assert not left.folder.exists()


def test_fingerprints_see_both_ends(tmp_path: Path) -> None:
    path = tmp_path / "a"
    data = bytearray(3 * 2**20)
    seen = set()
    for place in (0, len(data) - 1):
        path.write_bytes(data)
        seen.add(fingerprint(path))
        data[place] = 1
    path.write_bytes(data)
    seen.add(fingerprint(path))
    assert len(seen) == 3
