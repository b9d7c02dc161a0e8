"""Probabilities of labelled cells from classifiers that were fitted to the other labelled cells.

The means of q(z | x) stay those of the trained model, which has seen these cells' labels; only the classifier is fitted
anew, as often as there are parts. So these probabilities are a little better than those of cells without labels, though
much closer to them than the classifier's own on the cells that it was fitted to.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from lucidcell.maths.normalise import linear_relu_dropout
from lucidcell.readouts.random import seeded
from lucidcell.training.optimizer import Adam
from lucidcell.training.schedule import one_cycle
from lucidcell.training.settings import environment
from lucidcell.training.turn import pass_over

if TYPE_CHECKING:
    from lucidcell.models.scanvi import SCANVI, Classifier

N_PARTS = 5


class SideBySide(nn.Module):
    """P classifiers of the shape of another, from fresh starts, in one operation for each layer."""

    def __init__(self, classifier: Classifier, n: int) -> None:
        super().__init__()
        self.n, self.dropout_rate = n, classifier.dropout_rate
        layers = [layer for layer in classifier.modules() if isinstance(layer, nn.Linear)]
        self.first = nn.Linear(layers[0].in_features, n * layers[0].out_features)  # all see the same cells
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for layer in layers[1:]:
            copies = [nn.Linear(layer.in_features, layer.out_features) for _ in range(n)]
            self.weights.append(torch.stack([copy.weight.detach() for copy in copies]))
            self.biases.append(torch.stack([copy.bias.detach() for copy in copies])[:, None])

    def forward(self, z: Tensor, *, learning: bool = False) -> Tensor:
        """Logits (P, B, nodes) of cells z (B, D); `learning` adds dropout."""
        rate = self.dropout_rate if learning else 0.0
        x = linear_relu_dropout(z, self.first, rate) if len(self.weights) else self.first(z)
        x = x.view(len(z), self.n, -1).transpose(0, 1)
        for k, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if k > 0:
                x = dropout(x.relu(), rate)
            x = torch.baddbmm(bias, x, weight.mT)
        return x


def number_of_turns(model: SCANVI) -> int:
    """How often the classifier of a trained model was fitted by itself."""
    return int(model.history["train_classification"].notna().sum()) if "train_classification" in model.history else 0


def parts_of(labels: np.ndarray, seed: int) -> np.ndarray:
    """Part of each cell, (n,); the cells of each label are dealt out over the parts."""
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    part = np.empty(len(labels), np.int64)
    part[order] = np.arange(len(labels)) % N_PARTS
    return part


def cross_fitted_log_probabilities(model: SCANVI, rows: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """log q(c | z) of the labelled cells `rows`, (n, C) float64, each by a classifier that had not seen its part.

    For a model whose classifier learns by itself alone (`training="alternate"`): otherwise q(z | x) has been fitted to
    these labels too, and tells every classifier what it has not seen.

    Every classifier is fitted with as many turns as that of `model` had, and in the same batches; in each of them a
    classifier learns from the cells that are not of its own part.

    Parameters
    ----------
    model
        SCANVI that was trained in this session, by "alternate".
    rows
        Positions (n,) of cells with a label.
    seed
        Of the division into parts and of the fits.
    """
    module, settings = model.module, model._trained_record().settings
    assert settings.learning_rate is not None
    assert settings.batch_size is not None
    part = torch.from_numpy(parts_of(model.cells_of(None).label[rows], seed))
    n_turns = number_of_turns(model)

    def log_q_nodes(z: Tensor, learning: bool) -> Tensor:  # (P, B, nodes)
        logits = classifiers(z, learning=learning)
        return module.tree(logits.flatten(0, 1)).view_as(logits)

    def loss(mu: Tensor, sigma: Tensor, label: Tensor, part: Tensor) -> Tensor:
        log_q = log_q_nodes(mu + sigma * torch.randn_like(mu), learning=True)
        of_label = log_q.gather(2, label.expand(N_PARTS, -1)[..., None]).squeeze(2)
        seen = part != torch.arange(N_PARTS)[:, None]
        return -((of_label * seen).sum(1) / seen.sum(1).clamp(min=1)).sum()

    with environment(settings), seeded(seed):
        classifiers = SideBySide(module.classifier, N_PARTS)
        turn = module.classifier_turn()
        batches = map(turn.inputs, model.batches(model.cells_of(None, rows)))
        inputs = [torch.cat(parts) for parts in zip(*batches, strict=True)]
        turn = replace(turn, loss=loss, parameters=list(classifiers.parameters()))
        optimizer = Adam(turn.parameters)
        with torch.enable_grad():
            for k in range(n_turns):
                rate = settings.learning_rate * one_cycle((k + 1) / n_turns)
                pass_over(
                    turn, [*inputs, part], optimizer, learning_rate=rate, batch_size=settings.batch_size, seed=(seed, k)
                )
        log_q = log_q_nodes(inputs[0], learning=False)[part, torch.arange(len(rows))]
    return log_q[:, module.tree.leaves].double().numpy()
