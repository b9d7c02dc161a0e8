from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control, fisher_exact

import lucidcell as lc
from lucidcell.errors import DataError, FileError, SettingError

N = 600


@pytest.fixture
def loadings() -> pd.DataFrame:
    values = np.random.default_rng(0).standard_normal((N, 3)) ** 3
    return pd.DataFrame(values, [f"g{i}" for i in range(N)], ["a", "b", "c"])


@pytest.fixture
def gene_sets(loadings) -> dict[str, list[str]]:
    """30 random sets of several sizes; "top" and "bottom" hold the genes at the ends of factor a, and some others."""
    rng = np.random.default_rng(1)
    genes = np.array(loadings.index)
    sets = {f"random_{s}": list(rng.choice(genes, size, replace=False)) for s, size in enumerate([8, 15, 15, 40] * 7)}
    order = loadings["a"].sort_values(ascending=False).index
    sets["top"] = [*order[:60:3], *rng.choice(genes, 5)]
    sets["bottom"] = [*order[-60::3], *rng.choice(genes, 5)]
    return sets


def running_sum(values: pd.Series, genes: list[str], weight: float) -> tuple[float, list[str]]:
    """Score and leading edge of one set, gene by gene, as the paper writes it."""
    ranked = values.sort_values(ascending=False)
    members = set(genes) & set(ranked.index)
    total = sum(abs(ranked[gene]) ** weight for gene in members)
    at, sums = 0.0, []
    for gene in ranked.index:
        at += abs(ranked[gene]) ** weight / total if gene in members else -1 / (len(ranked) - len(members))
        sums.append(at)
    peak = int(np.abs(sums).argmax())
    inside = ranked.index[: peak + 1] if sums[peak] > 0 else ranked.index[peak + 1 :][::-1]
    return sums[peak], [gene for gene in inside if gene in members]


@pytest.mark.parametrize("weight", [0.0, 1.0, 1.7])
def test_scores_and_leading_edges_are_those_of_the_running_sum(loadings, gene_sets, weight):
    table = lc.gsea(loadings, gene_sets, weight=weight, n_permutations=10)
    assert len(table) == 3 * 30
    for row in table.to_dict("records"):
        score, edge = running_sum(loadings[row["factor"]], gene_sets[row["term"]], weight)
        assert row["es"] == pytest.approx(score, abs=1e-12)
        assert row["leading_edge"].split(";") == edge
        assert row["size"] == len(set(gene_sets[row["term"]]))


def test_null_scores_are_those_of_random_sets(loadings):
    """Means of either sign of the shared, nested null against random sets that are drawn one by one."""
    genes, rng = np.array(loadings.index), np.random.default_rng(2)
    sets = {"small": list(genes[:8]), "large": list(genes[:50])}
    table = lc.gsea(loadings[["a"]], sets, n_permutations=4000).set_index("term")
    for name, size in (("small", 8), ("large", 50)):
        scores = np.array(
            [running_sum(loadings["a"], list(rng.choice(genes, size, replace=False)), 1.0)[0] for _ in range(300)]
        )
        sign = np.sign(table["es"][name])
        of_sign = np.abs(scores[np.sign(scores) == sign])
        mean, error = of_sign.mean(), of_sign.std() / np.sqrt(len(of_sign))
        assert abs(table["es"][name] / table["nes"][name] - mean) < 4 * error
        expected = (of_sign >= abs(table["es"][name])).mean()
        assert abs(table["p_value"][name] - expected) < 4 * np.sqrt(0.25 / len(of_sign))


def test_planted_sets_are_found_at_their_ends(loadings, gene_sets):
    table = lc.gsea(loadings, gene_sets)
    of_a = table[table["factor"] == "a"].set_index("term")
    assert of_a["nes"]["top"] > 1.5
    assert of_a["nes"]["bottom"] < -1.5
    assert of_a.loc[["top", "bottom"], "q_value"].max() < 0.02
    assert list(of_a.index[:2]) in (["top", "bottom"], ["bottom", "top"])
    assert of_a.drop(["top", "bottom"])["q_value"].min() > 0.05


