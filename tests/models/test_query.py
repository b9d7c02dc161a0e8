"""New cells in the latent space of a reference that stays as it is, bit for bit."""

from __future__ import annotations

from collections.abc import Callable

import anndata as ad
import numpy as np
import pytest
import torch
from battery import arrays, assert_same_weights, assert_sentence, fingerprint, weights
from sklearn.neighbors import KNeighborsClassifier

import lucidcell as lc
from lucidcell.cells.simulate import simulate_counts
from lucidcell.errors import DataError, NotTrainedError
from lucidcell.models.scvi import SCVI

VARIANTS = [
    {},
    {"encode_covariates": True, "n_layers": 2, "categorical_covariate_keys": ["sex"]},
    {"dispersion": "gene-batch", "gene_likelihood": "zinb"},
    {"use_observed_lib_size": False},
    {"latent_distribution": "ln", "n_latent": 4},
    {"size_factor_key": "size"},
]


@pytest.fixture(scope="module")
def atlas() -> ad.AnnData:
    """Three batches of the same three types."""
    return simulate_counts(450, 80, n_programs=3, n_types=3, n_batches=3, batch_effect=0.5, seed=11)


@pytest.fixture(scope="module")
def query(atlas: ad.AnnData) -> ad.AnnData:
    """The third batch, unknown to the reference; genes in another order."""
    genes = np.random.default_rng(0).permutation(80)
    return atlas[atlas.obs["batch"] == "batch_2", genes].copy()


@pytest.fixture(scope="module")
def reference(atlas: ad.AnnData) -> SCVI:
    model = SCVI(
        atlas[atlas.obs["batch"] != "batch_2"].copy(),
        batch_key="batch",
        labels_key="cell_type",
        n_hidden=32,
        n_latent=5,
        encode_covariates=True,
    )
    model.train(50, batch_size=32, num_threads=1, progress=False)
    return model


def accuracy(reference: SCVI, mapped: SCVI, query: ad.AnnData) -> float:
    """Labels of the query's cells by their 15 nearest neighbours in the reference."""
    labels = np.array(reference.schema.label_categories)[reference.cells.label]
    known = KNeighborsClassifier(15).fit(reference.get_latent_representation(), labels)
    return known.score(mapped.get_latent_representation(), query.obs["cell_type"].astype(str))


def test_cells_of_a_new_batch_find_their_type(reference, query):
    assert accuracy(reference, reference.map_query(query), query) > 0.8, "chance is a third"


def test_with_a_third_of_the_genes_missing_too(reference, query, caplog):
    whole = reference.map_query(query)
    rng = np.random.default_rng(1)
    fewer = query[:, np.sort(rng.choice(80, 56, replace=False))].copy()
    mapped = reference.map_query(fewer)
    assert "24 of 80 genes (30%) are missing" in caplog.text
    assert accuracy(reference, mapped, fewer) > accuracy(reference, whole, query) - 0.08
    assert not mapped.cells.present.all()
    # what is put in the place of missing genes must be near what is missing
    order = [query.var_names.get_loc(name) for name in reference.schema.gene_names]
    truth = query.X.toarray()[:, order]
    filled = np.stack([mapped.cells.take(np.array([n])).counts.dense()[0].numpy() for n in range(len(mapped.cells))])
    missing = ~mapped.cells.present
    np.testing.assert_array_equal(filled[:, ~missing], truth[:, ~missing])
    guess, means = filled[:, missing].mean(0), truth[:, missing].mean(0)
    assert np.corrcoef(np.log(guess + 1), np.log(means + 1))[0, 1] > 0.7, "but for the unknown shift of the batch"
    assert np.abs(filled.sum(1) / truth.sum(1) - 1).mean() < 0.15


@pytest.mark.parametrize("arguments", VARIANTS, ids=str)
def test_the_reference_stays_bit_for_bit_and_known_batches_are_not_trained(trained, simulated, arguments):
    model = trained(**arguments)
    before, latent = weights(model), model.get_latent_representation(mc_samples=50)
    data = fingerprint(simulated)
    same = model.map_query(simulated)
    assert_same_weights(weights(same), before)
    np.testing.assert_array_equal(same.get_latent_representation(mc_samples=50), latent)
    simulated.obs["batch"] = np.where(np.arange(120) < 60, "batch_0", "new")
    changed = fingerprint(simulated)
    mapped = model.map_query(simulated, max_epochs=3)
    assert_same_weights(weights(model), before)
    np.testing.assert_array_equal(model.get_latent_representation(mc_samples=50), latent)
    assert fingerprint(simulated) == changed != data
    assert mapped.schema.batch_categories == ("batch_0", "batch_1", "new")
    assert model.schema.batch_categories == ("batch_0", "batch_1")


@pytest.mark.parametrize("arguments", VARIANTS, ids=str)
def test_only_the_columns_of_new_batches_are_new(trained, simulated, arguments):
    model = trained(**arguments)
    simulated.obs["batch"] = np.where(np.arange(120) < 60, "batch_1", "new")
    mapped = model.map_query(simulated, max_epochs=3)
    old, new = weights(model), weights(mapped)
    grown = {name for name in old if old[name].shape != new[name].shape}
    for name in old:
        kept = tuple(slice(0, n) for n in old[name].shape)
        assert torch.equal(new[name][kept], old[name]), name
    assert "decoder.layers.0.linear.weight" in grown
    assert ("encoder.first.covariate_weight" in grown) == arguments.get("encode_covariates", False)
    assert not mapped.module.training
    assert all(p.requires_grad and p.grad is None for p in mapped.module.parameters())


