"""Clusters of unlabelled cells that no labelled cell lives among."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from scipy.stats import entropy
from sklearn.neighbors import NearestNeighbors

from lucidcell.errors import DataError, SettingError
from lucidcell.readouts.new_types import unmixed_clusters

Cells = tuple[np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture
def cells() -> Cells:
    """Three types of 200 cells; half of the cells have a label, but none of the last type."""
    rng = np.random.default_rng(0)
    kind = np.repeat([0, 1, 2], 200)
    centres = np.array([[0.0, 0, 0], [6, 0, 0], [0, 6, 0]])
    return centres[kind] + rng.standard_normal((600, 3)), (rng.random(600) < 0.5) & (kind < 2), kind


def test_the_type_without_labels_is_warned_of(cells: Cells, caplog: pytest.LogCaptureFixture) -> None:
    latent, labelled, kind = cells
    table = unmixed_clusters(latent, labelled, kind, predictions=np.array(["B", "T", "T"])[kind])
    assert list(table.index)[0] == 2
    assert table["suspicious"].to_dict() == {2: True, 0: False, 1: False}
    assert table.at[2, "mixing"] < 0.05
    assert table.loc[[0, 1], "mixing"].min() > 0.8
    assert table.at[2, "n_cells"] == 200
    assert "cluster 2 of 200 unlabelled cells, 100% of them predicted 'T', mixes little" in caplog.text
    assert len(caplog.records) == 1


def test_mixing_by_hand(cells: Cells) -> None:
    latent, labelled, kind = cells
    table = unmixed_clusters(latent, labelled, kind, k=10)
    near = NearestNeighbors(n_neighbors=10).fit(latent).kneighbors(return_distance=False)
    for cluster, row in table.iterrows():
        members = near[(kind == cluster) & ~labelled]
        weights = [labelled[members].sum() / labelled.sum(), (~labelled[members]).sum() / (~labelled).sum()]
        assert row["mixing"] == pytest.approx(entropy(weights, base=2))


def test_clusters_are_found_without_being_told(cells: Cells) -> None:
    latent, labelled, kind = cells
    rng = np.random.default_rng(1)
    latent, labelled, kind = (np.concatenate([part] * 3) for part in (latent, labelled, kind))
    table = unmixed_clusters(latent + 0.3 * rng.standard_normal(latent.shape), labelled)
    assert table["n_cells"].sum() == (~labelled).sum()
    assert table.loc[table["suspicious"], "n_cells"].sum() == pytest.approx((kind == 2).sum(), rel=0.02)


def test_nothing_is_said_where_all_types_have_labels(cells: Cells, caplog: pytest.LogCaptureFixture) -> None:
    latent, _, kind = cells
    labelled = np.random.default_rng(1).random(600) < 0.1
    with caplog.at_level(logging.WARNING):
        table = unmixed_clusters(latent, labelled, kind)
    assert not table["suspicious"].any()
    assert not caplog.records


def test_a_few_cells_are_no_cluster(cells: Cells) -> None:
    latent, labelled, kind = cells
    rows = np.flatnonzero((kind < 2) | (np.arange(600) > 584))
    assert not unmixed_clusters(latent[rows], labelled[rows], kind[rows])["suspicious"].any()


def test_what_cannot_be_compared_is_refused(cells: Cells) -> None:
    latent, labelled, kind = cells
    with pytest.raises(DataError, match="600 of 600 cells have a label"):
        unmixed_clusters(latent, np.ones(600, bool))
    with pytest.raises(DataError, match="clusters has 599 entries for 600 cells"):
        unmixed_clusters(latent, labelled, kind[1:])
    with pytest.raises(SettingError, match="least_mixing is 2"):
        unmixed_clusters(latent, labelled, kind, least_mixing=2)
    with pytest.raises(SettingError, match="600"):
        unmixed_clusters(latent, labelled, k=600)
