"""The simulator's planted truth, checked against scipy's distributions and scikit-learn's decompositions."""

from __future__ import annotations

import random
import subprocess
import sys

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from scipy import stats
from scipy.linalg import subspace_angles
from scipy.special import softmax
from sklearn.decomposition import PCA
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from lucidcell.cells.simulate import simulate_counts
from lucidcell.errors import SettingError


def planted_rate(adata: ad.AnnData) -> np.ndarray:
    """Mean counts (cells, genes) before extra zeros, rebuilt from the stored truth alone."""
    log_rho = (
        adata.var["base"].to_numpy()
        + adata.obsm["programs"] @ adata.varm["programs"].T
        + adata.varm["batch_shift"][:, adata.obs["batch"].cat.codes].T
    )
    return adata.obs["library"].to_numpy()[:, None] * softmax(log_rho, axis=1)


def randomised_pit(counts: np.ndarray, cdf, rng: np.random.Generator) -> np.ndarray:
    """Values that are uniform on [0, 1] if and only if ``cdf`` is the distribution of the counts."""
    below = np.where(counts > 0, cdf(counts - 1), 0.0)
    return (below + rng.random(counts.shape) * (cdf(counts) - below)).ravel()


def log_expression(adata: ad.AnnData) -> np.ndarray:
    counts = adata.X.toarray()
    return np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))


def nb_cdf(rate: np.ndarray, theta: float):
    return stats.nbinom(theta, theta / (theta + rate)).cdf


@pytest.mark.parametrize("theta", [0.5, 5.0])
def test_nb_counts_follow_scipys_negative_binomial(theta):
    adata = simulate_counts(n_cells=400, n_genes=50, mean_library=500, dispersion=theta, seed=1)
    rate, counts, rng = planted_rate(adata), adata.X.toarray(), np.random.default_rng(0)
    assert stats.kstest(randomised_pit(counts, nb_cdf(rate, theta), rng), "uniform").pvalue > 0.01
    assert stats.kstest(randomised_pit(counts, stats.poisson(rate).cdf, rng), "uniform").pvalue < 1e-6


def test_nb_variance_is_mu_plus_mu_squared_over_theta():
    adata = simulate_counts(n_cells=2000, n_genes=50, dispersion=4.0, seed=2)
    rate = planted_rate(adata)
    squared = (adata.X.toarray() - rate) ** 2
    assert np.mean(squared / (rate + rate**2 / 4.0)) == pytest.approx(1.0, abs=0.03)


def test_poisson_counts_follow_scipys_poisson():
    adata = simulate_counts(n_cells=400, n_genes=50, mean_library=500, likelihood="poisson", seed=3)
    rate, counts, rng = planted_rate(adata), adata.X.toarray(), np.random.default_rng(0)
    assert stats.kstest(randomised_pit(counts, stats.poisson(rate).cdf, rng), "uniform").pvalue > 0.01
    assert stats.kstest(randomised_pit(counts, nb_cdf(rate, 5.0), rng), "uniform").pvalue < 1e-6


def test_zinb_counts_are_a_mixture_of_zeros_and_the_negative_binomial():
    adata = simulate_counts(n_cells=400, n_genes=50, mean_library=500, likelihood="zinb", zero_inflation=0.3, seed=4)
    rate, counts, rng = planted_rate(adata), adata.X.toarray(), np.random.default_rng(0)
    nb = nb_cdf(rate, 5.0)
    assert stats.kstest(randomised_pit(counts, lambda k: 0.3 + 0.7 * nb(k), rng), "uniform").pvalue > 0.01
    assert stats.kstest(randomised_pit(counts, nb, rng), "uniform").pvalue < 1e-6


def test_library_sizes_are_log_normal_with_the_stated_mean_and_drive_the_totals():
    adata = simulate_counts(n_cells=3000, mean_library=2000, library_sd=0.5, seed=5)
    library = adata.obs["library"].to_numpy()
    assert stats.kstest(library, stats.lognorm(0.5, scale=2000 * np.exp(-0.125)).cdf).pvalue > 0.01
    assert library.mean() == pytest.approx(2000, rel=0.03)
    totals = np.asarray(adata.X.sum(axis=1)).ravel()
    assert np.mean(totals / library) == pytest.approx(1.0, abs=0.02)


