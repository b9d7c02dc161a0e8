"""The same cells before and after integration."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from lucidcell.errors import DataError
from lucidcell.plots import integration


def test_two_maps_by_batch_and_by_label(rng):
    before, after = rng.normal(size=(30, 2)), 10 + rng.normal(size=(30, 2))
    batches, labels = pd.Categorical(["b1", "b2"] * 15), pd.Categorical(["T", None, "B"] * 10)
    axes = integration(before, after, batches, labels, figure=Figure())
    titles = [ax.get_title(loc="left") for ax in axes]
    assert titles == ["before, by batch", "after, by batch", "before, by label", "after, by label"]
    for ax, xy in zip(axes, [before, after] * 2, strict=True):
        places = np.asarray(ax.collections[0].get_offsets())
        assert sorted(map(tuple, places)) == sorted(map(tuple, xy))
    legends = [[text.get_text() for text in axes[i].get_legend().get_texts()] for i in (1, 3)]
    assert legends == [["b1", "b2"], ["B", "T", "none (10 cells)"]]
    assert len(integration(before, after, batches, figure=Figure())) == 2


def test_maps_of_other_cells_are_refused(rng):
    batches = pd.Categorical(["b1"] * 5)
    with pytest.raises(DataError, match="the map has 4 cells and there are 5 values"):
        integration(rng.normal(size=(5, 2)), rng.normal(size=(4, 2)), batches)
