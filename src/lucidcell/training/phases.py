"""What a module tells the training loop: its phases, and the loss of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor, nn

from lucidcell.cells.batch import Batch

if TYPE_CHECKING:
    from lucidcell.cells.cells import Cells


class Loss(NamedTuple):
    """Loss of one batch, kept apart by what it is summed over, so that ranks and short batches count once.

    In a phase that passes over other items, these take the place of the cells.
    """

    cells: Tensor  # scalar, differentiable: sum over the batch's cells, in nats
    n_cells: int
    terms: dict[str, Tensor]  # detached sums over the cells; together they are the negative ELBO (KL weight 1)
    dataset: Mapping[str, Tensor] = {}  # scalars, differentiable: terms of the data set as a whole

    @property
    def objective(self) -> Tensor:
        """What the optimiser minimises: nats per cell."""
        return sum(self.dataset.values(), self.cells / self.n_cells)

    def share(self, n_batch: int, n_processes: int) -> Tensor:
        """What one of several processes adds to the objective of a batch of `n_batch` cells.

        The terms of the data set, which all of them compute, count once.
        """
        return sum((term / n_processes for term in self.dataset.values()), self.cells / n_batch)


@dataclass(frozen=True)
class Turn:
    """What follows every epoch of a phase: passes over inputs that are computed once, for parameters of their own."""

    name: str  # of its loss in the history
    concerns: Callable[[Cells], np.ndarray]  # (n,) bool: the cells that it needs, of which those that train are taken
    inputs: Callable[[Batch], tuple[Tensor, ...]]  # of some of them, computed without gradients
    loss: Callable[..., Tensor]  # of inputs: their mean loss
    parameters: Sequence[nn.Parameter]
    steps: int  # about as many, in whole passes and one at least


@dataclass(frozen=True)
class Phase:
    """One stretch of training: a loss over some of the module's parameters; the others stay as they are."""

    name: str
    loss: Callable[[Any, float], Loss]  # Batch (of items: their positions), progress in [0, 1] -> loss
    parameters: Sequence[nn.Parameter]
    share: float = 1.0  # of the planned steps
    warmup: float = 0.0  # fraction of the phase before which early stopping does not look
    turn: Turn | None = None  # after every epoch
    large_products: bool = False  # whether its plain products are so large that the CPU gains by bfloat16 operands
    n_items: int | None = None  # what it passes over instead of the cells, such as genes; none of them is held out


class Trainable(Protocol):
    """A module that the loop can train."""

    def phases(self) -> list[Phase]:
        """The phases, in order."""
        ...
