"""How far predicted labels can be trusted: against known labels, and by their own confidence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullLocator

from lucidcell.plots.canvas import axes_or_new, panels_or_new, require_columns
from lucidcell.plots.names import readable
from lucidcell.plots.style import CONTINUOUS, FAINT, PALETTE, style

_WRITTEN_UP_TO = 20  # labels; larger matrices show colours only


def confusion_matrix(counts: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw which share of the cells of each label was predicted to be what; each row sums to 100 %.

    Parameters
    ----------
    counts
        Cells by known label (rows) and prediction (columns), as `lucidcell.metrics.confusion_table` gives them.
        Predictions are drawn in the order of the known labels, then others such as "unknown".
    ax
        Where to draw; a new figure by default (`confusion_size` gives a good size).

    Raises
    ------
    DataError
        If the table is empty.
    """
    require_columns(counts, [], "counts")
    others = [name for name in counts.columns if name not in counts.index]
    counts = counts.reindex(columns=[*counts.index, *others], fill_value=0)
    shares = counts.div(counts.sum(axis=1), axis=0).to_numpy(float)
    with style():
        ax = axes_or_new(ax, confusion_size(*counts.shape))
        image = ax.imshow(100 * shares, cmap=CONTINUOUS, vmin=0, vmax=100, aspect="auto", interpolation="nearest")
        ax.set_xticks(range(counts.shape[1]), [readable(name) for name in counts.columns], rotation=90)
        names = [f"{readable(name)} ({n:,})" for name, n in counts.sum(axis=1).items()]
        ax.set_yticks(range(counts.shape[0]), names)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set_xlabel("predicted label")
        ax.set_ylabel("known label (cells)")
        if max(counts.shape) <= _WRITTEN_UP_TO:
            _write_shares(ax, shares)
        figure = ax.get_figure()
        assert figure is not None
        bar = figure.colorbar(image, ax=ax, label="cells of the known label (%)", shrink=0.9, aspect=25, pad=0.02)
        bar.outline.set_visible(False)
        bar.ax.yaxis.set_minor_locator(NullLocator())
    return ax


def confusion_size(n_rows: int, n_columns: int) -> tuple[float, float]:
    """Return the width and height in inches that suit a confusion matrix."""
    cell = 0.36 if max(n_rows, n_columns) <= _WRITTEN_UP_TO else 0.18
    return 3.6 + cell * n_columns, 2.0 + 0.72 * cell * n_rows


def _write_shares(ax: Axes, shares: np.ndarray) -> None:
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.005:
            color = "white" if share < 0.55 else "black"
            ax.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=7, color=color)


def calibration_curve(reliability: pd.DataFrame, *, axes: Sequence[Axes] | None = None) -> list[Axes]:
    """Draw the share of right predictions against their confidence, and how many cells have which confidence.

    Bars are 95 % intervals (Wilson). Points below the dashed line mean that the model is too sure of itself.

    Parameters
    ----------
    reliability
        Column probabilities (what they are, such as "raw" and "calibrated") and, for each of these, the columns of
        `lucidcell.metrics.reliability_table`: lower, upper, n_cells, confidence, accuracy.
    axes
        Two Axes; a new figure by default.

    Raises
    ------
    DataError
        If the table is empty or lacks a column.
    """
    columns = ["probabilities", "lower", "upper", "n_cells", "confidence", "accuracy"]
    require_columns(reliability, columns, "reliability")
    with style():
        curve, sizes = panels_or_new(axes, 2, (7.4, 3.5))
        curve.plot([0, 1], [0, 1], color=FAINT, linestyle="--", linewidth=1)
        kinds = list(reliability.groupby("probabilities", sort=False))
        for (name, bins), color in zip(kinds, [FAINT, *PALETTE] if len(kinds) > 1 else PALETTE, strict=False):
            filled = bins[bins["n_cells"] > 0]
            accuracy = filled["accuracy"].to_numpy(float)
            low, high = _wilson_interval(accuracy, filled["n_cells"].to_numpy(float))
            curve.errorbar(
                filled["confidence"], accuracy, yerr=[accuracy - low, high - accuracy], color=color, marker="o",
                markersize=4, linewidth=1.4, elinewidth=0.8, label=str(name),
            )  # fmt: skip
            edges = [*bins["lower"], bins["upper"].iloc[-1]]
            sizes.stairs(bins["n_cells"], edges, color=color, linewidth=1.4, label=str(name))
        curve.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence (largest probability)")
        curve.set_ylabel("share of right predictions")
        curve.legend(loc="upper left")
        sizes.set(xlim=(0, 1.02), xlabel="confidence (largest probability)", ylabel="labelled cells")
        sizes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    return [curve, sizes]


def _wilson_interval(share: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % interval of a share among n cells (Wilson 1927)."""
    z = 1.96
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.minimum(middle - half, share), np.maximum(middle + half, share)
