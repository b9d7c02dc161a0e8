"""The losses of scE2TM's second view: hand values, bounds, and what does not depend on the order of topics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from lucidcell.models.cross_view import ExternalView, column_contrast, consistency, neighbor_contrast, spread


def shares(n: int, k: int, seed: int = 0) -> torch.Tensor:
    return torch.softmax(3 * torch.randn(n, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), 1)


def balanced(n_of_each: int, k: int) -> torch.Tensor:
    """Cells of one topic each, every topic with as many."""
    return one_hot(torch.arange(k).repeat(n_of_each), k).double()


def test_identical_one_hot_views_agree() -> None:
    assert float(consistency(balanced(4, 5), balanced(4, 5))) == pytest.approx(0, abs=1e-12)
    assert float(consistency(balanced(4, 5), balanced(4, 5), "log_mean")) == pytest.approx(0, abs=1e-12)


def test_consistency_by_hand_and_its_two_forms_differ() -> None:
    theta = torch.tensor([[0.5, 0.5], [0.9, 0.1]], dtype=torch.float64)
    phi = torch.tensor([[0.2, 0.8], [1.0, 0.0]], dtype=torch.float64)
    agreement = np.array([0.5, 0.9])
    assert float(consistency(theta, phi)) == pytest.approx(-np.log(agreement).mean())
    assert float(consistency(theta, phi, "log_mean")) == pytest.approx(-np.log(agreement.mean()))


@pytest.mark.parametrize("k", [3, 10, 100])
def test_neighbor_contrast_of_identical_one_hot_views(k: int) -> None:
    """Each column finds its partner (cosine 1) among 2K - 2 that share no cell: 2 log(1 + 2 (K - 1) e^-2) in total."""
    one = balanced(4, k)
    expected = 2 * np.log(1 + 2 * (k - 1) * np.exp(-2))
    assert float(neighbor_contrast(one, one, one, one, 0.5)) == pytest.approx(expected, rel=1e-9)


def test_column_contrast_against_a_loop() -> None:
    a, b, temperature = shares(30, 4), shares(30, 4, 1), 0.5
    columns = torch.cat([a, b], 1).numpy().T
    columns = columns / np.linalg.norm(columns, axis=1, keepdims=True)
    total = 0.0
    for i in range(8):
        scores = np.exp(columns @ columns[i] / temperature)
        total -= np.log(scores[(i + 4) % 8] / (scores.sum() - scores[i]))
    assert float(column_contrast(a, b, temperature)) == pytest.approx(total / 8, rel=1e-9)


def test_the_gradient_of_column_contrast_passes_gradcheck() -> None:
    shares = [
        torch.softmax(torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)), 1)
        for seed in (0, 1)
    ]
    assert torch.autograd.gradcheck(column_contrast, [one.requires_grad_() for one in shares])


def test_spread_is_largest_for_equal_mean_shares() -> None:
    k = 100
    even = torch.full((7, k), 1 / k, dtype=torch.float64)
    assert 5 * float(spread(even, even)) == pytest.approx(2 * 5 * np.log(k))  # 46.05 for 100 topics
    assert float(spread(balanced(3, k), balanced(3, k))) == pytest.approx(2 * np.log(k)), "of the mean, not of cells"
    assert float(spread(balanced(3, k), balanced(3, k), "cell")) == pytest.approx(0, abs=1e-9)
    assert float(spread(shares(50, k), shares(50, k, 1))) < 2 * np.log(k)


def test_topics_may_come_in_any_order() -> None:
    views = [shares(40, 6, seed) for seed in range(4)]
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    shuffled = [one[:, order] for one in views]
    assert float(neighbor_contrast(*views)) == pytest.approx(float(neighbor_contrast(*shuffled)))
    for loss in (consistency, spread):
        assert float(loss(*views[:2])) == pytest.approx(float(loss(*shuffled[:2])))


def test_the_external_view_gives_shares_of_any_width() -> None:
    phi = ExternalView(7, 16, 5)(torch.randn(12, 7))
    assert phi.shape == (12, 5)
    np.testing.assert_allclose(phi.sum(1).detach(), 1, rtol=1e-5)
