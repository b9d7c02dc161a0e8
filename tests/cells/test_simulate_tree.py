"""The tree simulator against closed formulas, scipy, networkx, a PCR simulated cycle by cycle, and large samples."""

from __future__ import annotations

import random

import anndata as ad
import networkx as nx
import numpy as np
import pytest
from scipy import stats
from scipy.special import gammaln, hyp1f1, poch

from lucidcell.cells.kinetics import Kinetics, Protocol
from lucidcell.cells.simulate_tree import PAPER_PROTOCOLS, simulate_tree
from lucidcell.cells.truth import expected_transcripts, kinetics, path_distance, true_log_fold_change
from lucidcell.errors import DataError, SettingError

EVERYTHING = Protocol(capture=1.0, capture_sd=0.0, depth=1e9, depth_sd=0.0)  # each transcript is found
NESTED = {"T": {"CD4": ["naive", "memory"], "CD8": []}, "B": None, "myeloid": ["mono", "DC"]}


def beta_poisson_pmf(x: np.ndarray, k_on: float, k_off: float, synthesis: float) -> np.ndarray:
    """Stationary distribution of the two-state promoter in closed form (Peccoud and Ycart 1995)."""
    scale = np.exp(x * np.log(synthesis) - gammaln(x + 1)) * poch(k_on, x) / poch(k_on + k_off, x)
    return scale * hyp1f1(k_on + x, k_on + k_off + x, -synthesis)


@pytest.mark.parametrize(("k_on", "k_off", "synthesis"), [(0.4, 1.5, 20.0), (3.0, 0.8, 8.0), (0.2, 0.3, 40.0)])
def test_transcripts_follow_the_stationary_distribution_of_the_two_state_promoter(k_on, k_off, synthesis):
    rates = Kinetics(*(np.full((40_000, 1), rate) for rate in (k_on, k_off, synthesis)))
    drawn = rates.draw(np.random.default_rng(0)).ravel()
    pmf = beta_poisson_pmf(np.arange(drawn.max() + 1), k_on, k_off, synthesis)
    seen, expected = np.bincount(drawn), pmf * len(drawn)
    common = expected >= 10
    seen, expected = (
        np.append(seen[common], seen[~common].sum()),
        np.append(expected[common], 40_000 * (1 - pmf[common].sum())),
    )
    assert stats.chisquare(seen, expected, sum_check=False).pvalue > 0.01
    poisson = stats.poisson(rates.expected()[0, 0]).pmf(np.arange(len(pmf))) * len(drawn)
    assert stats.chisquare(seen[:-1], poisson[common], sum_check=False).pvalue < 1e-6


def test_transcripts_have_the_analytic_mean_and_variance_in_every_gene():
    adata = simulate_tree(3000, 60, keep_transcripts=True, seed=1)
    drawn, (k_on, k_off, synthesis) = adata.layers["transcripts"].toarray(), kinetics(adata)
    on = k_on / (k_on + k_off)
    mean, variance = synthesis * on, synthesis * on + synthesis**2 * on * (1 - on) / (1 + k_on + k_off)
    z = (drawn - mean).sum(axis=0) / np.sqrt(variance.sum(axis=0))
    assert stats.kstest(z, "norm").pvalue > 0.01
    assert np.mean((drawn - mean) ** 2 / variance) == pytest.approx(1.0, abs=0.02)
    assert np.allclose(drawn.sum(axis=1), adata.obs["transcripts"])


def test_capture_and_depth_are_as_asked_in_every_batch():
    adata = simulate_tree(6000, 50, n_batches=3, seed=2)
    for b, protocol in enumerate([*PAPER_PROTOCOLS, PAPER_PROTOCOLS[0]]):
        cells = adata.obs[adata.obs["batch"] == f"batch_{b}"]
        assert len(cells) == 2000
        assert stats.kstest(cells["capture"], stats.norm(protocol.capture, protocol.capture_sd).cdf).pvalue > 0.01
        assert stats.kstest(cells["depth"], stats.norm(protocol.depth, protocol.depth_sd).cdf).pvalue > 0.01


