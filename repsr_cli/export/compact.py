"""Write networks as Compact (SRVGGNetCompact) weights, safetensors or PyTorch, and run them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from repsr_cli.export.agreement import Run
from repsr_cli.model.checkpoint import infer_spec, plain_bytes
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.spec import Spec
from repsr_cli.yuv.formats import PlaneFormat


def safetensors_files(net: PlainSR, _planes: PlaneFormat | None, metadata: dict[str, str]) -> tuple[bytes]:
    """The weights of a network as safetensors."""
    return (plain_bytes(net, metadata),)


def safetensors_runner(files: tuple[bytes, ...]) -> Run:
    """A safetensors file as a function."""
    from safetensors.torch import load

    return _runner(load(files[0]))


def pth_files(net: PlainSR, _planes: PlaneFormat | None, _metadata: dict[str, str]) -> tuple[bytes]:
    """The weights of a network as torch.save writes them, under ``params`` like Real-ESRGAN's models."""
    file = io.BytesIO()
    torch.save({"params": {key: value.cpu().contiguous() for key, value in net.state_dict().items()}}, file)
    return (file.getvalue(),)


def pth_runner(files: tuple[bytes, ...]) -> Run:
    """A PyTorch file as a function."""
    return _runner(torch.load(io.BytesIO(files[0]), weights_only=True)["params"])


def _runner(state: dict[str, Tensor]) -> Run:
    spec = infer_spec({key: value.shape for key, value in state.items()})
    assert isinstance(spec, Spec)
    net = PlainSR(spec).eval()
    net.load_state_dict(state)

    def run(inputs: Sequence[NDArray[Any]]) -> Sequence[NDArray[Any]]:
        with torch.inference_mode():
            return [np.asarray(net(torch.from_numpy(inputs[0])))]

    return run
