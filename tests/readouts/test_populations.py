"""Networks of populations, with principal components in the place of siVAE: bins, resuming, planted differences."""

from __future__ import annotations

import json
from pathlib import Path

import anndata as ad
import networkx as nx
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.stats import kstest, mannwhitneyu, spearmanr

from lucidcell.errors import DataError, FileError, SettingError
from lucidcell.readouts import population_bins
from lucidcell.readouts.networks import gene_network
from lucidcell.readouts.population_bins import split
from lucidcell.readouts.population_graphs import network, principal_components, similarity, top_genes
from lucidcell.readouts.population_results import PopulationNetworks
from lucidcell.readouts.populations import population_networks

QUIET = {"bin_size": 100, "n_top_genes": 30, "quantile": 0.05, "progress": False}
N_GENES, N_DONORS = 40, 12


def principal(adata, layer, model_arguments, training, seed):
    """Four principal components of standardised log counts."""
    x = np.log1p((adata.X if layer is None else adata.layers[layer]).toarray())
    x = (x - x.mean(0)) / np.maximum(x.std(0), 1e-9)
    u, s, v = np.linalg.svd(x, full_matrices=False)
    table = pd.DataFrame(v[:4].T * s[:4] / np.sqrt(len(x)), adata.var_names)
    return table, pd.Series(1 - ((x - u[:, :4] * s[:4] @ v[:4]) ** 2).mean(0), adata.var_names)


@pytest.fixture
def fits(monkeypatch) -> list[int]:
    """The number of cells of every fit that was made."""
    made: list[int] = []

    def counted(adata, *arguments):
        made.append(adata.n_obs)
        return principal(adata, *arguments)

    monkeypatch.setattr(population_bins, "fit_bin", counted)
    return made


@pytest.fixture(scope="module")
def donors() -> ad.AnnData:
    """12 donors of 230 cells, one of 60. Genes 0 to 9 vary together, in ill donors genes 0 to 4 no more."""
    rng = np.random.default_rng(0)
    donor = np.r_[np.repeat(np.arange(N_DONORS), 230), np.repeat(N_DONORS, 60)]
    ill = donor % 2 == 1
    log_mean = np.tile(rng.uniform(0.5, 2, N_GENES), (len(donor), 1))
    program, other = rng.standard_normal((2, len(donor), 1))
    log_mean[:, :5] += 0.7 * np.where(ill[:, None], rng.standard_normal((len(donor), 5)), program)
    log_mean[:, 5:10] += 0.7 * program
    log_mean[:, 10:16] += 0.7 * other
    adata = ad.AnnData(sp.csr_matrix(rng.poisson(np.exp(log_mean)).astype(np.float32)))
    adata.var_names = [f"g{g}" for g in range(N_GENES)]
    names = np.array([f"d{d}" for d in range(N_DONORS)] + ["few"])
    adata.obs["donor"] = names[donor]
    adata.obs["health"] = np.where(ill, "ill", "well")
    adata.obs["age"] = (20.0 + donor)[:]
    adata.obs["cell"] = np.arange(len(donor))
    order = rng.permutation(len(donor))
    return adata[order].copy()


def by_hand(centrality: np.ndarray, networks=None, phenotype=None, mean=None) -> PopulationNetworks:
    """A result with this centrality, genes x populations, and any networks."""
    genes = pd.Index([f"g{g}" for g in range(len(centrality))], name="gene")
    populations = [f"p{p}" for p in range(centrality.shape[1])]
    nothing = pd.DataFrame()
    networks = networks or {name: [sp.csr_matrix((len(genes), len(genes)), dtype=bool)] for name in populations}
    table = pd.DataFrame(centrality, genes, populations)
    values = None if phenotype is None else pd.Series(phenotype, populations)
    kernel = pd.DataFrame(np.eye(len(populations)), populations, populations)
    means = table if mean is None else pd.DataFrame(mean, genes, populations)
    return PopulationNetworks(nothing, nothing, table, means, genes, networks, kernel, nothing, values)


