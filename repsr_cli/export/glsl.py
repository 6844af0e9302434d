"""Write x2 models as user shaders for mpv and libplacebo.

A user shader is a text file of passes. A pass reads up to sixteen textures and writes one of four channels, so a layer
of C channels takes C / 4 passes as fragment shaders. A compute shader writes where it likes: there one pass computes
a whole layer, with the groups of four channels side by side in one larger texture.

The player clamps reads to the edge of a texture, the network pads with zeros: samples outside the image are masked.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from repsr_cli.errors import UsageError
from repsr_cli.export.agreement import Run
from repsr_cli.export.glsl_interpreter import run_shader
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.zoo import weights_folder
from repsr_cli.yuv.formats import PlaneFormat

Floats = NDArray[np.float32]

TAPS = tuple((x, y) for y in (-1, 0, 1) for x in (-1, 0, 1))
TILE = 16  # LR pixels on each side of a compute shader's work group; 256 threads
MASKS = {(0, 0): ""} | {
    (x, y): " * ".join(f"{('lo', 'hi')[step > 0]}.{axis}" for step, axis in ((x, "x"), (y, "y")) if step)
    for x, y in TAPS
    if (x, y) != (0, 0)
}
# Run only where the player enlarges by more than 1.2 both ways; smaller factors are not worth the work.
WHEN = "OUTPUT.w HOOKED.w 1.2 * > OUTPUT.h HOOKED.h 1.2 * > *"


@dataclass(frozen=True, slots=True)
class _Layer:
    """A convolution in groups of four channels.

    Attributes:
        weight: (groups out, groups in, 9 taps, channels in of a group, 4).
        bias: (groups out, 4).
        slope: of the PReLU, (4,) for each group out; None after the last convolution.
    """

    weight: Floats
    bias: Floats
    slope: Sequence[Floats | None]


def glsl_network(net: PlainSR, metadata: dict[str, str], compute: bool = False) -> str:
    """Return a model as the text of an mpv user shader, from ``MAIN`` (RGB) to ``MAIN`` of twice the size in [0, 1].

    Args:
        metadata: strings for the header, of which ``name`` and ``licence`` have lines of their own.
        compute: whether to write compute shaders, one pass a layer (OpenGL 4.3, Vulkan or Direct3D 11), in place of
            fragment shaders, one pass for every four channels of a layer (any GPU that a player supports).

    Raises:
        UsageError: a network of another scale or colours, or of channels that four does not divide.
    """
    spec = net.spec
    if (spec.scale, spec.colors) != (2, 3) or spec.channels % 4:
        raise UsageError(
            f"{spec.name} x{spec.scale}",
            "shaders are for RGB networks of x2 with a multiple of 4 channels",
            "Choose another model, or export it to .onnx.",
        )
    layers = _layers(net)
    name = metadata.get("name", f"{spec.name} x{spec.scale}")
    passes = _compute_passes(layers, name) if compute else _fragment_passes(layers, name)
    return "\n".join([_header(net, name, metadata, compute), *passes])


def shipped_shaders() -> list[Path]:
    """Return the user shaders that come with the package, by name."""
    return sorted((weights_folder() / "shaders").glob("*.glsl"))


def glsl_files(net: PlainSR, _planes: PlaneFormat | None, metadata: dict[str, str]) -> tuple[bytes]:
    """Return a model as a user shader of fragment shaders; errors as those of ``glsl_network``."""
    return (glsl_network(net, metadata, compute=False).encode(),)


def compute_glsl_files(net: PlainSR, _planes: PlaneFormat | None, metadata: dict[str, str]) -> tuple[bytes]:
    """Return a model as a user shader of compute shaders; errors as those of ``glsl_network``."""
    return (glsl_network(net, metadata, compute=True).encode(),)


def glsl_runner(files: tuple[bytes, ...]) -> Run:
    """Run a user shader as a function, by an interpreter of its text."""
    text = files[0].decode()
    return lambda inputs: [np.stack([run_shader(text, image) for image in inputs[0]])]


def parameter_digest(net: PlainSR) -> str:
    """Return the SHA-256 of all parameters as little-endian float32 in the order of the state dict."""
    digest = hashlib.sha256()
    for tensor in net.state_dict().values():
        digest.update(tensor.detach().cpu().numpy().astype("<f4").tobytes())
    return digest.hexdigest()


def _header(net: PlainSR, name: str, metadata: dict[str, str], compute: bool) -> str:
    licence = metadata.get("licence", "")
    kind = "compute shaders" if compute else "fragment shaders"
    lines = [
        f"repsr {name}: upscales RGB by 2 ({kind}), for mpv and programs that use libplacebo.",
        *([f"Licence: {licence}"] if licence else []),
        f"Model: {net.spec.name}, {sum(p.numel() for p in net.parameters()):,} parameters, "
        f"{net.spec.macs_per_pixel:,} multiplications a source pixel.",
        f"SHA-256 of the parameters: {parameter_digest(net)}",
        *(f"{key}: {value}" for key, value in sorted(metadata.items()) if key not in ("name", "licence")),
    ]
    return "".join(f"// {' '.join(line.split())}\n" for line in lines)


def _layers(net: PlainSR) -> list[_Layer]:
    """Return the convolutions in groups; the last has one group a colour, of its four pixels row by row."""
    layers = []
    for index, convolution in enumerate(net.convolutions):
        assert convolution.bias is not None
        weight, bias = (tensor.detach().float().numpy() for tensor in (convolution.weight, convolution.bias))
        out, into = weight.shape[:2]
        size = 3 if index == 0 else 4
        # (out, in, y, x) -> (groups out, 4, groups in, size, taps) -> (groups out, groups in, taps, size, 4)
        grouped = weight.reshape(out // 4, 4, into // size, size, 9).transpose(0, 2, 4, 3, 1)
        slope: Sequence[Floats | None] = [None] * (out // 4)
        if index < len(net.activations):
            slope = list(net.activations[index].weight.detach().float().numpy().reshape(-1, 4))
        layers.append(_Layer(np.ascontiguousarray(grouped), bias.reshape(-1, 4), slope))
    return layers


def _numbers(values: Iterable[np.float32]) -> str:
    """Return floats with as many digits as float32 needs to come back the same."""
    return ", ".join(str(np.float32(value)) for value in values)


def _vec4(values: Floats) -> str:
    return f"vec4({_numbers(values)})"


def _matrix(matrix: Floats) -> str:
    """Return a matrix, (channels in, 4); GLSL writes matrices column by column."""
    return f"{'mat3x4' if len(matrix) == 3 else 'mat4'}({_numbers(matrix.ravel())})"


def _prelu(value: str, slope: Floats | None) -> str:
    return value if slope is None else f"max({value}, vec4(0.0)) + {_vec4(slope)} * min({value}, vec4(0.0))"


def _directives(description: str, binds: Sequence[str], save: str, factor: tuple[int, int], more: str = "") -> str:
    """Return the lines that begin a pass; ``factor`` is the size of its texture over that of the image."""
    lines = [f"DESC {description}", "HOOK MAIN", *(f"BIND {name}" for name in binds)]
    lines += [f"SAVE {save}"] if save else []
    lines += [f"{side} HOOKED.{side[0].lower()} {n} *" for side, n in zip(("WIDTH", "HEIGHT"), factor, strict=True)]
    lines += ["COMPONENTS 4", f"WHEN {WHEN}"] + ([more] if more else [])
    return "".join(f"//!{line}\n" for line in lines)


# Fragment shaders


def _fragment_passes(layers: Sequence[_Layer], name: str) -> list[str]:
    passes, sources = [], ["HOOKED"]
    for number, layer in enumerate(layers):
        # Two sets of names in turn: no pass reads a texture that it writes.
        saves = [f"repsr_{'ab'[number % 2]}{group}" for group in range(len(layer.weight))]
        for group, save in enumerate(saves):
            description = f"repsr {name}, layer {number + 1} of {len(layers)}, part {group + 1} of {len(saves)}"
            # The size of a pass is counted in that of HOOKED, which has to be bound to be known everywhere.
            binds = [*(["HOOKED"] if number else []), *sources]
            passes.append(_directives(description, binds, save, (1, 1)) + _fragment(layer, group, sources))
        sources = saves
    passes.append(_directives(f"repsr {name}, pixels", ["HOOKED", *sources], "", (2, 2)) + _pixels(sources))
    return passes


def _fragment(layer: _Layer, group: int, sources: Sequence[str]) -> str:
    part = ".rgb" if layer.weight.shape[3] == 3 else ""
    lines = [
        "vec4 hook() {",
        "vec2 at = floor(HOOKED_pos * HOOKED_size);",
        "vec2 lo = step(vec2(1.0), at);",
        "vec2 hi = step(at, HOOKED_size - vec2(2.0));",
        f"vec4 sum = {_vec4(layer.bias[group])};",
    ]
    for tap, (x, y) in enumerate(TAPS):
        products = [
            f"{_matrix(layer.weight[group, index, tap])} * {source}_texOff(vec2({x}.0, {y}.0)){part}"
            for index, source in enumerate(sources)
        ]
        total, mask = " + ".join(products), MASKS[x, y]
        lines.append(f"sum += {mask} * ({total});" if mask else f"sum += {total};")
    return "\n".join([*lines, f"return {_prelu('sum', layer.slope[group])};", "}", ""])


def _pixels(sources: Sequence[str]) -> str:
    """Return the pixel shuffle, the skip and the clamp: each colour's texture holds its four pixels row by row."""
    red, green, blue = (f"dot(pick, {source}_tex(at))" for source in sources)
    return "\n".join(
        [
            "vec4 hook() {",
            "vec2 where = HOOKED_pos * HOOKED_size;",
            "vec2 odd = step(vec2(0.5), fract(where));",
            "vec2 even = vec2(1.0) - odd;",
            "vec2 at = (floor(where) + vec2(0.5)) * HOOKED_pt;",
            "vec4 pick = vec4(even.x * even.y, odd.x * even.y, even.x * odd.y, odd.x * odd.y);",
            f"vec3 residual = vec3({red}, {green}, {blue});",
            "vec4 pixel = HOOKED_tex(at);",
            "return vec4(clamp(pixel.rgb + residual, vec3(0.0), vec3(1.0)), pixel.a);",
            "}",
            "",
        ]
    )


