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

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from lucidcell.maths.networks import Layer

SMALLEST = 1e-9  # share whose logarithm is taken; the public code's


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
    """D(a, b)."""
    columns = normalize(torch.cat([a, b], dim=1).t(), dim=1)  # (2K, B)
    similarity = columns @ columns.t() / temperature
    similarity = similarity.masked_fill(torch.eye(len(columns), dtype=torch.bool, device=a.device), -torch.inf)
    n_topics = a.shape[1]
    partner = torch.arange(2 * n_topics, device=a.device).roll(n_topics)
    return cross_entropy(similarity, partner)


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
