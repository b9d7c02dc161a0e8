"""Neighbours, graphs and centralities of genes against scikit-learn, networkx and their definitions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist, squareform
from sklearn.metrics import r2_score
from sklearn.neighbors import NearestNeighbors

from lucidcell.errors import DataError, FileError, SettingError
from lucidcell.readouts.centrality import degree_centrality, distance_centrality, weight_centrality
from lucidcell.readouts.networks import gene_neighbors, gene_network, network_neighbors, smallest, write_graphml


@pytest.fixture
def loadings() -> pd.DataFrame:
    """40 genes x 3 factors."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(rng.normal(size=(40, 3)), [f"g{i}" for i in range(40)], ["Z1", "Z2", "Z3"])


@pytest.fixture
def weights() -> pd.DataFrame:
    """A symmetric network of 12 genes, half of its weights 0."""
    rng = np.random.default_rng(1)
    half = np.triu(rng.random((12, 12)) * (rng.random((12, 12)) < 0.5), 1)
    names = [f"g{i}" for i in range(12)]
    return pd.DataFrame(half + half.T + 9 * np.eye(12), names, names)  # the diagonal must not count


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "correlation"])
def test_neighbors_are_those_of_scikit_learn(loadings: pd.DataFrame, metric: str) -> None:
    table = gene_neighbors(loadings, 5, metric)
    distance, index = NearestNeighbors(n_neighbors=6, metric=metric, algorithm="brute").fit(loadings).kneighbors()
    assert list(table["gene"]) == list(np.repeat(loadings.index, 5))
    assert list(table["neighbor"]) == list(loadings.index[index[:, :5].ravel()])
    assert list(table["rank"]) == [1, 2, 3, 4, 5] * 40
    np.testing.assert_allclose(table["distance"], distance[:, :5].ravel(), atol=1e-12)


def test_neighbors_of_equal_distance_come_in_the_order_of_the_genes() -> None:
    table = gene_neighbors(pd.DataFrame([[0.0], [1.0], [1.0], [1.0], [-1.0]], list("abcde")), 2)
    assert list(table.loc[table["gene"] == "a", "neighbor"]) == ["b", "c"]
    assert list(table.loc[table["gene"] == "d", "neighbor"]) == ["b", "c"]


def test_smallest_is_a_stable_sort() -> None:
    values = np.random.default_rng(0).integers(0, 5, 50).astype(float)
    assert list(smallest(values, 20)) == list(np.argsort(values, kind="stable")[:20])


def test_network_neighbors_have_the_heaviest_edges_and_no_edge_is_made_up(weights: pd.DataFrame) -> None:
    table = network_neighbors(weights, 4)
    for gene in weights.index:
        row = weights.loc[gene].drop(gene)
        wanted = row[row > 0].sort_values(ascending=False)[:4]
        found = table[table["gene"] == gene]
        assert list(found["neighbor"]) == list(wanted.index)
        np.testing.assert_array_equal(found["weight"], wanted)


@pytest.mark.parametrize("quantile", [0.01, 0.1, 1.0])
def test_edges_are_the_pairs_below_the_quantile_of_distances(loadings: pd.DataFrame, quantile: float) -> None:
    graph = gene_network(loadings, quantile)
    distance = squareform(pdist(loadings))
    below = distance < np.quantile(pdist(loadings), quantile)
    np.fill_diagonal(below, False)
    assert list(graph) == list(loadings.index)
    np.testing.assert_array_equal(nx.to_numpy_array(graph, weight=None) > 0, below)
    for one, other, d in graph.edges(data="distance"):
        assert d == pytest.approx(np.linalg.norm(loadings.loc[one] - loadings.loc[other]))


def test_a_network_of_some_genes_has_the_quantile_of_their_distances(loadings: pd.DataFrame) -> None:
    chosen = list(loadings.index[::4])
    graph = gene_network(loadings, 0.2, chosen)
    assert list(graph) == chosen
    assert graph.number_of_edges() == int(
        (pdist(loadings.loc[chosen]) < np.quantile(pdist(loadings.loc[chosen]), 0.2)).sum()
    )


