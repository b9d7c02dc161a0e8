"""Maps of cells: who is drawn where, in which colour and in which order."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure

from lucidcell.errors import DataError, SettingError
from lucidcell.plots import embedding, factor_panel
from lucidcell.plots.map_points import color_scale
from lucidcell.plots.style import MISSING, PALETTE

N = 400


@pytest.fixture
def xy(rng):
    return rng.normal(size=(N, 2))


def drawn(ax):
    """Positions and colours in drawing order."""
    points = ax.collections[0]
    colors = [to_hex(color).upper() for color in points.get_facecolors()]
    return np.asarray(points.get_offsets()), colors


def color_by_cell(ax, xy):
    offsets, colors = drawn(ax)
    place = {tuple(point): color for point, color in zip(offsets, colors, strict=True)}
    return np.array([place[tuple(point)] for point in xy])


def legend_texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_each_group_has_its_colour(ax, xy):
    groups = np.where(np.arange(N) < N // 4, "T cell", "B cell")
    embedding(xy, groups, "categorical", ax=ax)
    colors = color_by_cell(ax, xy)
    assert set(colors[groups == "B cell"]) == {PALETTE[0]}
    assert set(colors[groups == "T cell"]) == {PALETTE[1]}
    assert legend_texts(ax) == ["B cell", "T cell"]
    handles = [to_hex(handle.get_color()).upper() for handle in ax.get_legend().legend_handles]
    assert handles == [PALETTE[0], PALETTE[1]]


def test_order_is_random_and_seeded(xy):
    groups = np.repeat(["first", "second"], N // 2)
    orders = []
    for seed in (0, 0, 1):
        ax = Figure().subplots()
        offsets, colors = drawn(embedding(xy, groups, "categorical", seed=seed, ax=ax))
        orders.append(offsets)
    assert (orders[0] == orders[1]).all()
    assert (orders[0] != orders[2]).any()
    late = np.mean([color == PALETTE[1] for color in colors[N // 2 :]])
    assert 0.35 < late < 0.65  # in the order of the data, it would be 1
    assert sorted(map(tuple, orders[0])) == sorted(map(tuple, xy))


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_cells_without_a_category_are_grey_behind_and_counted(ax, xy, missing):
    groups = pd.Series(["T"] * (N - 3) + [missing] * 3, dtype=object)
    embedding(xy, groups, "categorical", ax=ax)
    _, colors = drawn(ax)
    assert colors[:3] == [MISSING] * 3
    assert set(colors[3:]) == {PALETTE[0]}
    assert legend_texts(ax) == ["T", "none (3 cells)"]


def test_many_categories_leave_the_smallest_grey_and_cap_the_legend(ax, rng):
    codes = np.repeat(np.arange(40), np.arange(40, 0, -1))  # sizes 40, 39, ... 1
    xy = rng.normal(size=(len(codes), 2))
    embedding(xy, [f"type {code:02d}" for code in codes], "categorical", ax=ax)
    texts = legend_texts(ax)
    n_colors = len(PALETTE)
    assert texts[:n_colors] == [f"type {code:02d}" for code in range(n_colors)]
    n_rest = sum(range(1, 41 - n_colors))
    assert texts[n_colors:] == [f"{40 - n_colors} smaller ones ({n_rest} cells)"]
    assert (color_by_cell(ax, xy) == MISSING).sum() == n_rest


def test_a_name_that_matplotlib_would_hide_is_in_the_legend(ax, xy):
    embedding(xy, np.where(np.arange(N) % 2, "_hidden", "$\\x{$"), "categorical", ax=ax)
    assert legend_texts(ax) == ["$\\x{$", "_hidden"]
    ax.get_figure().draw_without_rendering()  # which is not read as mathematics


def test_names_stand_on_their_groups_and_do_not_overlap(ax, rng):
    centres = np.array([[0, 0], [0.3, 0], [0, 0.3], [8, 8]])
    xy = np.concatenate([centre + 0.2 * rng.normal(size=(100, 2)) for centre in centres])
    names = ["naive T cell", "memory T cell", "regulatory T cell", "B cell"]
    embedding(xy, np.repeat(names, 100), "categorical", names="on", ax=ax)
    texts = {text.get_text(): text for text in ax.texts}
    assert set(texts) == set(names)
    ax.get_figure().draw_without_rendering()
    boxes = [text.get_bbox_patch().get_window_extent() for text in texts.values()]
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    far = boxes[list(texts).index("B cell")]
    left, low = ax.transData.transform((7, 7))
    right, high = ax.transData.transform((9, 9))
    assert left < (far.x0 + far.x1) / 2 < right
    assert low < (far.y0 + far.y1) / 2 < high
    assert ax.get_legend() is None


def test_a_small_group_is_not_hidden_by_its_name(ax, rng):
    xy = np.concatenate([rng.normal(size=(N, 2)), 6 + 0.01 * rng.normal(size=(3, 2))])
    embedding(xy, ["large"] * N + ["rare"] * 3, "categorical", names="on", ax=ax)
    ax.get_figure().draw_without_rendering()
    rare = next(text for text in ax.texts if text.get_text() == "rare").get_bbox_patch().get_window_extent()
    assert not any(rare.contains(*ax.transData.transform(point)) for point in xy[N:])


def test_panels_can_have_given_limits(xy):
    chances = pd.DataFrame({"rare": np.full(N, 0.01), "common": np.full(N, 0.2)})
    (ax, _) = factor_panel(xy, chances, label="probability", limits=(0, 1), figure=Figure())
    assert ax.get_figure().axes[-1].get_ylim() == (0, 1)


def test_signed_numbers_are_centred_at_zero(ax, xy):
    numbers = np.linspace(-1, 5, N)
    numbers[200] = 0.0
    embedding(xy, numbers, "continuous", label="Z1 (latent units)", ax=ax)
    red, green, blue, _ = to_rgba(color_by_cell(ax, xy)[200])
    assert max(red, green, blue) - min(red, green, blue) < 0.02  # grey
    bar = ax.get_figure().axes[1]
    assert bar.get_ylabel() == "Z1 (latent units)"
    low, high = bar.get_ylim()
    assert low == pytest.approx(-high)


@pytest.mark.parametrize(("numbers", "low", "high", "extend"), [
    (np.arange(101.0), 0, 99, "max"),
    (np.arange(1000, 1101.0), 1001, 1099, "both"),
    (np.arange(-50, 51.0), -50, 50, "neither"),
    (np.append(np.zeros(500), -3.0), -3, 3, "neither"),
    (np.full(5, 7.0), 0, 7, "neither"),
    (np.zeros(4), 0, 1, "neither"),
    (np.full(3, np.nan), 0, 1, "neither"),
])  # fmt: skip
def test_scale_of_numbers(numbers, low, high, extend):
    scale = color_scale(numbers)
    assert (scale.low, scale.high, scale.extend) == (pytest.approx(low), pytest.approx(high), extend)
    assert (scale.cmap == "coolwarm") == (low < 0)


def test_cells_without_a_number_are_grey(ax, xy):
    numbers = np.linspace(0, 1, N)
    numbers[7] = np.nan
    embedding(xy, numbers, "continuous", ax=ax)
    colors = color_by_cell(ax, xy)
    assert colors[7] == MISSING
    assert MISSING not in colors[8:]


def test_panel_has_one_scale_for_all_factors(xy, rng):
    latent = pd.DataFrame(
        {"strong": rng.normal(0, 2, N), "unused": rng.normal(0, 0.01, N), "$\\x{$": rng.normal(size=N)}
    )
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = factor_panel(xy, latent, columns=2, figure=figure)
    assert [ax.get_title(loc="left") for ax in axes] == ["strong", "unused", "$\\x{$"]
    assert len(figure.axes) == 4  # three panels and one colour bar
    saturation = [np.ptp(ax.collections[0].get_facecolors()[:, :3], axis=1).max() for ax in axes]
    assert saturation[0] > 0.6
    assert saturation[1] < 0.1
    assert [bool(ax.xaxis.label.get_visible()) for ax in axes] == [False, True, True]
    figure.draw_without_rendering()


@pytest.mark.parametrize(("changes", "error", "words"), [
    ({"xy": np.zeros((N, 3))}, DataError, r"shape \(400, 3\)"),
    ({"values": ["a"]}, DataError, "400 cells and there are 1 values"),
    ({"xy": np.full((N, 2), np.nan)}, DataError, "400 of 400 cells have no finite place"),
    ({"kind": "colour"}, SettingError, "kind is 'colour'"),
    ({"names": "above"}, SettingError, "names is 'above'"),
])  # fmt: skip
def test_faults_are_sentences(ax, xy, changes, error, words):
    arguments = {"xy": xy, "values": ["a"] * N, "kind": "categorical"} | changes
    with pytest.raises(error, match=words):
        embedding(**arguments, ax=ax)


def test_panel_refuses_another_number_of_cells(xy):
    with pytest.raises(DataError, match="400 cells and there are 3 values"):
        factor_panel(xy, pd.DataFrame({"Z1": [1.0, 2, 3]}))
    with pytest.raises(DataError, match="no rows"):
        factor_panel(xy, pd.DataFrame(index=range(N)))
