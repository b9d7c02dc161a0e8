"""One number for each gene from its scores in many cells, which come a batch at a time."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import Tensor

    from lucidcell.maths.chain import Changes

WORDS = {
    "pca": "first principal component through zero",
    "pca_centred": "first principal component",
    "mean": "mean",
    "mean_abs": "mean of absolute values",
}
SUMMARIES = tuple(WORDS)
WIDEST_GRAM = 4096  # above it, principal components come from a sketch
DIRECTIONS_OF_SKETCH = 32
SMALLEST_FOR_LANCZOS = 64  # below it all eigenvalues are as cheap as one
ROUNDING = 1e-5  # share of the squares below which a variance is that of single precision


class Summary(Protocol):
    """Scores (B, 1, G) come in; a column (G,) goes out."""

    @property
    def share(self) -> float:
        """Of the scores' squares that the column accounts for, if it is a principal component; else NaN."""

    def add(self, scores: Changes, sign: Tensor | None) -> None:
        """Take in some cells; `sign` (B, 1 or G) is that of the inputs, None where the scores do not contain them."""

    def column(self, basis: Basis) -> np.ndarray:
        """The summary, (G,)."""


class Basis:
    """What turns coefficients (H,) into the genes' numbers (G,): vectors (G, H), or None where they are the same."""

    def __init__(self, vectors: Tensor | None) -> None:
        self.vectors = vectors

    def times(self, coefficients: Tensor) -> Tensor:
        """The genes' numbers, (G,)."""
        if self.vectors is None:
            return coefficients
        return (self.vectors @ coefficients.to(self.vectors.dtype)).double()

    @cached_property
    def gram(self) -> Tensor | None:
        """V'V, (H, H)."""
        return None if self.vectors is None else (self.vectors.t() @ self.vectors).double()

    @cached_property
    def root(self) -> Tensor | None:
        """R with R'R = V'V, so that R c is as long as V c."""
        if self.gram is None:
            return None
        values, directions = torch.linalg.eigh(self.gram)
        return values.clamp(min=0).sqrt()[:, None] * directions.t()


def entries(width: int) -> int:
    """Numbers that the summary of one factor holds, for scores with `width` coefficients."""
    return width * (width if width <= WIDEST_GRAM else DIRECTIONS_OF_SKETCH)


def new_summary(name: str, n_genes: int, width: int) -> Summary:
    """The summary called `name`, for scores with `width` coefficients."""
    if name == "mean":
        return _Mean(width)
    if name == "mean_abs":
        return _MeanAbsolute(n_genes)
    return (_Gram if width <= WIDEST_GRAM else _Sketch)(width, centred=name == "pca_centred")


class _Mean:
    share = float("nan")

    def __init__(self, width: int) -> None:
        self.n, self.total = 0, torch.zeros(width, dtype=torch.float64)

    def add(self, scores: Changes, sign: Tensor | None) -> None:
        self.n += len(scores.coefficients)
        self.total += scores.coefficients[:, 0].double().sum(0)

    def column(self, basis: Basis) -> np.ndarray:
        return basis.times(self.total / self.n).numpy()


class _MeanAbsolute:
    share = float("nan")

    def __init__(self, n_genes: int) -> None:
        self.n, self.total = 0, torch.zeros(n_genes, dtype=torch.float64)

    def add(self, scores: Changes, sign: Tensor | None) -> None:
        self.n += len(scores.coefficients)
        self.total += scores.dense()[:, 0].abs().double().sum(0)

    def column(self, basis: Basis) -> np.ndarray:
        return (self.total / self.n).numpy()


class _Principal:
    """First principal component: its direction times the root of its eigenvalue.

    Its sign is that of the scores when every input has the sign +1, so that a gene above zero rises with the factor.
    """

    share = float("nan")

    def __init__(self, width: int, *, centred: bool) -> None:
        self.n, self.centred = 0, centred
        self.total, self.aligned = torch.zeros(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64)

    def add(self, scores: Changes, sign: Tensor | None) -> None:
        x = scores.coefficients[:, 0]
        self.n += len(x)
        self.total += x.sum(0)
        self.aligned += (x if sign is None else x * sign).sum(0)
        self._take(x)

    def _take(self, x: Tensor) -> None:
        raise NotImplementedError

    def _signed(self, column: Tensor, basis: Basis) -> np.ndarray:
        turned = float(column @ basis.times(self.aligned)) < 0
        return (-column if turned else column).numpy()


