"""Figures of the benchmark of integration, from its CSV."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lucidcell.plots.style import PALETTE, style

METHODS = (
    "SCVI", "SCANVI, first labelled", "SCANVI, second labelled", "PCA", "ComBat", "MNN", "Harmony", "Scanorama", "CCA",
)  # fmt: skip
COLOURS = dict(zip(METHODS, PALETTE, strict=False)) | {
    "true factors": "black",
    "SCVI alone, another seed": "grey",
}


def draw(csv: Path) -> None:
    """One picture for each part that the CSV has."""
    table = pd.read_csv(csv, keep_default_na=False)
    for part, figure in (("pairs", curves), ("composition", composition), ("trajectory", along)):
        rows = table[table["part"] == part]
        if len(rows):
            with style():
                figure(rows).savefig(csv.with_name(f"integration_{part}.png"), dpi=90)


def curves(rows: pd.DataFrame) -> Figure:
    names = list(rows["data"].unique())
    figure = Figure(figsize=(3.2 * len(names) + 1.6, 5.6), layout="constrained")
    panels = figure.subplots(2, len(names), squeeze=False, sharey="row")
    for panel_row, what in zip(panels, ("mixing", "purity"), strict=True):
        for ax, name in zip(panel_row, names, strict=True):
            found = rows[(rows["data"] == name) & (rows["what"] == what)]
            for method, values in found.groupby("method"):
                means = values.groupby("k")["value"].mean()
                ax.plot(means.index, means, color=COLOURS[method], label=method)
            ax.set_ylim(0, 1)
            ax.set_xlabel("neighbours k")
            ax.set_title(name.replace("_", " ") if what == "mixing" else "")
        panel_row[0].set_ylabel("entropy of batch mixing / log 2" if what == "mixing" else "kNN purity")
    _legend(figure, panels[1, 0])
    return figure


def composition(rows: pd.DataFrame) -> Figure:
    rows = rows.assign(scenario=rows["data"].str.split(":").str[0])
    scenarios, whats = list(rows["scenario"].unique()), sorted(rows["what"].unique())
    methods = [method for method in METHODS if method in set(rows["method"])]
    figure = Figure(figsize=(2.6 * len(whats), 2.2 * len(scenarios)), layout="constrained")
    panels = figure.subplots(len(scenarios), len(whats), squeeze=False, sharey=True, sharex=True)
    for panel_row, scenario in zip(panels, scenarios, strict=True):
        for ax, what in zip(panel_row, whats, strict=True):
            for place, method in enumerate(methods):
                chosen = (rows["scenario"] == scenario) & (rows["what"] == what) & (rows["method"] == method)
                values = rows.loc[chosen, "value"]
                ax.plot(values, np.full(len(values), place), "o", color=COLOURS[method], alpha=0.5, markersize=4)
                ax.plot([values.mean()], [place], "|", color="black", markersize=12)
            ax.set_yticks(range(len(methods)), methods)
            ax.set_ylim(len(methods) - 0.5, -0.5)
            ax.set_xlim(-0.02, 1.02)
            ax.set_title(f"{scenario}\n{what} types", fontsize=8)
            if not ((rows["scenario"] == scenario) & (rows["what"] == what)).any():
                ax.text(0.5, 0.5, "no such cells", transform=ax.transAxes, ha="center", color="grey")
    return figure


def along(rows: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    ax = figure.subplots()
    for method, values in rows[rows["what"] == "mixing"].groupby("method"):
        bins = values.assign(bin=values.groupby("seed").cumcount(), where=values["where"].astype(float))
        means = bins.groupby("bin")[["where", "value"]].mean()
        dashes = "--" if method == "true factors" else "-"
        ax.plot(means["where"], means["value"], dashes, color=COLOURS[method], label=method)
    for end in (-0.6, 0.6):
        ax.axvline(end, color="grey", linewidth=0.8, linestyle=":")
    ax.set_ylim(0, 1)
    ax.set_xlabel("position on the branches (dotted: where one batch ends)")
    ax.set_ylabel("entropy of batch mixing / log 2")
    _legend(figure, ax)
    return figure


def _legend(figure: Figure, ax) -> None:
    handles, labels = ax.get_legend_handles_labels()
    order = [labels.index(method) for method in COLOURS if method in labels]
    figure.legend([handles[i] for i in order], [labels[i] for i in order], loc="outside right upper")
