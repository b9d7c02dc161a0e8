"""What can be wrong, or merely unusual, with the data of a user; and what must come of it.

Each fault changes a copy of `simulate_counts(60, 30)` and says either what the refusal must mention, or that the model
must work. There is no third outcome: no crash, no silent wrong number, no change of the input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from lucidcell.cells.simulate import simulate_counts

Change = Callable[[ad.AnnData], ad.AnnData | None]  # in place, or a new AnnData


class Fault(NamedTuple):
    """A way to change the data, and what must come of it."""

    name: str
    change: Change
    refusal: str | None = None  # pattern that the error must match; None: the model works
    model: dict[str, Any] = {}
    train: dict[str, Any] = {}
    with_labels: str | None = None  # the refusal by a model that learns from labels, where that is another


def base() -> ad.AnnData:
    return simulate_counts(60, 30, n_programs=2, n_types=2, n_batches=2, seed=5)


def put(value: float, dtype: str = "float64") -> Change:
    """Replace one value of X."""

    def change(adata: ad.AnnData) -> None:
        x = adata.X.toarray().astype(dtype)
        x[17, 3] = value
        adata.X = sp.csr_matrix(x)

    return change


def cast(layout: Callable[[Any], Any]) -> Change:
    def change(adata: ad.AnnData) -> None:
        adata.X = layout(adata.X)

    return change


def name_all(table: str, names: pd.Index) -> Change:
    """Set the names of cells or genes without what anndata's setter does to them."""

    def change(adata: ad.AnnData) -> None:
        getattr(adata, table).index = names

    return change


def column(key: str, values: Callable[[ad.AnnData], Any]) -> Change:
    def change(adata: ad.AnnData) -> None:
        adata.obs[key] = values(adata)

    return change


def with_missing(key: str) -> Change:
    def change(adata: ad.AnnData) -> None:
        values = adata.obs[key].astype(object)
        values.iloc[[4, 9]] = np.nan
        adata.obs[key] = values

    return change


def one_alone(adata: ad.AnnData) -> list[str]:
    return ["alone"] + ["common"] * (adata.n_obs - 1)


def confounded(adata: ad.AnnData) -> None:
    adata.obs["batch"] = adata.obs["cell_type"].astype(str).to_numpy()


def empty_cells(adata: ad.AnnData) -> None:
    x = adata.X.toarray()
    x[[2, 30]] = 0
    adata.X = sp.csr_matrix(x)


def silent_gene(adata: ad.AnnData) -> None:
    x = adata.X.toarray()
    x[:, 5] = 0
    adata.X = sp.csr_matrix(x)


def doubled(names: pd.Index) -> pd.Index:
    return pd.Index([*names[:-1], names[0]])


def no_x(adata: ad.AnnData) -> ad.AnnData:
    return ad.AnnData(None, obs=adata.obs, var=adata.var)


def object_x(adata: ad.AnnData) -> ad.AnnData:
    return ad.AnnData(adata.X.toarray().astype(object), obs=adata.obs, var=adata.var)


def logarithm(adata: ad.AnnData) -> None:
    adata.layers["counts"] = adata.X.copy()
    adata.X = adata.X.log1p()


def stored_zeros(adata: ad.AnnData) -> None:
    """Zeros that are stored, unsorted genes and entries in two parts: legal, and not canonical."""
    coo = adata.X.tocoo()
    row, col = np.concatenate([coo.row, coo.row, [0, 1]]), np.concatenate([coo.col, coo.col, [0, 0]])
    data = np.concatenate([coo.data - 1, np.ones_like(coo.data), [0, 0]])
    order = np.lexsort((-col, row))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=adata.n_obs))])
    adata.X = sp.csr_matrix((data[order], col[order], indptr), shape=adata.shape)


def malformed(adata: ad.AnnData) -> None:
    adata.X.indices[7] = 99_999


def dask_x(adata: ad.AnnData) -> None:
    import dask.array

    adata.X = dask.array.from_array(adata.X.toarray(), chunks=(17, 30))


BOTH = {"batch_key": "batch", "labels_key": "cell_type"}

