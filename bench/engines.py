"""The same folded network on the same frame by other engines, all on as many threads: OpenVINO, ONNX Runtime, ncnn.

    python -m venv rivals && rivals/bin/pip install . onnx onnxruntime openvino ncnn
    rivals/bin/python bench/engines.py fast-x4

The first table is the network alone, up to the last convolution, as GFLOP/s beside a matrix product's. Engines that use
Winograd's convolutions do best on small tiles, and a tile computes its surroundings in vain: the last column counts
useful work only, for a tile inside a picture. The second table is a whole frame, codec's planes to codec's planes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from repsr_cli.engine.folding import fold
from repsr_cli.engine.planes import PlaneUpscaler
from repsr_cli.engine.trunk import Trunk
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.model.zoo import load
from repsr_cli.pipelines.bench import FILM

SIZES = ((270, 480), (135, 240), (64, 64))
Runner = Callable[[], object]


def as_onnx(trunk: Trunk) -> bytes:
    """The folded network with its skip, without what follows."""
    from onnx import helper, numpy_helper

    nodes, weights, features = [], [], "lr"
    for index, layer in enumerate(trunk.layers):
        names = [f"{index}.{name}" for name in layer.state_dict()]
        for name, value in zip(names, layer.state_dict().values(), strict=True):
            weights.append(
                numpy_helper.from_array(
                    value.numpy().reshape(-1, 1, 1) if "PReLU" in str(layer) else value.numpy(), name
                )
            )
        kind, more = ("Conv", {"kernel_shape": [3, 3], "pads": [1] * 4}) if len(names) == 2 else ("PRelu", {})
        nodes.append(helper.make_node(kind, [features, *names], [f"f{index}"], **more))
        features = f"f{index}"
    weights.append(numpy_helper.from_array(np.ascontiguousarray(trunk.skip.T.numpy())[:, :, None, None], "skip"))
    nodes += [helper.make_node("Conv", ["lr", "skip"], ["s"]), helper.make_node("Add", [features, "s"], ["out"])]
    shape = ["n", trunk.skip.shape[0], "h", "w"]
    inputs, outputs = helper.make_tensor_value_info("lr", 1, shape), helper.make_tensor_value_info("out", 1, None)
    graph = helper.make_graph(nodes, "trunk", [inputs], [outputs], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def as_ncnn(trunk: Trunk) -> tuple[str, bytes]:
    """The same as ncnn's parameters and weights."""
    lines, data, features = ["Input in 0 1 in", "Split split 1 2 in a b"], b"", "a"
    raw = np.zeros(1, "<u4").tobytes()
    for index, layer in enumerate(trunk.layers):
        out, weight = f"f{index}", layer.weight.numpy()
        if isinstance(layer, nn.Conv2d):
            lines.append(f"Convolution c{index} 1 1 {features} {out} 0={len(weight)} 1=3 4=1 5=1 6={weight.size}")
            data += raw + weight.tobytes() + layer.bias.numpy().tobytes()
        else:
            lines.append(f"PReLU p{index} 1 1 {features} {out} 0={weight.size}")
            data += weight.tobytes()
        features = out
    skip = np.ascontiguousarray(trunk.skip.T.numpy())
    lines.append(f"Convolution skip 1 1 b s 0={len(skip)} 1=1 5=0 6={skip.size}")
    lines.append(f"BinaryOp add 2 1 {features} s out 0=0")
    blobs = len(trunk.layers) + 5
    return f"7767517\n{len(lines)} {blobs}\n" + "\n".join(lines) + "\n", data + raw + skip.tobytes()


def engines(trunk: Trunk, size: tuple[int, int], threads: int, folder: Path) -> dict[str, Runner]:
    """What there is, ready to run on noise of a size."""
    noise = torch.rand(1, trunk.skip.shape[0], *size)
    lr, placed, found = noise.numpy(), noise.to(memory_format=torch.channels_last), dict[str, Runner]()
    channels_last: Any = trunk.to(memory_format=torch.channels_last)

    def by_torch() -> object:
        with torch.inference_mode():
            return channels_last(placed)

    found["torch"] = by_torch
    try:
        import openvino

        core = openvino.Core()
        model = core.read_model(as_onnx(trunk))
        model.reshape(list(lr.shape))
        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        request = core.compile_model(model, "CPU", settings).create_infer_request()
        found["OpenVINO"] = lambda: request.infer([lr], share_inputs=True, share_outputs=True)
    except ImportError:
        pass
    try:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(as_onnx(trunk), options, providers=["CPUExecutionProvider"])
        found["ONNX Runtime"] = lambda: session.run(None, {"lr": lr})
    except ImportError:
        pass
    try:
        import ncnn

        parameters, weights = as_ncnn(trunk)
        (folder / "net.param").write_text(parameters)
        (folder / "net.bin").write_bytes(weights)
        net = ncnn.Net()
        net.opt.num_threads = threads
        for half in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
            setattr(net.opt, half, False)
        net.load_param(str(folder / "net.param"))
        net.load_model(str(folder / "net.bin"))

        def by_ncnn() -> object:
            extractor = net.create_extractor()
            extractor.input("in", ncnn.Mat(lr[0]))
            return extractor.extract("out")

        found["ncnn"] = by_ncnn
    except ImportError:
        pass
    return found


def best(runners: dict[str, Runner], rounds: int) -> dict[str, float]:
    """Seconds of each at its best, in turns."""
    seconds = dict.fromkeys(runners, float("inf"))
    for run in runners.values():
        run()
    for _ in range(rounds):
        for name, run in runners.items():
            for _ in range(2):
                began = time.perf_counter()
                run()
                seconds[name] = min(seconds[name], time.perf_counter() - began)
    return seconds


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", nargs="?", default="fast-x4")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    net = load(arguments.network, None, "clean")
    trunk = fold(net, FILM, FILM).trunk.eval()
    operations = 2 * sum(layer.weight.numel() for layer in trunk.layers if isinstance(layer, nn.Conv2d))
    square = torch.ones(2048, 2048)
    print(f"{'':<14}{'size':>9}{'GFLOP/s':>9}{'useful':>8}")  # noqa: T201
    for height, width in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            runners = engines(trunk, (height, width), arguments.threads, Path(folder))
            runners["matrix product"] = lambda: torch.mm(square, square)
            for name, seconds in best(runners, arguments.rounds).items():
                if name == "matrix product":
                    print(f"{name:<14}{'':>9}{2 * 2048**3 / seconds / 1e9:>9.0f}")  # noqa: T201
                    continue
                speed = operations * height * width / seconds / 1e9
                reach = net.spec.reach
                useful = 1 if height == SIZES[0][0] else (1 - 2 * reach / height) * (1 - 2 * reach / width)
                print(f"{name:<14}{f'{width}x{height}':>9}{speed:>9.0f}{speed * useful:>8.0f}")  # noqa: T201
    frame = [
        np.random.default_rng(0).integers(16, 236, size, dtype=np.uint8)
        for size in ((270, 480), (135, 240), (135, 240))
    ]
    whole = {}
    for engine in ("torch", "auto"):
        planes = PlaneUpscaler(Upscaler(net, device="cpu", engine=engine), FILM, FILM, reuse=False)
        whole[planes.engine] = lambda planes=planes: planes(frame)
    for name, seconds in best(whole, arguments.rounds).items():
        print(f"{name}: {1000 * seconds:.1f} ms a frame of 480x270, planes to planes")  # noqa: T201


if __name__ == "__main__":
    main()
