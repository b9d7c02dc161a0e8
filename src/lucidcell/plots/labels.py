"""Names written beside points so that no two overlap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from lucidcell.plots.names import readable
from lucidcell.plots.style import FAINT, INK

_DIRECTIONS = np.deg2rad([0, 180, 45, 135, 315, 225, 90, 270, 22, 158, 338, 202, 68, 112, 292, 248])
_STEPS = (7, 13, 20, 28, 38, 50, 65, 85, 110, 140, 180, 230)  # points from the anchor to the edge of the name
_LEADER_FROM = 13  # from this distance on, a line leads back to the anchor
_GAP = 1.5  # points kept free around each name


def place_labels(
    ax: Axes, xy: np.ndarray, names: Sequence[object], *, centred: bool = False, size: float = 8, bold: bool = False
) -> list[Annotation]:
    """Write each name as near to its point as the names before it allow.

    A name that fits nowhere within reach is left out. The figure is laid out first, so call this last.

    Parameters
    ----------
    ax
        Axes whose limits are final.
    xy
        Anchors (n, 2), in data units, the most important first.
    names
        The n names.
    centred
        Try the anchor itself first (for groups of points); otherwise names stay clear of all anchors.
    size, bold
        Of the font, in points.
    """
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    pixels_per_point = figure.dpi / 72
    frame = ax.get_window_extent()
    anchors = ax.transData.transform(np.asarray(xy, float).reshape(-1, 2))
    taken = [] if centred else [Bbox.from_bounds(x - 2, y - 2, 4, 4) for x, y in anchors]
    placed = []
    for anchor, point, name in zip(anchors, xy, names, strict=True):
        text = _annotation(ax, point, readable(name), size, bold)
        extent = text.get_window_extent()
        half = np.array([extent.width, extent.height]) / 2 + _GAP * pixels_per_point
        found = _free_spot(anchor, half, frame, taken, pixels_per_point, centred)
        if found is None:
            text.remove()
            continue
        box, distance = found
        centre = np.array([(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2])
        text.set_position((centre - anchor) / pixels_per_point)
        if distance < _LEADER_FROM and text.arrow_patch is not None:
            text.arrow_patch.set_visible(False)
        taken.append(box)
        placed.append(text)
    return placed


def _annotation(ax: Axes, point: np.ndarray, name: str, size: float, bold: bool) -> Annotation:
    text = ax.annotate(
        name,
        (float(point[0]), float(point[1])),
        xytext=(0, 0),
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=size,
        fontweight="bold" if bold else "normal",
        color=INK,
        arrowprops={"arrowstyle": "-", "color": FAINT, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 1},
        zorder=5,
    )
    text.set_path_effects([withStroke(linewidth=3, foreground="white", alpha=0.9)])
    text.set_in_layout(False)
    return text


def _free_spot(
    anchor: np.ndarray, half: np.ndarray, frame: Bbox, taken: list[Bbox], scale: float, centred: bool
) -> tuple[Bbox, float] | None:
    """Find the first box around the anchor that lies in the frame and touches no other, with its distance in points."""
    spots = [(anchor, 0.0)] if centred else []
    for step in _STEPS:
        for angle in _DIRECTIONS:
            way = np.array([np.cos(angle), np.sin(angle)])
            spots.append((anchor + way * (step * scale + half * np.abs(way)), float(step)))
    for centre, distance in spots:
        box = Bbox([centre - half, centre + half])
        inside = box.x0 >= frame.x0 and box.x1 <= frame.x1 and box.y0 >= frame.y0 and box.y1 <= frame.y1
        if inside and not any(box.overlaps(other) for other in taken):
            return box, distance
    return None
