"""How training went."""

from __future__ import annotations

import pandas as pd

from lucidcell import plots
from lucidcell.report.blocks import Block, Facts, Picture, Row, Section, Text
from lucidcell.report.folder import Run
from lucidcell.report.pictures import svg_picture
from lucidcell.report.wording import duration, number

_STOPS = {
    "finished": "All planned epochs were done.",
    "early stopping": "Training stopped early because held-out cells were no longer described better.",
    "interrupted": "Training was interrupted; the model holds what it had learned by then.",
}


def training(run: Run) -> Section | None:
    """Show the curves and how long training took; None for a model that has not been trained."""
    record, history = run.training, run.history
    if record is None:
        return None
    best = record["best_epoch"]
    planned = record.get("planned_epochs")
    facts = [
        ("time", duration(record["seconds"])),
        ("epochs", f"{number(record['epochs'])} of {number(planned)}" if planned else number(record["epochs"])),
        ("end of training", record["stopped"]),
    ]
    if history is not None:
        facts.append(("weights kept from epoch", number(best)))
    if "cells_per_second" in record:
        facts.append(("speed", f"{number(round(record['cells_per_second']))} cells/s"))
    if record.get("peak_memory_gb") is not None:
        facts.append(("peak memory, with the data", f"{record['peak_memory_gb']:.1f} GiB"))
    if "n_train" in record and "n_validation" in record:
        facts.append(("training + held-out cells", f"{number(record['n_train'])} + {number(record['n_validation'])}"))
    blocks: list[Block] = [Facts(facts)]
    if record["stopped"] in _STOPS:
        blocks.append(Text(_STOPS[record["stopped"]]))
    if history is None:
        blocks.append(Text("No epoch is on record, so there are no curves."))
    else:
        blocks.append(Row(_curves(history, best)))
    return Section("Training", blocks)


def _curves(history: pd.DataFrame, best: int | None) -> list[Picture]:
    held_out = "validation_negative_elbo" in history and bool(history["validation_negative_elbo"].notna().any())
    if held_out:
        elbo = (
            "Lower is better. Look for held-out cells (dark) that fall and then level off. If they turn up again while "
            "the training cells go on falling, the model has begun to memorise; the weights kept are those of the best "
            "epoch (dashed). If both still fall at the right end, more epochs would help."
        )
    else:
        elbo = (
            "Lower is better. Look for a curve that levels off; if it still falls at the right end, more epochs would "
            "help. Without held-out cells, this figure cannot show whether the model has begun to memorise."
        )
    pictures = [
        svg_picture(
            lambda figure: plots.training_curves(history, best_epoch=best if held_out else None, ax=figure.subplots()),
            (5.0, 3.3),
            alt="Negative ELBO against the epoch",
            caption=elbo + " The steep start may lie above the frame.",
        )
    ]
    if "train_kl" in history and history["train_kl"].notna().any():
        pictures.append(
            svg_picture(
                lambda figure: plots.kl_curve(history, ax=figure.subplots()),
                (5.0, 3.3),
                alt="KL divergence against the epoch",
                caption="How much the latent factors say about a cell. Expect a curve that settles well above 0; at 0 "
                "the model ignores its latent space, and the factors below mean nothing.",
            )
        )
    return pictures