def test_under_the_null_p_values_are_uniform():
    rng = np.random.default_rng(3)
    loadings = pd.DataFrame(rng.standard_normal((400, 4)), [f"g{i}" for i in range(400)], list("abcd"))
    sets = {f"s{i}": list(rng.choice(loadings.index, 20, replace=False)) for i in range(150)}
    table = lc.gsea(loadings, sets)
    assert 0.03 < (table["p_value"] < 0.05).mean() < 0.07
    assert abs(table["p_value"].median() - 0.5) < 0.05
    assert (table["q_value"] < 0.05).mean() < 0.01


def test_q_values_fall_with_the_score_and_stay_in_bounds(loadings, gene_sets):
    for _, of_factor in lc.gsea(loadings, gene_sets).groupby("factor"):
        for sign in (1, -1):
            end = of_factor[sign * of_factor["nes"] > 0]
            assert end["q_value"].is_monotonic_increasing  # most extreme first
            assert end["q_value"].between(0, 1).all()


def test_an_embedding_of_another_method_can_be_read(loadings, gene_sets):
    adata = ad.AnnData(np.zeros((2, N), np.float32), var=pd.DataFrame(index=loadings.index))
    adata.varm["PCs"] = loadings.to_numpy()
    found = lc.gsea(adata, gene_sets, varm_key="PCs", n_permutations=20)
    wanted = lc.gsea(loadings, gene_sets, n_permutations=20)
    np.testing.assert_array_equal(found["es"], wanted["es"])
    assert list(dict.fromkeys(found["factor"])) == ["PCs_1", "PCs_2", "PCs_3"]
    with pytest.raises(DataError, match="varm has PCs"):
        lc.gsea(adata, gene_sets, varm_key="loadings")


def test_files_of_gene_sets(loadings, tmp_path: Path):
    one, two = tmp_path / "one.gmt", tmp_path / "two.gmt"
    one.write_text("A\t\t" + "\t".join(f"g{i}" for i in range(10)) + "\n")
    two.write_text("B\t\t" + "\t".join(f"g{i}" for i in range(20, 40)) + "\n")
    assert set(lc.gsea(loadings, [one, two], n_permutations=10)["term"]) == {"A", "B"}
    assert set(lc.gsea(loadings, one, n_permutations=10)["term"]) == {"A"}
    with pytest.raises(DataError, match="repeats 1 gene sets"):
        lc.gsea(loadings, [one, one])
    with pytest.raises(FileError, match="does not exist"):
        lc.gsea(loadings, tmp_path / "none.gmt")


def test_positive_loadings_have_one_end(gene_sets):
    """Topics: what has no random set to be compared with has no p-value, and gives no name."""
    rng = np.random.default_rng(4)
    topic = pd.DataFrame({"t": rng.exponential(size=N) ** 3}, [f"g{i}" for i in range(N)])
    sets = gene_sets | {"low": list(topic["t"].nsmallest(200).index), "high": list(topic["t"].nlargest(30).index)}
    table = lc.gsea(topic, sets).set_index("term")
    assert table["es"]["low"] == -1
    assert np.isnan(table["nes"]["low"])
    assert (table["p_value"]["low"], table["q_value"]["low"]) == (1, 1)
    assert table["q_value"]["high"] < 0.05
    assert table.index[-1] == "low"
    names = lc.name_factors(topic, table.reset_index()).set_index("sign")
    assert names["term"]["-"] == ""


def test_few_random_sets_cannot_give_a_small_q(loadings):
    table = lc.gsea(loadings[["a"]], {"top": list(loadings["a"].nlargest(30).index)}, n_permutations=10)
    assert table["q_value"].iloc[0] >= 1 / 11


def test_a_backend_of_processes_changes_nothing(loadings, gene_sets):
    joblib = pytest.importorskip("joblib")
    wanted = lc.gsea(loadings, gene_sets, n_permutations=50)
    with joblib.parallel_config(backend="loky"):
        pd.testing.assert_frame_equal(lc.gsea(loadings, gene_sets, n_permutations=50), wanted)


