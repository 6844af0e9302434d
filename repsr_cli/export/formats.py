"""A plain network as a file of another program, written only if it gives what torch gives."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from repsr_cli.engine.backends.ncnn_graph import NcnnGraph, load_ncnn
from repsr_cli.engine.planes import PlaneUpscaler
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import CheckpointError, UsageError
from repsr_cli.export.onnx import onnx_network, onnx_planes
from repsr_cli.model.plain import PlainSR
from repsr_cli.yuv.formats import PlaneFormat
from repsr_cli.yuv.matrices import LUMA_WEIGHTS

TOLERANCE = 5e-5  # an eightieth of a code; what Winograd convolutions in float32 need
PROBE_SIZES = ((24, 33), (1, 1), (3, 40))  # LR px; small ones are all border
PLANE_SIZES = ((24, 34), (4, 4), (4, 40))

# Inputs in the order of the file to outputs in the order of the file, each (N, C, H, W).
Run = Callable[[Sequence[NDArray[Any]]], Sequence[NDArray[Any]]]


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of network file.

    Attributes:
        program: what reads it.
        suffixes: of its files, the one that is named first.
        build: a network, the meaning of planes that it shall read and write (None: RGB), and strings for the file, as
            the bytes of each file.
        runner: the bytes of each file as a function; ImportError where the program is not installed.
    """

    program: str
    suffixes: tuple[str, ...]
    build: Callable[[PlainSR, PlaneFormat | None, dict[str, str]], tuple[bytes, ...]]
    runner: Callable[[tuple[bytes, ...]], Run]

    def files(self, target: Path) -> tuple[Path, ...]:
        """All files that belong to one."""
        return tuple(target.with_suffix(suffix) for suffix in self.suffixes)


def format_of(target: Path) -> Format:
    """The kind of file that a suffix stands for.

    Raises:
        UsageError: none.
    """
    for fmt in FORMATS:
        if target.suffix == fmt.suffixes[0]:
            return fmt
    names = ", ".join(f"{fmt.suffixes[0]} ({fmt.program})" for fmt in FORMATS)
    raise UsageError(target, "is no name of a network file that can be exported", f"Choose one that ends in {names}.")


_PLANES = re.compile(r"(gray|yuv(?P<layout>420|422|444)p)(?P<depth>9|10|12|14)?(le)?")
_SUBSAMPLE = {"420": (2, 2), "422": (1, 2), "444": (1, 1), None: (1, 1)}


def parse_planes(text: str) -> PlaneFormat:
    """What planes mean, in words: a pixel format, then matrix, range and siting where they are not a video's.

    Args:
        text: e.g. ``yuv420p``, ``yuv420p10:bt2020:topleft``, ``yuv444p:bt601:full``, ``gray``.

    Raises:
        UsageError: a word that is none of these.
    """
    pix_fmt, *words = text.split(":")
    layout = _PLANES.fullmatch(pix_fmt)
    matrix, siting, full_range = "bt709", "left", False
    known = layout is not None
    for word in words:
        if word in LUMA_WEIGHTS:
            matrix = word
        elif word in ("left", "center", "topleft"):
            siting = word
        elif word in ("full", "pc", "limited", "tv"):
            full_range = word in ("full", "pc")
        else:
            known = False
    if layout is None or not known:
        raise UsageError(
            f"planes {text}",
            "not a description of planes",
            "Give e.g. yuv420p, yuv420p10:bt2020:topleft, yuv422p:bt601:full, yuv444p or gray.",
        )
    if layout["layout"] is None:
        matrix = "grey"
    depth, subsample = int(layout["depth"] or 8), _SUBSAMPLE[layout["layout"]]
    return PlaneFormat(matrix, full_range, depth, subsample, siting)  # type: ignore[arg-type]


def export(net: PlainSR, target: Path, metadata: dict[str, str], planes: PlaneFormat | None = None) -> float | None:
    """Write a network for another program: images of any size, values in [0, 1], results not clamped.

    Args:
        net: the network.
        target: the file to write; its suffix decides the kind. ncnn and OpenVINO put the weights beside it (.bin).
        metadata: strings for the file; ncnn's has no place for them.
        planes: what it shall read and write in place of RGB.

    Returns:
        The largest difference to torch, computed by the program on seeded noise: as ``largest_difference`` counts it,
        of planes in samples; None where it is not installed.

    Raises:
        UsageError: a package is missing that is needed to write it, or the file cannot be written.
        CheckpointError: the program computes other numbers; then nothing is written.
    """
    fmt = format_of(target)
    contents = fmt.build(net, planes, metadata)
    tolerance = TOLERANCE if planes is None else 1.0  # a number just at one half may be rounded either way
    try:
        run = fmt.runner(contents)
        difference = largest_difference(net, run) if planes is None else largest_plane_difference(net, planes, run)
    except ImportError:
        difference = None
    if difference is not None and not difference <= tolerance:
        happened = f"{fmt.program} and torch differ by {difference:.2e}, more than {tolerance:.0e}"
        raise CheckpointError(target, happened, f"Nothing was written; try another version of {fmt.program}.")
    files = fmt.files(target)
    partials = [file.with_name(f".{file.name}.partial") for file in files]
    try:
        for partial, content in zip(partials, contents, strict=True):
            partial.write_bytes(content)
        for partial, file in zip(partials, files, strict=True):
            partial.replace(file)
    except OSError as error:
        raise UsageError(target, f"cannot be written ({error.strerror})", "Choose another path.") from error
    finally:
        for partial in partials:
            partial.unlink(missing_ok=True)
    return difference


