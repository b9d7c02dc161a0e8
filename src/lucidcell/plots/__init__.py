"""Figures: functions from tables and arrays to matplotlib Axes. They know neither torch nor AnnData."""

from lucidcell.plots.annotation import calibration_curve, confusion_matrix
from lucidcell.plots.differential_expression import marker_dots, volcano
from lucidcell.plots.embedding import embedding, factor_panel
from lucidcell.plots.evaluation import evaluation
from lucidcell.plots.factors import factor_shares, label_means, loadings_bars
from lucidcell.plots.heatmap import heatmap
from lucidcell.plots.integration import integration
from lucidcell.plots.reconstruction import predictive_check, reconstruction
from lucidcell.plots.style import style
from lucidcell.plots.taxonomy import taxonomy_levels
from lucidcell.plots.training import kl_curve, training_curves

__all__ = [
    "calibration_curve",
    "confusion_matrix",
    "embedding",
    "evaluation",
    "factor_panel",
    "factor_shares",
    "heatmap",
    "integration",
    "kl_curve",
    "label_means",
    "loadings_bars",
    "marker_dots",
    "predictive_check",
    "reconstruction",
    "style",
    "taxonomy_levels",
    "training_curves",
    "volcano",
]