def test_under_deep_sequencing_counts_are_captured_transcripts():
    deep = [Protocol(capture=capture, capture_sd=0.01, depth=1e9) for capture in (0.05, 0.2)]
    adata = simulate_tree(2000, 100, protocols=deep, keep_transcripts=True, seed=3)
    efficiency = adata.varm["batch_efficiency"][:, adata.obs["batch"].cat.codes].T
    probability = np.minimum(adata.obs["capture"].to_numpy()[:, None] * efficiency, 1)
    made, found = adata.layers["transcripts"].toarray().astype(int), adata.X.toarray()
    z = (found - made * probability)[made > 0] / np.sqrt(made * probability * (1 - probability))[made > 0]
    assert abs(z.mean()) < 0.02
    assert z.std() == pytest.approx(1.0, abs=0.02)


def test_gene_specific_batch_effects_are_log_normal_and_absent_in_the_first_batch():
    efficiency = simulate_tree(50, 3000, n_batches=3, batch_effect=0.5, seed=4).varm["batch_efficiency"]
    assert (efficiency[:, 0] == 1).all()
    assert stats.kstest(np.log(efficiency[:, 1:]).ravel(), stats.norm(0, 0.5).cdf).pvalue > 0.01


def reads_after_pcr(n_molecules: int, efficiency: float, depth: int, rng: np.random.Generator) -> np.ndarray:
    """Reads of each molecule after 16 cycles, in each of which every copy is copied with the given probability."""
    copies = np.ones(n_molecules, dtype=int)
    for _ in range(16):
        copies += rng.binomial(copies, efficiency)
    return rng.multinomial(depth, copies / copies.sum())


@pytest.mark.parametrize("efficiency", [0.4, 0.8])
@pytest.mark.parametrize("depth", [250, 2000])
def test_amplification_and_depth_lose_as_many_molecules_as_pcr_cycle_by_cycle(efficiency, depth):
    rng = np.random.default_rng(5)
    simulated = np.stack([reads_after_pcr(500, efficiency, depth, rng) for _ in range(300)])
    captured, depths = np.full((300, 100), 5), np.full(300, float(depth))
    umis = Protocol(pcr_efficiency=efficiency).draw_counts(captured, depths, rng)
    assert stats.ttest_ind(umis.sum(axis=1), (simulated > 0).sum(axis=1)).pvalue > 0.01
    assert umis.sum(axis=1).mean() == pytest.approx((simulated > 0).sum(axis=1).mean(), rel=0.01)
    reads = Protocol(pcr_efficiency=efficiency, umis=False).draw_counts(captured, depths, rng)
    assert reads.sum(axis=1).mean() == pytest.approx(depth, rel=0.01)
    assert reads.var() == pytest.approx(simulated.reshape(300, 100, 5).sum(axis=2).var(), rel=0.05)


def test_equal_amplification_leaves_the_poisson_chance_of_no_read():
    captured, depths = np.full((200, 100), 10), np.full(200, 1500.0)
    umis = Protocol(pcr_efficiency=1.0).draw_counts(captured, depths, np.random.default_rng(6))
    assert umis.mean() / 10 == pytest.approx(1 - np.exp(-1.5), rel=0.01)
    reads = Protocol(pcr_efficiency=1.0, umis=False).draw_counts(captured, depths, np.random.default_rng(6))
    assert stats.kstest(reads.sum(axis=1), stats.norm(1500, np.sqrt(1500)).cdf).pvalue > 0.01


