"""Gene networks read off a trained model: neighbours in the space of the loadings, and their graph.

Source: Choi, Li, Quon 2023, Genome Biology 24:29 (siVAE). All functions take plain tables, of any method.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd

from lucidcell.cells.gene_values import gene_positions, gene_rows, square_weights
from lucidcell.errors import DataError, FileError, SettingError
from lucidcell.readouts.arguments import require_whole

if TYPE_CHECKING:
    from networkx import Graph

MOST_GENES = 20_000  # of a network: 200 million pairs, 1.6 GB
Metric = Literal["euclidean", "cosine", "correlation"]


def gene_neighbors(loadings: Any, k: int = 20, metric: Metric = "euclidean") -> pd.DataFrame:
    """The k genes whose loadings are nearest to those of each gene.

    Parameters
    ----------
    loadings
        Genes x factors, (G, D); scale or rotate them before, if at all.
    k
        Neighbours of a gene, itself not counted; below G. The paper has 20.
    metric
        "euclidean" (the paper's), "cosine" or "correlation".

    Returns
    -------
    Columns gene, neighbor, rank (1 to k), distance: gene after gene, the nearest first, ties in the order of the genes.

    Raises
    ------
    DataError
        If the loadings are no matrix of finite numbers, name a gene twice, or have no direction where the metric
        needs one.
    SettingError
        If there are not that many other genes, or the metric is unknown.
    """
    if metric not in get_args(Metric):
        raise SettingError(f"metric is {metric!r}; it must be one of {', '.join(get_args(Metric))}.")
    from scipy.spatial.distance import cdist

    v, genes = gene_rows(loadings, "the loadings")
    _require_k(k, len(genes))
    if metric == "correlation":
        v = v - v.mean(1, keepdims=True)
    if metric != "euclidean" and (n_none := int((np.linalg.norm(v, axis=1) < 1e-12).sum())):
        raise DataError(f"the loadings of {n_none} genes have no direction for metric={metric!r}: pass 'euclidean'.")
    kind = "euclidean" if metric == "euclidean" else "cosine"
    found = []
    for g in range(len(v)):
        distance = cdist(v[g : g + 1], v, kind)[0]
        distance[g] = np.inf
        near = smallest(distance, k)
        found.append((near, distance[near]))
    return _neighbor_table(genes, found, "distance")


def network_neighbors(weights: pd.DataFrame | np.ndarray, k: int = 20) -> pd.DataFrame:
    """The k genes with the heaviest edges to each gene.

    Parameters
    ----------
    weights
        Genes x genes, symmetric, of `infer_network` or another tool; the diagonal does not count.
    k
        Neighbours of a gene; below G. A weight of 0 or less is no edge: a gene with fewer edges has fewer neighbours.

    Returns
    -------
    Columns gene, neighbor, rank, weight: gene after gene, the heaviest first, ties in the order of the genes.

    Raises
    ------
    DataError
        If the weights are no square matrix of finite numbers, or name a gene twice.
    SettingError
        If there are not that many other genes.
    """
    w, genes = square_weights(weights)
    _require_k(k, len(genes))
    found = []
    for g in range(len(w)):
        row = w[g].copy()
        row[g] = -np.inf
        near = smallest(-row, k)
        near = near[row[near] > 0]
        found.append((near, row[near]))
    return _neighbor_table(genes, found, "weight")


def nearest_pairs(distances: np.ndarray, quantile: float) -> np.ndarray:
    """Which pairs, (G (G - 1) / 2,) bool, are nearer than this quantile of all pairs; distances may be infinite."""
    near: np.ndarray = distances < np.quantile(distances, quantile, method="higher")
    return near


def gene_network(loadings: Any, quantile: float = 0.01, genes: Sequence[Hashable] | None = None) -> Graph:
    """Graph whose edges are the pairs of genes with the nearest loadings.

    Parameters
    ----------
    loadings
        Genes x factors, (G, D).
    quantile
        A pair is an edge if its Euclidean distance is below this quantile of the distances of all pairs; above 0 and at
        most 1. The paper has 0.01, 0.005 and 0.001.
    genes
        The genes of the network, by default all; the quantile is of their distances.

    Returns
    -------
    networkx.Graph with a node for each gene, also for those without an edge, and the attribute ``distance`` of edges.

    Raises
    ------
    DataError
        If the loadings are no matrix of finite numbers, name a gene twice, a gene is unknown, or there are more than
        20,000 genes.
    SettingError
        If the quantile is none.
    """
    import networkx as nx
    from scipy.spatial.distance import pdist

    if isinstance(quantile, bool) or not isinstance(quantile, float | int | np.number) or not 0 < quantile <= 1:
        raise SettingError(f"quantile is {quantile!r}; it must be a number above 0 and at most 1, such as 0.01.")
    v, names = gene_rows(loadings, "the loadings")
    if genes is not None:
        kept = gene_positions(genes, names, "genes")
        v, names = v[kept], names[kept]
    if len(names) < 2:
        raise DataError(f"a network of {len(names)} gene has no pairs: pass at least 2 genes.")
    if len(names) > MOST_GENES:
        raise DataError(
            f"a network of {len(names)} genes has too many pairs to compare: pass at most {MOST_GENES} genes, such as "
            "the most central ones."
        )
    distance = pdist(v)
    edges = np.flatnonzero(nearest_pairs(distance, quantile))
    starts = np.concatenate([[0], np.cumsum(np.arange(len(names) - 1, 0, -1))])  # of each gene's pairs with later ones
    first = np.searchsorted(starts, edges, side="right") - 1
    second = edges - starts[first] + first + 1
    labels = names.tolist()
    graph = nx.Graph()
    graph.add_nodes_from(labels)
    for i, j, d in zip(first, second, distance[edges], strict=True):
        graph.add_edge(labels[i], labels[j], distance=float(d))
    return graph


def write_graphml(graph: Graph, path: str | Path) -> Path:
    """Write a graph as GraphML, which Cytoscape, Gephi and igraph read; returns the path.

    Raises
    ------
    DataError
        If it is no graph, or an attribute is of a kind that GraphML cannot hold.
    FileError
        If the file cannot be written.
    """
    import networkx as nx

    if not isinstance(graph, nx.Graph):
        raise DataError(f"graph is a {type(graph).__name__}: pass a networkx.Graph, such as that of gene_network.")
    try:
        nx.write_graphml(graph, path)
    except (TypeError, nx.NetworkXError) as error:
        raise DataError(
            f"the graph has an attribute that GraphML cannot hold ({error}): make it text or a number."
        ) from error
    except OSError as error:
        raise FileError(f"{path} cannot be written ({error.strerror}): choose a path in an existing folder.") from error
    return Path(path)


def smallest(values: np.ndarray, k: int) -> np.ndarray:
    """Positions of the k smallest of (G,), the smallest first, ties in their order."""
    among = np.flatnonzero(values <= np.partition(values, k - 1)[k - 1])
    return among[np.argsort(values[among], kind="stable")[:k]]


def _require_k(k: int, n_genes: int) -> None:
    require_whole(k, "k", 1)
    if k >= n_genes:
        raise SettingError(f"k={k} neighbours are not possible with {n_genes} genes: choose 1 to {n_genes - 1}.")


def _neighbor_table(genes: pd.Index, found: list[tuple[np.ndarray, np.ndarray]], measure: str) -> pd.DataFrame:
    sizes = [len(near) for near, _ in found]
    return pd.DataFrame(
        {
            "gene": genes.repeat(sizes),
            "neighbor": genes.take(np.concatenate([near for near, _ in found])),
            "rank": np.concatenate([np.arange(1, size + 1) for size in sizes]),
            measure: np.concatenate([value for _, value in found]),
        }
    )