def test_a_factor_that_ranks_nothing_finds_nothing(loadings, gene_sets):
    flat = loadings.assign(a=0.0)
    gene_sets["last genes"] = list(loadings.index[-20:])
    for weight in (0.0, 1.0):
        table = lc.gsea(flat, gene_sets, weight=weight, n_permutations=100)
        of_flat = table[table["factor"] == "a"]
        assert (of_flat["es"] == 0).all()
        assert (of_flat["q_value"] == 1).all()
    ties = loadings.assign(a=np.where(np.arange(N) < 20, 1.0, 0.0))
    found = lc.gsea(ties, gene_sets, n_permutations=500)
    row = found[(found["factor"] == "a") & (found["term"] == "last genes")].iloc[0]
    assert row["q_value"] > 0.05, "the order of the table decides nothing between equal loadings"
    names = lc.name_factors(flat, table).set_index(["factor", "sign"])
    assert names["name"][("a", "+")] == "no genes"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda t: t.to_numpy(), "names no genes"),
        (lambda t: t.rename_axis("gene").reset_index(), "make gene names the index"),
        (lambda t: t.rename(columns={"b": "a"}), "1 factors occur twice"),
        (lambda t: t.iloc[:0], "0 genes x 3 factors"),
    ],
)
def test_tables_that_are_no_loadings(loadings, gene_sets, given, message):
    with pytest.raises(DataError, match=message):
        lc.gsea(given(loadings), gene_sets)


@pytest.mark.parametrize("given", [None, 5, {"s": "ABC"}])
def test_what_is_no_gene_set(loadings, given):
    with pytest.raises(DataError, match="pass a (GMT file|list)"):
        lc.gsea(loadings, given)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"min_size": "5"}, SettingError, "min_size is '5'"),
        ({"seed": -1}, SettingError, "seed is -1"),
        ({"min_size": 500}, DataError, "none of 30 gene sets has 500 to 500 of the 600 genes"),
        ({"min_size": 9, "max_size": 3}, SettingError, "max_size is 3.*min_size=9"),
        ({"n_permutations": 3}, SettingError, "n_permutations is 3"),
        ({"weight": -1}, SettingError, "weight is -1"),
    ],
)
def test_arguments_without_meaning(loadings, gene_sets, arguments, error, message):
    with pytest.raises(error, match=message):
        lc.gsea(loadings, gene_sets, **arguments)


def test_loadings_that_cannot_be_ranked(loadings, gene_sets):
    loadings.iloc[3, 1] = np.nan
    with pytest.raises(DataError, match="1 NaN or infinite"):
        lc.gsea(loadings, gene_sets)
    twice = pd.concat([loadings.fillna(0), loadings.head(1)])
    with pytest.raises(DataError, match="'g0'"):
        lc.gsea(twice, gene_sets)
    with pytest.raises(DataError, match="no gene set"):
        lc.gsea(loadings.fillna(0), {})


# --- over-representation ----------------------------------------------------------------------------------------


def test_over_representation_is_fishers_test(loadings, gene_sets):
    top = lc.top_genes(loadings, 40)
    table = lc.over_representation(top, gene_sets, loadings.index)
    in_any = set().union(*map(set, gene_sets.values()))
    for row in table.to_dict("records"):
        wanted = set(top["gene"][top["factor"] == row["factor"]]) & in_any
        members = set(gene_sets[row["term"]])
        overlap, n = len(wanted & members), len(in_any)
        square = [
            [overlap, len(wanted) - overlap],
            [len(members) - overlap, n - len(wanted) - len(members) + overlap],
        ]
        assert row["p_value"] == pytest.approx(fisher_exact(square, alternative="greater")[1], rel=1e-9)
        assert (row["overlap"], row["n_top"], row["n_background"]) == (overlap, len(wanted), n)
        assert set(filter(None, row["genes"].split(";"))) == wanted & members
        assert row["fold"] == pytest.approx(overlap * n / len(wanted) / len(members))
    for _, of_factor in table.groupby("factor"):
        np.testing.assert_allclose(of_factor["q_value"], false_discovery_control(of_factor["p_value"]))
    assert table[table["factor"] == "a"]["term"].iloc[0] == "top"


def test_the_two_ends_are_tested_apart(loadings, gene_sets):
    table = lc.over_representation(lc.top_genes(loadings, 40, sign="both"), gene_sets, loadings.index)
    of_a = table[table["factor"] == "a"].groupby("sign")["term"].first()
    assert (of_a["+"], of_a["-"]) == ("top", "bottom")


