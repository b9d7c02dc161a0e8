"""Multi-layer perceptrons with covariates injected at every layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from lucidcell.cells.batch import SparseRows
from lucidcell.maths.normalise import linear_norm_relu_dropout, norm_relu_dropout
from lucidcell.maths.sparse import sparse_linear

# of scvi-tools and, before it, of the scVI paper's code: running statistics that forget slowly, and a generous epsilon
EPS, MOMENTUM = 1e-3, 0.01


class Layer(nn.Module):
    """Linear([x, covariates]) -> batch-norm -> ReLU -> dropout."""

    def __init__(self, n_in: int, n_covariates: int, n_out: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(n_in + n_covariates, n_out)
        self.norm = nn.BatchNorm1d(n_out, eps=EPS, momentum=MOMENTUM)
        self.dropout = dropout

    def forward(self, x: Tensor, covariates: Tensor) -> Tensor:
        inputs = torch.cat([x, covariates], dim=1) if covariates.shape[1] else x
        return linear_norm_relu_dropout(inputs, self.linear, self.norm, self.dropout)


class GeneLayer(nn.Module):
    """The same for the counts of G genes; the genes' weight is (G, n_out), so that only expressed genes are read."""

    def __init__(self, n_genes: int, n_covariates: int, n_out: int, dropout: float) -> None:
        super().__init__()
        initial = nn.Linear(n_genes + n_covariates, n_out)
        self.gene_weight = nn.Parameter(initial.weight[:, :n_genes].detach().t().contiguous())
        self.covariate_weight = nn.Parameter(initial.weight[:, n_genes:].detach().clone())
        self.bias = initial.bias
        self.norm = nn.BatchNorm1d(n_out, eps=EPS, momentum=MOMENTUM)
        self.dropout = dropout

    def forward(self, x: SparseRows, covariates: Tensor) -> Tensor:
        hidden = sparse_linear(x, self.gene_weight)
        if covariates.shape[1]:
            hidden = hidden + linear(covariates, self.covariate_weight)
        return norm_relu_dropout(hidden, self.bias, self.norm, self.dropout)


class MLP(nn.Module):
    """`n_layers` layers from x (B, n_in) to (B, n_hidden); covariates (B, n_covariates) enter each of them."""

    def __init__(self, n_in: int, n_covariates: int, n_hidden: int, n_layers: int, dropout: float = 0.0) -> None:
        super().__init__()
        widths = [n_in] + [n_hidden] * n_layers
        self.layers = nn.ModuleList(
            Layer(n_from, n_covariates, n_to, dropout) for n_from, n_to in zip(widths[:-1], widths[1:], strict=True)
        )

    def blocks(self) -> list[Layer]:
        """The layers, from input to output."""
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    def forward(self, x: Tensor, covariates: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, covariates)
        return x


class GeneMLP(nn.Module):
    """`MLP` whose input is sparse genes."""

    def __init__(self, n_genes: int, n_covariates: int, n_hidden: int, n_layers: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = GeneLayer(n_genes, n_covariates, n_hidden, dropout)
        self.rest = MLP(n_hidden, n_covariates, n_hidden, n_layers - 1, dropout)

    def forward(self, x: SparseRows, covariates: Tensor) -> Tensor:
        return self.rest(self.first(x, covariates), covariates)
