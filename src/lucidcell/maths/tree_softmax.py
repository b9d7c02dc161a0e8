"""Softmax down a tree: the probability of every node from one logit each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

TOP = -1


class TreeSoftmax(nn.Module):
    """P(leaf) is a softmax of the sums of logits from the top down to each leaf, P(node) that of its leaves together.

    As conditionals, P(node) = P(parent) softmax among siblings of the node's logit + log of what its children have
    together, so that every leaf's logit learns from all cells, and a parent's from all that its leaves have in common.
    Softmaxes of the logits alone among siblings are the same family, and learn less from few labels (docs/scanvi.md).
    A tree of depth 1 is a softmax.

    Parameters
    ----------
    parents
        Position of each node's parent, before its children; -1 right under the root.
    """

    leaves: Tensor  # (leaves,) their nodes
    inner: Tensor  # (inner,) the other nodes
    pairs: Tensor  # (2, pairs) an inner node and a leaf under it, as positions among these
    order: Tensor  # (nodes,) place of each node among the leaves and, after them, the inner nodes

    def __init__(self, parents: Sequence[int]) -> None:
        super().__init__()
        inner = sorted(set(parents) - {TOP})
        leaves = sorted(set(range(len(parents))) - set(inner))
        under = [(inner.index(node), k) for k, leaf in enumerate(leaves) for node in self._above(leaf, parents)]
        self.flat = not inner
        buffers = {"leaves": leaves, "inner": inner, "pairs": [*zip(*under, strict=True)]}
        for name, values in buffers.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.long), persistent=False)
        self.register_buffer("order", torch.cat([self.leaves, self.inner]).argsort(), persistent=False)

    @staticmethod
    def _above(node: int, parents: Sequence[int]) -> list[int]:
        above = []
        while (node := parents[node]) != TOP:
            above.append(node)
        return above

    def forward(self, logits: Tensor) -> Tensor:
        """Log-probability of every node, (B, nodes), from logits (B, nodes)."""
        if self.flat:
            return torch.log_softmax(logits, dim=1)
        node, leaf = self.pairs[:, None].expand(-1, len(logits), -1)
        scores = logits[:, self.leaves].scatter_add(1, leaf, logits[:, self.inner[self.pairs[0]]])
        of_leaves = torch.log_softmax(scores, dim=1)
        terms, none = of_leaves[:, self.pairs[1]], logits.new_full((len(logits), len(self.inner)), -torch.inf)
        largest = none.scatter_reduce(1, node, terms.detach(), "amax")
        total = torch.zeros_like(none).scatter_add(1, node, (terms - largest.gather(1, node)).exp())
        return torch.cat([of_leaves, largest + total.log()], dim=1)[:, self.order]
