"""What a module tells the training loop: its phases, and the loss of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor, nn

from lucidcell.cells.batch import Batch


class Loss(NamedTuple):
    """Loss of one batch, kept apart by what it is summed over, so that ranks and short batches count once."""

    cells: Tensor  # scalar, differentiable: sum over the batch's cells, in nats
    n_cells: int
    terms: dict[str, Tensor]  # detached sums over the cells; together they are the negative ELBO (KL weight 1)
    dataset: Tensor | None = None  # scalar, differentiable: a term of the data set as a whole

    @property
    def objective(self) -> Tensor:
        """What the optimiser minimises: nats per cell."""
        mean = self.cells / self.n_cells
        return mean if self.dataset is None else mean + self.dataset


@dataclass(frozen=True)
class Phase:
    """One stretch of training: a loss over some of the module's parameters."""

    name: str
    loss: Callable[[Batch, float], Loss]  # batch, progress in [0, 1] -> loss
    parameters: Sequence[nn.Parameter]
    share: float = 1.0  # of the planned epochs
    warmup: float = 0.0  # fraction of the phase before which early stopping does not look


class Trainable(Protocol):
    """A module that the loop can train."""

    def phases(self) -> list[Phase]:
        """The phases, in order."""
        ...
