"""Differential expression: direct formulas on explicit draws, planted changes, null groups, and the promises made."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch
from battery import assert_sentence, random_state_kept
from scipy.stats import mannwhitneyu

from lucidcell.cells.simulate import simulate_counts
from lucidcell.errors import DataError, SettingError
from lucidcell.models.scvi import SCVI
from lucidcell.readouts import effect_sizes, scale_samples
from lucidcell.readouts.count_corrections import PRIOR_COUNT, correction, moments
from lucidcell.readouts.groups import Comparison
from lucidcell.readouts.scale_samples import Batches, PosteriorOfCells, draw, expression_blocks, shared_batches

TWO = {"group1": "type_0", "group2": "type_1"}
FEW = {"n_samples_overall": 60}


@pytest.fixture
def draws(trained):
    """50 draws of each of two types, and their expression (2, S, N, G) decoded in both batches."""
    model = trained()
    rows = [np.flatnonzero(model.cells.label == code) for code in (0, 1)]
    found = [draw(model.cells, one, 50, 0, PosteriorOfCells(model)) for one in rows]
    expression = []
    with torch.no_grad():
        for one in found:
            covariates = torch.from_numpy(model.cells.covariates[one.rows])
            design = [torch.cat([covariates, torch.eye(2)[[s]].expand(50, 2)], dim=1) for s in (0, 1)]
            expression.append([model.vae.decode(one.z, of_batch).exp().numpy() for of_batch in design])
    return model, found, np.array(expression, dtype=float)


# --- draws --------------------------------------------------------------------------------------------------------


def test_draws_have_the_law_of_the_posterior(trained):
    model = trained()
    rows = np.array([3, 50])
    one = draw(model.cells, rows, 20_000, 0, PosteriorOfCells(model))
    mu, variance = model.get_latent_representation(indices=rows, return_dist=True)
    for i, row in enumerate(rows):
        z = one.z[one.rows == row].numpy()
        assert len(z) == 10_000
        np.testing.assert_allclose(z.mean(0), mu[i], atol=4 * np.sqrt(variance[i].max() / 10_000))
        np.testing.assert_allclose(z.var(0), variance[i], rtol=0.06)


@pytest.mark.parametrize(("n", "often"), [(40, {1}), (100, {2, 3}), (25, {0, 1}), (120, {3})])
def test_every_cell_is_drawn_equally_often(trained, n, often):
    model = trained()
    rows = np.flatnonzero(model.cells.label == 0)
    one = draw(model.cells, rows, n, 0, PosteriorOfCells(model))
    counts = np.bincount(one.rows, minlength=120)
    assert counts.sum() == n
    assert set(counts[rows]) == often
    assert one.n_cells == min(n, 40)


def test_expression_is_decoded_in_every_batch_and_averaged(draws):
    model, found, wanted = draws
    batches = Batches((0, 1), (0.3, 0.7))
    (genes, (first, second)), *more = expression_blocks(model, found, batches, average=True)
    assert (genes, more) == (slice(0, 50), [])
    for e, all_batches in ((first, wanted[0]), (second, wanted[1])):
        np.testing.assert_allclose(e[0], 0.3 * all_batches[0] + 0.7 * all_batches[1], rtol=1e-5)
    ((_, (first, second)),) = expression_blocks(model, found, batches, average=False)
    np.testing.assert_allclose([first, second], wanted, rtol=1e-5)


def test_without_correction_each_cell_keeps_its_batch(draws):
    model, found, wanted = draws
    ((_, ((first,), _)),) = expression_blocks(model, found, Batches((None,), (1.0,)), average=True)
    own = model.cells.batch[found[0].rows]
    np.testing.assert_allclose(first, np.where(own[:, None] == 0, wanted[0][0], wanted[0][1]), rtol=1e-5)


def test_batches_are_those_of_both_groups_weighted_by_cells_or_equally(trained):
    cells = trained().cells
    in_first = np.flatnonzero(cells.batch == 0)
    some = np.r_[in_first[:10], np.flatnonzero(cells.batch == 1)[:5]]
    both = Comparison("a", "b", np.sort(some), in_first[10:30])
    assert shared_batches(cells, both, "empirical", True) == Batches((0,), (1.0,))
    mixed = Comparison("a", "b", np.sort(some), np.setdiff1d(np.arange(120), some))
    weights = np.bincount(cells.batch) / 120
    assert shared_batches(cells, mixed, "empirical", True) == Batches((0, 1), tuple(weights.tolist()))
    assert shared_batches(cells, mixed, "uniform", True) == Batches((0, 1), (0.5, 0.5))
    assert shared_batches(cells, mixed, "uniform", False) == Batches((None,), (1.0,))


def test_groups_without_a_common_batch_are_refused(trained, simulated):
    model, masks = trained(), [simulated.obs["batch"] == name for name in ("batch_0", "batch_1")]
    with pytest.raises(
        DataError, match="'idx1' has cells in 'batch_0' .*'idx2' in 'batch_1'.*batch_correction=False"
    ) as caught:
        model.differential_expression(idx1=masks[0], idx2=masks[1])
    assert_sentence(caught.value)
    table = model.differential_expression(idx1=masks[0], idx2=masks[1], batch_correction=False, **FEW)
    assert len(table) == 50


# --- vanilla ------------------------------------------------------------------------------------------------------


def test_probability_of_being_higher_is_that_of_all_pairs():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 6, (40, 7)).astype(np.float32), rng.integers(0, 6, (30, 7)).astype(np.float32)
    found = effect_sizes.probability_higher(first, second)
    brute = [np.mean([a > b for a, b in itertools.product(first[:, g], second[:, g])]) for g in range(7)]
    np.testing.assert_allclose(found, brute, rtol=1e-12)
    continuous = rng.normal(size=(40, 7)), rng.normal(size=(30, 7))
    np.testing.assert_allclose(
        effect_sizes.probability_higher(*continuous), mannwhitneyu(*continuous).statistic / (40 * 30), rtol=1e-12
    )


@pytest.mark.parametrize("batch_average", ["expression", "probability"])
@pytest.mark.parametrize("batch_weights", ["empirical", "uniform"])
def test_vanilla_by_brute_force_over_explicit_draws(draws, batch_average, batch_weights):
    model, _, e = draws
    size = np.bincount(model.cells.batch[model.cells.label < 2]).astype(float)
    weights = size / size.sum() if batch_weights == "empirical" else np.array([0.5, 0.5])
    e = e.astype(np.float32)
    if batch_average == "expression":
        mean = np.einsum("s,asng->ang", weights, e)
        wanted = (mean[0][:, None] > mean[1][None]).mean((0, 1))
    else:
        wanted = sum(w * (e[0, s][:, None] > e[1, s][None]).mean((0, 1)) for s, w in enumerate(weights))
    table = model.differential_expression(
        mode="vanilla", n_samples_overall=50, batch_average=batch_average, batch_weights=batch_weights, **TWO
    ).loc[list(model.schema.gene_names)]
    np.testing.assert_allclose(table["proba_m1"], wanted, atol=2e-3)  # a float32 tie may fall to either side
    np.testing.assert_allclose(table["proba_m1"] + table["proba_m2"], 1, rtol=1e-12)
    np.testing.assert_allclose(table["bayes_factor"], np.log(wanted + 1e-8) - np.log(1 - wanted + 1e-8), atol=0.05)
    np.testing.assert_allclose(table["scale1"], np.einsum("s,sng->g", weights, e[0]) / 50, rtol=1e-5)


def test_the_two_averages_over_batches_differ_where_batches_disagree():
    """One batch says higher by a lot, the other lower by a little: the expression is higher, the probability is not."""
    first = np.array([[[9.0]], [[1.0]]]), np.array([[[1.0]], [[2.0]]])  # (S, N, G) of either group
    expression = effect_sizes.probability_higher(first[0].mean(0), first[1].mean(0))
    probability = np.mean([effect_sizes.probability_higher(a, b) for a, b in zip(*first, strict=True)])
    assert (expression[0], probability) == (1.0, 0.5)


# --- change -------------------------------------------------------------------------------------------------------


def test_bootstrap_weights_give_every_cell_its_dirichlet_share():
    weights = effect_sizes.bootstrap_weights(60, 20, 20_000, np.random.default_rng(0))
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    cells = weights.reshape(-1, 20, 3).sum(2)  # three draws of each
    np.testing.assert_allclose(cells.mean(0), 1 / 20, rtol=0.03)
    np.testing.assert_allclose(cells.var(0), (1 / 20) * (19 / 20) / 21, rtol=0.08)  # of a Dirichlet(1, ..., 1)


def test_the_posterior_without_calibration_is_that_of_the_bootstrapped_means(draws):
    model, _, e = draws
    rng = np.random.default_rng(1)
    size = np.bincount(model.cells.batch[model.cells.label < 2]).astype(float)
    mean = np.einsum("s,asng->ang", size / size.sum(), e)
    sampled = [rng.dirichlet(np.full(50, 40 / 50), 20_000) @ one for one in mean]
    c = 1e-3 / np.median(model.cells.library)
    lfc = np.log2(sampled[0] + c) - np.log2(sampled[1] + c)
    table = model.differential_expression(calibrate=False, n_samples_overall=50, delta=0.1, **TWO)
    table = table.loc[list(model.schema.gene_names)]
    sd = lfc.std(0)
    np.testing.assert_allclose(table["lfc_mean"], lfc.mean(0), atol=5 * sd.max() / np.sqrt(1000))
    np.testing.assert_allclose(table["lfc_std"], sd, rtol=0.15)
    np.testing.assert_allclose(table["proba_de"], (np.abs(lfc) > 0.1).mean(0), atol=0.07)
    np.testing.assert_allclose(table["lfc_low"], np.quantile(lfc, 0.025, axis=0), atol=0.6 * sd.max())
    np.testing.assert_allclose(table["lfc_high"], np.quantile(lfc, 0.975, axis=0), atol=0.6 * sd.max())


def test_pairs_of_cells_by_direct_formula(draws):
    model, _, e = draws
    size = np.bincount(model.cells.batch[model.cells.label < 2]).astype(float)
    mean = np.einsum("s,asng->ang", size / size.sum(), e)
    lfc = np.log2(mean[0] + 1e-5) - np.log2(mean[1] + 1e-5)
    table = model.differential_expression(pairs=True, n_samples_overall=50, pseudocounts=1e-5, **TWO)
    table = table.loc[list(model.schema.gene_names)]
    np.testing.assert_allclose(table["proba_de"], (np.abs(lfc) > 0.25).mean(0), atol=0.021)
    for column, wanted in (("mean", lfc.mean(0)), ("median", np.median(lfc, 0)), ("std", lfc.std(0))):
        np.testing.assert_allclose(table[f"lfc_{column}"], wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("likelihood", ["nb", "zinb", "poisson"])
def test_moments_of_the_counts_are_those_of_draws(trained, likelihood):
    from lucidcell.readouts.expression import sample_counts

    parameters = {"mean": torch.tensor([[4.0]]), "theta": torch.tensor([[1.5]]), "dropout": torch.tensor([[0.3]])}
    kept = {"nb": 2, "zinb": 3, "poisson": 1}[likelihood]
    parameters = dict(list(parameters.items())[:kept])
    mean, variance = moments(parameters)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        counts = sample_counts({name: value.expand(200_000, 1) for name, value in parameters.items()})
    assert mean.item() == pytest.approx(counts.mean().item(), rel=0.02)
    assert variance.item() == pytest.approx(counts.var().item(), rel=0.03)


def test_counts_put_a_wrong_decoder_right(trained):
    """Multiply what a gene's decoder says by 4 in every cell: the correction takes it back."""
    model = trained(gene_likelihood="poisson")
    rows = np.flatnonzero(model.cells.label == 0)
    one = draw(model.cells, rows, 40, 0, PosteriorOfCells(model))
    before = correction(model, one)
    bias = model.vae.rho.bias.data
    kept = bias.clone()
    try:
        bias[7] += np.log(4.0)
        after = correction(model, one)
    finally:
        bias.copy_(kept)
    share = model.get_normalized_expression(indices=rows)["gene_7"].mean()
    fourfold = 4 * share / (1 + 3 * share)  # the softmax renormalises
    np.testing.assert_allclose(after.shape[7], before.shape[7], rtol=1e-5)  # counts are counts
    expected = [one.rate[7] - PRIOR_COUNT for one in (after, before)]
    np.testing.assert_allclose(expected[0] / expected[1], fourfold / share, rtol=0.02)
    factors = before.draw(slice(0, 50), 4000, np.random.default_rng(0))
    np.testing.assert_allclose(factors.mean(0), before.shape / before.rate, rtol=0.12)


