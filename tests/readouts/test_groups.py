"""Who is compared with whom, and every way to ask for it wrongly."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
from battery import assert_sentence

from lucidcell.errors import DataError, SettingError
from lucidcell.readouts.groups import by_group, by_selection, groups_of


@pytest.fixture
def cells(trained):
    return trained().cells


def rows_of(adata, name):
    return np.flatnonzero(adata.obs["cell_type"] == name)


def test_a_group_against_another_and_against_the_rest(cells, simulated):
    (pair,) = by_group(groups_of(cells, simulated, "cell_type"), "type_0", "type_2")
    np.testing.assert_array_equal(pair.rows1, rows_of(simulated, "type_0"))
    np.testing.assert_array_equal(pair.rows2, rows_of(simulated, "type_2"))
    (one,) = by_group(groups_of(cells, simulated, "cell_type"), "type_0", None)
    assert one.group2 == "rest"
    np.testing.assert_array_equal(np.sort(np.r_[one.rows1, one.rows2]), np.arange(120))


def test_all_groups_or_several_in_the_order_given(cells, simulated):
    groups = groups_of(cells, simulated, "cell_type")
    assert [one.group1 for one in by_group(groups, None, None)] == ["type_0", "type_1", "type_2"]
    assert [one.group1 for one in by_group(groups, None, "type_1")] == ["type_0", "type_2"]
    assert [one.group1 for one in by_group(groups, ["type_2", "type_0"], None)] == ["type_2", "type_0"]


def test_the_model_knows_its_labels_and_batches_without_adata(cells, simulated):
    for key in (None, "cell_type", "batch"):
        own = groups_of(cells, None, key)
        given = groups_of(cells, simulated, key)
        assert own.names == given.names
        np.testing.assert_array_equal(own.codes, given.codes)


def test_cells_without_a_value_are_in_no_group_and_not_in_the_rest(cells, simulated):
    column = simulated.obs["cell_type"].astype(object)
    column.iloc[:10] = np.nan
    simulated.obs["cell_type"] = column
    (one,) = by_group(groups_of(cells, simulated, "cell_type"), "type_0", None)
    assert min(one.rows1.min(), one.rows2.min()) >= 10
    assert len(one.rows1) + len(one.rows2) == 110


def test_the_unlabelled_category_is_no_group(simulated):
    from lucidcell.cells.cells import Cells

    simulated.obs["cell_type"] = np.where(np.arange(120) < 30, "Unknown", simulated.obs["cell_type"].astype(str))
    cells = Cells.from_anndata(simulated, labels_key="cell_type", unlabeled_category="Unknown")
    for adata in (None, simulated):
        groups = groups_of(cells, adata, "cell_type")
        assert "Unknown" not in groups.names
        assert (groups.codes[:30] == -1).all()
        assert (groups.codes[30:] >= 0).all()


def test_numbers_as_groups(cells, simulated):
    simulated.obs["cluster"] = np.arange(120) % 3
    for name in (1, "1", 1.0, np.int64(1)):
        (one,) = by_group(groups_of(cells, simulated, "cluster"), name, None)
        np.testing.assert_array_equal(one.rows1, np.arange(1, 120, 3))


def test_masks_positions_and_queries(simulated):
    mask = (simulated.obs["age"] > 50).to_numpy()
    wanted = np.flatnonzero(mask)
    for idx1 in (mask, list(mask), wanted, wanted[::-1], "age > 50"):
        one = by_selection(120, simulated, idx1, None)
        np.testing.assert_array_equal(one.rows1, wanted)
        np.testing.assert_array_equal(one.rows2, np.flatnonzero(~mask))
    two = by_selection(120, simulated, "age > 50 and sex == 'f'", "age <= 50")
    np.testing.assert_array_equal(two.rows1, np.flatnonzero(mask & (simulated.obs["sex"] == "f")))
    np.testing.assert_array_equal(two.rows2, np.flatnonzero(~mask))


def test_small_groups_are_left_out_of_all_groups_with_a_warning(cells, simulated, caplog):
    simulated.obs["cluster"] = ["lonely", *["a", "b"] * 59, "a"]
    with caplog.at_level(logging.WARNING, logger="lucidcell"):
        found = by_group(groups_of(cells, simulated, "cluster"), None, None)
    assert [one.group1 for one in found] == ["a", "b"]
    assert "'lonely'" in caplog.text
    with pytest.raises(DataError, match="group 'lonely' has 1 cell, ") as caught:
        by_group(groups_of(cells, simulated, "cluster"), "lonely", None)
    assert_sentence(caught.value)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"groupby": "celltype"}, DataError, "obs has no 'celltype', given as groupby; did you mean 'cell_type'"),
        (
            {"group1": "typ_1"},
            SettingError,
            r"group1='typ_1' does not occur in obs\['cell_type'\]; did you mean 'type_1'",
        ),
        ({"group1": "type_1", "group2": "B"}, SettingError, "group2='B' does not occur.*'type_0'"),
        ({"group1": []}, SettingError, "group1 names no group"),
        ({"group1": "type_1", "group2": "type_1"}, SettingError, "40 cells are in both groups"),
        ({"groupby": "empty"}, DataError, r"no group of obs\['empty'\] has 2 cells"),
        ({"groupby": "cell_type", "idx1": [1, 2]}, SettingError, "idx1 was given together with groupby"),
        ({"idx2": [1, 2]}, SettingError, "idx2 was given without idx1"),
        ({"idx1": [1, 2, 3], "idx2": [3, 4]}, SettingError, "1 cells are in both groups"),
        ({"idx1": []}, DataError, "group 'idx1' has 0 cells"),
        ({"idx1": [5]}, DataError, "group 'idx1' has 1 cell, "),
        ({"idx1": np.ones(120, bool)}, DataError, "group 'rest' has 0 cells"),
        ({"idx1": np.ones(7, bool)}, SettingError, r"idx1 has shape \(7,\) for 120 cells"),
        ({"idx1": [[1, 2]]}, SettingError, r"idx1 has shape \(1, 2\)"),
        ({"idx1": [1, 120]}, SettingError, "idx1 must hold whole numbers from 0 to 119"),
        ({"idx1": [-1, 3]}, SettingError, "idx1 must hold whole numbers"),
        ({"idx1": [0.5, 3.0]}, SettingError, "idx1 must hold whole numbers"),
        ({"idx1": "weight > 3"}, SettingError, "idx1='weight > 3' is not a query .*weight"),
        ({"idx1": "age >"}, SettingError, "idx1='age >' is not a query"),
    ],
)
def test_wrong_groups_are_refused(trained, simulated, wrong, error, message):
    simulated.obs["empty"] = np.nan
    with pytest.raises(error, match=message) as caught:
        trained().differential_expression(simulated, **wrong)
    assert_sentence(caught.value)


def test_what_the_model_does_not_keep_needs_adata(trained, simulated):
    with pytest.raises(DataError, match="no 'sex', given as groupby without adata") as caught:
        trained().differential_expression(groupby="sex")
    assert_sentence(caught.value)
    assert len(trained().differential_expression(simulated, groupby="sex", n_samples_overall=50)) == 100
    with pytest.raises(SettingError, match="query on obs, which the model does not keep") as caught:
        trained().differential_expression(idx1="age > 50")
    assert_sentence(caught.value)
    with pytest.raises(SettingError, match="no labels to compare by") as caught:
        trained(labels_key=None).differential_expression()
    assert_sentence(caught.value)


def test_groups_do_not_change_the_users_data(trained, simulated):
    before = simulated.copy()
    trained().differential_expression(simulated, idx1="age > 50", n_samples_overall=50)
    pd.testing.assert_frame_equal(simulated.obs, before.obs)
    assert list(simulated.uns) == list(before.uns)
