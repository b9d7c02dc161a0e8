"""Levels of a hierarchy as nested boxes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lucidcell.errors import DataError
from lucidcell.plots import taxonomy_levels


@pytest.fixture
def nodes():
    rows = [
        ("lymphoid", "", "coarse", 60, 0.9), ("B", "", "coarse", 10, np.nan), ("T", "lymphoid", "fine", 40, 0.8),
        ("NK", "lymphoid", "fine", 20, 0.3), ("B", "B", "fine", 10, 0.99),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["node", "parent", "level", "n_cells", "confidence"])


def test_boxes_lie_within_those_of_their_parents(ax, nodes):
    taxonomy_levels(nodes, ax=ax)
    boxes = {text.get_text(): box.get_bbox() for box, text in zip(ax.patches, ax.texts, strict=True)}
    assert sorted(boxes) == ["B  10", "NK  20", "T  40", "lymphoid  60"]
    parent = boxes["lymphoid  60"]
    for child in (boxes["T  40"], boxes["NK  20"]):
        assert parent.y0 <= child.y0 < child.y1 <= parent.y1 + 1e-9
        assert child.x0 > parent.x1
    assert boxes["T  40"].y1 < boxes["NK  20"].y0
    assert boxes["B  10"].y0 > parent.y1
    assert [text.get_text() for text in ax.get_xticklabels()] == ["coarse", "fine"]


def test_a_type_without_a_parent_is_refused(nodes):
    nodes.loc[3, "parent"] = "myeloid"
    with pytest.raises(DataError, match="1 of 5 types, such as 'NK', have no parent in the level before"):
        taxonomy_levels(nodes)
