"""One card per latent factor: how much it is used, which genes drive it, which labels are high."""

from __future__ import annotations

import pandas as pd

from lucidcell import plots
from lucidcell.plots.factors import UNUSED_KL, extreme_genes, unused
from lucidcell.report.blocks import Block, Card, Picture, Row, Section, Text
from lucidcell.report.folder import Run
from lucidcell.report.pictures import svg_picture
from lucidcell.report.wording import enumeration, plural, signed

_GENES = 8  # at each end of a factor
_LABELS = 12  # in a card


def factors(run: Run) -> Section | None:
    """Describe each factor the model uses; None for a run without latent coordinates."""
    table, loadings = run.factors, run.loadings
    if table is None or loadings is None or run.latent is None:
        return None
    idle = unused(table)
    blocks: list[Block] = [Text(_introduction(run, list(table["factor"][idle]), len(table)))]
    means = _means_by_label(run)
    blocks.append(_shares(table))
    if means is not None:
        blocks.append(_means(means))
    by_use = table[~idle].sort_values(["kl", "z_variance"], ascending=False, kind="stable")
    for row in by_use.itertuples():
        blocks.append(_card(str(row.factor), float(row.z_variance), float(row.kl), loadings, means))
    return Section("Factors", blocks)


def _introduction(run: Run, idle: list[str], n_factors: int) -> str:
    text = f"The model describes each cell by {plural(n_factors, 'factor')}. "
    if idle:
        verb = "is" if len(idle) == 1 else "are"
        text += f"{enumeration(idle)} {verb} not used (KL below {UNUSED_KL} nats) and {verb} left out below. "
    text += "Cards come in the order of use, the most informative factor first."
    for what, key in (("Loadings", "how"), ("Their sign", "sign")):
        if run.loadings_meaning.get(key):
            text += f" {what}: {str(run.loadings_meaning[key]).rstrip('.')}."
    return text


def _means_by_label(run: Run) -> pd.DataFrame | None:
    """Labels x factors; None without labels."""
    if run.labels is None or run.latent is None:
        return None
    means: pd.DataFrame = run.latent.groupby(run.labels, observed=True).mean()
    return means


def _shares(table: pd.DataFrame) -> Picture:
    return svg_picture(
        lambda figure: plots.factor_shares(table, axes=figure.subplots(1, 2)),
        (6.6, 0.75 + 0.2 * len(table)),
        alt="Variance and KL divergence of each factor",
        caption="How much each factor is used. A variance near 1 and a KL of some tenths of a nat or more mean that "
        "the factor tells cells apart; both near 0 mean that the model does without it.",
    )


def _means(means: pd.DataFrame) -> Picture:
    n_labels, n_factors = means.shape
    return svg_picture(
        lambda figure: plots.heatmap(
            means,
            color_label="mean (latent units)",
            row_label="cell label",
            column_label="factor",
            ax=figure.subplots(),
        ),
        (2.4 + 0.42 * n_factors, 0.9 + 0.23 * n_labels),
        alt="Mean of each factor in each label",
        caption="Mean of each factor in each label. Read a row to see what makes a label special, a column to see what "
        "a factor stands for. The sign of a factor is arbitrary; what counts is which labels stand apart.",
        wide=n_factors > 8,
    )


def _card(factor: str, variance: float, kl: float, loadings: pd.DataFrame, means: pd.DataFrame | None) -> Card:
    divergence = f"KL {kl:.2f} nats per cell" if kl == kl else "KL not known"
    blocks: list[Block] = []
    pictures = []
    ends = extreme_genes(loadings, factor, _GENES)
    if len(ends):
        pictures.append(
            svg_picture(
                lambda figure: plots.loadings_bars(loadings, factor, n_genes=_GENES, ax=figure.subplots()),
                (3.3, 0.6 + 0.165 * len(ends)),
                alt=f"Genes with the highest and lowest loadings on factor {factor}",
                caption="Genes that go up (orange) and down (blue) most as the factor grows.",
            )
        )
    if means is not None:
        blocks.append(Text(_who(means[factor])))
        pictures.append(
            svg_picture(
                lambda figure: plots.label_means(means[factor], n_labels=_LABELS, ax=figure.subplots()),
                (3.3, 0.6 + 0.185 * min(len(means), _LABELS)),
                alt=f"Mean of factor {factor} in each label",
                caption="Mean of the factor in each label.",
            )
        )
    blocks.append(Row(pictures))
    return Card(factor, f"variance {variance:.2f} · {divergence}", blocks)


def _who(means: pd.Series) -> str:
    """Name the labels at both ends."""
    ranked = means.sort_values(ascending=False, kind="stable")
    high = [f"{name} ({signed(value)})" for name, value in ranked.head(2).items() if value > 0]
    low = [f"{name} ({signed(value)})" for name, value in ranked.tail(2)[::-1].items() if value < 0]
    parts = [f"{end} in {enumeration(names)}" for end, names in (("highest", high), ("lowest", low)) if names]
    return f"The mean is {enumeration(parts) or '0 in every label'}."
