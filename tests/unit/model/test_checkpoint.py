from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from repsr_cli.errors import CheckpointError
from repsr_cli.model.checkpoint import (
    MAX_HEADER,
    TrainingCheckpoint,
    infer_spec,
    load_plain,
    load_training,
    read_metadata,
    read_spec,
    read_tensors,
    save_plain,
    save_training,
)
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.repsr import RepSR, fuse
from repsr_cli.model.spec import Spec
from tests.conftest import randomise_statistics

SPEC = Spec(scale=3, channels=6, blocks=2)


def _same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_fused_file_round_trip_with_metadata(tmp_path: Path) -> None:
    net = PlainSR(SPEC)
    save_plain(tmp_path / "net.safetensors", net, {"licence": "CC0-1.0"})
    loaded = load_plain(tmp_path / "net.safetensors")
    assert loaded.spec == SPEC
    assert _same(net, loaded)
    metadata = read_metadata(tmp_path / "net.safetensors")
    assert metadata["licence"] == "CC0-1.0"
    assert '"scale": 3' in metadata["spec"]
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]


def test_strings_of_a_file_are_read_in_one_order(tmp_path: Path) -> None:
    """What is exported with them is the same, byte for byte, in every run; safetensors gives them in any order."""
    save_plain(tmp_path / "net.safetensors", PlainSR(SPEC), {f"key{n}": "value" for n in range(12)})
    for _ in range(20):
        names = list(read_metadata(tmp_path / "net.safetensors"))
        assert names == sorted(names)


def test_a_flipped_bit_of_a_fused_model_is_named(tmp_path: Path) -> None:
    save_plain(tmp_path / "net.safetensors", PlainSR(SPEC), {})
    whole = (tmp_path / "net.safetensors").read_bytes()
    begin = 8 + int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8:begin])
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        damaged = bytearray(whole)
        damaged[begin + tensor["data_offsets"][0]] ^= 1
        (tmp_path / "net.safetensors").write_bytes(damaged)
        for load in (load_plain, read_tensors):
            with pytest.raises(CheckpointError, match="is damaged: its weights"):
                load(tmp_path / "net.safetensors")


def test_models_of_other_tools_need_no_digest(tmp_path: Path) -> None:
    net = PlainSR(SPEC)
    save_file(net.state_dict(), tmp_path / "theirs.safetensors")
    assert _same(load_plain(tmp_path / "theirs.safetensors"), net)
    save_plain(tmp_path / "ours.safetensors", net, {})
    half = {name: value.half() for name, value in net.state_dict().items()}
    save_file(half, tmp_path / "half.safetensors", read_metadata(tmp_path / "ours.safetensors"))
    assert load_plain(tmp_path / "half.safetensors").spec == SPEC


@pytest.mark.parametrize("name", [b"caf\xe9.mkv", b"\xff\xfe", "Kraków, 東京".encode()])
def test_metadata_may_hold_names_that_are_not_utf_8(tmp_path: Path, name: bytes) -> None:
    text = os.fsdecode(name)
    save_plain(tmp_path / "net.safetensors", PlainSR(SPEC), {"learnt_from": text})
    stored = read_metadata(tmp_path / "net.safetensors")["learnt_from"]
    assert stored == text.encode("utf-8", "backslashreplace").decode()


@pytest.mark.parametrize("frozen", [False, True])
def test_training_checkpoint_round_trip(tmp_path: Path, frozen: bool) -> None:
    net, average = RepSR(SPEC), RepSR(SPEC)
    randomise_statistics(average)
    if frozen:
        net.freeze_bn()
        average.freeze_bn()
    save_training(tmp_path / "last.pt", TrainingCheckpoint(net, average, {"a": {"b": 1}}, 7, {}, {"best": 1.5}))
    loaded = load_training(tmp_path / "last.pt")
    assert isinstance(loaded.net, RepSR)
    assert (loaded.step, loaded.recipe, loaded.progress) == (7, {"a": {"b": 1}}, {"best": 1.5})
    assert loaded.net.bn_frozen == frozen
    assert _same(loaded.net, net)
    assert _same(loaded.ema, average)
    assert _same(load_plain(tmp_path / "last.pt"), fuse(average))


