"""Layers and densities of pairs, against one-hot copies and torch.distributions; gradients against double precision."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from lucidcell.maths.pairs import log_density, relu_of_sum

N_CELLS, N_LABELS, N_PAIRS, WIDTH = 7, 5, 40, 16
FLOOR = 1e-4


@pytest.fixture
def pairs() -> tuple[Tensor, Tensor]:
    """Positions of cells and labels: unordered, some twice, some never."""
    rng = np.random.default_rng(0)
    cell, label = rng.integers(0, N_CELLS - 1, N_PAIRS), rng.integers(0, N_LABELS - 1, N_PAIRS)
    return torch.from_numpy(cell), torch.from_numpy(label)


def test_relu_of_sum_is_a_layer_of_a_one_hot_label(pairs: tuple[Tensor, Tensor]) -> None:
    cell, label = pairs
    torch.manual_seed(0)
    layer, z = nn.Linear(3 + N_LABELS, WIDTH), torch.randn(N_CELLS, 3)
    found = relu_of_sum(z @ layer.weight[:, :3].t() + layer.bias, cell, layer.weight[:, 3:].t(), label)
    wanted = layer(torch.cat([z[cell], torch.eye(N_LABELS)[label]], dim=1)).relu()
    torch.testing.assert_close(found, wanted)


def test_log_density_is_that_of_torch(pairs: tuple[Tensor, Tensor]) -> None:
    cell, _ = pairs
    torch.manual_seed(0)
    z, hidden = torch.randn(N_CELLS, 3), torch.randn(N_PAIRS, WIDTH)
    mean, log_variance = nn.Linear(WIDTH, 3), nn.Linear(WIDTH, 3)
    found = log_density(z, cell, hidden, mean, log_variance, FLOOR)
    sd = (log_variance(hidden).exp() + FLOOR).sqrt()
    wanted = Independent(Normal(mean(hidden), sd), 1).log_prob(z[cell]) + 1.5 * math.log(2 * math.pi)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_gradients_of_the_compiled_passes_are_those_in_double_precision(pairs: tuple[Tensor, Tensor]) -> None:
    cell, label = pairs
    found = []
    for dtype in (torch.float64, torch.float32):
        torch.manual_seed(0)
        x, table = torch.randn(N_CELLS, WIDTH), torch.randn(N_LABELS, WIDTH)
        z, mean, log_variance = torch.randn(N_CELLS, 3), nn.Linear(WIDTH, 3), nn.Linear(WIDTH, 3)
        inputs = [one.to(dtype).requires_grad_() for one in (x, table, z)]
        mean, log_variance = mean.to(dtype), log_variance.to(dtype)
        hidden = relu_of_sum(inputs[0], cell, inputs[1], label)
        density = log_density(inputs[2], cell, hidden, mean, log_variance, FLOOR)
        (density * torch.linspace(-1, 2, N_PAIRS, dtype=dtype)).sum().backward()
        found.append(
            [density.detach(), *(one.grad for one in (*inputs, *mean.parameters(), *log_variance.parameters()))]
        )
    for wanted, value in zip(*found, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_no_pairs_at_all(dtype: torch.dtype) -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    x, table = torch.randn(3, 4, dtype=dtype, requires_grad=True), torch.randn(2, 4, dtype=dtype, requires_grad=True)
    relu_of_sum(x, nothing, table, nothing).sum().backward()
    assert x.grad is not None
    assert not x.grad.any()
