"""Adam (Kingma & Ba 2015), its updates shared out between threads."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from lucidcell.maths import threads

BETA_1, BETA_2 = 0.9, 0.999
PIECE = 65536  # elements that one thread updates at a time
WORTH_A_THREAD = 8  # pieces: below it, waking another thread takes longer than their update


class Adam:
    """The updates of `torch.optim.Adam`, in one pass over each parameter.

    A model has two large matrices, whose update takes as long as a matrix product; and torch's optimiser spends, on
    models this small, as much time on bookkeeping again.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], *, eps: float = 1e-8) -> None:
        self.parameters, self.eps, self.n_steps = list(parameters), eps, 0
        self.mean = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.square = [torch.zeros_like(parameter) for parameter in self.parameters]
        in_kernel = all(p.device.type == "cpu" and p.dtype == torch.float32 for p in self.parameters)
        self._pieces = self._cut() if in_kernel else None

    def _cut(self) -> list[tuple[int, slice, tuple[np.ndarray, ...]]]:
        """Position of a parameter, a stretch of it, and that stretch of parameter and moments as arrays."""
        pieces = []
        for i, tensors in enumerate(zip(self.parameters, self.mean, self.square, strict=True)):
            flat = [tensor.detach().view(-1).numpy() for tensor in tensors]
            for start in range(0, flat[0].size, PIECE):
                stretch = slice(start, start + PIECE)
                pieces.append((i, stretch, tuple(array[stretch] for array in flat)))
        return pieces

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Update every parameter that has a gradient."""
        self.n_steps += 1
        size = learning_rate / (1 - BETA_1**self.n_steps)
        scale = 1 / math.sqrt(1 - BETA_2**self.n_steps)
        if self._pieces is not None:
            self._step_in_pieces(self._pieces, size, scale)
            return
        for parameter, mean, square in zip(self.parameters, self.mean, self.square, strict=True):
            if parameter.grad is not None:
                mean.lerp_(parameter.grad, 1 - BETA_1)
                square.mul_(BETA_2).addcmul_(parameter.grad, parameter.grad, value=1 - BETA_2)
                parameter.addcdiv_(mean, square.sqrt().mul_(scale).add_(self.eps), value=-size)

    def _step_in_pieces(
        self, pieces: list[tuple[int, slice, tuple[np.ndarray, ...]]], size: float, scale: float
    ) -> None:
        from lucidcell.training.adam_kernel import update

        gradients = [None if p.grad is None else p.grad.reshape(-1).numpy() for p in self.parameters]
        n_tasks = threads.worth(len(pieces), WORTH_A_THREAD)

        def task(t: int) -> None:
            for i, stretch, (parameter, mean, square) in pieces[t::n_tasks]:
                gradient = gradients[i]
                if gradient is not None:
                    update(parameter, gradient[stretch], mean, square, size, scale, self.eps)

        threads.run(task, n_tasks)

    def clear_gradients(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """Moments, named by the parameter's position, and the number of steps."""
        moments = {"mean": self.mean, "square": self.square}
        named = {f"{name}.{i}": value for name, values in moments.items() for i, value in enumerate(values)}
        return named | {"n_steps": torch.tensor(self.n_steps)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.n_steps = int(state["n_steps"])
        for i in range(len(self.parameters)):
            self.mean[i].copy_(state[f"mean.{i}"])
            self.square[i].copy_(state[f"square.{i}"])
