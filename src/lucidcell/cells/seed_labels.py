"""Seed labels: the few cells of each type that marker genes name with confidence, for a model to learn from.

Score of cell n for a type with genes g of sign s_g = +1 (expressed) or -1 (not expressed):

    score_n = mean over g of s_g zscore_g( log(1 + 10^4 x_ng / sum_h x_nh) )

The z-score is over all cells. Reference: Xu et al. (2021), Mol. Syst. Biol. 17, e9620, "Signature calculus" and "Cell
type annotation in a single dataset based on seed labels" (the 50 best cells of each type). That cells named by two
types are left out, and that a score must be positive, are ours.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp

from lucidcell.cells.covariates import some
from lucidcell.cells.parts import Parts
from lucidcell.cells.signatures import Signature, Signatures, read_signatures
from lucidcell.errors import DataError, SettingError

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger("lucidcell")

TARGET = 1e4  # counts to which each cell is scaled


def seed_labels(
    adata: AnnData,
    signatures: Signatures,
    *,
    layer: str | None = None,
    top: int | Mapping[str, int] = 50,
    unlabeled_category: str = "Unknown",
) -> pd.Series:
    """Label the cells that fit a cell type's signature best, and no other cell.

    A cell gets the label of a type if its score is above 0 and among the `top` of that type. A cell among the best of
    two types is ambiguous and gets none. Do this before genes are selected, since markers are often not variable.

    Parameters
    ----------
    adata
        Counts in X or `layer`; not changed.
    signatures
        ``{type: [genes]}`` or ``{type: {"positive": [genes], "negative": [genes]}}``; or the path of a CSV file
        (columns type, gene, sign) or of a GMT file (sets ``X_UP`` and ``X_DN`` belong to the type X).
    layer
        Layer with the counts; None for X.
    top
        Cells of each type, or a number for each type: no more than about half of what the rarest type has.
    unlabeled_category
        What cells without a label get.

    Returns
    -------
    Label of each cell (n,), categorical, indexed by cell name; for ``adata.obs`` and a model's `labels_key`.

    Raises
    ------
    DataError
        If no positive gene of a type is among the genes of the data, or the counts cannot be used.
    SettingError
        If `top` or `unlabeled_category` has no meaning.
    FileError
        If a file cannot be read.
    """
    scores = signature_scores(adata, signatures, layer=layer)
    if unlabeled_category in scores.columns:
        raise SettingError(f"{unlabeled_category!r} is a cell type and unlabeled_category at once; rename one of them.")
    wanted = _wanted(top, list(scores.columns))
    values = scores.to_numpy()
    best = np.zeros(values.shape, bool)
    for t, most in enumerate(wanted):
        best[np.argsort(-values[:, t], kind="stable")[:most], t] = True
    best &= values > 0
    certain = best.sum(1) == 1
    codes = np.where(certain, best.argmax(1), len(wanted))
    labels = pd.Categorical.from_codes(codes, [*scores.columns, unlabeled_category])
    _tell(best, certain, list(scores.columns))
    return pd.Series(labels, index=scores.index, name="seed_label")


def signature_scores(adata: AnnData, signatures: Signatures, *, layer: str | None = None) -> pd.DataFrame:
    """Score of each cell for each signature, (n, types): mean z-score of its genes, negative ones with a minus.

    Parameters
    ----------
    adata
        Counts in X or `layer`; not changed.
    signatures
        As in `seed_labels`.
    layer
        Layer with the counts; None for X.

    Raises
    ------
    DataError
        If no positive gene of a type is among the genes of the data, or the counts cannot be used.
    """
    wanted = read_signatures(signatures)
    parts = Parts.of(adata, model="seed_labels", smallest=2)
    genes = parts.shared_genes()
    position = {name: g for g, name in enumerate(genes)}
    found = _genes_found(wanted, position)
    counts = parts.rows_where_they_lie(layer, genes, model="seed_labels", counts=True)
    totals = np.maximum(counts.sums(), 1)[:, None]
    named = dict.fromkeys(gene for signature in found.values() for genes in signature for gene in genes)
    needed = {gene: j for j, gene in enumerate(named)}
    columns = [position[gene] for gene in needed]
    matrix = sp.vstack([block.to_scipy()[:, columns] for block in counts.blocks()], format="csc")
    scores = {}
    for name, signature in found.items():
        signed = [(gene, sign) for genes, sign in zip(signature, (1.0, -1.0), strict=True) for gene in genes]
        expression = np.log1p(TARGET / totals * matrix[:, [needed[gene] for gene, _ in signed]].toarray())
        spread = expression.std(0)
        standardised = (expression - expression.mean(0)) / np.where(spread > 0, spread, 1)
        scores[name] = standardised @ np.array([sign for _, sign in signed]) / len(signed)
    return pd.DataFrame(scores, index=pd.Index(parts.cell_names()))


def _genes_found(wanted: dict[str, Signature], position: Mapping[str, int]) -> dict[str, Signature]:
    """The signatures without genes that the data lack."""
    found = {
        name: Signature(*(tuple(gene for gene in genes if gene in position) for genes in signature))
        for name, signature in wanted.items()
    }
    named = {gene for signature in wanted.values() for genes in signature for gene in genes}
    missing = sorted(named - set(position))
    for name, signature in found.items():
        if not signature.positive:
            raise DataError(
                f"none of the {len(wanted[name].positive)} positive genes of {name!r} ({some(wanted[name].positive)}) "
                f"is among the {len(position)} genes of the data ({some(list(position)[:3])}, ...): use the same kind "
                "of gene names, or data from before genes were selected."
            )
    if missing:
        logger.warning("%d of %d signature genes are not in the data: %s.", len(missing), len(named), some(missing))
    return found


def _wanted(top: int | Mapping[str, int], types: list[str]) -> list[int]:
    """Number of cells for each type."""
    numbers = dict(top) if isinstance(top, Mapping) else dict.fromkeys(types, top)
    if sorted(numbers) != sorted(types):
        odd = sorted(set(numbers).symmetric_difference(types))
        raise SettingError(f"top and the signatures differ in {some(odd)}; give a number for each of the types.")
    for name in types:
        if isinstance(numbers[name], bool) or not isinstance(numbers[name], int) or numbers[name] < 1:
            raise SettingError(f"top is {numbers[name]!r} for {name!r}; it must be a whole number of at least 1.")
    return [numbers[name] for name in types]


def _tell(best: np.ndarray, certain: np.ndarray, types: list[str]) -> None:
    n_seeds = (best & certain[:, None]).sum(0)
    n_ambiguous = int((best.sum(1) > 1).sum())
    logger.info("%d of %d cells are seeds; %d are ambiguous.", int(certain.sum()), len(certain), n_ambiguous)
    without = [name for name, n in zip(types, n_seeds, strict=True) if n == 0]
    if without:
        logger.warning(
            "%d of %d types have no seed, such as %r: use other genes.", len(without), len(types), without[0]
        )
