"""Save and load networks. Loading runs no code and needs memory in proportion to the file.

Three kinds of file:

* fused models: safetensors in the Compact key layout, metadata as strings (``spec`` is JSON);
* training checkpoints: ``.pt`` with primitives and tensors only, read with ``weights_only=True``;
* Compact files of other projects, ``.pth`` or safetensors, keys bare or under one of ``WRAPPERS``.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import reprlib
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from repsr_cli.errors import CheckpointError, shortage
from repsr_cli.files import write_bytes, writing
from repsr_cli.model.arrays import digest_of
from repsr_cli.model.pickles import UnsafePickle, check_pickle, count_values
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.repsr import RepSR, fuse
from repsr_cli.model.spec import Spec

FORMAT = 1
# A header holds names, shapes and a few strings: that of 10,000 layers is far smaller.
MAX_HEADER = 8 << 20
# In the metadata of a fused model: a digest of its weights.
_DIGEST = "weights_digest"
WRAPPERS = ("params_ema", "params-ema", "params", "model_state_dict", "state_dict", "model", "net", "net_g")
# What reading a damaged file raises, in torch, in zipfile and here.
_UNREADABLE = (OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError,
               AssertionError, ImportError, MemoryError, zipfile.BadZipFile, struct.error)  # fmt: skip
ACCEPTED = "Accepted: models fused by repsr, repsr training checkpoints, and Compact (SRVGGNetCompact, PReLU) files."


@dataclass(slots=True)
class TrainingCheckpoint:
    """A training run at one step.

    Attributes:
        net: the network as it trains: ``RepSR``, or ``PlainSR`` for the plain arm.
        ema: its exponential moving average, which is what gets fused and shipped.
        recipe: the resolved recipe, nested plain values.
        progress: the loop's other state, counters and best figures, as plain values.
        images: digests of the images it trains and validates on; empty in checkpoints of earlier versions.
    """

    net: RepSR | PlainSR
    ema: RepSR | PlainSR
    recipe: dict[str, Any]
    step: int
    optimizer: dict[str, Any] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)
    images: str = ""


def save_training(path: Path, checkpoint: TrainingCheckpoint) -> None:
    """Write a training checkpoint; an older one is replaced once the new one is complete on disk."""
    net = checkpoint.net
    payload = {
        "format": FORMAT,
        "kind": "repsr" if isinstance(net, RepSR) else "plain",
        "spec": asdict(net.spec),
        "block": {"expansion": net.expansion, "norm": net.norm, "frozen": net.bn_frozen}
        if isinstance(net, RepSR)
        else {},
        "net": net.state_dict(),
        "average": checkpoint.ema.state_dict(),
        "recipe": checkpoint.recipe,
        "step": checkpoint.step,
        "optimizer": checkpoint.optimizer,
        "progress": checkpoint.progress,
        "images": checkpoint.images,
    }
    try:
        with writing(path, overwrite=True, failure=CheckpointError) as file:
            torch.save(payload, file)
    except RuntimeError as error:  # how torch reports that writing failed
        raise CheckpointError(path, f"cannot be written ({error})", "Check the folder and the free space.") from error


def _checked_archive(path: Path, file: BinaryIO) -> BinaryIO:
    """A copy in memory of an archive whose records are uncompressed, as PyTorch stores them, and pass their checksums.

    torch reads the copy: its reader compares no checksums, and follows another directory than zipfile in a file that
    has two.

    Raises:
        CheckpointError: records are compressed, overlap, or are not what was written; or the pickle is refused.
        zipfile.BadZipFile: not an archive, or a damaged one.
    """
    copy = BytesIO()
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(copy, "w") as checked:
        records = archive.infolist()
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise CheckpointError(path, "is a compressed archive, which PyTorch does not write", ACCEPTED)
        if sum(record.file_size for record in records) > os.fstat(file.fileno()).st_size:
            raise CheckpointError(path, "is an archive that claims to hold more than it does", "Get the file again.")
        if len({record.filename for record in records}) < len(records):
            raise CheckpointError(path, "is an archive with two records of one name", "Get the file again.")
        if not any(record.CRC for record in records):
            # Written without checksums (torch.serialization.set_crc32_options): then zipfile must not compare them.
            for record in records:
                record.CRC = None  # type: ignore[assignment]
        for record in records:
            checked.writestr(record.filename, _record(path, archive, record))
        for record in records:
            folder, _, name = record.filename.rpartition("/")
            if name == "data.pkl":
                start = f"{folder}/data/"
                sizes = {r.filename[len(start) :]: r.file_size for r in records if r.filename.startswith(start)}
                check_pickle(BytesIO(archive.read(record)), sizes)
    copy.seek(0)
    return copy


def _record(path: Path, archive: zipfile.ZipFile, record: zipfile.ZipInfo) -> bytes:
    try:
        return archive.read(record)
    except zipfile.BadZipFile as error:
        raise CheckpointError(
            path, f"is damaged: {record.filename} is not what was written ({error})", "Use an older one, or a copy."
        ) from error


def _check_legacy(file: BinaryIO) -> None:
    """Check the pickles of a file from before PyTorch 1.6: a magic number, a version, the system, the data, the keys.

    Raises:
        UnsafePickle: one is refused.
    """
    for _ in range(5):
        check_pickle(file)
    file.seek(0)


def _check_size(path: Path, payload: Any) -> None:
    """Refuse tensors that repeat stored values: a few bytes could expand to any number of weights."""
    if count_values(payload) > path.stat().st_size:
        raise CheckpointError(path, "claims more weights than it has bytes", "Get the file again.")


def _load_pickle(path: Path, device: str = "cpu") -> Any:
    """The content of a file that torch.save wrote; on ``meta``, tensors have shapes but no values."""
    try:
        # A file object, since torch.load picks another reader by a path's suffix.
        with path.open("rb") as file:
            if file.read(4) == b"PK\x03\x04":
                payload = torch.load(_checked_archive(path, file), map_location=device, weights_only=True)
            else:
                file.seek(0)
                _check_legacy(file)
                payload = torch.load(file, map_location=device, weights_only=True)
        _check_size(path, payload)
        return payload
    except FileNotFoundError as error:
        raise CheckpointError(path, "no such file") from error
    except (UnsafePickle, pickle.UnpicklingError) as error:
        happened = "holds more than tensors and plain values, or is damaged, and is not loaded"
        raise CheckpointError(path, happened, ACCEPTED) from error
    except _UNREADABLE as error:
        raise shortage(error, path) or CheckpointError(path, "is not a readable checkpoint", ACCEPTED) from error


def _is_training(payload: Any) -> bool:
    return isinstance(payload, dict) and {"format", "kind", "spec", "average", "recipe"} <= set(payload)


def _check_format(path: Path, payload: dict[str, Any]) -> None:
    if type(payload["format"]) is not int or payload["format"] != FORMAT:
        raise CheckpointError(
            path, f"has format {reprlib.repr(payload['format'])}, not {FORMAT}", "Use the version that wrote it."
        )


def damaged(path: Path, error: Exception) -> CheckpointError:
    """The error for a training checkpoint whose parts do not make up a run."""
    return CheckpointError(path, f"is a damaged training checkpoint ({error})", "Use an older one.")


def _network(payload: dict[str, Any], key: str) -> RepSR | PlainSR:
    """A network of a training checkpoint."""
    spec, state = Spec(**payload["spec"]), payload[key]
    if spec.blocks > len(state):
        raise ValueError(f"{len(state)} tensors for {spec.blocks} blocks")
    with torch.device("meta"):  # takes no memory: check that the shapes are those stored
        _blank(spec, payload).load_state_dict(state, assign=True)
    net = _blank(spec, payload)
    net.load_state_dict(state)
    return net


def _blank(spec: Spec, payload: dict[str, Any]) -> RepSR | PlainSR:
    """A network of the form that a training checkpoint describes, without its weights."""
    block = payload["block"]
    if payload["kind"] != "repsr":
        return PlainSR(spec)
    net = RepSR(spec, block["expansion"], block["norm"])
    if block["frozen"]:
        net.freeze_bn()
    return net


def _restore(path: Path, payload: dict[str, Any]) -> TrainingCheckpoint:
    _check_format(path, payload)
    try:
        _check_types(payload)
        return TrainingCheckpoint(
            net=_network(payload, "net"),
            ema=_network(payload, "average"),
            recipe=payload["recipe"],
            step=payload["step"],
            optimizer=payload["optimizer"],
            progress=payload["progress"],
            images=payload.get("images", ""),
        )
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError, ArithmeticError) as error:
        raise damaged(path, error) from error


def _check_types(payload: dict[str, Any]) -> None:
    """Check what the parts of a training checkpoint are.

    Raises:
        KeyError: a part is missing.
        TypeError: a part is something else.
    """
    expected = {"spec": dict, "block": dict, "net": Mapping, "average": Mapping, "recipe": dict, "step": int}
    for key, kind in (expected | {"optimizer": dict, "progress": dict}).items():
        if not isinstance(payload[key], kind):
            raise TypeError(f"'{key}' is {type(payload[key]).__name__}")
    for key in ("net", "average"):
        for name, value in payload[key].items():
            if not isinstance(name, str) or not isinstance(value, Tensor) or value.layout != torch.strided:
                raise TypeError(f"'{key}' holds something that is not a tensor with a name")
    if not all(isinstance(section, dict) for section in payload["recipe"].values()):
        raise TypeError("'recipe' has no sections")
    if not isinstance(payload.get("images", ""), str):
        raise TypeError("'images' is not a digest")


def load_training(path: Path) -> TrainingCheckpoint:
    """Read a training checkpoint, onto the CPU.

    Raises:
        CheckpointError: missing, damaged, or not a training checkpoint.
    """
    payload = _load_pickle(path)
    if not _is_training(payload):
        raise CheckpointError(path, "is not a training checkpoint", "repsr train writes them as RUN/last.pt.")
    return _restore(path, payload)


def plain_bytes(net: PlainSR, metadata: Mapping[str, str]) -> bytes:
    """A plain network as the content of a safetensors file in the Compact layout; arguments as ``save_plain``."""
    from safetensors.torch import save

    state = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    spec = json.dumps(asdict(net.spec))
    strings = {"format": "pt", "architecture": "Compact", "spec": spec, **metadata, _DIGEST: _digest(state)}
    # The format's strings are UTF-8, which a file's name need not be.
    strings = {name: value.encode("utf-8", "backslashreplace").decode() for name, value in strings.items()}
    content: bytes = save(state, strings)
    # The library writes its metadata in any order; files of equal content have equal bytes here.
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[end:]


def _digest(state: Mapping[str, Tensor]) -> str:
    """A digest of tensors, whatever their order."""
    return digest_of((name, state[name].numpy()) for name in sorted(state))


def _stored_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, without prefixes, and as they were written where the file tells.

    Files of other projects have no digest, and those that were converted to other numbers have that of the original.
    """
    with _open_safetensors(path) as file:
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        digest = (file.metadata() or {}).get(_DIGEST)
    alike = all(value.dtype == torch.float32 for value in state.values())
    if digest is not None and alike and digest != _digest(state):
        happened = f"is damaged: its weights are not those that its {_DIGEST} was made of"
        raise CheckpointError(path, happened, f"Use a copy. If the weights were changed on purpose, remove {_DIGEST}.")
    return {_bare(key): value for key, value in state.items()}


