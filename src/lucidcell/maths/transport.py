"""Entropic optimal transport between few rows and many columns, and the gradient of its cost.

For a cost C (K x G), weights a (K,) and b (G,) that sum to 1, and epsilon > 0, the plan

    P = argmin sum_kg P_kg C_kg + epsilon sum_kg P_kg (log P_kg - 1)      rows sum to a, columns to b
    P_kg = exp((f_k + g_g - C_kg) / epsilon)

Given f, the g that makes all columns right is a log-sum-exp, so that only f is sought: the maximum of the concave

    D(f) = a.f - epsilon sum_g b_g log sum_k exp((f_k - C_kg) / epsilon),    gradient a - P 1,
    Hessian -(diag(P 1) - P diag(1/b) P') / epsilon                          K x K

by Newton steps with a line search, from large epsilon to small. Sinkhorn's steps (f made right, then g) need thousands
where the costs are large against epsilon, and started from the kernel exp(-C / epsilon) they lose all mass there, since
it is zero in float32; potentials cannot. Warm-started from a similar problem, one Newton step is enough.

The cost L = sum P C is not what P minimises, so its gradient is not P. With u, v that solve

    diag(a) u + P v = (P C) 1,    P' u + diag(b) v = (P C)' 1       (P C elementwise; a K x K system after v is gone)
    dL/dC = P + P (u_k + v_g - C_kg) / epsilon

exactly, without a way back through the steps. The gradient of the objective that P does minimise is P ("envelope").

Inside, C and P lie as G x K: what a column sums up is together in memory, and distances come in that order.

Reference: Cuturi (2013), NeurIPS; Cuturi & Peyre (2016) for the dual without g; Brauer et al. (2017) for Newton steps.
"""

from __future__ import annotations

import logging
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lucidcell.errors import SettingError

logger = logging.getLogger("lucidcell")

GRADIENTS = ("implicit", "envelope", "unroll")
SINKHORN_STEPS = 3  # before the first Newton step, of a problem without a start
LEVEL, ROUGHLY = 2.0, 1e-6  # of epsilon: the factor between two, and the least tolerance at all but the last
MOST_STEPS = 500
ENOUGH_RISE, MOST_HALVINGS = 1e-4, 30  # of the line search
UNROLLED_STEPS = 1000
FINEST_OF_FLOAT32 = 1e-4  # below this tolerance all is in float64


class Transport(NamedTuple):
    """The plan and what it is made of."""

    plan: Tensor  # (K, G)
    row: Tensor  # (K,): f
    column: Tensor  # (G,): g
    error: float  # sum over rows of |row sum - a|; the columns are exact
    steps: int


def transport(
    cost: Tensor,
    epsilon: float = 0.05,
    *,
    row_weights: Tensor | None = None,
    column_weights: Tensor | None = None,
    tolerance: float = 1e-6,
    most_steps: int = MOST_STEPS,
    start: Tensor | None = None,
) -> Transport:
    """The entropic transport plan; no gradients.

    Parameters
    ----------
    cost
        C, (K, G); the K x K system is small where K is.
    epsilon
        Weight of the entropy, in units of the cost.
    row_weights, column_weights
        a (K,) and b (G,), each with sum 1; uniform by default.
    tolerance
        Of the sum over rows of |row sum - a|.
    most_steps
        Steps after which the plan is given as it is.
    start
        f (K,) of a similar problem; where it leads nowhere, the search begins anew without it.
    """
    exact = (cost.detach().double() if tolerance < FINEST_OF_FLOAT32 else cost.detach()).t().contiguous()
    with torch.no_grad():
        found = _solve(exact, epsilon, row_weights, column_weights, tolerance, most_steps, start)
    return found._replace(plan=found.plan.t().to(cost), row=found.row.to(cost), column=found.column.to(cost))


def _uniform(cost: Tensor, size: int, weights: Tensor | None) -> Tensor:
    return cost.new_full((size,), 1 / size) if weights is None else weights.to(cost)


