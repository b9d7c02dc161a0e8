"""Log-probabilities of counts and of real values, element by element.

All take and return tensors of one broadcast shape, in nats. Means and inverse dispersions are positive. The count
likelihoods stay exact from mean 1e-8 to 1e6 and inverse dispersion 1e-6 to 1e8: the textbook difference of log-gamma
functions loses every digit there, so positive counts use the saddle-point form of Loader (2000, "Fast and accurate
computation of binomial probabilities"), a sum of small terms: remainders of Stirling's series and deviances.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
COUNT_LIKELIHOODS = ("nb", "zinb", "poisson", "multinomial")


def stirling_remainder(t: Tensor) -> Tensor:
    """log Gamma(t) - [(t - 1/2) log t - t + log(2 pi) / 2] for t > 0."""
    small, large = t.clamp(max=16.0), t.clamp(min=16.0)
    r = 1 / large
    s = r * r
    series = r * (1 / 12 - s * (1 / 360 - s * (1 / 1260 - s * (1 / 1680 - s / 1188))))
    direct = torch.lgamma(small) - (small - 0.5) * small.log() + small - HALF_LOG_2PI
    return torch.where(t < 16.0, direct, series)


def _deviance(d: Tensor, one_plus_d: Tensor) -> Tensor:
    """d - log(1 + d); the sum is given too, since near d = -1 it cannot be had from d without losing its digits."""
    near = d.clamp(min=-0.5, max=0.5)
    return d - torch.where(d.abs() < 0.5, torch.log1p(near), torch.log(one_plus_d))


def poisson_log_prob(x: Tensor, mu: Tensor) -> Tensor:
    """log Poisson(x; mu)."""
    y = torch.where(x > 0, x, 1.0)
    positive = -stirling_remainder(y) - y * _deviance((mu - y) / y, mu / y) - 0.5 * torch.log(2 * math.pi * y)
    return torch.where(x > 0, positive, -mu)


def nb_log_prob(x: Tensor, mu: Tensor, theta: Tensor) -> Tensor:
    """log NB(x; mu, theta): mean mu, variance mu + mu^2 / theta (theta: inverse dispersion)."""
    zero = -theta * torch.log1p(mu / theta)
    y = torch.where(x > 0, x, 1.0)
    d, ratio = (y - mu) / (theta + mu), (y + theta) / (mu + theta)
    deviances = theta * _deviance(d, ratio) + y * _deviance(-theta * d / y, ratio * (mu / y))
    remainders = stirling_remainder(y + theta) - stirling_remainder(theta) - stirling_remainder(y)
    positive = remainders - deviances + 0.5 * torch.log(theta / (2 * math.pi * y * (y + theta)))
    return torch.where(x > 0, positive, zero)


def zinb_log_prob(x: Tensor, mu: Tensor, theta: Tensor, dropout_logit: Tensor) -> Tensor:
    """log of pi [x = 0] + (1 - pi) NB(x; mu, theta) with pi = sigmoid(dropout_logit)."""
    nb_zero = -theta * torch.log1p(mu / theta)
    zero = zero_inflated(nb_zero, dropout_logit)
    return torch.where(x > 0, nb_log_prob(x, mu, theta) + logsigmoid(-dropout_logit), zero)


def zero_inflated(log_p_zero: Tensor, dropout_logit: Tensor) -> Tensor:
    """log(pi + (1 - pi) p_zero), also where it differs from 0 by less than the machine's precision."""
    near = torch.log1p(torch.sigmoid(-dropout_logit) * torch.expm1(log_p_zero.clamp(min=-0.5)))
    far = torch.logaddexp(logsigmoid(dropout_logit), logsigmoid(-dropout_logit) + log_p_zero)
    return torch.where(log_p_zero > -0.5, near, far)


def multinomial_log_prob(x: Tensor, log_rho: Tensor) -> Tensor:
    """log Multinomial(x; sum x, rho) without its coefficient, per element: x log rho. `x` may be any weight >= 0."""
    return x * log_rho


def gaussian_log_prob(x: Tensor, mu: Tensor, sigma: Tensor) -> Tensor:
    """log N(x; mu, sigma^2); `sigma` is the standard deviation."""
    return -0.5 * ((x - mu) / sigma) ** 2 - sigma.log() - HALF_LOG_2PI
