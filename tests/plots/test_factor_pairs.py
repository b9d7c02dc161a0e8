from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import FancyArrowPatch

from lucidcell import plots
from lucidcell.errors import DataError


@pytest.fixture
def scores(rng) -> pd.DataFrame:
    return pd.DataFrame(rng.normal(size=(200, 2)), columns=["R1", "R2"])


def test_vectors_point_where_the_loadings_do(ax, scores):
    loadings = pd.DataFrame({"R1": [1.0, 0.0, 0.01], "R2": [0.0, -0.5, 0.0]}, index=["east", "south", "short"])
    plots.factor_pair(scores, loadings, "R1", "R2", n_genes=2, ax=ax)
    ends = [text.xy for text in ax.texts if not text.get_text()]
    assert len(ends) == 2
    assert ends[0][0] > 0
    assert ends[0][1] == 0
    assert ends[1][1] == pytest.approx(-ends[0][0] / 2), "one scale for all vectors"
    assert {text.get_text() for text in ax.texts if text.get_text()} == {"east", "south"}
    assert any(isinstance(text.arrow_patch, FancyArrowPatch) for text in ax.texts)


def test_all_genes_are_ranked_and_the_ends_named(ax):
    values = pd.DataFrame({"R1": np.linspace(-1, 2, 40)}, index=[f"g{i}" for i in range(40)])
    plots.loadings_rank(values, "R1", n_genes=3, ax=ax)
    heights = ax.collections[0].get_offsets()[:, 1]
    assert (np.diff(heights) < 0).all()
    assert {text.get_text() for text in ax.texts} == {"g39", "g38", "g37", "g0", "g1", "g2"}


def test_a_pure_cell_is_drawn_at_its_corner(ax):
    plots.simplex(pd.DataFrame(np.vstack([np.eye(4), np.full(4, 0.25)]), columns=list("abcd")), ax=ax)
    points = np.sort(np.round(ax.collections[0].get_offsets().data, 6), axis=0)
    np.testing.assert_allclose(points[:, 0], [-1, 0, 0, 0, 1], atol=1e-6)
    assert [text.get_text() for text in ax.texts] == list("abcd")


def test_scores_off_the_simplex_are_refused(ax, scores):
    with pytest.raises(DataError, match="200 of 200 cells"):
        plots.simplex(scores.assign(R3=0.0), ax=ax)


def test_groups_must_fit_the_cells(ax, scores):
    loadings = pd.DataFrame({"R1": [1.0], "R2": [0.0]}, index=["g"])
    with pytest.raises(DataError, match="2 groups for 200 cells"):
        plots.factor_pair(scores, loadings, "R1", "R2", groups=["a", "b"], ax=ax)
    with pytest.raises(DataError, match="R9"):
        plots.factor_density(scores, "R1", "R9", ax=ax)
