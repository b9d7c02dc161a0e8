"""Pairs of a cell and a label: the kernel against the networks one by one, and these against torch.distributions."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from lucidcell.maths.pairs import GivenLabel, PairTerms, pair_terms

D, LABELS, HIDDEN, FLOOR = 3, 4, 8, 1e-4


def problem(dtype: torch.dtype, n_pairs: int = 50):
    torch.manual_seed(0)
    networks = [GivenLabel(D, LABELS, HIDDEN, FLOOR).to(dtype) for _ in range(2)]
    z = torch.randn(6, D, dtype=dtype, requires_grad=True)
    return z, torch.randint(6, (n_pairs,)), torch.randint(LABELS, (n_pairs,)), *networks


def one_by_one(z, cell, label, q_u, p_z) -> PairTerms:
    """The same terms, pair by pair, through a one-hot label and torch.distributions."""
    torch.manual_seed(1)
    epsilon = torch.randn(len(cell), D, dtype=z.dtype)

    def gaussian(network, x, c):
        weight = torch.cat([network.x.weight, network.label.t()], dim=1)
        one_hot = torch.eye(LABELS, dtype=z.dtype)[c]
        hidden = torch.relu(weight @ torch.cat([x, one_hot]) + network.x.bias)
        return Independent(Normal(network.mean(hidden), (network.log_variance(hidden).exp() + FLOOR).sqrt()), 1)

    log_p, kl = [], []
    for i, c, noise in zip(cell, label, epsilon, strict=True):
        q = gaussian(q_u, z[i], c)
        u = q.base_dist.loc + q.base_dist.scale * noise
        log_p.append(gaussian(p_z, u, c).log_prob(z[i]) + 0.5 * D * torch.log(torch.tensor(2 * torch.pi)))
        kl.append(kl_divergence(q, Independent(Normal(torch.zeros_like(u), torch.ones_like(u)), 1)))
    return PairTerms(torch.stack(log_p), torch.stack(kl))


def all_gradients(terms: PairTerms, z, q_u, p_z) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(2)
    total = sum((torch.randn(len(value), dtype=value.dtype) * value).sum() for value in terms)
    return torch.autograd.grad(total, [z, *q_u.parameters(), *p_z.parameters()])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-6)])
def test_terms_and_every_gradient(dtype, tolerance):
    z, cell, label, q_u, p_z = problem(dtype)
    torch.manual_seed(1)
    ours, theirs = pair_terms(z, cell, label, q_u, p_z), one_by_one(z, cell, label, q_u, p_z)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance)
    for mine, other in zip(all_gradients(ours, z, q_u, p_z), all_gradients(theirs, z, q_u, p_z), strict=True):
        assert (mine - other).norm() <= tolerance * other.norm()


def test_no_pairs():
    z, _, _, q_u, p_z = problem(torch.float32)
    none = torch.empty(0, dtype=torch.int64)
    terms = pair_terms(z, none, none, q_u, p_z)
    assert terms.log_p.shape == (0,)
    assert not torch.autograd.grad(terms.log_p.sum(), z)[0].any()


@pytest.mark.parametrize("part", ["mean", "log_variance"])
@pytest.mark.parametrize("of", [0, 1])
def test_nan_in_the_weights_is_seen(part, of):
    z, cell, label, *networks = problem(torch.float32)
    getattr(networks[of], part).bias.data[1] = torch.nan
    terms = pair_terms(z, cell, label, *networks)
    assert not torch.isfinite(sum(value.square().sum() for value in terms))
