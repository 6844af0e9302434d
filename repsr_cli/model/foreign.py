"""Run models of other architectures through spandrel.

They are not stacks of 3x3 convolutions, so their reach is unknown or endless: tiles overlap by a margin, and tiled
output is only close to that of the whole image. Files are read as every model file is
(``repsr_cli.model.checkpoint``): as tensors, never as code.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from repsr_cli.errors import CheckpointError, raise_shortage
from repsr_cli.model.checkpoint import NotCompactError, load_plain, read_spec, read_tensors
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.spec import Spec

# LR px around a tile. Attention and global pooling reach further, which leaves slight seams.
MARGIN = 32


@dataclass(frozen=True, slots=True)
class ForeignSpec:
    """What is known of a model of another architecture.

    Attributes:
        architecture: spandrel's name for it, e.g. ``ESRGAN``.
        parameters: how many it has.
        multiple: both sides of its input must be multiples of this.
        minimum: smallest side of its input, px.
    """

    scale: int
    architecture: str
    parameters: int
    multiple: int = 1
    minimum: int = 1
    colors: int = 3

    @property
    def exact(self) -> bool:
        """Whether tiles that overlap by ``reach`` give the whole image's output."""
        return False

    @property
    def reach(self) -> int:
        """LR px that tiles overlap by; not the receptive radius, which is larger or unknown."""
        return MARGIN

    @property
    def channels(self) -> int:
        """Feature channels that memory is planned for."""
        return 64 * self.scale**2

    @property
    def name(self) -> str:
        """Architecture and size, e.g. ``ESRGAN (16.7 M)``."""
        return f"{self.architecture} ({self.parameters / 1e6:.1f} M)"


class ForeignSR(nn.Module):
    """A model of another architecture with the interface of ``PlainSR``.

    Args:
        net: takes and gives (N, 3, H, W) in [0, 1].
        spec: what is known of it.
    """

    def __init__(self, net: nn.Module, spec: ForeignSpec) -> None:
        super().__init__()
        self.net, self.spec = net, spec

    def forward(self, lr: Tensor) -> Tensor:
        """Enlarge (N, 3, H, W) to (N, 3, H * scale, W * scale), not clamped."""
        height, width = lr.shape[-2:]
        padded = _padded(lr, self.spec)
        sr: Tensor = self.net(padded)
        return sr[..., : height * self.spec.scale, : width * self.spec.scale]


class ForeignBody(nn.Module):
    """A model of another architecture as the engine runs networks: its output before a pixel shuffle."""

    def __init__(self, net: ForeignSR) -> None:
        super().__init__()
        self.net = net

    def forward(self, lr: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, H, W, 3 * scale**2), contiguous."""
        samples = F.pixel_unshuffle(self.net(lr), self.net.spec.scale)
        return samples.permute(0, 2, 3, 1).contiguous()


def _padded(lr: Tensor, spec: ForeignSpec) -> Tensor:
    """Input whose sides suit the architecture: mirrored at the end, or repeated where it is too small for that."""
    added = []
    for side in lr.shape[-2:]:
        wanted = -(-max(side, spec.minimum) // spec.multiple) * spec.multiple
        added.append(wanted - side)
    down, across = added
    if not down and not across:
        return lr
    mode = "reflect" if down < lr.shape[-2] and across < lr.shape[-1] else "replicate"
    return F.pad(lr, (0, across, 0, down), mode=mode)


def read_any_spec(path: Path) -> Spec | ForeignSpec:
    """The size of the network in a model file of any architecture.

    Of a Compact model only the header is read. What another architecture is can be seen from all of its tensors only.
    """
    try:
        return read_spec(path)
    except NotCompactError as error:
        return _foreign(path, error).spec


def load_any(path: Path) -> PlainSR | ForeignSR:
    """The network in a model file of any architecture, in eval mode on the CPU.

    Raises:
        CheckpointError: missing, damaged, unsafe, or of no known architecture; spandrel knows those other than Compact.
    """
    try:
        return load_plain(path)
    except NotCompactError as error:
        return _foreign(path, error)


def _foreign(path: Path, not_compact: NotCompactError) -> ForeignSR:
    """Build the network that a file's tensors belong to.

    Raises:
        CheckpointError: spandrel is not installed or does not know the architecture, or the model is not an RGB
            upscaler.
    """
    try:
        from spandrel import ImageModelDescriptor, ModelLoader, UnsupportedModelError
    except ImportError as missing:
        raise_shortage(missing, path)
        remedy = f"Other architectures need spandrel: pip install 'repsr[spandrel]' ({missing})."
        raise CheckpointError(path, not_compact.happened, remedy) from not_compact
    state = read_tensors(path)
    try:
        found = ModelLoader(torch.device("cpu")).load_from_state_dict(state)
    except UnsupportedModelError as error:
        happened = "is a model of no architecture that spandrel knows"
        raise CheckpointError(path, happened, "repsr models lists those that ship.") from error
    except (RuntimeError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        # spandrel infers sizes from shapes, and fails in as many ways as a file can be wrong.
        raise_shortage(error, path)
        raise CheckpointError(path, f"is not a whole model ({error})", "Fetch the file again.") from error
    if not isinstance(found, ImageModelDescriptor) or (found.input_channels, found.output_channels) != (3, 3):
        happened = f"is {found.architecture.name}, which does not map RGB images to RGB images"
        raise CheckpointError(path, happened, "Choose another.")
    needs = found.size_requirements
    spec = ForeignSpec(
        scale=found.scale,
        architecture=found.architecture.name,
        parameters=sum(parameter.numel() for parameter in found.model.parameters()),
        multiple=needs.multiple_of or 1,
        minimum=needs.minimum or 1,
    )
    return ForeignSR(found.model.eval(), spec)
