"""Figures: functions from tables and arrays to matplotlib Axes. They know neither torch nor AnnData."""

from lucidcell.plots.annotation import calibration_curve, confusion_matrix
from lucidcell.plots.differential_expression import marker_dots, volcano
from lucidcell.plots.embedding import embedding, factor_panel
from lucidcell.plots.enrichment import enrichment_dots, running_score
from lucidcell.plots.evaluation import evaluation
from lucidcell.plots.factor_pairs import factor_density, factor_pair, loadings_rank, simplex
from lucidcell.plots.factors import factor_shares, label_means, loadings_bars
from lucidcell.plots.gene_space import cells_and_genes, deletion_curves
from lucidcell.plots.heatmap import heatmap
from lucidcell.plots.integration import integration
from lucidcell.plots.networks import centrality_ranking, network_drawing
from lucidcell.plots.populations import association_bars, population_embedding
from lucidcell.plots.reconstruction import predictive_check, reconstruction
from lucidcell.plots.stability import selection_curve, stability_heatmap
from lucidcell.plots.style import style
from lucidcell.plots.taxonomy import taxonomy_levels
from lucidcell.plots.topics import composition, gene_frequency, manhattan, topic_map
from lucidcell.plots.training import kl_curve, training_curves

__all__ = [
    "association_bars",
    "calibration_curve",
    "cells_and_genes",
    "centrality_ranking",
    "composition",
    "confusion_matrix",
    "deletion_curves",
    "embedding",
    "enrichment_dots",
    "evaluation",
    "factor_density",
    "factor_pair",
    "factor_panel",
    "factor_shares",
    "gene_frequency",
    "heatmap",
    "integration",
    "kl_curve",
    "label_means",
    "loadings_bars",
    "loadings_rank",
    "manhattan",
    "marker_dots",
    "network_drawing",
    "population_embedding",
    "predictive_check",
    "reconstruction",
    "running_score",
    "selection_curve",
    "simplex",
    "stability_heatmap",
    "style",
    "taxonomy_levels",
    "topic_map",
    "training_curves",
    "volcano",
]