def canonical_correlations(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Correlations between two subspaces of cells: the cosines of their principal angles."""
    return np.cos(subspace_angles(left - left.mean(axis=0), right - right.mean(axis=0)))


def test_pca_of_log_data_finds_the_programs_in_cells_and_genes():
    adata = simulate_counts(n_cells=1000, n_genes=1000, seed=6)
    pca = PCA(n_components=8, random_state=0).fit(log_expression(adata))
    scores, activities, weights = pca.transform(log_expression(adata)), adata.obsm["programs"], adata.varm["programs"]
    assert canonical_correlations(scores, activities).min() > 0.9
    assert canonical_correlations(pca.components_.T, weights).min() > 0.85
    rng = np.random.default_rng(0)
    assert canonical_correlations(scores, rng.permutation(activities)).max() < 0.3
    assert canonical_correlations(pca.components_.T, rng.permutation(weights)).max() < 0.3


def test_programs_that_no_type_uses_still_vary_within_types():
    adata = simulate_counts(n_programs=4, n_types=1, n_batches=1, mean_library=10_000, seed=7)
    scores = PCA(n_components=8, random_state=0).fit_transform(log_expression(adata))
    assert canonical_correlations(scores, adata.obsm["programs"]).min() > 0.8


def test_types_can_be_told_apart_but_vary_within():
    adata = simulate_counts(seed=12)
    scores = PCA(n_components=8, random_state=0).fit_transform(log_expression(adata))
    labels = adata.obs["cell_type"].to_numpy()
    accuracy = cross_val_score(KNeighborsClassifier(15), scores, labels, scoring="balanced_accuracy").mean()
    assert accuracy > 0.9
    within = [adata.obsm["programs"][labels == label].std(axis=0) for label in np.unique(labels)]
    assert np.min(within) > 0.3


@pytest.mark.parametrize("n_types", [1, 3, 7])
def test_types_are_distinct_sets_of_programs_of_equal_size(n_types):
    adata = simulate_counts(n_cells=700, n_programs=3, n_types=n_types, seed=8)
    sizes = adata.obs["cell_type"].value_counts()
    assert len(sizes) == n_types
    assert sizes.max() - sizes.min() <= 1
    activities = adata.obsm["programs"]
    means = np.stack([activities[adata.obs["cell_type"] == t].mean(axis=0) for t in sizes.index])
    assert np.all((means > 1.5) | (means < 1.0))
    assert len(np.unique(means > 1.25, axis=0)) == n_types


def test_weights_are_sparse_mostly_disjoint_and_named():
    adata = simulate_counts(n_genes=200, n_programs=4)
    used = adata.varm["programs"] > 0
    assert (used.sum(axis=0) == 33).all()  # 30 genes of its own and 3 borrowed
    assert (used.sum(axis=1) == 2).sum() == 12
    assert (used.sum(axis=1) == 0).sum() == 80
    own = adata.var["program"].to_numpy()
    for k, name in enumerate(adata.uns["truth"]["program_names"]):
        assert (own == name).sum() == 30
        assert used[own == name, k].all()
    assert (own[~used.any(axis=1)] == "none").all()


def test_batch_shift_has_the_stated_size_and_is_independent_of_the_types():
    adata = simulate_counts(n_cells=600, n_genes=2000, n_batches=3, batch_effect=0.4, seed=9)
    shift = adata.varm["batch_shift"]
    assert (shift[:, 0] == 0).all()
    assert stats.kstest(shift[:, 1:].ravel() / 0.4, "norm").pvalue > 0.01
    table = stats.contingency.crosstab(adata.obs["batch"], adata.obs["cell_type"]).count
    assert stats.chi2_contingency(table).pvalue > 0.01
    totals = [adata.X[(adata.obs["batch"] == f"batch_{s}").to_numpy()].sum(axis=0) for s in (0, 1)]
    seen = np.log(np.asarray(totals[1]) / np.asarray(totals[0])).ravel()
    expressed = np.asarray(totals[0]).ravel() > 200
    assert np.corrcoef(seen[expressed], shift[expressed, 1])[0, 1] > 0.9


def test_same_seed_same_data_other_seed_other_data():
    first, again, other = simulate_counts(seed=3), simulate_counts(seed=3), simulate_counts(seed=4)
    assert (first.X != again.X).nnz == 0
    assert first.obs.equals(again.obs)
    assert np.array_equal(first.obsm["programs"], again.obsm["programs"])
    assert (first.X != other.X).nnz > 1000


def test_global_random_state_is_untouched():
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002 (the legacy state is what must not move)
    simulate_counts(n_cells=50, n_genes=20)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002


def test_matrix_is_canonical_csr_float32_without_empty_cells():
    adata = simulate_counts(n_cells=500, n_genes=30, mean_library=0.5, library_sd=1.0, seed=10)
    assert sp.issparse(adata.X)
    assert adata.X.format == "csr"
    assert adata.X.dtype == np.float32
    adata.X.check_format(full_check=True)
    assert (adata.X.data > 0).all()
    assert (adata.X.data == np.round(adata.X.data)).all()
    assert adata.X.sum(axis=1).min() >= 1
    assert adata.obs_names.is_unique
    assert adata.var_names.is_unique
    assert len(adata.layers) == 0


def test_blocks_of_cells_follow_the_same_model():
    adata = simulate_counts(n_cells=5000, n_genes=20, mean_library=100, seed=11)
    tail = adata[4096:].copy()
    pit = randomised_pit(tail.X.toarray(), nb_cdf(planted_rate(tail), 5.0), np.random.default_rng(0))
    assert adata.shape == (5000, 20)
    assert stats.kstest(pit, "uniform").pvalue > 0.01


@pytest.mark.parametrize("file_format", ["h5ad", "zarr"])
def test_everything_survives_writing(file_format, tmp_path):
    adata = simulate_counts(n_cells=60, n_genes=30, likelihood="zinb")
    getattr(adata, f"write_{file_format}")(tmp_path / "simulated")
    back = getattr(ad, f"read_{file_format}")(tmp_path / "simulated")
    assert (adata.X != back.X).nnz == 0
    assert back.X.dtype == np.float32
    assert np.array_equal(planted_rate(adata), planted_rate(back))
    for column in ("cell_type", "batch"):
        assert back.obs[column].tolist() == adata.obs[column].tolist()
        assert list(back.obs[column].cat.categories) == list(adata.obs[column].cat.categories)
    assert back.var["program"].tolist() == adata.var["program"].tolist()
    truth, read = adata.uns["truth"], back.uns["truth"]
    assert set(truth) == set(read)
    assert list(truth.pop("program_names")) == list(read.pop("program_names"))
    assert truth == read


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_cells": 0}, r"n_cells=0 leaves nothing"),
        ({"n_batches": 0}, r"n_batches=0 leaves nothing"),
        ({"n_genes": 3}, r"n_programs=4 exceeds n_genes=3"),
        ({"n_types": 16}, r"n_types=16 exceeds the 15 sets"),
        ({"likelihood": "normal"}, r"likelihood='normal' is unknown: pass one of 'nb', 'zinb', 'poisson'"),
        ({"dispersion": 0.0}, r"dispersion=0 would leave cells empty"),
        ({"mean_library": float("nan")}, r"mean_library=nan must be"),
        ({"library_sd": -0.1}, r"library_sd=-0.1 must be"),
        ({"zero_inflation": 1.0}, r"zero_inflation=1.0 is a probability"),
    ],
)
def test_senseless_settings_are_refused_in_a_sentence(settings, message):
    with pytest.raises(SettingError, match=message):
        simulate_counts(**settings)


def test_smallest_data():
    adata = simulate_counts(n_cells=1, n_genes=1, n_programs=1, n_types=1, n_batches=1)
    assert adata.shape == (1, 1)
    assert adata.X.sum() >= 1


def test_module_imports_neither_torch_nor_scanpy_nor_anndata():
    code = "import sys, lucidcell.cells.simulate;print([m for m in ('torch', 'scanpy', 'anndata') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
