"""From AnnData to checked counts: readers, `Cells`, gene selection, gene sets and the bundled data."""

from lucidcell.cells.cells import Cells
from lucidcell.cells.checks import DataRecord
from lucidcell.cells.datasets import hallmark, pbmc3k
from lucidcell.cells.gene_sets import read_gmt
from lucidcell.cells.read import read_10x, read_h5ad, read_zarr
from lucidcell.cells.schema import Schema
from lucidcell.cells.select import select_genes

__all__ = [
    "Cells",
    "DataRecord",
    "Schema",
    "hallmark",
    "pbmc3k",
    "read_10x",
    "read_gmt",
    "read_h5ad",
    "read_zarr",
    "select_genes",
]
