"""Whether factors come back, and how many there should be."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from lucidcell.plots.canvas import axes_or_new, panels_or_new, require_columns
from lucidcell.plots.heatmap import heatmap, heatmap_size
from lucidcell.plots.style import FAINT, INK, PALETTE, style


def stability_heatmap(matches: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the agreement of every factor with its match in every other fit.

    Parameters
    ----------
    matches
        `Stability.matches`: seeds x factors, absolute correlations.
    ax
        Where to draw; a new figure by default.

    Raises
    ------
    DataError
        If the table is empty.
    """
    require_columns(matches, [], "matches")
    ax = axes_or_new(ax, heatmap_size(*matches.shape))
    heatmap(matches, color_label="agreement (0 to 1)", row_label="seed", column_label="factor", ax=ax)
    ax.images[0].set_clim(0, 1)
    return ax


def selection_curve(table: pd.DataFrame, *, axes: Sequence[Axes] | None = None) -> list[Axes]:
    """Draw held-out ELBO and stability against the number of factors; a line marks the number that was selected.

    Parameters
    ----------
    table
        What `select_n_latent` gives: n_latent, above, above_se, agreement, subspace.
    axes
        Two Axes; a new figure by default.

    Raises
    ------
    DataError
        If the table is empty or lacks a column.
    """
    require_columns(table, ["n_latent", "above", "above_se", "agreement", "subspace"], "selection")
    with style():
        left, right = panels_or_new(axes, 2, (7.6, 3.2))
        left.errorbar(
            table["n_latent"], table["above"], yerr=table["above_se"], color=PALETTE[0], marker="o", markersize=4,
            capsize=2, linewidth=1.4,
        )  # fmt: skip
        left.set_ylabel("held-out negative ELBO above the best\n(nats per cell; mean and standard error)")
        right.plot(table["n_latent"], table["agreement"], color=PALETTE[3], marker="o", markersize=4, label="factors")
        right.plot(table["n_latent"], table["subspace"], color=PALETTE[2], marker="s", markersize=4, label="subspace")
        right.set_ylim(0, 1.02)
        right.set_ylabel("agreement between seeds (0 to 1)")
        right.legend(loc="lower left")
        selected = table.attrs.get("selected")
        for ax in (left, right):
            ax.set_xlabel("number of factors")
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            if selected is not None:
                ax.axvline(selected, color=FAINT, linewidth=0.9, linestyle=":")
        if selected is not None:
            left.annotate(
                f"selected: {selected}", (selected, 1), xycoords=("data", "axes fraction"), xytext=(4, -2),
                textcoords="offset points", va="top", fontsize=8, color=INK,
            )  # fmt: skip
    return [left, right]
