"""What scE2TM asks of two views of the same cells.

Shares of topics by expression, theta, and by an external embedding, phi, are both (B, K) with rows that sum to 1.

    CON = -mean_i log theta_i . phi_i                        the views agree on a cell
    NEI = D(phi, theta^N) + D(theta, phi^N)                  and a topic's cells are the same in one view and among the
                                                             neighbours (theta^N, phi^N) of the other
    D(a, b): of the 2K columns [a, b], each of length B and scaled to length 1, the cross-entropy of finding a column's
             partner of the other half among the 2K - 1 others, by inner products over a temperature; mean over columns
    REG = H(mean_i theta_i) + H(mean_i phi_i)                all topics are in use; H: entropy in nats

The loss is CON + NEI - alpha REG. docs/sce2tm.md says where the paper prints something else.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lucidcell.maths.networks import Layer

SMALLEST = 1e-9  # share whose logarithm is taken; the public code's
SMALLEST_LENGTH = 1e-12  # of a column, which is divided by it


class ExternalView(nn.Module):
    """phi of an external embedding (B, E)."""

    def __init__(self, n_external: int, n_hidden: int, n_topics: int) -> None:
        super().__init__()
        self.hidden = Layer(n_external, 0, n_hidden, 0.0)
        self.topics = nn.Linear(n_hidden, n_topics)

    def forward(self, external: Tensor) -> Tensor:
        logits: Tensor = self.topics(self.hidden(external, external[:, :0]))
        return torch.softmax(logits, 1)


def consistency(theta: Tensor, phi: Tensor, form: str = "mean_log") -> Tensor:
    """CON; `form="log_mean"` is the paper's, without its constant: -log mean_i theta_i . phi_i."""
    agreement = (theta * phi).sum(1).clamp(min=SMALLEST)
    return -agreement.log().mean() if form == "mean_log" else -agreement.mean().log()


def column_contrast(a: Tensor, b: Tensor, temperature: float = 0.5) -> Tensor:
    """D(a, b), one operation with a gradient of its own: automatic differentiation takes 1.6 times as long."""
    contrast: Tensor = _Contrast.apply(a, b, temperature)
    return contrast


class _Contrast(torch.autograd.Function):
    """With unit columns C (B, 2K), S = C'C / temperature and p = softmax of its rows: dS = (p - partner) / 2K."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, temperature: float) -> Tensor:
        columns = torch.cat([a, b], dim=1)
        lengths = torch.linalg.vector_norm(columns, dim=0).clamp_(min=SMALLEST_LENGTH)
        columns /= lengths
        similarity = (columns.t() @ columns).div_(temperature)
        partners = similarity.diagonal(offset=a.shape[1]).sum() * 2
        similarity.diagonal().fill_(-torch.inf)
        n, log_sums = len(similarity), similarity.logsumexp(1)
        ctx.save_for_backward(columns, lengths, similarity.sub_(log_sums[:, None]).exp_())
        ctx.temperature = temperature
        return (log_sums.sum() - partners) / n

    @staticmethod
    def backward(ctx: Any, d_total: Tensor) -> tuple[Tensor, Tensor, None]:
        columns, lengths, p = ctx.saved_tensors
        n = len(p)
        slope = p + p.t()
        for offset in (n // 2, -n // 2):
            slope.diagonal(offset=offset).sub_(2)
        slope *= d_total / (n * ctx.temperature)
        d_columns = columns @ slope
        d_columns = d_columns.addcmul_(columns, (columns * d_columns).sum(0), value=-1).div_(lengths)
        d_a, d_b = d_columns.chunk(2, dim=1)
        return d_a, d_b, None


def neighbor_contrast(theta: Tensor, phi: Tensor, theta_n: Tensor, phi_n: Tensor, temperature: float = 0.5) -> Tensor:
    """NEI."""
    return column_contrast(phi, theta_n, temperature) + column_contrast(theta, phi_n, temperature)


def spread(theta: Tensor, phi: Tensor, form: str = "batch") -> Tensor:
    """REG; `form="cell"` is the paper's, the sum over cells of their own entropies, here their mean."""
    return sum(
        (_entropy(one.mean(0)) if form == "batch" else _entropy(one) for one in (theta, phi)), theta.new_zeros(())
    )


def _entropy(shares: Tensor) -> Tensor:
    """Of the last dimension, and the mean over others."""
    return -(shares * shares.clamp(min=SMALLEST).log()).sum(-1).mean()
