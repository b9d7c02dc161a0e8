"""Chains of linear layers and ReLUs: their outputs, and what a change of the input does to them in each cell.

In every cell a chain is replaced by a linear map: each ReLU by a slope. With the slopes at the cell's own point the map
is the Jacobian; with slopes between the cell and a baseline it is the multipliers of DeepLIFT. A log-softmax after the
last layer takes one vector, an average of the rows of the last weight, off every row.

The map is read by columns (one input, all outputs: forward mode) or by rows (one output, all inputs: reverse mode). The
last weight in forward mode, the first in reverse mode, is the same in all cells and along a path of points. It is the
one matrix that grows with the genes, and it is not multiplied out: a read-out is `Changes`, a product.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

NEARLY_EQUAL = 1e-6  # two inputs of a ReLU, as a share of their size: the slope is then that at the point


class Affine(NamedTuple):
    """x W' + shift, and a ReLU where there is one; the last layer of a chain has none."""

    weight: Tensor  # (out, in)
    shift: Tensor  # (B, out) or (out,)
    relu: bool


Chain = Sequence[Affine]


class Local(NamedTuple):
    """A chain as a linear map of changes of its input, cell by cell."""

    chain: Chain
    slopes: list[Tensor | None]  # (B, out) of the ReLU after each layer; None for no ReLU
    average: Tensor | None  # (B, H): what a log-softmax takes off every row of the last weight


class Changes(NamedTuple):
    """(B, k, n) numbers as a product, so that n may be large."""

    coefficients: Tensor  # (B or 1, k, H)
    basis: Tensor | None  # (n, H); None for the identity

    def dense(self) -> Tensor:
        """The numbers, (B or 1, k, n)."""
        return self.coefficients if self.basis is None else linear(self.coefficients, self.basis)


Path = Iterable[tuple[float, Local]]  # linear maps with weights that sum to 1


def sums(chain: Chain, x: Tensor) -> list[Tensor]:
    """What each layer gives before its ReLU, (..., B, out), for x (..., B, in); last the outputs of the chain."""
    found: list[Tensor] = []
    for i, layer in enumerate(chain):
        inputs = x if i == 0 else found[-1].relu() if chain[i - 1].relu else found[-1]
        found.append(linear(inputs, layer.weight) + layer.shift)
    return found


def before_last(chain: Chain, x: Tensor) -> Tensor:
    """The last layer's inputs (..., B, H) for x (..., B, in)."""
    if len(chain) == 1:
        return x
    last = sums(chain[:-1], x)[-1]
    return last.relu() if chain[-2].relu else last


def forward(chain: Chain, x: Tensor, *, log_softmax: bool = False) -> Tensor:
    """Outputs (..., B, out) for x (..., B, in)."""
    outputs = sums(chain, x)[-1]
    return torch.log_softmax(outputs, -1) if log_softmax else outputs


def after_first(chain: Chain, sums: Tensor) -> Tensor:
    """Outputs (..., B, out) for what the first layer gives before its ReLU, (..., B, H)."""
    return forward(chain[1:], sums.relu() if chain[0].relu else sums) if len(chain) > 1 else sums


def gradient(chain: Chain, x: Tensor, *, log_softmax: bool = False) -> Local:
    """The Jacobian at x (B, in)."""
    at = sums(chain, x)
    slopes = [(one > 0).to(x.dtype) if layer.relu else None for layer, one in zip(chain, at, strict=True)]
    return Local(chain, slopes, torch.softmax(at[-1], 1) @ chain[-1].weight if log_softmax else None)


def gradients(
    chain: Chain, x: Tensor, baseline: Tensor, n_steps: int, *, log_softmax: bool = False
) -> Iterator[tuple[float, Local]]:
    """The Jacobians on the straight line from `baseline` to x, at the points of Gauss-Legendre, with their weights."""
    points, weights = np.polynomial.legendre.leggauss(n_steps)
    for point, weight in zip(points.tolist(), weights.tolist(), strict=True):
        yield weight / 2, gradient(chain, baseline + (point + 1) / 2 * (x - baseline), log_softmax=log_softmax)


