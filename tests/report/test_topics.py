"""Compositions, the map of genes and topics, shared genes, similarities and gene sets; of a fabricated topic model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sections import blocks, pictures, texts

from lucidcell.report.blocks import Picture, Table
from lucidcell.report.folder import Run
from lucidcell.report.sections.factors import factors
from lucidcell.report.sections.topics import topics
from lucidcell.report.umap import point_map

NAMES = ["Z1", "Z2", "Z3", "Z4", "Z5"]  # the factors of the run
UNLABELLED = ["Genes and topics on one map", "How many topics a gene belongs to", "Similarity of topics"]


@pytest.fixture
def topic_run(make_run) -> Path:
    """Five topics, of which two are ever the largest; Z1 has most of every cell but one."""
    run = make_run()
    rng = np.random.default_rng(0)
    cells = pd.read_csv(run / "tables/cells.csv")["cell"]
    genes = pd.read_csv(run / "tables/genes.csv")["gene"]
    shares = pd.DataFrame(np.tile([0.6, 0.3, 0.1, 0.0, 0.0], (len(cells), 1)), columns=NAMES)
    shares.iloc[0] = [0.2, 0.7, 0.1, 0.0, 0.0]
    shares.assign(cell=cells).to_csv(run / "tables/topics.csv", index=False)
    scores = pd.DataFrame(rng.normal(size=(len(genes), 5)), columns=NAMES)
    scores.assign(gene=genes).to_csv(run / "tables/topic_genes.csv", index=False)
    points = pd.DataFrame(rng.normal(size=(len(genes) + 5, 4)), columns=["PC1", "PC2", "PC3", "PC4"])
    points["name"], points["kind"] = [*genes, *NAMES], ["gene"] * len(genes) + ["topic"] * 5
    points.to_csv(run / "tables/points.csv", index=False)
    return run


def test_no_section_without_topics(make_run):
    assert topics(Run(make_run())) is None


def test_what_is_drawn_and_said(topic_run):
    section = topics(Run(topic_run))
    shown = pictures(section)
    assert shown[-3:] == UNLABELLED
    text = texts(section)
    assert "a mixture of 5 topics" in text
    assert "2 of them are the largest share of some cell" in text
    assert "that of Z1, 60%" in text
    kept = pd.read_csv(topic_run / "tables/umap_points.csv")
    assert list(kept["name"][-5:]) == NAMES, "the map is kept for the next report"
    assert pictures(topics(Run(topic_run))) == shown
    genes, stars = point_map(Run(topic_run))
    np.testing.assert_allclose(stars, kept[["umap1", "umap2"]].tail(5))
    assert not set(genes.index) & set(NAMES)


def test_groups_of_cells_have_compositions_and_enrichment_a_picture_of_all_topics(make_run, topic_run):
    cells = pd.read_csv(topic_run / "tables/cells.csv")
    cells["label"] = np.where(np.arange(len(cells)) % 2 == 0, "B", "T")
    cells.to_csv(topic_run / "tables/cells.csv", index=False)
    terms = pd.DataFrame(
        {"factor": NAMES, "term": "HALLMARK_APOPTOSIS", "nes": [2.0, -2.0, 1.0, -1.0, -1.0], "q_value": 0.001}
    )
    terms.assign(leading_edge="").to_csv(topic_run / "tables/enrichment.csv", index=False)
    shown = pictures(topics(Run(topic_run)))
    assert shown == ["Composition of the groups of cells", *UNLABELLED, "Gene sets of all topics"]
    of_labels = [one.image for one in blocks(factors(Run(topic_run)), Picture) if "each label" in one.image]
    assert of_labels
    assert all("mean share of the topic" in image for image in of_labels)
    ends = {"factor": np.repeat(NAMES, 2), "sign": ["+", "-"] * 5, "name": "", "term": "", "nes": 1.0, "q_value": 1.0}
    ends |= {"leading_edge": "", "top_genes": "g1"}
    pd.DataFrame(ends).to_csv(topic_run / "tables/factor_names.csv", index=False)
    table = blocks(factors(Run(topic_run)), Table)[0]
    assert [row[0] for row in table.rows] == [f"{name}\N{NO-BREAK SPACE}+" for name in NAMES], "topics have one end"
    image = blocks(topics(Run(topic_run)), Picture)[-1].image
    assert ">Z1<" in image
    assert "Z2" not in image, "gene sets that fall are not a topic's"
