"""The Weisfeiler-Lehman kernel: a slow implementation with strings, hand values, GraKeL."""

from __future__ import annotations

from collections import Counter

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp

from lucidcell.errors import DataError, SettingError
from lucidcell.maths.graph_kernel import weisfeiler_lehman


def random_graphs(seed: int = 0) -> list[sp.csr_matrix]:
    """Of different sizes and densities, with and without isolated nodes."""
    rng = np.random.default_rng(seed)
    graphs = []
    for n, density in ((5, 0.4), (12, 0.3), (12, 0.3), (30, 0.05), (40, 0.2), (7, 1.0), (25, 0.08)):
        upper = np.triu(rng.random((n, n)) < density, 1)
        graphs.append(sp.csr_matrix(upper | upper.T))
    return graphs


def slowly(graphs: list, n_iter: int) -> np.ndarray:
    """Labels as nested strings that are never shortened."""
    histograms = []
    for graph in graphs:
        dense = graph.toarray()
        neighbours = [np.flatnonzero(row) for row in dense]
        labels = [str(len(near)) for near in neighbours]
        counts = Counter((0, label) for label in labels)
        for t in range(1, n_iter + 1):
            labels = [f"({labels[v]}|{','.join(sorted(labels[u] for u in near))})" for v, near in enumerate(neighbours)]
            counts.update((t, label) for label in labels)
        histograms.append(counts)
    kernel = [[sum(a[key] * b[key] for key in a) for b in histograms] for a in histograms]
    return np.array(kernel, float)


@pytest.mark.parametrize("n_iter", [0, 1, 3])
def test_the_kernel_is_that_of_labels_written_out(n_iter):
    graphs = random_graphs()
    expected = slowly(graphs, n_iter)
    np.testing.assert_allclose(weisfeiler_lehman(graphs, n_iter=n_iter, normalize=False), expected)
    scale = np.sqrt(expected.diagonal())
    np.testing.assert_allclose(weisfeiler_lehman(graphs, n_iter=n_iter), expected / np.outer(scale, scale))


def test_a_path_and_a_triangle_by_hand():
    path = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    triangle = np.ones((3, 3)) - np.eye(3)
    # degrees 1, 2, 1 and 2, 2, 2: 4 + 1, 1 * 3, 9; then the middle of the path has neighbours of degree 1
    np.testing.assert_array_equal(weisfeiler_lehman([path, triangle], n_iter=0, normalize=False), [[5, 3], [3, 9]])
    np.testing.assert_array_equal(weisfeiler_lehman([path, triangle], n_iter=1, normalize=False), [[10, 3], [3, 18]])


def test_names_and_weights_do_not_matter_and_the_kernel_is_positive():
    graphs = random_graphs(1)
    rng = np.random.default_rng(2)
    other = graphs[4].toarray() * rng.random(graphs[4].shape)
    order = rng.permutation(len(other))
    other = np.maximum(other, other.T)[np.ix_(order, order)]
    kernel = weisfeiler_lehman([*graphs, sp.csc_matrix(other)])
    assert kernel[4, -1] == pytest.approx(1)
    np.testing.assert_allclose(kernel.diagonal(), 1)
    assert np.linalg.eigvalsh(kernel).min() > -1e-12


def test_a_stored_zero_is_no_edge():
    stored = sp.csr_matrix(([1.0, 1.0, 0.0, 0.0], ([0, 1, 1, 2], [1, 0, 2, 1])), shape=(3, 3))
    plain = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]])
    assert weisfeiler_lehman([stored, plain])[0, 1] == pytest.approx(1)
    assert stored.nnz == 4


def test_regular_graphs_of_one_degree_cannot_be_told_apart():
    hexagon, triangles = nx.cycle_graph(6), nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(3))
    kernel = weisfeiler_lehman([nx.to_scipy_sparse_array(hexagon), nx.to_scipy_sparse_array(triangles)])
    assert kernel[0, 1] == pytest.approx(1)


@pytest.mark.parametrize(
    ("graphs", "arguments", "error", "words"),
    [
        ([], {}, DataError, "no graphs"),
        ([np.ones((2, 3))], {}, DataError, "graph 0 has an adjacency matrix of \\(2, 3\\)"),
        ([np.zeros((0, 0))], {}, DataError, "not empty"),
        ([np.eye(2), np.triu(np.ones((3, 3)))], {}, DataError, "graph 1 has 6 entries without"),
        ([np.eye(2)], {"n_iter": -1}, SettingError, "n_iter is -1"),
        ([np.eye(2)], {"n_iter": 1.0}, SettingError, "n_iter is 1.0"),
    ],
)
def test_mistakes_are_named(graphs, arguments, error, words):
    with pytest.raises(error, match=words):
        weisfeiler_lehman(graphs, **arguments)


@pytest.mark.oracle
@pytest.mark.parametrize("normalize", [True, False])
def test_the_kernel_is_that_of_grakel(normalize):
    grakel = pytest.importorskip("grakel", reason="grakel comes with the oracle group")
    graphs = random_graphs(3)
    inputs = [
        grakel.Graph(graph.astype(int).toarray(), node_labels=dict(enumerate(np.diff(graph.indptr).tolist())))
        for graph in graphs
    ]
    theirs = grakel.WeisfeilerLehman(n_iter=5, base_graph_kernel=grakel.VertexHistogram, normalize=normalize)
    np.testing.assert_allclose(weisfeiler_lehman(graphs, normalize=normalize), theirs.fit_transform(inputs))
