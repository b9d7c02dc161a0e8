from __future__ import annotations

import torch

from lucidcell.maths.points import squared_distances


def points(n: int, seed: int) -> torch.Tensor:
    return torch.randn(n, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed), requires_grad=True)


def test_squared_distances_are_those_of_cdist() -> None:
    genes, topics = points(7, 0), points(3, 1)
    torch.testing.assert_close(squared_distances(genes, topics, 0.3), 0.3 * torch.cdist(genes, topics) ** 2)


def test_their_gradient_passes_gradcheck_also_through_a_transpose() -> None:
    genes, topics = points(7, 0), points(3, 1)
    assert torch.autograd.gradcheck(lambda a, b: squared_distances(a, b, 0.3), (genes, topics))
    assert torch.autograd.gradcheck(lambda a, b: squared_distances(a, b).t().softmax(0), (genes, topics))
