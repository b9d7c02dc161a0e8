"""A table of differential expression in the layout of `scanpy.tl.rank_genes_groups`, for scanpy's plots."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lucidcell.errors import DataError, SettingError
from lucidcell.readouts.effect_sizes import expected_fdr

REQUIRED = ("group1", "group2", "lfc_mean", "non_zeros_proportion1", "non_zeros_proportion2")
SCORES = ("lfc_sure", "bayes_factor")  # of mode "change", of mode "vanilla"


def to_rank_genes_groups(table: pd.DataFrame, groupby: str | None = None) -> dict[str, Any]:
    """Put a table of `differential_expression` into the layout of `scanpy.tl.rank_genes_groups`.

    Assign it to ``adata.uns["rank_genes_groups"]``, and ``sc.pl.rank_genes_groups_dotplot(adata)`` and its siblings,
    and ``sc.get.rank_genes_groups_df`` work as with scanpy's own.

    Parameters
    ----------
    table
        Comparisons of different groups with the same one, or each with the rest.
    groupby
        Column of obs with the groups; the one that the table was made with for None.

    Returns
    -------
    A dict of record arrays with a field for each group and genes in the order of their scores, the highest first:
    "names"; "scores" (lfc_sure, in mode "vanilla" bayes_factor); "logfoldchanges" (lfc_mean); "pvals_adj" (expected
    false discovery rate of calling this gene and all that are surer; NaN in mode "vanilla"); "pvals" (NaN, for there
    are none). Beside them "pts" and "pts_rest" (share of cells with the gene: genes x groups) and "params".

    Raises
    ------
    DataError
        If the table lacks a column.
    SettingError
        If the groups are compared with different ones, one occurs twice, or `groupby` is not known.
    """
    missing = [name for name in REQUIRED if name not in table.columns]
    score = next((name for name in SCORES if name in table.columns), None)
    if missing or score is None:
        raise DataError(
            f"the table lacks the columns {', '.join(missing or SCORES)}; pass one of differential_expression."
        )
    column = table.attrs.get("groupby") if groupby is None else groupby
    if column is None:
        raise SettingError("scanpy needs to know the column of obs with the groups: pass groupby.")
    references = table["group2"].unique()
    if len(references) > 1:
        raise SettingError(
            f"the groups are compared with {len(references)} different ones, and scanpy's layout has room for one: "
            "pass the rows with one group2."
        )
    groups = {str(name): rows for name, rows in table.groupby("group1", sort=False)}
    if any(rows.index.has_duplicates for rows in groups.values()):
        raise SettingError("a gene occurs twice in one group: pass the rows of one comparison for each group.")
    ranked = {
        name: rows.sort_values([score, "lfc_mean"], ascending=False, kind="stable") for name, rows in groups.items()
    }
    return {
        "params": {
            "groupby": column,
            "reference": str(references[0]),
            "method": f"lucidcell {table.attrs.get('mode', 'change')}",
            "use_raw": False,
            "layer": None,
            "corr_method": "expected false discovery rate",
        },
        "names": _records({name: rows.index.to_numpy(object) for name, rows in ranked.items()}, object),
        "scores": _records({name: rows[score] for name, rows in ranked.items()}, np.float32),
        "pvals": _records({name: np.full(len(rows), np.nan) for name, rows in ranked.items()}, np.float64),
        "pvals_adj": _records({name: _adjusted(rows) for name, rows in ranked.items()}, np.float64),
        "logfoldchanges": _records({name: rows["lfc_mean"] for name, rows in ranked.items()}, np.float32),
        "pts": pd.DataFrame({name: rows["non_zeros_proportion1"] for name, rows in groups.items()}),
        "pts_rest": pd.DataFrame({name: rows["non_zeros_proportion2"] for name, rows in groups.items()}),
    }


def _adjusted(rows: pd.DataFrame) -> np.ndarray:
    if "proba_not_de" not in rows:
        return np.full(len(rows), np.nan)
    return expected_fdr(rows["proba_not_de"].to_numpy(float))


def _records(columns: dict[str, Any], dtype: type) -> np.ndarray:
    """A record array with a field for each group."""
    length = max(map(len, columns.values()))
    found = np.empty(length, dtype=[(name, dtype) for name in columns])
    for name, values in columns.items():
        found[name] = np.asarray(values)
    return found
