from __future__ import annotations

import io
import pickle
import random
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from repsr_cli.errors import CheckpointError
from repsr_cli.model.checkpoint import (
    TrainingCheckpoint,
    load_plain,
    load_training,
    plain_bytes,
    read_metadata,
    read_spec,
    save_training,
)
from repsr_cli.model.pickles import UnsafePickle, check_pickle
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.repsr import RepSR
from repsr_cli.model.spec import Spec

SPEC = Spec(scale=2, channels=4, blocks=1)


def _archive(pickled: bytes) -> bytes:
    """An archive as torch.save writes it, around any pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in (("data.pkl", pickled), ("version", b"3\n"), ("byteorder", b"little")):
            archive.writestr(f"archive/{name}", content)
    return file.getvalue()


def _integer(value: int) -> bytes:
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


BOOMS = {
    "bytearray": b"\x80\x02cbuiltins\nbytearray\n(" + _integer(10**9) + b"tR.",
    "bytearray of Python 2": b"\x80\x02c__builtin__\nbytearray\n" + _integer(10**9) + b"\x85R.",
    "one list, many sets": b"\x80\x02](" + b"K\x01" * 1000 + b"eq\x00(" + b"cbuiltins\nset\nh\x00\x85R" * 1000 + b"t.",
    "one list, many dictionaries": b"\x80\x02](" + b"K\x01" * 1000 + b"eq\x00ccollections\nOrderedDict\nh\x00\x85R.",
    "one text, many encodings": b"\x80\x02c_codecs\nencode\nX\x04\x00\x00\x00abcdX\x06\x00\x00\x00utf-32\x86R.",
    "one state, many objects": b"\x80\x02}q\x00ccollections\nOrderedDict\n)Rh\x00b.",
    "sizes": b"\x80\x02ctorch\nSize\n(" + b"K\x01" * 5 + b"t\x85R.",
    "a storage on no record": b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    + b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    + _integer(10**9)
    + b"tQ.",
    "cut off": b"\x80\x02}(X\x07",
    "nothing": b"",
    "marks only": b"\x80\x02((((u.",
}


@pytest.mark.parametrize("name", BOOMS)
@pytest.mark.parametrize("legacy", [False, True])
def test_a_few_bytes_take_no_gigabytes(tmp_path: Path, name: str, legacy: bool) -> None:
    path = tmp_path / "model.pth"
    if legacy:
        start = b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
        path.write_bytes(start + BOOMS[name])
    else:
        path.write_bytes(_archive(BOOMS[name]))
    tracemalloc.start()
    try:
        for load in (load_plain, read_spec, load_training):
            with pytest.raises(CheckpointError):
                load(path)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("prefix", [0, 8])
def test_an_archive_with_two_directories_is_read_by_one_of_them(tmp_path: Path, prefix: int) -> None:
    """zipfile takes the directory before the end record, PyTorch's reader the one at the stated offset."""
    hidden = io.BytesIO()
    with zipfile.ZipFile(hidden, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02B" + struct.pack("<I", 10**8) + bytes(10**8) + b".")
        archive.writestr("archive/version", "3\n")
    content, end = hidden.getvalue(), hidden.getvalue().rfind(b"PK\x05\x06")
    size, place = struct.unpack("<II", content[end + 12 : end + 20])
    shown = _archive(b"N.")
    shown_end = shown.rfind(b"PK\x05\x06")
    shown_size, shown_place = struct.unpack("<II", shown[shown_end + 12 : shown_end + 20])
    path = tmp_path / "two.pth"
    directory = shown[shown_place : shown_place + shown_size] + bytes(prefix)
    path.write_bytes(content[:place] + content[place : place + size] + directory + content[end:])
    assert path.stat().st_size < 200_000
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError):
            load_plain(path)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_what_torch_saves_passes() -> None:
    kinds = (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.float64)
    state = {str(kind): torch.zeros(3, 2, dtype=kind) for kind in kinds}
    payload = {
        "state": torch.nn.Linear(2, 2).state_dict(),
        "parameter": torch.nn.Parameter(torch.zeros(2)),
        "ordered": OrderedDict(state),
        "plain": [1, 2.5, "text", None, True, 10**30, (1, 2), {"dtype": torch.float32}],
    }
    for new in (True, False):
        file = io.BytesIO()
        torch.save(payload, file, _use_new_zipfile_serialization=new)
        file.seek(0)
        if not new:
            for _ in range(5):
                check_pickle(file)
            continue
        with zipfile.ZipFile(file) as archive:
            sizes = {r.filename.split("data/")[-1]: r.file_size for r in archive.infolist()}
            check_pickle(io.BytesIO(archive.read("archive/data.pkl")), sizes)
            with pytest.raises(UnsafePickle, match="another size"):
                check_pickle(io.BytesIO(archive.read("archive/data.pkl")), sizes | {"0": 1})


def _training_file(path: Path) -> Path:
    net = RepSR(SPEC)
    optimizer = {"optimizer": {"state": {0: {"mean": torch.rand(40, 40)}}, "param_groups": []}, "scaler": {}}
    save_training(path, TrainingCheckpoint(net, net, {"network": {"scale": 2}}, 3, optimizer, {"best": 1.0}))
    return path