def test_log_fold_changes_are_those_of_a_large_sample():
    adata = simulate_tree(9000, 80, tree=3, protocols=[EVERYTHING], n_batches=1, seed=7)
    change = true_log_fold_change(adata, "type_0", "type_2")
    assert list(change.index) == list(adata.var_names)
    assert change.std() > 0.5
    counts, types = adata.X.toarray(), adata.obs["cell_type"].to_numpy()
    means = [counts[types == name].mean(axis=0) for name in ("type_0", "type_2")]
    errors = [counts[types == name].std(axis=0) / np.sqrt((types == name).sum()) for name in ("type_0", "type_2")]
    z = (np.log(means[0] / means[1]) - np.log(2) * change) / np.hypot(errors[0] / means[0], errors[1] / means[1])
    assert stats.kstest(z, "norm").pvalue > 0.01
    swapped = true_log_fold_change(adata, "type_2", "type_0")
    np.testing.assert_allclose(swapped, -change)
    np.testing.assert_allclose(expected_transcripts(adata), kinetics(adata).expected().mean(axis=0))


def test_null_genes_are_exactly_null():
    adata = simulate_tree(400, 100, de_fraction=0.2, seed=8)
    null = ~adata.var["differential"].to_numpy()
    assert null.sum() == 80
    assert all((np.ptp(rate[:, null], axis=0) == 0).all() for rate in kinetics(adata))
    change = true_log_fold_change(adata, "type_1", "type_3")
    assert (change[null] == 0).all()
    assert (change[~null].abs() > 0.01).all()
    np.testing.assert_allclose(kinetics(adata).expected().sum(axis=1), kinetics(adata).expected()[0].sum())


def test_null_genes_look_null_to_a_t_test_of_normalised_counts():
    adata = simulate_tree(2000, 300, tree=2, de_fraction=0.2, effect_size=1.0, n_batches=1, seed=9)
    counts, types = adata.X.toarray(), adata.obs["cell_type"].to_numpy()
    share = counts / counts.sum(axis=1, keepdims=True)
    pvalues = stats.ttest_ind(share[types == "type_0"], share[types == "type_1"], equal_var=False).pvalue
    null = ~adata.var["differential"].to_numpy()
    assert stats.kstest(pvalues[null], "uniform").pvalue > 0.01
    assert (pvalues[~null] < 0.01).mean() > 0.5


def graph_distances(adata: ad.AnnData) -> dict[str, dict[str, float]]:
    """Shortest paths between nodes by networkx, from the table of the tree."""
    graph, nodes = nx.Graph(), adata.uns["tree"]
    for name, node in nodes[nodes["parent"] != ""].iterrows():
        graph.add_edge(name, node["parent"], weight=node["position"] - nodes.loc[node["parent"], "position"])
    return dict(nx.all_pairs_dijkstra_path_length(graph))


@pytest.mark.parametrize("tree", [7, NESTED], ids=["random", "nested"])
@pytest.mark.parametrize("continuous", [False, True])
def test_distances_are_shortest_paths_and_factors_drift_with_them(tree, continuous):
    adata = simulate_tree(60, 5, tree=tree, continuous=continuous, within_sd=0, n_factors=4000, seed=10)
    between, nodes, distance = graph_distances(adata), adata.uns["tree"], path_distance(adata)
    branch = adata.obs["branch" if continuous else "cell_type"].astype(str)
    place = adata.obs["pseudotime"].to_numpy() if continuous else np.ones(60)
    for cell in range(60):
        end, start = branch.iloc[cell], nodes.loc[branch.iloc[cell], "parent"]
        down, up = nodes.loc[end, "position"] - place[cell], place[cell] - nodes.loc[start, "position"]
        assert min(down, up) >= 0
        by_hand = {node: min(between[end][node] + down, between[start][node] + up) for node in nodes.index}
        np.testing.assert_allclose(distance.iloc[cell], [by_hand[node] for node in distance.columns], atol=1e-12)
    moved = np.mean((adata.obsm["factors"][:, None] - adata.obsm["factors"]) ** 2, axis=2)
    drifted = np.mean(adata.obsm["factors"] ** 2, axis=1)
    np.testing.assert_allclose(drifted, distance["root"], rtol=0.15, atol=1e-12)
    common = (distance["root"].to_numpy()[:, None] + distance["root"].to_numpy() - moved) / 2
    if not continuous:
        shared = 1 - distance[branch].to_numpy() / 2
        np.testing.assert_allclose(common, shared, atol=0.15)