class _Gram(_Principal):
    """From the second moments of the coefficients."""

    def __init__(self, width: int, *, centred: bool) -> None:
        super().__init__(width, centred=centred)
        self.moments = torch.zeros(width, width)

    def _take(self, x: Tensor) -> None:
        self.moments.addmm_(x.t(), x)

    def column(self, basis: Basis) -> np.ndarray:
        covariance = self.moments.double() / self.n
        largest = float(covariance.trace())
        if self.centred:
            mean = self.total / self.n
            covariance = covariance - torch.outer(mean, mean)
        root = basis.root
        size = float(covariance.trace() if basis.gram is None else (covariance * basis.gram).sum())
        if size <= 0 or float(covariance.trace()) <= ROUNDING * largest:
            return basis.times(torch.zeros_like(self.total)).numpy()
        value, along = _leading(covariance, root)
        self.share = value / size
        direction = covariance @ (along if root is None else root.t() @ along)
        return self._signed(basis.times(direction / max(value, 1e-300) ** 0.5), basis)


def _leading(covariance: Tensor, root: Tensor | None) -> tuple[float, Tensor]:
    """Largest eigenvalue of R C R', or of C, and its vector: of the scores' own moments, which are not formed."""
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    c = covariance.numpy()
    r = None if root is None else root.numpy()
    n = len(c if r is None else r)

    def times(v: np.ndarray) -> np.ndarray:
        found: np.ndarray = c @ v if r is None else r @ (c @ (r.T @ v))
        return found

    if n > SMALLEST_FOR_LANCZOS:
        start = np.random.default_rng(0).normal(size=n)
        try:
            value, vector = eigsh(LinearOperator((n, n), matvec=times, dtype=float), 1, which="LA", v0=start)
            return float(value[0]), torch.from_numpy(vector[:, 0])
        except ArpackNoConvergence:  # two nearly equal ones
            pass
    values, vectors = np.linalg.eigh(times(np.eye(n)))
    return float(values[-1]), torch.from_numpy(vectors[:, -1].copy())


class _Sketch(_Principal):
    """From the leading directions so far and the new cells together, batch by batch: for very many genes."""

    def __init__(self, width: int, *, centred: bool) -> None:
        super().__init__(width, centred=centred)
        self.rows, self.squares = torch.zeros(0, width), 0.0

    def _take(self, x: Tensor) -> None:
        self.squares += float(x.double().square().sum())
        stacked = torch.cat([self.rows, x])
        values, vectors = torch.linalg.eigh((stacked @ stacked.t()).double())
        kept = vectors[:, -DIRECTIONS_OF_SKETCH:].to(x.dtype)
        self.rows = kept.t() @ stacked

    def column(self, basis: Basis) -> np.ndarray:
        assert basis.vectors is None
        mean = (self.total / self.n).to(self.rows.dtype)
        stacked, size = self.rows / self.n**0.5, self.squares / self.n
        signs, largest = torch.ones(len(stacked), dtype=torch.float64), size
        if self.centred:  # less the outer product of the mean
            stacked, signs = torch.cat([stacked, mean[None]]), torch.cat([signs, -signs[:1]])
            size -= float(mean.double().square().sum())
        axes, triangle = torch.linalg.qr(stacked.t().double())
        values, vectors = torch.linalg.eigh(triangle @ (signs[:, None] * triangle.t()))
        if size <= ROUNDING * largest or values[-1] <= 0:
            return np.zeros(len(mean))
        self.share = float(values[-1]) / size
        return self._signed(axes @ vectors[:, -1] * values[-1].sqrt(), basis)