def largest_difference(net: PlainSR, run: Run) -> float:
    """The largest difference between another program's output and torch's on seeded noise.

    Noise is what networks saw least, and some answer it with values far beyond 1, whose rounding is larger with them:
    the difference is counted in units of the largest value, or of 1.
    """
    random = torch.Generator().manual_seed(0)
    worst = 0.0
    for height, width in PROBE_SIZES:
        lr = torch.rand(2, net.spec.colors, height, width, generator=random)
        with torch.inference_mode():
            expected = net(lr).numpy()
        (found,) = run([lr.numpy()])
        if found.shape != expected.shape or not np.isfinite(found).all():
            return float("inf")
        worst = max(worst, float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max())))
    return worst


def largest_plane_difference(net: PlainSR, fmt: PlaneFormat, run: Run) -> float:
    """The largest difference in samples between another program's planes and torch's, on seeded images.

    Noise of the middle samples: all of them would make some networks answer far outside the samples there are, where
    clipping would hide what differs.
    """
    random = np.random.Generator(np.random.Philox(0))
    upscaler = PlaneUpscaler(Upscaler(net, device="cpu", precision="fp32", engine="torch"), fmt, fmt)
    worst = 0.0
    for height, width in PLANE_SIZES:
        sizes = fmt.plane_sizes(height, width)
        lr = [(random.uniform(0.3, 0.7, size) * fmt.peak).astype(fmt.dtype) for size in sizes]
        found = run([plane[None, None] for plane in lr])
        for ours, theirs in zip(upscaler(lr), found, strict=True):
            if theirs.shape != (1, 1, *ours.shape) or theirs.dtype != fmt.dtype:
                return float("inf")
            worst = max(worst, float(np.abs(ours.astype(int) - theirs[0, 0]).max()))
    return worst


def onnx_files(net: PlainSR, planes: PlaneFormat | None, metadata: dict[str, str]) -> tuple[bytes]:
    """The network as an ONNX file; errors as ``repsr_cli.export.onnx`` has them."""
    return (onnx_network(net, metadata) if planes is None else onnx_planes(net, planes, metadata),)


def _onnx_runner(files: tuple[bytes, ...]) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(files[0], providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_inputs()]
    return lambda inputs: session.run(None, dict(zip(names, inputs, strict=True)))


def openvino_files(net: PlainSR, planes: PlaneFormat | None, metadata: dict[str, str]) -> tuple[bytes, bytes]:
    """The network as OpenVINO's intermediate representation, read from the ONNX graph: graph and weights in float32.

    Raises:
        UsageError: the package ``openvino`` or ``onnx`` is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise UsageError(
            "OpenVINO", "the package openvino is not installed", "pip install 'repsr[openvino]'"
        ) from error

    model = openvino.Core().read_model(onnx_files(net, planes, {})[0])
    for key, value in metadata.items():
        model.set_rt_info(value, key)
    with tempfile.TemporaryDirectory() as name:
        graph = Path(name) / "net.xml"
        openvino.save_model(model, graph, compress_to_fp16=False)
        return graph.read_bytes(), graph.with_suffix(".bin").read_bytes()


def _openvino_runner(files: tuple[bytes, ...]) -> Run:
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(files[0], openvino.Tensor(np.frombuffer(files[1], np.uint8))),
        "CPU",
        {"INFERENCE_PRECISION_HINT": "f32"},
    )
    return lambda inputs: [np.array(output) for output in compiled(list(inputs)).values()]


def ncnn_files(net: PlainSR, planes: PlaneFormat | None, _metadata: dict[str, str]) -> tuple[bytes, bytes]:
    """The network as ncnn's text of layers and its float32 weights.

    It is from ``data`` to ``output``, the names that the ncnn builds of Real-ESRGAN look for.

    Raises:
        UsageError: planes are asked for; ncnn knows no integers.
    """
    if planes is not None:
        raise UsageError("planes", "ncnn computes on RGB only", "Choose .onnx or .xml, or leave --planes out.")
    graph, scale = NcnnGraph(), net.spec.scale
    graph.add("Input", "data", [], ["data"])
    graph.add("Split", "split", ["data"], ["body", "skip"])
    features = graph.layers(net.body, "body")
    graph.add("PixelShuffle", "shuffle", [features], ["residual"], f"0={scale}")
    graph.add("Interp", "nearest", ["skip"], ["enlarged"], f"0=1 1={scale} 2={scale}")
    graph.add("BinaryOp", "sum", ["residual", "enlarged"], ["output"], "0=0")
    return graph.files()


def _ncnn_runner(files: tuple[bytes, ...]) -> Run:
    import ncnn

    net = load_ncnn((files[0], files[1]))

    def run(inputs: Sequence[NDArray[Any]]) -> Sequence[NDArray[Any]]:
        results = []
        for image in inputs[0]:
            extractor = net.create_extractor()
            extractor.input("data", ncnn.Mat(np.ascontiguousarray(image)).clone())
            results.append(np.array(extractor.extract("output")[1]))
        return [np.stack(results)]

    return run


FORMATS = (
    Format("ONNX Runtime", (".onnx",), onnx_files, _onnx_runner),
    Format("OpenVINO", (".xml", ".bin"), openvino_files, _openvino_runner),
    Format("ncnn", (".param", ".bin"), ncnn_files, _ncnn_runner),
)