def test_cells_spread_evenly_over_the_length_of_the_branches():
    adata = simulate_tree(6000, 5, continuous=True, seed=11)
    nodes = adata.uns["tree"]
    length = nodes["position"] - nodes.loc[nodes["parent"].replace("", "root"), "position"].to_numpy()
    expected = length.drop("root")
    seen = adata.obs["branch"].value_counts().reindex(expected.index)
    assert stats.chisquare(seen, 6000 * expected / expected.sum()).pvalue > 0.01
    start = nodes.loc[nodes.loc[adata.obs["branch"].astype(str), "parent"], "position"].to_numpy()
    part = (adata.obs["pseudotime"] - start) / length[adata.obs["branch"].astype(str)].to_numpy()
    assert stats.kstest(part, "uniform").pvalue > 0.01


def test_expression_distance_follows_distance_on_the_tree():
    adata = simulate_tree(4000, 400, tree=12, n_factors=30, seed=12)
    leaves = list(adata.obs["cell_type"].cat.categories)
    path = path_distance(adata).groupby(adata.obs["cell_type"].to_numpy()).first().loc[leaves, leaves].to_numpy()
    shares = adata.X.toarray() / adata.X.sum(axis=1).A1[:, None]
    means = np.log(
        np.stack([shares[(adata.obs["cell_type"] == leaf).to_numpy()].mean(axis=0) for leaf in leaves]) + 1e-5
    )
    expression = np.linalg.norm(means[:, None] - means, axis=2)
    upper = np.triu_indices(len(leaves), 1)
    assert stats.spearmanr(path[upper], expression[upper]).statistic > 0.7


def test_a_random_tree_has_the_leaves_and_groups_asked_for_and_groups_are_clades():
    adata = simulate_tree(2650, 20, tree=265, n_groups=39, seed=13)
    assert adata.obs["cell_type"].value_counts().eq(10).all()
    assert adata.obs["cell_type"].nunique() == 265
    assert adata.obs["group"].nunique() == 39
    assert (adata.obs.groupby("cell_type", observed=True)["group"].nunique() == 1).all()
    tree = adata.uns["tree"]
    heads = tree[(tree["group"] != "") & (tree["group"] != tree["group"].reindex(tree["parent"]).to_numpy())]
    assert sorted(heads["group"]) == sorted(adata.obs["group"].cat.categories)
    assert (tree["parent"].value_counts().drop("") == 2).all()
    assert (tree.loc[tree["leaf"], "position"] == 1).all()


def test_nested_names_are_the_types_and_their_groups():
    adata = simulate_tree(120, 20, tree=NESTED, seed=14)
    assert list(adata.obs["group"].cat.categories) == ["T", "B", "myeloid"]
    groups = adata.obs.groupby("cell_type", observed=True)["group"].first().astype(str).to_dict()
    assert groups == {"naive": "T", "memory": "T", "CD8": "T", "B": "B", "mono": "myeloid", "DC": "myeloid"}
    tree = adata.uns["tree"]
    assert tree.loc["naive", "parent"] == "CD4"
    assert tree.loc["CD4", "position"] == pytest.approx(2 / 3)
    assert tree.loc["myeloid", "position"] == pytest.approx(2 / 3)


def test_same_seed_same_data_and_no_global_random_state():
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (the state that must stay as it is)
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    once, again = (simulate_tree(1500, 30, n_batches=3, keep_transcripts=True, seed=15) for _ in range(2))
    after = random.getstate(), np.random.get_state()  # noqa: NPY002
    assert before[0] == after[0]
    assert np.array_equal(before[1][1], after[1][1])
    assert (once.X != again.X).nnz == 0
    assert (once.layers["transcripts"] != again.layers["transcripts"]).nnz == 0
    assert once.obs.equals(again.obs)
    assert np.array_equal(once.obsm["factors"], again.obsm["factors"])
    assert (once.X != simulate_tree(1500, 30, n_batches=3, seed=16).X).nnz > 0


