"""Names written beside points, or on groups of points, so that no two overlap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from lucidcell.plots.names import readable
from lucidcell.plots.style import FAINT, INK

_DIRECTIONS = np.deg2rad([0, 180, 45, 135, 315, 225, 90, 270, 22, 158, 338, 202, 68, 112, 292, 248])
_STEPS = (7, 13, 20, 28, 38, 50, 65, 85, 110, 140, 180, 230)  # points from the anchor to the edge of the name
_LEADER_FROM = 13  # from this distance on, a line leads back to the anchor
_GAP = 1.5  # points kept free around a name
_BOXED_GAP = 4.0


def place_labels(
    ax: Axes,
    xy: np.ndarray,
    names: Sequence[object],
    *,
    colors: Sequence[str] | None = None,
    covering: Sequence[bool] | None = None,
    size: float = 8,
) -> list[Annotation]:
    """Write each name as near to its point as the names before it allow, and return what was written.

    A name that fits nowhere within reach is left out. The figure is laid out first, so call this last.

    Parameters
    ----------
    ax
        Axes whose limits are final.
    xy
        Anchors (n, 2), in data units, the most important first.
    names
        The n names.
    colors
        The n colours in which the names are boxed; without boxes by default.
    covering
        Which of the names may stand on their anchors; all names stay clear of the anchors of the others.
    size
        Of the font, in points.
    """
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    pixels_per_point = figure.dpi / 72
    frame = ax.get_window_extent()
    anchors = ax.transData.transform(np.asarray(xy, float).reshape(-1, 2))
    covers = covering if covering is not None else [False] * len(anchors)
    taken = [Bbox.from_bounds(x - 2, y - 2, 4, 4) for (x, y), free in zip(anchors, covers, strict=True) if not free]
    placed = []
    for index, (anchor, name) in enumerate(zip(anchors, names, strict=True)):
        text = _annotation(ax, xy[index], readable(name), size, None if colors is None else colors[index])
        extent = Text.get_window_extent(text)  # without the leader
        gap = (_GAP if colors is None else _BOXED_GAP) * pixels_per_point
        half = np.array([extent.width, extent.height]) / 2 + gap
        spots = _spots(anchor, half, pixels_per_point, on_anchor=covers[index])
        box = _first_free(spots, half, frame, taken)
        if box is None:
            text.remove()
            continue
        away = np.mean([box.min, box.max], axis=0) - anchor
        text.set_position((float(away[0]) / pixels_per_point, float(away[1]) / pixels_per_point))
        near = (np.maximum(np.abs(away) - half, 0) < _LEADER_FROM * pixels_per_point).all()
        if near and text.arrow_patch is not None:
            text.arrow_patch.set_visible(False)
        taken.append(box)
        placed.append(text)
    return placed


def _annotation(ax: Axes, point: np.ndarray, name: str, size: float, color: str | None) -> Annotation:
    text = ax.annotate(
        name,
        (float(point[0]), float(point[1])),
        xytext=(0, 0),
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=size,
        color=INK,
        arrowprops={"arrowstyle": "-", "color": FAINT, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 1},
        zorder=5,
    )
    if color is None:
        text.set_path_effects([withStroke(linewidth=3, foreground="white", alpha=0.9)])
    else:
        text.set_bbox({"boxstyle": "round,pad=0.2", "facecolor": (1, 1, 1, 0.85), "edgecolor": color, "linewidth": 1.4})
    text.set_in_layout(False)
    return text


def _spots(anchor: np.ndarray, half: np.ndarray, scale: float, *, on_anchor: bool) -> list[np.ndarray]:
    """Centres to try, in pixels, the nearest first."""
    ways = [np.array([np.cos(angle), np.sin(angle)]) for angle in _DIRECTIONS]
    around = [anchor + way * (step * scale + half * np.abs(way)) for step in _STEPS for way in ways]
    return [anchor, *around] if on_anchor else around


def _first_free(spots: list[np.ndarray], half: np.ndarray, frame: Bbox, taken: list[Bbox]) -> Bbox | None:
    """First box that, pushed into the frame where it must be, touches no other."""
    if (frame.size < 2 * half).any():
        return None
    for spot in spots:
        centre = np.clip(spot, frame.min + half, frame.max - half)
        box = Bbox([centre - half, centre + half])
        if not any(box.overlaps(other) for other in taken):
            return box
    return None
