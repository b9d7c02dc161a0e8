"""Small baselines to compare with. Counts in; embeddings (n, d), or labels with probabilities, out."""

from lucidcell.comparators.cca import cca
from lucidcell.comparators.combat import combat
from lucidcell.comparators.coral import coral
from lucidcell.comparators.harmony import harmony
from lucidcell.comparators.knn import Annotation, knn, pca_knn
from lucidcell.comparators.mnn import mnn
from lucidcell.comparators.pca import pca
from lucidcell.comparators.scanorama import scanorama
from lucidcell.comparators.scmap import scmap_cluster

__all__ = [
    "Annotation",
    "cca",
    "combat",
    "coral",
    "harmony",
    "knn",
    "mnn",
    "pca",
    "pca_knn",
    "scanorama",
    "scmap_cluster",
]