def test_keeping_transcripts_changes_nothing_else():
    kept, plain = (simulate_tree(300, 30, keep_transcripts=keep, seed=17) for keep in (True, False))
    assert (kept.X != plain.X).nnz == 0
    assert "transcripts" not in plain.layers


def test_counts_are_whole_and_no_cell_is_empty():
    adata = simulate_tree(300, 20, protocols=[Protocol(capture=0.001, capture_sd=0.0)], seed=18)
    assert adata.X.dtype == np.float32
    assert np.array_equal(adata.X.data, np.round(adata.X.data))
    assert adata.X.sum(axis=1).min() == 1


@pytest.mark.parametrize("continuous", [False, True])
def test_files_keep_the_truth(tmp_path, continuous):
    adata = simulate_tree(60, 20, tree=4, n_groups=2, continuous=continuous, de_fraction=0.5, seed=19)
    adata.write_h5ad(tmp_path / "tree.h5ad")
    read = ad.read_h5ad(tmp_path / "tree.h5ad")
    np.testing.assert_array_equal(kinetics(read).synthesis, kinetics(adata).synthesis)
    assert path_distance(read).equals(path_distance(adata))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_cells": 0}, r"n_cells=0 leaves nothing to simulate"),
        ({"n_factors": 0}, r"n_factors=0 leaves nothing"),
        ({"within_sd": -1.0}, r"within_sd=-1.0 must be a finite number"),
        ({"effect_size": float("nan")}, r"effect_size=nan must be a finite"),
        ({"de_fraction": 1.5}, r"de_fraction=1.5 is a share"),
        ({"n_genes": 10, "de_fraction": 0.1}, r"lets 1 of 10 genes differ"),
        ({"protocols": []}, r"protocols is empty"),
        ({"tree": 1}, r"tree=1 leaves no types"),
        ({"tree": 5, "n_groups": 6}, r"n_groups=6 cannot be cut from a tree of 5 leaves"),
        ({"tree": {"a": {}, "b": {}}, "n_groups": 2}, r"n_groups=2 is for random trees"),
        ({"tree": {"a": {"b": {}}}}, r"fewer than 2 leaves"),
        ({"tree": {"a": ["b"], "c": ["b"]}}, r"2 nodes named 'b'"),
        ({"tree": 50, "n_cells": 49}, r"n_cells=49 leaves some of the 50 types without a cell"),
    ],
)
def test_senseless_settings_are_refused_in_a_sentence(settings, message):
    with pytest.raises(SettingError, match=message):
        simulate_tree(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"capture": 0.0}, r"capture=0.0 of a Protocol"),
        ({"capture": 1.5}, r"capture=1.5 of a Protocol must be above 0 and at most 1"),
        ({"pcr_efficiency": -0.1}, r"pcr_efficiency=-0.1"),
        ({"depth": float("inf")}, r"depth=inf"),
        ({"depth_sd": -1.0}, r"depth_sd=-1.0"),
        ({"pcr_cycles": -1}, r"pcr_cycles=-1"),
    ],
)
def test_senseless_protocols_are_refused_in_a_sentence(settings, message):
    with pytest.raises(SettingError, match=message):
        Protocol(**settings)


def test_the_truth_is_refused_in_a_sentence_where_it_is_not_known():
    adata = simulate_tree(60, 20, seed=20)
    with pytest.raises(DataError, match=r"obs has no 'leaf'"):
        true_log_fold_change(adata, "type_0", "type_1", groupby="leaf")
    with pytest.raises(DataError, match=r"no cell of 'type_9' among its 5 values"):
        true_log_fold_change(adata, "type_0", "type_9")
    with pytest.raises(DataError, match=r"hold 10 of the 20 simulated genes"):
        kinetics(adata[:, :10])
    with pytest.raises(DataError, match=r"mean of 0 cells"):
        expected_transcripts(adata[:0])
    with pytest.raises(DataError, match=r"which simulate_tree writes"):
        path_distance(ad.AnnData(adata.X))