def _solve(
    cost: Tensor, epsilon: float, a: Tensor | None, b: Tensor | None, tolerance: float, most_steps: int,
    start: Tensor | None,
) -> Transport:  # fmt: skip
    """From the start, if there is one; from large epsilon to small, if there is none or it led nowhere."""
    n_columns, n_rows = cost.shape
    problem = cost, _uniform(cost, n_rows, a), _uniform(cost, n_columns, b), tolerance
    used = 0
    if start is not None:
        found = _descend(*problem, [epsilon], start.to(cost), 0, most_steps)
        if found.error <= tolerance:
            return found
        used = found.steps
    found = _descend(*problem, _levels(cost, epsilon), cost.new_zeros(n_rows), SINKHORN_STEPS, most_steps - used)
    if found.error > tolerance:
        logger.warning(
            "the transport plan is off by %.1e after %d steps, where %.1e is wanted.",
            found.error, found.steps + used, tolerance,
        )  # fmt: skip
    return found._replace(steps=found.steps + used)


def _descend(
    cost: Tensor, a: Tensor, b: Tensor, tolerance: float, levels: list[float], f: Tensor, sinkhorn: int, most_steps: int
) -> Transport:
    """Newton steps at each level of epsilon, after some of Sinkhorn's."""
    steps = 0
    for level in levels:
        scaled, wanted = cost / level, tolerance if level == levels[-1] else max(ROUGHLY, tolerance)
        f = f / level
        for _ in range(sinkhorn):
            f = a.log() - torch.logsumexp(_columns_made_right(f, scaled, b)[:, None] - scaled, 0)
        problem = _Dual(scaled, a, b)
        at = problem.at(f)
        while (error := float((a - at.sums).abs().sum())) > wanted and steps < most_steps:
            better = problem.newton(at)
            if better is None:  # no further: rounding, or too far away for Newton steps
                break
            at, steps = better, steps + 1
        f = (at.f - at.f.mean()) * level  # f + c, g - c is the same plan
    return Transport(at.plan, f, _columns_made_right(f / level, scaled, b) * level, error, steps)


def _levels(cost: Tensor, epsilon: float) -> list[float]:
    """Falling values that end with epsilon; the first is not small against what the costs differ by."""
    spread = float(cost.max() - cost.min())
    n = max(0, math.ceil(math.log(spread / (5 * epsilon), LEVEL))) if spread > 0 else 0
    return [epsilon * LEVEL**i for i in range(n, -1, -1)]


def _columns_made_right(f: Tensor, scaled: Tensor, b: Tensor) -> Tensor:
    return b.log() - torch.logsumexp(f - scaled, 1)


class _Point(NamedTuple):
    f: Tensor
    value: float  # D(f) / epsilon
    plan: Tensor  # (G, K)
    sums: Tensor  # P 1


class _Dual:
    """D as a function of f / epsilon."""

    def __init__(self, scaled: Tensor, a: Tensor, b: Tensor) -> None:
        self.scaled, self.a, self.b = scaled, a, b

    def at(self, f: Tensor) -> _Point:
        exponent = f - self.scaled
        largest = exponent.amax(1)
        plan = exponent.sub_(largest[:, None]).exp_()
        total = plan.sum(1)
        value = float(
            (self.a * f).sum(dtype=torch.float64) - (self.b * (total.log() + largest)).sum(dtype=torch.float64)
        )
        plan *= (self.b / total)[:, None]
        return _Point(f, value, plan, plan.sum(0))

    def newton(self, at: _Point) -> _Point | None:
        """A point with a higher D, or one nearer to the maximum where D cannot tell; None if there is none."""
        rest = self.a - at.sums
        step = solve_rows(at.plan, at.sums, self.b, rest)
        slope, size = float(rest @ step), 1.0
        for _ in range(MOST_HALVINGS):
            point = self.at(at.f + size * step)
            flat = abs(point.value - at.value) <= 1e-6 * abs(at.value)  # the rounding of float32
            nearer = float((self.a - point.sums).abs().sum()) < float(rest.abs().sum())
            if point.value >= at.value + ENOUGH_RISE * size * slope or (flat and nearer):
                return point
            size /= 2
        return None


