"""Declare options on the fields that hold their values, and parse what users type.

A group of options is a frozen dataclass whose fields are made by ``option``. The command line, its help and
docs/options.md are generated from these declarations.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from fractions import Fraction
from typing import Any

from repsr_cli.errors import UsageError


@dataclass(frozen=True, slots=True)
class Option:
    """How a field appears on the command line.

    Attributes:
        flags: e.g. ``-s`` and ``--scale``.
        help: a noun phrase or a short sentence.
        panel: heading in the help; None: no heading of its own.
        metavar: what stands for the value in the help; None: the name in capitals.
        parse: makes the value from (flag, text), where a text is typed for it; None: Typer does.
        repeated: may be given several times; ``parse`` then gets a list of texts.
        aliases: flags that work but are not shown.
        minimum: smallest number allowed.
    """

    flags: tuple[str, ...]
    help: str
    panel: str | None = None
    metavar: str | None = None
    parse: Callable[[str, Any], Any] | None = None
    repeated: bool = False
    aliases: tuple[str, ...] = ()
    minimum: int | None = None

    @property
    def name(self) -> str:
        """The flag that messages name: the first long one."""
        return next((flag for flag in self.flags if flag.startswith("--")), self.flags[0])


def option(*flags: str, default: Any = None, factory: Callable[[], Any] | None = None, **declared: Any) -> Any:
    """A dataclass field that is an option.

    Args:
        flags: as in ``Option``.
        factory: makes the default where it is mutable.
        declared: the other attributes of ``Option``.
    """
    metadata = {"option": Option(flags, **declared)}
    if factory is not None:
        return field(default_factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata)


def shared(group: type[Any], name: str, **changed: Any) -> Any:
    """A field for another group that is the same option.

    Args:
        changed: attributes of ``Option`` that differ.
    """
    ((found, declared),) = (each for each in declared_options(group) if each[0].name == name)
    return field(default=found.default, metadata={"option": replace(declared, **changed)})


def declared_options(group: type[Any]) -> Iterator[tuple[Field[Any], Option]]:
    """The fields of a group that are options, in order."""
    for each in fields(group):
        if "option" in each.metadata:
            yield each, each.metadata["option"]


def default_of(each: Field[Any]) -> Any:
    """The value of a field where nothing is given."""
    return each.default if each.default_factory is MISSING else each.default_factory()


def parse_scale(flag: str, text: str) -> float:
    """A factor from ``4``, ``1.5``, ``4x`` or ``x4``."""
    number = re.sub(r"^[xX×]|[xX×]$", "", text.strip())
    try:
        return float(number)
    except ValueError as error:
        raise UsageError(f"{flag} {text}", "not a factor of 1 or more", "Try -s 2, -s 4 or -s 1.5.") from error


def parse_box(flag: str, text: str) -> tuple[int, int]:
    """(height, width) from ``1920x1080``, which names the width first."""
    match = re.fullmatch(r"([0-9]+)[xX×]([0-9]+)", text)
    if match is None:
        raise UsageError(f"{flag} {text}", "not a width and a height", f"Try {flag} 1920x1080.")
    return int(match[2]), int(match[1])


def parse_seconds(flag: str, text: str) -> float:
    """Seconds from ``90``, ``90.5``, ``1:30`` or ``1:02:03.5``."""
    match = re.fullmatch(r"(?:(?:([0-9]+):)?([0-9]+):)?([0-9]+(?:\.[0-9]*)?)", text)
    if match is None:
        raise UsageError(f"{flag} {text}", "not a time", f"Try {flag} 90 or {flag} 1:30.")
    hours, minutes, seconds = match.groups()
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds)


def parse_rate(flag: str, text: str) -> Fraction:
    """Frames per second from ``24``, ``23.976`` or ``24000/1001``."""
    if not re.fullmatch(r"[0-9]+(\.[0-9]+|/[1-9][0-9]*)?", text) or not Fraction(text):
        raise UsageError(f"{flag} {text}", "not a rate", f"Try {flag} 24 or {flag} 24000/1001.")
    return Fraction(text)


def parse_pairs(flag: str, texts: list[str]) -> dict[str, str]:
    """Encoder options from ``key=value`` texts.

    Raises:
        UsageError: a text has no ``=`` or no key.
    """
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise UsageError(f"{flag} {text}", "not of the form key=value", f"Try {flag} tune=video.")
        pairs[key] = value
    return pairs