def test_bins_are_equal_and_small_populations_listed(donors, fits):
    found = population_networks(donors, **QUIET)
    assert fits == [100] * 24
    assert (found.bins["n_cells"] == 100).all()
    assert (found.bins.groupby("population").size() == 2).all()
    assert found.dropped.to_dict("records") == [{"population": "few", "n_cells": 60}]
    assert list(found.networks) == list(found.kernel.index) == list(found.centrality.columns)
    assert found.phenotype is None
    of_population = found.bins.groupby("population")["mean_centrality"].mean()
    np.testing.assert_allclose(of_population[found.centrality.columns], found.centrality.mean())


def test_bins_of_a_population_are_disjoint_and_do_not_depend_on_the_others(donors):
    bins, kept, _ = split(donors.obs["donor"], bin_size=100, n_bins_max=None, seed=0)
    rows = np.concatenate([one.rows for one in bins])
    assert len(set(rows)) == len(rows) == 2400
    assert all((donors.obs["donor"].iloc[one.rows] == one.population).all() for one in bins)
    few = donors[donors.obs["donor"].isin(["d3", "d4"])]
    alone = split(few.obs["donor"], bin_size=100, n_bins_max=None, seed=0)[0]
    cells = {(one.population, one.number): list(donors.obs_names[one.rows]) for one in bins}
    assert [list(few.obs_names[one.rows]) for one in alone] == [cells[one.population, one.number] for one in alone]
    other = split(donors.obs["donor"], bin_size=100, n_bins_max=1, seed=1)[0]
    assert len(other) == len(kept) == 12
    assert list(other[0].rows) != list(bins[0].rows)


def test_rewired_genes_are_found_and_not_by_their_mean(donors, fits):
    found = population_networks(donors, phenotype="health", **QUIET)
    table = found.associate()
    assert set(table["gene"].head(5)) == {f"g{g}" for g in range(5)}
    assert table.loc[table["gene"].isin(["g0", "g1", "g2", "g3", "g4"]), "independent"].all()
    assert (table["effect"].head(5) == 1).all()  # of the second group: the well have the edges
    assert table.attrs["groups"] == ("ill", "well")
    assert not table["independent"][table["gene"].isin([f"g{g}" for g in range(16, 40)])].any()
    assert found.separation()["p_value"] < 0.05
    edges = found.edges()
    significant = edges[edges["q_value"] <= 0.05]
    assert len(significant) >= 3
    assert set(significant["gene1"]) | set(significant["gene2"]) <= {f"g{g}" for g in range(10)}
    sets = {"lost": [f"g{g}" for g in range(5)], "kept": [f"g{g}" for g in range(10, 16)]}
    enriched = found.enrichment(sets)
    assert enriched["term"][0] == "lost"
    assert enriched["p_value"][0] < 0.01


def test_shuffled_phenotypes_find_nothing(donors, fits):
    found, rng = population_networks(donors, **QUIET), np.random.default_rng(1)
    n_significant = 0
    for _ in range(20):
        values = dict(zip(found.networks, rng.permutation(["a", "b"] * 6), strict=True))
        n_significant += int((found.associate(values)["q_value"] <= 0.05).any())
    assert n_significant <= 3


def test_mean_expression_is_log_normalised(donors, fits):
    found = population_networks(donors, n_bins_max=1, **QUIET)
    one = split(donors.obs["donor"], bin_size=100, n_bins_max=1, seed=0)[0][3]
    x = donors.X[one.rows].toarray()
    expected = np.log1p(1e4 * x / x.sum(1, keepdims=True)).mean(0)
    np.testing.assert_allclose(found.mean_expression[one.population], expected, rtol=1e-6)
    assert "10,000" in found.mean_expression.attrs["unit"]
    scaled = donors.copy()
    scaled.layers["scaled"] = (donors.X / 3).tocsr()
    found = population_networks(scaled, n_bins_max=1, layer="scaled", **QUIET)
    np.testing.assert_allclose(found.mean_expression[one.population], x.mean(0) / 3, rtol=1e-6)


