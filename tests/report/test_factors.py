"""The cards of linear factors: shares, names, gene sets, stability; of a fabricated run."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from sections import blocks, texts

from lucidcell.errors import FileError
from lucidcell.report.blocks import Card, Picture, Table
from lucidcell.report.folder import Run
from lucidcell.report.sections.factors import factors


@pytest.fixture
def linear_run(make_run) -> Path:
    """Z1 has the larger share and the smaller KL; Z2 no gene set."""
    run = make_run()
    table = pd.read_csv(run / "tables/factors.csv")
    table.assign(share=[0.4, 0.6, 0.0], drop_one=[0.3, 0.5, 0.0]).to_csv(run / "tables/factors.csv", index=False)
    terms = {"factor": ["Z1", "Z1", "Z2"], "term": ["HALLMARK_HYPOXIA", "B_CELLS", "B_CELLS"], "size": 9}
    terms |= {"es": [0.6, -0.5, 0.3], "nes": [2.1, -1.9, 1.0], "p_value": 0.01, "q_value": [0.0004, 0.03, 0.4]}
    pd.DataFrame(terms).assign(leading_edge="gene_1;gene_2;gene_3").to_csv(run / "tables/enrichment.csv", index=False)
    names = {"factor": ["Z1", "Z1", "Z2", "Z2"], "sign": ["+", "-"] * 2, "size": [9, 9, 0, 0], "leading_edge": ""}
    names |= {"name": ["hypoxia (gene_1)", "b cells (gene_2)", "gene_3", "gene_4"], "nes": [2.1, -1.9, None, None]}
    names |= {"term": ["HALLMARK_HYPOXIA", "B_CELLS", "", ""], "q_value": [0.0004, 0.03, None, None]}
    pd.DataFrame(names).assign(top_genes="gene_1;gene_2").to_csv(run / "tables/factor_names.csv", index=False)
    stability = pd.DataFrame({"factor": ["Z1", "Z2", "Z3"], "agreement": [0.97, 0.51, 0.1]})
    stability.to_csv(run / "tables/stability.csv", index=False)
    model = json.loads((run / "model.json").read_text())
    model["loadings"]["rotation"] = "varimax"
    (run / "model.json").write_text(json.dumps(model))
    return run


def test_cards_come_by_share_with_what_is_known(linear_run):
    section = factors(Run(linear_run))
    cards = blocks(section, Card)
    assert [card.title for card in cards] == ["Z2", "Z1"]
    assert cards[1].subtitle.startswith("share 40.0 % · variance")
    assert cards[1].subtitle.endswith("stability 0.97")
    said = texts(section)
    assert "Up: hypoxia. Down: b cells." in said
    assert "No gene set has a q-value of at most 0.05." in said
    assert "Factors are rotated (varimax)" in said


def test_the_table_of_names(linear_run):
    (table,) = blocks(factors(Run(linear_run)), Table)
    assert list(table.header) == ["factor", "share", "stability", "gene set", "NES", "q", "top genes"]
    first, second, third, _ = table.rows
    assert first == ["Z1\u00a0+", "0.4", "0.97", "hypoxia", "+2.10", "<\u00a00.001", "gene_1, gene_2"]
    assert second[:3] == ["Z1\u00a0\N{MINUS SIGN}", "", ""]
    assert second[3:6] == ["b cells", "\N{MINUS SIGN}1.90", "0.030"]
    assert third[3:6] == ["", "", ""]


def test_without_any_of_it_the_section_is_as_for_other_models(make_run):
    section = factors(Run(make_run()))
    assert blocks(section, Table) == []
    assert "rotated" not in texts(section)
    assert not any("gene sets" in picture.caption for picture in blocks(section, Picture))


def test_damaged_tables_are_named(linear_run):
    (linear_run / "tables/enrichment.csv").write_text("factor,term\nZ1,A\n")
    with pytest.raises(FileError, match="enrichment.csv lacks the columns leading_edge"):
        Run(linear_run).check()
