"""Build the network of a recipe and give it its initial weights."""

from __future__ import annotations

import contextlib
from pathlib import Path

from torch import Tensor, nn

from repsr_cli.errors import CheckpointError, RecipeError
from repsr_cli.model.checkpoint import load_plain, load_training
from repsr_cli.model.init import colour_by_interpolation, start_as_interpolation
from repsr_cli.model.net2net import change_scale, grow
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.repsr import RepSR
from repsr_cli.model.spec import Spec
from repsr_cli.training.recipe import Recipe


class ActiveForm(nn.Module):
    """The form of a network that trains at present, as one ``forward`` for DDP and torch.compile to wrap."""

    def __init__(self, net: RepSR | PlainSR) -> None:
        super().__init__()
        self.net = net

    def forward(self, lr: Tensor) -> Tensor:
        """(N, colors, H, W) -> (N, colors, H * scale, W * scale): merged once BN is frozen, branched before."""
        if isinstance(self.net, RepSR) and self.net.bn_frozen:
            return self.net.forward_merged(lr)
        return self.net(lr)  # type: ignore[no-any-return]


def build_network(recipe: Recipe) -> RepSR | PlainSR:
    """The network of a recipe with fresh weights from torch's generator."""
    network = recipe.network
    spec = Spec(scale=network.scale, channels=network.channels, blocks=network.blocks)
    net: RepSR | PlainSR
    if network.block == "plain":
        net = PlainSR(spec)
    else:
        net = RepSR(spec, network.expansion, norm=network.block == "repsr")
    if network.init == "interpolation":
        start_as_interpolation(net)
    return net


def warm_start(net: RepSR | PlainSR, path: Path, interpolate: bool) -> None:
    """Copy every tensor of the same name and shape from another run's average, or from a fused model.

    A plain network takes the tail of a model of another scale, resampled, and the weights of a smaller one, grown.

    Args:
        net: the network to start; changed in place.
        path: a training checkpoint or a model file.
        interpolate: whether a grown network with three or more new channels interpolates colour through them.

    Raises:
        RecipeError: the file cannot be used, or no convolution has the same shape.
    """
    source: nn.Module
    try:
        if isinstance(net, PlainSR):
            source = small = change_scale(load_plain(path), net.spec.scale)
            with contextlib.suppress(ValueError):  # fewer channels or blocks: copy what has the same shape
                source = grow(small, net.spec)
                if interpolate and net.spec.channels >= small.spec.channels + net.spec.colors:
                    colour_by_interpolation(source, small.spec.channels)
        else:
            source = load_training(path).ema
    except CheckpointError as error:
        raise RecipeError("run.start_from", f"cannot start from {path} ({error})") from error
    own, theirs = net.state_dict(), source.state_dict()
    agreeing = {key: value for key, value in theirs.items() if key in own and own[key].shape == value.shape}
    if not any(key.endswith("weight") and value.ndim == 4 for key, value in agreeing.items()):
        raise RecipeError("run.start_from", f"{path} has no convolution of this network's shapes")
    net.load_state_dict(own | agreeing)
