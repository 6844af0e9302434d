"""Networks to files and back. Loading a file runs no code and takes no more memory than the file can fill.

Three kinds of file:

* fused networks: safetensors in the Compact key layout, metadata as strings (``spec`` is JSON);
* training checkpoints: ``.pt`` holding primitives and tensors only, read with ``weights_only=True``;
* foreign Compact files, ``.pth`` or safetensors, keys bare or under one of ``WRAPPERS``.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from repsr_cli.errors import CheckpointError
from repsr_cli.model.plain import PlainSR, Spec
from repsr_cli.model.repsr import RepSR, fuse

FORMAT = 1
# A header is names, shapes and a few strings: that of 10,000 layers fits many times.
MAX_HEADER = 8 << 20
WRAPPERS = ("params_ema", "params-ema", "params", "model_state_dict", "state_dict", "model", "net", "net_g")
ACCEPTED = "Accepted: networks fused by repsr, repsr training checkpoints, and Compact (SRVGGNetCompact, PReLU) files."


@dataclass(slots=True)
class TrainingCheckpoint:
    """A training run at one step.

    Attributes:
        net: the network as it trains: ``RepSR``, or ``PlainSR`` for the plain arm.
        average: its averaged copy, which is what gets fused and shipped.
        recipe: the resolved recipe, nested plain values.
        step: steps done.
        optimizer: the optimiser's state.
        progress: what else the loop needs to go on: counters and best figures, plain values.
    """

    net: RepSR | PlainSR
    average: RepSR | PlainSR
    recipe: dict[str, Any]
    step: int
    optimizer: dict[str, Any] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)


def _replace(path: Path, partial: Path) -> None:
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    partial.replace(path)


def save_training(path: Path, checkpoint: TrainingCheckpoint) -> None:
    """Write a training checkpoint; the old one stays until the new one is complete on disk.

    Raises:
        CheckpointError: the file cannot be written.
    """
    net = checkpoint.net
    payload = {
        "format": FORMAT,
        "kind": "repsr" if isinstance(net, RepSR) else "plain",
        "spec": asdict(net.spec),
        "block": {"expansion": net.expansion, "norm": net.norm, "frozen": net.bn_frozen}
        if isinstance(net, RepSR)
        else {},
        "net": net.state_dict(),
        "average": checkpoint.average.state_dict(),
        "recipe": checkpoint.recipe,
        "step": checkpoint.step,
        "optimizer": checkpoint.optimizer,
        "progress": checkpoint.progress,
    }
    partial = path.with_name(f".{path.name}.partial")
    try:
        torch.save(payload, partial)
        _replace(path, partial)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(path, f"cannot be written ({error})", "Check the folder and the free space.") from error
    finally:
        partial.unlink(missing_ok=True)


def _check_archive(path: Path) -> None:
    """Refuse an archive that would unpack to more than it is: PyTorch stores its records as they are.

    Raises:
        CheckpointError: records are compressed, or lie over one another.
        zipfile.BadZipFile: it is no archive at all, or a damaged one.
    """
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise CheckpointError(path, "is a compressed archive, which PyTorch does not write", ACCEPTED)
    if sum(record.file_size for record in records) > path.stat().st_size:
        raise CheckpointError(path, "is an archive that claims to hold more than it does", "Get the file again.")


def _check_size(path: Path, *states: Mapping[str, Tensor]) -> None:
    """Refuse tensors that repeat what is stored: a few bytes could stand for any number of weights.

    Raises:
        CheckpointError: there are more numbers than the file has bytes.
    """
    if sum(value.numel() for state in states for value in state.values()) > path.stat().st_size:
        raise CheckpointError(path, "claims more weights than it has bytes", "Get the file again.")


def _load_pickle(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            is_archive = file.read(4) == b"PK\x03\x04"
        if is_archive:
            _check_archive(path)
        # A file object, since torch.load picks another reader by a path's suffix.
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(path, "no such file") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            path, "holds more than tensors and plain values, or is damaged, and is not loaded", ACCEPTED
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError,
            AssertionError, ImportError, MemoryError, zipfile.BadZipFile, struct.error) as error:  # fmt: skip
        raise CheckpointError(path, "is not a readable checkpoint", ACCEPTED) from error


def _is_training(payload: Any) -> bool:
    return isinstance(payload, dict) and {"format", "kind", "spec", "average", "recipe"} <= set(payload)


def _restore(path: Path, payload: dict[str, Any]) -> TrainingCheckpoint:
    if payload["format"] != FORMAT:
        raise CheckpointError(path, f"has format {payload['format']!r}, not {FORMAT}", "Use the version that wrote it.")
    try:
        spec = Spec(**payload["spec"])
        block = payload["block"]

        def blank() -> RepSR | PlainSR:
            if payload["kind"] != "repsr":
                return PlainSR(spec)
            net = RepSR(spec, block["expansion"], block["norm"])
            if block["frozen"]:
                net.freeze_bn()
            return net

        networks: list[RepSR | PlainSR] = []
        _check_size(path, payload["net"], payload["average"])
        for key in ("net", "average"):
            if spec.blocks > len(payload[key]):
                raise ValueError(f"{len(payload[key])} tensors for {spec.blocks} blocks")
            with torch.device("meta"):  # where a network takes no memory: first see that its shapes are those stored
                blank().load_state_dict(payload[key], assign=True)
            net = blank()
            net.load_state_dict(payload[key])
            networks.append(net)
        return TrainingCheckpoint(
            net=networks[0],
            average=networks[1],
            recipe=payload["recipe"],
            step=payload["step"],
            optimizer=payload["optimizer"],
            progress=payload["progress"],
        )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(path, f"is a damaged training checkpoint ({error})", "Take an older one.") from error


def load_training(path: Path) -> TrainingCheckpoint:
    """Read a training checkpoint, onto the CPU.

    Raises:
        CheckpointError: missing, damaged, or not a training checkpoint.
    """
    payload = _load_pickle(path)
    if not _is_training(payload):
        raise CheckpointError(path, "is not a training checkpoint", "repsr train writes them as RUN/last.pt.")
    return _restore(path, payload)


def save_plain(path: Path, net: PlainSR, metadata: Mapping[str, str]) -> None:
    """Write a fused network as safetensors in the Compact layout.

    Args:
        path: target; replaced only when the new file is complete.
        net: the network.
        metadata: strings that travel in the file (recipe, step, source digest, licence, ...); ``spec`` is added.

    Raises:
        CheckpointError: the file cannot be written.
    """
    from safetensors.torch import save_file

    state = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    spec = json.dumps(asdict(net.spec))
    partial = path.with_name(f".{path.name}.partial")
    try:
        save_file(state, partial, {"format": "pt", "architecture": "Compact", "spec": spec, **metadata})
        _replace(path, partial)
    except OSError as error:
        raise CheckpointError(path, f"cannot be written ({error})", "Check the folder and the free space.") from error
    except Exception as error:
        # safetensors raises its own type for a full disk or a missing folder; anything else is a bug and goes on up.
        if type(error).__name__ != "SafetensorError":
            raise
        raise CheckpointError(path, f"cannot be written ({error})", "Check the folder and the free space.") from error
    finally:
        partial.unlink(missing_ok=True)


def _load_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with path.open("rb") as start:
            length = int.from_bytes(start.read(8), "little")
        if length > MAX_HEADER:
            raise CheckpointError(path, f"has a header of {length} bytes, more than {MAX_HEADER}", ACCEPTED)
        with safe_open(path, framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except FileNotFoundError as error:
        raise CheckpointError(path, "no such file") from error
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:  # the last where no more files may be opened
        raise CheckpointError(path, f"is not a readable safetensors file ({error})", ACCEPTED) from error


def read_metadata(path: Path) -> dict[str, str]:
    """The strings stored in a safetensors file.

    Raises:
        CheckpointError: missing or damaged.
    """
    return _load_safetensors(path)[1]


def _unwrap(payload: Any) -> dict[str, Tensor]:
    """The tensors of a foreign file, without wrapper and without a ``module.`` prefix."""
    for _ in range(4):  # a dictionary may hold itself
        if not isinstance(payload, Mapping) or any(isinstance(value, Tensor) for value in payload.values()):
            break
        payload = next((payload[key] for key in WRAPPERS if isinstance(payload.get(key), Mapping)), None)
    if not isinstance(payload, Mapping):
        return {}
    return {
        re.sub(r"^(module|netG)\.", "", key): value
        for key, value in payload.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }


def infer_spec(state: Mapping[str, Tensor]) -> Spec | str:
    """What Compact network a set of tensors is, or a phrase saying why it is none."""
    found = f"{len(state)} tensors, first {sorted(state)[:3]}"
    if "body.0.weight" not in state or "body.1.weight" not in state:
        return f"no Compact network ({found})"
    if not all(re.fullmatch(r"body\.[0-9]{1,6}\.(weight|bias)", key) for key in state):
        return f"no Compact network: unexpected keys ({found})"
    last = max(int(key.split(".")[1]) for key in state)
    if last % 2 or last < 2:
        return f"no Compact network: it ends in layer {last}, where a convolution was expected"
    if last > len(state):
        return f"no Compact network: {len(state)} tensors for {last + 1} layers"
    for key, value in state.items():
        if not value.is_floating_point() or value.layout != torch.strided or value.is_meta:
            return f"no Compact network: {key} holds {value.dtype}, {value.layout} on {value.device}"
    head = state["body.0.weight"]
    if head.ndim != 4 or head.shape[2:] != (3, 3):
        return f"no Compact network: its first layer has shape {tuple(head.shape)}, where (C, 3, 3, 3) was expected"
    channels, colors = head.shape[:2]
    expected: dict[str, tuple[int, ...]] = {}
    out = state.get(f"body.{last}.bias")
    outputs = out.shape[0] if out is not None and out.ndim == 1 else 0
    for layer in range(last + 1):
        if layer % 2:
            expected[f"body.{layer}.weight"] = (channels,)
        else:
            width = outputs if layer == last else channels
            expected[f"body.{layer}.weight"] = (width, colors if layer == 0 else channels, 3, 3)
            expected[f"body.{layer}.bias"] = (width,)
    if set(expected) != set(state):
        odd = sorted(set(expected) ^ set(state))
        return f"no Compact network with PReLU: missing or extra {', '.join(odd[:3])}"
    for key, shape in expected.items():
        if tuple(state[key].shape) != shape:
            return f"no Compact network: {key} has shape {tuple(state[key].shape)}, where {shape} was expected"
    scale = round((outputs / colors) ** 0.5)
    if colors not in (1, 3) or scale < 1 or colors * scale**2 != outputs:
        return f"a Compact network from {colors} to {outputs} channels, which is no enlargement of grey or RGB"
    return Spec(scale=scale, channels=channels, blocks=last // 2 - 1, colors=colors)


def load_plain(path: Path) -> PlainSR:
    """Read a network to upscale with: fused, foreign Compact, or a training checkpoint (its average, fused).

    Args:
        path: the file; what it holds decides, not its name.

    Returns:
        A float32 network on the CPU in eval mode.

    Raises:
        CheckpointError: missing, damaged, unsafe, or another architecture; the message says what was found.
    """
    if not path.is_file():
        raise CheckpointError(path, "no such file" if not path.exists() else "is a folder", ACCEPTED)
    with path.open("rb") as file:
        head = file.read(9)
    if len(head) == 9 and head[8:] == b"{":
        state = _unwrap(_load_safetensors(path)[0])
    else:
        payload = _load_pickle(path)
        if _is_training(payload):
            average = _restore(path, payload).average
            return (fuse(average) if isinstance(average, RepSR) else average).eval()
        state = _unwrap(payload)
    spec = infer_spec(state)
    if isinstance(spec, str):
        raise CheckpointError(path, f"holds {spec}", ACCEPTED)
    _check_size(path, state)
    net = PlainSR(spec)
    net.load_state_dict({key: value.float() for key, value in state.items()})
    if not all(bool(torch.isfinite(parameter).all()) for parameter in net.parameters()):
        raise CheckpointError(path, "holds weights that are not finite", "Get the file again.")
    return net.eval()
