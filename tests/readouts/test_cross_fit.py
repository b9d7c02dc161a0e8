"""Classifiers side by side are the single ones, and none learns from its own part."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import lucidcell as lc
from lucidcell.cells.simulate import simulate_counts
from lucidcell.models.scanvi import Classifier
from lucidcell.readouts.cross_fit import N_PARTS, SideBySide, cross_fitted_log_probabilities, parts_of


@pytest.mark.parametrize("n_layers", [0, 1, 2])
def test_side_by_side_they_say_what_each_says_alone(n_layers: int) -> None:
    torch.manual_seed(0)
    shape = {"n_latent": 3, "n_nodes": 4, "n_hidden": 8, "n_layers": n_layers, "dropout_rate": 0.3}
    together, z = SideBySide(Classifier(**shape), 5), torch.randn(20, 3)
    logits = together(z)
    assert logits.shape == (5, 20, 4)
    for p in range(5):
        alone = Classifier(**shape)
        layers = [*alone.layers, alone.logits]
        width = layers[0].out_features
        weights = [together.first.weight[p * width : (p + 1) * width], *(w[p] for w in together.weights)]
        biases = [together.first.bias[p * width : (p + 1) * width], *(b[p, 0] for b in together.biases)]
        with torch.no_grad():
            for layer, weight, bias in zip(layers, weights, biases, strict=True):
                layer.weight.copy_(weight)
                layer.bias.copy_(bias)
        torch.testing.assert_close(logits[p], alone(z), rtol=1e-5, atol=1e-5)
    assert torch.equal(together(z, learning=True), logits) == (n_layers == 0), "dropout is between layers"


def test_no_classifier_learns_from_its_own_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever labels the cells of a part have, what is said of them is the same."""
    part = np.random.default_rng(0).permutation(90) % N_PARTS
    monkeypatch.setattr("lucidcell.readouts.cross_fit.parts_of", lambda labels, seed: part)
    adata = simulate_counts(300, 60, n_types=3, seed=1)
    adata.obs["known"] = np.where(np.arange(300) < 90, adata.obs["cell_type"].astype(str), "?")
    model = lc.SCANVI(adata, labels_key="known", unlabeled_category="?", n_latent=4, n_hidden=16)
    model.train(3, batch_size=64, progress=False)
    known = np.arange(90)
    first = cross_fitted_log_probabilities(model, known)
    np.testing.assert_allclose(np.exp(first).sum(1), 1, atol=1e-5)
    own = part == 2
    model.cells.label[known[own]] = (model.cells.label[known[own]] + 1) % 3
    second = cross_fitted_log_probabilities(model, known)
    np.testing.assert_array_equal(first[own], second[own])
    assert not np.array_equal(first[~own], second[~own])


def test_the_cells_of_a_label_are_dealt_out_over_the_parts() -> None:
    labels = np.repeat(np.arange(6), [1, 2, 4, 5, 11, 40])
    part = parts_of(labels, seed=3)
    for label in range(6):
        sizes = np.bincount(part[labels == label], minlength=N_PARTS)
        assert sizes.max() - sizes.min() <= 1
    assert not np.array_equal(part, parts_of(labels, seed=4))
