"""A plain network as a file of another program, written only if it gives what torch gives. Floor 4.

Graphs are written node by node: convolution, PReLU, pixel shuffle and a nearest-neighbour skip are all there is.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from repsr_cli.errors import CheckpointError, UsageError
from repsr_cli.model.plain import PlainSR

# What every reader of the last years knows; nothing newer is needed.
OPSET, IR_VERSION = 17, 8
TOLERANCE = 5e-5  # an eightieth of a code; what Winograd convolutions in float32 need
PROBE_SIZES = ((24, 33), (1, 1), (3, 40))  # LR px; small ones are all border

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of network file.

    Attributes:
        program: what reads it.
        suffixes: of its files, the one that is named first.
        build: a network and strings for the file, as the bytes of each file.
        runner: the bytes of each file as a function from (N, C, H, W) to the enlarged; ImportError where the program
            is not installed.
    """

    program: str
    suffixes: tuple[str, ...]
    build: Callable[[PlainSR, dict[str, str]], tuple[bytes, ...]]
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


def export(net: PlainSR, target: Path, metadata: dict[str, str]) -> float | None:
    """Write a network for another program: pictures of any size, values in [0, 1], results not clamped.

    Args:
        net: the network.
        target: the file to write; its suffix decides the kind. ncnn and OpenVINO put the weights beside it (.bin).
        metadata: strings for the file; ncnn's has no place for them.

    Returns:
        The largest difference to torch, computed by the program on seeded noise, as ``largest_difference`` counts it;
        None where it is not installed.

    Raises:
        UsageError: a package is missing that is needed to write it, or the file cannot be written.
        CheckpointError: the program computes other numbers; then nothing is written.
    """
    fmt = format_of(target)
    contents = fmt.build(net, metadata)
    try:
        difference: float | None = largest_difference(net, fmt.runner(contents))
    except ImportError:
        difference = None
    if difference is not None and not difference <= TOLERANCE:
        happened = f"{fmt.program} and torch differ by {difference:.2e}, more than {TOLERANCE:.0e}"
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
        found = run(lr.numpy())
        if found.shape != expected.shape or not np.isfinite(found).all():
            return float("inf")
        worst = max(worst, float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max())))
    return worst


