"""Check a pickle that torch.save wrote before torch reads it.

``torch.load(weights_only=True)`` runs no code of a file, but it allows calls that take any amount of memory:
``bytearray(10**10)``, or a thousand sets of one long list. Here only those calls pass that state dictionaries need.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

import torch

_DATA = {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"}
# Operations that make objects of other classes, in ways that torch.save does not use.
_FOREIGN = {"INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "STACK_GLOBAL", "PERSID", "BYTEARRAY8"}
_PUT = {"PUT", "BINPUT", "LONG_BINPUT"}
_GET = {"GET", "BINGET", "LONG_BINGET"}
# Bytes of a value, by the name of its storage.
_VALUE_BYTES = {
    "DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "LongStorage": 8, "IntStorage": 4,
    "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1, "BoolStorage": 1, "UntypedStorage": 1,
    "ComplexFloatStorage": 8, "ComplexDoubleStorage": 16,
}  # fmt: skip
_MOST_DIMENSIONS = 16


class UnsafePickle(Exception):
    """The pickle has a call that no state dictionary needs, or is malformed."""


@dataclass(frozen=True, slots=True)
class _Global:
    """A class or function, by ``module name``."""

    name: str


@dataclass(eq=False, slots=True)
class _Other:
    """A value that is not looked into; ``shared`` where the stack holds it a second time."""

    shared: bool = False


_MARK = _Other()


def check_pickle(file: IO[bytes], records: Mapping[str, int] | None = None) -> None:
    """Read a pickle to its end without making its objects.

    Args:
        file: positioned at the start of the pickle; afterwards at its end.
        records: sizes in bytes of the storages in the archive, by key; None: they are in the same file.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for operation, argument, _position in pickletools.genops(file):
            _apply(operation, argument, stack, memo, records)
    except UnsafePickle:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise UnsafePickle(f"malformed: {error}") from error


def _apply(
    operation: pickletools.OpcodeInfo,
    argument: Any,
    stack: list[Any],
    memo: dict[int, Any],
    records: Mapping[str, int] | None,
) -> None:
    """Do to the stack what unpickling would do, with names in place of objects."""
    name = operation.name
    if name in _FOREIGN:
        raise UnsafePickle(f"has the operation {name}")
    if name == "MARK":
        stack.append(_MARK)
    elif name in _PUT or name == "MEMOIZE":
        memo[len(memo) if name == "MEMOIZE" else int(argument)] = stack[-1]
    elif name in _GET or name == "DUP":
        found = stack[-1] if name == "DUP" else memo[int(argument)]
        stack.append(_Other(shared=True) if isinstance(found, _Other) else found)
    elif name == "GLOBAL":
        stack.append(_checked_global(argument))
    elif name == "REDUCE":
        arguments, function = stack.pop(), stack.pop()
        _check_call(function, arguments)
        stack.append(_Other())
    elif name == "BUILD":
        # It copies a dictionary; one that is used once cannot grow by that.
        if getattr(stack.pop(), "shared", True):
            raise UnsafePickle("sets the attributes of two objects from one dictionary")
    elif name == "BINPERSID":
        _check_storage(stack.pop(), records)
        stack.append(_Other())
    else:
        _move(operation, argument, stack)


def _move(operation: pickletools.OpcodeInfo, argument: Any, stack: list[Any]) -> None:
    """Take from the stack what an operation takes, and put its result there."""
    before, after = operation.stack_before, operation.stack_after
    taken: list[Any] = []
    if pickletools.markobject in before:
        while (top := stack.pop()) is not _MARK:
            taken.append(top)
        before = before[: before.index(pickletools.markobject)]
    containers = [stack.pop() for _ in before]
    if operation.name.startswith(("TUPLE", "EMPTY_TUPLE")):
        stack.append(tuple(reversed(taken or containers)))
    elif containers and after:  # a list or a dictionary that items were put into
        stack.append(containers[-1])
    elif after:
        stack.append(argument if isinstance(argument, str | int) else _Other())


def _checked_global(name: str) -> _Global:
    module, _, attribute = name.partition(" ")
    is_torch = module in ("torch", "torch.storage")
    if name in _DATA or (is_torch and attribute in _VALUE_BYTES):
        return _Global(name)
    if is_torch and isinstance(getattr(torch, attribute, None), torch.dtype):
        return _Global(name)
    raise UnsafePickle(f"needs {name.replace(' ', '.')}")


def _check_call(function: Any, arguments: Any) -> None:
    """Only calls that copy nothing of any length."""
    if not isinstance(function, _Global) or function.name not in _DATA or not isinstance(arguments, tuple):
        raise UnsafePickle("calls something that is not a function for tensors")
    if function.name == "collections OrderedDict" and arguments:
        raise UnsafePickle("copies a dictionary")
    if any(len(each) > _MOST_DIMENSIONS for each in (arguments, *arguments) if isinstance(each, tuple)):
        raise UnsafePickle(f"has a tensor of more than {_MOST_DIMENSIONS} dimensions")


def _check_storage(identifier: Any, records: Mapping[str, int] | None) -> None:
    """The record of a storage is as large as the pickle says: torch's reader relies on it."""
    kind, storage, key, _place, count = identifier[:5]
    size = _VALUE_BYTES.get(storage.name.partition(" ")[2]) if isinstance(storage, _Global) else None
    if kind != "storage" or size is None or not isinstance(count, int) or count < 0:
        raise UnsafePickle("has a storage of an unknown form")
    if records is not None and records.get(str(key), -1) != count * size:
        raise UnsafePickle(f"has a storage of {count} values, whose record is missing or of another size")


def count_values(payload: Any) -> int:
    """The number of values of the different tensors in nested dictionaries, lists and tuples."""
    seen: set[int] = set()
    pending, total = [payload], 0
    while pending:
        value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            total += math.prod(value.shape)
        elif isinstance(value, Mapping):
            pending += value.values()
        elif isinstance(value, list | tuple):
            pending += value
    return total