def save_plain(path: Path, net: PlainSR, metadata: Mapping[str, str], *, overwrite: bool = True) -> None:
    """Write a plain network as safetensors in the Compact layout.

    Args:
        path: target; replaced only when the new file is complete.
        metadata: strings to store in the file (recipe, step, source digest, licence, ...); ``spec`` is added.

    Raises:
        UsageError: the file exists and ``overwrite`` is false.
    """
    write_bytes(path, plain_bytes(net, metadata), overwrite=overwrite, failure=CheckpointError)


@contextmanager
def _open_safetensors(path: Path) -> Iterator[Any]:
    """A safetensors file whose header was read and whose tensors were not."""
    from safetensors import SafetensorError, safe_open

    try:
        with path.open("rb") as start:
            length = int.from_bytes(start.read(8), "little")
        if length > MAX_HEADER:
            raise CheckpointError(path, f"has a header of {length} bytes, more than {MAX_HEADER}", ACCEPTED)
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except FileNotFoundError as error:
        raise CheckpointError(path, "no such file") from error
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:  # the last: too many open files
        happened = f"is not a readable safetensors file ({error})"
        raise shortage(error, path) or CheckpointError(path, happened, ACCEPTED) from error


def read_metadata(path: Path) -> dict[str, str]:
    """The strings stored in a safetensors file, sorted by name; safetensors gives them in another order every time.

    Raises:
        CheckpointError: missing or damaged.
    """
    with _open_safetensors(path) as file:
        return dict(sorted((file.metadata() or {}).items()))