@pytest.mark.parametrize("wrapper", ["", "params_ema", "params", "state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_foreign_compact_files_load(tmp_path: Path, wrapper: str, prefix: str) -> None:
    net = PlainSR(SPEC)
    state: dict[str, Any] = {prefix + key: value for key, value in net.state_dict().items()}
    torch.save({wrapper: state, "iter": 5} if wrapper else state, tmp_path / "foreign.pth")
    loaded = load_plain(tmp_path / "foreign.pth")
    assert loaded.spec == SPEC
    assert _same(loaded, net)


def test_params_ema_wins_over_params(tmp_path: Path) -> None:
    raw, average = PlainSR(SPEC), PlainSR(SPEC)
    torch.save({"params": raw.state_dict(), "params_ema": average.state_dict()}, tmp_path / "both.pth")
    assert _same(load_plain(tmp_path / "both.pth"), average)


def test_half_precision_file_loads_as_float32(tmp_path: Path) -> None:
    net = PlainSR(SPEC).half()
    torch.save(net.state_dict(), tmp_path / "half.pth")
    assert next(load_plain(tmp_path / "half.pth").parameters()).dtype == torch.float32


class _Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("raw", [False, True])
def test_pickle_bomb_is_refused_and_does_not_run(tmp_path: Path, raw: bool) -> None:
    """I7: loading runs no code."""
    marker = tmp_path / "ran"
    bomb = {"params": _Bomb(marker)}
    if raw:
        (tmp_path / "bomb.pth").write_bytes(pickle.dumps(bomb))
    else:
        torch.save(bomb, tmp_path / "bomb.pth")
    with pytest.raises(CheckpointError, match="Accepted"):
        load_plain(tmp_path / "bomb.pth")
    assert not marker.exists()


def _rewritten(source: Path, target: Path, compression: int) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for record in old.infolist():
            new.writestr(record.filename, old.read(record))
    return target


def test_zip_bombs_are_refused_before_they_unpack(tmp_path: Path) -> None:
    torch.save({"params": {"body.0.weight": torch.zeros(1 << 22)}}, tmp_path / "plain.pth")
    bomb = _rewritten(tmp_path / "plain.pth", tmp_path / "bomb.pth", zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 100_000
    with pytest.raises(CheckpointError, match="compressed archive"):
        load_plain(bomb)
    stored = (tmp_path / "plain.pth").read_bytes()
    name = stored.index(b"data/0", stored.index(b"PK\x01\x02"))
    entry = stored.rindex(b"PK\x01\x02", 0, name)  # the storage's line in the central directory
    grown = bytearray(stored)
    grown[entry + 20 : entry + 28] = struct.pack("<II", 1 << 31, 1 << 31)
    (tmp_path / "grown.pth").write_bytes(grown)
    with pytest.raises(CheckpointError, match="claims to hold more"):
        load_plain(tmp_path / "grown.pth")


def _claiming(channels: int) -> dict[str, torch.Tensor]:
    """A Compact network of any width whose tensors all repeat one stored zero."""
    zero = torch.zeros(1)
    return {
        "body.0.weight": zero.expand(channels, 3, 3, 3),
        "body.0.bias": zero.expand(channels),
        "body.1.weight": zero.expand(channels),
        "body.2.weight": zero.expand(channels, channels, 3, 3),
        "body.2.bias": zero.expand(channels),
        "body.3.weight": zero.expand(channels),
        "body.4.weight": zero.expand(3, channels, 3, 3),
        "body.4.bias": zero.expand(3),
    }


def test_a_small_file_cannot_claim_a_large_network(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(_claiming(10**6), path)  # 36 TB
    with pytest.raises(CheckpointError, match="more weights than it has bytes"):
        load_plain(path)
    state = PlainSR(SPEC).state_dict()
    torch.save(state | {"body.999998.weight": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="tensors for 999999 layers"):
        load_plain(path)
    for spec in ({"channels": 10**6}, {"blocks": 10**9}):
        save_training(path, TrainingCheckpoint(RepSR(SPEC), RepSR(SPEC), {}, 0))
        payload = torch.load(path, weights_only=True)
        torch.save(payload | {"spec": payload["spec"] | spec}, path)
        with pytest.raises(CheckpointError, match="damaged training checkpoint"):
            load_plain(path)


def test_a_dictionary_that_holds_itself_ends(tmp_path: Path) -> None:
    endless: dict[str, Any] = {}
    endless["params"] = endless
    torch.save(endless, tmp_path / "endless.pth")
    with pytest.raises(CheckpointError, match="not a Compact network"):
        load_plain(tmp_path / "endless.pth")


def test_a_header_beyond_any_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "header.safetensors"
    path.write_bytes(struct.pack("<Q", MAX_HEADER + 1) + b"{}")
    with pytest.raises(CheckpointError, match="header of"):
        load_plain(path)


@pytest.mark.parametrize("value", [torch.zeros(6, dtype=torch.int8), torch.zeros(6, dtype=torch.cfloat)])
def test_tensors_that_are_not_real_numbers_are_refused(tmp_path: Path, value: torch.Tensor) -> None:
    torch.save(PlainSR(SPEC).state_dict() | {"body.0.bias": value}, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=r"body\.0\.bias holds torch"):
        load_plain(tmp_path / "net.pth")


def test_errors_name_what_was_found(tmp_path: Path) -> None:
    torch.save({"conv_first.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "esrgan.pth")
    with pytest.raises(CheckpointError, match=r"not a Compact network.*conv_first.weight.*Accepted"):
        load_plain(tmp_path / "esrgan.pth")
    state = PlainSR(SPEC).state_dict()
    del state["body.3.weight"]
    torch.save(state, tmp_path / "relu.pth")
    with pytest.raises(CheckpointError, match=r"missing or extra body\.3\.weight"):
        load_plain(tmp_path / "relu.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(CheckpointError):
        load_plain(tmp_path / "text.pth")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError):
        load_plain(tmp_path / "empty.safetensors")
    with pytest.raises(CheckpointError, match="no such file"):
        load_plain(tmp_path / "missing.pth")
    with pytest.raises(CheckpointError, match="is a folder"):
        load_plain(tmp_path)


@pytest.mark.parametrize("keep", [0, 8, 20, 300, 2000])
@pytest.mark.parametrize("name", ["net.safetensors", "net.pt"])
def test_truncated_files_are_refused(tmp_path: Path, keep: int, name: str) -> None:
    path = tmp_path / name
    if name.endswith(".pt"):
        save_training(path, TrainingCheckpoint(RepSR(SPEC), RepSR(SPEC), {}, 0))
    else:
        save_plain(path, PlainSR(SPEC), {})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError):
        load_plain(path)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    net = PlainSR(SPEC)
    net.convolutions[0].weight.data[0, 0, 0, 0] = float("nan")
    save_plain(tmp_path / "nan.safetensors", net, {})
    with pytest.raises(CheckpointError, match="not finite"):
        load_plain(tmp_path / "nan.safetensors")


def test_the_rules_by_which_other_tools_recognise_compact_apply(tmp_path: Path) -> None:
    """spandrel: features from body.0 beside body.1, depth from the last index, scale from the last bias."""
    state = PlainSR(Spec(scale=4, channels=16, blocks=4)).state_dict()
    highest = max(int(key.split(".")[1]) for key in state)
    assert {"body.0.weight", "body.1.weight"} <= set(state)
    assert tuple(state["body.0.weight"].shape[:2]) == (16, 3)
    assert (highest - 2) // 2 == 4
    assert state[f"body.{highest}.bias"].shape[0] == 3 * 4**2


def test_luma_networks_are_recognised() -> None:
    spec = Spec(scale=2, channels=4, blocks=1, colors=1)
    assert infer_spec({key: value.shape for key, value in PlainSR(spec).state_dict().items()}) == spec


def test_the_header_alone_gives_the_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_plain(tmp_path / "net.safetensors", PlainSR(SPEC), {})
    torch.save({"params": PlainSR(SPEC).state_dict()}, tmp_path / "net.pth")
    save_training(tmp_path / "last.pt", TrainingCheckpoint(RepSR(SPEC), RepSR(SPEC), {}, 0))

    def refuse(*_: object) -> None:
        pytest.fail("weights were loaded")

    monkeypatch.setattr(torch.nn.Module, "load_state_dict", refuse)
    for name in ("net.safetensors", "net.pth", "last.pt"):
        assert read_spec(tmp_path / name) == SPEC
    with pytest.raises(CheckpointError, match="no such file"):
        read_spec(tmp_path / "missing.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(CheckpointError, match="Accepted"):
        read_spec(tmp_path / "text.pth")


def test_other_projects_models_load_as_compact(real_data: Path) -> None:
    assert load_plain(real_data / "rivals" / "realesr-animevideov3.pth").spec == Spec(4, 64, 16)
    assert load_plain(real_data / "rivals" / "ecbsr-m4c16-x3.safetensors").spec == Spec(3, 16, 4)