def solve_rows(plan: Tensor, row_sums: Tensor, b: Tensor, right: Tensor) -> Tensor:
    """x (K,) with (diag(P 1) - P diag(1/b) P') x = right, of the solutions the one with the smallest mean square.

    The plan is (G, K). In float64: rows that share few columns with others make the matrix nearly singular.
    """
    p = (plan / b.sqrt()[:, None]).double()
    matrix = torch.diag(row_sums.double()) - p.t() @ p
    matrix += 1 / len(matrix) ** 2  # constant x are its null space, and `right` sums to 0
    ridge = 1e-13 * float(row_sums.double().mean())
    matrix.diagonal().add_(ridge)
    solved: Tensor = torch.linalg.solve(matrix, right.double())
    return (solved - solved.mean()).to(plan)


# --- the cost of transport --------------------------------------------------------------------------------------


def transport_cost(
    cost: Tensor,
    epsilon: float = 0.05,
    *,
    gradient: str = "implicit",
    tolerance: float = 5e-3,
    start: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """sum P C for uniform weights, differentiable in C, and the f (K,) to start a similar problem from.

    Parameters
    ----------
    cost, epsilon, tolerance, start
        As for `transport`.
    gradient
        "implicit": exact, of sum P C. "unroll": the same by automatic differentiation through Sinkhorn steps from zero;
        memory grows with their number. "envelope": P alone, as if P did not depend on C.

    Raises
    ------
    SettingError
        If the gradient is unknown.
    """
    if gradient not in GRADIENTS:
        raise SettingError(f"gradient is {gradient!r}; it must be one of {', '.join(GRADIENTS)}.")
    if gradient == "unroll":
        return _unrolled(cost, epsilon, tolerance)
    found = transport(cost, epsilon, tolerance=tolerance, start=start)
    if gradient == "envelope":
        return (found.plan * cost).sum(), found.row
    total: Tensor = _Cost.apply(cost, found.plan, epsilon)
    return total, found.row


class _Cost(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, cost: Tensor, plan: Tensor, epsilon: float) -> Tensor:
        ctx.save_for_backward(cost, plan)
        ctx.epsilon = epsilon
        return (plan * cost).sum()

    @staticmethod
    def backward(ctx: Any, d_total: Tensor) -> tuple[Tensor, None, None]:
        cost, plan = (one.t().contiguous() for one in ctx.saved_tensors)
        moved = plan * cost
        rows, columns = moved.sum(0), moved.sum(1)
        b = plan.sum(1)
        u = solve_rows(plan, plan.sum(0), b, rows - (columns / b) @ plan)
        v = (columns - plan @ u) / b
        gradient = (u - cost).add_(v[:, None]).mul_(plan).div_(ctx.epsilon).add_(plan)
        return gradient.mul_(d_total).t(), None, None


def _unrolled(cost: Tensor, epsilon: float, tolerance: float) -> tuple[Tensor, Tensor]:
    scaled = cost / epsilon
    log_a, log_b = -torch.tensor(cost.shape).log().to(cost)
    f, g = cost.new_zeros(cost.shape[0]), cost.new_zeros(cost.shape[1])
    for step in range(UNROLLED_STEPS):
        f = log_a - torch.logsumexp(g - scaled, 1)
        g = log_b - torch.logsumexp(f[:, None] - scaled, 0)
        if step % 10 == 0:
            with torch.no_grad():
                sums = torch.logsumexp(f[:, None] + g - scaled, 1).exp()
                if float((sums - log_a.exp()).abs().sum()) <= tolerance:
                    break
    plan = (f[:, None] + g - scaled).exp()
    return (plan * cost).sum(), (f * epsilon).detach()
