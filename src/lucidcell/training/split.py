"""Which cells train, which are held out, and in which order they are visited; all from one seed."""

from __future__ import annotations

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


def shuffled(
    rows: np.ndarray, seed: int, epoch: int, block: int | None = None, window: int | None = None
) -> np.ndarray:
    """The rows in random order, which depends on the seed and the epoch only: a resumed run needs no stored state.

    With `block` and `window` (cells) in the order of `feed`: blocks of the sorted rows shuffled, and then the rows
    within every window.
    """
    rng = np.random.default_rng([seed, epoch])
    if block is None or window is None:
        return rows[rng.permutation(len(rows))]
    offset = int(rng.integers(block))  # so that blocks begin elsewhere in every epoch
    blocks = np.split(rows, range(offset, len(rows), block))
    order = np.concatenate([blocks[i] for i in rng.permutation(len(blocks))])
    for start in range(0, len(order), window):
        rng.shuffle(order[start : start + window])
    return order


def cut(order: np.ndarray, batch_size: int, smallest: int = 2) -> list[np.ndarray]:
    """The rows in batches; never fewer than `smallest`, since batch-norm cannot train on one cell alone.

    A last batch that is too small takes cells from the batch before it (or joins it, if that would leave too few).
    """
    cuts = list(range(0, len(order), batch_size)) + [len(order)]
    lacking = smallest - (cuts[-1] - cuts[-2])
    if lacking > 0 and len(cuts) > 2:
        if batch_size - lacking >= smallest:
            cuts[-2] -= lacking
        else:
            del cuts[-2]
    return [order[start:stop] for start, stop in zip(cuts[:-1], cuts[1:], strict=True)]