def test_poisson_corrections_are_observed_over_expected_counts(trained):
    model = trained(gene_likelihood="poisson")
    rows = np.flatnonzero(model.cells.label == 0)
    one = draw(model.cells, rows, 400, 0, PosteriorOfCells(model))  # ten draws of each cell count as one
    found = correction(model, one)
    counts = model.cells.take(rows).counts.dense().numpy()
    np.testing.assert_allclose(found.shape - PRIOR_COUNT, counts.sum(0), rtol=1e-4)
    expected = model.get_normalized_expression(indices=rows, library_size="latent", n_samples=200).sum()
    np.testing.assert_allclose(found.rate - PRIOR_COUNT, expected, rtol=0.04)


# --- what is made of them -----------------------------------------------------------------------------------------


def test_bayesian_false_discovery_rate_by_hand():
    complement = np.array([0.5, 0.0, 0.02, 0.2, 0.03])
    #  surest first: 0, 0.02, 0.03, 0.2, 0.5 -> means 0, 0.01, 0.0166.., 0.0625, 0.15
    np.testing.assert_allclose(effect_sizes.expected_fdr(complement), [0.15, 0.0, 0.01, 0.0625, 0.05 / 3])


def test_surely_is_the_end_nearest_to_zero():
    low, high = np.array([0.5, -2.0, -1.0, 0.0]), np.array([1.0, -0.7, 1.0, 2.0])
    np.testing.assert_array_equal(effect_sizes.surely(low, high), [0.5, -0.7, 0.0, 0.0])


