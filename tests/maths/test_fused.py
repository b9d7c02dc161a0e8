"""The fused softmax and likelihood: values against 60 digits, gradients against finite differences and plain torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import exact
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear

from lucidcell.cells.batch import SparseRows
from lucidcell.maths import threads
from lucidcell.maths.fused import LogLikelihood, has_bfloat16_products, low_precision, softmax_log_likelihood
from lucidcell.maths.likelihoods import multinomial_log_prob, nb_log_prob, poisson_log_prob, zinb_log_prob

LIKELIHOODS = ["nb", "zinb", "poisson", "multinomial"]
PRECISIONS = [
    (torch.float64, 1e-9),
    (torch.float32, 1e-4),
]  # float32 runs the compiled kernels, float64 torch operations


class Problem(NamedTuple):
    """Arguments of `softmax_log_likelihood`; those that a likelihood does not use are None."""

    counts: SparseRows
    dense: Tensor
    inputs: dict[str, Tensor]  # differentiable
    likelihood: str
    group: Tensor
    cell_weight: Tensor

    def fused(self, **changed: Tensor) -> LogLikelihood:
        return softmax_log_likelihood(
            self.counts,
            likelihood=self.likelihood,
            group=self.group,
            cell_weight=self.cell_weight,
            **(self.inputs | changed),
        )

    def plain(self) -> tuple[Tensor, Tensor]:
        """Weighted total and log-likelihood of each cell by separate torch operations."""
        hidden, weight, bias, log_library, *rest = self.inputs.values()
        log_rho = torch.log_softmax(linear(hidden, weight, bias), dim=1)
        mean, x = (log_rho + log_library[:, None]).exp(), self.dense.to(hidden.dtype)
        if self.likelihood == "poisson":
            log_p = poisson_log_prob(x, mean)
        elif self.likelihood == "multinomial":
            log_p = multinomial_log_prob(x, log_rho)
        else:
            theta = rest[0].exp()[self.group]
            log_p = nb_log_prob(x, mean, theta)
            if self.likelihood == "zinb":
                log_p = zinb_log_prob(x, mean, theta, linear(hidden, *rest[1:]))
        per_cell = log_p.sum(1)
        return per_cell @ self.cell_weight, per_cell.detach()

    def gradients(self, total: Tensor) -> dict[str, Tensor]:
        used = {name: value for name, value in self.inputs.items() if name != "log_library" or self.uses_library}
        return dict(zip(used, torch.autograd.grad(total, list(used.values())), strict=True))

    @property
    def uses_library(self) -> bool:
        return self.likelihood != "multinomial"


@pytest.fixture(scope="session")
def problem(sparse_rows: Callable[[np.ndarray], SparseRows]) -> Callable[..., Problem]:
    """Make a random problem of any size; the same seed gives the same numbers in either precision."""

    def make(
        likelihood: str,
        n_cells: int = 20,
        n_genes: int = 30,
        n_hidden: int = 4,
        n_groups: int = 3,
        dtype: torch.dtype = torch.float64,
        whole: bool = True,
        seed: int = 0,
    ) -> Problem:
        rng = np.random.default_rng(seed)
        dense = rng.poisson(rng.lognormal(-1, 1.5, (n_cells, n_genes))).astype(np.float32)
        dense[:, 0] *= 100
        dense[rng.random((n_cells, n_genes)) < 0.3] = 0
        if not whole:
            dense *= rng.uniform(0.1, 1.9, dense.shape).astype(np.float32)
        if n_cells > 1:
            dense[-1] = 0  # a cell without any count
        shapes = {
            "hidden": (n_cells, n_hidden),
            "weight": (n_genes, n_hidden),
            "bias": (n_genes,),
            "log_library": n_cells,
        }
        if likelihood in ("nb", "zinb"):
            shapes["log_theta"] = (n_groups, n_genes)
        if likelihood == "zinb":
            shapes |= {"dropout_weight": (n_genes, n_hidden), "dropout_bias": (n_genes,)}
        values = {name: rng.normal(size=shape) for name, shape in shapes.items()}
        values["log_library"] += 3
        # rounded to float32, so that both precisions are given the same numbers
        inputs = {name: torch.from_numpy(value).float().to(dtype).requires_grad_() for name, value in values.items()}
        group = torch.from_numpy(rng.integers(n_groups, size=n_cells))
        weight = torch.from_numpy(rng.uniform(0.5, 2, n_cells)).float().to(dtype)
        return Problem(sparse_rows(dense), torch.from_numpy(dense), inputs, likelihood, group, weight)

    return make


def relative_difference(a: Tensor, b: Tensor) -> float:
    """Norm of the difference over that of `b`."""
    return (a.double() - b.double()).norm().item() / max(b.double().norm().item(), 1e-30)


# --- values -----------------------------------------------------------------------------------------------------


def one_gene(
    dtype: torch.dtype, sparse_rows: Callable[..., SparseRows]
) -> tuple[dict[str, Any], list[tuple[float, ...]]]:
    """Every point of the grid as a cell of its own: with one gene the softmax is 1 and the mean is the library."""
    x, mean, theta = exact.grid()
    log_mean, log_theta = torch.from_numpy(mean).log().to(dtype), torch.from_numpy(theta).log().to(dtype)
    arguments = {
        "counts": sparse_rows(x[:, None]),
        "hidden": torch.zeros(len(x), 1, dtype=dtype),
        "weight": torch.zeros(1, 1, dtype=dtype),
        "bias": torch.zeros(1, dtype=dtype),
        "log_library": log_mean,
        "log_theta": log_theta[:, None],
        "group": torch.arange(len(x)),
    }
    means, thetas = ([exact.mpmath.exp(v) for v in logs.tolist()] for logs in (log_mean, log_theta))
    return arguments, list(zip(x.tolist(), means, thetas, strict=True))


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_nb_and_poisson_are_exact_at_every_extreme(sparse_rows, dtype, tolerance):
    arguments, points = one_gene(dtype, sparse_rows)
    found = softmax_log_likelihood(**arguments, likelihood="nb").per_cell
    assert found.dtype == dtype
    assert exact.largest_error(found.numpy(), [exact.nb(*point) for point in points]) < tolerance
    del arguments["log_theta"], arguments["group"]
    found = softmax_log_likelihood(**arguments, likelihood="poisson").per_cell
    assert exact.largest_error(found.numpy(), [exact.poisson(x, mean) for x, mean, _ in points]) < tolerance


@pytest.mark.parametrize("logit", exact.DROPOUT_LOGITS)
@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_zinb_is_exact_at_every_extreme(sparse_rows, dtype, tolerance, logit):
    arguments, points = one_gene(dtype, sparse_rows)
    bias = torch.tensor([logit], dtype=dtype)
    found = softmax_log_likelihood(
        **arguments, likelihood="zinb", dropout_weight=torch.zeros(1, 1, dtype=dtype), dropout_bias=bias
    )
    wanted = [exact.zinb(*point, bias.item()) for point in points]
    assert exact.largest_error(found.per_cell.numpy(), wanted) < tolerance


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_derivatives_are_exact_at_every_extreme(sparse_rows, dtype):
    arguments, points = one_gene(dtype, sparse_rows)
    leaves = [arguments[name].requires_grad_() for name in ("log_library", "log_theta")]
    slope, d_log_theta = torch.autograd.grad(softmax_log_likelihood(**arguments, likelihood="nb").total, leaves)
    # Both are differences of larger terms, which set how near a number of this precision can come: counts and means
    # in one, digammas and logarithms times theta in the other.
    epsilon = torch.finfo(dtype).eps
    for ours, (x, mean, theta) in zip(slope.tolist(), points, strict=True):
        terms = (x + float(mean)) * float(theta / (theta + mean))
        assert abs(ours - exact.nb_d_log_mean(x, mean, theta)) <= 60 * epsilon * terms, (x, mean, theta)
    for ours, (x, mean, theta) in zip(d_log_theta[:, 0].tolist(), points, strict=True):
        terms = float(mean) + x + (float(theta) * abs(float(exact.mpmath.log(theta))) if dtype == torch.float64 else 0)
        assert abs(ours - exact.nb_d_log_theta(x, mean, theta)) <= 60 * epsilon * terms, (x, mean, theta)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_sum_over_genes_whose_means_span_fourteen_orders(sparse_rows, dtype, tolerance, likelihood):
    rng = np.random.default_rng(0)
    n_cells, n_genes = 30, len(exact.MEANS)
    logits = np.log(exact.MEANS)[rng.permuted(np.tile(np.arange(n_genes), (n_cells, 1)), axis=1)[0]].astype(np.float32)
    log_library = np.log(rng.uniform(0.5, 2, n_cells) * sum(exact.MEANS)).astype(np.float32)
    log_theta = np.log(rng.choice(exact.THETAS, (n_cells, n_genes))).astype(np.float32)
    dropout = rng.choice(exact.DROPOUT_LOGITS, n_genes).astype(np.float32)
    dense = rng.choice(exact.COUNTS, (n_cells, n_genes), p=[0.4, *[0.06] * 10])
    found = softmax_log_likelihood(
        sparse_rows(dense),
        torch.ones(n_cells, 1, dtype=dtype),
        torch.from_numpy(logits)[:, None].to(dtype),
        torch.zeros(n_genes, dtype=dtype),
        torch.from_numpy(log_library).to(dtype),
        likelihood=likelihood,
        log_theta=torch.from_numpy(log_theta).to(dtype),
        group=torch.arange(n_cells),
        dropout_weight=torch.zeros(n_genes, 1, dtype=dtype) if likelihood == "zinb" else None,
        dropout_bias=torch.from_numpy(dropout).to(dtype) if likelihood == "zinb" else None,
    ).per_cell.numpy()
    wanted = []
    for b in range(n_cells):
        means, shares = exact.softmax(logits, log_library[b]), exact.softmax(logits, 0.0)
        genes = zip(dense[b].tolist(), means, log_theta[b].tolist(), dropout.tolist(), shares, strict=True)
        if likelihood == "nb":
            terms = [exact.nb(x, mean, exact.mpmath.exp(t)) for x, mean, t, _, _ in genes]
        elif likelihood == "zinb":
            terms = [exact.zinb(x, mean, exact.mpmath.exp(t), d) for x, mean, t, d, _ in genes]
        elif likelihood == "poisson":
            terms = [exact.poisson(x, mean) for x, mean, _, _, _ in genes]
        else:
            terms = [x * exact.mpmath.log(share) for x, _, _, _, share in genes]
        wanted.append(sum(terms))
    assert exact.largest_error(found, wanted) < tolerance


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("whole", [True, False], ids=["whole counts", "any counts"])
def test_values_are_those_of_plain_torch(problem, likelihood, whole):
    one = problem(likelihood, whole=whole)
    total, per_cell = one.plain()
    found = one.fused()
    torch.testing.assert_close(found.per_cell, per_cell, rtol=1e-11, atol=1e-10)
    torch.testing.assert_close(found.total, total, rtol=1e-11, atol=1e-10)
    assert found.total.requires_grad
    assert not found.per_cell.requires_grad


def test_without_heads_biases_or_weights_they_are_zero_or_one(problem):
    one = problem("zinb", n_groups=1)
    hidden, weight, _, log_library, log_theta, dropout_weight, _ = one.inputs.values()
    short = softmax_log_likelihood(
        one.counts,
        hidden,
        weight,
        None,
        log_library,
        likelihood="zinb",
        log_theta=log_theta[0],
        dropout_weight=dropout_weight,
    )
    zeros = torch.zeros(30, dtype=torch.float64)
    long = one._replace(cell_weight=torch.ones(20, dtype=torch.float64)).fused(bias=zeros, dropout_bias=zeros)
    torch.testing.assert_close(short.per_cell, long.per_cell)
    torch.testing.assert_close(short.total, long.per_cell.sum())


# --- gradients --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_groups", [1, 3])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_gradcheck_of_every_input(problem, likelihood, n_groups):
    one = problem(likelihood, n_cells=7, n_genes=6, n_hidden=3, n_groups=n_groups)
    inputs = one.inputs if one.uses_library else {k: v for k, v in one.inputs.items() if k != "log_library"}
    names = list(inputs)
    function = lambda *values: one.fused(**dict(zip(names, values, strict=True))).total  # noqa: E731
    assert torch.autograd.gradcheck(function, list(inputs.values()), nondet_tol=1e-12)


@pytest.mark.parametrize("whole", [True, False], ids=["whole counts", "any counts"])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_gradients_are_those_of_plain_torch(problem, likelihood, whole):
    one = problem(likelihood, n_cells=50, whole=whole)
    ours, theirs = one.gradients(one.fused().total), one.gradients(one.plain()[0])
    for name in ours:
        assert relative_difference(ours[name], theirs[name]) < 1e-9, name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_backward_scales_by_what_comes_from_above(problem, likelihood, dtype):
    one = problem(likelihood, dtype=dtype)
    plain, scaled = one.gradients(one.fused().total), one.gradients((one.fused().total * -0.25) ** 1 + 7)
    for name in plain:
        torch.testing.assert_close(scaled[name], -0.25 * plain[name])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_weights_need_not_be_leaves(problem, dtype):
    one = problem("zinb", dtype=dtype)
    factor = torch.full((30, 1), 0.5, dtype=dtype, requires_grad=True)
    before, w = one.inputs["weight"], one.inputs["weight"].detach()
    made = factor * w
    (ours,) = torch.autograd.grad(one.fused(weight=made).total, factor)
    leaf = made.detach().requires_grad_()
    (d_weight,) = torch.autograd.grad(one.fused(weight=leaf).total, leaf)
    torch.testing.assert_close(ours, (d_weight * w).sum(1, keepdim=True), rtol=1e-4, atol=1e-4)
    assert before.grad is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_nothing_is_written_to_grad_or_to_the_inputs(problem, likelihood, dtype):
    one = problem(likelihood, dtype=dtype)
    before = {name: value.detach().clone() for name, value in one.inputs.items()}
    counts = [tensor.clone() for tensor in one.counts[:3]]
    one.gradients(one.fused().total)
    for name, value in one.inputs.items():
        assert value.grad is None, name
        assert torch.equal(value, before[name]), name
    assert all(torch.equal(a, b) for a, b in zip(one.counts[:3], counts, strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_two_losses_add_up_in_grad(problem, dtype):
    """As with any torch operation: `.grad` is summed by autograd, and hooks see each gradient."""
    one = problem("nb", dtype=dtype)
    single = one.gradients(one.fused().total)
    seen = []
    one.inputs["weight"].register_hook(seen.append)
    (one.fused().total + 2 * one.fused().total).backward()
    torch.testing.assert_close(one.inputs["weight"].grad, 3 * single["weight"], rtol=1e-4, atol=1e-4)
    assert seen


def test_without_gradients_the_values_are_the_same(problem):
    for dtype in (torch.float64, torch.float32):
        one = problem("zinb", dtype=dtype)
        with torch.no_grad():
            quiet = one.fused()
        assert not quiet.total.requires_grad
        assert torch.equal(quiet.per_cell, one.fused().per_cell)


# --- the compiled kernels against torch in double precision -----------------------------------------------------


def compare_with_double(problem: Callable[..., Problem], likelihood: str, tolerance: float, **size: Any) -> None:
    """Values and gradients in float32 against the float64 ones of the same numbers."""
    single, double = problem(likelihood, dtype=torch.float32, **size), problem(likelihood, **size)
    found, wanted = single.fused(), double.fused()
    assert relative_difference(found.per_cell, wanted.per_cell) < tolerance
    assert relative_difference(found.total, wanted.total) < tolerance
    ours, theirs = single.gradients(found.total), double.gradients(wanted.total)
    for name in ours:
        assert ours[name].dtype == torch.float32
        assert relative_difference(ours[name], theirs[name]) < tolerance, name


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("n_cells", [1, 63, 64, 127, 128, 129, 255, 256, 257, 300, 513])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_kernels_at_the_edges_of_blocks(problem, likelihood, n_cells, n_threads):
    with threads.limit(n_threads):
        compare_with_double(problem, likelihood, 2e-5, n_cells=n_cells, n_genes=17)


@pytest.mark.parametrize("n_genes", [1, 2, 15, 16, 33])
@pytest.mark.parametrize("likelihood", ["nb", "zinb", "poisson"])
def test_kernels_with_any_number_of_genes(problem, likelihood, n_genes):
    compare_with_double(problem, likelihood, 2e-5, n_genes=n_genes)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_kernels_take_counts_that_are_not_whole(problem, likelihood):
    compare_with_double(problem, likelihood, 2e-5, whole=False, n_cells=40)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_kernels_with_no_count_at_all(problem, sparse_rows, likelihood):
    empty = sparse_rows(np.zeros((20, 30)))
    single, double = (problem(likelihood, dtype=t)._replace(counts=empty) for t in (torch.float32, torch.float64))
    torch.testing.assert_close(single.fused().per_cell.double(), double.fused().per_cell, rtol=1e-5, atol=1e-5)
    if likelihood == "multinomial":
        assert not single.fused().per_cell.any()


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_kernels_take_a_slice_of_rows(problem, likelihood):
    """Rows of a larger matrix do not begin at entry 0."""
    one = problem(likelihood, dtype=torch.float32)
    per_cell_inputs = {name: one.inputs[name][5:12] for name in ("hidden", "log_library")}
    part = one._replace(counts=one.counts.rows(5, 12), group=one.group[5:12], cell_weight=one.cell_weight[5:12])
    torch.testing.assert_close(part.fused(**per_cell_inputs).per_cell, one.fused().per_cell[5:12], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_the_same_threads_give_the_same_bits(problem, likelihood):
    one = problem(likelihood, n_cells=300, dtype=torch.float32)
    with threads.limit(2):
        first, second = (one.gradients(one.fused().total) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_bfloat16_products_stay_close(problem, likelihood, n_threads):
    """bfloat16 keeps 8 bits, so hidden units, weights and the slopes are off by up to 2^-9 = 0.2 % each.

    Logits are sums of a few such products and the likelihood is flat near its maximum; what is left is below 1 % of the
    value and 3 % of a gradient's norm. Where a CPU has no such products, or for fewer than 32 hidden
    units, float32 is used.
    """
    size = {"n_cells": 300, "n_genes": 40, "n_hidden": 32}
    low, double = problem(likelihood, dtype=torch.float32, **size), problem(likelihood, **size)
    with threads.limit(n_threads), low_precision(True):
        found = low.fused()
        ours = low.gradients(found.total)
    wanted = double.fused()
    theirs = double.gradients(wanted.total)
    assert relative_difference(found.total, wanted.total) < 0.01
    assert relative_difference(found.per_cell, wanted.per_cell) < 0.01
    for name in ours:
        assert ours[name].dtype == torch.float32
        assert relative_difference(ours[name], theirs[name]) < 0.03, name
    if has_bfloat16_products():
        assert not torch.equal(found.per_cell, low.fused().per_cell), "the setting had no effect"


def test_extreme_logits_do_not_overflow(problem):
    """A share of 1 beside shares that vanish."""
    for likelihood in LIKELIHOODS:
        one = problem(likelihood, dtype=torch.float32)
        bias = torch.linspace(-500, 500, 30).requires_grad_()
        found = one.fused(bias=bias)
        assert found.per_cell.isfinite().all(), likelihood
        (gradient,) = torch.autograd.grad(found.total, bias)
        assert gradient.isfinite().all(), likelihood


def test_a_second_backward_says_that_the_gradients_are_gone(problem):
    total = problem("nb", dtype=torch.float32).fused().total
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="used up"):
        total.backward()
