"""One table of scores for several embeddings of the same cells: the only place where metrics meet AnnData."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lucidcell.cells.gene_sets import GeneSets
from lucidcell.cells.parts import Parts
from lucidcell.comparators.knn import knn
from lucidcell.errors import DataError, SettingError
from lucidcell.metrics import annotation, clustering, harmonization, scib
from lucidcell.metrics.checks import groups, points
from lucidcell.metrics.interpretability import Conventions, interpretability
from lucidcell.metrics.neighbors import nearest_neighbors
from lucidcell.readouts.enrichment import table_of

if TYPE_CHECKING:
    from anndata import AnnData

KINDS = ("integration", "annotation", "clustering", "interpretability")
BATCH_SHARE, BIO_SHARE = 0.4, 0.6  # of the total, as in scIB
_NEIGHBORS = 90  # the largest neighbourhood that a score needs


def evaluate(
    adata: AnnData,
    embeddings: str | Sequence[str] | Mapping[str, Any],
    *,
    metrics: str = "integration",
    batch_key: str | None = None,
    labels_key: str | None = None,
    predictions: Sequence[str] = (),
    gene_sets: GeneSets | None = None,
    corpus: GeneSets | None = None,
    conventions: Conventions | None = None,
    n_permutations: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Scores of embeddings, a row for each; all from 0 to 1 or nearly so, higher is better but for calibration_error.

    Parameters
    ----------
    adata
        The cells; not changed. X is not used.
    embeddings
        Keys of obsm, or arrays (n, D) by name. For interpretability, keys of obsm (cells x topics) and varm (genes x
        topics) by name, as pairs.
    metrics
        "integration": how well batches are mixed, and types kept apart.
        "annotation": labels of each batch predicted from the others by 15 nearest neighbours.
        "clustering": how well clusters agree with labels.
        "interpretability": how readable topics are; see `lucidcell.metrics.interpretability`.
    batch_key
        Column of obs with the batches, for integration and annotation.
    labels_key
        Column of obs with the cell types. Integration without it gives batch scores only.
    predictions
        Columns of obs with predicted types, for annotation: scored as they are, a row for each.
    gene_sets, corpus, conventions, n_permutations
        For interpretability: gene sets for enrichment, those for coherence (the same for None), how measures are
        counted (None: our defaults), random sets of GSEA.
    seed
        Of k-means and Leiden.

    Returns
    -------
    pandas.DataFrame
        (embeddings, scores). `attrs["groups"]` lists the columns under their headings.
        Integration: ilisi, batch_mixing (normalised entropy, balanced, k = 50), graph_connectivity, silhouette_batch
        and their mean batch_correction; clisi, silhouette_label, kmeans_nmi, kmeans_ari and their mean
        bio_conservation; total = 0.4 batch_correction + 0.6 bio_conservation, the weights of scIB.
        Annotation: weighted_accuracy, accuracy, macro_f1, calibration_error and unassigned_rate, means over batches.
        Clustering: kmeans_ari, kmeans_nmi, kmeans_ami, kmeans_accuracy, label_purity and, where igraph is installed,
        the best leiden_ari, leiden_nmi and leiden_ami of a sweep.
        Interpretability: TC, TD, TQ, IP and what stands beside it, ORA_ and GSEA_ N, U and Q.

    Raises
    ------
    DataError
        If a key is missing, or arrays and columns cannot be used.
    SettingError
        If the kind of metrics is unknown, a key it needs is not given, or the cells are too few.
    """
    if metrics not in KINDS:
        raise SettingError(f"metrics={metrics!r} is not known: it must be one of {', '.join(KINDS)}.")
    if predictions and metrics != "annotation":
        raise SettingError(f"predictions are scored by metrics='annotation' only, not by {metrics!r}: leave them out.")
    parts = Parts.of(adata, model="evaluate", smallest=2)
    if metrics == "interpretability":
        types = None if labels_key is None else parts.column(labels_key, argument="labels_key").to_numpy()
        return _readable(adata, parts, embeddings, types, gene_sets, corpus, conventions, n_permutations, seed)
    arrays = _arrays(parts, embeddings)
    if not arrays and not predictions:
        raise SettingError("embeddings are empty, so there is nothing to score: pass keys of obsm, or arrays by name.")
    if metrics == "clustering":
        labels = _column(parts, labels_key, "labels_key", metrics)
        return _table({name: _clustering(x, labels, seed) for name, x in arrays.items()}, metrics)
    batch = _column(parts, batch_key, "batch_key", metrics)
    if metrics == "integration":
        types = None if labels_key is None else _column(parts, labels_key, "labels_key", metrics)
        return _table({name: _integration(x, batch, types, seed) for name, x in arrays.items()}, metrics)
    labels = _column(parts, labels_key, "labels_key", metrics)
    rows = {name: _transfer(x, batch, labels) for name, x in arrays.items()}
    for key in predictions:
        predicted = parts.column(key, argument="predictions").to_numpy()
        rows[key] = _mean_over_batches(batch, labels, predicted, None)
    return _table(rows, metrics)