def test_the_table_tells_what_was_counted(trained, simulated):
    table = trained().differential_expression(**TWO, **FEW).loc[list(simulated.var_names)]
    for side, name in (("1", "type_0"), ("2", "type_1")):
        x = simulated[simulated.obs["cell_type"] == name].X.toarray()
        np.testing.assert_allclose(table["raw_mean" + side], x.mean(0), rtol=1e-5)
        np.testing.assert_allclose(table["non_zeros_proportion" + side], (x > 0).mean(0))
        np.testing.assert_allclose(
            table["raw_normalized_mean" + side], (x / x.sum(1, keepdims=True) * 1e4).mean(0), rtol=1e-5
        )
    assert set(table["comparison"]) == {"type_0 vs type_1"}
    assert table["proba_de"].between(0, 1).all()
    assert table.index.name == "gene"


@pytest.mark.parametrize("arguments", [{}, {"calibrate": False}, {"pairs": True}, {"mode": "vanilla"}])
def test_exchanging_the_groups_flips_the_sign(trained, arguments):
    model = trained()
    there = model.differential_expression(**TWO, **FEW, **arguments)
    back = model.differential_expression(group1="type_1", group2="type_0", **FEW, **arguments).loc[there.index]
    np.testing.assert_allclose(there["lfc_mean"], -back["lfc_mean"], atol=1e-12)
    assert there["lfc_mean"].abs().max() > 0.05
    if arguments.get("mode") == "vanilla":
        np.testing.assert_allclose(there["proba_m1"], back["proba_m2"], atol=1e-3)  # but for ties
    else:
        np.testing.assert_allclose(there["proba_de"], back["proba_de"], rtol=1e-9)
        np.testing.assert_allclose(there["lfc_sure"], -back["lfc_sure"], atol=1e-9)


