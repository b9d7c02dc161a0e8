"""Figures as text to put into a page: SVG for few points, PNG for many."""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Callable
from typing import Any, Literal

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

from lucidcell.plots.names import readable
from lucidcell.plots.style import style
from lucidcell.report.blocks import Picture

DOTS_PER_INCH = 160
_NO_METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Creator": None, "Date": None, "Format": None, "Type": None},
    "png": {"Software": None},
}
Draw = Callable[[Figure], object]


def svg_picture(draw: Draw, size: tuple[float, float], *, alt: str, caption: str = "", wide: bool = False) -> Picture:
    """Draw into a new figure of `size` inches and embed it as SVG, whose text stays text.

    Parameters
    ----------
    draw
        Fills the figure it is given.
    size
        Width and height in inches.
    alt
        What the figure is, for those who cannot see it.
    caption
        What to look for.
    wide
        Keep it readable on narrow screens, by scrolling.
    """
    svg = _render(draw, size, "svg", alt).decode("utf-8")
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # groups have the same ids in every figure, and nothing refers to them
    opening = Markup('<svg role="img" aria-label="{}"').format(readable(alt, 200))
    return Picture(Markup(opening + Markup(svg.removeprefix("<svg"))), caption, wide)


def png_picture(draw: Draw, size: tuple[float, float], *, alt: str, caption: str = "", wide: bool = False) -> Picture:
    """Draw into a new figure of `size` inches and embed it as PNG; the arguments are those of `svg_picture`."""
    data = base64.b64encode(_render(draw, size, "png", alt)).decode("ascii")
    image = Markup('<img src="data:image/png;base64,{}" alt="{}" width="{}" height="{}">')
    pixels = [round(96 * inches) for inches in size]  # of the page, which are 1/96 inch
    return Picture(image.format(data, readable(alt, 200), *pixels), caption, wide)


def _render(draw: Draw, size: tuple[float, float], file_format: Literal["svg", "png"], salt: str) -> bytes:
    # With a salt of its own, a figure's clip paths have the same ids in every run, and no other figure has them.
    with style(), rc_context({"svg.hashsalt": salt}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # the browser's fonts have more of them
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        stream = io.BytesIO()
        figure.savefig(stream, format=file_format, dpi=DOTS_PER_INCH, metadata=_NO_METADATA[file_format])
    return stream.getvalue()
