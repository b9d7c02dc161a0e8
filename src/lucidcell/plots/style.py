"""Palette, colour maps and the matplotlib style of every figure; nothing here changes matplotlib's own settings."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

# Okabe and Ito's seven colours; then colours added one by one, each as far as possible (in Oklab) from those before it,
# for normal sight, protanopia and deuteranopia alike (tests/plots/test_style.py holds the distances).
PALETTE = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442",
    "#69001E", "#2D1E87", "#874B4B", "#87C387", "#5A87F0", "#3C3C5A", "#A53C87",
    "#5A4B00", "#4B3CA5", "#B4E196", "#875A00",
)  # fmt: skip
MISSING = "#D0D0D0"  # cells without a value, categories without a colour
INK = "#22303C"
FAINT = "#6B7A87"
HAIRLINE = "#E2E7EB"
UP, DOWN = "#D55E00", "#0072B2"
CONTINUOUS = "viridis"
DIVERGING = "coolwarm"  # light grey at 0, so that points there stay visible on white

_SETTINGS: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.labelpad": 8,
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.unicode_minus": True,
    "figure.facecolor": "white",
    "font.family": "sans-serif",
    "font.size": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "savefig.facecolor": "white",
    "svg.fonttype": "none",  # text stays text: small files, searchable, in the page's own font
    "text.color": INK,
    "text.parse_math": False,  # a gene may be called a$b$c
    "xtick.color": FAINT,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.color": FAINT,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 8,
}


def style() -> AbstractContextManager[None]:
    """Give a context in which figures get lucidcell's style; matplotlib's settings are as before afterwards."""
    return mpl.rc_context(_SETTINGS)


def diverging_limit(values: np.ndarray, quantile: float = 0.99) -> float:
    """Return the half-width of a colour scale centred at 0: a quantile of |values|, against outliers."""
    finite = np.abs(values[np.isfinite(values)])
    return float(np.quantile(finite, quantile)) or float(finite.max()) or 1.0 if finite.size else 1.0


def plain_log_axis(ax: Axes, which: str) -> None:
    """Make axis "x" or "y" logarithmic with ticks written as plain numbers (0.01, 1, 100)."""
    if which == "x":
        ax.set_xscale("log")
    else:
        ax.set_yscale("log")
    axis = ax.xaxis if which == "x" else ax.yaxis
    low, high = sorted(axis.get_view_interval())
    narrow = low > 0 and np.log10(high / low) < 1.9  # too few powers of ten for an axis
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,), numticks=7))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