@pytest.mark.parametrize("arguments", [{}, {"calibrate": False}, {"pairs": True}, {"mode": "vanilla"}])
def test_the_same_seed_gives_the_same_table_whatever_the_chunks(trained, arguments, monkeypatch):
    model = trained()
    with random_state_kept():
        wanted = model.differential_expression(**TWO, **FEW, **arguments)
    torch.manual_seed(99)
    pd.testing.assert_frame_equal(model.differential_expression(**TWO, **FEW, **arguments), wanted, check_exact=True)
    monkeypatch.setattr(scale_samples, "GENES_AT_A_TIME", 7)
    blocks = model.differential_expression(**TWO, **FEW, **arguments)
    monkeypatch.setattr(scale_samples, "BYTES_OF_EXPRESSION", 1)  # decode one block at a time
    pd.testing.assert_frame_equal(model.differential_expression(**TWO, **FEW, **arguments), blocks, check_exact=True)
    other = model.differential_expression(**TWO, **FEW, **arguments, seed=1)
    assert not other["lfc_mean"].equals(wanted["lfc_mean"])


def test_group_against_rest_is_the_comparison_with_the_mask(trained, simulated):
    model, mask = trained(), (simulated.obs["cell_type"] == "type_0").to_numpy()
    by_name = model.differential_expression(group1="type_0", **FEW)
    by_mask = model.differential_expression(idx1=mask, **FEW)
    columns = [name for name in by_name if name not in ("comparison", "group1", "group2")]
    pd.testing.assert_frame_equal(by_name[columns], by_mask[columns], check_exact=True)
    every = model.differential_expression(simulated, groupby="cell_type", **FEW)
    pd.testing.assert_frame_equal(every[every["group1"] == "type_0"], by_name, check_exact=True)
    assert len(every) == 150


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mode": "wilcoxon"}, "mode is 'wilcoxon'; it must be one of change, vanilla"),
        ({"batch_average": "mean"}, "batch_average is 'mean'"),
        ({"batch_weights": "paper"}, "batch_weights is 'paper'"),
        ({"fdr": 0.0}, "fdr is 0.0"),
        ({"fdr": 5}, "fdr is 5"),
        ({"delta": -1.0}, "delta is -1.0"),
        ({"delta": np.inf}, "delta is inf"),
        ({"n_samples_overall": 1}, "n_samples_overall is 1"),
        ({"pseudocounts": 0.0}, "pseudocounts is 0.0"),
        ({"pseudocounts": 1.0}, "pseudocounts is 1.0"),
        ({"scanvi_latent": "posterior"}, "scanvi_latent is 'posterior'"),
        ({"scanvi_latent": "prior"}, "scanvi_latent='prior' is for SCANVI.*SCVI has none"),
        ({"mode": "vanilla", "pairs": True}, "pairs=True is for mode='change'"),
        ({"batch_average": "probability"}, "batch_average='probability' is for mode='vanilla'"),
        ({"delta": 0.0, "pairs": True}, "delta=0 asks"),
        ({"delta": 0.0, "calibrate": False}, "delta=0 asks"),
    ],
)
def test_arguments_without_meaning_are_refused(trained, wrong, message):
    with pytest.raises(SettingError, match=message) as caught:
        trained().differential_expression(**TWO, **wrong)
    assert_sentence(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"latent_distribution": "ln"},
        {"use_observed_lib_size": False, "gene_likelihood": "zinb"},
        {"dispersion": "gene-label"},
        {"categorical_covariate_keys": ["sex"], "continuous_covariate_keys": ["age"], "n_layers": 2},
        {"batch_key": None},
    ],
)
def test_every_kind_of_model_can_be_asked(trained, arguments):
    for mode in ("change", "vanilla"):
        table = trained(**arguments).differential_expression(mode=mode, **TWO, **FEW)
        assert np.isfinite(table.select_dtypes("number").to_numpy()).all()


