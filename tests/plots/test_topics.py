"""What the figures of topics show: lengths of bars, numbers in titles, and which terms are named."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lucidcell import plots
from lucidcell.errors import DataError

TOPICS = ["T1", "T2", "T3"]


def test_bars_of_a_group_are_its_mean_shares() -> None:
    rng = np.random.default_rng(0)
    shares = pd.DataFrame(rng.dirichlet(np.ones(3), 40), columns=TOPICS)
    groups = np.where(np.arange(40) < 10, "a", "b")
    ax = plots.composition(shares, groups, n_topics=2)
    names = [text.get_text() for text in ax.get_yticklabels()]
    colored = [text.get_text() for text in ax.get_legend().get_texts()]
    assert colored[-1] == "other topics"
    for bars, topic in zip(ax.containers, colored, strict=True):
        columns = [topic] if topic in TOPICS else [one for one in TOPICS if one not in colored]
        for bar, group in zip(bars, names, strict=True):
            expected = shares.loc[groups == group, columns].to_numpy().sum(1).mean()
            assert bar.get_width() == pytest.approx(expected)
    ends = [bar.get_x() + bar.get_width() for bar in ax.containers[-1]]
    np.testing.assert_allclose(ends, 1)


def test_genes_of_many_topics_are_counted_and_named() -> None:
    top = {"T1": ["a", "b"], "T2": ["a", "c"], "T3": ["a", "b"]}
    ax = plots.gene_frequency(top)
    heights = {round(bar.get_x() + bar.get_width() / 2): bar.get_height() for bar in ax.patches}
    assert heights == {1: 1, 2: 1, 3: 1}, "c once, b twice, a three times"
    assert ax.get_title(loc="left") == "17% of all best genes are one topic's"  # one of six
    assert ax.texts[0].get_text() == "a 3\nb 2"


def test_terms_above_the_line_are_named_once() -> None:
    terms = pd.DataFrame(
        {
            "topic": ["T1", "T1", "T2", "T3"],
            "term": ["first", "second", "first", "weak"],
            "q_value": [0.001, 0.005, 0.002, 0.2],
        }
    )
    ax = plots.manhattan(terms)
    assert {text.get_text() for text in ax.texts} == {"first"}, "the best of T1; that of T2 has the same name"
    heights = ax.collections[0].get_offsets()[:, 1]
    np.testing.assert_allclose(heights, -np.log10(terms["q_value"]))


def test_only_chosen_topics_are_named_on_the_map() -> None:
    rng = np.random.default_rng(0)
    genes = pd.DataFrame(rng.normal(size=(30, 2)), [f"g{i}" for i in range(30)], ["UMAP 1", "UMAP 2"])
    stars = pd.DataFrame(rng.normal(size=(3, 2)), TOPICS, genes.columns)
    ax = plots.topic_map(genes, stars, top={"T2": ["g1", "g2"]}, highlight=["T2"])
    assert [text.get_text() for text in ax.texts] == ["T2, g1, g2"]
    with pytest.raises(DataError, match="no coordinates, such as 'T9'"):
        plots.topic_map(genes, stars, highlight=["T9"])