def test_the_background_is_every_gene_of_any_set(loadings):
    """Also of sets that are too small to be tested; and genes may be named by numbers."""
    numbered = loadings.reset_index(drop=True)
    sets = {"tested": [str(i) for i in range(10)], "small": ["10", "11"]}
    table = lc.over_representation(lc.top_genes(numbered, 30), sets, numbered.index)
    assert (table["n_background"] == 12).all()
    with pytest.raises(DataError, match="0 of the top genes are not in the background"):
        lc.over_representation({}, sets, numbered.index)
    with pytest.raises(DataError, match="lacks factor, sign"):
        lc.over_representation(pd.DataFrame({"gene": ["1"]}), sets, numbered.index)


def test_q_values_are_those_of_statsmodels(loadings, gene_sets):
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    table = lc.over_representation({"a": list(loadings.index[:50])}, gene_sets, loadings.index)
    np.testing.assert_allclose(table["q_value"], multitest.multipletests(table["p_value"], method="fdr_bh")[1])


def test_top_genes_of_another_model(loadings, gene_sets):
    with pytest.raises(DataError, match="1 of the top genes are not in the background"):
        lc.over_representation({"a": ["g1", "stranger"]}, gene_sets, loadings.index)


# --- names ------------------------------------------------------------------------------------------------------


def test_names_say_what_they_rest_on(loadings, gene_sets):
    gene_sets["HALLMARK_TNFA_SIGNALING_VIA_NFKB"] = gene_sets.pop("top")
    found = lc.gsea(loadings, gene_sets)
    names = lc.name_factors(loadings, found).set_index(["factor", "sign"])
    assert len(names) == 6
    up, ranked = names.loc[("a", "+")], loadings["a"].sort_values()
    assert up["name"] == f"tnfa signaling via nfkb ({', '.join(ranked.index[::-1][:3])})"
    assert up["term"] == "HALLMARK_TNFA_SIGNALING_VIA_NFKB"
    assert up["q_value"] <= 0.05
    nothing = names.loc[("c", "+")]
    assert nothing["term"] == ""
    assert nothing["name"] == ", ".join(loadings["c"].sort_values().index[::-1][:3])


def test_names_of_tables_that_do_not_belong_together(loadings, gene_sets):
    found = lc.gsea(loadings, gene_sets, n_permutations=10)
    with pytest.raises(DataError, match="names the factors"):
        lc.name_factors(loadings[["a", "b"]], found)
    with pytest.raises(DataError, match="lacks nes"):
        lc.name_factors(loadings, found.drop(columns="nes"))
    with pytest.raises(SettingError, match="max_q is 2"):
        lc.name_factors(loadings, found, max_q=2)
    with pytest.raises(SettingError, match="prefer is 'p'"):
        lc.name_factors(loadings, found, prefer="p")


# --- against gseapy ---------------------------------------------------------------------------------------------


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
def test_prerank_is_that_of_gseapy(loadings, gene_sets):
    gseapy = pytest.importorskip("gseapy", reason="needs the oracle group")
    ours = lc.gsea(loadings, gene_sets, n_permutations=10_000)
    differences = []
    for factor in loadings:
        theirs = gseapy.prerank(
            loadings[factor], gene_sets, min_size=5, max_size=500, permutation_num=10_000, threads=2, outdir=None,
            no_plot=True, seed=0,
        ).res2d.set_index("Term")  # fmt: skip
        mine = ours[ours["factor"] == factor].set_index("term").loc[theirs.index]
        np.testing.assert_allclose(mine["es"], theirs["ES"].astype(float), rtol=0, atol=1e-10)
        differences.append(np.abs(mine["nes"] / theirs["NES"].astype(float) - 1))
        assert [set(edge.split(";")) for edge in mine["leading_edge"]] == [
            set(edge.split(";")) for edge in theirs["Lead_genes"]
        ]
        assert np.abs(mine["p_value"] - theirs["NOM p-val"].astype(float)).max() < 0.04
    assert np.median(np.concatenate(differences)) < 0.02
    assert np.quantile(np.concatenate(differences), 0.95) < 0.05