# Compute shaders


def _grid(groups: int) -> tuple[int, int]:
    """Return how many groups lie beside and above each other in the texture of a layer."""
    columns = math.isqrt(groups - 1) + 1
    return columns, -(-groups // columns)


def _compute_passes(layers: Sequence[_Layer], name: str) -> list[str]:
    passes, source = [], "HOOKED"
    for number, layer in enumerate(layers):
        last = number == len(layers) - 1
        grid = (2, 2) if last else _grid(len(layer.weight))
        save = "" if last else f"repsr_{'ab'[number % 2]}"
        description = f"repsr {name}, layer {number + 1} of {len(layers)}"
        binds = ["HOOKED"] if source == "HOOKED" else ["HOOKED", source]
        block = f"COMPUTE {TILE * grid[0]} {TILE * grid[1]} {TILE} {TILE}"
        passes.append(_directives(description, binds, save, grid, block) + _compute(layer, source, grid, last))
        source = save
    return passes


def _compute(layer: _Layer, source: str, grid: tuple[int, int], last: bool) -> str:
    groups_in, side = layer.weight.shape[1], TILE + 2
    columns, rows = (1, 1) if source == "HOOKED" else _grid(groups_in)
    size, kind = ("vec3", ".rgb") if source == "HOOKED" else ("vec4", "")
    lines = [
        f"shared {size} tile[{groups_in}][{side}][{side}];",
        "void hook() {",
        "ivec2 size = ivec2(HOOKED_size);",
        f"ivec2 corner = ivec2(gl_WorkGroupID.xy) * {TILE} - 1;",
        f"for (int i = int(gl_LocalInvocationIndex); i < {side * side}; i += {TILE * TILE}) {{",
        f"ivec2 in_tile = ivec2(i % {side}, i / {side});",
        "ivec2 at = corner + in_tile;",
        "bool inside = all(greaterThanEqual(at, ivec2(0))) && all(lessThan(at, size));",
    ]
    for group in range(groups_in):
        # Fetched, not sampled: texels beside it that no group fills may hold anything, NaN too.
        texel = f"at * ivec2({columns}, {rows}) + ivec2({group % columns}, {group // columns})"
        sample = f"{_fetch(source, texel)}{kind}"
        lines.append(f"tile[{group}][in_tile.y][in_tile.x] = inside ? {sample} : {size}(0.0);")
    lines += ["}", "barrier();", "ivec2 own = ivec2(gl_LocalInvocationID.xy) + 1;"]
    lines += [f"vec4 sum{group} = {_vec4(bias)};" for group, bias in enumerate(layer.bias)]
    lines.append(f"{size} v;")
    for index in range(groups_in):
        for tap, (x, y) in enumerate(TAPS):
            lines.append(f"v = tile[{index}][own.y + {y}][own.x + {x}];")
            for group in range(len(layer.weight)):
                lines.append(f"sum{group} += {_matrix(layer.weight[group, index, tap])} * v;")
    lines.append(f"ivec2 to = (corner + own) * ivec2({grid[0]}, {grid[1]});")
    # Threads beyond the image have nothing to write.
    lines += ["if (any(greaterThanEqual(corner + own, size))) return;"]
    lines += _stored_pixels() if last else _stored_features(layer, grid)
    return "\n".join([*lines, "}", ""])


def _fetch(source: str, texel: str) -> str:
    return f"({source}_mul * texelFetch({source}_raw, {texel}, 0))"


def _stored_features(layer: _Layer, grid: tuple[int, int]) -> list[str]:
    return [
        f"imageStore(out_image, to + ivec2({group % grid[0]}, {group // grid[0]}), "
        f"{_prelu(f'sum{group}', layer.slope[group])});"
        for group in range(len(layer.weight))
    ]


def _stored_pixels() -> list[str]:
    return [
        f"vec4 pixel = {_fetch('HOOKED', 'corner + own')};",
        *(
            f"imageStore(out_image, to + ivec2({index % 2}, {index // 2}), "
            f"vec4(clamp(pixel.rgb + vec3(sum0.{part}, sum1.{part}, sum2.{part}), vec3(0.0), vec3(1.0)), pixel.a));"
            for index, part in enumerate("xyzw")
        ),
    ]
