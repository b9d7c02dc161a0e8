"""The small data that come with the package (origin and licences in bundled/ATTRIBUTION.md)."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import TYPE_CHECKING

from lucidcell.cells.gene_sets import read_gmt
from lucidcell.cells.read import read_h5ad

if TYPE_CHECKING:
    from anndata import AnnData

BUNDLED = files("lucidcell.cells") / "bundled"


def pbmc3k() -> AnnData:
    """Human blood cells of one donor: 2,638 cells x 2,000 variable genes, counts (float32 CSR) in X.

    `obs` has cell_type (9 types) and cell_type_coarse (4); `uns["source"]` says where the data come from.
    """
    with as_file(BUNDLED / "pbmc3k.h5ad") as path:
        adata = read_h5ad(path)
    adata.X = adata.X.astype("float32")  # stored as small integers
    return adata


def hallmark() -> dict[str, tuple[str, ...]]:
    """The 50 human Hallmark gene sets of MSigDB (gene symbols)."""
    with as_file(BUNDLED / "human_hallmark.gmt") as path:
        return read_gmt(path)
