from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import lucidcell as lc
from lucidcell import plots
from lucidcell.errors import DataError
from lucidcell.plots.enrichment import significant_terms


def test_the_curve_ends_at_the_score_of_gsea(rng):
    values = pd.Series(rng.normal(size=300), index=[f"g{i}" for i in range(300)])
    genes = list(values.sort_values().index[::-1][:40:2])
    found = lc.gsea(values.to_frame("a"), {"set": genes}, n_permutations=10)
    upper, lower = plots.running_score(values, genes, title="set", axes=Figure().subplots(2, 1))
    heights = upper.lines[1].get_ydata()
    assert heights[np.abs(heights).argmax()] == pytest.approx(found["es"].iloc[0], abs=1e-9)
    assert heights[-1] == pytest.approx(0, abs=1e-9)
    assert len(lower.collections[0].get_segments()) == 20


def test_a_set_without_members_is_refused(rng):
    with pytest.raises(DataError, match="0 of the 1 genes"):
        plots.running_score(pd.Series(rng.normal(size=5)), ["stranger"])


def test_dots_are_the_significant_terms(ax):
    table = pd.DataFrame(
        {
            "factor": ["R1"] * 4 + ["R2"],
            "term": ["A", "B", "C", "D", "A"],
            "nes": [2.0, 1.5, -1.8, 1.0, 1.1],
            "q_value": [0.001, 0.01, 0.02, 0.5, 0.04],
        }
    )
    assert list(significant_terms(table, 1, 0.05)["term"]) == ["A", "C", "A"]
    plots.enrichment_dots(table, n_terms=1, ax=ax)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["A", "C"]
    assert len(ax.collections[0].get_offsets()) == 3, "A in both factors, C in one"
    with pytest.raises(DataError, match="none of 5 terms"):
        plots.enrichment_dots(table, max_q=1e-6, ax=ax)
