"""Turn groups of declared options into the parameters of a Typer command."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import Field, fields, is_dataclass
from typing import Annotated, Any, get_type_hints

import typer

from repsr_cli.options import Option, declared_options, default_of


def grouped(command: Callable[..., None], without: frozenset[str] = frozenset()) -> Callable[..., None]:
    """Let a command take groups of options: each parameter that is annotated with one becomes its options.

    Args:
        command: a function whose other parameters are Typer's. A group is a dataclass of ``option`` fields, or of such
            groups.
        without: names of fields that this command does not offer; they keep their defaults.
    """
    hints = get_type_hints(command, include_extras=True)
    hints.pop("return", None)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    own = inspect.signature(command).parameters
    left_out = without | {f"{name}_alias" for name in without}
    parameters = [own[name].replace(annotation=hints[name]) for name in hints if name not in groups]
    for group in groups.values():
        parameters += [each for each in _parameters(group) if each.name not in left_out]

    @functools.wraps(command)
    def wrapped(**given: Any) -> None:
        made = {name: _collected(group, given) for name, group in groups.items()}
        command(**{name: value for name, value in given.items() if name in hints}, **made)

    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapped


@functools.cache
def _parameters(group: type[Any]) -> list[inspect.Parameter]:
    """The Typer parameters of a group and of the groups within it, hidden aliases last."""
    hints = get_type_hints(group)
    shown = [parameter for inner in _inner(group) for parameter in _parameters(hints[inner.name])]
    hidden = []
    for each, declared in declared_options(group):
        kind = hints[each.name]
        if declared.parse is not None:
            kind = list[str] | None if declared.repeated else str | None
        default = None if declared.parse is not None else default_of(each)
        shown.append(_parameter(each.name, kind, default, declared, declared.flags))
        if declared.aliases:
            hidden.append(_parameter(_alias(each), kind, None, declared, declared.aliases))
    return shown + hidden


def _parameter(name: str, kind: Any, default: Any, declared: Option, flags: tuple[str, ...]) -> inspect.Parameter:
    info = typer.Option(
        *flags,
        help=declared.help,
        metavar=declared.metavar,
        min=declared.minimum,
        rich_help_panel=declared.panel,
        hidden=flags == declared.aliases,
    )
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info])


def _collected(group: type[Any], given: Mapping[str, Any]) -> Any:
    """A group with the values that were given.

    Raises:
        UsageError: a text that its option does not take.
    """
    hints = get_type_hints(group)
    values = {inner.name: _collected(hints[inner.name], given) for inner in _inner(group)}
    for each, declared in declared_options(group):
        if each.name not in given:
            continue
        value = given[each.name]
        if declared.aliases and given[_alias(each)] is not None:
            value = given[_alias(each)]
        if declared.parse is not None:
            if value in (None, []):
                continue
            value = declared.parse(declared.name, value)
        values[each.name] = value
    return group(**values)


def _inner(group: type[Any]) -> list[Field[Any]]:
    return [each for each in fields(group) if "option" not in each.metadata]


def _alias(each: Field[Any]) -> str:
    return f"{each.name}_alias"
