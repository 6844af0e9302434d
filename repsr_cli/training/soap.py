"""Optimise with SOAP: Adam in the eigenbasis of Shampoo's factors.

Source: Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam" (arXiv 2409.11321), algorithm 3. Written for
small convolution networks: weights are matrices (out, in * height * width), so the two factors stay small.

The first factors come from one gradient and have low rank, so most eigenvectors are arbitrary within the space of the
eigenvalue 0. A change in the last bit of a gradient, e.g. from another order of summation, turns them, and Adam's
normalisation makes steps of full size of it. So runs that add in another order (other processes, threads or devices)
drift apart from the third step on, by parts in a thousand of the loss, where Adam alone stays within 1e-7.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class SOAP(Optimizer):
    """Adam in slowly rotating eigenbases of ``E[G G^T]`` and ``E[G^T G]``; plain Adam for vectors.

    Bias-corrected. The first step only gathers statistics. All state is tensors and ints, so a restored optimiser
    continues bit for bit.

    Args:
        lr: learning rate.
        betas: decay of the gradient average, and of its square and the two factors.
        eps: added to the root of the second moment.
        weight_decay: decoupled, as in AdamW.
        refresh: steps between two refinements of the eigenbases (one power iteration and a QR).
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float = 1e-2,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        refresh: int = 10,
    ) -> None:
        super().__init__(
            parameters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "refresh": refresh}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Apply one update to every parameter that has a gradient."""
        if closure is not None:
            raise ValueError("SOAP takes no closure")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    _update(parameter, self.state[parameter], group)


def _update(parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    gradient = parameter.grad
    assert gradient is not None
    beta1, beta2 = group["betas"]
    is_matrix = parameter.ndim > 1
    if is_matrix:
        gradient = gradient.flatten(1)
    if not state:
        state["step"] = 0
        state["mean"] = torch.zeros_like(gradient)
        state["square"] = torch.zeros_like(gradient)
        if is_matrix:
            state["left"] = (1 - beta2) * gradient @ gradient.T
            state["right"] = (1 - beta2) * gradient.T @ gradient
            state["left_basis"] = _eigenbasis(state["left"])
            state["right_basis"] = _eigenbasis(state["right"])
            return
    state["step"] += 1
    step = state["step"]
    mean, square = state["mean"], state["square"]
    mean.lerp_(gradient, 1 - beta1)
    if is_matrix:
        left, right = state["left_basis"], state["right_basis"]
        turned = left.T @ gradient @ right
        direction = left.T @ mean @ right
    else:
        turned, direction = gradient, mean
    square.mul_(beta2).addcmul_(turned, turned, value=1 - beta2)
    denominator = (square / (1 - beta2**step)).sqrt_().add_(group["eps"])
    update = direction / denominator
    if is_matrix:
        update = left @ update @ right.T
    if group["weight_decay"]:
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
    parameter.sub_(update.view_as(parameter), alpha=group["lr"] / (1 - beta1**step))
    if is_matrix:
        state["left"].lerp_(gradient @ gradient.T, 1 - beta2)
        state["right"].lerp_(gradient.T @ gradient, 1 - beta2)
        if step % group["refresh"] == 0:
            state["left_basis"], order = _refine(state["left"], left)
            state["right_basis"], right_order = _refine(state["right"], right)
            # The second moment is in that basis: its rows and columns are reordered like the eigenvectors.
            state["square"] = square[order][:, right_order]


def _eigenbasis(factor: Tensor) -> Tensor:
    """Eigenvectors of a symmetric matrix as columns, largest eigenvalue first; of one that is not finite, any basis.

    The loss of such a step is not finite either, and the training loop finds that.
    """
    if not bool(torch.isfinite(factor).all()):
        return torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
    vectors: Tensor = torch.linalg.eigh(factor.double())[1]
    return vectors.flip(1).to(factor.dtype).contiguous()


def _refine(factor: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """One power iteration towards the eigenbasis, columns sorted by eigenvalue; also their new order."""
    order = (basis * (factor @ basis)).sum(0).argsort(descending=True, stable=True)
    return torch.linalg.qr(factor @ basis[:, order])[0], order
