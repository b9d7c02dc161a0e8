"""The passes that follow an epoch: over inputs computed once, for parameters of their own (see `Turn`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from lucidcell.errors import TrainingError
from lucidcell.training.optimizer import Adam
from lucidcell.training.phases import Turn

if TYPE_CHECKING:
    from lucidcell.cells.cells import Cells

CELLS_AT_A_TIME = 1024


@torch.no_grad()
def inputs_of(turn: Turn, module: nn.Module, cells: Cells, rows: np.ndarray, device: torch.device) -> list[Tensor]:
    """Inputs of those of `rows` that the turn concerns, one row each, from the module in evaluation mode."""
    rows = rows[turn.concerns(cells)[rows]]
    module.eval()
    found = [
        turn.inputs(cells.take(rows[start : start + CELLS_AT_A_TIME]).to(device))
        for start in range(0, len(rows), CELLS_AT_A_TIME)
    ]
    module.train()
    return [torch.cat(parts) for parts in zip(*found, strict=True)]


def pass_over(
    turn: Turn, inputs: list[Tensor], optimizer: Adam, *, learning_rate: float, batch_size: int, seed: tuple[int, ...]
) -> float:
    """All passes of one turn; the mean loss in the last of them.

    Raises
    ------
    TrainingError
        If the loss stops being finite.
    """
    n, rng, total = len(inputs[0]), np.random.default_rng(seed), 0.0
    n_passes = max(1, round(turn.steps / -(-n // batch_size)))
    for k in range(n_passes):
        for chosen in torch.from_numpy(rng.permutation(n)).to(inputs[0].device).split(batch_size):
            loss = turn.loss(*(values[chosen] for values in inputs))
            loss.backward()
            optimizer.step(learning_rate)
            optimizer.clear_gradients()
            if k == n_passes - 1:
                total += loss.item() * len(chosen)
    if not np.isfinite(total):
        raise TrainingError(
            f"the {turn.name} loss stopped being finite; the learning rate of {learning_rate:g} is the likely cause: "
            "try a third of it."
        )
    return total / n
