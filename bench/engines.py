"""Compare engines on the same folded network and frame, with equal threads: OpenVINO, ONNX Runtime, ncnn.

    python -m venv engines && engines/bin/pip install '.[onnx,openvino,ncnn]'
    engines/bin/python bench/engines.py fast-x4

The first table is the network alone, up to the last convolution, in GFLOP/s and relative to a matrix product. Engines
with Winograd convolutions are best on small tiles, but a tile also computes its margin: the last column counts useful
work only, for a tile inside an image. The second table is a whole frame, from a decoder's planes to an encoder's, also
with the small networks of OpenCV's ``dnn_superres``, with random weights, since only time is measured.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from repsr_cli.diagnostics.bench import VIDEO
from repsr_cli.engine.backends.ncnn import ncnn_layers
from repsr_cli.engine.backends.onnx_graph import Graph, onnx_layers
from repsr_cli.engine.backends.onnxruntime import onnxruntime_layers
from repsr_cli.engine.backends.registry import ENGINES, installed_engines
from repsr_cli.engine.body import Body
from repsr_cli.engine.colour_folding import fold
from repsr_cli.engine.planes import PlaneUpscaler
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.model.zoo import load, resolve

SIZES = ((270, 480), (135, 240), (64, 64))
Runner = Callable[[], object]


def engines(body: Body, size: tuple[int, int], threads: int) -> dict[str, Runner]:
    """What there is, ready to run on noise of a size."""
    noise = torch.rand(1, body.skip.shape[0], *size)
    placed, found = noise.to(memory_format=torch.channels_last), dict[str, Runner]()
    channels_last: Any = body.layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def by_torch() -> object:
        with torch.inference_mode():
            return channels_last(placed)

    found["torch"] = by_torch
    if ENGINES["openvino"].installed:
        import openvino

        core = openvino.Core()
        model = core.read_model(onnx_layers(body.layers))
        model.reshape(list(noise.shape))
        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        request = core.compile_model(model, "CPU", settings).create_infer_request()
        found["OpenVINO"] = lambda: request.infer([noise.numpy()], share_inputs=True, share_outputs=True)
    for word, make in (("onnxruntime", onnxruntime_layers), ("ncnn", ncnn_layers)):
        if ENGINES[word].installed:
            found[ENGINES[word].title] = partial(make(body.layers, threads), noise)
    return found


def rivals(scale: int, frame: list[NDArray[np.uint8]], threads: int) -> dict[str, Runner]:
    """Networks of OpenCV's ``dnn_superres``, by its ``dnn``: luma by the network, chroma by bicubic interpolation.

    The sizes are those of the papers: ESPCN 5-3-3 with 64 and 32 channels (arXiv 1609.05158), FSRCNN (56, 12, 4) and
    FSRCNN-s (32, 5, 1) (arXiv 1608.00367). The weights are random: only time is measured.
    """
    try:
        import cv2
    except ImportError:
        return {}
    cv2.setNumThreads(threads)
    random = np.random.default_rng(0)

    def network(build: Callable[[Graph, Callable[..., str]], str]) -> bytes:
        graph = Graph()

        def layer(source: str, into: int, out: int, side: int, activation: str = "", enlarge: int = 1) -> str:
            """A convolution, or with ``enlarge`` a transposed one, and what follows it."""
            operator, shape = ("Conv", (out, into)) if enlarge == 1 else ("ConvTranspose", (into, out))
            name = f"{source}.{operator}"
            weight = graph.constant(f"{name}.weight", random.normal(0, 0.05, (*shape, side, side)))
            bias = graph.constant(f"{name}.bias", np.zeros(out))
            more: dict[str, Any] = (
                {"output_padding": [enlarge - 1] * 2, "strides": [enlarge] * 2} if enlarge > 1 else {}
            )
            inputs, pads = [source, weight, bias], [side // 2] * 4
            found = graph.add(operator, inputs, kernel_shape=[side, side], pads=pads, **more)
            if activation == "PRelu":
                return graph.add("PRelu", [found, graph.constant(f"{name}.slope", np.full((out, 1, 1), 0.1))])
            return graph.add(activation, [found]) if activation else found

        out = build(graph, layer)
        luma, sr = ["n", 1, *frame[0].shape], ["n", 1, *(side * scale for side in frame[0].shape)]
        return graph.file("rival", [("lr", "FLOAT", luma)], [(out, "FLOAT", sr)], {})

    def espcn(graph: Graph, layer: Callable[..., str]) -> str:
        features = layer(layer("lr", 1, 64, 5, "Tanh"), 64, 32, 3, "Tanh")
        shuffle: dict[str, Any] = {"blocksize": scale, "mode": "CRD"}
        return graph.add("DepthToSpace", [layer(features, 32, scale**2, 3)], **shuffle)

    def fsrcnn(d: int, s: int, m: int) -> Callable[[Graph, Callable[..., str]], str]:
        def build(_graph: Graph, layer: Callable[..., str]) -> str:
            features = layer(layer("lr", 1, d, 5, "PRelu"), d, s, 1, "PRelu")
            for _ in range(m):
                features = layer(features, s, s, 3, "PRelu")
            return layer(layer(features, s, d, 1, "PRelu"), d, 1, 9, enlarge=scale)

        return build

    def runner(content: bytes) -> Runner:
        net = cv2.dnn.readNetFromONNX(np.frombuffer(content, np.uint8))

        def run() -> object:
            net.setInput(cv2.dnn.blobFromImage(frame[0], 1 / 255))
            luma = np.clip(np.rint(net.forward()[0, 0] * 255), 0, 255).astype(np.uint8)
            chroma = [cv2.resize(plane, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC) for plane in frame[1:]]
            assert luma.shape == tuple(side * scale for side in frame[0].shape)
            return luma, *chroma

        return run

    networks = {"ESPCN": espcn, "FSRCNN": fsrcnn(56, 12, 4), "FSRCNN-s": fsrcnn(32, 5, 1)}
    by = f"by OpenCV {cv2.__version__}, random weights"
    return {f"{name} {by}": runner(network(build)) for name, build in networks.items()}


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
    net = load(resolve(arguments.network, None, "clean"))
    folded = fold(net, VIDEO, VIDEO)
    body, operations = folded.body.eval(), 2 * folded.macs_per_pixel
    square = torch.ones(2048, 2048)
    print(f"{'':<14}{'size':>9}{'GFLOP/s':>9}{'useful':>8}")
    for height, width in SIZES:
        runners = engines(body, (height, width), arguments.threads)
        runners["matrix product"] = lambda: torch.mm(square, square)
        for name, seconds in best(runners, arguments.rounds).items():
            if name == "matrix product":
                print(f"{name:<14}{'':>9}{2 * 2048**3 / seconds / 1e9:>9.0f}")
                continue
            speed = operations * height * width / seconds / 1e9
            reach = net.spec.reach
            useful = 1 if height == SIZES[0][0] else (1 - 2 * reach / height) * (1 - 2 * reach / width)
            print(f"{name:<14}{f'{width}x{height}':>9}{speed:>9.0f}{speed * useful:>8.0f}")
    frame = [np.random.default_rng(0).integers(16, 236, size, dtype=np.uint8) for size in VIDEO.plane_sizes(270, 480)]
    whole = rivals(net.spec.scale, frame, arguments.threads)
    for engine in installed_engines():
        planes = PlaneUpscaler(Upscaler(net, device="cpu", engine=engine), VIDEO, VIDEO, reuse=False)
        whole[f"{arguments.network} by {planes.engine}"] = partial(planes, frame)
    for name, seconds in best(whole, arguments.rounds).items():
        print(f"{name}: {1000 * seconds:.1f} ms a frame of 480x270, planes to planes")


if __name__ == "__main__":
    main()