def test_memory_does_not_grow_with_genes_times_draws():
    adata = simulate_counts(300, 3000, n_types=2, n_batches=1, seed=0)
    model = SCVI(adata, labels_key="cell_type", n_hidden=8, n_latent=2)
    model.train(1, num_threads=1, progress=False)

    def peak(n: int) -> int:
        tracemalloc.start()
        model.differential_expression(pairs=True, n_samples_overall=n, **TWO)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scale_samples, "BYTES_OF_EXPRESSION", 2**22)
        few, many = peak(500), peak(4000)
    everything = 4000 * 3000 * 4  # bytes of the expression of one group
    assert many < everything
    assert many - few < 0.6 * everything, (few, many)


# --- planted truth ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def planted():
    """A model of 900 cells x 150 genes of 3 types in 2 batches, with the true log2 fold changes of the types."""
    adata = simulate_counts(900, 150, n_programs=3, n_types=3, n_batches=2, dispersion=8.0, seed=4)
    model = SCVI(adata, batch_key="batch", labels_key="cell_type", n_latent=5, n_hidden=64)
    model.train(40, num_threads=1, progress=False)
    share = np.exp(adata.var["base"].to_numpy() + adata.obsm["programs"] @ adata.varm["programs"].T)
    share /= share.sum(1, keepdims=True)
    label = adata.obs["cell_type"].cat.codes.to_numpy()
    means = np.stack([share[label == t].mean(0) for t in range(3)])
    return adata, model, np.log2(means)


