"""Softmax down a tree: the probability of every node from one logit each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

TOP = -1


class TreeSoftmax(nn.Module):
    """log P(node) = sum over the node and those above it of log softmax among siblings.

    So a parent has the probability of its children together, and the leaves have 1; a tree of depth 1 is a softmax.

    Parameters
    ----------
    parents
        Position of each node's parent, before its children; -1 right under the root.
    """

    siblings: Tensor  # (nodes,) number of the set of siblings that each node belongs to
    above: Tensor  # (levels - 1, nodes) the node's parent, the parent's parent, ...; n_nodes beyond the root

    def __init__(self, parents: Sequence[int]) -> None:
        super().__init__()
        n, over = len(parents), np.array([*parents, len(parents)])
        over[over == TOP] = n
        steps, step = list[np.ndarray](), over[:n]
        while (step < n).any():
            steps.append(step)
            step = over[step]
        self.n_sets = len(set(parents))
        self.flat = not steps
        sets = np.unique(parents, return_inverse=True)[1]
        self.register_buffer("siblings", torch.from_numpy(sets), persistent=False)
        self.register_buffer("above", torch.from_numpy(np.array(steps, np.int64).reshape(-1, n)), persistent=False)

    def forward(self, logits: Tensor) -> Tensor:
        """Log-probability of every node, (B, nodes), from logits (B, nodes)."""
        if self.flat:
            return torch.log_softmax(logits, dim=1)
        siblings = self.siblings.expand_as(logits)
        none = logits.new_full((len(logits), self.n_sets), -torch.inf)
        largest = none.scatter_reduce(1, siblings, logits.detach(), "amax").gather(1, siblings)
        shifted = logits - largest
        total = torch.zeros_like(none).scatter_add(1, siblings, shifted.exp())
        conditional = shifted - total.log().gather(1, siblings)
        padded, out = pad(conditional, (0, 1)), conditional
        for step in self.above:
            out = out + padded.gather(1, step.expand_as(logits))
        return out