def rescaled(chain: Chain, x: Tensor, baseline: Tensor, *, log_softmax: bool = False) -> Local:
    """DeepLIFT's rescale rule: the map that takes x - baseline exactly to the difference of the outputs.

    A ReLU's slope is the ratio of its differences. The log-normaliser log sum_h exp(y_h) is a chain of exp, a sum and
    log, whose differences have the ratios that `normaliser_weights` multiplies.
    """
    at, before = sums(chain, x), sums(chain, baseline.expand_as(x))
    slopes: list[Tensor | None] = []
    for layer, one, other in zip(chain, at, before, strict=True):
        if not layer.relu:
            slopes.append(None)
            continue
        change = one - other
        same = change.abs() <= NEARLY_EQUAL * (1 + one.abs())
        ratio = (one.relu() - other.relu()) / torch.where(same, torch.ones_like(change), change)
        slopes.append(torch.where(same, (one > 0).to(x.dtype), ratio))
    average = normaliser_weights(at[-1], before[-1]) @ chain[-1].weight if log_softmax else None
    return Local(chain, slopes, average)


def normaliser_weights(y: Tensor, baseline: Tensor) -> Tensor:
    """Weights m (B, G) with sum_h m_h (y_h - y0_h) = log sum exp(y) - log sum exp(y0), by the rescale rule.

    m_h = [(exp y_h - exp y0_h) / (y_h - y0_h)] x [(L - L0) / (exp L - exp L0)] with L = log sum exp; the softmax at y
    where the two are equal.
    """
    total, before = torch.logsumexp(y, 1, keepdim=True), torch.logsumexp(baseline, 1, keepdim=True)
    size = torch.exp(torch.maximum(y, baseline) - torch.maximum(total, before))
    return size * _decay(y - baseline) / _decay(total - before)


def _decay(u: Tensor) -> Tensor:
    """(1 - exp(-|u|)) / |u|, 1 at 0."""
    u = u.abs()
    return torch.where(u > 0, -torch.expm1(-u) / torch.where(u > 0, u, torch.ones_like(u)), torch.ones_like(u))


def columns(path: Path, inputs: Sequence[int]) -> Changes:
    """Columns of the (mean) map: what one unit of each of k inputs does to all outputs. Forward mode."""
    carried, taken_off, weight = None, None, None
    for share, local in path:
        one = share * _carry(local, inputs)
        carried, weight = one if carried is None else carried + one, local.chain[-1].weight
        if local.average is not None:
            off = torch.einsum("bkh,bh->bk", one, local.average)
            taken_off = off if taken_off is None else taken_off + off
    assert carried is not None
    assert weight is not None
    return of_hidden(carried, taken_off, weight)


def of_hidden(change: Tensor, taken_off: Tensor | None, weight: Tensor) -> Changes:
    """Changes of the outputs for those of the last layer's inputs (B, k, H), less a number for each input (B, k)."""
    if taken_off is None:
        return Changes(change, weight)
    ones = weight.new_ones(len(weight), 1)
    one_more = -taken_off[:, :, None]  # of a basis vector that is 1 for all outputs
    return Changes(torch.cat([change.expand(len(one_more), -1, -1), one_more], 2), torch.cat([weight, ones], 1))


def rows(path: Path, outputs: Sequence[int]) -> Changes:
    """Rows of the (mean) map: what one unit of each input does to k outputs. Reverse mode."""
    carried, chain = None, None
    for share, local in path:
        one = share * _carry_back(local, outputs)
        carried, chain = one if carried is None else carried + one, local.chain
    assert carried is not None
    assert chain is not None
    return Changes(carried, None if len(chain) == 1 else chain[0].weight.t())


def _carry(local: Local, inputs: Sequence[int]) -> Tensor:
    """Changes of the last layer's inputs, (B, k, H), for a unit of each of k inputs."""
    chain, n_cells = local.chain, _n_cells(local)
    first = chain[0].weight
    if len(chain) == 1:
        units = torch.eye(first.shape[1], dtype=first.dtype, device=first.device)
        return units[list(inputs)].expand(n_cells, -1, -1)
    found = first[:, list(inputs)].t().expand(n_cells, -1, -1)
    for i, slope in enumerate(local.slopes[:-1]):
        if i:
            found = linear(found, chain[i].weight)
        found = found if slope is None else found * slope[:, None]
    return found


def _carry_back(local: Local, outputs: Sequence[int]) -> Tensor:
    """Changes of k outputs for a unit of each of the first layer's sums, (B, k, H); of the inputs for one layer."""
    chain, n_cells = local.chain, _n_cells(local)
    found = chain[-1].weight[list(outputs)].expand(n_cells, -1, -1)
    if local.average is not None:
        found = found - local.average[:, None]
    for i in reversed(range(len(chain) - 1)):
        slope = local.slopes[i]
        found = found if slope is None else found * slope[:, None]
        if i:
            found = found @ chain[i].weight
    return found


def _n_cells(local: Local) -> int:
    """Cells that the map differs between: 1 if it is the same in all."""
    tensors = [*local.slopes, local.average]
    return next((len(one) for one in tensors if one is not None), 1)
