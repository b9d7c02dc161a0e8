from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from lucidcell.maths.logarithms import log_expm1, total_of_logarithms


def test_log_of_expm1_where_the_plain_one_fails():
    log_x = torch.tensor([-200.0, np.log(1e-20), np.log(1e-6), 0.0, np.log(30.0), np.log(200.0)])
    expected = torch.tensor([-200.0, np.log(1e-20), np.log(np.expm1(1e-6)), np.log(np.expm1(1.0)), 30.0, 200.0])
    torch.testing.assert_close(log_expm1(log_x.float()), expected.float())


@pytest.mark.parametrize("sharpness", [0.1, 1.0, 10.0])
def test_total_is_that_of_a_root_finder(sharpness):
    p = torch.softmax(sharpness * torch.randn(5, 300, generator=torch.Generator().manual_seed(0)).double(), 1)
    found = total_of_logarithms(p, 1e4)
    for one, t in zip(p.numpy(), found.ravel().tolist(), strict=True):
        root = brentq(lambda t, one=one: np.expm1(one * t).sum() - 1e4, 1e-3, np.log1p(1e4) / one.max() + 1)
        assert t == pytest.approx(root, rel=1e-6)
    torch.testing.assert_close(total_of_logarithms(p.float(), 1e4).double(), found, rtol=1e-5, atol=0)
