"""Interpret the text of the user shaders that glsl.py writes, with NumPy.

It reads passes, statements and weights back from the file, so that a shader can be checked where no Vulkan is
installed. It covers the part of GLSL that those shaders use and refuses everything else. A vector is an array
(components, H, W) over all invocations; a sampler takes the nearest texel and clamps to the edge, as players do.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_COMPONENTS = {letter: index for letters in ("xyzw", "rgba") for index, letter in enumerate(letters)}
_STATEMENT = re.compile(r"(?:(?:i?vec[234]) )?(\w+) (\+?)= (.+);")
_FILL = re.compile(r"tile\[(\d+)\]\[in_tile\.y\]\[in_tile\.x\] = inside \? (.+) : vec[34]\(0\.0\);")
_READ = re.compile(r"v = tile\[(\d+)\]\[own\.y \+ (-?\d)\]\[own\.x \+ (-?\d)\];")
_STORE = re.compile(r"imageStore\(out_image, to \+ ivec2\((\d+), (\d+)\), (.+)\);")
# What only says how threads share the work; every invocation is computed at once here.
_THREADS = re.compile(
    r"shared .+|void hook\(\) \{|ivec2 (size|corner|in_tile|at|own|to) = .+|for \(.+|bool inside = .+|\}|barrier\(\);"
    r"|vec[34] v;|if \(any\(.+return;"
)


class GlslError(ValueError):
    """The text is not of the form that glsl.py writes."""


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass of a user shader: its ``//!`` lines by word, in order, and the lines of its body."""

    directives: tuple[tuple[str, str], ...]
    body: tuple[str, ...]

    def all(self, word: str) -> list[str]:
        """Return the values of every directive of that name."""
        return [value for name, value in self.directives if name == word]

    def factor(self, word: str) -> int:
        """Return the factor of ``HOOKED.w N *`` or ``HOOKED.h N *``."""
        match = re.fullmatch(r"HOOKED\.[wh] (\d+) \*", "".join(self.all(word)))
        if match is None:
            raise GlslError(f"//!{word} {self.all(word)}")
        return int(match[1])


def parse(text: str) -> list[Pass]:
    """Split a user shader into its passes."""
    passes = []
    for part in re.split(r"^(?=//!DESC)", text, flags=re.MULTILINE)[1:]:
        lines = [line.strip() for line in part.splitlines() if line.strip()]
        marked = [line.removeprefix("//!").partition(" ") for line in lines if line.startswith("//!")]
        body = tuple(line for line in lines if not line.startswith("//"))
        passes.append(Pass(tuple((word, value) for word, _, value in marked), body))
    return passes


def run_shader(text: str, image: NDArray[Any], half: bool = False) -> Array:
    """Return ``MAIN`` after all passes.

    Args:
        image: (3, H, W), RGB in [0, 1].
        half: whether textures hold half-precision floats, as players' do.

    Raises:
        GlslError: the shader uses what this interpreter does not know.
    """
    main = np.concatenate([image, np.ones_like(image[:1])]).astype(np.float64)
    textures = {"HOOKED": main}
    for each in parse(text):
        if each.all("HOOK") != ["MAIN"]:
            raise GlslError(f"//!HOOK {each.all('HOOK')}")
        bound = {name: textures[name] for name in each.all("BIND")}
        height, width = main.shape[1] * each.factor("HEIGHT"), main.shape[2] * each.factor("WIDTH")
        run = _run_compute if each.all("COMPUTE") else _run_fragment
        result = run(each, bound, (height, width))
        if half:
            result = result.astype(np.float16).astype(np.float64)
        (save,) = each.all("SAVE") or ["HOOKED"]
        textures[save] = result
    return textures["HOOKED"][:3]


def _grid(height: int, width: int, margin: int = 0) -> Array:
    """Return the coordinates (x, y) of all pixels and of a margin around them, (2, H, W)."""
    x, y = np.meshgrid(np.arange(-margin, width + margin), np.arange(-margin, height + margin))
    return np.stack([x, y]).astype(np.float64)


def _run_fragment(each: Pass, bound: dict[str, Array], size: tuple[int, int]) -> Array:
    scope = _Scope(bound, (_grid(*size) + 0.5) / np.reshape(size[::-1], (2, 1, 1)))
    if each.body[0] != "vec4 hook() {" or each.body[-1] != "}":
        raise GlslError(each.body[0])
    for line in each.body[1:-2]:
        scope.execute(line)
    last = each.body[-2]
    if not last.startswith("return "):
        raise GlslError(last)
    return np.broadcast_to(scope.value(last.removeprefix("return ").removesuffix(";")), (4, *size))


