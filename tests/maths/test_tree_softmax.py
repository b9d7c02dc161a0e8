"""The softmax down a tree: by hand, one node after the other, and what must hold for any tree."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lucidcell.cells.taxonomy import Taxonomy
from lucidcell.maths.tree_softmax import TreeSoftmax


def by_hand(parents: tuple[int, ...], logits: np.ndarray) -> np.ndarray:
    """Log-probability of every node of one cell, as conditionals among siblings, from the leaves up and down again."""
    children = {node: [i for i, parent in enumerate(parents) if parent == node] for node in range(-1, len(parents))}

    def score(node: int) -> float:
        below = [score(child) for child in children[node]]
        return float(logits[node]) + (np.log(np.exp(below).sum()) if below else 0.0)

    found = np.empty(len(parents))
    for node, parent in enumerate(parents):
        conditional = score(node) - np.log(sum(np.exp(score(sibling)) for sibling in children[parent]))
        found[node] = conditional + (0 if parent == -1 else found[parent])
    return found


def some_tree(seed: int, n: int = 25) -> tuple[int, ...]:
    rng = np.random.default_rng(seed)
    return tuple(-1 if i < 3 or rng.random() < 0.2 else int(rng.integers(0, i)) for i in range(n))


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_product_of_conditionals_on_the_way_down(seed: int) -> None:
    parents = some_tree(seed)
    logits = 3 * torch.randn(6, len(parents), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    found = TreeSoftmax(parents)(logits)
    np.testing.assert_allclose(found, [by_hand(parents, row) for row in logits.numpy()], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("seed", range(5))
def test_leaves_sum_to_one_and_parents_to_their_children(seed: int) -> None:
    parents = some_tree(seed)
    tree = Taxonomy(tuple(map(str, range(len(parents)))), parents)
    logits = 30 * torch.randn(50, len(parents), generator=torch.Generator().manual_seed(seed))
    p = TreeSoftmax(parents)(logits).double().exp().numpy()
    np.testing.assert_allclose(p[:, tree.leaves].sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(p, p[:, tree.leaves] @ tree.holds.T, rtol=1e-4, atol=1e-7)


def test_depth_one_is_a_softmax_bit_for_bit() -> None:
    logits = torch.randn(9, 12)
    assert torch.equal(TreeSoftmax([-1] * 12)(logits), torch.log_softmax(logits, dim=1))


def test_an_only_child_has_the_probability_of_its_parent() -> None:
    found = TreeSoftmax([-1, -1, 0, 2])(torch.tensor([[0.3, -1.0, 55.0, -80.0]]))
    assert torch.equal(found[:, 2], found[:, 0])
    assert torch.equal(found[:, 3], found[:, 0])


def test_gradients() -> None:
    logits = torch.randn(3, 12, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(TreeSoftmax(some_tree(1, 12)), (logits,))


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([[3e4, -3e4, 1e4, -1e4, 0.0]], requires_grad=True)
    found = TreeSoftmax([-1, -1, 0, 0, 1])(logits)
    found.sum().backward()
    assert found.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
