"""How alike are graphs? The Weisfeiler-Lehman subtree kernel (Shervashidze et al. 2011, JMLR 12, 2539).

    l_0(v)     = degree of v
    l_t+1(v)   = a new name for (l_t(v), sorted l_t of the neighbours of v)
    k(G, H)    = sum_t=0..T sum_l  #{v in G: l_t(v) = l} #{v in H: l_t(v) = l}
    normalised = k(G, H) / sqrt(k(G, G) k(H, H))

Nodes are known by the shape of what surrounds them and not by their names, so graphs may have different nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

from lucidcell.errors import DataError, SettingError


def weisfeiler_lehman(graphs: Sequence[Any], *, n_iter: int = 5, normalize: bool = True) -> np.ndarray:
    """Kernel between every two of n graphs, (n, n).

    Parameters
    ----------
    graphs
        Square adjacency matrices, scipy sparse or dense. An entry other than 0 is an edge, whatever its weight; they
        must be symmetric, and a node may be its own neighbour.
    n_iter
        Refinements T of the labels: how many steps away from a node its label sees.
    normalize
        Divide by the geometric mean of the two self-similarities, so that equal graphs have 1.

    Raises
    ------
    DataError
        If a matrix is not square, empty or not symmetric.
    SettingError
        If `n_iter` is negative.
    """
    if isinstance(n_iter, bool) or not isinstance(n_iter, int | np.integer) or n_iter < 0:
        raise SettingError(f"n_iter is {n_iter!r}; it must be a whole number of at least 0.")
    matrices = [_edges(graph, position) for position, graph in enumerate(graphs)]
    if not matrices:
        raise DataError("there are no graphs to compare; pass at least one adjacency matrix.")
    sizes = [matrix.shape[0] for matrix in matrices]
    of_graph = np.repeat(np.arange(len(sizes)), sizes)
    together = sp.block_diag(matrices, format="csr")
    labels = np.diff(together.indptr).astype(np.int64)
    kernel = _shared(labels, of_graph, len(sizes))
    for _ in range(n_iter):
        labels = _refined(together, labels)
        kernel += _shared(labels, of_graph, len(sizes))
    if normalize:
        scale = np.sqrt(kernel.diagonal())
        kernel = kernel / np.outer(scale, scale)
    return kernel


def _edges(graph: Any, position: int) -> sp.csr_matrix:
    matrix = sp.csr_matrix(graph, dtype=bool, copy=True)
    if matrix.shape[0] != matrix.shape[1] or not matrix.shape[0]:
        raise DataError(f"graph {position} has an adjacency matrix of {matrix.shape}; it must be square and not empty.")
    matrix.eliminate_zeros()
    if n_one_way := (matrix != matrix.T).nnz:
        raise DataError(
            f"graph {position} has {n_one_way} entries without their mirror image; pass a symmetric matrix, such as "
            "a + a.T."
        )
    return matrix


def _refined(graphs: sp.csr_matrix, labels: np.ndarray) -> np.ndarray:
    """New labels: equal where a node's own label and those of its neighbours, in any order, are equal."""
    of_node = np.repeat(np.arange(len(labels)), np.diff(graphs.indptr))
    around = labels[graphs.indices]
    around = around[np.lexsort((around, of_node))]
    known: dict[tuple[int, bytes], int] = {}
    refined = np.empty_like(labels)
    for node, (own, start, stop) in enumerate(zip(labels, graphs.indptr[:-1], graphs.indptr[1:], strict=True)):
        refined[node] = known.setdefault((int(own), around[start:stop].tobytes()), len(known))
    return refined


def _shared(labels: np.ndarray, of_graph: np.ndarray, n_graphs: int) -> np.ndarray:
    """Inner products of the graphs' histograms of labels, (n, n)."""
    counts = sp.csr_matrix((np.ones(len(labels)), (of_graph, labels)), shape=(n_graphs, int(labels.max()) + 1))
    product: np.ndarray = (counts @ counts.T).toarray()
    return product
