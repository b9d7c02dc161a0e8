"""What went in: cells, genes, batches, labels, and what the check of the data found."""

from __future__ import annotations

import pandas as pd

from lucidcell.plots.names import readable
from lucidcell.report.blocks import Block, Facts, Row, Section, Table, Text, Warnings
from lucidcell.report.folder import Run
from lucidcell.report.wording import number, percent


def data(run: Run) -> Section:
    """Describe the cells and genes that the model was given."""
    facts = run.data
    rows = [
        ("cells", number(facts["n_cells"])),
        ("genes", number(facts["n_genes"])),
        ("entries that are not 0", percent(facts["nonzero_fraction"])),
        ("counts per cell (median)", number(facts["median_library"])),
        ("genes without a single count", number(facts["n_silent_genes"])),
        ("layer of the counts", run.schema["layer"] if run.schema["layer"] is not None else "X"),
    ]
    blocks: list[Block] = [Facts(rows)]
    warnings = [str(sentence) for sentence in facts["warnings"]]
    blocks.append(Warnings(warnings) if warnings else Text("The check of the data found nothing to warn of."))
    tables = []
    if run.batches is not None:
        tables.append(_counts(run.batches, f"batch ({run.schema['batch_key']})"))
    if run.labels is not None:
        tables.append(_counts(run.labels, f"label ({run.schema['labels_key']})"))
    if tables:
        blocks.append(Row(tables))
    if run.schema["batch_key"] is None:
        blocks.append(Text("No batch key was given, so all cells were treated as one batch."))
    if run.labels is None:
        blocks.append(Text("No labels were given, so the maps and factor cards below come without cell types."))
    return Section("What went in", blocks)


def _counts(groups: pd.Categorical, title: str) -> Table:
    counts = pd.Series(groups).value_counts()
    rows = [(readable(name, 60), number(int(count))) for name, count in counts.items()]
    n_absent = int((groups.codes < 0).sum())
    sizes = [*counts.tolist(), n_absent] if n_absent else counts.tolist()
    if n_absent:
        rows.append(("none", number(n_absent)))
    return Table([title, "cells", "share"], rows, shares=[size / len(groups) for size in sizes])
