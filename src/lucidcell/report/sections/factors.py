"""One card per latent factor: how much it is used, which genes drive it, which labels are high."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lucidcell import plots
from lucidcell.plots.factors import UNUSED_KL, extreme_genes, unused
from lucidcell.plots.heatmap import heatmap_size
from lucidcell.plots.names import readable
from lucidcell.report.blocks import Block, Card, Picture, Row, Section, Text
from lucidcell.report.folder import Run
from lucidcell.report.pictures import svg_picture
from lucidcell.report.wording import enumeration, plural, signed

_GENES = 8  # at each end of a factor
_LABELS = 12  # in a card
_SIGNAL = "loading × √(mean count per cell)"
_UP_AND_DOWN = "Genes that tell most about the factor: up (orange) and down (blue) as it grows."
_UP = "Genes that tell most about the factor."


def factors(run: Run) -> Section | None:
    """Describe each factor the model uses; None for a run without latent coordinates."""
    table, loadings, genes = run.factors, run.loadings, run.genes
    if table is None or loadings is None or genes is None:
        return None
    idle = unused(table)
    blocks: list[Block] = [Text(_introduction(run, [readable(name) for name in table["factor"][idle]], len(table)))]
    means = _means_by_label(run)
    blocks.append(_shares(table))
    if means is not None:
        blocks.append(_means(means))
    by_use = table[~idle].sort_values(["kl", "z_variance"], ascending=False, kind="stable")
    signal = _signal(loadings, genes)
    cards = [
        _card(str(row["factor"]), float(row["z_variance"]), float(row["kl"]), signal, means)
        for _, row in by_use.iterrows()
    ]
    blocks += cards if means is not None else [Row(cards)]
    return Section("Factors", blocks)


def _introduction(run: Run, idle: list[str], n_factors: int) -> str:
    text = f"The model describes each cell by {plural(n_factors, 'factor')}. "
    if idle:
        verb = "is" if len(idle) == 1 else "are"
        text += f"{enumeration(idle)} {verb} not used (KL below {UNUSED_KL} nats) and {verb} left out below. "
    text += "Cards come in the order of use, the most informative factor first."
    meaning = [str(run.loadings_meaning[key]) for key in ("how", "unit", "sign") if run.loadings_meaning.get(key)]
    if meaning:
        text += f" Loadings: {'; '.join(meaning)}."
    return text + " Genes are ranked by loading and mean count, since loadings of hardly seen genes are mostly noise."


def _means_by_label(run: Run) -> pd.DataFrame | None:
    """Labels x factors; None without labels."""
    if run.labels is None or run.latent is None:
        return None
    means: pd.DataFrame = run.latent.groupby(run.labels, observed=True).mean()
    return means


def _shares(table: pd.DataFrame) -> Picture:
    return svg_picture(
        lambda figure: plots.factor_shares(table, axes=figure.subplots(1, 2)),
        (6.6, 0.9 + 0.2 * len(table)),
        alt="Variance and KL divergence of each factor",
        wide=True,
        caption="How much each factor is used. A variance near 1 and a KL of some tenths of a nat or more mean that "
        "the factor tells cells apart; both near 0 mean that the model does without it.",
    )


def _means(means: pd.DataFrame) -> Picture:
    return svg_picture(
        lambda figure: plots.heatmap(
            means,
            color_label="mean (latent units)",
            row_label="cell label",
            column_label="factor",
            ax=figure.subplots(),
        ),
        heatmap_size(*means.shape),
        alt="Mean of each factor in each label",
        caption="Mean of each factor in each label. Read a row to see what makes a label special, a column to see what "
        "a factor stands for. The sign of a factor is arbitrary; what counts is which labels stand apart.",
        wide=means.shape[1] > 8,
    )


def _signal(loadings: pd.DataFrame, genes: pd.DataFrame) -> pd.DataFrame:
    """Loadings x the square root of the gene's mean count: how much a gene of one cell tells about the factor.

    For Poisson counts with mean m and loading l = d log m / dz, the Fisher information about z is m l^2. By the loading
    alone, genes that are hardly ever seen lead every list, because nothing in the data holds their loadings down.
    """
    factors = loadings.drop(columns="gene")
    return factors.mul(np.sqrt(genes["mean_observed"].fillna(0)), axis=0).assign(gene=loadings["gene"])


def _card(factor: str, variance: float, kl: float, signal: pd.DataFrame, means: pd.DataFrame | None) -> Card:
    blocks: list[Block] = []
    pictures = []
    if (signal[factor] != 0).any():
        pictures.append(_top_genes(signal, factor))
    if means is not None:
        blocks.append(Text(_who(means[factor])))
        pictures.append(_by_label(means[factor], factor))
    divergence = f"KL {kl:.2f} nats per cell" if kl == kl else "KL not known"
    return Card(readable(factor), f"variance {variance:.2f} · {divergence}", [*blocks, Row(pictures)])


def _top_genes(signal: pd.DataFrame, factor: str) -> Picture:
    ends = extreme_genes(signal, factor, _GENES)
    return svg_picture(
        lambda figure: plots.loadings_bars(signal, factor, n_genes=_GENES, label=_SIGNAL, ax=figure.subplots()),
        (3.3, 0.7 + 0.165 * len(ends)),
        alt=f"Genes that tell most about factor {factor}",
        caption=_UP_AND_DOWN if (ends[factor] < 0).any() else _UP,
    )


def _by_label(means: pd.Series, factor: str) -> Picture:
    return svg_picture(
        lambda figure: plots.label_means(means, n_labels=_LABELS, ax=figure.subplots()),
        (3.3, 0.7 + 0.185 * min(len(means), _LABELS)),
        alt=f"Mean of factor {factor} in each label",
        caption="Mean of the factor in each label.",
    )


def _who(means: pd.Series) -> str:
    """Name the labels at both ends."""
    ranked = means.sort_values(ascending=False, kind="stable")
    high = [f"{readable(name)} ({signed(value)})" for name, value in ranked.head(2).items() if value > 0]
    low = [f"{readable(name)} ({signed(value)})" for name, value in ranked.tail(2)[::-1].items() if value < 0]
    parts = [f"{end} in {enumeration(names)}" for end, names in (("highest", high), ("lowest", low)) if names]
    return f"The mean is {enumeration(parts) or '0 in every label'}."
