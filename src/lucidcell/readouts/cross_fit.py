"""Probabilities of labelled cells from classifiers that were fitted to the other labelled cells.

The means of q(z | x) stay those of the trained model, which has seen these cells' labels; only the classifier is fitted
anew, as often as there are parts. So these probabilities are a little better than those of cells without labels, though
much closer to them than the classifier's own on the cells that it was fitted to.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from lucidcell.readouts.random import seeded
from lucidcell.training.optimizer import Adam
from lucidcell.training.schedule import one_cycle
from lucidcell.training.settings import environment
from lucidcell.training.turn import pass_over

if TYPE_CHECKING:
    from lucidcell.models.scanvi import SCANVI, SCANVIModule
    from lucidcell.training.phases import Turn

N_PARTS = 5


def cross_fitted_log_probabilities(model: SCANVI, rows: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """log q(c | z) of the labelled cells `rows`, (n, C) float64, each by a classifier that had not seen its part.

    Parameters
    ----------
    model
        SCANVI that was trained in this session.
    rows
        Positions (n,) of cells with a label.
    seed
        Of the division into parts and of the fits.
    """
    batches = list(model.batches(model.cells_of(None, rows)))
    part = np.random.default_rng(seed).permutation(len(rows)) % N_PARTS
    module = deepcopy(model.module)
    found = np.empty((len(rows), len(model.taxonomy.leaves)))
    turn = module.classifier_turn()
    with environment(model._trained_record().settings), seeded(seed):
        inputs = [torch.cat(parts) for parts in zip(*map(turn.inputs, batches), strict=True)]
        for p in range(N_PARTS):
            others, held_out = torch.from_numpy(part != p), torch.from_numpy(part == p)
            _fit_classifier(module.train(), turn, [values[others] for values in inputs], model, (seed, p))
            found[part == p] = module.eval().log_q_leaves(inputs[0][held_out]).double().numpy()
    return found


@torch.enable_grad()
def _fit_classifier(
    module: SCANVIModule, turn: Turn, inputs: list[torch.Tensor], model: SCANVI, seed: tuple[int, int]
) -> None:
    """Fit the classifier of `module` from a fresh start, with as many turns as that of `model` had."""
    for layer in module.classifier.modules():
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    settings = model._trained_record().settings
    assert settings.learning_rate is not None
    assert settings.batch_size is not None
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    for parameter in turn.parameters:
        parameter.requires_grad_(True)
    optimizer = Adam(turn.parameters)
    n_turns = int((model.history["phase"] == model.history["phase"].iloc[-1]).sum())
    for k in range(n_turns):
        pass_over(
            turn, inputs, optimizer, learning_rate=settings.learning_rate * one_cycle((k + 1) / n_turns),
            batch_size=settings.batch_size, seed=(*seed, k),
        )  # fmt: skip
