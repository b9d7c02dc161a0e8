from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from lucidcell.maths import logarithms, threads
from lucidcell.maths.logarithms import log_expm1, log_normalized, total_of_logarithms


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


@pytest.mark.parametrize("n_threads", [1, 2])
def test_log_normalized_expression_is_that_of_numpy(sparse_rows, monkeypatch, n_threads):
    monkeypatch.setattr(logarithms, "WORTH_A_THREAD", 50)
    counts = np.random.default_rng(0).poisson(2.0, (40, 30)).astype(np.float32)
    counts[3] = 0
    library = counts.sum(1) * 1.5
    with threads.limit(n_threads):
        found = log_normalized(sparse_rows(counts), torch.from_numpy(library))
    expected = np.log1p(counts * (1e4 / np.maximum(library, 1e-12))[:, None])
    np.testing.assert_allclose(found.dense(), expected, rtol=2e-6)
