"""The palette seen through other eyes; the log axis; the style's reach."""

from __future__ import annotations

from itertools import combinations

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from lucidcell.plots.style import DIVERGING, MISSING, PALETTE, diverging_limit, plain_log_axis, style

# Linear-RGB simulations of dichromats by Machado, Oliveira and Fernandes (2009), severity 1.
EYES = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
)


def cielab(color: str, eye: str = "normal") -> np.ndarray:
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(EYES[eye]) @ linear, 0, 1)
    f = TO_XYZ @ seen / (TO_XYZ @ np.ones(3))
    f = np.where(f > (6 / 29) ** 3, np.cbrt(f), f / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize(("eye", "first", "least"), [
    ("normal", 7, 25), ("normal", 18, 12), ("protanopia", 7, 10), ("deuteranopia", 7, 10),
    ("protanopia", 18, 5), ("deuteranopia", 18, 5),
])  # fmt: skip
def test_colours_stay_apart(eye, first, least):
    """2.3 is a just noticeable difference in CIELAB; categories need several of them."""
    colors = [*PALETTE[:first], MISSING]
    distances = [np.linalg.norm(cielab(one, eye) - cielab(other, eye)) for one, other in combinations(colors, 2)]
    assert min(distances) > least


def test_palette_starts_with_okabe_and_ito():
    assert set(PALETTE[:7]) == {"#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"}


def test_diverging_map_is_symmetric_in_lightness_and_visible_on_white_at_zero():
    lightness = np.array(
        [cielab(mpl.colors.to_hex(color))[0] for color in mpl.colormaps[DIVERGING](np.linspace(0, 1, 65))]
    )
    assert lightness.argmax() in (31, 32, 33)
    assert lightness.max() < 92
    assert np.abs(lightness - lightness[::-1]).max() < 8


def test_diverging_limit_is_a_quantile_of_the_magnitudes(rng):
    values = rng.normal(size=1000)
    assert diverging_limit(values) == np.quantile(np.abs(values), 0.99)
    assert diverging_limit(np.array([np.nan, -2.0])) == 2.0
    assert diverging_limit(np.array([])) == 1.0
    assert diverging_limit(np.zeros(3)) == 1.0
    assert diverging_limit(np.array([0.0] * 500 + [-3.0])) == 3.0  # a quantile of 0 would leave no scale


def test_style_ends_with_its_context():
    before = mpl.rcParams["axes.spines.top"], mpl.rcParams["svg.fonttype"]
    with style():
        assert (mpl.rcParams["axes.spines.top"], mpl.rcParams["svg.fonttype"]) == (False, "none")
    assert (mpl.rcParams["axes.spines.top"], mpl.rcParams["svg.fonttype"]) == before


@pytest.mark.parametrize(("low", "high", "wanted"), [(0.005, 300, {"0.01", "1", "100"}), (0.9, 9, {"1", "2", "5"})])
def test_log_ticks_are_plain_numbers(ax, low, high, wanted):
    with style():
        ax.set_xlim(low, high)
        plain_log_axis(ax, "x")
        ax.get_figure().draw_without_rendering()
    texts = {text.get_text() for text in ax.get_xticklabels()}
    assert wanted <= texts
    assert not any("$" in text for text in texts)
