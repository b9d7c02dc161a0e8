"""Shapley values of the inputs of a chain, by permutations.

The value of an input is what it changes when it moves from its baseline to its own value, averaged over the orders in
which the inputs may do so. Each order's changes sum to f(x) - f(baseline), and so do the values.
"""

from __future__ import annotations

from itertools import permutations
from math import factorial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from lucidcell.maths.chain import Affine, Chain, Changes, after_first, before_last, of_hidden

MOST_INPUTS_IN_ALL_ORDERS = 8


def orders(n_inputs: int, n_permutations: int, n_cells: int, rng: np.random.Generator) -> np.ndarray:
    """Orders of the inputs for each cell, (n_cells, P, n_inputs).

    All of them if there are no more than `n_permutations`, so that the values are exact; otherwise random ones, every
    second of them the reverse of the one before.
    """
    if n_inputs <= MOST_INPUTS_IN_ALL_ORDERS and factorial(n_inputs) <= n_permutations:
        every = np.array(list(permutations(range(n_inputs))))
        return np.broadcast_to(every, (n_cells, *every.shape))
    n_drawn = (n_permutations + 1) // 2
    drawn = rng.random((n_cells, n_drawn, n_inputs)).argsort(2)
    both = np.stack([drawn, drawn[:, :, ::-1]], axis=2)
    return both.reshape(n_cells, 2 * n_drawn, n_inputs)[:, :n_permutations]


def shapley(chain: Chain, x: Tensor, baseline: Tensor, order: np.ndarray, *, log_softmax: bool = False) -> Changes:
    """Values of few inputs for all outputs, x (B, in), by whole passes through the chain; `order` (B, P, in)."""
    n_cells, n_inputs = x.shape
    last = chain[-1]
    hidden = x.new_zeros(n_cells, n_inputs, last.weight.shape[1])
    taken_off = x.new_zeros(n_cells, n_inputs)
    steps = torch.arange(n_inputs + 1)[:, None, None]
    for p in range(order.shape[1]):
        one = torch.from_numpy(np.array(order[:, p]))
        place = one.argsort(1)  # of each input in the order
        points = before_last(chain, torch.where(place < steps, x, baseline))  # (in + 1, B, H)
        changes = points.diff(dim=0).transpose(0, 1)
        hidden.scatter_add_(1, one[:, :, None].expand_as(changes), changes)
        if log_softmax:
            normaliser = torch.logsumexp(linear(points, last.weight) + last.shift, 2)
            taken_off.scatter_add_(1, one, normaliser.diff(dim=0).t())
    n_orders = order.shape[1]
    return of_hidden(hidden / n_orders, taken_off / n_orders if log_softmax else None, last.weight)


def shapley_of_many(chain: Chain, x: Tensor, baseline: Tensor, n_permutations: int, rng: np.random.Generator) -> Tensor:
    """Values (B, out, in) of many inputs, of which those at their baseline are nothing: cell by cell.

    The first layer's sums change by one column of its weight for each input, so that they are cumulative sums.
    """
    first, n_outputs = chain[0], chain[-1].weight.shape[0]
    total = x.new_zeros(len(x), n_outputs, x.shape[1])
    for cell in range(len(x)):
        own = [_of_cell(layer, cell) for layer in chain]
        change = x[cell] - baseline[cell]
        active = change.nonzero()[:, 0]
        if not len(active):
            continue
        moves = first.weight[:, active].t() * change[active, None]  # (active, H)
        start = first.weight @ baseline[cell] + own[0].shift
        drawn = orders(len(active), n_permutations, 1, rng)[0]
        for one in map(torch.from_numpy, np.array(drawn)):
            outputs = after_first(own, torch.cat([start[None], start + moves[one].cumsum(0)]))
            total[cell].index_add_(1, active[one], outputs.diff(dim=0).t() / len(drawn))
    return total


def _of_cell(layer: Affine, cell: int) -> Affine:
    return layer if layer.shift.ndim == 1 else layer._replace(shift=layer.shift[cell])