def onnx_files(net: PlainSR, metadata: dict[str, str]) -> tuple[bytes]:
    """The network as an ONNX file: ``lr`` (N, C, H, W) float32 to ``sr``, of any N, H and W.

    Raises:
        UsageError: the package ``onnx`` is not installed.
    """
    try:
        from onnx import TensorProto, checker, helper, numpy_helper
    except ImportError as error:
        raise UsageError("ONNX", "the package onnx is not installed", "pip install 'repsr[onnx]'") from error

    nodes, weights = [], []

    def constant(name: str, numbers: Any) -> str:
        weights.append(numpy_helper.from_array(np.ascontiguousarray(numbers, dtype=np.float32), name))
        return name

    features = "lr"
    for index, layer in enumerate(net.body):
        names = {key: f"body.{index}.{key}" for key in layer.state_dict()}
        found = {key: value.detach().cpu().numpy() for key, value in layer.state_dict().items()}
        if isinstance(layer, nn.Conv2d):
            inputs = [features, *(constant(names[key], found[key]) for key in ("weight", "bias"))]
            node = helper.make_node("Conv", inputs, [f"features.{index}"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        else:
            inputs = [features, constant(names["weight"], found["weight"].reshape(-1, 1, 1))]
            node = helper.make_node("PRelu", inputs, [f"features.{index}"])
        nodes.append(node)
        features = f"features.{index}"
    scale = net.spec.scale
    nodes += [
        # CRD is the order of pixel shuffle.
        helper.make_node("DepthToSpace", [features], ["residual"], blocksize=scale, mode="CRD"),
        helper.make_node(
            "Resize",
            ["lr", "", constant("scales", [1, 1, scale, scale])],
            ["skip"],
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        ),
        helper.make_node("Add", ["residual", "skip"], ["sr"]),
    ]
    colors = net.spec.colors
    graph = helper.make_graph(
        nodes,
        net.spec.name,
        [helper.make_tensor_value_info("lr", TensorProto.FLOAT, ["n", colors, "height", "width"])],
        [helper.make_tensor_value_info("sr", TensorProto.FLOAT, ["n", colors, "sr_height", "sr_width"])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="repsr")
    model.ir_version = IR_VERSION
    helper.set_model_props(model, metadata)
    checker.check_model(model, full_check=True)
    return (bytes(model.SerializeToString()),)


def _onnx_runner(files: tuple[bytes, ...]) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(files[0], providers=["CPUExecutionProvider"])
    return lambda lr: np.asarray(session.run(["sr"], {"lr": lr})[0])


def openvino_files(net: PlainSR, metadata: dict[str, str]) -> tuple[bytes, bytes]:
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

    model = openvino.Core().read_model(onnx_files(net, {})[0])
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
    return lambda lr: np.array(compiled(lr)[0])


def ncnn_files(net: PlainSR, _metadata: dict[str, str]) -> tuple[bytes, bytes]:
    """The network as ncnn's text of layers and its float32 weights.

    It is from ``data`` to ``output``, the names that the ncnn builds of Real-ESRGAN look for.

    Source: ncnn's wiki, "param and model file structure" and "operation param weight table".
    """
    lines, weights, features = ["Input data 0 1 data", "Split split 1 2 data body skip"], b"", "body"
    for index, layer in enumerate(net.body):
        out, weight = f"features_{index}", _bytes(layer.weight)
        if isinstance(layer, nn.Conv2d):
            sizes = f"0={layer.out_channels} 1=3 4=1 5=1 6={layer.weight.numel()}"
            lines.append(f"Convolution convolution_{index} 1 1 {features} {out} {sizes}")
            # Four zeros say that float32 follows.
            weights += bytes(4) + weight + _bytes(layer.bias)
        else:
            assert isinstance(layer.weight, torch.Tensor)
            lines.append(f"PReLU prelu_{index} 1 1 {features} {out} 0={layer.weight.numel()}")
            weights += weight
        features = out
    scale = net.spec.scale
    lines += [
        f"PixelShuffle shuffle 1 1 {features} residual 0={scale}",
        f"Interp nearest 1 1 skip enlarged 0=1 1={scale} 2={scale}",
        "BinaryOp sum 2 1 residual enlarged output 0=0",
    ]
    blobs = len(lines) + 1  # every layer has one output, but for Split, which has two
    return f"7767517\n{len(lines)} {blobs}\n{chr(10).join(lines)}\n".encode(), weights


def _bytes(weight: Any) -> bytes:
    return np.ascontiguousarray(weight.detach().cpu().numpy(), "<f4").tobytes()


def _ncnn_runner(files: tuple[bytes, ...]) -> Run:
    import ncnn

    net = ncnn.Net()
    for half in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, half, False)
    with tempfile.TemporaryDirectory() as name:
        for file, content in zip(("net.param", "net.bin"), files, strict=True):
            (Path(name) / file).write_bytes(content)
        net.load_param(str(Path(name) / "net.param"))
        net.load_model(str(Path(name) / "net.bin"))

    def run(lr: NDArray[np.float32]) -> NDArray[np.float32]:
        results = []
        for picture in lr:
            extractor = net.create_extractor()
            extractor.input("data", ncnn.Mat(np.ascontiguousarray(picture)).clone())
            results.append(np.array(extractor.extract("output")[1]))
        return np.stack(results)

    return run


FORMATS = (
    Format("ONNX Runtime", (".onnx",), onnx_files, _onnx_runner),
    Format("OpenVINO", (".xml", ".bin"), openvino_files, _openvino_runner),
    Format("ncnn", (".param", ".bin"), ncnn_files, _ncnn_runner),
)
