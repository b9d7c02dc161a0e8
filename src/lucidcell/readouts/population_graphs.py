"""From the gene embedding of every bin to networks of the same genes, and their similarity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.sparse as sp

from lucidcell.maths.graph_kernel import weisfeiler_lehman
from lucidcell.readouts.networks import nearest_pairs


def top_genes(centrality: pd.DataFrame, n: int) -> pd.Index:
    """Union of the `n` most central genes of every column of genes x bins, in the order of the genes."""
    ranks = centrality.rank(ascending=False, method="first", na_option="keep")
    return centrality.index[(ranks <= n).any(axis=1)]


def network(embedding: np.ndarray, quantile: float, varied: np.ndarray | None = None) -> sp.csr_matrix:
    """Adjacency: the edges of `gene_network`.

    Genes that do not vary over the cells, (G,) bool, have no edges: a siVAE puts them all at one place.
    """
    from scipy.spatial.distance import pdist, squareform

    distances = pdist(embedding)
    if varied is not None and not varied.all():
        apart = np.logical_or.outer(~varied, ~varied)
        np.fill_diagonal(apart, False)
        distances[squareform(apart)] = np.inf
    return sp.csr_matrix(squareform(nearest_pairs(distances, quantile)))


def similarity(networks: Sequence[sp.csr_matrix], of_bin: Sequence[str], populations: Sequence[str]) -> pd.DataFrame:
    """Weisfeiler-Lehman kernel, averaged over all pairs of bins of two populations; populations x populations.

    1 with itself, however many bins a population has.
    """
    member = np.equal.outer(np.array(populations, object), np.array(of_bin, object)).astype(float)
    member /= member.sum(1, keepdims=True)
    names = pd.Index(populations, name="population")
    kernel = member @ weisfeiler_lehman(networks) @ member.T
    np.fill_diagonal(kernel, 1.0)
    return pd.DataFrame(kernel, names, list(populations))


def principal_components(kernel: pd.DataFrame) -> pd.DataFrame:
    """First two principal components of the rows, each turned so that its largest value is positive."""
    centred = kernel.to_numpy() - kernel.to_numpy().mean(0)
    u, s, _ = np.linalg.svd(centred)
    scores = u[:, :2] * s[:2]
    scores *= np.where(np.take_along_axis(scores, np.abs(scores).argmax(0)[None], axis=0) < 0, -1, 1)
    table = pd.DataFrame(scores, kernel.index, ["PC1", "PC2"])
    table.attrs["share"] = [float(one) for one in s[:2] ** 2 / max((s**2).sum(), np.finfo(float).tiny)]
    return table
