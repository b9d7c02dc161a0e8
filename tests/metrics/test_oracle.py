"""Agreement with scib-metrics and harmonypy on the same neighbours."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lucidcell import metrics

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(scope="module")
def scib():
    return pytest.importorskip("scib_metrics", reason="scib-metrics comes with the oracle group")


@pytest.fixture
def theirs(scib, planted):
    """Their neighbours, which count the cell itself."""
    from scib_metrics.nearest_neighbors import NeighborsResults

    near = metrics.nearest_neighbors(planted.x, 89)
    itself = np.arange(len(planted.x))[:, None]
    return NeighborsResults(np.c_[itself, near.indices], np.c_[np.zeros(len(itself)), near.distances])


def test_lisi_is_that_of_scib_metrics(scib, planted, theirs):
    ours = metrics.nearest_neighbors(planted.x, 89)
    values = metrics.lisi(ours, planted.labels, k=89)
    np.testing.assert_allclose(values, scib.lisi_knn(theirs, planted.labels, perplexity=30), rtol=1e-4)
    batch = metrics.ilisi(ours, planted.batch, k=89)
    assert batch == pytest.approx(scib.ilisi_knn(theirs, planted.batch, perplexity=30), abs=1e-4)
    types = metrics.clisi(ours, planted.labels, k=89)
    assert types == pytest.approx(scib.clisi_knn(theirs, planted.labels, perplexity=30), abs=1e-4)


def test_one_neighbour_more_moves_lisi_little(scib, planted, theirs):
    """Ours are 90 neighbours without the cell, theirs 90 with it."""
    default = metrics.ilisi(planted.x, planted.batch)
    assert default == pytest.approx(scib.ilisi_knn(theirs, planted.batch, perplexity=30), abs=5e-3)


def test_lisi_is_that_of_harmonypy(planted):
    harmonypy = pytest.importorskip("harmonypy", reason="harmonypy comes with the oracle group")
    values = harmonypy.compute_lisi(planted.x, pd.DataFrame({"batch": planted.batch}), ["batch"], 30)[:, 0]
    np.testing.assert_allclose(metrics.lisi(planted.x, planted.batch), values, rtol=1e-4)


def test_silhouettes_are_those_of_scib_metrics(scib, planted):
    x, batch, labels = planted
    assert metrics.silhouette_label(x, labels) == pytest.approx(scib.silhouette_label(x, labels), abs=1e-5)
    theirs = scib.silhouette_batch(x, labels, batch)
    assert metrics.silhouette_batch(x, labels, batch) == pytest.approx(theirs, abs=1e-5)


def test_connectivity_is_that_of_scib_metrics_on_a_symmetric_graph(scib, rng):
    """Theirs follows the direction of neighbours; on a ring, where neighbours are mutual, both are the same."""
    from scib_metrics.nearest_neighbors import NeighborsResults

    angle = 2 * np.pi * np.arange(60) / 60
    x = np.c_[np.cos(angle), np.sin(angle)]
    near = metrics.nearest_neighbors(x, 2)
    labels = rng.choice(["a", "b"], 60, p=[0.8, 0.2])
    theirs = scib.graph_connectivity(NeighborsResults(near.indices, near.distances), labels)
    assert metrics.graph_connectivity(near, labels, k=2) == pytest.approx(theirs)
    assert theirs < 0.9
