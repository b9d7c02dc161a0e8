"""Figures of populations: what colour, which names, which genes."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Annotation, Text

from lucidcell.errors import DataError, SettingError
from lucidcell.plots import association_bars, population_embedding
from lucidcell.plots.style import MISSING, PALETTE


@pytest.fixture
def places(rng) -> pd.DataFrame:
    table = pd.DataFrame(rng.normal(size=(12, 2)), [f"donor_{p}" for p in range(12)], ["PC1", "PC2"])
    table.attrs["share"] = [0.6, 0.2]
    return table


@pytest.fixture
def associations() -> pd.DataFrame:
    effect = [0.9, -0.8, 0.5, -0.3, np.nan]
    table = pd.DataFrame({"gene": list("abcde"), "statistic": "rank_biserial", "effect": effect})
    table = table.assign(q_value=[0.01, 0.02, 0.3, 0.6, np.nan], mean_effect=[0.1, 0.2, 0.3, np.nan, 0.0])
    table.attrs["groups"] = ("ill", "well")
    return table


def point_colors(ax) -> list[str]:
    return [to_hex(color).upper() for color in ax.collections[0].get_facecolors()]


def test_categories_have_the_palettes_colours_and_a_legend(places, ax):
    phenotype = pd.Series(["ill", "well"] * 5 + [None, "ill"], places.index, name="health")
    population_embedding(places, phenotype, ax=ax)
    colors = point_colors(ax)
    assert [colors[i] for i in (0, 1, 10)] == [PALETTE[0], PALETTE[1], MISSING]
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names[:2] == ["ill", "well"]
    assert "none" in names[2]
    assert ax.get_xlabel() == "PC1 of network similarity (60% of variance)"


def test_numbers_have_a_colour_bar_over_their_whole_range(places, ax):
    phenotype = pd.Series([np.nan, *np.linspace(20, 90, 11)], places.index, name="age (years)")
    population_embedding(places, phenotype, ax=ax)
    bar = ax.get_figure().axes[1]
    assert bar.get_ylabel() == "age (years)"
    assert bar.get_ylim() == (20, 90)
    assert point_colors(ax)[0] == MISSING
    assert ax.get_legend() is None


def test_values_are_found_by_name_and_names_do_not_touch(places, ax):
    phenotype = pd.Series(range(12), places.index[::-1], dtype=float)
    population_embedding(places, phenotype, ax=ax)
    colors = point_colors(ax)
    assert colors[0] == "#FDE725"  # the last of viridis
    names = [child for child in ax.get_children() if isinstance(child, Annotation)]
    assert len(names) >= 10
    ax.get_figure().draw_without_rendering()
    boxes = [Text.get_window_extent(name) for name in names]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert not population_embedding(places, names=False).texts


def test_bars_show_effects_and_their_mean_expression(associations, ax):
    association_bars(associations, ax=ax)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "c", "d", "b"]
    assert [bar.get_width() for bar in ax.patches] == [0.9, 0.5, -0.3, -0.8]
    assert [bar.get_alpha() for bar in ax.patches] == [1, 0.35, 0.35, 1]
    assert "positive: higher in well" in ax.get_xlabel()
    assert len(association_bars(associations, n_genes=2).patches) == 2


def test_mistakes_are_named(places, associations):
    with pytest.raises(DataError, match="lacks the columns PC2"):
        population_embedding(places[["PC1"]])
    with pytest.raises(DataError, match="lacks the columns q_value"):
        association_bars(associations.drop(columns="q_value"))
    with pytest.raises(DataError, match="none of 1 genes could be tested"):
        association_bars(associations.tail(1))
    with pytest.raises(SettingError, match="n_genes is 0"):
        association_bars(associations, n_genes=0)
