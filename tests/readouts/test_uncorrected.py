from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anndata as ad
import numpy as np
import pytest
from sklearn.decomposition import PCA

from lucidcell.cells import Cells
from lucidcell.readouts import uncorrected as module
from lucidcell.readouts.uncorrected import uncorrected


def test_components_are_those_of_sklearn(simulated: ad.AnnData) -> None:
    table = uncorrected(Cells.from_anndata(simulated))
    counts = simulated.X.toarray().astype(float)
    expected = PCA(20, svd_solver="full").fit_transform(np.log1p(1e4 * counts / counts.sum(1, keepdims=True)))
    assert list(table["cell"]) == list(simulated.obs_names)
    np.testing.assert_allclose(np.abs(table.drop(columns="cell")), np.abs(expected), atol=1e-8)


def test_many_cells_are_sampled_and_few_have_fewer_components(
    simulated: ad.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert uncorrected(Cells.from_anndata(simulated[:7])).shape == (7, 1 + 6)
    monkeypatch.setattr(module, "MOST_CELLS", 50)
    table = uncorrected(Cells.from_anndata(simulated))
    assert len(table) == 50
    assert set(table["cell"]) < set(simulated.obs_names)


def test_only_runs_with_batches_have_the_table(trained: Callable[..., Any]) -> None:
    assert "uncorrected" in trained().tables()
    assert "uncorrected" not in trained(batch_key=None).tables()
