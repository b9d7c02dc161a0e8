"""The ten measures against hand values, gseapy and scikit-learn, and at the edges."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import hypergeom

from lucidcell.errors import DataError, SettingError
from lucidcell.metrics.interpretability import PUBLISHED, Conventions, interpretability
from lucidcell.metrics.topic_measures import (
    best_genes,
    gsea_pairs,
    npmi,
    number_unique_quality,
    ora_pairs,
    topic_coherence,
    topic_diversity,
    topic_purity,
)

SETS = {"s1": ["A", "B", "C"], "s2": ["A", "B"], "s3": ["A", "D"], "s4": ["C", "E"]}


def test_coherence_by_hand() -> None:
    """Of 4 sets, A is in 3, B in 2, C in 2, D in 1; AB in 2, AC in 1, BC in 1, AD in 1; BD and CD in none."""
    found = topic_coherence({"one": ["A", "B", "C"], "two": ["A", "B", "D"], "three": ["A", "Q"]}, SETS)
    ab = np.log((2 / 4) / (3 / 4 * 2 / 4)) / -np.log(2 / 4)
    ac = np.log((1 / 4) / (3 / 4 * 2 / 4)) / -np.log(1 / 4)
    bc = np.log((1 / 4) / (2 / 4 * 2 / 4)) / -np.log(1 / 4)
    ad = np.log((1 / 4) / (3 / 4 * 1 / 4)) / -np.log(1 / 4)
    assert ac < 0, "seen together less often than by chance"
    np.testing.assert_allclose(found["coherence"], [(ab + ac + bc) / 3, (ab + ad) / 3, 0], atol=1e-12)
    np.testing.assert_allclose(found["known_genes"], [1, 1, 0.5])
    np.testing.assert_allclose(found["known_pairs"], [1, 2 / 3, 0])


@pytest.mark.parametrize(("missing", "expected"), [("zero", 0.0), ("minus_one", -1.0), ("skip", np.nan)])
def test_pairs_that_no_set_holds(missing: str, expected: float) -> None:
    found = topic_coherence({"t": ["B", "D"]}, SETS, missing_pair=missing)["coherence"][0]
    np.testing.assert_equal(found, expected)
    unknown = topic_coherence({"t": ["B", "Q"]}, SETS, missing_pair=missing)["coherence"][0]
    np.testing.assert_equal(unknown, np.nan if missing == "skip" else 0.0)


def test_pairs_that_all_sets_hold_and_smoothing() -> None:
    both = {"s1": ["A", "B"], "s2": ["A", "B", "C"]}
    assert topic_coherence({"t": ["A", "B"]}, both)["coherence"][0] == 1
    value, _ = npmi(np.array([0.0]), np.array([0.5]), np.array([0.25]), smoothing=0.01)
    assert value[0] == pytest.approx(np.log(0.01 / (0.51 * 0.26)) / -np.log(0.01))


def test_diversity() -> None:
    same = {f"t{k}": ["A", "B"] for k in range(4)}
    assert topic_diversity(same) == 1 / 4
    assert topic_diversity(same, kind="exclusive") == 0
    assert topic_diversity({"a": ["A", "B"], "b": ["C", "D"]}) == 1
    mixed = {"a": ["A", "B"], "b": ["B", "C"]}
    assert (topic_diversity(mixed), topic_diversity(mixed, kind="exclusive")) == (3 / 4, 2 / 4)


def test_names_with_dashes_are_whole_genes() -> None:
    """A tokenizer of words would count HLA four times."""
    top = {"a": ["HLA-DRA", "NKX2-2"], "b": ["HLA-DRB1", "NKX2.2"]}
    assert topic_diversity(top) == topic_diversity(top, kind="exclusive") == 1


def test_purity_by_hand_and_beside_the_number_of_topics() -> None:
    labels = np.array(["x", "x", "x", "y", "y", None], object)
    shares = np.eye(3)[[0, 0, 1, 1, 1, 2]] + 0.1
    found = topic_purity(shares, labels)
    assert found["IP"] == 4 / 5  # topic 0: xx; topic 1: xyy
    assert found["used_topics"] == 2, "the cell without label counts nowhere"
    rng = np.random.default_rng(0)
    noise, types = rng.random((300, 200)), rng.choice(list("abc"), 300)
    assert topic_purity(noise, types)["IP"] > 0.7, "many topics are pure by chance"
    assert abs(topic_purity(noise, types)["IP_ami"]) < 0.1


def expected_pairs(top: dict, sets: dict, universe: set) -> dict:
    """p-values by scipy, set by set."""
    found = {}
    for topic, genes in top.items():
        mine = set(genes) & universe
        for name, of_set in sets.items():
            inside = set(of_set) & universe
            found[topic, name] = hypergeom.sf(len(mine & inside) - 1, len(universe), len(inside), len(mine))
    return found


def planted() -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """200 genes, 5 topics; the best genes of topics 0 to 2 are the sets p0 to p2, among random sets."""
    rng = np.random.default_rng(0)
    genes = [f"g{i}" for i in range(200)]
    scores = pd.DataFrame(rng.normal(size=(200, 5)), genes, [f"T{k}" for k in range(5)])
    sets = {f"r{i}": list(rng.choice(genes, 20, replace=False)) for i in range(40)}
    for k in range(3):
        chosen = genes[20 * k : 20 * k + 20]
        scores.loc[chosen, f"T{k}"] += 4
        sets[f"p{k}"] = chosen
    return scores, sets


@pytest.mark.parametrize("background", ["model", "gene_sets"])
def test_over_representation_against_scipy(background: str) -> None:
    scores, sets = planted()
    sets["foreign"] = ["x1", "x2", "x3"]
    top = best_genes(scores)
    universe = {gene for of_set in sets.values() for gene in of_set}
    universe = universe if background == "gene_sets" else universe & set(scores.index)
    expected = expected_pairs(top, sets, universe)
    found = ora_pairs(top, list(scores.index), sets, background=background, max_q=1.0)
    for row in found.itertuples():
        assert row.p_value == pytest.approx(expected[row.topic, row.term])
    kept = ora_pairs(top, list(scores.index), sets, background=background)
    assert set(zip(kept["topic"], kept["term"], strict=True)) == {(f"T{k}", f"p{k}") for k in range(3)}
    assert number_unique_quality(kept) == (3, 1.0, 3.0)


@pytest.mark.oracle
def test_over_representation_as_gseapy_does_it() -> None:
    gseapy = pytest.importorskip("gseapy")
    scores, sets = planted()
    top = best_genes(scores)
    found = ora_pairs(top, list(scores.index), sets, background="gene_sets", tested="overlapping", max_q=1.0).set_index(
        ["topic", "term"]
    )
    for topic, genes in top.items():
        theirs = gseapy.enrich(genes, gene_sets=sets, background=None, outdir=None).results.set_index("Term")
        ours = found.loc[topic].reindex(theirs.index)
        np.testing.assert_allclose(ours["p_value"], theirs["P-value"].astype(float), rtol=1e-6)
        np.testing.assert_allclose(ours["q_value"], theirs["Adjusted P-value"].astype(float), rtol=1e-6)


def test_enrichment_of_the_whole_ranking() -> None:
    scores, sets = planted()
    for ranking in ("zscore", "scores"):
        found = gsea_pairs(scores, sets, ranking=ranking, n_permutations=500)
        assert {(f"T{k}", f"p{k}") for k in range(3)} <= set(zip(found["topic"], found["term"], strict=True))
        assert (found["nes"] > 0).all()
    both = gsea_pairs(-scores, sets, ranking="scores", positive_only=False, n_permutations=500)
    assert {"p0", "p1", "p2"} <= set(both.loc[both["nes"] < 0, "term"])


def test_nothing_enriched_is_no_error() -> None:
    rng = np.random.default_rng(1)
    genes = [f"g{i}" for i in range(100)]
    scores = pd.DataFrame(rng.normal(size=(100, 3)), genes, list("abc"))
    sets = {f"r{i}": list(rng.choice(genes, 15, replace=False)) for i in range(5)}
    summary = interpretability(None, scores, gene_sets=sets, n_permutations=50).summary
    for kind in ("ORA", "GSEA"):
        assert summary[f"{kind}_N"] == summary[f"{kind}_Q"] == 0
        assert np.isnan(summary[f"{kind}_U"])


def test_all_of_them_together() -> None:
    scores, sets = planted()
    rng = np.random.default_rng(0)
    labels = rng.choice(["x", "y"], 60)
    shares = pd.DataFrame(rng.dirichlet(np.ones(5), 60), columns=scores.columns)
    found = interpretability(shares, scores, labels=labels, gene_sets=sets, n_permutations=100)
    wanted = ["TC", "TD", "TQ", "IP", "ORA_N", "ORA_U", "ORA_Q", "GSEA_N", "GSEA_U", "GSEA_Q"]
    assert set(wanted) <= set(found.summary.index)
    assert found.summary["TQ"] == pytest.approx(found.summary["TC"] * found.summary["TD"])
    assert list(found.topics["topic"]) == list(scores.columns)
    assert found.topics["ora_terms"].tolist() == [1, 1, 1, 0, 0]


def test_names_that_are_numbers_are_names() -> None:
    """Tables of other tools have columns 0, 1 ..."""
    scores, sets = planted()
    by_name = interpretability(None, scores, gene_sets=sets, n_permutations=100)
    by_number = interpretability(None, scores.set_axis(range(5), axis=1), gene_sets=sets, n_permutations=100)
    pd.testing.assert_series_equal(by_number.summary, by_name.summary)
    assert by_number.topics["gsea_terms"].tolist() == by_name.topics["gsea_terms"].tolist()
    assert by_name.topics["gsea_terms"].sum() >= 3


def test_the_published_conventions_reach_every_measure() -> None:
    scores, sets = planted()
    sets["foreign"] = ["x1", "x2", "x3"]
    top = best_genes(scores)
    found = interpretability(None, scores, gene_sets=sets, conventions=PUBLISHED, n_permutations=200).summary
    assert found["TD"] == topic_diversity(top, kind="exclusive")
    over = ora_pairs(top, list(scores.index), sets, background="gene_sets", tested="overlapping")
    assert found["ORA_N"] == number_unique_quality(over)[0]
    both = gsea_pairs(scores, sets, ranking="scores", positive_only=False, n_permutations=200)
    assert found["GSEA_Q"] == number_unique_quality(both)[2]
    few = interpretability(None, scores, gene_sets=sets, conventions=Conventions(n_top=3), n_permutations=0)
    assert few.topics["genes"].str.split(";").map(len).eq(3).all()


def test_sets_too_small_for_enrichment_leave_the_other_measures(caplog) -> None:
    scores, sets = planted()
    small = {name: genes[:8] for name, genes in sets.items()}
    found = interpretability(None, scores, gene_sets=small).summary
    assert "none of 43 gene sets has 15 to 500 of the genes (the largest has 8)" in caplog.text
    assert found["GSEA_N"] == found["GSEA_Q"] == 0
    assert np.isnan(found["GSEA_U"])
    assert found["ORA_N"] >= 1
    by = Conventions(min_size=5)
    assert interpretability(None, scores, gene_sets=small, conventions=by, n_permutations=200).summary["GSEA_N"] >= 1


def test_faults_are_sentences() -> None:
    scores, sets = planted()
    for call in (
        lambda: topic_coherence({"t": ["A", "B"]}, SETS, missing_pair="drop"),
        lambda: topic_diversity({"t": ["A"]}, kind="all"),
        lambda: ora_pairs({"t": ["g1"]}, ["g1"], sets, background="genome"),
        lambda: gsea_pairs(scores, sets, ranking="beta"),
    ):
        with pytest.raises(SettingError, match="must be one of"):
            call()
    with pytest.raises(DataError, match="fewer than 2 genes"):
        topic_coherence({"t": ["A"]}, SETS)
    with pytest.raises(DataError, match="choose fewer"):
        best_genes(scores, 500)
    with pytest.raises(DataError, match="same kind of names"):
        ora_pairs({"t": ["ENSG1"]}, ["ENSG1"], sets)
    with pytest.raises(DataError, match="cells x topics"):
        topic_purity(np.ones((3, 2)), ["a", "b"])
    with pytest.raises(DataError, match="hold 6 NaN"):
        topic_purity(np.full((3, 2), np.nan), ["a", "b", "b"])
    with pytest.raises(DataError, match="no best genes"):
        topic_diversity({})
