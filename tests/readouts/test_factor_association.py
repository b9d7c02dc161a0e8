from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control, mannwhitneyu, spearmanr
from sklearn.metrics import roc_auc_score

import lucidcell as lc
from lucidcell.errors import DataError, SettingError
from lucidcell.readouts.factor_association import aurocs


@pytest.fixture
def cells() -> tuple[pd.DataFrame, pd.DataFrame]:
    """8 donors of 40 cells; factor a goes with the type, b with the donor only, c with the age of the donor."""
    rng = np.random.default_rng(0)
    donor = np.repeat(np.arange(8), 40)
    obs = pd.DataFrame(
        {
            "type": rng.choice(["B", "T", "NK"], 320),
            "donor": [f"d{d}" for d in donor],
            "phenotype": np.where(donor % 2, "ill", "well"),
            "age": (20 + 5 * donor).astype(float),
            "depth": rng.normal(size=320),
        }
    )
    of_donor = rng.standard_normal(8)
    scores = pd.DataFrame(
        {
            "a": 2.0 * (obs["type"] == "B") + rng.standard_normal(320),
            "b": of_donor[donor] + 0.1 * rng.standard_normal(320),
            "c": obs["age"] / 10 + rng.standard_normal(320),
        }
    )
    return scores, obs


def row(table: pd.DataFrame, factor: str, column: str, category: str = "") -> pd.Series:
    found = table[(table["factor"] == factor) & (table["column"] == column) & (table["category"] == category)]
    assert len(found) == 1
    return found.iloc[0]


def test_without_donors_it_is_scikit_learn_and_scipy(cells):
    scores, obs = cells
    table = lc.factor_association(scores, obs, ["type", "depth"])
    one = row(table, "a", "type", "B")
    inside = obs["type"] == "B"
    assert one["effect"] == pytest.approx(roc_auc_score(inside, scores["a"]))
    assert one["p_value"] == pytest.approx(mannwhitneyu(scores["a"][inside], scores["a"][~inside])[1])
    assert (one["unit"], one["n"], one["statistic"]) == ("cells", 320, "auroc")
    number = row(table, "b", "depth")
    assert (number["effect"], number["p_value"]) == pytest.approx(tuple(spearmanr(scores["b"], obs["depth"])))
    np.testing.assert_allclose(table["q_value"], false_discovery_control(table["p_value"]))
    assert table["p_value"].is_monotonic_increasing


def test_a_difference_between_donors_is_not_one_between_phenotypes(cells):
    scores, obs = cells
    naive = row(lc.factor_association(scores, obs, "phenotype"), "b", "phenotype", "ill")
    fair = row(lc.factor_association(scores, obs, "phenotype", donor_key="donor"), "b", "phenotype", "ill")
    assert naive["p_value"] < 1e-3
    assert fair["p_value"] > 0.05
    assert (fair["unit"], fair["n"]) == ("donors", 8)


def test_within_donors_the_auroc_is_averaged(cells):
    scores, obs = cells
    table = lc.factor_association(scores, obs, "type", donor_key="donor")
    by_hand = np.mean([
        roc_auc_score(part["type"] == "B", scores.loc[part.index, "a"]) for _, part in obs.groupby("donor")
    ])  # fmt: skip
    one = row(table, "a", "type", "B")
    assert one["effect"] == pytest.approx(by_hand)
    assert one["p_value"] < 1e-4
    assert row(table, "b", "type", "B")["p_value"] > 0.01, "donors differ in b, types within them do not"


def test_numbers_of_donors_are_ranked_by_donor(cells):
    scores, obs = cells
    one = row(lc.factor_association(scores, obs, ["age", "depth"], donor_key="donor"), "c", "age")
    means = scores["c"].groupby(obs["donor"]).mean()
    assert one["effect"] == pytest.approx(spearmanr(means, np.arange(8))[0])
    assert one["n"] == 8
    within = row(lc.factor_association(scores, obs, "depth", donor_key="donor"), "c", "depth")
    by_hand = np.mean([spearmanr(part["depth"], scores.loc[part.index, "c"])[0] for _, part in obs.groupby("donor")])
    assert within["effect"] == pytest.approx(by_hand)


def test_under_the_null_p_values_are_uniform():
    """40 factors of noise, each shifted by donor, against a phenotype of donors and a type within them."""
    rng = np.random.default_rng(1)
    donor = np.repeat(np.arange(12), 30)
    scores = pd.DataFrame(rng.standard_normal((12, 200))[donor] + rng.standard_normal((360, 200)))
    obs = pd.DataFrame(
        {"donor": donor.astype(str), "phenotype": np.where(donor < 6, "x", "y"), "type": rng.choice(["p", "q"], 360)}
    )
    table = lc.factor_association(scores, obs, ["phenotype", "type"], donor_key="donor")
    for _, of_column in table.groupby("column"):
        assert 0.01 < (of_column["p_value"] < 0.05).mean() < 0.1
    assert (table["q_value"] < 0.05).sum() == 0


def test_aurocs_with_ties_are_scikit_learn():
    rng = np.random.default_rng(2)
    z, inside = rng.integers(0, 4, (50, 3)).astype(float), rng.random(50) < 0.3
    np.testing.assert_allclose(aurocs(z, inside), [roc_auc_score(inside, z[:, d]) for d in range(3)])


def test_what_cannot_be_tested_is_nan(cells):
    scores, obs = cells
    obs["rare"] = ["one"] + ["many"] * 319
    table = lc.factor_association(scores, obs, "rare")
    assert table["p_value"].isna().all()
    assert table["q_value"].isna().all()


def test_donors_that_all_agree_perfectly_give_a_small_p_value(cells):
    scores, obs = cells
    scores["a"] = (obs["type"] == "B") + 1e-3 * scores["a"]
    scores["b"] = obs["depth"]
    table = lc.factor_association(scores, obs, ["type", "depth"], donor_key="donor")
    perfect, number = row(table, "a", "type", "B"), row(table, "b", "depth")
    assert perfect["effect"] == 1
    assert 0 < perfect["p_value"] < 1e-5
    assert number["effect"] == pytest.approx(1)
    assert 0 < number["p_value"] < 1e-5


def test_dates_are_numbers(cells):
    scores, obs = cells
    obs["taken"] = pd.Timestamp("2026-01-01") + pd.to_timedelta(obs["age"], unit="D")
    one, other = (row(lc.factor_association(scores, obs, key), "c", key) for key in ("taken", "age"))
    assert one["effect"] == pytest.approx(other["effect"])


def test_arguments(cells):
    scores, obs = cells
    with pytest.raises(DataError, match="no column 'tissue'"):
        lc.factor_association(scores, obs, "tissue")
    with pytest.raises(DataError, match="320 cells and obs 10"):
        lc.factor_association(scores, obs.head(10), "type")
    with pytest.raises(DataError, match="scores is ndarray"):
        lc.factor_association(scores.to_numpy(), obs, "type")
    with pytest.raises(SettingError, match="names no column"):
        lc.factor_association(scores, obs, [])
    obs["name"] = [f"cell{i}" for i in range(320)]
    with pytest.raises(DataError, match="320 categories"):
        lc.factor_association(scores, obs, "name")
