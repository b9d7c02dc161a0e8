"""Small networks that predict genes from genes, as siVAE's paper trains them to judge networks of genes.

`true_centrality_mlp` is the paper's own ground truth, one network for each gene; `neighborhood_prediction` trains the
networks of all query genes at once, as batched matrix products. `networks.py` says what "explained" means. The paper
gives layers only: here ELU (with ReLU a layer of 4 dies often), Adam, and the weights of the best held-out epoch.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd

from lucidcell.cells.gene_values import gene_positions, gene_values
from lucidcell.errors import DataError, SettingError
from lucidcell.metrics.networks import folds, mean_over_others, neighbor_sets, query_data
from lucidcell.readouts.arguments import require_whole
from lucidcell.readouts.mutual_information import standardized

if TYPE_CHECKING:
    from torch import Tensor

Predictor = Literal["mlp", "ridge"]
HIDDEN = (16, 8, 4)
HELD_OUT = 0.1  # share of the training cells on which the best epoch is chosen
QUERIES_AT_A_TIME = 128
RIDGE = 1.0  # on standardised genes and the sum over cells, as in scikit-learn


def true_centrality_mlp(
    values: Any,
    genes: Sequence[Hashable],
    hidden: Sequence[int] = (128, 512, 1024),
    n_folds: int = 5,
    *,
    max_epochs: int = 30,
    seed: int = 0,
) -> pd.Series:
    """The ground truth of siVAE's paper by its own networks: 1 gene -> 128 -> 512 -> 1024 -> all others.

    Slow: n_folds networks for each gene. For checks of `true_centrality`, whose documentation says the rest.

    Parameters
    ----------
    values
        Cells x genes, (n, G).
    genes
        The genes whose centrality is wanted.
    hidden
        Widths of the hidden layers.
    n_folds, seed
        Of the cross-validation, and of the weights.
    max_epochs
        Passes over the training cells, in batches of 128.

    Returns
    -------
    "centrality" of each gene.

    Raises
    ------
    DataError
        As in `true_centrality`.
    SettingError
        If a number has no meaning.
    """
    require_whole(max_epochs, "max_epochs", 1)
    _require_hidden(hidden)
    x, names, queries = query_data(values, genes)
    fold = folds(len(x), n_folds, seed)
    z = standardized(x)
    explained = np.zeros((len(queries), len(names)))
    for row, query in enumerate(queries):
        others = np.delete(np.arange(len(names)), query)
        inputs = z[None, :, [query]]
        predicted = _out_of_fold(inputs, z[None][:, :, others], fold, hidden, max_epochs, 1e-3, seed)[0]
        explained[row, others] = _explained(z[:, others], predicted)
    return mean_over_others(explained, z, names, queries)


def neighborhood_prediction(
    values: Any,
    neighbors: pd.DataFrame,
    queries: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
    n_folds: int = 5,
    model: Predictor = "mlp",
    max_epochs: int = 60,
) -> pd.Series:
    """Share of the variance of each query gene that its neighbours predict, cross-validated.

    Parameters
    ----------
    values
        Cells x genes, (n, G), log-normalised: a DataFrame, an array or a sparse matrix.
    neighbors
        Columns gene and neighbor, of `gene_neighbors`, `network_neighbors` or another tool; 20 each in the paper. Genes
        may have different numbers of neighbours; a query without any explains about 0.
    queries
        Genes to predict, by default all genes of the table.
    seed
        Of the folds and the weights.
    n_folds
        Folds of the cross-validation.
    model
        "mlp": the paper's network with hidden layers of 16, 8 and 4. "ridge": linear, penalty 1 on standardised genes.
    max_epochs
        Passes over the training cells, in batches of 256; the best held-out epoch counts. For "mlp".

    Returns
    -------
    "explained" of each query, at most 1.

    Raises
    ------
    DataError
        If a gene is not in the values, is its own neighbour, or a query is the same in all cells.
    SettingError
        If the model or a number is none of those above.
    """
    if model not in get_args(Predictor):
        raise SettingError(f"model is {model!r}; it must be one of {', '.join(get_args(Predictor))}.")
    require_whole(max_epochs, "max_epochs", 1)
    x, names = gene_values(values, "the values")
    near = neighbor_sets(neighbors, "neighbors")
    at = gene_positions(list(near) if queries is None else queries, names, "queries")
    z = standardized(x)
    if len(constant := np.flatnonzero(~z[:, at].any(0))):
        first = names[at[constant[0]]]
        raise DataError(f"{len(constant)} queries are the same in all cells, such as {first!r}: leave them out.")
    fold = folds(len(z), n_folds, seed)
    explained = []
    for some in np.array_split(at, -(-len(at) // QUERIES_AT_A_TIME)):
        inputs, target = _inputs(z, names, some, near), np.ascontiguousarray(z[:, some].T)[:, :, None]
        if model == "ridge":
            predicted = _ridge(inputs, target, fold)
        else:
            predicted = _out_of_fold(inputs, target, fold, HIDDEN, max_epochs, 1e-2, seed, batch=256)
        explained.append(_explained(z[:, some], predicted[:, :, 0].T))
    return pd.Series(np.concatenate(explained), names[at], name="explained")


def _inputs(z: np.ndarray, names: pd.Index, at: np.ndarray, near: dict[Hashable, list[Hashable]]) -> np.ndarray:
    """Neighbours of each query, (Q, n, most neighbours); absent ones are 0."""
    lists = [near.get(names[query], []) for query in at]
    inputs = np.zeros((len(at), len(z), max(1, *map(len, lists))))
    for q, genes in enumerate(lists):
        if names[at[q]] in genes:
            raise DataError(f"{names[at[q]]!r} is its own neighbor: leave the gene itself out of the table.")
        if genes:
            inputs[q, :, : len(genes)] = z[:, gene_positions(genes, names, f"neighbors of {names[at[q]]!r}")]
    return inputs


def _explained(observed: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Share of the variance of each column of (n, G); 0 where there is none."""
    variance = observed.var(0)
    found = 1 - (observed - predicted).var(0) / np.where(variance > 0, variance, 1)
    return np.where(variance > 0, found, 0.0)


