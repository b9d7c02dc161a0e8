"""Softmax down a tree: the probability of every node from one logit each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

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
    path: Tensor  # (levels - 1, leaves) each leaf's parent, the parent's parent, ...; n_nodes beyond the root
    pairs: Tensor  # (2, pairs) an inner node and a leaf under it, as its position among the leaves
    order: Tensor  # (nodes,) place of each node among the leaves and, after them, the inner nodes

    def __init__(self, parents: Sequence[int]) -> None:
        super().__init__()
        n = len(parents)
        inner = sorted(set(parents) - {TOP})
        leaves = [node for node in range(n) if node not in set(inner)]
        paths = [self._above(leaf, parents) for leaf in leaves]
        longest = max(map(len, paths), default=0)
        under = [(inner.index(node), k) for k, path in enumerate(paths) for node in path]
        self.flat = not inner
        buffers = {
            "leaves": torch.tensor(leaves),
            "path": torch.tensor([[*path, *[n] * (longest - len(path))] for path in paths]).t(),
            "pairs": torch.tensor(under).t(),
            "order": torch.tensor([*leaves, *inner]).argsort(),
        }
        for name, values in buffers.items():
            self.register_buffer(name, values.contiguous(), persistent=False)

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
        padded, scores = pad(logits, (0, 1)), logits[:, self.leaves]
        for step in self.path:
            scores = scores + padded[:, step]
        of_leaves = torch.log_softmax(scores, dim=1)
        node, leaf = self.pairs
        terms, node = of_leaves[:, leaf], node.expand(len(logits), -1)
        none = logits.new_full((len(logits), len(self.order) - len(self.leaves)), -torch.inf)
        largest = none.scatter_reduce(1, node, terms.detach(), "amax")
        total = torch.zeros_like(none).scatter_add(1, node, (terms - largest.gather(1, node)).exp())
        return torch.cat([of_leaves, largest + total.log()], dim=1)[:, self.order]
