"""Transport against POT, automatic differentiation and the values of random embeddings that the specification gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lucidcell.errors import SettingError
from lucidcell.maths.transport import transport, transport_cost


def embeddings(n_topics: int, n_genes: int, dim: int, norm: float, seed: int = 0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    drawn = (torch.randn(n, dim, generator=generator, dtype=dtype) for n in (n_topics, n_genes))
    return [norm * torch.nn.functional.normalize(one, dim=1) for one in drawn]


def squared(topics: torch.Tensor, genes: torch.Tensor) -> torch.Tensor:
    return torch.cdist(topics, genes).square()


@pytest.mark.parametrize(("norm", "expected"), [(1.0, 1.707), (2.0, 6.60), (3.0, 14.83)])
def test_cost_of_random_directions(norm: float, expected: float) -> None:
    """Where a kernel exp(-cost / epsilon) in float32 has lost all its mass, the plan still has it."""
    cost = squared(*embeddings(100, 5000, 200, norm, dtype=torch.float32))
    found = transport(cost)
    assert found.plan.dtype == torch.float32
    assert float((found.plan * cost).sum()) == pytest.approx(expected, rel=3e-3)
    kernel_mass = float((-cost / 0.05).exp().sum())
    assert norm < 2 or kernel_mass < 1e-20


@pytest.mark.parametrize("norm", [0.0, 0.3, 1.0, 3.0, 10.0, 30.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_marginals_for_any_norm(norm: float, dtype: torch.dtype) -> None:
    cost = squared(*embeddings(20, 300, 10, norm, dtype=dtype))
    plan = transport(cost).plan.double()
    assert float((plan.sum(1) - 1 / 20).abs().sum()) < 1.5e-6
    assert float((plan.sum(0) - 1 / 300).abs().sum()) < 1.5e-6


def test_marginals_of_other_weights_and_potentials() -> None:
    cost = squared(*embeddings(7, 40, 5, 1.5))
    rng = np.random.default_rng(1)
    a, b = (torch.from_numpy(rng.dirichlet(np.ones(n))) for n in (7, 40))
    found = transport(cost, 0.1, row_weights=a, column_weights=b, tolerance=1e-11)
    np.testing.assert_allclose(found.plan.sum(1), a, atol=1e-11)
    np.testing.assert_allclose(found.plan.sum(0), b, atol=1e-11)
    by_potentials = ((found.row[:, None] + found.column - cost) / 0.1).exp()
    np.testing.assert_allclose(found.plan, by_potentials, rtol=1e-9)


@pytest.mark.oracle
@pytest.mark.parametrize("norm", [0.5, 1.0, 2.0])
def test_plan_is_that_of_pot(norm: float) -> None:
    ot = pytest.importorskip("ot")
    cost = squared(*embeddings(30, 400, 20, norm))
    a, b = np.full(30, 1 / 30), np.full(400, 1 / 400)
    expected = ot.sinkhorn(a, b, cost.numpy(), 0.05, method="sinkhorn_log", numItermax=100_000, stopThr=1e-13)
    found = transport(cost, 0.05, tolerance=1e-12)
    np.testing.assert_allclose(found.plan, expected, atol=1e-8)
    assert float((found.plan * cost).sum()) == pytest.approx(float((expected * cost.numpy()).sum()), abs=1e-8)


def test_a_start_from_a_similar_problem_saves_the_steps() -> None:
    topics, genes = embeddings(50, 1000, 30, 1.0)
    before = transport(squared(topics, genes), tolerance=1e-6)
    moved = squared(topics + 1e-3, genes)
    warm = transport(moved, tolerance=1e-6, start=before.row)
    assert warm.steps <= 2 < transport(moved, tolerance=1e-6).steps
    np.testing.assert_allclose(warm.plan.sum(1), 1 / 50, atol=1e-6 / 50)


@pytest.mark.parametrize("norm", [0.5, 1.0, 1.5])
def test_implicit_gradient_is_the_unrolled_one(norm: float) -> None:
    topics, genes = embeddings(12, 150, 8, norm)
    gradients = {}
    for how in ("implicit", "unroll"):
        t, g = topics.clone().requires_grad_(), genes.clone().requires_grad_()
        total, _ = transport_cost((t[:, None] - g).square().sum(2), 0.05, gradient=how, tolerance=1e-13)
        gradients[how] = torch.cat(torch.autograd.grad(total, (t, g)))
    largest = float(gradients["unroll"].abs().max())
    assert float((gradients["implicit"] - gradients["unroll"]).abs().max()) < 1e-6 * max(1, largest)


def test_implicit_gradient_by_differences_and_the_envelope_is_another() -> None:
    cost = squared(*embeddings(4, 9, 3, 1.0)).requires_grad_()
    total, _ = transport_cost(cost, 0.2, tolerance=1e-13)
    (gradient,) = torch.autograd.grad(total, cost)
    numeric = np.zeros((4, 9))
    for k, g in np.ndindex(4, 9):
        around = []
        for change in (1e-5, -1e-5):
            other = cost.detach().clone()
            other[k, g] += change
            around.append(float(transport_cost(other, 0.2, tolerance=1e-13)[0]))
        numeric[k, g] = (around[0] - around[1]) / 2e-5
    np.testing.assert_allclose(gradient, numeric, atol=1e-8)
    envelope, _ = transport_cost(cost, 0.2, gradient="envelope", tolerance=1e-13)
    (of_objective,) = torch.autograd.grad(envelope, cost)
    np.testing.assert_allclose(of_objective, transport(cost, 0.2, tolerance=1e-13).plan, atol=1e-12)
    assert np.abs(of_objective.numpy() - numeric).max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spread", [0.5, 1.0, 5.0])
def test_a_start_from_anywhere_ends_at_the_plan(spread: float, dtype: torch.dtype) -> None:
    cost = squared(*embeddings(50, 600, 40, 1.0, dtype=dtype))
    generator = torch.Generator().manual_seed(0)
    start = spread * torch.randn(50, generator=generator, dtype=dtype)
    found, expected = transport(cost, tolerance=5e-3, start=start), transport(cost)
    assert found.error <= 5e-3
    assert float((found.plan - expected.plan).abs().sum()) < 0.02


@pytest.mark.parametrize("norm", [1.0, 30.0, 100.0])
def test_a_rough_plan_without_a_start_takes_few_steps(norm: float) -> None:
    found = transport(squared(*embeddings(50, 600, 40, norm, dtype=torch.float32)), tolerance=5e-3)
    assert found.error <= 5e-3
    assert found.steps < 60


def test_a_plan_that_is_not_reached_is_said(caplog) -> None:
    found = transport(squared(*embeddings(20, 300, 10, 3.0)), most_steps=1)
    assert found.steps == 1
    assert "off by" in caplog.text
    assert "after 1 steps" in caplog.text


def test_unknown_gradient() -> None:
    with pytest.raises(SettingError, match="'exact'"):
        transport_cost(torch.ones(2, 3), gradient="exact")
