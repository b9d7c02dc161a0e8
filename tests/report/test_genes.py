"""Cells beside genes, central genes and their network; of a fabricated run of a model that embeds genes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sections import blocks, pictures, texts

from lucidcell.report.blocks import Picture
from lucidcell.report.folder import Run
from lucidcell.report.sections.genes import genes


@pytest.fixture
def gene_run(make_run) -> Path:
    """A Gaussian model whose loadings are gene embeddings; the factors by KL are Z2, Z1, Z3."""
    run = make_run()
    model = json.loads((run / "model.json").read_text())
    model["config"]["gene_likelihood"] = "gaussian"
    model["loadings"]["how"] = "means of the gene embedding"
    (run / "model.json").write_text(json.dumps(model))
    names = pd.read_csv(run / "tables/genes.csv")["gene"]
    explained = np.linspace(0, 0.8, len(names))
    table = pd.DataFrame({"gene": names, "mean": 1.0, "sd": 0.5, "explained": explained})
    table.to_csv(run / "tables/genes.csv", index=False)
    return run


def test_genes_are_drawn_beside_cells_on_the_most_used_factors(gene_run: Path) -> None:
    section = genes(Run(gene_run))
    shown = pictures(section)
    kl = pd.read_csv(gene_run / "tables/factors.csv").sort_values("kl", ascending=False)["factor"]
    assert shown[0] == f"Cells and genes on {kl.iloc[0]} and {kl.iloc[1]}"
    assert shown[-2:] == ["Most central genes", "Network of the most central genes"]
    assert len(shown) == len(kl) // 2 + 2, "an odd factor has no partner"
    assert "genes near the origin go with no factor" in texts(section)
    assert "is 0.40. A gene" in blocks(section, Picture)[-2].caption


def test_without_a_pair_of_near_genes_there_is_no_network(gene_run: Path) -> None:
    loadings = pd.read_csv(gene_run / "tables/loadings.csv")
    loadings.iloc[:, 1:] = 0.0  # all at one place: no pair is nearer than any other
    loadings.to_csv(gene_run / "tables/loadings.csv", index=False)
    assert pictures(genes(Run(gene_run)))[-1] == "Most central genes"


def test_a_gaussian_model_without_gene_embedding_has_the_ranking_only(gene_run: Path) -> None:
    model = json.loads((gene_run / "model.json").read_text())
    model["loadings"]["how"] = "gradient_x_input of the decoder"
    (gene_run / "model.json").write_text(json.dumps(model))
    assert pictures(genes(Run(gene_run))) == ["Most central genes"]


def test_a_model_of_counts_has_no_such_section(make_run) -> None:
    assert genes(Run(make_run())) is None
