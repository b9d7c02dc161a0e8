"""What every embedding must do: shape, seed, mixing more than PCA while types stay apart, errors in sentences."""

from __future__ import annotations

import random
import sys
import warnings

import numpy as np
import pytest

from lucidcell import comparators, metrics
from lucidcell.errors import DataError, SettingError

CORRECTIONS = ["combat", "mnn", "cca", "harmony", "scanorama"]
PACKAGES = {"harmony": "harmonypy", "scanorama": "scanorama"}
every_correction = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.oracle) if name in PACKAGES else name for name in CORRECTIONS],
)


def run(name: str, counts, **settings) -> np.ndarray:
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name], reason=f"{PACKAGES[name]} comes with the oracle group")
    with warnings.catch_warnings():
        if name in PACKAGES:
            warnings.simplefilter("ignore")  # of these packages and what they import
        return getattr(comparators, name)(counts.x, counts.batch, **({"n_components": 5} | settings))


@every_correction
def test_batches_mix_more_than_without_correction_and_types_stay_apart(counts, name):
    before, after = comparators.pca(counts.x, n_components=5), run(name, counts)
    assert after.shape == (300, 5)
    assert metrics.entropy_of_batch_mixing(before, counts.batch, normalize=True) < 0.6
    # a type has some 100 cells, so 50 neighbours can mix
    assert metrics.entropy_of_batch_mixing(after, counts.batch, normalize=True) > 0.9
    assert metrics.label_purity(after, counts.labels) > 0.95


@every_correction
def test_the_same_seed_gives_the_same_and_global_generators_are_left_alone(counts, name):
    python_state, numpy_state = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    np.testing.assert_array_equal(run(name, counts, seed=2), run(name, counts, seed=2))
    assert random.getstate() == python_state
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


@every_correction
def test_one_batch_is_refused(counts, name):
    with pytest.raises(DataError, match="batch holds only 'x'"):
        run(name, counts._replace(batch=np.full(300, "x")))


@every_correction
def test_too_many_components_are_refused(counts, name):
    with pytest.raises(SettingError, match="n_components=400"):
        run(name, counts, n_components=400)


@pytest.mark.parametrize("name", PACKAGES)
def test_a_missing_package_is_a_sentence(counts, name, monkeypatch):
    module = sys.modules[f"lucidcell.comparators.{name}"]  # the package holds the function of that name
    monkeypatch.setattr(module, "find_spec", lambda package: None)
    with pytest.raises(SettingError, match=f"pip install {PACKAGES[name]}"):
        getattr(comparators, name)(counts.x, counts.batch)
