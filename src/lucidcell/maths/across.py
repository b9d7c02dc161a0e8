"""Sums over the processes of a distributed run, each of which has a part of every mini-batch.

Without such a run every sum is what it is given, so that models need not know. Sums have gradients: the objective is
the sum of those of the processes, and so is the gradient of what they share.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

FEW = 4096  # numbers: so few are sent to all and added up there, in one exchange instead of several

_n_processes = 1


def n_processes() -> int:
    """Among how many processes mini-batches are spread now."""
    return _n_processes


@contextmanager
def spread(n: int) -> Iterator[None]:
    """Mini-batches are spread among `n` processes, which all compute the same."""
    global _n_processes
    before, _n_processes = _n_processes, n
    try:
        yield
    finally:
        _n_processes = before


def total(x: Tensor) -> Tensor:
    """Sum of `x` over the processes, differentiable."""
    return x if _n_processes == 1 else _Total.apply(x)


def add_up(x: Tensor) -> Tensor:
    """The same without gradients; `x` itself may be overwritten."""
    if _n_processes == 1:
        return x
    if x.numel() > FEW:
        torch.distributed.all_reduce(x)
        return x
    parts = [torch.empty_like(x) for _ in range(_n_processes)]
    torch.distributed.all_gather(parts, x)
    return torch.stack(parts).sum(0)


def add_up_together(*tensors: Tensor) -> list[Tensor]:
    """Several tensors in one message, which costs little more than each of them."""
    if _n_processes == 1:
        return list(tensors)
    sums = add_up(torch.cat([one.reshape(-1) for one in tensors])).split([one.numel() for one in tensors])
    return [one.view_as(like) for one, like in zip(sums, tensors, strict=True)]


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return add_up(x.detach().clone())

    @staticmethod
    def backward(ctx: Any, d_total: Tensor) -> Tensor:
        return add_up(d_total.contiguous().clone())


class Norm(nn.BatchNorm1d):
    """Batch-norm over the whole mini-batch, also where it is spread among processes."""

    def forward(self, x: Tensor) -> Tensor:
        """Of x (B, H), the part of this process."""
        if not self.training or _n_processes == 1:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        wide = x.double()  # squares around 0 would lose digits
        sums = total(torch.cat([wide.sum(0), wide.square().sum(0), wide.new_full((1,), len(x))]))
        n = sums[-1].detach()
        center, square = (sums[:-1] / n).chunk(2)
        variance = (square - center.square()).clamp(min=0).to(x.dtype)
        mean = center.to(x.dtype)
        centred, n = x - mean, n.to(x.dtype)
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * n / (n - 1), self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        return centred * torch.rsqrt(variance + self.eps) * self.weight + self.bias
