from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import lucidcell as lc
from lucidcell.errors import DataError, SettingError


@pytest.fixture
def loadings() -> pd.DataFrame:
    values = {"a": [3.0, -1.0, 0.5, 0.0, -2.0], "b": [0.0, 0.0, 0.0, 1.0, 0.0]}
    return pd.DataFrame(values, index=["g0", "g1", "g2", "g3", "g4"])


def test_both_ends_in_order(loadings):
    table = lc.top_genes(loadings, 2, sign="both")
    of_a = table[table["factor"] == "a"]
    assert list(of_a["gene"]) == ["g0", "g2", "g4", "g1"]
    assert list(of_a["sign"]) == ["+", "+", "-", "-"]
    assert list(of_a["rank"]) == [1, 2, 1, 2]
    assert list(table[table["factor"] == "b"]["gene"]) == ["g3"], "genes at 0 belong to no end"


def test_one_end(loadings):
    assert list(lc.top_genes(loadings[["a"]], 1)["gene"]) == ["g0"]
    assert list(lc.top_genes(loadings[["a"]], 1, sign="negative")["gene"]) == ["g4"]


def test_signal_is_the_root_of_the_information_of_a_poisson_count():
    """Fisher information about z of x ~ Poisson(m exp(l z)) at z = 0 is m l^2; by simulation of the score."""
    m, slope = 3.0, 0.4
    counts = np.random.default_rng(0).poisson(m, 200_000)
    information = ((counts - m) * slope).var()
    table = lc.gene_signal(pd.DataFrame({"a": [slope]}, index=["g"]), [m])
    assert table["a"].iloc[0] ** 2 == pytest.approx(information, rel=0.02)


def test_arguments(loadings):
    with pytest.raises(SettingError, match="sign is 'up'"):
        lc.top_genes(loadings, sign="up")
    with pytest.raises(SettingError, match="n is 0"):
        lc.top_genes(loadings, 0)
    with pytest.raises(DataError, match=r"\(2,\) for 5 genes"):
        lc.gene_signal(loadings, [1.0, 2.0])
