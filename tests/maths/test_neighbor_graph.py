"""Mutual neighbours: by hand, against a graph library, and connected whatever the points."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components
from sklearn.neighbors import kneighbors_graph

from lucidcell.maths import neighbor_graph
from lucidcell.maths.neighbor_graph import mutual_neighbors


def blobs(n: int, dim: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, dim)) + 30 * rng.integers(0, 4, (n, 1))


@pytest.mark.parametrize(("n", "dim", "k"), [(200, 3, 10), (120, 400, 5), (50, 2, 80), (2, 1, 15)])
def test_connected_symmetric_and_self_free(n: int, dim: int, k: int) -> None:
    graph = mutual_neighbors(blobs(n, dim), k)
    assert connected_components(graph, directed=False)[0] == 1
    assert (graph != graph.T).nnz == 0
    assert graph.diagonal().sum() == 0
    assert set(graph.data) == {1.0}
    assert (mutual_neighbors(blobs(n, dim), k) != graph).nnz == 0


def test_edges_are_the_mutual_ones_and_few_others() -> None:
    points, k = blobs(150, 5), 8
    nearest = kneighbors_graph(points, k)
    mutual = nearest.multiply(nearest.T)
    graph = mutual_neighbors(points, k)
    assert (graph.multiply(mutual) != mutual).nnz == 0, "every mutual edge is there"
    assert (graph.nnz - mutual.nnz) / 2 == connected_components(mutual, directed=False)[0] - 1, (
        "and no more than needed"
    )


def test_parts_are_joined_by_the_shortest_edges() -> None:
    """On a line, points 0, 1 | 3 | 7, 8: the mutual pairs, and a minimum spanning tree of what is left."""
    points = np.array([[0.0], [1.0], [3.0], [7.0], [8.0]])
    edges = {tuple(map(int, edge)) for edge in np.argwhere(sp.triu(mutual_neighbors(points, 1)).toarray())}
    assert edges == {(0, 1), (1, 2), (2, 3), (3, 4)}
    complete = nx.Graph()
    complete.add_weighted_edges_from((i, j, abs(points[i, 0] - points[j, 0])) for i in range(5) for j in range(i))
    assert {tuple(sorted(edge)) for edge in nx.minimum_spanning_tree(complete).edges} == edges


def test_equal_points_are_neighbours() -> None:
    graph = mutual_neighbors(np.zeros((6, 2)), 5)
    assert graph.nnz == 30


@pytest.mark.slow  # compiles pynndescent
def test_approximate_neighbours_of_many_points(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pynndescent")
    points = blobs(400, 4)
    exact = mutual_neighbors(points, 10)
    monkeypatch.setattr(neighbor_graph, "MOST_EXACT", 100)
    found = mutual_neighbors(points, 10)
    assert found.diagonal().sum() == 0
    assert connected_components(found, directed=False)[0] == 1
    assert found.multiply(exact).nnz > 0.9 * exact.nnz