def _ridge(inputs: np.ndarray, target: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Predictions (Q, n, 1) of each fold from the others."""
    predicted = np.empty_like(target)
    for k in range(fold.max() + 1):
        rest, here = fold != k, fold == k
        mean_x, mean_y = inputs[:, rest].mean(1, keepdims=True), target[:, rest].mean(1, keepdims=True)
        x, y = inputs[:, rest] - mean_x, target[:, rest] - mean_y
        gram = x.transpose(0, 2, 1) @ x + RIDGE * np.eye(x.shape[2])
        slope = np.linalg.solve(gram, x.transpose(0, 2, 1) @ y)
        predicted[:, here] = (inputs[:, here] - mean_x) @ slope + mean_y
    return predicted


def _out_of_fold(
    inputs: np.ndarray,
    target: np.ndarray,
    fold: np.ndarray,
    hidden: Sequence[int],
    max_epochs: int,
    learning_rate: float,
    seed: int,
    batch: int = 128,
) -> np.ndarray:
    """Predictions (Q, n, outputs) of each fold by Q networks trained on the others."""
    import torch

    x, y = (torch.from_numpy(np.ascontiguousarray(part, np.float32)) for part in (inputs, target))
    predicted = torch.empty_like(y)
    for k in range(fold.max() + 1):
        rest = torch.from_numpy(np.flatnonzero(fold != k))
        here = torch.from_numpy(np.flatnonzero(fold == k))
        weights = _train(x[:, rest], y[:, rest], hidden, max_epochs, learning_rate, seed + k, batch)
        with torch.no_grad():
            predicted[:, here] = _forward(x[:, here], weights)
    return predicted.numpy().astype(float)


def _train(
    x: Tensor, y: Tensor, hidden: Sequence[int], max_epochs: int, learning_rate: float, seed: int, batch: int
) -> list[Tensor]:
    """Weights of Q networks, each of its own best epoch on held-out cells."""
    import torch

    draw = torch.Generator().manual_seed(seed)
    sizes = [x.shape[2], *hidden, y.shape[2]]
    weights = []
    for width, height in zip(sizes[:-1], sizes[1:], strict=True):
        weights.append((torch.randn(len(x), width, height, generator=draw) / width**0.5).requires_grad_())
        weights.append(torch.zeros(len(x), 1, height).requires_grad_())
    order = torch.randperm(x.shape[1], generator=draw)
    held_out, rows = order.split([max(1, int(HELD_OUT * len(order))), len(order) - max(1, int(HELD_OUT * len(order)))])
    n_steps = max_epochs * -(-len(rows) // batch)
    optimizer = torch.optim.Adam(weights, lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    lowest, best = torch.full((len(x),), torch.inf), [weight.detach().clone() for weight in weights]
    for _ in range(max_epochs):
        for taken in rows[torch.randperm(len(rows), generator=draw)].split(batch):
            loss = (_forward(x[:, taken], weights) - y[:, taken]).square().mean((1, 2)).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            error = (_forward(x[:, held_out], weights) - y[:, held_out]).square().mean((1, 2))
            better = error < lowest
            lowest = torch.where(better, error, lowest)
            best = [torch.where(better[:, None, None], now, old) for now, old in zip(weights, best, strict=True)]
    return best


def _forward(x: Tensor, weights: list[Tensor]) -> Tensor:
    """Outputs (Q, n, outputs) of Q networks for their own inputs (Q, n, inputs)."""
    import torch

    for layer in range(0, len(weights), 2):
        x = torch.baddbmm(weights[layer + 1], torch.nn.functional.elu(x) if layer else x, weights[layer])
    return x


def _require_hidden(hidden: Sequence[int]) -> None:
    for width in hidden:
        require_whole(width, "hidden", 1)
