"""Single sections of runs that lack something or have something odd."""

from __future__ import annotations

import re
from importlib import import_module

import numpy as np
import pandas as pd
import pytest
from sections import blocks, texts

from lucidcell.report.blocks import Card, Picture, Table
from lucidcell.report.folder import Run
from lucidcell.report.sections.data import data
from lucidcell.report.sections.factors import factors
from lucidcell.report.sections.integration import integration
from lucidcell.report.sections.map_of_cells import map_of_cells
from lucidcell.report.sections.repeat import repeat
from lucidcell.report.sections.training import training


def edit(run, name: str, change) -> None:
    path = run / name
    change(pd.read_csv(path)).to_csv(path, index=False)


def test_history_without_validation_columns(make_run):
    run = make_run(validation=False)
    edit(run, "history.csv", lambda table: table[[name for name in table if not name.startswith("validation")]])
    pictures = blocks(training(Run(run)), Picture)
    assert len(pictures) == 2
    assert "Without held-out cells" in pictures[0].caption
    assert "held-out cells" not in pictures[0].image


def test_one_batch_gets_no_map_of_its_own(make_run):
    run = Run(make_run(batch=["only"] * 120))
    captions = [picture.caption.split(".")[0] for picture in blocks(map_of_cells(run), Picture)]
    assert captions == ["Coloured by label", "Coloured by each latent factor, all on one scale"]
    assert blocks(data(run), Table)[0].rows == [("only", "120")]


def test_integration_is_shown_where_there_are_batches_and_uncorrected_cells(make_run):
    run = make_run()
    assert integration(Run(run)) is None
    cells = Run(run).cells["cell"].to_numpy()[20:]
    table = pd.DataFrame({"cell": cells, "PC1": np.arange(100.0), "PC2": np.sin(np.arange(100))})
    table.to_csv(run / "tables/uncorrected.csv", index=False)
    section = integration(Run(run))
    assert "Drawn are 100 cells." in texts(section)
    assert "labels (bottom)" in texts(section)
    assert len(blocks(section, Picture)) == 1
    alone = make_run(batch=["only"] * 120)
    table.to_csv(alone / "tables/uncorrected.csv", index=False)
    assert integration(Run(alone)) is None


def test_cells_without_label_are_counted_and_left_out_of_means(make_run):
    run = Run(make_run(label=["T"] * 60 + ["Unknown"] * 30 + [""] * 30))
    table = blocks(data(run), Table)[1]
    assert table.rows == [("T", "60"), ("none", "60")]
    assert list(table.shares) == [0.5, 0.5]
    mean = f"{run.latent['Z1'][:60].mean():+.2f}".replace("-", "\N{MINUS SIGN}")
    assert re.search(rf"(high|low)est in T \({re.escape(mean)}\)", texts(factors(run)))
    assert "Grey cells have no label" in blocks(map_of_cells(run), Picture)[0].caption


def test_genes_are_ranked_by_what_they_tell_not_by_loading_alone(make_run):
    """A hardly seen gene has the largest loading; a common one tells more about the factor."""
    run = make_run()
    z1 = 0.01 * pd.read_csv(run / "tables/loadings.csv")["Z1"]
    z1[3], z1[7] = 5.0, 1.0
    mean = np.ones(80)
    mean[3], mean[7] = 1e-9, 20.0
    edit(run, "tables/loadings.csv", lambda table: table.assign(Z1=z1))
    edit(run, "tables/genes.csv", lambda table: table.assign(mean_observed=mean))
    pictures = [picture for picture in blocks(factors(Run(run)), Picture) if "factor Z1" in picture.image]
    names = re.findall(r">(gene_\d+)<", pictures[0].image)
    assert names[0] == "gene_7"
    assert len(names) == 16
    assert "gene_3" not in names


def test_cards_come_in_the_order_of_use_without_unused_factors(make_run):
    run = make_run(n_factors=3, n_unused=0)
    edit(run, "tables/factors.csv", lambda table: table.assign(kl=[0.3, 0.01, 2.0]))
    section = factors(Run(run))
    assert [card.title for card in blocks(section, Card)] == ["Z3", "Z1"]
    assert "Z2 is not used (KL below 0.05 nats)" in texts(section)


def test_unknown_divergence_keeps_all_factors(make_run):
    run = make_run()
    edit(run, "tables/factors.csv", lambda table: table.assign(kl=np.nan))
    cards = blocks(factors(Run(run)), Card)
    assert [card.title for card in cards] == ["Z1", "Z2", "Z3"]  # by variance
    assert all("KL not known" in card.subtitle for card in cards)


def test_large_runs_are_drawn_in_part_and_say_so(make_run, monkeypatch):
    monkeypatch.setattr(import_module("lucidcell.report.umap"), "DRAWN_CELLS", 50)
    assert "Drawn are 50 of 120 cells, chosen at random." in texts(map_of_cells(Run(make_run())))


@pytest.mark.parametrize("name", ["batch", "o'clock", 'say "x"', "back\\slash", "new\nline"])
def test_python_that_repeats_the_run_holds_the_arguments(make_run, name):
    run = Run(make_run())
    run.model["command"] = None
    run.schema |= {"batch_key": name, "categorical_covariates": {name: ["a", "b"]}, "continuous_covariates": {}}
    called = {}

    class Model:
        def __init__(self, adata, **arguments):
            called["init"] = arguments

        def train(self, **arguments):
            called["train"] = arguments

    class Lucidcell:
        SCVI = Model

        @staticmethod
        def read_h5ad(path):
            return path

    code = repeat(run).blocks[0].text.replace("import lucidcell as lc\n", "")
    exec(code, {"lc": Lucidcell})
    keys = {"layer": "counts", "batch_key": name, "labels_key": "cell_type", "unlabeled_category": "Unknown"}
    assert called["init"] == keys | {"categorical_covariate_keys": [name]} | run.config
    assert called["train"] == run.training["settings"]
