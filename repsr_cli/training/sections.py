"""Build frozen dataclasses from the sections of TOML files, checking names and types."""

from __future__ import annotations

import dataclasses
import difflib
import reprlib
import tomllib
import types
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from repsr_cli.errors import RecipeError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

# What BasicSR's option files call the keys of a recipe.
BASICSR_WORDS = {
    "total_iter": "schedule.steps",
    "warmup_iter": "schedule.warmup",
    "gt_size": "batch.patch (in LR px: gt_size / scale)",
    "batch_size_per_gpu": "batch.size",
    "dataroot_gt": "data.train",
    "ema_decay": "ema.decay",
    "val_freq": "validation.every",
    "pretrain_network_g": "run.start_from",
    "num_feat": "network.channels",
    "num_conv": "network.blocks",
}
# A number of a recipe is below this; what a network of this kind could ever need is far below.
MOST = 2**63


def read_toml(path: Path, what: str, examples: str) -> dict[str, Any]:
    """The values of a TOML file.

    Args:
        what: the word for such a file in messages.
        examples: the folder that has some.

    Raises:
        RecipeError: no such file, or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(path, f"no such {what}", f"Give the path of a TOML file; {examples} has examples.") from error
    except (OSError, ValueError) as error:  # not UTF-8, not TOML, or an integer of thousands of digits
        raise RecipeError(path, f"cannot be read ({error})", f"A {what} is a TOML file.") from error
    except RecursionError as error:
        raise RecipeError(path, "is nested too deeply", f"A {what} has sections of values.") from error


def toml_value(text: str) -> Any:
    """The value that a text stands for in TOML; a bare word is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits, or deep nesting
        raise RecipeError(reprlib.repr(text), "is not a value of a recipe") from error


def build_section(kind: type[T], values: dict[str, Any], subject: str, section: str = "") -> T:
    """Build a frozen dataclass of sections from nested plain values, checking names and types.

    Args:
        kind: the dataclass; fields may be dataclasses, tuples, literals and plain values.
        values: what a TOML file holds.
        subject: names it in errors.
        section: where the values stand in the file; empty at the top.

    Raises:
        RecipeError: an unknown or missing key, or a value of the wrong type.
    """
    fields = {f.name: f for f in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    place = f"[{section}]" if section else "the recipe"
    for key in values:
        if key not in fields:
            if key in BASICSR_WORDS:
                remedy = f"This recipe spells it {BASICSR_WORDS[key]}."
            else:
                near = difflib.get_close_matches(key, fields, n=1)
                remedy = f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(fields)}."
            raise RecipeError(subject, f"unknown key '{key}' in {place}", remedy)
    arguments: dict[str, Any] = {}
    for name, item in fields.items():
        if name in values:
            where = f"{section}.{name}" if section else name
            arguments[name] = _convert(hints[name], values[name], subject, where)
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise RecipeError(subject, f"'{name}' is missing in {place}", "Add it.")
    return kind(**arguments)


def _convert(hint: Any, value: Any, subject: str, where: str) -> Any:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise RecipeError(subject, f"'{where}' must be a section", f"Write [{where}].")
        return build_section(hint, value, subject, where)
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value not in options:
            raise RecipeError(
                subject, f"{where} = {_shown(value)} is unknown", f"Known: {', '.join(map(str, options))}."
            )
        return value
    if origin is tuple and options[1:] == (...,):
        if not isinstance(value, list | tuple):
            raise RecipeError(subject, f"{where} must be a list")
        return tuple(_convert(options[0], v, subject, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is tuple:
        if not isinstance(value, list | tuple) or len(value) != len(options):
            raise RecipeError(subject, f"{where} must be a list of {len(options)} values")
        return tuple(_convert(o, v, subject, where) for o, v in zip(options, value, strict=True))
    assert not isinstance(hint, types.UnionType)
    is_number = hint in (int, float) and type(value) in (int, float)
    if is_number and not abs(value) < MOST:
        sign = "-" if value < 0 else ""
        shown = value if isinstance(value, float) else f"{sign}2^{abs(value).bit_length() - 1} or more"
        raise RecipeError(subject, f"{where} must be a finite number below 2^63, not {shown}")
    if is_number and hint is float:
        return float(value)
    if type(value) is not hint:
        raise RecipeError(subject, f"{where} must be {hint.__name__}, not {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    """A value in short; an integer of any length has no decimal digits to show."""
    try:
        return reprlib.repr(value)
    except ValueError:
        return "an integer of thousands of digits"