def test_a_finished_run_is_read_and_not_fitted_again(donors, fits, tmp_path):
    first = population_networks(donors, folder=tmp_path, **QUIET)
    assert len(fits) == 24
    second = population_networks(donors, folder=tmp_path, phenotype="age", **QUIET)
    assert len(fits) == 24
    for name in ("bins", "centrality", "mean_expression", "kernel", "embedding"):
        pd.testing.assert_frame_equal(getattr(first, name), getattr(second, name))
    without = population_networks(donors, **QUIET)
    pd.testing.assert_frame_equal(without.centrality, first.centrality)
    assert all(file.suffix in (".npz", ".json") for file in tmp_path.iterdir())


def test_a_run_that_was_cut_off_goes_on(donors, monkeypatch, tmp_path):
    made = []

    def dying(*arguments):
        if len(made) == 7:
            raise KeyboardInterrupt
        made.append(0)
        return principal(*arguments)

    monkeypatch.setattr(population_bins, "fit_bin", dying)
    with pytest.raises(KeyboardInterrupt):
        population_networks(donors, folder=tmp_path, **QUIET)
    assert len(list(tmp_path.glob("bin_*.npz"))) == 7
    rest = []
    monkeypatch.setattr(population_bins, "fit_bin", lambda *arguments: rest.append(0) or principal(*arguments))
    population_networks(donors, folder=tmp_path, **QUIET)
    assert len(rest) == 17
    population_networks(donors, folder=tmp_path, n_bins_max=1, **QUIET)  # a part of the same bins
    assert len(rest) == 17


def test_a_folder_of_something_else_is_refused(donors, fits, tmp_path):
    population_networks(donors, folder=tmp_path, **QUIET)
    changed = donors.copy()
    changed.X[0, 0] += 1
    for adata, arguments, words in (
        (changed, {}, "fits of other data"),
        (donors, {"seed": 1}, "another seed"),
        (donors, {"bin_size": 110}, "another bin_size"),
        (donors, {"model_arguments": {"n_latent": 3}}, "other model_arguments"),
        (donors, {"training": {"max_epochs": 3}}, "another training"),
    ):
        with pytest.raises(SettingError, match=words):
            population_networks(adata, folder=tmp_path, **(QUIET | arguments))
    note = tmp_path / "populations.json"
    assert set(json.loads(note.read_text())) >= {"data", "seed", "model", "training"}
    damaged = next(iter(tmp_path.glob("bin_*.npz")))
    damaged.write_bytes(damaged.read_bytes()[:50])
    with pytest.raises(FileError, match="is not a readable fit"):
        population_networks(donors, folder=tmp_path, **QUIET)
    note.write_text("{")
    with pytest.raises(FileError, match="choose another folder"):
        population_networks(donors, folder=tmp_path, **QUIET)


def test_fits_get_what_they_are_given(donors, monkeypatch):
    seen = []

    def look(adata, layer, model_arguments, training, seed):
        seen.append((adata.is_view, layer, model_arguments, training, seed))
        return principal(adata, layer, model_arguments, training, seed)

    monkeypatch.setattr(population_bins, "fit_bin", look)
    population_networks(
        donors, model_arguments={"n_latent": 3}, training={"max_epochs": 2}, seed=4, n_bins_max=1, **QUIET
    )
    assert seen == [(False, None, {"n_latent": 3}, {"max_epochs": 2}, 4)] * 12


