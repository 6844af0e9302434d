"""Read shipped models as arrays, without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from repsr_cli.model.spec import Spec

if TYPE_CHECKING:
    from pathlib import Path

State = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class NetworkArrays:
    """The weights of a plain network.

    Attributes:
        state: as ``PlainSR.state_dict`` names and orders them.
    """

    spec: Spec
    state: State

    @property
    def convolutions(self) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Weight and bias of the 3x3 convolutions, head to tail."""
        count = self.spec.blocks + 2
        return [(self.state[f"body.{2 * at}.weight"], self.state[f"body.{2 * at}.bias"]) for at in range(count)]

    @property
    def slopes(self) -> list[NDArray[np.float32]]:
        """The PReLUs' slopes, one after every convolution but the tail."""
        return [self.state[f"body.{2 * at + 1}.weight"] for at in range(self.spec.blocks + 1)]

    def digest(self) -> str:
        """As ``weights_digest`` of the network that torch loads."""
        return digest_of(self.state.items())


def mixed(first: NDArray[Any], second: NDArray[Any], share: float) -> NDArray[np.float32]:
    """Weights between two others: multiplied and added in float64, so that the result is the same on every machine."""
    between: NDArray[np.float64] = first.astype(np.float64) * (1 - share) + second.astype(np.float64) * share
    return between.astype(np.float32)


def digest_of(state: Iterable[tuple[str, NDArray[Any]]]) -> str:
    """SHA-256 of weights and their names, 32 hexadecimal digits: the same for equal networks, whatever their files."""
    digest = hashlib.sha256()
    for name, weights in state:
        digest.update(name.encode() + weights.tobytes())
    return digest.hexdigest()[:32]


def read_arrays(path: Path) -> NetworkArrays | None:
    """The weights of a safetensors file that shipped; None where it is not in the layout of plain RGB networks."""
    from safetensors.numpy import load_file

    found = load_file(path)
    blocks = (len(found) - 5) // 3
    names = [name for at in range(blocks + 1) for name in _layer(at)] + [*_layer(blocks + 1)[:2]]
    if blocks < 0 or set(found) != set(names) or any(each.dtype != np.float32 for each in found.values()):
        return None
    channels, colors = found["body.0.weight"].shape[:2]
    scale = round((len(found[names[-1]]) / colors) ** 0.5)
    if colors != 3 or len(found[names[-1]]) != colors * scale**2:
        return None
    return NetworkArrays(Spec(scale, channels, blocks), {name: found[name] for name in names})


def _layer(at: int) -> tuple[str, str, str]:
    """The names of a convolution's weight and bias, and of the slopes that follow, in their order."""
    return f"body.{2 * at}.weight", f"body.{2 * at}.bias", f"body.{2 * at + 1}.weight"
