"""Cells on a device, here the CPU: the same batches as from memory."""

from __future__ import annotations

from dataclasses import replace

import anndata as ad
import numpy as np
import torch

from lucidcell.cells.cells import Cells
from lucidcell.cells.on_device import CellsOnDevice, fits
from lucidcell.models.view_neighbors import partners


def test_batches_are_those_of_the_cells(adata: ad.AnnData) -> None:
    adata.obsm["E"] = np.random.default_rng(0).normal(size=(37, 4)).astype(np.float32)
    cells = Cells.from_anndata(
        adata, batch_key="donor", labels_key="cell_type", continuous_covariate_keys=["age"], external_key="E"
    )
    cells = replace(cells, partners=partners(cells, np.arange(37), 5, 0))
    sent = CellsOnDevice.of(cells, torch.device("cpu"))
    rng = np.random.default_rng(1)
    for rows in (np.arange(37), rng.permutation(37)[:11], rng.integers(0, 37, 50), np.array([36])):
        one, other = sent.take(rows), cells.take(rows)
        for found, wanted in ((one, other), (one.pair, other.pair)):
            assert found is not None
            assert wanted is not None
            for name in ("batch", "label", "covariates", "library", "rows", "external"):
                torch.testing.assert_close(getattr(found, name), getattr(wanted, name), rtol=0, atol=0)
            assert found.counts.n_genes == wanted.counts.n_genes
            for a, b in zip(found.counts[:3], wanted.counts[:3], strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_only_a_gpu_with_room_takes_them(adata: ad.AnnData, monkeypatch) -> None:
    cells = Cells.from_anndata(adata)
    assert not fits(cells, torch.device("cpu"))
    for free, expected in ((10**9, True), (1000, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 10**9))
        assert fits(cells, torch.device("cuda")) == expected