def test_several_workers_give_the_same(donors, fits):
    two = population_networks(donors[:, :20].copy(), n_bins_max=1, **(QUIET | {"quantile": 0.2}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(population_bins, "fit_bin", principal)
        import joblib

        with joblib.parallel_config("threading"):
            again = population_networks(donors[:, :20].copy(), n_bins_max=1, n_jobs=2, **(QUIET | {"quantile": 0.2}))
    pd.testing.assert_frame_equal(two.centrality, again.centrality)


def test_bins_with_other_genes_are_refused(donors, monkeypatch):
    def fickle(adata, *arguments):
        table, centrality = principal(adata, *arguments)
        n = 39 if (adata.obs["donor"] == "d4").all() else 40
        return table.head(n), centrality.head(n)

    monkeypatch.setattr(population_bins, "fit_bin", fickle)
    with pytest.raises(DataError, match="population 'd4' differs in 1 genes from the first bin, of 40 genes"):
        population_networks(donors, **QUIET)


def test_networks_hold_the_nearest_pairs():
    embedding = np.array([[0.0], [1], [3], [7], [7.5]])
    found = network(embedding, 0.2)  # 2 of 10 pairs
    assert sorted(zip(*sp.triu(found).nonzero(), strict=True)) == [(0, 1), (3, 4)]
    assert (found != found.T).nnz == 0
    assert network(embedding, 1e-6).nnz == 2
    assert network(np.zeros((5, 2)), 0.3).nnz == 0  # all distances equal
    loadings = pd.DataFrame(np.random.default_rng(0).random((30, 3)), [f"g{g}" for g in range(30)])
    graph = gene_network(loadings, 0.07)
    assert (nx.to_numpy_array(graph, weight=None) == network(loadings.to_numpy(), 0.07).toarray()).all()


def test_genes_of_the_networks_are_a_union():
    centrality = pd.DataFrame({0: [5.0, 4, 3, 2, np.nan], 1: [1.0, 2, 9, 8, np.nan]}, list("abcde"))
    assert list(top_genes(centrality, 2)) == ["a", "b", "c", "d"]
    assert list(top_genes(centrality, 1)) == ["a", "c"]
    assert list(top_genes(centrality, 99)) == list("abcd")


def test_similarities_are_averaged_over_pairs_of_bins():
    graphs = [nx.path_graph(4), nx.star_graph(3), nx.cycle_graph(4)]
    adjacency = [nx.to_scipy_sparse_array(graph, format="csr") for graph in graphs]
    kernel = similarity(adjacency, ["a", "b", "b"], ["a", "b"])
    single = similarity(adjacency, ["a", "b", "c"], ["a", "b", "c"]).to_numpy()
    assert kernel.loc["a", "b"] == pytest.approx(single[0, 1:].mean())
    assert list(np.diag(kernel)) == [1, 1], "also of a population with several bins"


def test_the_embedding_is_that_of_scikit_learn():
    from sklearn.decomposition import PCA

    values = np.random.default_rng(0).random((7, 7))
    kernel = pd.DataFrame(values + values.T, list("abcdefg"))
    pca = PCA(2).fit(kernel)
    ours = principal_components(kernel)
    np.testing.assert_allclose(np.abs(ours), np.abs(pca.transform(kernel)), atol=1e-10)
    np.testing.assert_allclose(ours.attrs["share"], pca.explained_variance_ratio_)
    assert (ours.to_numpy()[np.abs(ours.to_numpy()).argmax(0), [0, 1]] > 0).all()


@pytest.mark.parametrize("numeric", [True, False])
def test_p_of_genes_are_uniform_without_association(numeric):
    rng = np.random.default_rng(2)
    phenotype = rng.random(24) if numeric else ["a", "b"] * 12
    table = by_hand(rng.random((1000, 24)), phenotype=phenotype, mean=rng.random((1000, 24))).associate()
    assert kstest(table["p_value"], "uniform").pvalue > 0.01
    assert kstest(table["mean_p_value"], "uniform").pvalue > 0.01
    assert not (table["q_value"] < 0.05).any()


def test_associations_are_scipys_and_missing_phenotypes_left_out():
    rng = np.random.default_rng(3)
    centrality, age = rng.random((30, 16)), rng.random(16)
    age[[2, 7]] = np.nan
    table = by_hand(centrality, phenotype=age).associate().set_index("gene")
    kept = ~np.isnan(age)
    theirs = spearmanr(centrality[4, kept], age[kept])
    assert (table.loc["g4", "effect"], table.loc["g4", "p_value"]) == pytest.approx((theirs[0], theirs[1]))
    assert table.attrs["left_out"] == ["p2", "p7"]
    assert table.attrs["n_populations"] == 14
    groups = np.where(age < 0.5, "young", "old").astype(object)
    result = by_hand(centrality)
    table = result.associate(dict(zip(result.networks, groups, strict=True))).set_index("gene")
    theirs = mannwhitneyu(centrality[4, groups == "young"], centrality[4, groups == "old"], method="exact")
    assert table.loc["g4", "p_value"] == pytest.approx(theirs.pvalue)


def test_a_change_of_mean_expression_is_no_change_of_the_network_alone():
    rng = np.random.default_rng(4)
    ill = np.repeat([0.0, 1], 10)
    centrality, mean = rng.random((50, 20)), rng.random((50, 20))
    centrality[:2] += 2 * ill
    mean[0] += 2 * ill
    table = by_hand(centrality, phenotype=ill, mean=mean).associate(method="wilcoxon").set_index("gene")
    assert (table.loc[["g0", "g1"], "q_value"] < 0.05).all()
    assert list(table.loc[["g0", "g1"], "independent"]) == [False, True]


def test_few_populations_cannot_find_anything_and_that_is_said():
    result = by_hand(np.random.default_rng(5).random((200, 6)), phenotype=list("aaabbb"))
    attrs = result.associate().attrs
    assert attrs["smallest_p"] == pytest.approx(0.1)
    assert not attrs["can_be_significant"]
    assert "nothing can be significant" in attrs["note"]


def adjacency(n: int, pairs: list[tuple[int, int]]) -> sp.csr_matrix:
    dense = np.zeros((n, n), bool)
    for i, j in pairs:
        dense[i, j] = dense[j, i] = True
    return sp.csr_matrix(dense)


def small() -> PopulationNetworks:
    """4 populations of 2 bins over 5 genes; g0 - g1 in p0 and p1 only."""
    networks = {
        "p0": [adjacency(5, [(0, 1), (1, 2), (3, 4)]), adjacency(5, [(0, 1), (0, 3)])],
        "p1": [adjacency(5, [(0, 1), (2, 4)]), adjacency(5, [(0, 1), (2, 4)])],
        "p2": [adjacency(5, [(2, 4), (0, 2)]), adjacency(5, [(2, 4), (1, 2)])],
        "p3": [adjacency(5, [(2, 4)]), adjacency(5, [(3, 4)])],
    }
    return by_hand(np.arange(20.0).reshape(5, 4), networks, list("aabb"))


def test_edges_of_a_set_are_counted():
    found = small().edges_of_set(["g0", "g1", "g2", "stranger"])
    assert found.counts["within"].to_dict() == {"p0": 1.5, "p1": 1.0, "p2": 1.0, "p3": 0.0}
    assert found.counts["outside"].to_dict() == {"p0": 0.5, "p1": 1.0, "p2": 1.0, "p3": 0.5}
    assert list(found.counts["phenotype"]) == list("aabb")
    assert list(found.association["edges"]) == ["within", "outside"]
    assert found.association["p_value"].min() >= found.association.attrs["smallest_p"] == pytest.approx(1 / 3)
    with pytest.raises(DataError, match="none of the genes, 'x', is among the 5"):
        small().edges_of_set(["x"])


def test_edges_of_a_set_need_no_phenotype():
    result = small()
    bare = by_hand(result.centrality.to_numpy(), result.networks)
    found = bare.edges_of_set(["g0", "g1"])
    assert list(found.counts) == ["within", "outside"]
    assert found.association.empty


def test_edges_are_tested_pair_by_pair():
    table = small().edges(min_fraction=0.5)
    pairs = {(row.gene1, row.gene2): row for row in table.itertuples()}
    assert set(pairs) == {("g0", "g1"), ("g2", "g4"), ("g1", "g2"), ("g3", "g4")}
    assert pairs["g0", "g1"].fraction == 0.5
    assert pairs["g0", "g1"].effect == -1
    assert pairs["g0", "g1"].p_value == pytest.approx(1 / 3)
    assert pairs["g2", "g4"].fraction == 0.75
    assert len(small().edges(min_fraction=0.01)) == 6
    for wrong in (0, 1.5, -1, "all"):
        with pytest.raises(SettingError, match="min_fraction is"):
            small().edges(min_fraction=wrong)


def test_graphs_have_weights_and_can_be_pooled():
    graph = small().graph("p0")
    assert graph.edges["g0", "g1"]["weight"] == 1
    assert graph.edges["g1", "g2"]["weight"] == 0.5
    assert (graph.number_of_nodes(), graph.number_of_edges()) == (5, 4)
    assert graph.nodes["g2"]["centrality"] == 8
    assert set(small().graph("p0", min_fraction=0.6).edges) == {("g0", "g1")}
    assert small().graph(["p0", "p3"]).edges["g0", "g1"]["weight"] == 0.5
    with pytest.raises(DataError, match="no network of 'x'; name 'p0', 'p1'"):
        small().graph("x")
    with pytest.raises(DataError, match="no network of no population"):
        small().graph([])


def test_everything_is_saved_as_text(donors, fits, tmp_path: Path):
    found = population_networks(donors, phenotype="age", n_bins_max=1, **QUIET)
    found.save(tmp_path / "out")
    files = {file.name for file in (tmp_path / "out").iterdir()}
    assert {"bins.csv", "dropped.csv", "centrality.csv", "kernel.csv", "embedding.csv", "phenotype.csv"} <= files
    read = pd.read_csv(tmp_path / "out" / "centrality.csv", index_col="gene")
    np.testing.assert_allclose(read, found.centrality)
    names = pd.read_csv(tmp_path / "out" / "networks.csv", index_col="population")["file"]
    graph = nx.read_graphml(tmp_path / "out" / names["d3"])
    ours = found.graph("d3")
    assert {frozenset(edge) for edge in graph.edges} == {frozenset(edge) for edge in ours.edges}
    assert dict(graph.nodes(data="centrality")) == pytest.approx(dict(ours.nodes(data="centrality")))


def test_distance_from_the_centre_is_another_centrality(donors, fits):
    found = population_networks(donors, centrality="distance", n_bins_max=1, **QUIET)
    one = split(donors.obs["donor"], bin_size=100, n_bins_max=1, seed=0)[0][0]
    table = principal(donors[one.rows], None, {}, {}, 0)[0]
    np.testing.assert_allclose(found.centrality[one.population], np.linalg.norm(table, axis=1))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"by": "patient"}, DataError, "no column 'patient'; it has 'donor'"),
        ({"phenotype": "sex"}, DataError, "no column 'sex'"),
        ({"phenotype": "cell"}, DataError, "obs\\['cell'\\] has 230 values in population 'd0'"),
        ({"phenotype": {"x": 1}}, DataError, "it names 'x'"),
        ({"bin_size": 1}, SettingError, "bin_size is 1"),
        ({"bin_size": 10_000}, DataError, "0 of 13 populations .* \\(the largest has 230\\).*lower bin_size"),
        ({"layer": "counts"}, DataError, "layer is 'counts', and layers has none"),
        ({"model_arguments": ["n_latent"]}, SettingError, "model_arguments is \\['n_latent'\\]"),
        ({"model_arguments": {"layer": "counts"}}, SettingError, "model_arguments has a layer"),
        ({"training": 3}, SettingError, "training is 3"),
        ({"training": {"seed": 3}}, SettingError, "training has a seed"),
        ({"n_bins_max": 0}, SettingError, "n_bins_max is 0"),
        ({"centrality": "degree"}, SettingError, "centrality is 'degree'; it must be 'explained' or 'distance'"),
        ({"quantile": 0}, SettingError, "quantile is 0;"),
        ({"quantile": "1 %"}, SettingError, "quantile is '1 %';"),
        ({"n_top_genes": 1}, SettingError, "n_top_genes is 1"),
        ({"n_jobs": 0}, SettingError, "n_jobs is 0"),
        ({"seed": -1}, SettingError, "seed is -1"),
    ],
)
def test_each_mistake_is_named(donors, fits, arguments, error, words):
    with pytest.raises(error, match=words):
        population_networks(donors, **(QUIET | arguments))


