from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from lucidcell import plots
from lucidcell.errors import DataError


@pytest.fixture
def tables(rng) -> tuple[pd.DataFrame, pd.DataFrame]:
    scores = pd.DataFrame(rng.normal(size=(60, 2)), columns=["Z1", "Z2"])
    loadings = pd.DataFrame(rng.normal(size=(30, 2)), [f"g{i}" for i in range(30)], ["Z1", "Z2"])
    return scores, loadings


def test_the_genes_farthest_from_the_origin_are_named_where_they_are(tables):
    scores, loadings = tables
    left, right = plots.cells_and_genes(scores, loadings, "Z1", "Z2", n_genes=4)
    wanted = loadings.iloc[np.argsort(-np.linalg.norm(loadings, axis=1))[:4]]
    assert {text.get_text() for text in right.texts} == set(wanted.index)
    others, named = (one.get_offsets().data for one in right.collections)
    np.testing.assert_allclose(np.sort(named, axis=0), np.sort(wanted, axis=0))
    assert len(others) == 26
    assert (left.get_xlabel(), right.get_ylabel()) == ("Z1 (score)", "Z2 (loading)")
    assert len(left.collections[0].get_offsets()) == 60
    plt.close(left.get_figure())


def test_chosen_genes_are_named_instead(tables):
    left, right = plots.cells_and_genes(*tables, "Z1", "Z2", genes=["g5", "g7"], groups=["a"] * 30 + ["b"] * 30)
    assert {text.get_text() for text in right.texts} == {"g5", "g7"}
    assert {text.get_text() for text in left.texts} == {"a", "b"}, "a few groups are named on the cells"
    plt.close(left.get_figure())


def test_tables_that_do_not_fit_are_refused(tables):
    with pytest.raises(DataError, match="2 groups for 60 cells"):
        plots.cells_and_genes(*tables, "Z1", "Z2", groups=["a", "b"])
    with pytest.raises(DataError, match="1 of 2 genes have no loadings, such as 'h'"):
        plots.cells_and_genes(*tables, "Z1", "Z2", genes=["g5", "h"])
    with pytest.raises(DataError, match="Z9"):
        plots.cells_and_genes(*tables, "Z1", "Z9")
    plt.close("all")


def test_deletion_curves_stand_beside_the_quantiles_of_random_genes(rng):
    sizes = [1, 2, 5, 10]
    curves = pd.DataFrame(
        [
            ("Z1", ranking, curve, k, rng.random())
            for ranking in range(20)
            for curve in ("deletion", "insertion")
            for k in sizes
        ],
        columns=["factor", "ranking", "curve", "n_genes", "movement"],
    )
    left, right = plots.deletion_curves(curves, "Z1", label="loadings")
    for ax, curve in ((left, "deletion"), (right, "insertion")):
        one = curves[curves["curve"] == curve]
        of_table, random = one[one["ranking"] == 0], one[one["ranking"] > 0].groupby("n_genes")["movement"]
        median, table = ax.lines
        np.testing.assert_allclose(table.get_ydata(), of_table["movement"])
        np.testing.assert_allclose(median.get_ydata(), random.median())
        edges = ax.collections[0].get_paths()[0].vertices[:, 1]
        assert edges.max() == pytest.approx(random.quantile(0.95).max())
        assert edges.min() == pytest.approx(random.quantile(0.05).min())
    assert [text.get_text() for text in left.get_legend().get_texts()][-1] == "loadings"
    with pytest.raises(DataError, match="no factor 'Z2'; they have Z1"):
        plots.deletion_curves(curves, "Z2")
    plt.close("all")
