"""z of a type instead of z of its cells: what scANVI's differential expression compares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Categorical, Normal

from lucidcell.errors import SettingError
from lucidcell.readouts.annotation import label_probabilities
from lucidcell.readouts.groups import Groups
from lucidcell.readouts.random import seeded
from lucidcell.readouts.scale_samples import DrawZ, PosteriorOfCells, draw_posterior

if TYPE_CHECKING:
    from anndata import AnnData

    from lucidcell.cells.cells import Cells
    from lucidcell.models.scanvi import SCANVI


@dataclass(frozen=True)
class DrawGivenLabel:
    """z ~ p(z | u, c) with the type c of each cell; a `DrawZ`.

    u is drawn from q(u | z, c) at a draw of q(z | x) of the cell: the aggregate posterior of u. With `prior` it is
    drawn from N(0, I), and the counts of the cell play no part, but for cells whose node is no leaf: their type is
    drawn from q(c | z) over the leaves under it.
    """

    model: SCANVI
    nodes: np.ndarray  # (n,) node of the taxonomy of each cell, -1 for none
    prior: bool

    def __call__(self, cells: Cells, rows: np.ndarray, rng: np.random.Generator) -> Tensor:
        module = self.model.module
        z = draw_posterior(self.model, cells, rows, rng)
        with seeded(int(rng.integers(2**31))):  # draws of torch
            allowed = module.allowed[torch.from_numpy(self.nodes[rows])]
            leaf = Categorical(logits=module.log_q_leaves(z).masked_fill(~allowed, -torch.inf)).sample()
            u = torch.randn_like(z) if self.prior else Normal(*module.q_u(z, leaf)).sample()
            return module.vae.link(Normal(*module.p_z(u, leaf)).sample())


def law_of_z(model: SCANVI, scanvi_latent: str | None, groups: Groups | None) -> DrawZ:
    """The law that is asked for; for None "aggregate" where the groups are types of the model, else "cells".

    Raises
    ------
    SettingError
        If types are needed and the groups are none.
    """
    names = model.taxonomy.names
    strangers = [] if groups is None else [name for name in groups.names if name not in names]
    if scanvi_latent == "cells" or (scanvi_latent is None and (groups is None or strangers)):
        return PosteriorOfCells(model)
    if groups is None or strangers:
        what = "masks of cells" if groups is None else f"groups such as {strangers[0]!r}"
        raise SettingError(
            f"scanvi_latent={scanvi_latent!r} compares types of the model, and {what} are none: leave it out."
        )
    node_of_group = np.array([*(names.index(name) for name in groups.names), -1])
    return DrawGivenLabel(model, node_of_group[groups.codes], scanvi_latent == "prior")


def predicted_groups(model: SCANVI, adata: AnnData | None) -> Groups:
    """Cells by the type that is predicted for them, under the name that `write` gives the prediction."""
    codes = label_probabilities(model, adata).argmax(1)
    return Groups(model.taxonomy.leaf_names, codes, f"{model.name}_prediction")