def test_without_encoded_batches_the_embedding_is_that_of_the_reference(trained, simulated):
    model = trained()
    latent = model.get_latent_representation()
    simulated.obs["batch"] = ["new"] * 120
    np.testing.assert_array_equal(model.map_query(simulated, max_epochs=2).get_latent_representation(), latent)


def test_training_the_new_columns_improves_the_fit_of_the_query(reference, query):
    little, much = (reference.map_query(query, max_epochs=n) for n in (1, 60))
    assert much.get_elbo(n_samples=5) > little.get_elbo(n_samples=5) + 1
    assert much.record.epochs == 60
    assert list(much.history["phase"].unique()) == ["query"]


def test_the_same_seed_gives_the_same_mapping(reference, query):
    first, second = (reference.map_query(query, max_epochs=3) for _ in range(2))
    assert_same_weights(weights(first), weights(second))


def test_order_of_genes_and_strangers_among_them_do_not_matter(reference, atlas, query):
    plain = atlas[atlas.obs["batch"] == "batch_2"].copy()
    strangers = ad.AnnData(np.ones((plain.n_obs, 3), np.float32))
    strangers.obs_names, strangers.var_names = plain.obs_names, ["x", "y", "z"]
    more = ad.concat([strangers, plain], axis=1)
    more.obs = plain.obs
    wanted = reference.map_query(plain, max_epochs=2).get_latent_representation()
    for other in (query, more):
        np.testing.assert_array_equal(reference.map_query(other, max_epochs=2).get_latent_representation(), wanted)


def test_a_query_without_labels_or_with_unknown_ones_is_mapped(reference, query):
    wanted = reference.map_query(query, max_epochs=2).get_latent_representation()
    bare = query.copy()
    del bare.obs["cell_type"]
    mapped = reference.map_query(bare, max_epochs=2)
    np.testing.assert_array_equal(mapped.get_latent_representation(), wanted)
    assert (mapped.cells.label == -1).all()
    bare.obs["cell_type"] = "never seen"
    np.testing.assert_array_equal(reference.map_query(bare, max_epochs=2).get_latent_representation(), wanted)


def test_one_cell_can_be_mapped(reference, query):
    mapped = reference.map_query(query[:1].copy())
    assert mapped.get_latent_representation().shape == (1, 5)


def test_too_few_genes_are_refused_with_the_numbers(reference, query):
    with pytest.raises(DataError, match=r"the query has 30 of the reference's 80 genes \(38%\), below min_overlap=50%"):
        reference.map_query(query[:, :30].copy())
    assert reference.map_query(query[:, :30].copy(), min_overlap=0.3, max_epochs=1).get_latent_representation().shape[1]
    renamed = query.copy()
    renamed.var_names = [f"ENSG{i:011d}" for i in range(80)]
    with pytest.raises(DataError, match="look like gene symbols and the data's like Ensembl ids") as caught:
        reference.map_query(renamed)
    assert_sentence(caught.value)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda a: a.obs.drop(columns="batch"), "obs has no 'batch'"),
        (lambda a: a.obs.assign(batch=[None, *a.obs["batch"].astype(str)[1:]]), "no value \\(NaN\\) in 1 of 150 cells"),
    ],
    ids=["no batch column", "a batch is missing"],
)
def test_a_query_without_batches_is_refused(reference, query, damage, said):
    broken = query.copy()
    broken.obs = damage(broken)
    with pytest.raises(DataError, match=said) as caught:
        reference.map_query(broken)
    assert_sentence(caught.value)


def test_log_transformed_queries_are_refused(reference, query):
    broken = query.copy()
    broken.X = broken.X.log1p()
    with pytest.raises(DataError, match="looks log-transformed"):
        reference.map_query(broken)


def test_an_untrained_reference_maps_nothing(simulated):
    with pytest.raises(NotTrainedError, match="call train"):
        SCVI(simulated).map_query(simulated)


@pytest.mark.parametrize("missing", [False, True], ids=["all genes", "genes missing"])
def test_a_mapped_query_reads_out_saves_and_loads(reference, query, tmp_path, missing):
    chosen = query[:, :60].copy() if missing else query
    mapped = reference.map_query(chosen, max_epochs=2)
    mapped.save(tmp_path / "run")
    loaded = lc.load(tmp_path / "run")
    assert_same_weights(weights(loaded), weights(mapped))
    assert loaded.schema.batch_categories == ("batch_0", "batch_1", "batch_2")
    for ask in (
        lambda m: m.get_normalized_expression(transform_batch="batch_0"),
        lambda m: m.get_elbo(return_mean=False),
        lambda m: m.posterior_predictive_sample(),
        lambda m: m.get_loadings(),
    ):
        assert all(np.isfinite(a).all() for a in arrays(ask(mapped)))
    if not missing:
        np.testing.assert_array_equal(loaded.get_latent_representation(chosen), mapped.get_latent_representation())


def test_a_loaded_reference_maps_like_the_one_that_was_saved(reference, query, tmp_path):
    reference.save(tmp_path / "run")
    mapped: Callable[[SCVI], np.ndarray] = lambda m: m.map_query(query, max_epochs=2).get_latent_representation()  # noqa: E731
    np.testing.assert_array_equal(mapped(lc.load(tmp_path / "run")), mapped(reference))


def test_a_query_can_be_mapped_in_two_steps(reference, query):
    """A second new batch comes after the first one."""
    first = reference.map_query(query, max_epochs=2)
    later = query.copy()
    later.obs["batch"] = ["batch_9"] * later.n_obs
    second = first.map_query(later, max_epochs=2)
    assert second.schema.batch_categories == ("batch_0", "batch_1", "batch_2", "batch_9")
    assert np.isfinite(second.get_latent_representation()).all()
