"""Simulated hubs and donors have the moments that were planted."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from lucidcell.cells.simulate_network import simulate_donors, simulate_hubs
from lucidcell.errors import SettingError


def test_hubs_are_the_design_of_the_paper() -> None:
    adata = simulate_hubs(20, seed=3)
    assert adata.shape == (20, 300)
    assert adata.var["community"].value_counts().to_dict() == {f"community_{m}": 50 for m in range(5)} | {
        "isolated": 50
    }
    graph = nx.from_scipy_sparse_array(adata.varp["network"])
    degree = pd.Series(dict(graph.degree())).to_numpy()
    assert list(degree[adata.var["is_hub"]]) == [49] * 5
    assert set(degree[~adata.var["is_hub"] & (adata.var["community"] != "isolated")]) == {1}
    assert set(degree[adata.var["community"] == "isolated"]) == {0}


@pytest.mark.parametrize("rho", [0.6, -0.3])
def test_correlations_of_hubs_and_spokes_are_those_planted(rho: float) -> None:
    adata = simulate_hubs(20_000, 2, 6, 3, rho=rho, seed=0)
    wanted = adata.varp["covariance"]
    np.testing.assert_allclose(np.corrcoef(adata.X, rowvar=False), wanted, atol=5 / 20_000**0.5)
    np.testing.assert_allclose(adata.X.mean(0), 0, atol=5 / 20_000**0.5)
    np.testing.assert_allclose(adata.X.var(0), 1, atol=8 / 20_000**0.5)
    precision = np.linalg.inv(wanted)
    edges = adata.varp["network"].toarray() > 0
    np.testing.assert_allclose(precision[~edges & ~np.eye(15, dtype=bool)], 0, atol=1e-12)
    assert (np.abs(precision[edges]) > 0.1).all()


def test_donors_differ_in_one_module_and_in_no_mean_or_variance() -> None:
    adata = simulate_donors(
        6, 4000, 30, n_modules=2, module_size=10, rewired=1, effect=1.0, counts=False, log_sd=0.5, seed=0
    )
    truth = adata.uns["truth"]
    assert adata.obs.groupby("donor", observed=True)["phenotype"].nunique().eq(1).all()
    assert list(adata.var.index[adata.var["rewired"]]) == [f"gene_{g}" for g in range(10, 20)]
    module = adata.var["module"].to_numpy()
    for donor, coupling, phenotype in zip(truth["donors"], truth["coupling"], truth["phenotype"], strict=True):
        x = adata[adata.obs["donor"] == donor].X
        assert coupling == pytest.approx(0.95 if phenotype else 0.05)
        np.testing.assert_allclose(x.mean(0), np.log(adata.var["mean"]) - 0.125, atol=5 * 0.5 / 4000**0.5)
        np.testing.assert_allclose(x.std(0), 0.5, atol=5 * 0.5 / 8000**0.5)
        for name, wanted in (("module_0", 0.5), ("module_1", coupling), ("none", 0.0)):
            of_module = np.corrcoef(x[:, module == name], rowvar=False)
            assert of_module[~np.eye(10, dtype=bool)].mean() == pytest.approx(wanted, abs=0.03)
        between = np.corrcoef(x, rowvar=False)[np.ix_(module == "module_0", module == "module_1")]
        assert between.mean() == pytest.approx(0, abs=0.03)


def test_counts_of_donors_are_poisson_of_log_normal_rates() -> None:
    adata = simulate_donors(4, 5000, 20, n_modules=1, module_size=5, log_sd=0.6, mean_count=3.0, seed=1)
    assert sp.issparse(adata.X)
    x, mean = adata.X.toarray(), adata.var["mean"].to_numpy()
    assert (x == np.round(x)).all()
    variance = mean + mean**2 * (np.exp(0.36) - 1)
    np.testing.assert_allclose(x.mean(0), mean, atol=5 * (variance.max() / 20_000) ** 0.5)
    np.testing.assert_allclose(x.var(0), variance, rtol=0.12)


def test_a_continuous_phenotype_is_spread_evenly_and_no_effect_is_the_null() -> None:
    adata = simulate_donors(5, 3, 10, n_modules=1, module_size=4, phenotype="continuous", effect=0.0, seed=2)
    assert sorted(adata.uns["truth"]["phenotype"]) == [0, 0.25, 0.5, 0.75, 1]
    assert set(adata.uns["truth"]["coupling"]) == {0.5}
    none = simulate_donors(4, 3, 10, n_modules=1, module_size=4, rewired=None)
    assert not none.var["rewired"].any()
    assert none.uns["truth"]["rewired"] == "none"


@pytest.mark.parametrize("simulate", [simulate_hubs, simulate_donors])
def test_a_seed_gives_the_same_cells_and_leaves_the_global_state_alone(simulate: Any) -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    one, again, other = (
        simulate(seed=seed) if simulate is simulate_donors else simulate(30, seed=seed) for seed in (1, 1, 2)
    )
    dense = [x.X.toarray() if sp.issparse(x.X) else x.X for x in (one, again, other)]
    np.testing.assert_array_equal(dense[0], dense[1])
    assert (dense[0] != dense[2]).any()
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize(
    ("simulate", "arguments", "says"),
    [
        (simulate_hubs, {"n_cells": 0}, "n_cells is 0"),
        (simulate_hubs, {"community_size": 1}, "at least 2"),
        (simulate_hubs, {"rho": 1.0}, "below 1"),
        (simulate_hubs, {"n_communities": 0, "n_isolated": 0}, "no genes"),
        (simulate_hubs, {"seed": True}, "seed is True"),
        (simulate_donors, {"n_donors": 1}, "at least 2"),
        (simulate_donors, {"n_genes": 50}, "80"),
        (simulate_donors, {"rewired": 4}, "0 to 3"),
        (simulate_donors, {"effect": 2}, "between -1 and 1"),
        (simulate_donors, {"phenotype": "ordinal"}, "'binary', 'continuous'"),
        (simulate_donors, {"mean_count": 0}, "above 0"),
        (simulate_donors, {"log_sd": float("inf")}, "finite"),
    ],
)
def test_arguments_without_meaning_are_refused(simulate: Any, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingError, match=says):
        simulate(**arguments)
