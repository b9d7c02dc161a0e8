"""Figures of gene networks: order, colours, which genes are shown, one layout for one network."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from lucidcell.errors import DataError, SettingError
from lucidcell.plots import centrality_ranking, network_drawing
from lucidcell.plots.style import MISSING, PALETTE


@pytest.fixture
def graph() -> nx.Graph:
    found = nx.Graph()
    found.add_nodes_from(["hub", "a", "b", "c", "d", "e", "alone"])
    found.add_weighted_edges_from([("hub", "a", 1.0), ("hub", "b", 0.5), ("a", "b", 0.2), ("c", "d", 1.0)])
    found.add_edge("d", "e")
    return found


def test_genes_come_in_the_order_of_their_centrality(ax):
    values = pd.Series([0.1, 0.9, np.nan, 0.5], list("abcd"))
    centrality_ranking(values, highlight=["d"], ax=ax)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["b", "d", "a"]
    assert [to_hex(bar.get_facecolor()).upper() for bar in ax.patches] == [PALETTE[0], PALETTE[3], PALETTE[0]]
    assert len(centrality_ranking(values, n=2).patches) == 2


def test_distances_are_not_drawn_from_zero(ax):
    centrality_ranking(pd.Series([-5.0, -5.2], list("ab")), ax=ax)
    assert -5.3 < ax.get_xlim()[0] < -5.2
    assert not ax.patches


def test_genes_without_an_edge_are_left_out(graph, ax):
    network_drawing(graph, ax=ax)
    assert ax.get_xlabel() == "6 genes, 5 edges; not shown, without an edge: 1"
    assert {text.get_text() for text in ax.texts} == {"hub", "a", "b", "c", "d", "e"}


def test_some_genes_bring_their_neighbours(graph, ax):
    with pytest.raises(DataError, match="1 of 2 genes are not in the network, such as 'stranger'"):
        network_drawing(graph, genes=["hub", "stranger"])
    network_drawing(graph, genes="hub", ax=ax)
    assert {text.get_text() for text in ax.texts} == {"hub", "a", "b"}
    assert ax.get_xlabel() == "3 genes, 2 edges"


def test_groups_have_colours_and_a_legend(graph, ax):
    network_drawing(graph, colors={"hub": "x", "a": "_y", "b": "x", "other": "z"}, ax=ax)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["_y", "x", "other"]
    colors = {to_hex(color).upper() for color in ax.collections[1].get_facecolors()}
    assert colors == {PALETTE[0], PALETTE[1], MISSING}


def test_a_network_has_one_layout_whatever_the_order_of_its_edges(graph, ax):
    other = nx.Graph()
    other.add_weighted_edges_from((v, u, d.get("weight", 1)) for u, v, d in reversed(list(graph.edges(data=True))))
    network_drawing(graph, ax=ax)
    first = ax.collections[1].get_offsets().copy()
    again = network_drawing(other).collections[1].get_offsets()
    np.testing.assert_allclose(first, again)
    assert np.isfinite(first).all()


def test_edges_are_as_dark_as_they_are_heavy(graph, ax):
    network_drawing(graph, genes=["hub"], ax=ax)
    assert sorted(color[3] for color in ax.collections[0].get_colors()) == pytest.approx([0.45, 0.75])


def test_mistakes_are_named(graph):
    with pytest.raises(SettingError, match="n is 0"):
        centrality_ranking(pd.Series([1.0], ["a"]), n=0)
    with pytest.raises(DataError, match="none of 1 genes has a centrality"):
        centrality_ranking(pd.Series([np.nan], ["a"]))
    with pytest.raises(DataError, match="no edge between the 1 genes"):
        network_drawing(graph, genes=["alone"])
    with pytest.raises(DataError, match="no edge between 3 genes"):
        network_drawing(nx.empty_graph(3))
