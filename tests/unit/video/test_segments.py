"""Segment files and job folders."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from repsr_cli.errors import MediaError, UsageError
from repsr_cli.video.encode import EncodedPacket
from repsr_cli.video.segments import SegmentWriter, Store, begun, fingerprint, job_folder


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
    writer = SegmentWriter(store, index)
    for packet in packets():
        writer.add(packet)
    writer.finish()


def test_segments_come_back_and_damaged_ones_are_thrown_away(tmp_path: Path) -> None:
    store = Store.begin(tmp_path / "out.mp4", {"a": 1}, resume=True)
    write(store, 0)
    write(store, 1)
    left = SegmentWriter(store, 2)
    left.add(packets()[0])
    left.abandon()
    full = SegmentWriter(store, 2)
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


def begun_job(folder: Path, **job: object) -> Store:
    """A store with two finished segments."""
    store = Store.begin(folder / "out.mp4", {"a": 1} | job, resume=True)
    write(store, 0)
    write(store, 1)
    return store


@pytest.mark.parametrize("what", ["another job", "another place", "flipped packet", "flipped header", "cut", "longer"])
def test_segments_are_bound_to_their_job_and_place(tmp_path: Path, what: str) -> None:
    (tmp_path / "b").mkdir()
    store, other = begun_job(tmp_path), begun_job(tmp_path / "b", a=2)
    data = bytearray(store.path(0).read_bytes())
    if what == "another job":
        data = bytearray(other.path(0).read_bytes())
    elif what == "another place":
        data = bytearray(store.path(1).read_bytes())
    elif what.startswith("flipped"):
        data[700 if what == "flipped packet" else 30] ^= 4
    else:
        data = data[:-3] if what == "cut" else data + b"\0"
    for read in ("joined", "resumed"):
        store.path(0).write_bytes(data)
        if read == "joined":
            with pytest.raises(MediaError, match=r"this finished segment changed on disk.*Run the same command again"):
                list(store.packets(0))
        else:
            assert store.finished() == {1: 5}
        assert not store.path(0).exists()
    with pytest.raises(MediaError, match="arrived damaged"):
        store.put(0, bytes(data))
    for each in (store, other):
        each.remove()


def test_a_packet_is_checked_before_it_is_given(tmp_path: Path) -> None:
    store = begun_job(tmp_path)
    data = bytearray(store.path(0).read_bytes())
    data[-200] ^= 1  # in the last packet
    store.path(0).write_bytes(data)
    read = store.packets(0)
    assert [next(read) for _ in range(4)] == packets()[:4]
    with pytest.raises(MediaError):
        next(read)
    store.remove()


DAMAGE: dict[str, bytes] = {
    "empty": b"",
    "zeros": bytes(500),
    "cut": b'{"a": 1, "b',
    "not JSON": b"hello",
    "a list": b"[1]",
    "a string": b'"a"',
    "null": b"null",
    "not UTF-8": b'{"a": "\xff"}',
    "deep": b"[" * 100_000,
    "digits": b'{"a": ' + b"9" * 10_000 + b"}",
}


@pytest.mark.parametrize("form", [*DAMAGE, "missing", "link", "pipe"])
def test_a_damaged_record_of_the_job_costs_nothing(tmp_path: Path, form: str) -> None:
    begun_job(tmp_path).close()
    record = job_folder(tmp_path / "out.mp4") / "job.json"
    record.unlink()
    if form == "link":
        (tmp_path / "else.json").write_text('{"a": 1}')
        record.symlink_to(tmp_path / "else.json")
    elif form == "pipe":
        os.mkfifo(record)
    elif form != "missing":
        record.write_bytes(DAMAGE[form])
    assert begun(tmp_path / "out.mp4") is None
    again = Store.begin(tmp_path / "out.mp4", {"a": 1}, resume=True)
    assert again.finished() == {0: 5, 1: 5}
    assert begun(tmp_path / "out.mp4") == {"a": 1}
    again.remove()
    if form == "link":
        assert (tmp_path / "else.json").read_text() == '{"a": 1}'


def test_damage_of_the_record_that_is_still_json_is_no_other_job(tmp_path: Path) -> None:
    begun_job(tmp_path).close()
    record = job_folder(tmp_path / "out.mp4") / "job.json"
    whole = record.read_text()
    for damaged in (whole.replace('"a": 1', '"a": 3'), whole.replace('"a"', '"b"'), whole.replace('"digest"', '"x"')):
        assert damaged != whole
        record.write_text(damaged)
        assert begun(tmp_path / "out.mp4") is None
        store = Store.begin(tmp_path / "out.mp4", {"a": 1}, resume=True)
        assert store.finished() == {0: 5, 1: 5}
        store.close()
    with pytest.raises(UsageError, match="begun with another a"):
        Store.begin(tmp_path / "out.mp4", {"a": 2}, resume=True)
    anew = Store.begin(tmp_path / "out.mp4", {"a": 2}, resume=True, anew=True)
    assert anew.finished() == {}
    anew.remove()


def test_segments_whose_job_nobody_knows_any_more_are_made_anew(tmp_path: Path) -> None:
    begun_job(tmp_path).close()
    (job_folder(tmp_path / "out.mp4") / "job.json").write_bytes(b"{")
    store = Store.begin(tmp_path / "out.mp4", {"a": 2}, resume=True)
    lines: list[str] = []
    assert store.finished(lines.append) == {}
    assert lines == ["segments that are damaged or of another job are made anew: 2"]
    assert begun(tmp_path / "out.mp4") is None
    store.remove()


def test_a_first_line_that_is_nested_without_end_is_damage(tmp_path: Path) -> None:
    store = begun_job(tmp_path)
    line = b'{"job":' + b"[" * 100_000 + b"\n"
    store.path(0).write_bytes(line + hashlib.sha256(line).digest())
    assert store.finished() == {1: 5}
    store.remove()


def test_odd_segments_are_removed_and_do_not_block(tmp_path: Path) -> None:
    store = begun_job(tmp_path)
    victim = tmp_path / "victim"
    victim.write_bytes(store.path(0).read_bytes())
    os.mkfifo(store.folder / "000002.segment")
    (store.folder / "000003.segment").symlink_to(victim)
    for name in ("x.segment", "000004.segment", "00000000000001.segment", "-00001.segment"):
        (store.folder / name).write_bytes(b"odd")
    assert store.finished() == {0: 5, 1: 5}
    left = sorted(path.name for path in store.folder.glob("*.segment"))
    others = ["-00001.segment", "00000000000001.segment", "x.segment"]
    assert left == sorted(["000000.segment", "000001.segment", *others])
    assert victim.exists()
    store.remove()
    assert sorted(path.name for path in store.folder.iterdir()) == others


@pytest.mark.parametrize("name", ["sub", "000000.segment", "job.json", "writing"])
def test_a_folder_among_the_segments_is_refused_by_name(tmp_path: Path, name: str) -> None:
    folder = job_folder(tmp_path / "out.mp4")
    (folder / name).mkdir(parents=True)
    (folder / name / "thesis.txt").touch()
    for resume in (True, False):
        with pytest.raises(UsageError, match=rf"{re.escape(name)}: is a folder, which repsr did not make\. Remove it"):
            Store.begin(tmp_path / "out.mp4", {}, resume=resume)
    assert (folder / name / "thesis.txt").exists()


def test_a_folder_that_appears_meanwhile_is_left_and_named(tmp_path: Path) -> None:
    store = begun_job(tmp_path)
    (store.folder / "sub").mkdir()
    assert "did not put there" in store.remove()
    assert (store.folder / "sub").exists()


def test_a_store_whose_folder_is_gone_closes_quietly(tmp_path: Path) -> None:
    store = begun_job(tmp_path)
    shutil.rmtree(store.folder)
    assert not store.close()
    assert store.remove() == ""


def test_errors_while_tidying_up_are_returned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = begun_job(tmp_path)

    def fails(*_args: object, **_options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", fails)
        patched.setattr("os.supports_dir_fd", {fails})
        assert store.remove() == "Read-only file system"
    assert store.path(0).exists()
    Store.begin(tmp_path / "out.mp4", {"a": 1}, resume=True).remove()  # it was released


def test_what_an_earlier_run_left_beside_its_segments_is_removed(tmp_path: Path) -> None:
    store = begun_job(tmp_path)
    store.close()
    for name in (".out.mp4.0123456789abcdef.part.mp4", ".000002.segment.0123456789abcdef.part", "complete.json"):
        (store.folder / name).touch()
    again = Store.begin(tmp_path / "out.mp4", {"a": 1}, resume=True)
    assert sorted(path.name for path in again.folder.iterdir()) == [
        "000000.segment", "000001.segment", "job.json", "lock",
    ]  # fmt: skip
    again.remove()