def test_mistakes_in_tests_are_named(donors, fits):
    result = by_hand(np.random.default_rng(0).random((9, 6)))
    for method in (result.associate, result.separation, result.edges):
        with pytest.raises(SettingError, match="there is no phenotype"):
            method()
    with pytest.raises(SettingError, match="n_permutations is 3"):
        result.separation({"p0": 1}, n_permutations=3)
    missing = donors.copy()
    missing.obs.loc[missing.obs_names[:3], "donor"] = None
    with pytest.raises(DataError, match="no value \\(NaN\\) in 3 of"):
        population_networks(missing, **QUIET)


def test_cells_of_a_column_may_lack_the_phenotype(donors, fits):
    adata = donors.copy()
    adata.obs.loc[adata.obs["donor"] == "d2", "age"] = np.nan
    found = population_networks(adata, phenotype="age", n_bins_max=1, **QUIET)
    assert found.associate().attrs["left_out"] == ["d2"]
    assert np.isnan(found.phenotype["d2"])
    assert all(found.phenotype[f"d{d}"] == 20 + d for d in range(N_DONORS) if d != 2)


def test_other_cells_of_a_population_are_fitted_again(donors, fits, tmp_path):
    given = {"bin_size": 100, "n_bins_max": 1, "folder": tmp_path / "fits", "progress": False}
    population_networks(donors, **given)
    n_fits = len(fits)
    other = donors.copy()
    other.obs["donor"] = np.random.default_rng(5).permutation(donors.obs["donor"])
    again = population_networks(other, **given)
    assert len(fits) == 2 * n_fits
    fresh = population_networks(other, bin_size=100, n_bins_max=1, progress=False)
    pd.testing.assert_frame_equal(again.centrality, fresh.centrality)


