"""Volcano and marker dots: what is drawn is what the table says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from battery import assert_sentence
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from lucidcell.errors import DataError
from lucidcell.plots.differential_expression import marker_dots, top_genes, volcano
from lucidcell.plots.style import DOWN, MISSING, UP


@pytest.fixture
def table(rng) -> pd.DataFrame:
    lfc = rng.normal(0, 1.5, 200)
    sure = np.sign(lfc) * np.maximum(np.abs(lfc) - 0.8, 0)
    table = pd.DataFrame(
        {"lfc_mean": lfc, "lfc_sure": sure, "bayes_factor": 4 * np.abs(lfc) - 3, "is_de": sure != 0},
        index=[f"gene_{g}" for g in range(200)],
    )
    return table.assign(group1="B cells", group2="rest")


@pytest.fixture
def markers(rng) -> pd.DataFrame:
    """Three groups, each with two genes of its own among eight."""
    rows = []
    for g, group in enumerate("abc"):
        own = np.isin(np.arange(8), [2 * g, 2 * g + 1])
        mean = np.where(own, 9.0, 1.0) + rng.random(8)
        sure = np.where(own, 3.0 - 0.1 * np.arange(8), 0.0)
        rows.append(
            pd.DataFrame(
                {"group1": group, "lfc_sure": sure, "raw_normalized_mean1": mean, "non_zeros_proportion1": mean / 12},
                index=[f"gene_{i}" for i in range(8)],
            )
        )
    return pd.concat(rows)


def points(ax) -> dict[str, np.ndarray]:
    """Places of the points by their colour."""
    drawn = [one for one in ax.collections if len(one.get_offsets())]
    return {to_hex(one.get_facecolor()[0], False).upper(): one.get_offsets() for one in drawn}


def test_a_volcano_has_every_gene_where_it_belongs(table, ax):
    volcano(table, ax=ax)
    found = points(ax)
    for color, chosen in (
        (MISSING, ~table["is_de"]),
        (UP, table["is_de"] & (table["lfc_mean"] > 0)),
        (DOWN, table["is_de"] & (table["lfc_mean"] < 0)),
    ):
        np.testing.assert_allclose(found[color.upper()], table.loc[chosen, ["lfc_mean", "bayes_factor"]])
    assert "B cells over rest" in ax.get_xlabel()
    assert f"{table['is_de'].sum()} of 200 genes" in ax.get_title(loc="left")


def test_the_surest_genes_of_both_sides_are_named_and_no_names_overlap(table, ax):
    volcano(table, n_named=10, ax=ax)
    names = {text.get_text() for text in ax.texts}
    rising = table["lfc_sure"].nlargest(5).index
    falling = table["lfc_sure"].nsmallest(5).index
    assert names == set(rising) | set(falling)
    ax.figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in ax.texts]  # without the leader
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])


def test_a_volcano_of_nothing_changed_still_stands(table, ax):
    volcano(table.assign(is_de=False), ax=ax)
    assert not ax.texts
    assert "0 of 200 genes change" in ax.get_title(loc="left")


def test_dots_have_the_size_of_the_share_and_the_colour_of_the_mean(markers, ax):
    marker_dots(markers, n_genes=2, ax=ax)
    dots = ax.collections[0]
    genes = [tick.get_text() for tick in ax.get_xticklabels()]
    groups = [tick.get_text() for tick in ax.get_yticklabels()]
    assert genes == [f"gene_{i}" for i in range(6)]
    assert groups == ["a", "b", "c"]
    wide = markers.set_index("group1", append=True)
    for (x, y), size, color in zip(dots.get_offsets(), dots.get_sizes(), dots.get_array(), strict=True):
        row = wide.loc[(genes[int(x)], groups[int(y)])]
        highest = wide.loc[genes[int(x)], "raw_normalized_mean1"].max()
        assert color == pytest.approx(row["raw_normalized_mean1"] / highest)
        assert size == pytest.approx(120 * row["non_zeros_proportion1"])


def test_top_genes_are_those_that_surely_rise_each_once(markers):
    assert top_genes(markers, 1) == ["gene_0", "gene_2", "gene_4"]
    assert top_genes(markers, 5) == [f"gene_{i}" for i in range(6)]
    markers.loc[(markers.index == "gene_0") & (markers["group1"] == "c"), "lfc_sure"] = 9.0
    assert top_genes(markers, 1) == ["gene_0", "gene_2"]


def test_a_gene_missing_from_a_group_leaves_a_gap(markers):
    ax = Figure(layout="constrained").subplots()
    marker_dots(markers[~((markers.index == "gene_1") & (markers["group1"] == "b"))], n_genes=2, ax=ax)
    ax.figure.draw_without_rendering()
    assert np.isnan(np.ma.filled(ax.collections[0].get_array().astype(float), np.nan)).sum() == 1


def test_tables_that_cannot_be_drawn_are_refused(table, markers):
    cases = [
        (lambda: volcano(table.drop(columns="lfc_sure")), "the table of changes lacks the columns lfc_sure"),
        (lambda: volcano(pd.concat([table, table.assign(group1="T")])), "holds 2 comparisons"),
        (lambda: marker_dots(markers.drop(columns="group1")), "lacks the columns group1"),
        (lambda: marker_dots(markers.assign(lfc_sure=0.0)), "no gene rises surely in any of the 3 groups"),
    ]
    for draw, message in cases:
        with pytest.raises(DataError, match=message) as caught:
            draw()
        assert_sentence(caught.value)
