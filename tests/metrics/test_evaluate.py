"""The table of scores: every number is that of its metric; aggregates; what is refused; the user's data unchanged."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import lucidcell as lc
from lucidcell import metrics
from lucidcell.comparators import knn
from lucidcell.errors import DataError, SettingError


@pytest.fixture
def cells(planted) -> ad.AnnData:
    adata = ad.AnnData(np.ones((400, 1), np.float32))
    adata.obs["tech"], adata.obs["type"] = pd.Categorical(planted.batch), planted.labels
    adata.obsm["X_good"] = planted.x.astype(np.float32)
    adata.obsm["X_noise"] = np.random.default_rng(3).normal(size=(400, 3)).astype(np.float32)
    return adata


def test_integration_is_the_metrics_and_their_means(cells):
    table = lc.evaluate(cells, ["X_noise", "X_good"], batch_key="tech", labels_key="type")
    assert table.index.tolist() == ["X_noise", "X_good"]
    x, batch, labels = cells.obsm["X_good"], cells.obs["tech"], cells.obs["type"]
    clusters = metrics.kmeans_clusters(x, 4)
    wanted = {
        "ilisi": metrics.ilisi(x, batch),
        "batch_mixing": metrics.entropy_of_batch_mixing(x, batch, normalize=True),
        "graph_connectivity": metrics.graph_connectivity(x, labels),
        "silhouette_batch": metrics.silhouette_batch(x, labels, batch),
        "clisi": metrics.clisi(x, labels),
        "silhouette_label": metrics.silhouette_label(x, labels),
        "kmeans_nmi": metrics.normalized_mutual_information(labels, clusters),
        "kmeans_ari": metrics.adjusted_rand_index(labels, clusters),
    }
    wanted["batch_correction"] = np.mean(list(wanted.values())[:4])
    wanted["bio_conservation"] = np.mean(list(wanted.values())[4:8])
    wanted["total"] = 0.4 * wanted["batch_correction"] + 0.6 * wanted["bio_conservation"]
    assert table.loc["X_good"].to_dict() == pytest.approx(wanted)
    assert [name for names in table.attrs["groups"].values() for name in names] == list(table.columns)
    assert table["bio_conservation"].idxmax() == "X_good"
    assert table["batch_correction"].idxmax() == "X_noise"


def test_integration_without_labels_scores_batches_only(cells):
    table = lc.evaluate(cells, "X_good", batch_key="tech")
    assert table.columns.tolist() == ["ilisi", "batch_mixing", "batch_correction"]


def test_arrays_by_name_are_scored_as_keys_are(cells):
    by_key = lc.evaluate(cells, ["X_good"], batch_key="tech", labels_key="type")
    by_name = lc.evaluate(cells, {"mine": cells.obsm["X_good"]}, batch_key="tech", labels_key="type")
    np.testing.assert_array_equal(by_key, by_name)
    assert by_name.index.tolist() == ["mine"]


def test_annotation_carries_labels_from_the_other_batches(cells):
    table = lc.evaluate(cells, ["X_good", "X_noise"], metrics="annotation", batch_key="tech", labels_key="type")
    x, batch, labels = cells.obsm["X_good"], cells.obs["tech"].to_numpy(), cells.obs["type"].to_numpy()
    accuracies, errors = [], []
    for name in np.unique(batch):
        hidden = batch == name
        found = knn(x[~hidden], labels[~hidden], x[hidden])
        accuracies.append(metrics.weighted_accuracy(labels[hidden], found.labels))
        confidence = found.probabilities.max(axis=1)
        errors.append(metrics.expected_calibration_error(labels[hidden], found.labels, confidence))
    assert table.at["X_good", "weighted_accuracy"] == pytest.approx(np.mean(accuracies))
    assert table.at["X_good", "calibration_error"] == pytest.approx(np.mean(errors))
    assert table.at["X_noise", "weighted_accuracy"] == pytest.approx(1 / 4, abs=0.08)
    assert (table["unassigned_rate"] == 0).all()


def test_predictions_are_scored_as_they_are(cells):
    cells.obs["called"] = np.where(np.arange(400) % 2 == 0, cells.obs["type"], "unassigned")
    table = lc.evaluate(cells, [], metrics="annotation", batch_key="tech", labels_key="type", predictions=["called"])
    assert table.at["called", "accuracy"] == pytest.approx(1 - table.at["called", "unassigned_rate"])
    assert np.isnan(table.at["called", "calibration_error"])


def test_clustering(cells):
    pytest.importorskip("igraph")
    table = lc.evaluate(cells, ["X_good", "X_noise"], metrics="clustering", labels_key="type")
    clusters = metrics.kmeans_clusters(cells.obsm["X_good"], 4)
    labels = cells.obs["type"]
    assert table.at["X_good", "kmeans_accuracy"] == pytest.approx(metrics.clustering_accuracy(labels, clusters))
    assert table.at["X_good", "label_purity"] == pytest.approx(metrics.label_purity(cells.obsm["X_good"], labels))
    sweep = metrics.leiden_sweep(cells.obsm["X_good"], labels)
    assert table.at["X_good", "leiden_ari"] == pytest.approx(sweep["ari"].max())
    assert (table.loc["X_good"] > table.loc["X_noise"]).all()


def test_the_cells_are_not_changed_and_the_same_call_gives_the_same_table(cells):
    before = cells.copy()
    first = lc.evaluate(cells, ["X_good"], batch_key="tech", labels_key="type")
    assert first.equals(lc.evaluate(cells, ["X_good"], batch_key="tech", labels_key="type"))
    assert cells.obs.equals(before.obs)
    assert list(cells.obsm) == list(before.obsm)
    assert list(cells.uns) == []
    np.testing.assert_array_equal(cells.obsm["X_good"], before.obsm["X_good"])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"metrics": "integratio"}, SettingError, "must be one of integration, annotation, clustering"),
        ({"batch_key": None}, SettingError, "metrics='integration' needs batch_key"),
        ({"metrics": "clustering", "labels_key": None}, SettingError, "metrics='clustering' needs labels_key"),
        ({"predictions": ["type"]}, SettingError, "not by 'integration'"),
        ({"embeddings": []}, SettingError, "embeddings are empty"),
        ({"embeddings": ["X_god"]}, DataError, "obsm has no 'X_god', given as embeddings; did you mean 'X_good'"),
        ({"batch_key": "tec"}, DataError, "obs has no 'tec', given as batch_key; did you mean 'tech'"),
        ({"batch_key": "same"}, DataError, "holds only 'x'"),
        ({"batch_key": "same", "metrics": "annotation"}, DataError, "there is one batch only, 'x'"),
        ({"labels_key": "gaps"}, DataError, r"obs\['gaps'\] is missing \(NaN\) in 1 of 400 cells"),
        ({"embeddings": {"mine": np.zeros((3, 2))}}, DataError, "embedding 'mine' has 3 rows for 400 cells"),
    ],
)
def test_errors(cells, arguments, error, message):
    cells.obs["same"] = "x"
    cells.obs["gaps"] = [None, *cells.obs["type"][1:]]
    settings = {"embeddings": ["X_good"], "batch_key": "tech", "labels_key": "type"} | arguments
    with pytest.raises(error, match=message):
        lc.evaluate(cells, settings.pop("embeddings"), **settings)


def test_fewer_cells_than_neighbours(cells):
    with pytest.raises(SettingError, match="k=90 neighbours are not possible with 60 cells"):
        lc.evaluate(cells[:60].copy(), "X_good", batch_key="tech")
