"""What holds for every plot: labelled axes, no trace left behind, no heavy imports."""

from __future__ import annotations

import random
import subprocess
import sys

import matplotlib as mpl
import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from lucidcell import plots

NAMES = [
    "training_curves", "kl_curve", "embedding", "numbers", "factor_panel", "factor_shares", "loadings_bars",
    "label_means", "reconstruction", "predictive_check", "heatmap", "confusion_matrix", "calibration_curve",
    "taxonomy_levels", "integration", "evaluation",
    "volcano", "marker_dots", "factor_density", "factor_pair", "loadings_rank", "simplex", "running_score",
    "enrichment_dots", "stability_heatmap", "selection_curve",
    "population_embedding", "association_bars", "centrality_ranking", "network_drawing",
    "cells_and_genes", "deletion_curves", "topic_map", "composition", "gene_frequency", "manhattan",
]  # fmt: skip
IN_A_FIGURE = ("factor_panel", "integration")  # which they fill
TWO_PANELS = ("factor_shares", "predictive_check", "calibration_curve", "running_score", "selection_curve",
              "cells_and_genes", "deletion_curves")  # fmt: skip


@pytest.fixture
def draw(history, genes, loadings, factors, rng):
    """Draw the plot of this name into a figure, or into one of its own; return its Axes."""
    xy, z = rng.normal(size=(80, 2)), pd.DataFrame(rng.normal(size=(80, 3)), columns=["Z1", "Z2", "Z3"])
    groups = rng.choice(["T", "B"], 80)
    bins = pd.DataFrame({"probabilities": "raw", "lower": [0, 0.5], "upper": [0.5, 1], "n_cells": [3, 9]})
    bins = bins.assign(confidence=[0.4, 0.8], accuracy=[0.5, 0.7])
    changes = {"lfc_mean": z["Z1"], "lfc_sure": z["Z1"].abs(), "bayes_factor": z["Z2"], "is_de": z["Z3"] > 0}
    changes |= {"group1": "T", "group2": "B", "raw_normalized_mean1": 1.0, "non_zeros_proportion1": 0.5}
    terms = pd.DataFrame({"factor": ["Z1", "Z1", "Z2"], "term": ["a", "b", "a"], "nes": [2.0, -1.5, 1.2]})
    terms["q_value"] = [0.001, 0.04, 0.6]
    sizes = {"n_latent": [5, 10], "above": [2.0, 0.0], "above_se": [0.5, 0.0], "agreement": [0.9, 0.7]}
    associations = pd.DataFrame({"gene": ["a", "b"], "statistic": "spearman", "effect": [0.5, -0.7], "q_value": 0.01})
    associations["mean_effect"] = 0.1
    on_simplex = np.exp(z).div(np.exp(z).sum(axis=1), axis=0)
    by_gene = loadings.set_index("gene")
    populations = z.head(6).set_axis(["PC1", "PC2", "PC3"], axis=1)
    curves = pd.DataFrame({"factor": "Z1", "ranking": [0, 1] * 4, "curve": ["deletion"] * 4 + ["insertion"] * 4})
    curves = curves.assign(n_genes=[1, 1, 5, 5] * 2, movement=np.linspace(0, 1, 8))
    nodes = pd.DataFrame({"node": ["B", "T"], "parent": "", "level": "type", "n_cells": [3, 4], "confidence": 0.9})

    def drawn(name: str, figure: Figure | None) -> list:
        ax = figure.subplots() if figure and name not in (*IN_A_FIGURE, *TWO_PANELS) else None
        two = figure.subplots(1, 2) if figure and name in TWO_PANELS else None
        made = {
            "training_curves": lambda: plots.training_curves(history, best_epoch=20, ax=ax),
            "kl_curve": lambda: plots.kl_curve(history, ax=ax),
            "embedding": lambda: plots.embedding(xy, groups, "categorical", names="on", ax=ax),
            "numbers": lambda: plots.embedding(xy, z["Z1"], "continuous", label="Z1 (latent units)", ax=ax),
            "factor_panel": lambda: plots.factor_panel(xy, z, columns=2, figure=figure),
            "factor_shares": lambda: plots.factor_shares(factors, axes=two),
            "loadings_bars": lambda: plots.loadings_bars(loadings, "Z1", ax=ax),
            "label_means": lambda: plots.label_means(pd.Series({"T": 0.4, "B": -0.2}), ax=ax),
            "reconstruction": lambda: plots.reconstruction(genes, ax=ax),
            "predictive_check": lambda: plots.predictive_check(genes, axes=two),
            "heatmap": lambda: plots.heatmap(z.head(4), color_label="z", row_label="r", column_label="c", ax=ax),
            "confusion_matrix": lambda: plots.confusion_matrix(pd.crosstab(groups, groups[::-1]), ax=ax),
            "calibration_curve": lambda: plots.calibration_curve(bins, axes=two),
            "taxonomy_levels": lambda: plots.taxonomy_levels(nodes, ax=ax),
            "evaluation": lambda: plots.evaluation(z.head(4).abs(), ax=ax),
            "volcano": lambda: plots.volcano(pd.DataFrame(changes), ax=ax),
            "marker_dots": lambda: plots.marker_dots(pd.DataFrame(changes).head(3), ax=ax),
            "factor_density": lambda: plots.factor_density(z, "Z1", "Z2", ax=ax),
            "factor_pair": lambda: plots.factor_pair(z, by_gene, "Z1", "Z2", groups=groups, ax=ax),
            "loadings_rank": lambda: plots.loadings_rank(by_gene, "Z1", ax=ax),
            "simplex": lambda: plots.simplex(on_simplex, groups=groups, ax=ax),
            "running_score": lambda: plots.running_score(by_gene["Z1"], ["gene_1", "gene_7"], axes=two),
            "enrichment_dots": lambda: plots.enrichment_dots(terms, ax=ax),
            "stability_heatmap": lambda: plots.stability_heatmap(z.head(3).abs(), ax=ax),
            "selection_curve": lambda: plots.selection_curve(pd.DataFrame(sizes).assign(subspace=0.9), axes=two),
            "population_embedding": lambda: plots.population_embedding(populations, populations["PC1"], ax=ax),
            "association_bars": lambda: plots.association_bars(associations, ax=ax),
            "centrality_ranking": lambda: plots.centrality_ranking(by_gene["Z2"], ax=ax),
            "cells_and_genes": lambda: plots.cells_and_genes(z, by_gene, "Z1", "Z2", groups=groups, axes=two),
            "deletion_curves": lambda: plots.deletion_curves(curves, "Z1", axes=two),
            "topic_map": lambda: plots.topic_map(z[["Z1", "Z2"]], z[["Z1", "Z2"]].head(4), highlight=[1], ax=ax),
            "composition": lambda: plots.composition(on_simplex, groups, ax=ax),
            "gene_frequency": lambda: plots.gene_frequency({"T1": ["a", "b"], "T2": ["b", "c"]}, ax=ax),
            "manhattan": lambda: plots.manhattan(terms, ax=ax),
            "network_drawing": lambda: plots.network_drawing(nx.path_graph(list("abcd")), ax=ax),
            "integration": lambda: plots.integration(xy, -xy, pd.Categorical(groups), figure=figure),
        }[name]()
        if ax is not None:
            assert made is ax
        return made if isinstance(made, list) else [made]

    return drawn


@pytest.mark.parametrize("name", NAMES)
def test_axes_are_labelled_and_nothing_global_changes(draw, name):
    settings, python_state = dict(mpl.rcParams), random.getstate()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    open_figures = plt.get_fignums()
    axes = draw(name, Figure(figsize=(7, 5), layout="constrained"))
    assert all(ax.get_xlabel() and (ax.get_ylabel() or name == "factor_shares") for ax in axes)
    assert dict(mpl.rcParams) == settings
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002
    assert random.getstate() == python_state
    assert plt.get_fignums() == open_figures


@pytest.mark.parametrize("name", NAMES)
def test_without_axes_a_figure_of_its_own_is_made(draw, name):
    before = len(plt.get_fignums())
    axes = draw(name, None)
    assert len(plt.get_fignums()) == before + 1
    assert {ax.get_figure() for ax in axes} == {plt.gcf()}
    plt.gcf().draw_without_rendering()
    plt.close(plt.gcf())


def test_plots_import_neither_torch_nor_anndata_nor_scanpy():
    code = (
        "import sys, lucidcell.plots; bad = {'torch', 'anndata', 'scanpy', 'matplotlib.pyplot'} & set(sys.modules);"
        "sys.exit(' '.join(bad) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