def _readable(
    adata: AnnData, parts: Parts, pairs: Any, labels: np.ndarray | None, gene_sets: GeneSets | None,
    corpus: GeneSets | None, conventions: Conventions | None, n_permutations: int, seed: int,
) -> pd.DataFrame:  # fmt: skip
    """Interpretability of each pair of obsm and varm."""
    whole = isinstance(pairs, Mapping) and all(isinstance(p, tuple | list) and len(p) == 2 for p in pairs.values())
    if not whole or not pairs:
        raise SettingError(
            "metrics='interpretability' needs pairs of keys of obsm and varm by name: pass for instance "
            "{'scE2TM': ('sce2tm_topics', 'sce2tm_topic_genes')}."
        )
    rows = {}
    for name, (obsm_key, varm_key) in pairs.items():
        shares, scores = parts.embedding(obsm_key, argument="embeddings"), table_of(adata, varm_key)
        found = interpretability(
            shares, scores, labels=labels, gene_sets=gene_sets, corpus=corpus, conventions=conventions,
            n_permutations=n_permutations, seed=seed,
        )  # fmt: skip
        rows[str(name)] = {str(key): float(value) for key, value in found.summary.items()}
    return _table(rows, "interpretability")


def _arrays(parts: Parts, embeddings: str | Sequence[str] | Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    if isinstance(embeddings, Mapping):
        return {str(name): points(x, f"embedding {name!r}", parts.n_cells) for name, x in embeddings.items()}
    keys = [embeddings] if isinstance(embeddings, str) else list(embeddings)
    return {key: parts.embedding(key, argument="embeddings").astype(np.float64) for key in keys}


def _column(parts: Parts, key: str | None, argument: str, metrics: str) -> np.ndarray:
    """Names in a column of obs, (n,) of str objects."""
    if key is None:
        raise SettingError(f"metrics={metrics!r} needs {argument}, a column of obs: pass it.")
    found = groups(parts.column(key, argument=argument), f"obs[{key!r}]")
    return np.asarray(found.names, object)[found.codes]


def _integration(x: np.ndarray, batch: np.ndarray, labels: np.ndarray | None, seed: int) -> dict[str, float]:
    near = nearest_neighbors(x, _NEIGHBORS)
    scores = {
        "ilisi": scib.ilisi(near, batch),
        "batch_mixing": harmonization.entropy_of_batch_mixing(near, batch, normalize=True),
    }
    if labels is None:
        return scores
    clusters = clustering.kmeans_clusters(x, len(set(labels)), seed=seed)
    return scores | {
        "graph_connectivity": scib.graph_connectivity(near, labels),
        "silhouette_batch": scib.silhouette_batch(x, labels, batch),
        "clisi": scib.clisi(near, labels),
        "silhouette_label": scib.silhouette_label(x, labels),
        "kmeans_nmi": clustering.normalized_mutual_information(labels, clusters),
        "kmeans_ari": clustering.adjusted_rand_index(labels, clusters),
    }


def _transfer(x: np.ndarray, batch: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Each batch labelled by the 15 nearest cells of the others."""
    if len(set(batch)) < 2:
        raise DataError(f"there is one batch only, {batch[0]!r}, and labels are carried from batch to batch.")
    predicted, confidence = np.empty(len(x), object), np.empty(len(x))
    for name in sorted(set(batch)):
        hidden = batch == name
        found = knn(x[~hidden], labels[~hidden], x[hidden])
        predicted[hidden] = found.labels
        assert found.probabilities is not None
        confidence[hidden] = found.probabilities.max(axis=1)
    return _mean_over_batches(batch, labels, predicted, confidence)


def _mean_over_batches(
    batch: np.ndarray, labels: np.ndarray, predicted: np.ndarray, confidence: np.ndarray | None
) -> dict[str, float]:
    scores = []
    for name in sorted(set(batch)):
        rows = batch == name
        pair = labels[rows], predicted[rows]
        error = np.nan
        if confidence is not None:
            error = annotation.expected_calibration_error(*pair, confidence[rows])
        scores.append(
            {
                "weighted_accuracy": annotation.weighted_accuracy(*pair),
                "accuracy": annotation.accuracy(*pair),
                "macro_f1": annotation.macro_f1(*pair),
                "calibration_error": error,
                "unassigned_rate": annotation.unassigned_rate(pair[1]),
            }
        )
    return {name: float(np.mean([score[name] for score in scores])) for name in scores[0]}


def _clustering(x: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, float]:
    clusters = clustering.kmeans_clusters(x, len(set(labels)), seed=seed)
    scores = {
        "kmeans_ari": clustering.adjusted_rand_index(labels, clusters),
        "kmeans_nmi": clustering.normalized_mutual_information(labels, clusters),
        "kmeans_ami": clustering.adjusted_mutual_information(labels, clusters),
        "kmeans_accuracy": clustering.clustering_accuracy(labels, clusters),
        "label_purity": clustering.label_purity(x, labels),
    }
    if find_spec("igraph") is not None:
        best = clustering.leiden_sweep(x, labels, seed=seed).max()
        scores |= {f"leiden_{name}": float(best[name]) for name in ("ari", "nmi", "ami")}
    return scores


def _table(rows: dict[str, dict[str, float]], metrics: str) -> pd.DataFrame:
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("embedding")
    columns = list(table.columns)
    if metrics != "integration":
        table.attrs["groups"] = {metrics: columns}
        return table
    batch = [name for name in columns if name in ("ilisi", "batch_mixing", "graph_connectivity", "silhouette_batch")]
    bio = [name for name in columns if name not in batch]
    table["batch_correction"] = table[batch].mean(axis=1)
    if not bio:
        table.attrs["groups"] = {"batch correction": batch, "aggregate": ["batch_correction"]}
        return table
    table["bio_conservation"] = table[bio].mean(axis=1)
    table["total"] = BATCH_SHARE * table["batch_correction"] + BIO_SHARE * table["bio_conservation"]
    aggregate = ["batch_correction", "bio_conservation", "total"]
    table.attrs["groups"] = {"batch correction": batch, "bio conservation": bio, "aggregate": aggregate}
    return table
