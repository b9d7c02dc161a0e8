"""The section on the genes of each label, and the table behind it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sections import blocks, texts

from lucidcell.readouts.markers import COLUMNS, DRAWS, markers
from lucidcell.report.blocks import Picture, Table
from lucidcell.report.folder import Run
from lucidcell.report.sections.markers import markers as section


@pytest.fixture
def table(rng) -> pd.DataFrame:
    """Three labels of eight genes; the last label has no gene of its own."""
    found = []
    for g, label in enumerate(["T cells", "B cells", "<odd>"]):
        own = np.isin(np.arange(8), [2 * g, 2 * g + 1]) & (g < 2)
        rows = pd.DataFrame(
            {"gene": [f"GENE{i}" for i in range(8)], "group1": label, "n_cells": 40, "n_rising": own.sum()}
        )
        sure = np.where(own, 3.0 - 0.1 * np.arange(8), 0.0)
        values = {name: rng.random(8) for name in COLUMNS}
        values |= {"lfc_sure": sure, "lfc_mean": sure + 0.5, "raw_normalized_mean1": 1 + 9 * own}
        found.append(rows.assign(**values))
    return pd.concat(found)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_section_lists_and_draws_the_genes_of_each_label(make_run, table):
    run = make_run()
    assert section(Run(run)) is None
    table.to_csv(run / "tables/markers.csv", index=False)
    made = section(Run(run))
    (listed,) = blocks(made, Table)
    assert [row[0] for row in listed.rows] == ["T cells", "B cells", "<odd>"]
    assert listed.rows[0] == ("T cells", "40", "2", "GENE0 (+3.50), GENE1 (+3.40)")
    assert listed.rows[2][3] == "none"
    (picture,) = blocks(made, Picture)
    assert all(f"GENE{i}" in picture.image for i in range(4))
    assert "GENE4" not in picture.image
    assert "97.5 %" in texts(made)


def test_many_labels_are_listed_and_not_drawn(make_run, table):
    run = make_run()
    pd.concat([table.assign(group1=f"type {i}") for i in range(60)]).to_csv(run / "tables/markers.csv", index=False)
    made = section(Run(run))
    assert not blocks(made, Picture)
    assert len(blocks(made, Table)[0].rows) == 60


def test_the_table_holds_the_first_genes_of_every_label_in_all_labels(trained):
    model = trained()
    found = markers(model)
    whole = model.differential_expression(n_samples_overall=DRAWS)
    assert list(found.columns) == ["gene", "group1", "n_cells", "n_rising", *COLUMNS]
    genes = set(found["gene"])
    assert len(found) == 3 * len(genes)
    for label in ("type_0", "type_1", "type_2"):
        of_label = whole[whole["group1"] == label]
        rising = of_label[(of_label["lfc_sure"] > 0) & of_label["is_de"]]
        assert set(rising.index[:10]) <= genes
        mine = found[found["group1"] == label].set_index("gene")
        pd.testing.assert_frame_equal(mine[COLUMNS], of_label.loc[mine.index, COLUMNS])
        assert (mine["n_rising"] == (of_label["is_de"] & (of_label["lfc_mean"] > 0)).sum()).all()
    assert set(genes) <= set(model.schema.gene_names)


def test_a_single_label_has_no_markers(simulated):
    from lucidcell.models.scvi import SCVI

    simulated.obs["one"] = "all the same"
    model = SCVI(simulated, labels_key="one", n_hidden=8, n_latent=2)
    model.train(1, num_threads=1, progress=False)
    assert markers(model) is None
    assert "markers" not in model.tables()
