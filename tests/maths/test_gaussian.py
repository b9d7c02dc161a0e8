"""A draw from the posterior, its divergence and density, against torch.distributions."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal, kl_divergence

from lucidcell.maths.gaussian import draw_gaussian

FLOOR = 1e-4


def posterior(dtype: torch.dtype, spread: float = 0.3) -> tuple[torch.Tensor, nn.Linear, nn.Linear]:
    torch.manual_seed(0)
    hidden = torch.randn(7, 6, dtype=dtype, requires_grad=True)
    mean, log_variance = nn.Linear(6, 3, dtype=dtype), nn.Linear(6, 3, dtype=dtype)
    log_variance.weight.data *= spread / 0.3
    return hidden, mean, log_variance


def by_hand(hidden, mean, log_variance):
    """The same draw through torch.distributions."""
    torch.manual_seed(1)
    epsilon = torch.randn(hidden.shape[0], 3, dtype=hidden.dtype)
    sigma = (log_variance(hidden).exp() + FLOOR).sqrt()
    q = Normal(mean(hidden), sigma)
    z = q.loc + q.scale * epsilon
    kl = kl_divergence(Independent(q, 1), Independent(Normal(torch.zeros_like(z), torch.ones_like(z)), 1))
    constant = 0.5 * z.shape[1] * torch.log(torch.tensor(2 * torch.pi, dtype=hidden.dtype))
    return z, kl, q.log_prob(z).sum(1) + constant


@pytest.mark.parametrize("spread", [0.3, 6.0], ids=["usual", "variances from 1e-4 to 1e10"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-12)])
def test_draw_and_every_gradient_equal_torch_distributions(dtype, tolerance, spread):
    hidden, mean, log_variance = posterior(dtype, spread)
    inputs = [hidden, *mean.parameters(), *log_variance.parameters()]
    torch.manual_seed(1)
    ours = draw_gaussian(hidden, mean, log_variance, FLOOR)
    theirs = by_hand(hidden, mean, log_variance)
    outer = [torch.randn_like(value) for value in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance)
    gradients = [
        torch.autograd.grad(sum((v * o).sum() for v, o in zip(values, outer, strict=True)), inputs)
        for values in (ours, theirs)
    ]
    for mine, other in zip(*gradients, strict=True):
        assert (mine - other).norm() <= tolerance * other.norm()


@pytest.mark.parametrize("used", ["z", "kl", "log_q"])
def test_gradient_of_each_part_alone(used):
    hidden, mean, log_variance = posterior(torch.float32)
    torch.manual_seed(1)
    ours = torch.autograd.grad(getattr(draw_gaussian(hidden, mean, log_variance, FLOOR), used).sum(), hidden)[0]
    theirs = by_hand(hidden, mean, log_variance)[("z", "kl", "log_q").index(used)].sum()
    torch.testing.assert_close(ours, torch.autograd.grad(theirs, hidden)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("part", ["mean", "log_variance"])
def test_nan_in_the_weights_reaches_the_draw(part):
    hidden, mean, log_variance = posterior(torch.float32)
    {"mean": mean, "log_variance": log_variance}[part].weight.data[1] = torch.nan
    assert draw_gaussian(hidden, mean, log_variance, FLOOR).z[:, 1].isnan().all()