def test_a_flipped_bit_is_noticed_wherever_it_matters(tmp_path: Path) -> None:
    whole = _training_file(tmp_path / "last.pt").read_bytes()
    expected = _flat(load_training(tmp_path / "last.pt"))
    generator, refused = random.Random(0), 0
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[generator.randrange(len(whole))] ^= 1 << generator.randrange(8)
        (tmp_path / "flipped.pt").write_bytes(damaged)
        try:
            loaded = _flat(load_training(tmp_path / "flipped.pt"))
        except CheckpointError:
            refused += 1
            continue
        assert loaded == expected  # a bit of the padding between two records
    assert refused > 20


def test_a_flipped_bit_in_any_tensor_is_named(tmp_path: Path) -> None:
    whole = _training_file(tmp_path / "last.pt").read_bytes()
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        records = [record for record in archive.infolist() if "/data/" in record.filename]
    for record in records:
        name = record.filename.encode()
        start = whole.index(name, record.header_offset) + len(name)
        extra = struct.unpack("<H", whole[record.header_offset + 28 : record.header_offset + 30])[0]
        damaged = bytearray(whole)
        damaged[start + extra] ^= 1
        (tmp_path / "flipped.pt").write_bytes(damaged)
        for load in (load_training, load_plain, read_spec):
            with pytest.raises(CheckpointError, match="is not what was written"):
                load(tmp_path / "flipped.pt")


def test_an_archive_without_checksums_loads(tmp_path: Path) -> None:
    net = PlainSR(Spec(scale=2, channels=4, blocks=1))
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(net.state_dict(), tmp_path / "net.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    loaded = load_plain(tmp_path / "net.pth").state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in net.state_dict().items())


def _flat(checkpoint: TrainingCheckpoint) -> list[Any]:
    networks = [list(net.state_dict().items()) for net in (checkpoint.net, checkpoint.ema)]
    tensors = [(key, value.tolist()) for each in networks for key, value in each]
    mean = checkpoint.optimizer["optimizer"]["state"][0]["mean"].tolist()
    return [*tensors, mean, checkpoint.recipe, checkpoint.step, checkpoint.progress]


GOOD: dict[str, Any] = {
    "format": 1, "kind": "repsr", "spec": {"scale": 2, "channels": 4, "blocks": 1}, "net": {}, "average": {},
    "block": {"expansion": 2, "norm": True, "frozen": False}, "recipe": {}, "step": 1, "optimizer": {}, "progress": {},
}  # fmt: skip
T = torch.zeros(2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"net": None},
        {"net": {1: T}, "average": {1: T}},
        {"net": {"a": 1}, "average": [T]},
        {"net": {"a": T.to_sparse()}},
        {"format": T},
        {"format": None},
        {"format": [1] * 10_000},
        {"step": "7"},
        {"block": None},
        {"block": {"expansion": T, "norm": T, "frozen": T}},
        {"block": {}},
        {"spec": None},
        {"spec": {"scale": 10**30, "channels": 1, "blocks": 1}},
        {"spec": {1: 2}},
        {"spec": {"scale": T, "channels": 1, "blocks": 1}},
        {"recipe": 3},
        {"recipe": {"network": []}},
        {"optimizer": T},
        {"images": T},
        {"kind": T},
    ],
)
def test_malformed_training_checkpoints_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    torch.save(GOOD | wrong, tmp_path / "last.pt")
    for load in (load_training, load_plain):
        with pytest.raises(CheckpointError):
            load(tmp_path / "last.pt")


@pytest.mark.parametrize(("channels", "colors", "out"), [(0, 3, 12), (1, 0, 0), (0, 0, 0), (4, 2, 8), (4, 3, 0)])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_networks_without_channels_or_colours_are_refused(
    tmp_path: Path, channels: int, colors: int, out: int, suffix: str
) -> None:
    from safetensors.torch import save_file

    state = {
        "body.0.weight": torch.zeros(channels, colors, 3, 3),
        "body.0.bias": torch.zeros(channels),
        "body.1.weight": torch.zeros(channels),
        "body.2.weight": torch.zeros(out, channels, 3, 3),
        "body.2.bias": torch.zeros(out),
    }
    path = tmp_path / f"net{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    for load in (load_plain, read_spec):
        with pytest.raises(CheckpointError):
            load(path)


def test_nested_tensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "nested.pth"
    torch.save({"params": {"body.0.weight": torch.nested.nested_tensor([T, T]), "body.1.weight": T}}, path)
    with pytest.raises(CheckpointError):
        load_plain(path)


def test_optimiser_states_cannot_claim_memory_either(tmp_path: Path) -> None:
    net = PlainSR(SPEC)
    huge = {"state": {0: {"mean": torch.zeros(1).expand(10**12)}}}
    save_training(tmp_path / "last.pt", TrainingCheckpoint(net, net, {}, 1, huge, {}))
    with pytest.raises(CheckpointError, match="more weights than it has bytes"):
        load_training(tmp_path / "last.pt")


def test_equal_networks_make_equal_files(tmp_path: Path) -> None:
    net, metadata = PlainSR(SPEC), {str(n): '\u00e4 "x" \u2028' for n in range(12)}
    contents = {plain_bytes(net, metadata) for _ in range(20)}
    assert len(contents) == 1
    (tmp_path / "net.safetensors").write_bytes(contents.pop())
    assert read_metadata(tmp_path / "net.safetensors").items() >= metadata.items()
    loaded = load_plain(tmp_path / "net.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), loaded.parameters(), strict=True))