def test_planted_changes_are_found_with_honest_intervals(planted):
    adata, model, log_means = planted
    for first, second in ((0, 1), (0, 2), (1, 2)):
        truth = log_means[first] - log_means[second]
        table = model.differential_expression(group1=f"type_{first}", group2=f"type_{second}").loc[adata.var_names]
        assert np.corrcoef(table["lfc_mean"], truth)[0, 1] > 0.97
        called = table["is_de"].to_numpy()
        assert called.sum() > 20
        covered = (table["lfc_low"] <= truth) & (truth <= table["lfc_high"])
        assert covered[called].mean() > 0.9
        assert (np.abs(truth[called]) <= 0.25).mean() <= 0.1
        assert (called & (np.abs(truth) > 1)).sum() >= 0.9 * (np.abs(truth) > 1).sum()


def test_without_calibration_the_intervals_are_far_too_narrow(planted):
    """The reason for the default: the posterior of z alone does not know how wrong the decoder is."""
    adata, model, log_means = planted
    table = model.differential_expression(calibrate=False, **TWO).loc[adata.var_names]
    truth = log_means[0] - log_means[1]
    covered = (table["lfc_low"] <= truth) & (truth <= table["lfc_high"])
    assert covered[table["is_de"]].mean() < 0.7


def null_discoveries(model, adata, seed: int, **arguments) -> int:
    """Discoveries between two random halves of the cells."""
    half = np.random.default_rng(seed).permutation(adata.n_obs) < adata.n_obs // 2
    table = model.differential_expression(idx1=half, seed=seed, n_samples_overall=500, **arguments)
    return int(table["is_de"].sum())


def test_halves_of_the_same_cells_do_not_differ(planted):
    adata, model, _ = planted
    assert [null_discoveries(model, adata, seed) for seed in range(5)] == [0] * 5
    # without a least change, one run in twenty may make discoveries
    assert sum(null_discoveries(model, adata, seed, delta=0.0) > 0 for seed in range(5)) <= 1
    pairs = model.differential_expression(
        idx1=np.random.default_rng(0).permutation(900) < 450, pairs=True, n_samples_overall=500
    )  # as scvi-tools has it: any two cells differ
    assert pairs["proba_de"].median() > 0.3


def test_two_seeds_share_their_top_genes(planted):
    adata, model, _ = planted
    tops = [set(model.differential_expression(seed=seed, **TWO).index[:20]) for seed in (0, 1, 2)]
    assert min(len(tops[a] & tops[b]) for a, b in ((0, 1), (0, 2), (1, 2))) >= 18


@pytest.mark.slow
def test_false_discoveries_stay_within_the_rate_asked_for():
    """Genes that do not respond to the factors, in the simulation of bursting genes: 8 runs."""
    from lucidcell.cells.simulate_tree import simulate_tree

    shares = []
    for seed in range(8):
        adata = simulate_tree(1200, 400, de_fraction=0.2, seed=seed)
        model = SCVI(adata, batch_key="batch", labels_key="cell_type")
        model.train(seed=seed, progress=False)
        first, second, *_ = adata.obs["cell_type"].cat.categories
        called = model.differential_expression(group1=first, group2=second).loc[adata.var_names, "is_de"].to_numpy()
        shares.append((called & ~adata.var["differential"].to_numpy()).sum() / max(called.sum(), 1))
    assert np.mean(shares) <= 0.05 + 2 * np.std(shares, ddof=1) / np.sqrt(8), shares