def _unwrap(payload: Any) -> dict[str, Tensor]:
    """The tensors of a file from another project, without wrapper and without a ``module.`` prefix."""
    for _ in range(4):  # a dictionary may contain itself
        if not isinstance(payload, Mapping) or any(isinstance(value, Tensor) for value in payload.values()):
            break
        payload = next((payload[key] for key in WRAPPERS if isinstance(payload.get(key), Mapping)), None)
    if not isinstance(payload, Mapping):
        return {}
    return {_bare(key): value for key, value in payload.items() if isinstance(key, str) and isinstance(value, Tensor)}


def _bare(key: str) -> str:
    return re.sub(r"^(module|netG)\.", "", key)


def infer_spec(shapes: Mapping[str, Sequence[int]]) -> Spec | str:
    """The Compact network that a set of tensors makes up, or a phrase saying why it is not one.

    Args:
        shapes: of the tensors, by key.
    """
    found = f"{len(shapes)} tensors, first {sorted(shapes)[:3]}"
    if "body.0.weight" not in shapes or "body.1.weight" not in shapes:
        return f"not a Compact network ({found})"
    if not all(re.fullmatch(r"body\.[0-9]{1,6}\.(weight|bias)", key) for key in shapes):
        return f"not a Compact network: unexpected keys ({found})"
    last = max(int(key.split(".")[1]) for key in shapes)
    if last % 2 or last < 2:
        return f"not a Compact network: it ends in layer {last}, where a convolution was expected"
    if last > len(shapes):
        return f"not a Compact network: {len(shapes)} tensors for {last + 1} layers"
    head = tuple(shapes["body.0.weight"])
    if len(head) != 4 or head[2:] != (3, 3):
        return f"not a Compact network: its first layer has shape {head}, where (C, 3, 3, 3) was expected"
    channels, colors = head[:2]
    if channels < 1 or colors not in (1, 3):
        return f"not a Compact network: its first layer has shape {head}, where 1 or 3 colours were expected"
    bias = shapes.get(f"body.{last}.bias", ())
    outputs = bias[0] if len(bias) == 1 else 0
    unexpected = _unexpected_shape(shapes, _compact_shapes(last, channels, colors, outputs))
    if unexpected:
        return unexpected
    scale = round((outputs / colors) ** 0.5)
    if scale < 1 or colors * scale**2 != outputs:
        return f"a Compact network from {colors} to {outputs} channels, which does not enlarge grey or RGB images"
    return Spec(scale=scale, channels=channels, blocks=last // 2 - 1, colors=colors)


def _compact_shapes(last: int, channels: int, colors: int, outputs: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of a Compact network whose last layer has the index ``last``."""
    expected: dict[str, tuple[int, ...]] = {}
    for layer in range(last + 1):
        if layer % 2:
            expected[f"body.{layer}.weight"] = (channels,)
        else:
            width = outputs if layer == last else channels
            expected[f"body.{layer}.weight"] = (width, colors if layer == 0 else channels, 3, 3)
            expected[f"body.{layer}.bias"] = (width,)
    return expected


def _unexpected_shape(shapes: Mapping[str, Sequence[int]], expected: Mapping[str, tuple[int, ...]]) -> str:
    """The first difference, as a phrase; empty if there is none."""
    if set(expected) != set(shapes):
        odd = sorted(set(expected) ^ set(shapes))
        return f"not a Compact network with PReLU: missing or extra {', '.join(odd[:3])}"
    for key, shape in expected.items():
        if tuple(shapes[key]) != shape:
            return f"not a Compact network: {key} has shape {tuple(shapes[key])}, where {shape} was expected"
    return ""


class NotCompactError(CheckpointError):
    """A file of tensors that make up no Compact network; another architecture, maybe."""


def _checked_spec(path: Path, shapes: Mapping[str, Sequence[int]]) -> Spec:
    spec = infer_spec(shapes)
    if isinstance(spec, str):
        raise NotCompactError(path, f"is {spec}", ACCEPTED)
    return spec


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a model file by name, prefixes of wrappers removed.

    Raises:
        CheckpointError: missing, damaged, unsafe, or a training checkpoint, which holds more than a model.
    """
    if _is_safetensors(path):
        tensors = _stored_tensors(path)
    else:
        payload = _load_pickle(path)
        if _is_training(payload):
            raise CheckpointError(path, "is a training checkpoint", "Fuse it with repsr fuse.")
        tensors = _unwrap(payload)
    _check_size(path, tensors)
    return tensors


def _is_safetensors(path: Path) -> bool:
    """Whether a file's content starts like safetensors."""
    if not path.is_file():
        raise CheckpointError(path, "no such file" if not path.exists() else "is a folder", ACCEPTED)
    with path.open("rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:] == b"{"


def read_spec(path: Path) -> Spec:
    """The size of the network in a model file, as ``load_plain`` would give it; weights are not kept in memory.

    Raises:
        CheckpointError: as ``load_plain``, except for what only the weights can show.
    """
    if _is_safetensors(path):
        with _open_safetensors(path) as file:
            keys = file.keys()
            return _checked_spec(path, {_bare(key): file.get_slice(key).get_shape() for key in keys})
    payload = _load_pickle(path, "meta")
    if not _is_training(payload):
        return _checked_spec(path, {key: value.shape for key, value in _unwrap(payload).items()})
    _check_format(path, payload)
    try:
        _check_types(payload)
        return Spec(**payload["spec"])
    except (LookupError, TypeError, ValueError) as error:
        raise damaged(path, error) from error


def load_plain(path: Path) -> PlainSR:
    """Read a model to upscale with: fused, Compact, or a training checkpoint (its average, fused).

    Args:
        path: the file; its content decides, not its name.

    Returns:
        A float32 network on the CPU in eval mode.

    Raises:
        CheckpointError: missing, damaged, unsafe, or another architecture; the message says what was found.
    """
    if _is_safetensors(path):
        state = _stored_tensors(path)
    else:
        payload = _load_pickle(path)
        if _is_training(payload):
            ema = _restore(path, payload).ema
            return (fuse(ema) if isinstance(ema, RepSR) else ema).eval()
        state = _unwrap(payload)
    spec = _checked_spec(path, {key: value.shape for key, value in state.items()})
    for key, value in state.items():
        if not value.is_floating_point() or value.layout != torch.strided or value.is_meta:
            happened = f"is not a Compact network: {key} holds {value.dtype}, {value.layout} on {value.device}"
            raise CheckpointError(path, happened, ACCEPTED)
    net = PlainSR(spec)
    net.load_state_dict({key: value.float() for key, value in state.items()})
    if not all(bool(torch.isfinite(parameter).all()) for parameter in net.parameters()):
        raise CheckpointError(path, "holds weights that are not finite", "Get the file again.")
    return net.eval()
