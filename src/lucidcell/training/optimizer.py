"""Adam whose parameters are shared out between threads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lucidcell.maths import threads


class Adam:
    """`torch.optim.Adam`, one instance for each thread's share of the parameters (by number of elements).

    A model has two large matrices, and an update of all parameters takes as long as a matrix product.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], *, eps: float, weight_decay: float = 0.0) -> None:
        self.parameters = list(parameters)
        n_shares = threads.n_threads() if self.parameters[0].device.type == "cpu" else 1
        shares: list[list[nn.Parameter]] = [[] for _ in range(n_shares)]
        for parameter in sorted(self.parameters, key=lambda p: -p.numel()):
            min(shares, key=lambda share: sum(p.numel() for p in share)).append(parameter)
        options = {"eps": eps, "weight_decay": weight_decay, "fused": True}
        self._optimizers = [torch.optim.Adam(share, lr=0.0, **options) for share in shares if share]

    def step(self, learning_rate: float) -> None:
        """Update every parameter that has a gradient."""
        for optimizer in self._optimizers:
            optimizer.param_groups[0]["lr"] = learning_rate
        threads.run(lambda i: self._optimizers[i].step(), len(self._optimizers))

    def clear_gradients(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """Moments and step counts, named by the parameter's position."""
        found = {}
        for optimizer in self._optimizers:
            for parameter, values in optimizer.state.items():
                position = next(i for i, p in enumerate(self.parameters) if p is parameter)
                found |= {f"{position}.{name}": value for name, value in values.items()}
        return found

    def load_state(self, state: dict[str, Tensor]) -> None:
        for optimizer in self._optimizers:
            for parameter in optimizer.param_groups[0]["params"]:
                position = next(i for i, p in enumerate(self.parameters) if p is parameter)
                prefix = f"{position}."
                values = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
                if values:
                    optimizer.state[parameter] = {name: value.clone() for name, value in values.items()}
