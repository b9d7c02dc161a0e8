from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.stats import zscore

import lucidcell as lc
from lucidcell.cells.seed_labels import seed_labels, signature_scores
from lucidcell.errors import DataError, SettingError

# The table of canonical markers of Seurat's tutorial on these cells; none was chosen by how well it does here.
CANONICAL = {
    "Naive CD4 T": ["IL7R", "CCR7"],
    "CD14+ Mono": ["CD14", "LYZ"],
    "Memory CD4 T": ["IL7R", "S100A4"],
    "B": ["MS4A1"],
    "CD8 T": ["CD8A"],
    "FCGR3A+ Mono": ["FCGR3A", "MS4A7"],
    "NK": ["GNLY", "NKG7"],
    "DC": ["FCER1A", "CST3"],
    "Platelet": ["PPBP"],
}


@pytest.fixture
def planted() -> ad.AnnData:
    """Types A and B with ten cells each that express their marker, among 60 others; a10 and b10 are silent."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(5.0, (80, 6)).astype(np.float32)
    counts[:, 0] = counts[:, 1] = 0
    counts[:10, 0] = counts[10:20, 1] = 20 + np.arange(10)
    names = [f"a{i}" for i in range(10)] + [f"b{i}" for i in range(10)] + [f"other{i}" for i in range(60)]
    return ad.AnnData(counts, pd.DataFrame(index=names), pd.DataFrame(index=["MA", "MB", "g1", "g2", "g3", "g4"]))


def test_scores_are_those_of_the_paper_by_hand(planted: ad.AnnData) -> None:
    scores = signature_scores(planted, {"A": {"positive": ["MA", "g1"], "negative": ["MB"]}, "B": ["MB"]})
    z = zscore(np.log1p(1e4 * planted.X.astype(float) / planted.X.sum(1, keepdims=True, dtype=float)))
    np.testing.assert_allclose(scores["A"], (z[:, 0] + z[:, 2] - z[:, 1]) / 3, atol=1e-6)
    np.testing.assert_allclose(scores["B"], z[:, 1], atol=1e-6)
    assert list(scores.index) == list(planted.obs_names)


def test_planted_cells_become_seeds_and_no_others(planted: ad.AnnData) -> None:
    before = planted.copy()
    labels = seed_labels(planted, {"A": ["MA"], "B": ["MB"]}, top=10)
    assert list(labels[:20]) == ["A"] * 10 + ["B"] * 10
    assert (labels[20:] == "Unknown").all()
    assert list(labels.cat.categories) == ["A", "B", "Unknown"]
    assert (planted.X == before.X).all()
    assert planted.obs.equals(before.obs)


def test_cells_that_do_not_express_a_marker_are_never_seeds(planted: ad.AnnData) -> None:
    labels = seed_labels(planted, {"A": ["MA"], "B": ["MB"]}, top=40)
    assert labels.value_counts().to_dict() == {"A": 10, "B": 10, "Unknown": 60}


def test_ambiguous_cells_are_left_out(planted: ad.AnnData) -> None:
    planted.X[[0, 1], 1] = 25
    labels = seed_labels(planted, {"A": ["MA"], "B": ["MB"]}, top=12)
    assert (labels[:2] == "Unknown").all()
    assert (labels[2:10] == "A").all()
    assert (labels[10:20] == "B").all()


def test_numbers_by_type_other_layers_and_other_names(planted: ad.AnnData) -> None:
    planted.layers["counts"] = planted.X.copy()
    planted.X = np.log1p(planted.X)
    labels = seed_labels(
        planted, {"A": ["MA"], "B": ["MB"]}, layer="counts", top={"A": 3, "B": 5}, unlabeled_category="?"
    )
    assert labels.value_counts().to_dict() == {"?": 72, "B": 5, "A": 3}
    with pytest.raises(DataError, match="looks log-transformed"):
        seed_labels(planted, {"A": ["MA"]})


def test_a_gene_that_never_varies_and_an_empty_cell_do_no_harm(planted: ad.AnnData) -> None:
    planted.X[:, 5] = 0
    scores = signature_scores(planted, {"A": ["MA", "g4"]})
    np.testing.assert_allclose(scores["A"], signature_scores(planted, {"A": ["MA"]})["A"] / 2)


def test_missing_genes_are_named_or_refused(planted: ad.AnnData, caplog: pytest.LogCaptureFixture) -> None:
    labels = seed_labels(planted, {"A": ["MA", "CD4"], "B": ["MB"]}, top=10)
    assert (labels[:10] == "A").all()
    assert "1 of 3 signature genes are not in the data: 'CD4'." in caplog.text
    with pytest.raises(DataError, match="none of the 2 positive genes of 'T' .*CD4.*before genes were selected"):
        seed_labels(planted, {"A": ["MA"], "T": {"positive": ["CD4", "CD8A"], "negative": ["MB"]}})


def test_a_type_without_seeds_is_named(planted: ad.AnnData, caplog: pytest.LogCaptureFixture) -> None:
    planted.X[:, 4] = 0
    seed_labels(planted, {"A": ["MA"], "C": ["g3"]}, top=10)
    assert "1 of 2 types have no seed, such as 'C'" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"top": 0}, "top is 0 for 'A'"),
        ({"top": 2.5}, "top is 2.5"),
        ({"top": {"A": 3}}, "differ in 'B'"),
        ({"unlabeled_category": "A"}, "is a cell type and unlabeled_category at once"),
    ],
)
def test_settings_without_meaning_are_refused(planted: ad.AnnData, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        seed_labels(planted, {"A": ["MA"], "B": ["MB"]}, **arguments)


def precision(labels: pd.Series, truth: pd.Series) -> pd.Series:
    """Share of the seeds of each type that have this type in the published annotation."""
    seeds = labels[labels != "Unknown"].astype(str)
    return (seeds == truth[seeds.index].astype(str)).groupby(seeds).mean()


def test_seeds_of_the_canonical_markers_agree_with_the_published_labels(shared: Callable[[str], Path]) -> None:
    adata = lc.read_h5ad(shared("pbmc3k.h5ad"))
    share = precision(seed_labels(adata, CANONICAL, top=20), adata.obs["cell_type"])
    assert share.drop("Platelet").mean() > 0.85  # there are 14 platelets in all
    assert share[["B", "NK", "CD14+ Mono", "FCGR3A+ Mono", "Naive CD4 T"]].min() >= 0.9


def test_negative_genes_keep_out_cells_that_share_a_marker() -> None:
    """FCGR3A is the marker of a kind of monocyte, and natural killer cells have it too."""
    adata = lc.pbmc3k()
    truth, monocytes = adata.obs["cell_type"], "FCGR3A+ Mono"
    markers: dict[str, Any] = {"B": ["CD79A"], "NK": ["GNLY", "NKG7"], monocytes: ["FCGR3A"]}
    without = precision(seed_labels(adata, markers), truth)
    markers[monocytes] = {"positive": ["FCGR3A"], "negative": ["GNLY", "NKG7"]}
    assert precision(seed_labels(adata, markers), truth)[monocytes] > without[monocytes]
    assert without.drop(monocytes).min() >= 0.9