def test_genes_that_do_not_vary_have_no_centrality_and_no_edges(donors, fits):
    silent = donors.copy()
    x = silent.X.toarray()
    x[np.ix_(silent.obs["donor"] == "d3", [0, 1, 2, 5])] = 0
    silent.X = sp.csr_matrix(x)
    found = population_networks(silent, bin_size=100, quantile=0.3, n_top_genes=12, progress=False)
    assert {"g0", "g1", "g2", "g5"} <= set(found.genes)
    assert found.centrality.loc[["g0", "g1", "g2", "g5"], "d3"].isna().all()
    assert found.centrality.drop(columns="d3").notna().all(axis=None)
    for one in found.networks["d3"]:
        assert one[found.genes.isin(["g0", "g1", "g2", "g5"])].nnz == 0
        assert one.nnz > 0


def test_depth_that_goes_with_the_phenotype_is_said_and_makes_nothing_independent(donors, fits):
    thinned = donors.copy()
    x, ill = thinned.X.toarray(), (thinned.obs["health"] == "ill").to_numpy()
    x[ill] = np.random.default_rng(0).binomial(x[ill].astype(int), 0.5)
    thinned.X = sp.csr_matrix(x)
    given = {"bin_size": 100, "phenotype": "health", "progress": False}
    deep, thin = (population_networks(one, **given) for one in (donors, thinned))
    sums = pd.Series(x.sum(1), thinned.obs_names).groupby(thinned.obs["donor"].to_numpy()).mean()
    assert thin.depth["d0"] == pytest.approx(sums["d0"], rel=0.05)
    table = thin.associate()
    assert table.attrs["depth_p_value"] <= 0.05
    assert "thin the counts to a common depth" in table.attrs["note"]
    assert not table["independent"].any()
    assert deep.associate().attrs["depth_p_value"] > 0.05
    assert "common depth" not in deep.associate().attrs["note"]
