"""Graphs of mutual nearest neighbours that are connected.

Two points are joined if each is among the k nearest of the other. Many points of high-dimensional data are then alone;
edges of a minimum spanning tree of the k-nearest-neighbour graph join what is apart, the shortest first (Dalmia & Sia
2021, arXiv 2108.05525), and after it the shortest edges between parts that the k nearest neighbours do not link.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from sklearn.neighbors import NearestNeighbors

MOST_EXACT = 20_000  # points up to which neighbours are searched for by brute force
TINY = 1e-12  # for distances of zero, which a sparse matrix would lose


def mutual_neighbors(points: np.ndarray, k: int) -> sp.csr_matrix:
    """Symmetric, connected, without loops: (n, n) of ones.

    Parameters
    ----------
    points
        (n, D).
    k
        Nearest neighbours that count, the point itself not among them; at most n - 1 are taken.
    """
    n = len(points)
    k = min(k, n - 1)
    distances, indices = _nearest(np.ascontiguousarray(points, np.float64), k)
    rows = np.repeat(np.arange(n), k)
    directed = sp.csr_matrix((distances.ravel() + TINY, (rows, indices.ravel())), (n, n))
    mutual = directed.multiply(directed.T > 0).tocsr()
    mutual = _join(mutual, minimum_spanning_tree(directed.maximum(directed.T)).tocoo())
    while (parts := connected_components(mutual, directed=False))[0] > 1:
        mutual = _join(mutual, _shortest_way_out(points, parts[1]))
    ones = (mutual > 0).astype(np.float32).tocsr()
    ones.sort_indices()
    return ones


def _nearest(points: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances and positions of the k nearest others, both (n, k); approximate for very many points."""
    if len(points) <= MOST_EXACT:
        distances, indices = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(points).kneighbors()
        return distances, indices
    from pynndescent import NNDescent

    indices, distances = NNDescent(points, n_neighbors=k + 1, random_state=0).neighbor_graph
    own = indices == np.arange(len(points))[:, None]
    own[~own.any(1), -1] = True  # the point itself was not found: the farthest goes
    return distances[~own].reshape(-1, k), indices[~own].reshape(-1, k)


def _join(graph: sp.csr_matrix, edges: sp.coo_matrix) -> sp.csr_matrix:
    """The graph with those of the edges that join two parts of it, the shortest first."""
    parent = connected_components(graph, directed=False)[1].astype(np.int64)
    root = np.arange(parent.max() + 1)

    def find(part: int) -> int:
        while root[part] != part:
            root[part] = root[root[part]]
            part = root[part]
        return part

    kept = []
    for e in np.argsort(edges.data, kind="stable"):
        one, other = find(parent[edges.row[e]]), find(parent[edges.col[e]])
        if one != other:
            root[one] = other
            kept.append(e)
    new = sp.csr_matrix((edges.data[kept], (edges.row[kept], edges.col[kept])), graph.shape)
    return graph.maximum(new).maximum(new.T).tocsr()


def _shortest_way_out(points: np.ndarray, part: np.ndarray) -> sp.coo_matrix:
    """The shortest edge from the smallest part to any other point."""
    inside = part == np.argmin(np.bincount(part))
    within, without = np.flatnonzero(inside), np.flatnonzero(~inside)
    distances, nearest = (
        NearestNeighbors(n_neighbors=1, algorithm="brute").fit(points[without]).kneighbors(points[within])
    )
    best = int(np.argmin(distances[:, 0]))
    edge = ([distances[best, 0] + TINY], ([within[best]], [without[nearest[best, 0]]]))
    return sp.coo_matrix(edge, (len(points), len(points)))
