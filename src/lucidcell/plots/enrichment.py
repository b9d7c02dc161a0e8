"""Gene sets along the list of genes of a factor, and over many factors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D

from lucidcell.errors import DataError
from lucidcell.plots.canvas import axes_or_new, panels_or_new, require_columns
from lucidcell.plots.names import readable
from lucidcell.plots.style import DIVERGING, DOWN, FAINT, HAIRLINE, INK, UP, diverging_limit, style

_LONGEST_TERM = 46
_SMALLEST_Q = 1e-4  # smaller ones are drawn as this


def running_score(
    values: pd.Series, genes: Sequence[str], *, weight: float = 1.0, title: str = "",
    axes: Sequence[Axes] | None = None,
) -> list[Axes]:  # fmt: skip
    """Draw the running sum of a gene set along the genes of a factor, and where its members are.

    Parameters
    ----------
    values
        The factor: one number for each gene, by name.
    genes
        Members of the set; those without a value are passed over.
    weight
        Exponent of |value|, as in `gsea`.
    title
        Of the upper panel, such as the name of the set.
    axes
        Two Axes, one above the other; a new figure by default.

    Raises
    ------
    DataError
        If no member has a value.
    """
    ranked = values.sort_values(ascending=False, kind="stable")
    hits = ranked.index.isin(list(genes))
    if not hits.any() or hits.all():
        msg = (
            f"{int(hits.sum())} of the {len(set(genes))} genes are among the {len(ranked)} of the factor: pass others."
        )
        raise DataError(msg)
    sizes = np.where(hits, np.abs(ranked.to_numpy(float)) ** weight, 0.0)
    running = np.cumsum(sizes / sizes.sum() - ~hits / (~hits).sum())
    highest, lowest = int(running.argmax()), int(running.argmin())
    peak = highest if running[highest] >= -running[lowest] else lowest
    rank = np.arange(1, len(ranked) + 1)
    color = UP if running[peak] >= 0 else DOWN
    with style():
        if axes is None:
            import matplotlib.pyplot as plt  # here, because it looks for a display

            _, grid = plt.subplots(2, 1, figsize=(5.0, 3.6), layout="constrained", sharex=True, height_ratios=[4, 1])
            axes = list(grid)
        upper, lower = panels_or_new(axes, 2, (5.0, 3.6))
        upper.axhline(0, color=HAIRLINE, linewidth=0.8)
        upper.plot(rank, running, color=color)
        upper.plot([rank[peak]] * 2, [0.0, running[peak]], color=FAINT, linewidth=0.8, linestyle=":")
        side = "left" if rank[peak] < len(rank) / 2 else "right"
        upper.annotate(
            f"score {running[peak]:.2f}".replace("-", "\N{MINUS SIGN}"), (rank[peak], running[peak]),
            xytext=(6 if side == "left" else -6, 0), textcoords="offset points", fontsize=8, ha=side, va="center",
        )  # fmt: skip
        upper.set_ylabel("running sum")
        upper.set_xlabel("rank of the gene")
        upper.xaxis.label.set_visible(False)
        upper.tick_params(axis="x", labelbottom=False)
        upper.set_title(readable(title, 60))
        lower.vlines(rank[hits], 0, 1, color=INK, linewidth=0.6)
        lower.set_ylim(0, 1)
        lower.set_yticks([])
        lower.set_ylabel("members", labelpad=16)
        lower.set_xlabel("rank of the gene")
        lower.set_xlim(0, len(rank) + 1)
        upper.set_xlim(0, len(rank) + 1)
    return [upper, lower]


def enrichment_dots(enrichment: pd.DataFrame, *, n_terms: int = 3, max_q: float = 0.05, ax: Axes | None = None) -> Axes:
    """Draw the best terms of every factor as dots: colour for the NES, size for the q-value.

    Parameters
    ----------
    enrichment
        What `gsea` found: factor, term, nes, q_value.
    n_terms
        Terms taken from each factor and end.
    max_q
        Only terms with a q-value of at most this are taken, and drawn.
    ax
        Where to draw; a new figure by default (`enrichment_dots_size` gives a good size).

    Raises
    ------
    DataError
        If the table lacks a column, or no term is significant.
    """
    require_columns(enrichment, ["factor", "term", "nes", "q_value"], "enrichment")
    shown = significant_terms(enrichment, n_terms, max_q)
    if shown.empty:
        msg = f"none of {len(enrichment)} terms has a q-value of at most {max_q}: raise max_q, or use other gene sets."
        raise DataError(msg)
    terms, factors = list(dict.fromkeys(shown["term"])), list(dict.fromkeys(enrichment["factor"]))
    every = enrichment[enrichment["term"].isin(terms) & (enrichment["q_value"] <= max_q)]
    nes = every["nes"].to_numpy(float)
    limit = diverging_limit(nes, 1.0)
    areas = _area(every["q_value"].to_numpy(float))
    with style():
        ax = axes_or_new(ax, enrichment_dots_size(len(terms), len(factors)))
        column = {name: i for i, name in enumerate(factors)}
        row = {name: i for i, name in enumerate(terms)}
        ax.set_xticks(range(len(factors)), [readable(name, 12) for name in factors])
        ax.set_yticks(range(len(terms)), [readable(name, _LONGEST_TERM) for name in terms])
        if len(factors) > 15:
            ax.tick_params(axis="x", labelrotation=90)
        ax.grid(color=HAIRLINE, linewidth=0.6)
        dots = ax.scatter(
            [column[name] for name in every["factor"]], [row[name] for name in every["term"]], s=areas, c=nes,
            cmap=DIVERGING, norm=Normalize(-limit, limit), edgecolors=FAINT, linewidths=0.4, zorder=3,
        )  # fmt: skip
        ax.set_xlim(-0.6, len(factors) - 0.4)
        ax.set_ylim(len(terms) - 0.4, -0.6)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set_xlabel("factor")
        ax.set_ylabel("gene set")
        figure = ax.get_figure()
        assert figure is not None
        bar = figure.colorbar(dots, ax=ax, label="normalised enrichment score", shrink=0.6, aspect=20, pad=0.02)
        bar.outline.set_visible(False)
        steps = [q for q in (0.05, 0.01, 1e-3, 1e-4) if q <= max_q] or [max_q]
        handles = [
            Line2D([], [], linestyle="", marker="o", color=FAINT, markersize=float(np.sqrt(_area(np.array([q]))[0])))
            for q in steps
        ]
        ax.legend(
            handles, [f"q ≤ {q:g}" for q in steps], loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(steps),
            handletextpad=0.2, columnspacing=1.0,
        )  # fmt: skip
    return ax


def enrichment_dots_size(n_terms: int, n_factors: int) -> tuple[float, float]:
    """Return the width and height in inches that suit so many terms and factors."""
    return 5.0 + 0.34 * n_factors, max(2.4, 1.3 + 0.2 * n_terms)


def significant_terms(enrichment: pd.DataFrame, n_terms: int, max_q: float) -> pd.DataFrame:
    """Return the `n_terms` most extreme terms of each factor and end among those with q of at most `max_q`."""
    good = enrichment[enrichment["q_value"] <= max_q]
    good = good.assign(end=np.sign(good["nes"]), extreme=good["nes"].abs())
    ranked = good.sort_values("extreme", ascending=False, kind="stable")
    best: pd.DataFrame = ranked.groupby(["factor", "end"], sort=False).head(n_terms)
    order = {name: i for i, name in enumerate(dict.fromkeys(enrichment["factor"]))}
    return best.assign(place=best["factor"].map(order)).sort_values(
        ["place", "end"], ascending=[True, False], kind="stable"
    )


def _area(q_values: np.ndarray) -> np.ndarray:
    return 14 + 30 * -np.log10(np.clip(q_values, _SMALLEST_Q, 1.0))