def _run_compute(each: Pass, bound: dict[str, Array], size: tuple[int, int]) -> Array:
    height, width = bound["HOOKED"].shape[1:]
    padded, pixels = _grid(height, width, 1), _grid(height, width)
    scope, out = _Scope(bound, pixels), np.zeros((4, *size))
    scope.names |= {"corner": np.zeros((2, 1, 1)), "own": pixels, "at": padded}
    inside = np.pad(np.ones((1, height, width)), ((0, 0), (1, 1), (1, 1)))
    tiles: dict[int, Array] = {}
    columns, rows = each.factor("WIDTH"), each.factor("HEIGHT")
    for line in each.body:
        if fill := _FILL.fullmatch(line):
            tiles[int(fill[1])] = scope.value(fill[2]) * inside
        elif read := _READ.fullmatch(line):
            y, x = int(read[2]) + 1, int(read[3]) + 1
            scope.names["v"] = tiles[int(read[1])][:, y : y + height, x : x + width]
        elif store := _STORE.fullmatch(line):
            out[:, int(store[2]) :: rows, int(store[1]) :: columns] = scope.value(store[3])
        elif not _THREADS.fullmatch(line):
            scope.execute(line)
    return out


class _Scope:
    """Variables of a pass, and the functions that its textures bring."""

    def __init__(self, textures: dict[str, Array], position: Array) -> None:
        self.names: dict[str, Any] = {}
        self.functions: dict[str, Callable[..., Any]] = dict(_FUNCTIONS)
        for name, texture in textures.items():
            size = np.reshape(texture.shape[:0:-1], (2, 1, 1)).astype(np.float64)
            self.names |= {f"{name}_pos": position, f"{name}_size": size, f"{name}_pt": 1 / size}
            self.names |= {f"{name}_raw": texture, f"{name}_mul": np.ones((1, 1, 1))}
            self.functions[f"{name}_tex"] = _sampler(texture, None)
            self.functions[f"{name}_texOff"] = _sampler(texture, position)

    def execute(self, line: str) -> None:
        """Run an assignment."""
        statement = _STATEMENT.fullmatch(line)
        if statement is None:
            raise GlslError(line)
        name, adds, expression = statement.groups()
        value = self.value(expression)
        self.names[name] = self.names[name] + value if adds else value

    def value(self, expression: str) -> Any:
        """Evaluate an expression; those of GLSL that are used here read as Python's."""
        return self._value(ast.parse(expression, mode="eval").body)

    def _value(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=(int() | float()) as number):
                return np.full((1, 1, 1), float(number))
            case ast.Name(id=name) if name in self.names:
                return self.names[name]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self._value(operand)
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in self.functions:
                return self.functions[name](*map(self._value, arguments))
            case ast.Attribute(value=vector, attr=swizzle):
                return self._value(vector)[[_COMPONENTS[letter] for letter in swizzle]]
            case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _OPERATORS:
                return _OPERATORS[type(operator)](self._value(left), self._value(right))
        raise GlslError(ast.unparse(node))


@dataclass(frozen=True, slots=True)
class _Matrix:
    """A matrix, column by column."""

    columns: NDArray[np.float64]


def _matrix(columns: int) -> Callable[..., _Matrix]:
    return lambda *values: _Matrix(np.reshape(np.concatenate(values), (columns, 4)))


def _vector(length: int) -> Callable[..., Array]:
    def build(*values: Array) -> Array:
        if len(values) == 1 and len(values[0]) == 1:
            return np.repeat(values[0], length, axis=0)
        shape = np.broadcast_shapes(*(value.shape[1:] for value in values))
        joined = np.concatenate([np.broadcast_to(value, (len(value), *shape)) for value in values])
        if len(joined) != length:
            raise GlslError(f"vec{length} of {len(joined)} components")
        return joined

    return build


def _multiply(left: Any, right: Any) -> Any:
    if isinstance(left, _Matrix):
        if len(left.columns) != len(right):
            raise GlslError(f"a matrix of {len(left.columns)} columns times {len(right)} components")
        return np.tensordot(left.columns, right, axes=(0, 0))
    return left * right


def _sampler(texture: Array, position: Array | None) -> Callable[[Array], Array]:
    """Return ``NAME_tex`` of a texture, or ``NAME_texOff`` where the position of the invocations is given."""
    size = np.reshape(texture.shape[:0:-1], (2, 1, 1))
    return lambda at: _texels(texture, np.floor(at * size if position is None else position * size + at))


def _texels(texture: Array, at: Array) -> Array:
    (x, y), (height, width) = at.astype(int), texture.shape[1:]
    return texture[:, y.clip(0, height - 1), x.clip(0, width - 1)]


_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: lambda left, right: left + right,
    ast.Sub: lambda left, right: left - right,
    ast.Mult: _multiply,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{f"{kind}{length}": _vector(length) for kind in ("vec", "ivec") for length in (2, 3, 4)},
    "texelFetch": lambda texture, at, _level: _texels(texture, at),
    "mat4": _matrix(4),
    "mat3x4": _matrix(3),
    "floor": np.floor,
    "fract": lambda value: value - np.floor(value),
    "step": lambda edge, value: (value >= edge).astype(np.float64),
    "min": np.minimum,
    "max": np.maximum,
    "clamp": np.clip,
    "dot": lambda left, right: (left * right).sum(axis=0, keepdims=True),
}
