"""Which cells train, which are held out, and in which order they are visited; all from one seed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lucidcell.errors import SettingError


def hold_out(
    n_cells: int, train_size: float, seed: int, keep: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Rows that train and rows that are held out, each sorted; disjoint, together all cells.

    Rows of the mask `keep` (n,) train; the others must be enough for those that are held out.
    """
    if not 0 < train_size <= 1:
        raise SettingError(f"train_size is {train_size}; it must be above 0 and at most 1, for instance 0.9.")
    n_held_out = round((1 - train_size) * n_cells)
    if n_cells - n_held_out < 2:
        raise SettingError(
            f"train_size={train_size} leaves {n_cells - n_held_out} of {n_cells} cells for training; "
            "at least 2 are needed."
        )
    order = np.random.default_rng(seed).permutation(n_cells)
    if keep is not None:
        order = np.concatenate([order[~keep[order]], order[keep[order]]])
    return np.sort(order[n_held_out:]), np.sort(order[:n_held_out])


def shuffled_batches(rows: np.ndarray, batch_size: int, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """The rows in random order, in batches; never one cell alone, which batch-norm cannot train on.

    A last batch of one cell takes a second one from the batch before it (or joins it, if that would leave one cell).
    The order depends on the seed and the epoch only, so that a resumed run needs no stored state.
    """
    order = rows[np.random.default_rng([seed, epoch]).permutation(len(rows))]
    cuts = list(range(0, len(rows), batch_size)) + [len(rows)]
    if len(rows) % batch_size == 1 and len(cuts) > 2:
        if batch_size > 2:
            cuts[-2] -= 1
        else:
            del cuts[-2]
    for start, stop in zip(cuts[:-1], cuts[1:], strict=True):
        yield order[start:stop]
