"""Multi-layer perceptrons with covariates injected at every layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from lucidcell.cells.batch import SparseRows
from lucidcell.maths.across import Norm
from lucidcell.maths.chain import Affine
from lucidcell.maths.normalise import linear_norm_relu_dropout, norm_relu_dropout
from lucidcell.maths.sparse import sparse_linear

# of scvi-tools and, before it, of the scVI paper's code: running statistics that forget slowly, and a generous epsilon
EPS, MOMENTUM = 1e-3, 0.01


class Layer(nn.Module):
    """Linear([x, covariates]) -> batch-norm -> ReLU -> dropout."""

    def __init__(self, n_in: int, n_covariates: int, n_out: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(n_in + n_covariates, n_out)
        self.norm = Norm(n_out, eps=EPS, momentum=MOMENTUM)
        self.dropout = dropout

    def forward(self, x: Tensor, covariates: Tensor) -> Tensor:
        inputs = torch.cat([x, covariates], dim=1) if covariates.shape[1] else x
        return linear_norm_relu_dropout(inputs, self.linear, self.norm, self.dropout)

    def affine(self, covariates: Tensor) -> Affine:
        """The layer outside training, of x alone."""
        n_in = self.linear.in_features - covariates.shape[1]
        weight, effects = self.linear.weight.split([n_in, covariates.shape[1]], dim=1)
        return fold(weight, linear(covariates, effects, self.linear.bias), self.norm)


class GeneLayer(nn.Module):
    """The same for the counts of G genes; the genes' weight is (G, n_out), so that only expressed genes are read."""

    def __init__(self, n_genes: int, n_covariates: int, n_out: int, dropout: float) -> None:
        super().__init__()
        initial = nn.Linear(n_genes + n_covariates, n_out)
        self.gene_weight = nn.Parameter(initial.weight[:, :n_genes].detach().t().contiguous())
        self.covariate_weight = nn.Parameter(initial.weight[:, n_genes:].detach().clone())
        self.bias = initial.bias
        self.norm = Norm(n_out, eps=EPS, momentum=MOMENTUM)
        self.dropout = dropout

    def forward(self, x: SparseRows, covariates: Tensor) -> Tensor:
        hidden = sparse_linear(x, self.gene_weight)
        if covariates.shape[1]:
            hidden = hidden + linear(covariates, self.covariate_weight)
        return norm_relu_dropout(hidden, self.bias, self.norm, self.dropout)

    def affine(self, covariates: Tensor) -> Affine:
        """The layer outside training, of dense x alone."""
        return fold(self.gene_weight.t(), linear(covariates, self.covariate_weight, self.bias), self.norm)


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

    def chain(self, covariates: Tensor) -> list[Affine]:
        """The network outside training, of x alone."""
        return [layer.affine(covariates) for layer in self.blocks()]


class GeneMLP(nn.Module):
    """`MLP` whose input is sparse genes."""

    def __init__(self, n_genes: int, n_covariates: int, n_hidden: int, n_layers: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = GeneLayer(n_genes, n_covariates, n_hidden, dropout)
        self.rest = MLP(n_hidden, n_covariates, n_hidden, n_layers - 1, dropout)

    def forward(self, x: SparseRows, covariates: Tensor) -> Tensor:
        return self.rest(self.first(x, covariates), covariates)

    def chain(self, covariates: Tensor) -> list[Affine]:
        """The network outside training, of dense x alone."""
        return [self.first.affine(covariates), *self.rest.chain(covariates)]


class GeneLinear(nn.Module):
    """The genes of sparse cells, and covariates, times a weight: the first layer of a network without batch-norm."""

    def __init__(self, n_genes: int, n_covariates: int, n_out: int) -> None:
        super().__init__()
        self.gene_weight = nn.Parameter(xavier(n_genes, n_out))
        self.covariate_weight = nn.Parameter(xavier(n_out, n_covariates) if n_covariates else torch.zeros(n_out, 0))
        self.bias = nn.Parameter(torch.zeros(n_out))

    def forward(self, x: SparseRows, center: Tensor, covariates: Tensor) -> Tensor:
        """Of x - center, with x (B, G) and center (G,)."""
        hidden = sparse_linear(x, self.gene_weight) + (self.bias - center @ self.gene_weight)
        return hidden + linear(covariates, self.covariate_weight) if covariates.shape[1] else hidden

    def shift(self, covariates: Tensor) -> Tensor:
        """What comes to the genes' part, (B, n_out)."""
        return linear(covariates, self.covariate_weight, self.bias)


class Stack(nn.Module):
    """Linear layers with ReLU between them: the plain network of siVAE, without batch-norm and dropout."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(xavier_linear(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))

    def steps(self) -> list[nn.Linear]:
        """The layers, from input to output."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    def forward(self, x: Tensor) -> Tensor:
        for i, layer in enumerate(self.layers):
            x = layer(x.relu() if i else x)
        return x

    def chain(self) -> list[Affine]:
        """The network as a chain; ReLU after all layers but the last."""
        steps = self.steps()
        return [Affine(step.weight, step.bias, relu=step is not steps[-1]) for step in steps]


def fold(weight: Tensor, shift: Tensor, norm: nn.BatchNorm1d) -> Affine:
    """x W' + shift, batch-norm with its running moments, and ReLU, as one layer."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return Affine(scale[:, None] * weight, scale * (shift - norm.running_mean) + norm.bias, relu=True)


def xavier(n_rows: int, n_columns: int) -> Tensor:
    """A matrix of truncated normal values with variance 2 / (rows + columns)."""
    spread = (2 / (n_rows + n_columns)) ** 0.5
    return nn.init.trunc_normal_(torch.empty(n_rows, n_columns), std=spread, a=-2 * spread, b=2 * spread)


def xavier_linear(n_in: int, n_out: int) -> nn.Linear:
    """A linear layer that starts from `xavier` and no bias."""
    layer = nn.Linear(n_in, n_out)
    with torch.no_grad():
        layer.weight.copy_(xavier(n_out, n_in))
        layer.bias.zero_()
    return layer