FAULTS = [
    Fault("NaN", put(np.nan), "NaN"),
    Fault("infinite", put(np.inf), "infinite"),
    Fault("negative", put(-1), "negative"),
    Fault("one value not whole", put(2.5), "1 non-integer value"),
    Fault("log-transformed", logarithm, "looks log-transformed.*pass layer='counts'"),
    Fault("log-transformed, right layer given", logarithm, model={"layer": "counts"}),
    Fault("huge", put(1e9), "above 2\\^24"),
    Fault("not exact in float32", put(2.0**24 + 1), "above 2\\^24"),
    Fault("empty cells", empty_cells, "2 of 60 cells have no counts"),
    Fault("silent gene", silent_gene),
    Fault("no genes", lambda a: a[:, :0].copy(), "no genes"),
    Fault("no cells", lambda a: a[:0].copy(), "0 cells"),
    Fault("one cell", lambda a: a[:1].copy(), "1 cells"),
    Fault("two cells", lambda a: a[:2].copy(), with_labels="needs at least 2 types .* names 1"),
    Fault("three cells", lambda a: a[:3].copy()),
    Fault("one gene", lambda a: a[:, :1].copy()),
    Fault("last batch of one cell", lambda a: a[:49].copy(), train={"batch_size": 16, "train_size": 1.0}),
    Fault("batch of one", lambda a: None, "batch_size is 1", train={"batch_size": 1}),
    Fault("batches of two, odd number", lambda a: a[:9].copy(), train={"batch_size": 2, "train_size": 1.0}),
    Fault("batch larger than data", lambda a: None, train={"batch_size": 1000}),
    Fault("duplicated genes", lambda a: name_all("var", doubled(a.var_names))(a), "gene names occur more than once"),
    Fault("duplicated cells", lambda a: name_all("obs", doubled(a.obs_names))(a)),
    Fault("gene names are numbers", name_all("var", pd.RangeIndex(30)), "30 of 30 var_names are not strings"),
    Fault("cell names are numbers", name_all("obs", pd.RangeIndex(60)), "60 of 60 obs_names are not strings"),
    Fault("no X", no_x, "no X"),
    Fault("objects", object_x, "object, not numbers"),
    Fault("booleans", cast(lambda x: x.astype(bool))),
    Fault("no such layer", lambda a: None, "layers has no 'counts'", model={"layer": "counts"}),
    Fault("stored zeros", stored_zeros),
    Fault("malformed indices", malformed, "malformed"),
    Fault("dask", dask_x),
    Fault("view", lambda a: a[5:50, 3:]),
    Fault("view of shuffled genes", lambda a: a[:, ::-1]),
    Fault("one batch", column("batch", lambda a: "all"), model=BOTH),
    Fault("batch of one cell", column("batch", one_alone), model=BOTH),
    Fault("batch missing", with_missing("batch"), "no value \\(NaN\\) in 2 of 60 cells", model=BOTH),
    Fault("batch with unused categories", lambda a: a[a.obs["batch"] == "batch_1"].copy(), model=BOTH),
    Fault("numbers as batches", column("batch", lambda a: np.arange(60) % 3), model=BOTH),
    Fault("a batch for each cell", column("batch", lambda a: a.obs_names), "60 different values", model=BOTH),
    Fault("misspelt batch", lambda a: None, "did you mean 'batch'", model={"batch_key": "Batch"}),
    Fault("some labels missing", with_missing("cell_type"), model=BOTH),
    Fault(
        "all labels missing",
        column("cell_type", lambda a: np.nan),
        model=BOTH,
        with_labels="needs at least 2 types .* names 0",
    ),
    Fault("batch and label confounded", confounded, model=BOTH),
    Fault("misspelt labels", lambda a: None, "did you mean 'cell_type'", model={"labels_key": "celltype"}),
    Fault("not an AnnData", lambda a: a.X, "needs an AnnData"),
    Fault("a path", lambda a: "cells.h5ad", "read it with lucidcell.read_h5ad"),
    Fault("an empty list", lambda a: [], "at least one"),
    Fault("a list of two", lambda a: [a[:30].copy(), a[30:, 5:].copy()]),
]


LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "dense": lambda x: x.toarray(),
    "Fortran order": lambda x: np.asfortranarray(x.toarray()),
    "csc": lambda x: x.tocsc(),
    "csr_array": sp.csr_array,
    "csc_array": sp.csc_array,
    "int64": lambda x: x.astype(np.int64),
    "uint16": lambda x: x.astype(np.uint16),
    "float64": lambda x: x.astype(np.float64),
    "float64, dense": lambda x: x.toarray().astype(np.float64),
    "int32, dense": lambda x: x.toarray().astype(np.int32),
}
