"""What is known of the cells of `simulate_tree`: their rates, exact log fold changes, distances on the tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lucidcell.cells.kinetics import RATES, Genes, Kinetics
from lucidcell.cells.lineage import Lineage
from lucidcell.errors import DataError

if TYPE_CHECKING:
    from anndata import AnnData

_BLOCK = 1024  # cells at once, so that memory stays O(block x genes)


def kinetics(adata: AnnData) -> Kinetics:
    """Rates of the two-state promoter of every gene in every cell.

    Parameters
    ----------
    adata
        Data of `simulate_tree`, or some of their cells.

    Returns
    -------
    ``k_on``, ``k_off`` and ``synthesis``, each (n_cells, n_genes), in units of the decay rate.

    Raises
    ------
    DataError
        If the data do not come from `simulate_tree`, or lack some of its genes.
    """
    return _genes(adata).kinetics(adata.obsm["factors"])


def expected_transcripts(adata: AnnData) -> pd.Series:
    """Mean over the cells of each gene's expected transcripts, s k_on / (k_on + k_off), before capture.

    Parameters
    ----------
    adata
        Data of `simulate_tree`, or some of their cells.

    Returns
    -------
    One value for each gene.

    Raises
    ------
    DataError
        If there are no cells, the data do not come from `simulate_tree`, or lack some of its genes.
    """
    genes, factors = _genes(adata), adata.obsm["factors"]
    if len(factors) == 0:
        msg = "no cells are left to take the mean of 0 cells' transcripts: was the filter too strict?"
        raise DataError(msg)
    total = np.zeros(adata.n_vars)
    for start in range(0, len(factors), _BLOCK):
        total += genes.kinetics(factors[start : start + _BLOCK]).expected().sum(axis=0)
    return pd.Series(total / len(factors), index=adata.var_names, name="expected_transcripts")


def true_log_fold_change(adata: AnnData, group1: str, group2: str, *, groupby: str = "cell_type") -> pd.Series:
    """Log2 fold change of expected transcripts, group 1 over group 2, from the rates of the groups' own cells.

    Exact: no count is looked at. Genes that are not differential have 0.

    Parameters
    ----------
    adata
        Data of `simulate_tree`, or some of their cells.
    group1, group2
        Values of ``obs[groupby]``.
    groupby
        Column of ``obs``.

    Returns
    -------
    One value for each gene.

    Raises
    ------
    DataError
        If the column or a group does not exist, or the data do not come from `simulate_tree`.
    """
    if groupby not in adata.obs:
        msg = f"obs has no {groupby!r}, given as groupby (it has {', '.join(map(repr, adata.obs.columns))})."
        raise DataError(msg)
    column = adata.obs[groupby].astype(str).to_numpy()
    for group in (group1, group2):
        if group not in column:
            msg = f"obs[{groupby!r}] has no cell of {group!r} among its {len(np.unique(column))} values."
            raise DataError(msg)
    means = [expected_transcripts(adata[column == group]) for group in (group1, group2)]
    change: pd.Series = np.log2(means[0] / means[1]).rename("log_fold_change")
    change[~adata.var["differential"].to_numpy()] = 0.0  # the two means differ by rounding alone
    return change


def path_distance(adata: AnnData) -> pd.DataFrame:
    """Length of the path on the tree from every cell to every node.

    Parameters
    ----------
    adata
        Data of `simulate_tree`, discrete or continuous, or some of their cells.

    Returns
    -------
    (n_cells, nodes); two leaves whose last common node is the root have distance 2.

    Raises
    ------
    DataError
        If the data do not come from `simulate_tree`.
    """
    _check_origin(adata)
    nodes, names = adata.uns["tree"], list(adata.uns["tree"].index)
    parent = pd.Index(names).get_indexer(nodes["parent"])
    position = nodes["position"].to_numpy()
    lineage = Lineage(names, parent, position, np.full(len(names), -1), [])
    continuous = adata.uns["truth"]["continuous"]
    branch = pd.Index(names).get_indexer(adata.obs["branch" if continuous else "cell_type"].astype(str))
    place = adata.obs["pseudotime"].to_numpy() if continuous else np.ones(adata.n_obs)
    shared = np.minimum(lineage.shared()[branch], place[:, None])
    return pd.DataFrame(place[:, None] + position - 2 * shared, index=adata.obs_names, columns=names)


def _genes(adata: AnnData) -> Genes:
    _check_origin(adata)
    expected, n_genes = adata.uns["truth"]["n_genes"], adata.n_vars
    if n_genes != expected:
        msg = (
            f"the data hold {n_genes} of the {expected} simulated genes, and a cell's total needs all: pass all genes."
        )
        raise DataError(msg)
    return Genes(
        np.stack([adata.var[f"log_{rate}"].to_numpy() for rate in RATES]),
        np.stack([adata.varm[f"effects_{rate}"] for rate in RATES]),
        adata.var["differential"].to_numpy(),
    )


def _check_origin(adata: AnnData) -> None:
    if "factors" not in adata.obsm or "tree" not in adata.uns:
        msg = "obsm has no 'factors' or uns no 'tree', which simulate_tree writes: pass its AnnData."
        raise DataError(msg)
