"""Drawing cells as points on a map, and turning numbers into colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgba_array

from lucidcell.plots.style import CONTINUOUS, DIVERGING, HAIRLINE, MISSING, diverging_limit

Extend = Literal["neither", "min", "max", "both"]
_RASTERISED_FROM = 500  # points; above, an SVG holds them as an image


class ColorScale(NamedTuple):
    """How numbers become colours."""

    cmap: str
    low: float
    high: float
    extend: Extend  # at which end values lie beyond the scale

    def colors(self, numbers: np.ndarray) -> np.ndarray:
        """Turn n numbers into RGBA (n, 4); grey where there is no number."""
        present = np.isfinite(numbers)
        mappable = ScalarMappable(Normalize(self.low, self.high), self.cmap)
        rgba: np.ndarray = mappable.to_rgba(np.where(present, numbers, 0))
        rgba[~present] = to_rgba_array(MISSING)
        return rgba


def color_scale(numbers: np.ndarray) -> ColorScale:
    """Choose a scale centred at 0 if some number is negative, else a sequential one; both end at a 99th percentile."""
    finite = numbers[np.isfinite(numbers)]
    if finite.size == 0:
        return ColorScale(CONTINUOUS, 0, 1, "neither")
    smallest, largest = float(finite.min()), float(finite.max())
    if smallest < 0:
        limit = diverging_limit(finite)
        return ColorScale(DIVERGING, -limit, limit, _ends(smallest < -limit, largest > limit))
    high = float(np.quantile(finite, 0.99)) or largest or 1.0
    low = float(np.quantile(finite, 0.01))
    if low < high / 2 or low == high:  # near 0, so let the scale start there
        low, smallest = 0.0, 0.0
    return ColorScale(CONTINUOUS, low, high, _ends(smallest < low, largest > high))


def _ends(below: bool, above: bool) -> Extend:
    if below:
        return "both" if above else "min"
    return "max" if above else "neither"


def point_area(n: int, *, panel_inches: float = 4.5) -> float:
    """Return the area of a point in points², such that maps of few and of many cells look about equally full."""
    return float(np.clip(30_000 / max(n, 1), 2, 24) * np.clip(panel_inches / 4.5, 0.3, 1) ** 2)


def scatter(ax: Axes, xy: np.ndarray, colors: np.ndarray, area: float, *, seed: int, behind: np.ndarray) -> None:
    """Draw points in random order, those marked `behind` first."""
    order = np.random.default_rng(seed).permutation(len(xy))
    order = order[np.argsort(~behind[order], kind="stable")]
    ax.scatter(xy[order, 0], xy[order, 1], s=area, c=colors[order], linewidths=0, rasterized=len(xy) > _RASTERISED_FROM)


def color_bar(axes: Sequence[Axes], scale: ColorScale, label: str, *, shrink: float = 0.6) -> None:
    """Draw one colour bar at the right of the panels."""
    figure = axes[0].get_figure()
    assert figure is not None
    mappable = ScalarMappable(Normalize(scale.low, scale.high), scale.cmap)
    bar = figure.colorbar(mappable, ax=list(axes), label=label, extend=scale.extend, shrink=shrink, aspect=22, pad=0.02)
    bar.outline.set_visible(False)


def map_frame(ax: Axes, title: str, *, boxed: bool = False) -> None:
    """Dress the Axes of a map: no ticks and no equal scales, since neither position nor distance has a meaning."""
    ax.set_title(title)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(boxed)
    ax.spines[:].set_color(HAIRLINE)
    ax.margins(0.06 if boxed else 0.03)
    ax.set_xlabel("UMAP 1 (no unit)", fontsize=7, loc="left")
    ax.set_ylabel("UMAP 2 (no unit)", fontsize=7, loc="bottom")
