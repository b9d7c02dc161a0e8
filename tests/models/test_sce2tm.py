"""scE2TM and scETM: the objective term by term, neighbours, read-outs of topics, planted topics."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import cache

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from battery import checkpoint_every_step
from scipy.optimize import linear_sum_assignment
from torch.distributions import Normal, kl_divergence

import lucidcell as lc
from lucidcell.cells.simulate import simulate_counts
from lucidcell.errors import DataError, SettingError
from lucidcell.maths.transport import transport
from lucidcell.models.cross_view import consistency, neighbor_contrast, spread
from lucidcell.models.view_neighbors import partners as partners_of
from lucidcell.training.split import hold_out

SMALL = {"n_topics": 4, "n_hidden": 16, "n_embedding": 8}


@cache
def _cells() -> ad.AnnData:
    adata = simulate_counts(120, 50, n_programs=3, n_types=3, n_batches=2, seed=3)
    adata.obsm["outside"] = np.random.default_rng(0).normal(size=(120, 6)).astype(np.float32)
    return adata


def cells() -> ad.AnnData:
    return _cells().copy()


@cache
def trained() -> lc.SCE2TM:
    model = lc.SCE2TM(cells(), batch_key="batch", external_key="outside", **SMALL)
    model.train(5, batch_size=32, progress=False)
    return model


def batch_of(model: lc.SCE2TM, n: int = 30):
    """Cells that train, with their neighbours."""
    partners = partners_of(model.cells, np.arange(120), 10, 0)
    return replace(model.cells, partners=partners).take(np.arange(n))


# --- objective --------------------------------------------------------------------------------------------------


def test_the_loss_is_the_sum_of_its_equations() -> None:
    """Every term by another way: batch-norm, softmax and matrix products as torch has them, cell by cell."""
    model = trained()
    module = deepcopy(model.module).train()  # whose running moments move
    batch = batch_of(model)
    torch.manual_seed(7)
    loss = module.loss(batch, 1.0)
    torch.manual_seed(7)
    q = module.encode(batch)
    theta = torch.softmax(q.mu + q.sigma * torch.randn_like(q.sigma), 1)
    genes, topics = (torch.from_numpy(t.to_numpy()) for t in (model.get_gene_embedding(), model.get_topic_embedding()))
    distance = torch.cdist(topics, genes).square()  # K x G
    beta = torch.softmax(-distance / 0.2, dim=0)
    np.testing.assert_allclose(beta.sum(0), 1, rtol=1e-5)
    raw = theta @ beta + torch.nn.functional.one_hot(batch.batch, 2).float() @ module.design_weight.t()
    logits = torch.nn.functional.batch_norm(raw, None, None, module.free_gamma(), module.beta, training=True, eps=1e-3)
    counts = batch.counts.dense()
    x = torch.log1p(counts / counts.sum(1, keepdim=True) * 1e4)
    scale = 3900 / module.mean_total
    reconstruction = -(scale * x * torch.log_softmax(logits, 1)).sum()
    torch.testing.assert_close(loss.terms["reconstruction"], reconstruction.detach(), rtol=1e-4, atol=1.0)
    kl = kl_divergence(Normal(q.mu, q.sigma), Normal(0.0, (1 - 1 / 4) ** 0.5)).sum()
    torch.testing.assert_close(loss.terms["kl"], kl.detach(), rtol=1e-5, atol=1e-3)
    plan = transport(distance.double(), tolerance=1e-9).plan
    assert float(loss.dataset["ecr"].detach()) == pytest.approx(100 * float((plan * distance).sum()), rel=0.02)
    near = module.encode(batch.pair)
    theta_n = torch.softmax(near.mu + near.sigma * torch.randn_like(near.sigma), 1)
    phi, phi_n = module.external_view(torch.cat([batch.external, batch.pair.external])).chunk(2)
    torch.testing.assert_close(loss.dataset["con"], consistency(theta, phi))
    torch.testing.assert_close(loss.dataset["nei"], neighbor_contrast(theta, phi, theta_n, phi_n))
    torch.testing.assert_close(loss.dataset["reg"], -5 * spread(theta, phi))


def test_a_cell_weighs_3900_on_average_whatever_the_data() -> None:
    for factor in (1, 7):
        adata = cells()
        adata.X = adata.X * factor
        for target in ("log", "counts", "normalized"):
            model = lc.SCE2TM(adata, target=target, **SMALL)
            model.train(1, batch_size=32, train_size=1.0, progress=False)
            batch = model.cells.take(np.arange(120))
            total = model.module.unscaled_target(batch).values.sum() * model.module.weight_scale / 120
            assert float(total) == pytest.approx(3900, rel=1e-4)


@pytest.mark.parametrize("how", ["implicit", "envelope", "unroll"])
def test_the_transport_moves_topics_and_genes(how: str) -> None:
    model = lc.SCE2TM(cells(), ecr_grad=how, **SMALL)
    model.train(3, batch_size=32, progress=False, learning_rate=1e-3)
    assert model.history["train_ecr"].is_monotonic_decreasing
    without = lc.SCE2TM(cells(), ecr_weight=0.0, **SMALL)
    without.train(3, batch_size=32, progress=False, learning_rate=1e-3)
    assert "train_ecr" not in without.history


# --- neighbours -------------------------------------------------------------------------------------------------


def test_neighbours_are_cells_that_train_and_never_the_cell_itself() -> None:
    model = lc.SCE2TM(cells(), external_key="outside", **SMALL)
    rows, held_out = hold_out(120, 0.8, 0)
    partners = partners_of(model.cells, rows, 10, 0)
    with_partners = replace(model.cells, partners=partners)
    for _ in range(3):
        batch = with_partners.take(rows)
        assert set(batch.pair.rows.tolist()) <= set(rows.tolist())
        assert not (batch.pair.rows == batch.rows).any()
    assert with_partners.take(held_out).pair is None
    for view in partners[:2]:
        degree = np.diff(view.indptr)
        assert (degree[rows] > 0).all()
        assert (degree[held_out] == 0).all()
        for row in rows[:5]:
            assert row not in view.indices[view.indptr[row] : view.indptr[row + 1]]


def test_neighbours_are_drawn_anew_and_repeatably() -> None:
    model = lc.SCE2TM(cells(), external_key="outside", **SMALL)
    with_partners = replace(model.cells, partners=partners_of(model.cells, np.arange(120), 10, 0))
    rng = np.random.default_rng(0)
    orders = [rng.permutation(120) for _ in range(2)]
    first, again = (with_partners.take(orders[0]).pair for _ in range(2))
    assert torch.equal(first.rows, again.rows)
    assert torch.equal(first.external, again.external)
    other = with_partners.take(orders[1]).pair.rows[np.argsort(orders[1])]
    assert not torch.equal(first.rows[np.argsort(orders[0])], other)


def test_external_embeddings_are_needed_for_training_alone() -> None:
    plain = cells()
    del plain.obsm["outside"]
    model = trained()
    z = model.get_latent_representation()
    np.testing.assert_array_equal(model.get_latent_representation(plain), z)
    with pytest.raises(DataError, match="outside"):
        lc.SCE2TM(plain, external_key="outside", **SMALL)
    beside = lc.SCE2TM(cells(), external_key="outside", external_use="concatenate", **SMALL)
    beside.train(1, progress=False)
    with pytest.raises(DataError, match="outside"):
        beside.get_latent_representation(plain)
    with pytest.raises(SettingError, match="needs external_key"):
        lc.SCE2TM(cells(), external_use="concatenate", **SMALL)


def test_a_model_loaded_without_its_external_view_cannot_train(tmp_path) -> None:
    plain = cells()
    del plain.obsm["outside"]
    trained().save(tmp_path / "run")
    loaded = lc.load(tmp_path / "run", plain)
    assert loaded.get_topics().shape == (120, 4)
    with pytest.raises(DataError, match="learns from obsm"):
        loaded.train(1, progress=False)


# --- read-outs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_class", [lc.SCE2TM, lc.SCETM])
def test_topics_loadings_and_archetypes_fit_together(model_class) -> None:
    model = model_class(cells(), batch_key="batch", **SMALL)
    model.train(3, batch_size=32, progress=False)
    theta = model.get_topics()
    np.testing.assert_allclose(theta.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(theta, np.exp(z := model.get_latent_representation()) / np.exp(z).sum(1, keepdims=True),
                               rtol=1e-4)  # fmt: skip
    batch = model.cells.take(np.arange(120))
    with torch.no_grad():
        log_p = model.module.decode(torch.from_numpy(theta.to_numpy(np.float32)), model.module.design(batch))
    effects = model.get_batch_effects().to_numpy().T[model.cells.batch]
    by_hand = theta.to_numpy() @ model.get_loadings().to_numpy().T + model.get_intercept().to_numpy() + effects
    by_hand -= np.log(np.exp(by_hand).sum(1, keepdims=True))
    np.testing.assert_allclose(log_p, by_hand, atol=1e-4)
    np.testing.assert_allclose(model.get_archetypes().sum(), 1, rtol=1e-6)


def test_rankings_of_genes() -> None:
    model = trained()
    of_topic, mean = model.get_archetypes(), model.mean_expression()
    lift = np.log(of_topic.div(mean, axis=0))
    np.testing.assert_allclose(
        model.get_topic_genes(ranking="relevance", weight=0.0), model.get_topic_genes(ranking="lift")
    )
    np.testing.assert_allclose(
        model.get_topic_genes(ranking="relevance", weight=0.3),
        0.3 * np.log(of_topic) + 0.7 * lift,
        rtol=1e-6,
        atol=1e-9,
    )
    np.testing.assert_allclose(model.get_topic_genes(ranking="published").sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(model.get_topic_genes(ranking="probability").sum(), 1, rtol=1e-6)
    counts = cells().X.toarray()[model.train_indices].mean(0)
    by_hand = model.get_loadings(center=True).mul(np.sqrt(counts), axis=0)
    np.testing.assert_allclose(model.get_topic_genes(), by_hand, rtol=1e-5, atol=1e-9)
    for wrong in ({"ranking": "beta"}, {"weight": 2}):
        with pytest.raises(SettingError):
            model.get_topic_genes(**wrong)


def test_switching_topics_off() -> None:
    model = trained()
    change = model.perturb_topics("T2")
    assert change.shape == (120, 50)
    theta = model.get_topics().to_numpy()
    least = int(theta[:, 1].argmin())
    assert np.abs(change.iloc[least]).max() < np.abs(change.iloc[int(theta[:, 1].argmax())]).max()
    others = model.perturb_topics(["T1", "T3", "T4"])  # all cells become archetypes of T2
    expected = np.log2(model.get_normalized_expression() * np.exp2(others))
    assert np.ptp(expected.to_numpy()[model.cells.batch == 0], axis=0).max() < 1e-3
    assert not np.allclose(model.perturb_topics("T2", mode="zero"), change)
    for wrong in ("T9", [], ["T1", "T2", "T3", "T4"]):
        with pytest.raises(SettingError, match="and not all"):
            model.perturb_topics(wrong)


def test_draws_are_around_the_mean() -> None:
    mean, variance = trained().get_latent_representation(return_dist=True)
    drawn = trained().get_latent_representation(give_mean=False, n_samples=400)
    np.testing.assert_allclose(drawn.mean(0), mean, atol=5 * np.sqrt(variance.max() / 400))
    np.testing.assert_allclose(drawn.var(0).mean(), variance.mean(), rtol=0.02)


def test_use_of_topics_is_measured_from_the_prior() -> None:
    model = lc.SCE2TM(cells(), prior_alpha=0.1, **SMALL)
    model.train(3, batch_size=32, progress=False)
    with torch.no_grad():
        batch = model.cells.take(np.arange(120))
        expected = float(model.module.kl_z(model.module.encode(batch)).mean())
    assert model.tables()["factors"]["kl"].sum() == pytest.approx(expected, rel=1e-4)


def test_presets_of_paper_and_public_code() -> None:
    paper, code = (lc.SCE2TM(cells(), reproduce=name, **SMALL).config for name in ("paper", "reference"))
    assert (paper.con, paper.reg, paper.normalize) == ("log_mean", "cell", "none")
    assert (code.con, code.reg, code.ecr_grad) == ("mean_log", "batch", "unroll")
    with pytest.raises(SettingError, match="must be one of paper, reference, or None"):
        lc.SCE2TM(cells(), reproduce="code", **SMALL)
    with pytest.raises(SettingError, match="means ecr_grad='unroll', and it is 'envelope': leave one out"):
        lc.SCE2TM(cells(), reproduce="paper", ecr_grad="envelope", **SMALL)


def test_a_checkpoint_of_another_objective_is_refused(tmp_path) -> None:
    """Though its weights have the same shapes."""
    arguments = {"max_epochs": 2, "batch_size": 32, "progress": False, "checkpoint_dir": tmp_path}
    with checkpoint_every_step():
        lc.SCE2TM(cells(), **SMALL).train(**arguments)
    with pytest.raises(SettingError, match="belongs to another run .*structure"):
        lc.SCE2TM(cells(), ecr_weight=0.0, **SMALL).train(resume=True, **arguments)


def test_topics_are_not_rotated() -> None:
    with pytest.raises(SettingError, match="mix topics"):
        trained().get_latent_representation(rotate="varimax")


def test_expression_is_on_the_scale_of_counts() -> None:
    """Shares of logarithms transformed back: near the shares of the counts, and they sum to 1."""
    model = lc.SCE2TM(cells(), **SMALL)
    model.train(40, batch_size=32, progress=False)
    expression = model.get_normalized_expression()
    np.testing.assert_allclose(expression.sum(axis=1), 1, rtol=1e-5)
    counts = cells().X.toarray()
    observed = (counts / counts.sum(1, keepdims=True)).mean(0)
    assert np.corrcoef(np.log(expression.mean()), np.log(observed + 1e-6))[0, 1] > 0.9


def test_shares_of_logarithms_are_transformed_back_cell_by_cell(monkeypatch) -> None:
    """Of cells whose logarithms are known without error, whatever their totals."""
    module = lc.SCE2TM(cells(), **SMALL).module
    counts = torch.from_numpy(cells().X.toarray())
    shares = counts / counts.sum(1, keepdim=True)
    x = (1e4 * shares).log1p()
    assert float(x.sum(1).max() / x.sum(1).min()) > 1.2
    monkeypatch.setattr(module, "decode", lambda z, design: (x / x.sum(1, keepdim=True)).log())
    torch.testing.assert_close(module.expression(None, None), shares, rtol=1e-4, atol=1e-9)


def test_without_all_topics_but_one_changes_are_finite() -> None:
    names = trained().factor_names
    assert np.isfinite(trained().perturb_topics(names[1:])).all(axis=None)
    assert (trained().get_normalized_expression() > 0).all(axis=None)


def planted_topics(n_topics: int, seed: int, n_cells: int = 1500, n_genes: int = 600) -> ad.AnnData:
    """Cells with one large topic and a few small ones, topics of 30 genes each over a common background."""
    rng = np.random.default_rng(seed)
    background = rng.gamma(0.5, size=n_genes) + 0.05
    topics = np.tile(background / background.sum(), (n_topics, 1))
    for k in range(n_topics):
        own = rng.choice(n_genes, 30, replace=False)
        topics[k, own] += rng.dirichlet(np.ones(30)) * 1.0
    topics /= topics.sum(1, keepdims=True)
    theta = rng.dirichlet(np.full(n_topics, 0.1), n_cells)
    counts = rng.poisson((theta @ topics) * rng.lognormal(8, 0.3, (n_cells, 1)))
    adata = ad.AnnData(counts.astype(np.float32))
    adata.var_names = [f"g{i}" for i in range(n_genes)]
    adata.obsm["theta"], adata.varm["topics"] = theta, topics.T
    return adata


def matched_correlation(found: np.ndarray, truth: np.ndarray) -> float:
    """Mean correlation of columns after the best matching."""
    k = found.shape[1]
    correlation = np.corrcoef(found.T, truth.T)[:k, k:]
    return float(correlation[linear_sum_assignment(-correlation)].mean())


@pytest.mark.slow
def test_planted_topics_are_found() -> None:
    adata = planted_topics(10, 0)
    lift = np.log(adata.varm["topics"] / adata.varm["topics"].mean(1, keepdims=True))
    model = lc.SCE2TM(adata, n_topics=10)
    model.train(progress=False)
    assert matched_correlation(model.get_topic_genes(ranking="lift").to_numpy(), lift) > 0.7


@pytest.mark.slow
def test_transport_keeps_topics_apart() -> None:
    adata = lc.select_genes(lc.pbmc3k(), n_top_genes=1000)
    diversity = {}
    for weight in (100.0, 0.0):
        model = lc.SCE2TM(adata, n_topics=50, ecr_weight=weight)
        model.train(60, progress=False)
        top = lc.metrics.best_genes(model.get_topic_genes(ranking="published"))
        diversity[weight] = lc.metrics.topic_diversity(top, kind="exclusive")
    assert diversity[100.0] > diversity[0.0] + 0.1


def test_the_table_of_topics_is_in_the_run_folder(tmp_path) -> None:
    trained().save(tmp_path / "run")
    shares = pd.read_csv(tmp_path / "run" / "tables" / "topics.csv", index_col="cell")
    np.testing.assert_allclose(shares, trained().get_topics(), rtol=1e-6)
    genes = pd.read_csv(tmp_path / "run" / "tables" / "topic_genes.csv", index_col="gene")
    np.testing.assert_allclose(genes, trained().get_topic_genes(), rtol=1e-6)


def test_shares_and_genes_of_topics_are_written(tmp_path) -> None:
    adata = cells()
    trained().write(adata)
    np.testing.assert_allclose(adata.obsm["sce2tm_topics"], trained().get_topics(), rtol=1e-5)
    np.testing.assert_allclose(adata.varm["sce2tm_topic_genes"], trained().get_topic_genes(), rtol=1e-5)
    pairs = {"scE2TM": ("sce2tm_topics", "sce2tm_topic_genes")}
    sets = {"first": list(adata.var_names[:20]), "last": list(adata.var_names[-20:])}
    found = lc.evaluate(adata, pairs, labels_key="cell_type", gene_sets=sets, metrics="interpretability")
    wanted = lc.metrics.topic_purity(trained().get_topics(), adata.obs["cell_type"])
    assert found.loc["scE2TM", "IP"] == pytest.approx(wanted["IP"])
    trained().save(tmp_path / "run")
    stored = ad.read_h5ad(tmp_path / "run" / "result.h5ad")
    for kind, key in (("obsm", "sce2tm_topics"), ("varm", "sce2tm_topic_genes")):
        np.testing.assert_allclose(getattr(stored, kind)[key], getattr(adata, kind)[key], rtol=1e-5)


def test_what_needs_counts_says_how_to_have_them() -> None:
    adata = cells()
    with pytest.raises(SettingError, match="use target='counts', or SCVI"):
        trained().differential_expression(adata, groupby="cell_type")
    model = lc.SCE2TM(adata, target="counts", **SMALL)
    model.train(2, batch_size=32, progress=False)
    assert len(model.differential_expression(adata, groupby="cell_type")) == 3 * 50


def test_the_report_ranks_genes_of_topics_as_the_model_does(tmp_path) -> None:
    from lucidcell.report.folder import Run

    trained().save(tmp_path / "run")
    run = Run(tmp_path / "run")
    assert run.ranked_by_signal
    assert not run.of_counts
    np.testing.assert_allclose(run.signal, trained().get_topic_genes(), rtol=1e-6)
    assert lc.report(tmp_path / "run").stat().st_size > 30_000
