"""One card per latent factor: how much it is used, which genes drive it, which labels are high."""

from __future__ import annotations

from typing import Any, NamedTuple

import pandas as pd

from lucidcell import plots
from lucidcell.plots.enrichment import enrichment_dots_size, significant_terms
from lucidcell.plots.factors import extreme_genes, unused
from lucidcell.plots.heatmap import heatmap_size
from lucidcell.plots.names import readable
from lucidcell.readouts.factor_names import MAX_Q, short_term
from lucidcell.readouts.shares import UNUSED_KL
from lucidcell.report.blocks import Block, Card, Picture, Row, Section, Table, Text
from lucidcell.report.folder import Run
from lucidcell.report.pictures import svg_picture
from lucidcell.report.wording import enumeration, number, percent, plural, signed

_GENES = 8  # at each end of a factor
_LABELS = 12  # in a card
_TERMS = 3  # for each end of a factor
_MOST_WITH_ALL_TERMS = 10  # factors; of more, the figure of all factors shows the best term only
_ENDS = {"+": (1, "Up"), "-": (-1, "Down")}
_OF_COUNTS = "loading × √(mean count per cell)"
_UP_AND_DOWN = "Genes that tell most about the factor: up (orange) and down (blue) as it grows."
_UP = "Genes that tell most about the factor."


class _Kind(NamedTuple):
    """What the columns of cells x factors are."""

    noun: str
    values: pd.DataFrame | None  # what labels are compared by
    unit: str
    ends: tuple[str, ...]  # a topic has no other end
    note: str = ""


def _kind(run: Run) -> _Kind:
    if run.topics is not None:
        return _Kind("topic", run.topics, "mean share of the topic", ("+",))
    note = " The sign of a factor is arbitrary; what counts is which labels stand apart."
    return _Kind("factor", run.latent, "mean (latent units)", ("+", "-"), note)


def factors(run: Run) -> Section | None:
    """Describe each factor the model uses; None for a run without latent coordinates."""
    table, loadings, genes = run.factors, run.loadings, run.genes
    if table is None or loadings is None or genes is None:
        return None
    idle = unused(table)
    blocks: list[Block] = [Text(_introduction(run, [readable(name) for name in table["factor"][idle]], table))]
    means = _means_by_label(run)
    blocks.append(_shares(table))
    if run.factor_titles is not None:
        blocks.append(_names(run, run.factor_titles, table))
    if run.enrichment is not None and (run.enrichment["q_value"] <= MAX_Q).any():
        blocks.append(_terms(run.enrichment))
    if means is not None:
        blocks.append(_means(means, _kind(run)))
    used = table[~idle].sort_values(_order(table), ascending=False, kind="stable")
    cards = [_card(run, dict(row), means) for _, row in used.iterrows()]
    blocks += cards if means is not None else [Row(cards)]
    return Section("Factors", blocks)


def _order(table: pd.DataFrame) -> list[str]:
    """By share where the decoder is linear, else by use."""
    return ["share"] if "share" in table else ["kl", "z_variance"]


def _introduction(run: Run, idle: list[str], table: pd.DataFrame) -> str:
    text = f"The model describes each cell by {plural(len(table), 'factor')}. "
    if idle:
        verb = "is" if len(idle) == 1 else "are"
        text += f"{enumeration(idle)} {verb} not used (KL below {UNUSED_KL} nats) and {verb} left out below. "
    if "share" in table:
        text += "Cards come in the order of the factors' shares in the variance of the linear predictor. "
    else:
        text += "Cards come in the order of use, the most informative factor first. "
    if run.loadings_meaning.get("rotation") not in (None, "none"):
        text += (
            f"Factors are rotated ({run.loadings_meaning['rotation']}), since a linear decoder is identified up to a "
            "rotation only: unrotated ones differ from seed to seed. "
        )
    meaning = [str(run.loadings_meaning[key]) for key in ("how", "unit", "sign") if run.loadings_meaning.get(key)]
    if meaning:
        text += f"Loadings: {'; '.join(meaning)}. "
    if run.ranked_by_signal:
        text += "Genes are ranked by loading and mean count, since loadings of hardly seen genes are mostly noise."
    return text.rstrip()


def _names(run: Run, names: pd.DataFrame, table: pd.DataFrame) -> Table:
    """Factor, share, stability, and what either end is named by."""
    columns = {"share": table.set_index("factor")["share"]} if "share" in table else {}
    if run.stability is not None:
        columns["stability"] = run.stability.set_index("factor")["agreement"]
    rows = []
    kind = _kind(run)
    for row in names[names["sign"].isin(kind.ends)].to_dict("records"):
        once = [number(round(float(values.get(row["factor"], float("nan"))), 3)) for values in columns.values()]
        sign = "\N{MINUS SIGN}" if row["sign"] == "-" else row["sign"]
        genes = readable(row["top_genes"].replace(";", ", "), 40)
        named = [readable(short_term(row["term"]), 60), signed(row["nes"]), _small(row["q_value"])]
        rows.append(
            [
                f"{readable(row['factor'])}\N{NO-BREAK SPACE}{sign}",
                *(once if row["sign"] == "+" else [""] * len(once)),
                *(named if row["term"] else ["", "", ""]),
                genes,
            ]
        )
    return Table(
        ["factor", *columns, "gene set", "NES", "q", "top genes"],
        rows,
        caption=f"What each end of each {kind.noun} is named by: the gene set with the "
        "largest normalised enrichment score "
        f"(NES) among those with a q-value of at most {MAX_Q}, and the genes that tell most about the factor."
        + (" Stability: mean correlation with the matching factor of other seeds." if "stability" in columns else ""),
        visible=40,
    )


