"""lucidcell: readable deep generative models of single-cell RNA-seq.

The public names below stand in the order of the data's way. Each is imported when it is first used, so that
``import lucidcell`` takes milliseconds and needs neither torch nor scanpy nor anndata.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from lucidcell.errors import DataError, FileError, LucidcellError, NotTrainedError, SettingError, TrainingError

if TYPE_CHECKING:
    from lucidcell.cells import (
        hallmark,
        pbmc3k,
        read_10x,
        read_gmt,
        read_h5ad,
        read_zarr,
        select_genes,
    )
    from lucidcell.cells.seed_labels import seed_labels
    from lucidcell.cells.simulate import simulate_counts
    from lucidcell.cells.simulate_network import simulate_donors, simulate_hubs
    from lucidcell.cells.simulate_tree import simulate_tree
    from lucidcell.metrics.evaluate import evaluate
    from lucidcell.models.base import load
    from lucidcell.models.ldvae import LDVAE
    from lucidcell.models.scanvi import SCANVI
    from lucidcell.models.sce2tm import SCE2TM
    from lucidcell.models.scetm import SCETM
    from lucidcell.models.scvi import SCVI
    from lucidcell.models.sivae import SIVAE
    from lucidcell.models.vae import VAE
    from lucidcell.readouts.cross_validation import cross_validate
    from lucidcell.readouts.enrichment import gsea, over_representation
    from lucidcell.readouts.factor_association import factor_association
    from lucidcell.readouts.factor_names import name_factors
    from lucidcell.readouts.faithfulness import faithfulness, faithfulness_curves
    from lucidcell.readouts.network_inference import infer_network
    from lucidcell.readouts.networks import gene_neighbors, gene_network, network_neighbors, write_graphml
    from lucidcell.readouts.populations import population_networks
    from lucidcell.readouts.rank_genes_groups import to_rank_genes_groups
    from lucidcell.readouts.selection import select_n_latent
    from lucidcell.readouts.shares import factor_correlation, factor_covariance, factor_shares, spectrum
    from lucidcell.readouts.stability import stability
    from lucidcell.readouts.top_genes import gene_signal, top_genes
    from lucidcell.report import report

__version__ = "0.1.0"

__all__ = [
    "read_h5ad",
    "read_zarr",
    "read_10x",
    "pbmc3k",
    "simulate_counts",
    "simulate_tree",
    "simulate_hubs",
    "simulate_donors",
    "seed_labels",
    "select_genes",
    "SCVI",
    "SCANVI",
    "LDVAE",
    "SIVAE",
    "SCE2TM",
    "SCETM",
    "VAE",
    "load",
    "top_genes",
    "gene_signal",
    "factor_shares",
    "factor_covariance",
    "factor_correlation",
    "spectrum",
    "factor_association",
    "stability",
    "select_n_latent",
    "cross_validate",
    "read_gmt",
    "hallmark",
    "gsea",
    "over_representation",
    "name_factors",
    "faithfulness",
    "faithfulness_curves",
    "gene_neighbors",
    "gene_network",
    "infer_network",
    "network_neighbors",
    "write_graphml",
    "population_networks",
    "evaluate",
    "to_rank_genes_groups",
    "report",
    "LucidcellError",
    "DataError",
    "FileError",
    "SettingError",
    "NotTrainedError",
    "TrainingError",
]

_HOMES = {
    "read_h5ad": "lucidcell.cells",
    "read_zarr": "lucidcell.cells",
    "read_10x": "lucidcell.cells",
    "pbmc3k": "lucidcell.cells",
    "simulate_counts": "lucidcell.cells.simulate",
    "simulate_tree": "lucidcell.cells.simulate_tree",
    "simulate_hubs": "lucidcell.cells.simulate_network",
    "simulate_donors": "lucidcell.cells.simulate_network",
    "seed_labels": "lucidcell.cells.seed_labels",
    "select_genes": "lucidcell.cells",
    "SCVI": "lucidcell.models.scvi",
    "SCANVI": "lucidcell.models.scanvi",
    "LDVAE": "lucidcell.models.ldvae",
    "SCE2TM": "lucidcell.models.sce2tm",
    "SCETM": "lucidcell.models.scetm",
    "SIVAE": "lucidcell.models.sivae",
    "VAE": "lucidcell.models.vae",
    "load": "lucidcell.models.base",
    "top_genes": "lucidcell.readouts.top_genes",
    "gene_signal": "lucidcell.readouts.top_genes",
    "factor_shares": "lucidcell.readouts.shares",
    "factor_correlation": "lucidcell.readouts.shares",
    "factor_covariance": "lucidcell.readouts.shares",
    "spectrum": "lucidcell.readouts.shares",
    "factor_association": "lucidcell.readouts.factor_association",
    "stability": "lucidcell.readouts.stability",
    "select_n_latent": "lucidcell.readouts.selection",
    "cross_validate": "lucidcell.readouts.cross_validation",
    "gsea": "lucidcell.readouts.enrichment",
    "over_representation": "lucidcell.readouts.enrichment",
    "name_factors": "lucidcell.readouts.factor_names",
    "faithfulness": "lucidcell.readouts.faithfulness",
    "faithfulness_curves": "lucidcell.readouts.faithfulness",
    "gene_neighbors": "lucidcell.readouts.networks",
    "gene_network": "lucidcell.readouts.networks",
    "infer_network": "lucidcell.readouts.network_inference",
    "network_neighbors": "lucidcell.readouts.networks",
    "write_graphml": "lucidcell.readouts.networks",
    "population_networks": "lucidcell.readouts.populations",
    "read_gmt": "lucidcell.cells",
    "hallmark": "lucidcell.cells",
    "evaluate": "lucidcell.metrics.evaluate",
    "to_rank_genes_groups": "lucidcell.readouts.rank_genes_groups",
    "report": "lucidcell.report",
}


_FOLDERS = ("plots", "metrics", "comparators")  # `lc.plots` works without an import of its own


def __getattr__(name: str) -> object:
    if name in _FOLDERS:
        return import_module(f"lucidcell.{name}")
    if name not in _HOMES:
        msg = f"module 'lucidcell' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, *_FOLDERS, "__version__"]


class _Package(ModuleType):
    """Keeps ``lucidcell.report`` a function: importing the folder of that name would otherwise replace it."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name == "report" and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __reduce__(self) -> tuple[object, ...]:
        """So that functions that name the package can be sent to workers (joblib, Dask), as with any module."""
        return import_module, (self.__name__,)


sys.modules[__name__].__class__ = _Package
