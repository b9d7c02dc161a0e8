from __future__ import annotations

import torch

from lucidcell.maths.distances import gram, squared_distances


def points(n: int, d: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def test_distances_are_those_of_torch():
    a, b = points(7), points(4, seed=1)
    torch.testing.assert_close(squared_distances(a, b), torch.cdist(a, b).square())


def test_gradients():
    """Against finite differences; the product with itself also where what comes back is not symmetric."""
    a, b = points(7), points(4, seed=1)
    torch.autograd.gradcheck(squared_distances, (a, b))
    weight = points(7, 7, seed=2).detach()
    torch.autograd.gradcheck(lambda x: gram(x) * weight, (a,))
