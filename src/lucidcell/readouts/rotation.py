"""Rotations of linear factors to where they can be read, and told apart from seed to seed.

A linear decoder under an isotropic prior, with loadings W and scores z, fits as well with W R and z R for every
orthogonal R.
Varimax (Kaiser 1958, Psychometrika 23, 187) picks the R whose factors have few large loadings and many small ones:
it maximises the sum over factors of the variance over genes of the squared loadings. Genes are weighted by their mean
expression here. Loadings of hardly seen genes are mostly noise, and counted equally they turn the factors to a place
that differs from seed to seed (LOG.md, 2026-11-28).
"""

from __future__ import annotations

import numpy as np

from lucidcell.errors import SettingError

MOST_STEPS = 1000
TOLERANCE = 1e-10  # relative gain of a step at which the search ends


def varimax(loadings: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Orthogonal matrix R (D, D) that makes loadings @ R, (G, D), simple; genes weigh `weights` (G,), or alike."""
    n_genes, n_factors = loadings.shape
    weights = np.ones(n_genes) if weights is None else weights
    weights = weights / weights.sum()
    rotation, before = np.eye(n_factors), 0.0
    for _ in range(MOST_STEPS):
        rotated = loadings @ rotation
        slope = loadings.T @ (weights[:, None] * (rotated**3 - rotated * (weights @ rotated**2)))
        left, values, right = np.linalg.svd(slope)
        rotation = left @ right
        if values.sum() <= before * (1 + TOLERANCE):
            break
        before = values.sum()
    return rotation


def rotation_to(rotate: str, loadings: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The rotation (D, D) called `rotate` of loadings (G, D), genes weighted by mean expression (G,).

    Factors come in falling order of the sum over genes of weight x loading^2, and point to where their larger loadings
    are positive.

    Raises
    ------
    SettingError
        If there is no rotation of this name.
    """
    if rotate != "varimax":
        raise SettingError(f"rotate is {rotate!r}; it must be 'varimax', or None.")
    rotation = varimax(loadings, weights)
    rotated = loadings @ rotation
    order = np.argsort(-(weights @ rotated**2), kind="stable")
    signs = np.where((weights @ rotated**3) < 0, -1.0, 1.0)
    return (rotation * signs)[:, order]