def test_graphml_is_read_back_by_networkx(loadings: pd.DataFrame, tmp_path: Path) -> None:
    graph = gene_network(loadings, 0.05)
    path = write_graphml(graph, tmp_path / "genes.graphml")
    again = nx.read_graphml(path)
    assert dict(again.adjacency()) == dict(graph.adjacency())


def test_graphml_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path) -> None:
    graph: Any = nx.path_graph(3)
    with pytest.raises(FileError, match="existing folder"):
        write_graphml(graph, tmp_path / "none" / "genes.graphml")
    graph.nodes[0]["cells"] = [1, 2]
    with pytest.raises(DataError, match="text or a number"):
        write_graphml(graph, tmp_path / "genes.graphml")
    with pytest.raises(DataError, match=r"networkx\.Graph"):
        write_graphml("graph", tmp_path / "genes.graphml")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"k": 40}, SettingError, "1 to 39"),
        ({"k": 0}, SettingError, "k is 0"),
        ({"metric": "manhattan"}, SettingError, "euclidean, cosine, correlation"),
    ],
)
def test_neighbors_refuse_what_has_no_meaning(
    loadings: pd.DataFrame, arguments: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        gene_neighbors(loadings, **arguments)


def test_bad_loadings_are_refused_with_numbers(loadings: pd.DataFrame) -> None:
    with pytest.raises(DataError, match="1 gene"):
        gene_neighbors(
            loadings.mask(loadings == loadings.iloc[3, 1], 0).assign(Z1=0.0, Z2=0.0, Z3=[0.0] + [1.0] * 39), 3, "cosine"
        )
    for bad in (loadings.mask(loadings == loadings.iloc[3, 1]), pd.concat([loadings, loadings[:1]])):
        for function in (gene_neighbors, gene_network, distance_centrality):
            with pytest.raises(DataError):
                function(bad)
    for quantile in (0, 1.5, True, "all"):
        with pytest.raises(SettingError, match="above 0 and at most 1"):
            gene_network(loadings, quantile)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="at most 20000"):
        gene_network(np.zeros((20_001, 1)))
    with pytest.raises(DataError, match="at least 2"):
        gene_network(loadings, 0.1, ["g0"])
    with pytest.raises(DataError, match="g99"):
        gene_network(loadings, 0.1, ["g0", "g99"])


def test_explained_centrality_is_the_r2_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 6)) * np.arange(1, 7) + 3
    rebuilt = x + rng.normal(size=x.shape)
    x[:, 5] = rebuilt[:, 5] = 2.0  # constant
    found = degree_centrality(pd.DataFrame(x), rebuilt)
    wanted = r2_score(x, rebuilt, multioutput="raw_values")
    np.testing.assert_allclose(found[:5], wanted[:5])
    assert found.iloc[5] == 0
    np.testing.assert_allclose(degree_centrality(x, rebuilt, "mse"), -((x - rebuilt) ** 2).mean(0))
    np.testing.assert_allclose(degree_centrality(10 * x, 10 * rebuilt), found)


def test_centrality_of_tables_that_do_not_fit_is_refused() -> None:
    x = pd.DataFrame(np.random.default_rng(0).normal(size=(20, 3)), columns=list("abc"))
    with pytest.raises(DataError, match="2 of 3 genes"):
        degree_centrality(x, x[list("acb")])
    with pytest.raises(DataError, match="shape"):
        degree_centrality(x, x.iloc[:, :2])
    with pytest.raises(SettingError, match="explained, mse"):
        degree_centrality(x, x, "degree")  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="'reference'"):
        distance_centrality(x.T, reproduce="paper")  # type: ignore[arg-type]


def test_other_centralities_are_norms_and_mean_weights(loadings: pd.DataFrame, weights: pd.DataFrame) -> None:
    norms = np.sqrt((loadings**2).sum(axis=1))
    np.testing.assert_allclose(distance_centrality(loadings), norms)
    np.testing.assert_allclose(distance_centrality(loadings, reproduce="reference"), -norms)
    graph = nx.from_pandas_adjacency(weights - 9 * np.eye(12))
    strength = pd.Series(dict(graph.degree(weight="weight")))
    pd.testing.assert_series_equal(weight_centrality(weights), strength / 11, check_names=False)
