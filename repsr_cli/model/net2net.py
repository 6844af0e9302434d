"""A larger network that computes what a smaller one does, to train on from there."""

from __future__ import annotations

import torch

from repsr_cli.model.plain import PlainSR, Spec


def grow(small: PlainSR, spec: Spec) -> PlainSR:
    """Widen and deepen a network without changing its output (the idea of Net2Net, arXiv 1511.05641).

    The old channels stay as they are and hear nothing from the new ones; the tail does not listen to the new ones
    either, until its first step. New layers pass the old channels through: a kernel that is one in its centre, and a
    PReLU of slope one. All else is drawn as for a fresh network, so that no two new channels are alike.

    Args:
        small: the network to start from; left untouched.
        spec: the size to reach, of the same factor and colours, no smaller in any way.

    Returns:
        A network of that size whose outputs equal those of ``small`` to rounding.

    Raises:
        ValueError: ``spec`` is smaller somewhere, or of another factor or other colours.
    """
    old = small.spec
    if (spec.scale, spec.colors) != (old.scale, old.colors):
        raise ValueError(f"x{old.scale} with {old.colors} colours cannot grow into x{spec.scale} with {spec.colors}")
    if spec.channels < old.channels or spec.blocks < old.blocks:
        raise ValueError(f"{old.name} cannot grow into {spec.name}, which is smaller")
    large, c = PlainSR(spec), old.channels
    with torch.no_grad():
        for index, (layer, slope) in enumerate(zip(large.convolutions[:-1], large.activations, strict=True)):
            assert layer.bias is not None
            layer.weight[:c, c if index else spec.colors :] = 0
            if index <= old.blocks:
                source = small.convolutions[index]
                assert source.bias is not None
                layer.weight[:c, : source.in_channels] = source.weight
                layer.bias[:c] = source.bias
                slope.weight[:c] = small.activations[index].weight
            else:
                layer.weight[:c, :c] = 0
                layer.weight[range(c), range(c), 1, 1] = 1
                layer.bias[:c] = 0
                slope.weight[:c] = 1
        tail, source = large.convolutions[-1], small.convolutions[-1]
        assert tail.bias is not None
        assert source.bias is not None
        tail.weight[:, c:] = 0
        tail.weight[:, :c] = source.weight
        tail.bias.copy_(source.bias)
    return large
