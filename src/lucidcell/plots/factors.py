"""What each latent factor is: its share, its genes, its cell types."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from lucidcell.errors import DataError
from lucidcell.plots.canvas import axes_or_new, panels_or_new, require_columns
from lucidcell.plots.names import readable
from lucidcell.plots.style import DOWN, FAINT, INK, MISSING, PALETTE, UP, style
from lucidcell.readouts.shares import UNUSED_KL


def unused(factors: pd.DataFrame) -> pd.Series:
    """Say which factors the model does not use (booleans); a factor whose KL is not known counts as used."""
    return factors["kl"] < UNUSED_KL


def factor_shares(factors: pd.DataFrame, *, axes: Sequence[Axes] | None = None) -> list[Axes]:
    """Draw bars of each factor's share, if known, variance over cells and KL divergence; unused factors are grey.

    Parameters
    ----------
    factors
        Columns factor, z_variance (variance over cells of the posterior mean) and kl (nats per cell; may be missing);
        of a linear decoder also share (of the linear predictor's variance).
    axes
        Two Axes, or three with the share; a new figure by default.

    Raises
    ------
    DataError
        If the table is empty or lacks a column.
    """
    require_columns(factors, ["factor", "z_variance", "kl"], "factors")
    idle = unused(factors)
    columns = [("share", "share of the predictor's variance")] if "share" in factors else []
    columns += [("z_variance", "variance over cells (latent units²)"), ("kl", "KL divergence (nats per cell)")]
    with style():
        panels = panels_or_new(axes, len(columns), (3.2 * len(columns), 0.8 + 0.24 * len(factors)))
        rows = np.arange(len(factors))
        for ax, (column, label) in zip(panels, columns, strict=True):
            values = factors[column].to_numpy(float)
            bars = ax.barh(rows, np.nan_to_num(values), height=0.72, color=PALETTE[0])
            for bar, is_idle in zip(bars, idle, strict=True):
                if is_idle:
                    bar.set_color(MISSING)
            ax.set_ylim(len(factors) - 0.4, -0.6)
            ax.set_xlim(left=min(0.0, float(np.nanmin(np.append(values, 0.0)))))
            ax.set_xlabel(label)
            ax.tick_params(axis="y", length=0)
            ax.set_yticks(rows, [readable(name) for name in factors["factor"]])
        last = panels[-1]
        for row in np.flatnonzero(idle):
            end = float(factors["kl"].iloc[row])
            last.annotate(
                "unused", (end, row), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8, color=FAINT
            )
        panels[0].set_ylabel("factor")
        if factors["kl"].isna().all():
            last.set_xticks([])
            last.annotate("not known", (0.5, 0.5), xycoords="axes fraction", ha="center", color=FAINT)
    return panels


def loadings_bars(
    loadings: pd.DataFrame, factor: str, *, n_genes: int = 10, label: str = "loading", ax: Axes | None = None
) -> Axes:
    """Draw signed bars of the genes with the highest and the lowest loadings on a factor.

    Parameters
    ----------
    loadings
        Column gene, and one column per factor.
    factor
        Which column.
    n_genes
        Genes at each end; at the lower end only genes with negative loadings.
    label
        What a loading is, with its unit.
    ax
        Where to draw; a new figure by default.

    Raises
    ------
    DataError
        If the table is empty or lacks the factor.
    """
    require_columns(loadings, ["gene", factor], "loadings")
    ends = extreme_genes(loadings, factor, n_genes)
    if ends.empty:
        msg = f"all {len(loadings)} loadings of factor {factor!r} are 0 or missing, so it has no top genes to draw."
        raise DataError(msg)
    with style():
        ax = axes_or_new(ax, (3.2, 0.7 + 0.17 * len(ends)))
        _signed_bars(ax, [readable(gene, 20) for gene in ends["gene"]], ends[factor].to_numpy(float))
        ax.set_xlabel(label)
        ax.set_ylabel("gene")
    return ax


def extreme_genes(loadings: pd.DataFrame, factor: str, n_genes: int) -> pd.DataFrame:
    """Return the rows of the highest positive and then the lowest negative loadings, from high to low."""
    ranked = loadings[["gene", factor]].dropna().sort_values(factor, ascending=False, kind="stable")
    up, down = ranked[ranked[factor] > 0], ranked[ranked[factor] < 0]
    return pd.concat([up.head(n_genes), down.tail(n_genes)])


def label_means(
    means: pd.Series, *, n_labels: int = 12, label: str = "mean (latent units)", ax: Axes | None = None
) -> Axes:
    """Draw signed bars of a factor's mean in each group of cells, from high to low.

    Parameters
    ----------
    means
        Mean of the factor, indexed by the name of the group.
    n_labels
        Groups shown at most: those farthest from 0.
    label
        What the means are, with their unit.
    ax
        Where to draw; a new figure by default.

    Raises
    ------
    DataError
        If there is no group.
    """
    require_columns(means.to_frame("mean"), [], "means per label")
    shown = means[means.abs().sort_values(ascending=False, kind="stable").index[:n_labels]].sort_values(ascending=False)
    with style():
        ax = axes_or_new(ax, (3.2, 0.7 + 0.19 * len(shown)))
        _signed_bars(ax, [readable(name, 22) for name in shown.index], shown.to_numpy(float))
        ax.set_xlabel(label)
        ax.set_ylabel("cell label" if len(shown) == len(means) else f"cell label ({len(shown)} of {len(means)})")
    return ax


def _signed_bars(ax: Axes, names: list[str], values: np.ndarray) -> None:
    rows = np.arange(len(values))
    ax.barh(rows, values, height=0.74, color=[UP if value >= 0 else DOWN for value in values])
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.set_ylim(len(values) - 0.4, -0.6)
    ax.set_yticks(rows, names)
    ax.tick_params(axis="y", length=0)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.spines["left"].set_visible(False)
