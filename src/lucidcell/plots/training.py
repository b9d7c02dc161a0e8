"""How training went."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from lucidcell.plots.canvas import axes_or_new, require_columns
from lucidcell.plots.names import readable
from lucidcell.plots.style import FAINT, HAIRLINE, INK, PALETTE, style

Corner = Literal["upper right", "lower right"]
TRAIN, HELD_OUT = PALETTE[5], PALETTE[0]


def training_curves(history: pd.DataFrame, *, best_epoch: int | None = None, ax: Axes | None = None) -> Axes:
    """Draw the negative ELBO per cell against the epoch, for training cells and, where there are any, held-out cells.

    The vertical axis leaves out the steep start: it ends at the highest value after the first tenth of training.

    Parameters
    ----------
    history
        Columns epoch, train_loss and, as far as they exist, train_reconstruction, train_kl,
        validation_negative_elbo, phase. A phase without train_kl, as that of siVAE's genes alone, is left out.
    best_epoch
        Epoch (as in the column) whose weights were kept; marked by a line.
    ax
        Where to draw; a new figure by default.

    Raises
    ------
    DataError
        If the table is empty or lacks epoch or train_loss.
    """
    require_columns(history, ["epoch", "train_loss"], "training history")
    history = _over_cells(history, "train_kl")
    note = f"best: epoch {best_epoch}"
    if "given" in history and best_epoch is not None:
        best_epoch, note = next(iter(history["epoch"][history["given"] == best_epoch]), None), "best"
    with style():
        ax = axes_or_new(ax, (5.2, 3.4))
        curves = [("training cells", _training_elbo(history), TRAIN)]
        if "validation_negative_elbo" in history and history["validation_negative_elbo"].notna().any():
            curves.append(("held-out cells", history["validation_negative_elbo"], HELD_OUT))
        _draw_curves(ax, history, curves, "upper right")
        ax.set_ylim(*_limits([values.to_numpy(float) for _, values, _ in curves]))
        if best_epoch is not None:
            ax.axvline(best_epoch, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
            _note(ax, best_epoch, note, history)
        ax.set_ylabel("negative ELBO (nats per cell)")
    return ax


def kl_curve(history: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the KL divergence of the latent variables against the epoch; near 0, the latent space is unused.

    Parameters
    ----------
    history
        Columns epoch, train_kl and, as far as they exist, validation_kl and phase.
    ax
        Where to draw; a new figure by default.

    Raises
    ------
    DataError
        If the table is empty or lacks epoch or train_kl.
    """
    require_columns(history, ["epoch", "train_kl"], "training history")
    history = _over_cells(history, "train_kl")
    with style():
        ax = axes_or_new(ax, (5.2, 3.4))
        curves = [("training cells", history["train_kl"], TRAIN)]
        if "validation_kl" in history and history["validation_kl"].notna().any():
            curves.append(("held-out cells", history["validation_kl"], HELD_OUT))
        _draw_curves(ax, history, curves, "lower right")
        ax.set_ylim(bottom=0)
        ax.set_ylabel("KL divergence (nats per cell)")
    return ax


def _over_cells(history: pd.DataFrame, column: str) -> pd.DataFrame:
    """Epochs of phases that have values in the column, renumbered: a phase of genes alone passes over no cells."""
    if "phase" not in history or column not in history:
        return history
    kept = history[column].notna().groupby(history["phase"]).transform("any")
    if kept.all() or not kept.any():
        return history
    return history[kept].assign(given=history["epoch"], epoch=np.arange(1, kept.sum() + 1))


def _training_elbo(history: pd.DataFrame) -> pd.Series:
    """Return reconstruction + KL at full weight, to be comparable with the held-out curve; else the loss itself."""
    terms = [column for column in ("train_reconstruction", "train_kl") if column in history]
    return history[terms].sum(axis=1, min_count=2) if len(terms) == 2 else history["train_loss"]


def _draw_curves(ax: Axes, history: pd.DataFrame, curves: list[tuple[str, pd.Series, str]], corner: Corner) -> None:
    marker = "o" if len(history) < 3 else None
    phases = history["phase"] if "phase" in history else pd.Series("", history.index)
    number = (phases != phases.shift()).cumsum()
    for name, values, color in curves:
        seen = values.notna()  # a model may look at held-out cells every few epochs only
        for part, rows in history[seen].groupby(number[seen]):  # a new phase may begin elsewhere
            label = name if part == number[seen].iloc[0] else None
            ax.plot(rows["epoch"], values[rows.index], color=color, label=label, marker=marker, markersize=4)
    _mark_phases(ax, history)
    ax.margins(x=0.02)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(axis="y", color=HAIRLINE, linewidth=0.8)
    ax.set_xlabel("epoch (passes over the training cells)")
    ax.legend(loc=corner, frameon=True, framealpha=0.9, edgecolor="none")


def _mark_phases(ax: Axes, history: pd.DataFrame) -> None:
    if "phase" not in history or history["phase"].nunique() < 2:
        return
    starts = history[history["phase"] != history["phase"].shift()]
    for position, (epoch, phase) in enumerate(zip(starts["epoch"], starts["phase"], strict=True)):
        if position:
            ax.axvline(epoch - 0.5, color=FAINT, linewidth=0.8)
        ax.annotate(
            readable(phase), (epoch - 0.5, 1), xytext=(3, 2), xycoords=("data", "axes fraction"),
            textcoords="offset points", fontsize=8, color=FAINT,
        )  # fmt: skip


def _limits(curves: list[np.ndarray]) -> tuple[float | None, float | None]:
    settled = np.concatenate([values[len(values) // 10 :] for values in curves])
    settled = settled[np.isfinite(settled)]
    if settled.size == 0:
        return None, None
    low, high = float(settled.min()), float(settled.max())
    margin = 0.08 * (high - low) or max(1.0, 0.01 * abs(high))
    return low - margin, high + margin


def _note(ax: Axes, epoch: float, text: str, history: pd.DataFrame) -> None:
    left = epoch > history["epoch"].median()
    ax.annotate(
        text, (epoch, 0.62), xycoords=("data", "axes fraction"), xytext=(-4 if left else 4, 0),
        textcoords="offset points", ha="right" if left else "left", fontsize=8, color=INK,
    )  # fmt: skip
