"""Training curves show the numbers of the history."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lucidcell.errors import DataError
from lucidcell.plots import kl_curve, training_curves


def curves(ax):
    return {line.get_label(): line for line in ax.get_lines() if not line.get_label().startswith("_")}


def test_curves_are_the_negative_elbo_at_full_weight(ax, history):
    lines = curves(training_curves(history, ax=ax))
    assert set(lines) == {"training cells", "held-out cells"}
    np.testing.assert_array_equal(lines["held-out cells"].get_ydata(), history["validation_negative_elbo"])
    expected = history["train_reconstruction"] + history["train_kl"]
    np.testing.assert_array_equal(lines["training cells"].get_ydata(), expected)


def test_a_phase_that_passes_over_no_cells_is_left_out(ax, history):
    phase = ["cells"] * 10 + ["genes"] * 5 + ["joint"] * (len(history) - 15)
    of_genes = np.array([one == "genes" for one in phase])
    history.loc[of_genes, history.columns.drop("epoch")] = np.nan
    lines = training_curves(history.assign(phase=phase), best_epoch=17, ax=ax).get_lines()
    drawn = [list(line.get_xdata()) for line in lines if len(line.get_xdata()) > 2]
    assert drawn == [list(range(1, 11)), list(range(11, len(history) - 4))] * 2
    assert len(curves(ax)) == 2, "one entry of the legend for each curve"
    assert [text.get_text() for text in ax.texts] == ["cells", "joint", "best"]


def test_without_terms_the_loss_is_drawn(ax, history):
    lines = curves(training_curves(history[["epoch", "train_loss"]], ax=ax))
    np.testing.assert_array_equal(lines["training cells"].get_ydata(), history["train_loss"])
    assert list(lines) == ["training cells"]


def test_steep_start_is_left_out_and_everything_after_is_in(ax, history):
    training_curves(history, ax=ax)
    low, high = ax.get_ylim()
    later = history.iloc[3:]
    assert low < (later["train_reconstruction"] + later["train_kl"]).min()
    assert later["validation_negative_elbo"].max() < high < history["validation_negative_elbo"].iloc[0]


def test_best_epoch_is_marked(ax, history):
    training_curves(history, best_epoch=17, ax=ax)
    assert any(set(line.get_xdata()) == {17} for line in ax.get_lines())
    assert [text.get_text() for text in ax.texts] == ["best: epoch 17"]


def test_empty_validation_gives_one_curve(ax, history):
    assert list(curves(training_curves(history.assign(validation_negative_elbo=np.nan), ax=ax))) == ["training cells"]
    ax.clear()
    assert list(curves(kl_curve(history.drop(columns="validation_kl"), ax=ax))) == ["training cells"]


def test_held_out_cells_seen_now_and_then_give_a_connected_curve(ax, history):
    history.loc[history["epoch"] % 5 != 0, "validation_negative_elbo"] = np.nan
    line = curves(training_curves(history, ax=ax))["held-out cells"]
    assert list(line.get_xdata()) == [5, 10, 15, 20, 25, 30]


def test_phases_are_named_where_they_begin(ax, history):
    history["phase"] = ["cells"] * 12 + ["$\\x{$"] * 18
    training_curves(history, ax=ax)
    assert [text.get_text() for text in ax.texts] == ["cells", "$\\x{$"]
    assert any(set(line.get_xdata()) == {12.5} for line in ax.get_lines())
    ax.get_figure().draw_without_rendering()


def test_one_epoch_is_a_visible_point(ax, history):
    lines = curves(training_curves(history.head(1), ax=ax))
    assert lines["training cells"].get_marker() == "o"


@pytest.mark.parametrize("draw", [training_curves, kl_curve])
def test_faults_are_sentences(draw):
    with pytest.raises(DataError, match="lacks the columns epoch"):
        draw(pd.DataFrame({"step": [1]}))
    with pytest.raises(DataError, match="no rows"):
        draw(pd.DataFrame({"epoch": [], "train_loss": [], "train_kl": []}))
