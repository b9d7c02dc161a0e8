"""z of a type instead of z of its cells: what scANVI's differential expression can compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Normal

from lucidcell.readouts.random import seeded
from lucidcell.readouts.scale_samples import draw_posterior

if TYPE_CHECKING:
    from lucidcell.cells.cells import Cells
    from lucidcell.models.scanvi import SCANVI


@dataclass(frozen=True)
class DrawGivenLabel:
    """z ~ p(z | u, c) with the type c of each cell; a `DrawZ`.

    u is drawn from q(u | z, c) at a draw of q(z | x) of the cell: the aggregate posterior of u. With `prior` it is
    drawn from N(0, I), and the counts of the cell play no part, but for cells labelled above the leaves: their type is
    drawn from q(c | z) over the leaves that their label allows.
    """

    model: SCANVI
    prior: bool = False

    def __call__(self, cells: Cells, rows: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Tensor:
        module = self.model.module
        z = draw_posterior(self.model, cells, rows, rng)
        with seeded(int(rng.integers(2**31))):  # draws of torch
            log_q = module.log_q_leaves(z).masked_fill(
                ~module.allowed[torch.from_numpy(np.maximum(labels, -1))], -torch.inf
            )
            leaf = torch.distributions.Categorical(logits=log_q).sample()
            u = torch.randn_like(z) if self.prior else Normal(*module.q_u(z, leaf)).sample()
            return module.vae.link(Normal(*module.p_z(u, leaf)).sample())
