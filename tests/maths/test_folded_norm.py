from __future__ import annotations

import pytest
import torch
from torch.nn.functional import batch_norm

from lucidcell.maths.folded_norm import fold_batch_norm

N, G, P = 23, 40, 6


def tensors(seed: int = 0) -> list[torch.Tensor]:
    torch.manual_seed(seed)
    shapes = [(N, P), (G, P), (G,), (G,)]
    return [torch.randn(*shape, dtype=torch.float64).requires_grad_() for shape in shapes]


def test_it_is_batch_norm_after_the_linear_layer():
    inputs, weight, gamma, beta = tensors()
    folded = fold_batch_norm(inputs, weight, gamma, beta, 1e-3)
    plain = inputs @ weight.t()
    expected = batch_norm(plain, None, None, gamma, beta, training=True, eps=1e-3)
    torch.testing.assert_close(inputs @ folded.weight.t() + folded.bias, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(folded.mean, plain.mean(0))
    torch.testing.assert_close(folded.variance, plain.var(0, correction=0))


def test_gradients():
    """Of weight and bias alone, and against finite differences."""
    torch.autograd.gradcheck(lambda *given: fold_batch_norm(*given, 1e-3)[:2], tensors())


@pytest.mark.parametrize("column", [0, 5])
def test_an_input_that_is_the_same_in_all_cells_cancels(column):
    """The one-hot of a single batch: it can neither move the output nor make it infinite."""
    inputs, weight, gamma, beta = (tensor.detach() for tensor in tensors(1))
    inputs[:, column] = 1.0
    before = fold_batch_norm(inputs, weight, gamma, beta, 1e-3)
    moved = weight.clone()
    moved[:, column] += 100.0
    after = fold_batch_norm(inputs, moved, gamma, beta, 1e-3)
    torch.testing.assert_close(
        inputs @ before.weight.t() + before.bias, inputs @ after.weight.t() + after.bias, rtol=1e-8, atol=1e-8
    )


def test_one_cell_has_no_variance_and_stays_finite():
    inputs, weight, gamma, beta = (tensor.detach() for tensor in tensors(2))
    folded = fold_batch_norm(inputs[:1], weight, gamma, beta, 1e-3)
    torch.testing.assert_close(inputs[:1] @ folded.weight.t() + folded.bias, beta[None], rtol=1e-8, atol=1e-8)


def test_single_precision_keeps_its_digits_far_from_zero():
    """Inputs whose mean is a hundred times their spread."""
    inputs, weight, gamma, beta = (tensor.detach() for tensor in tensors(3))
    inputs = inputs + 100.0
    exact = fold_batch_norm(inputs, weight, gamma, beta, 1e-3)
    single = fold_batch_norm(*(tensor.float() for tensor in (inputs, weight, gamma, beta)), 1e-3)
    torch.testing.assert_close(single.variance.double(), exact.variance, rtol=1e-4, atol=1e-6)