def _terms(enrichment: pd.DataFrame) -> Picture:
    n_factors = enrichment["factor"].nunique()
    n_terms = _TERMS if n_factors <= _MOST_WITH_ALL_TERMS else 1
    best = "best gene set" if n_terms == 1 else f"{n_terms} best gene sets"
    size = enrichment_dots_size(significant_terms(enrichment, n_terms, MAX_Q)["term"].nunique(), n_factors)
    return svg_picture(
        lambda figure: plots.enrichment_dots(enrichment, n_terms=n_terms, max_q=MAX_Q, ax=figure.subplots()),
        size,
        alt="Gene sets that the ends of the factors are enriched in",
        caption=f"The {best} of each end of each factor, and where else significant.",
        wide=True,
    )


def _small(value: float) -> str:
    return "<\N{NO-BREAK SPACE}0.001" if value < 0.001 else f"{value:.3f}"


def _means_by_label(run: Run) -> pd.DataFrame | None:
    """Labels x factors; None without labels."""
    values = _kind(run).values
    if run.labels is None or values is None:
        return None
    means: pd.DataFrame = values.groupby(run.labels, observed=True).mean()
    return means


def _shares(table: pd.DataFrame) -> Picture:
    n_panels = 3 if "share" in table else 2
    return svg_picture(
        lambda figure: plots.factor_shares(table, axes=figure.subplots(1, n_panels)),
        (3.3 * n_panels, 0.9 + 0.2 * len(table)),
        alt="Share, variance and KL divergence of each factor"
        if "share" in table
        else "Variance and KL divergence of each factor",
        wide=True,
        caption="How much each factor is used. A variance near 1 and a KL of some tenths of a nat or more mean that "
        "the factor tells cells apart; both near 0 mean that the model does without it."
        + (" Shares of the linear predictor's variance sum to 1." if "share" in table else ""),
    )


def _means(means: pd.DataFrame, kind: _Kind) -> Picture:
    return svg_picture(
        lambda figure: plots.heatmap(
            means,
            color_label=kind.unit,
            row_label="cell label",
            column_label=kind.noun,
            ax=figure.subplots(),
        ),
        heatmap_size(*means.shape),
        alt="Mean of each factor in each label",
        caption=f"Mean of each {kind.noun} in each label. Read a row to see what makes a label special, a column to "
        f"see what a {kind.noun} stands for.{kind.note}",
        wide=means.shape[1] > 8,
    )


def _card(run: Run, row: dict[str, Any], means: pd.DataFrame | None) -> Card:
    factor, signal = str(row["factor"]), run.signal
    assert signal is not None
    blocks: list[Block] = []
    pictures = []
    named = _best_terms(run, factor)
    if named:
        blocks.append(Text(named))
    if (signal[factor] != 0).any():
        pictures.append(_top_genes(signal, factor, _OF_COUNTS if run.ranked_by_signal else "loading"))
    if means is not None:
        blocks.append(Text(_who(means[factor])))
        pictures.append(_by_label(means[factor], factor, _kind(run).unit))
    return Card(readable(factor), " · ".join(_numbers(run, row)), [*blocks, Row(pictures)])


def _numbers(run: Run, row: dict[str, Any]) -> list[str]:
    kl = float(row["kl"])
    share = float(row.get("share", float("nan")))
    parts = [f"share {percent(share)}"] if share == share else []
    parts += [f"variance {row['z_variance']:.2f}", f"KL {kl:.2f} nats per cell" if kl == kl else "KL not known"]
    if run.stability is not None:
        agreement = run.stability.set_index("factor")["agreement"].get(row["factor"])
        parts += [] if agreement is None else [f"stability {agreement:.2f}"]
    return parts


def _best_terms(run: Run, factor: str) -> str:
    """The best gene sets of both ends in words."""
    if run.enrichment is None:
        return ""
    best = significant_terms(run.enrichment[run.enrichment["factor"] == factor], _TERMS, MAX_Q)
    ends = []
    for direction, where in [_ENDS[sign] for sign in _kind(run).ends]:
        terms = [readable(short_term(term), 60) for term in best["term"][best["end"] == direction]]
        ends += [f"{where}: {'; '.join(terms)}."] if terms else []
    return " ".join(ends) or f"No gene set has a q-value of at most {MAX_Q}."


def _top_genes(signal: pd.DataFrame, factor: str, label: str) -> Picture:
    table = signal.reset_index()
    ends = extreme_genes(table, factor, _GENES)
    return svg_picture(
        lambda figure: plots.loadings_bars(table, factor, n_genes=_GENES, label=label, ax=figure.subplots()),
        (3.3, 0.7 + 0.165 * len(ends)),
        alt=f"Genes that tell most about factor {factor}",
        caption=_UP_AND_DOWN if (ends[factor] < 0).any() else _UP,
    )


def _by_label(means: pd.Series, factor: str, unit: str) -> Picture:
    return svg_picture(
        lambda figure: plots.label_means(means, n_labels=_LABELS, label=unit, ax=figure.subplots()),
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
