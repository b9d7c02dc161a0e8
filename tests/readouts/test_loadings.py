"""Loadings: against central differences of the equations in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from battery import assert_sentence
from by_hand import ByHand
from scipy.special import softmax

from lucidcell.errors import SettingError

EVERYTHING = {
    "categorical_covariate_keys": ["sex"],
    "continuous_covariate_keys": ["age"],
    "encode_covariates": True,
    "n_layers": 2,
}


@pytest.mark.parametrize("arguments", [{}, EVERYTHING, {"latent_distribution": "ln", "n_latent": 4}])
def test_loadings_are_the_slopes_of_log_expression(trained, arguments):
    """Central differences in double precision at every cell's posterior mean."""
    model = trained(**arguments)
    hand, names = ByHand(model), model.factor_names
    z, _ = hand.posterior()
    if "latent_distribution" in arguments:
        z = softmax(z, axis=1)
    h, slopes = 1e-5, np.empty((50, len(names)))
    for d in range(len(names)):
        step = h * np.eye(len(names))[d]
        slopes[:, d] = ((hand.log_rho(z + step, hand.design) - hand.log_rho(z - step, hand.design)) / (2 * h)).mean(0)
    table = model.get_loadings()
    assert list(table.columns) == names
    assert list(table.index) == list(model.schema.gene_names)
    # units switch on and off between two points of a difference, which the mean over cells feels a little
    np.testing.assert_allclose(table, slopes, rtol=0.02, atol=3e-3 * np.abs(slopes).max())


def test_a_rotation_needs_a_linear_decoder(trained):
    with pytest.raises(SettingError, match="rotate='varimax' needs a linear decoder") as caught:
        trained().get_loadings(rotate="varimax")
    assert_sentence(caught.value)
