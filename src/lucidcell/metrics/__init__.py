"""Measures of embeddings, clusters and annotations: arrays in, numbers out. AnnData enters in `evaluate` only."""

from lucidcell.metrics.annotation import (
    accuracy,
    confusion_table,
    expected_calibration_error,
    macro_f1,
    reliability_table,
    unassigned_rate,
    weighted_accuracy,
)
from lucidcell.metrics.clustering import (
    adjusted_mutual_information,
    adjusted_rand_index,
    clustering_accuracy,
    kmeans_clusters,
    label_purity,
    leiden_clusters,
    leiden_sweep,
    normalized_mutual_information,
)
from lucidcell.metrics.gene_predictors import neighborhood_prediction, true_centrality_mlp
from lucidcell.metrics.harmonization import (
    batch_mixing_per_cell,
    entropy_of_batch_mixing,
    kmeans_conservation,
    mixing_curve,
)
from lucidcell.metrics.interpretability import PUBLISHED, Conventions, Interpretability, interpretability
from lucidcell.metrics.neighbors import Neighbors, nearest_neighbors
from lucidcell.metrics.networks import neighborhood_correlation, neighborhood_overlap, true_centrality
from lucidcell.metrics.purity import knn_purity, purity_curve, purity_per_cell
from lucidcell.metrics.scib import clisi, graph_connectivity, ilisi, lisi, silhouette_batch, silhouette_label
from lucidcell.metrics.second_view import neighbor_error, neighbor_overlap, second_view_curve
from lucidcell.metrics.topic_measures import (
    best_genes,
    gsea_pairs,
    ora_pairs,
    topic_coherence,
    topic_diversity,
    topic_purity,
)

__all__ = [
    "PUBLISHED",
    "Conventions",
    "Interpretability",
    "Neighbors",
    "accuracy",
    "adjusted_mutual_information",
    "adjusted_rand_index",
    "batch_mixing_per_cell",
    "best_genes",
    "clisi",
    "clustering_accuracy",
    "confusion_table",
    "entropy_of_batch_mixing",
    "expected_calibration_error",
    "graph_connectivity",
    "gsea_pairs",
    "ilisi",
    "interpretability",
    "kmeans_clusters",
    "kmeans_conservation",
    "knn_purity",
    "label_purity",
    "leiden_clusters",
    "leiden_sweep",
    "lisi",
    "macro_f1",
    "mixing_curve",
    "nearest_neighbors",
    "neighbor_error",
    "neighbor_overlap",
    "neighborhood_correlation",
    "neighborhood_overlap",
    "neighborhood_prediction",
    "normalized_mutual_information",
    "ora_pairs",
    "purity_curve",
    "purity_per_cell",
    "reliability_table",
    "second_view_curve",
    "topic_coherence",
    "topic_diversity",
    "topic_purity",
    "silhouette_batch",
    "silhouette_label",
    "true_centrality",
    "true_centrality_mlp",
    "unassigned_rate",
    "weighted_accuracy",
]
