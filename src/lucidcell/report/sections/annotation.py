"""What a model that predicts labels says of the cells, and how far it can be trusted."""

from __future__ import annotations

import pandas as pd

from lucidcell import plots
from lucidcell.plots.annotation import confusion_size
from lucidcell.plots.embedding import factor_panel_size
from lucidcell.plots.names import readable
from lucidcell.plots.taxonomy import taxonomy_size
from lucidcell.report.blocks import Block, Facts, Picture, Section, Table, Text, Warnings
from lucidcell.report.folder import Run
from lucidcell.report.pictures import png_picture, svg_picture
from lucidcell.report.umap import cell_map
from lucidcell.report.wording import number, percent, plural

_PANELS = 12  # labels with a map of their own
_SURE = 0.9


def annotation(run: Run) -> Section | None:
    """Show predictions, their calibration and what no label may name; None for a model that predicts no labels."""
    table = run.annotation
    if table is None or run.cells is None:
        return None
    labelled = pd.Series(False, index=table.index) if run.labels is None else pd.Series(run.labels.codes >= 0)
    blocks: list[Block] = [Text(_introduction(labelled)), Facts(_facts(run, table, labelled))]
    if run.new_types is not None and run.new_types["suspicious"].any():
        blocks.append(Warnings(_warnings(run.new_types)))
    if run.calibration is not None:
        blocks += _trust(run)
    blocks += _posterior(run)
    if run.taxonomy is not None and run.taxonomy["level"].nunique() > 1:
        blocks.append(_levels(run.taxonomy))
    predicted = table[~labelled] if not labelled.all() else table
    blocks.append(_predictions(predicted, "without a label" if not labelled.all() else "of the data"))
    return Section("Annotation", blocks)


def _introduction(labelled: pd.Series) -> str:
    n_labelled = int(labelled.sum())
    text = "The model gives every cell a probability for each label that it knows; the largest is its confidence. "
    if n_labelled < len(labelled):
        rest = f"Labels were given for {number(n_labelled)} of {number(len(labelled))} cells; the rest is predicted."
        return text + rest
    return f"{text}All {number(n_labelled)} cells had a label."


def _facts(run: Run, table: pd.DataFrame, labelled: pd.Series) -> list[tuple[str, str]]:
    judged = table["confidence"][~labelled] if not labelled.all() else table["confidence"]
    facts = [
        ("cells with + without a label", f"{number(int(labelled.sum()))} + {number(int((~labelled).sum()))}"),
        (f"cells with a confidence of {_SURE} or more", percent(float((judged >= _SURE).mean()))),
        ("median confidence", number(float(judged.median()))),
    ]
    found = run.calibration
    if found is not None and found["declined"] is None:
        before, after = (percent(float(found[name])) for name in ("error_before", "error_after"))
        if found["temperature"] == 1:
            facts.append(("calibration error", before))
        else:
            facts.append(("calibration error, raw → calibrated", f"{before} → {after}"))
            facts.append(("temperature", number(float(found["temperature"]))))
    return facts


def _warnings(new_types: pd.DataFrame) -> list[str]:
    suspicious = new_types[new_types["suspicious"] > 0]
    return [
        f"A cluster of {plural(int(row['n_cells']), 'cell')} without a label, mostly predicted to be "
        f"{readable(row['prediction'])}, mixes little with labelled cells ({row['mixing']:.2f}, where 1 is most): it "
        "may be a type that no label names. Look at its genes before you trust its predictions."
        for _, row in suspicious.iterrows()
    ]


def _trust(run: Run) -> list[Block]:
    """How predictions did on cells whose labels the classifier had not seen."""
    found = run.calibration
    assert found is not None
    if found["declined"] is not None:
        return [Text(f"Probabilities are not calibrated: {found['declined']}")]
    confusion, reliability = (pd.DataFrame(**found[name]) for name in ("confusion", "reliability"))
    if found["temperature"] == 1:
        reliability = reliability[reliability["probabilities"] == "raw"]
        which = "No temperature made the labels likelier, so probabilities are as the classifier gives them."
    else:
        which = "Probabilities in this report are the calibrated ones."
    return [
        svg_picture(
            lambda figure: plots.confusion_matrix(confusion, ax=figure.subplots()),
            confusion_size(*confusion.shape),
            alt="Confusion matrix: known against predicted labels",
            caption=f"On {number(found['n_cells'])} cells ({found['labels']}). Look at what lies off the diagonal: "
            "labels that are taken for each other.",
        ),
        svg_picture(
            lambda figure: plots.calibration_curve(reliability, axes=figure.subplots(1, 2)),
            (7.4, 3.4),
            alt="Share of right predictions against confidence",
            caption="On the same cells. Points on the dashed line mean what they say: of the predictions with a "
            "confidence of 0.8, eight in ten are right. Below the line the model is too sure, above it too modest. "
            f"{which}",
            wide=True,
        ),
    ]


def _posterior(run: Run) -> list[Picture]:
    drawn, posterior = cell_map(run), run.posterior
    if drawn is None or posterior is None:
        return []
    most = posterior.sum().sort_values(ascending=False, kind="stable").index[:_PANELS]
    values = posterior[most].iloc[drawn.rows]
    which = f" Shown are the {len(most)} most frequent labels." if len(most) < posterior.shape[1] else ""
    return [
        png_picture(
            lambda figure: plots.factor_panel(
                drawn.xy, values, columns=4, label="probability", limits=(0, 1), figure=figure
            ),
            factor_panel_size(len(most), 4),
            alt="Map of cells coloured by the probability of each label",
            caption="Probability of each label. Look for areas where no label is likely, or two are: there the labels "
            f"do not say enough, or the cells are between types.{which}",
            wide=True,
        )
    ]


def _levels(nodes: pd.DataFrame) -> Picture:
    return svg_picture(
        lambda figure: plots.taxonomy_levels(nodes, ax=figure.subplots()),
        taxonomy_size(nodes),
        alt="Levels of the hierarchy of labels",
        caption="Predictions at every level of the hierarchy, with their cells, and how sure the model is. Where a "
        "finer level is dark, use the level before it.",
        wide=True,
    )


def _predictions(table: pd.DataFrame, which: str) -> Table:
    groups = table.groupby("prediction")["confidence"]
    summary = pd.DataFrame(
        {"n": groups.size(), "mean": groups.mean(), "sure": groups.agg(lambda c: (c >= _SURE).mean())}
    )
    summary = summary.sort_values("n", ascending=False, kind="stable")
    rows = [
        (readable(name, 60), number(int(row["n"])), f"{row['mean']:.2f}", percent(float(row["sure"])))
        for name, row in summary.iterrows()
    ]
    header = ["predicted label", "cells", "mean confidence", f"confidence ≥ {_SURE}", "share"]
    return Table(
        header, rows, f"Predictions for the {number(len(table))} cells {which}:", shares=list(summary["n"] / len(table))
    )
