"""Networks by hand: covariates at every layer, sparse genes as dense ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import batch_norm

from lucidcell.maths import threads
from lucidcell.maths.networks import MLP, GeneMLP
from lucidcell.maths.normalise import linear_relu_dropout
from lucidcell.maths.sparse import sparse_linear


@pytest.fixture
def counts() -> np.ndarray:
    """40 cells x 30 genes; cell 7 has no count at all, gene 3 none in any cell."""
    values = np.random.default_rng(0).poisson(0.7, (40, 30)).astype(np.float32)
    values[7], values[:, 3] = 0, 0
    return values


@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_mlp_by_hand_with_covariates_at_every_layer(n_layers):
    torch.manual_seed(0)
    mlp = MLP(5, 2, 8, n_layers).eval()
    for layer in mlp.layers:
        layer.norm.running_mean.normal_()
        layer.norm.running_var.uniform_(0.5, 2)
    x, covariates = torch.randn(6, 5), torch.randn(6, 2)
    wanted = x
    for layer in mlp.layers:
        weight, bias, norm = layer.linear.weight, layer.linear.bias, layer.norm
        assert weight.shape[1] == wanted.shape[1] + 2
        hidden = torch.cat([wanted, covariates], dim=1) @ weight.T + bias
        wanted = (norm.weight * (hidden - norm.running_mean) / (norm.running_var + 1e-3).sqrt() + norm.bias).relu()
    torch.testing.assert_close(mlp(x, covariates), wanted)


def test_training_mode_normalises_by_the_batch_and_moves_the_running_statistics():
    torch.manual_seed(0)
    mlp = MLP(5, 0, 8, 1).train()
    x = torch.randn(20, 5)
    norm = mlp.layers[0].norm
    hidden = mlp.layers[0].linear(x)
    mean, variance = torch.zeros(8), torch.ones(8)
    wanted = batch_norm(hidden, mean, variance, norm.weight, norm.bias, training=True, momentum=0.01, eps=1e-3).relu()
    torch.testing.assert_close(mlp(x, x.new_zeros(20, 0)), wanted)
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, variance)


def test_gradients_in_training_mode_are_those_of_torch():
    torch.manual_seed(0)
    mlp = MLP(5, 0, 8, 1).train()
    linear, norm = mlp.layers[0].linear, mlp.layers[0].norm
    x, outer = torch.randn(20, 5), torch.randn(20, 8)
    parameters = [linear.weight, linear.bias, norm.weight, norm.bias]
    ours = torch.autograd.grad((mlp(x, x.new_zeros(20, 0)) * outer).sum(), parameters)
    reference = batch_norm(linear(x), None, None, norm.weight, norm.bias, training=True, eps=1e-3).relu()
    theirs = torch.autograd.grad((reference * outer).sum(), parameters)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_dropout_acts_in_training_only_and_keeps_the_mean():
    torch.manual_seed(0)
    mlp = MLP(5, 0, 200, 1, dropout=0.4)
    x, none = torch.randn(50, 5), torch.zeros(50, 0)
    plain = MLP(5, 0, 200, 1)
    plain.load_state_dict(mlp.state_dict())
    torch.testing.assert_close(mlp.eval()(x, none), plain.eval()(x, none))
    dropped, kept = mlp.train()(x, none), plain.train()(x, none)
    alive = kept > 0
    assert (dropped[alive] == 0).float().mean().item() == pytest.approx(0.4, abs=0.03)
    survivors = alive & (dropped > 0)
    torch.testing.assert_close(dropped[survivors], kept[survivors] / 0.6)


def test_gradients_under_dropout_are_those_of_the_units_that_were_kept():
    torch.manual_seed(0)
    mlp = MLP(5, 0, 30, 1, dropout=0.3).train()
    linear, norm = mlp.layers[0].linear, mlp.layers[0].norm
    x, outer = torch.randn(40, 5, requires_grad=True), torch.randn(40, 30)
    inputs = [x, linear.weight, norm.weight, norm.bias]
    out = mlp(x, x.new_zeros(40, 0))
    ours = torch.autograd.grad((out * outer).sum(), inputs)
    plain = batch_norm(linear(x), None, None, norm.weight, norm.bias, training=True, eps=1e-3).relu()
    kept = (out > 0) | (plain == 0)
    torch.testing.assert_close(out, plain * kept / 0.7)
    theirs = torch.autograd.grad((plain * kept / 0.7 * outer).sum(), inputs)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


def test_dropout_is_drawn_anew_for_every_cell_unit_and_step():
    torch.manual_seed(0)
    mlp = MLP(1, 0, 400, 1, dropout=0.5).train()
    with torch.no_grad():
        mlp.layers[0].norm.bias.fill_(50.0)  # every unit is active
        x = torch.randn(300, 1)
        first, second = ((mlp(x, x.new_zeros(300, 0)) > 0).double() - 0.5 for _ in range(2))
    for mask in (first, second):
        assert mask.mean().abs() < 0.01
        assert mask.mean(0).abs().max() < 0.15
        assert mask.mean(1).abs().max() < 0.15
        assert (mask[1:] * mask[:-1]).mean().abs() < 0.005
        assert (mask[:, 1:] * mask[:, :-1]).mean().abs() < 0.005
    assert (first * second).mean().abs() < 0.005
    torch.manual_seed(0)
    again = MLP(1, 0, 400, 1, dropout=0.5).train()
    again.layers[0].norm.bias.data.fill_(50.0)
    same = torch.randn(300, 1)
    assert torch.equal((again(same, same.new_zeros(300, 0)) > 0).double() - 0.5, first), "the seed decides"


def test_nan_is_not_taken_for_a_unit_that_is_switched_off():
    torch.manual_seed(0)
    mlp = MLP(3, 0, 4, 1).train()
    x = torch.randn(10, 3)
    x[4, 1] = torch.nan
    assert mlp(x, x.new_zeros(10, 0)).isnan().any()


@pytest.mark.parametrize("n_covariates", [0, 3])
def test_gene_mlp_is_an_mlp_of_the_dense_counts(sparse_rows, counts, n_covariates):
    torch.manual_seed(0)
    ours, dense = GeneMLP(30, n_covariates, 16, 2).eval(), MLP(30, n_covariates, 16, 2).eval()
    first = ours.first
    with torch.no_grad():
        dense.layers[0].linear.weight.copy_(torch.cat([first.gene_weight.T, first.covariate_weight], dim=1))
        dense.layers[0].linear.bias.copy_(first.bias)
        dense.layers[0].norm.load_state_dict(first.norm.state_dict())
        dense.layers[1].load_state_dict(ours.rest.layers[0].state_dict())
    covariates = torch.randn(40, n_covariates)
    torch.testing.assert_close(ours(sparse_rows(counts), covariates), dense(torch.from_numpy(counts), covariates))


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("n_hidden", [1, 2, 16, 37])
def test_sparse_linear_is_the_dense_product(sparse_rows, counts, n_hidden, n_threads):
    weight = torch.randn(30, n_hidden, generator=torch.Generator().manual_seed(0), requires_grad=True)
    outer = torch.randn(40, n_hidden, generator=torch.Generator().manual_seed(1))
    with threads.limit(n_threads):
        product = sparse_linear(sparse_rows(counts), weight)
        (ours,) = torch.autograd.grad((product * outer).sum(), weight)
    wanted = torch.from_numpy(counts) @ weight
    (theirs,) = torch.autograd.grad((wanted * outer).sum(), weight)
    torch.testing.assert_close(product, wanted)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("density", [0.01, 0.6])
def test_sparse_linear_of_more_genes_than_a_block_holds(sparse_rows, density, n_threads):
    rng = np.random.default_rng(0)
    counts = rng.poisson(3.0, (90, 700)) * (rng.random((90, 700)) < density)
    counts[:, 255:257] = 1  # either side of the first block's end
    counts[5] = 0
    counts = counts.astype(np.float32)
    weight = torch.randn(700, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    outer = torch.randn(90, 8, generator=torch.Generator().manual_seed(1))
    with threads.limit(n_threads):
        product = sparse_linear(sparse_rows(counts), weight)
        (gradient,) = torch.autograd.grad((product * outer).sum(), weight)
    exact = torch.from_numpy(counts).double()
    torch.testing.assert_close(product.double(), exact @ weight.double(), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(gradient.double(), exact.t() @ outer.double(), rtol=1e-5, atol=1e-4)


def test_sparse_linear_of_a_slice_of_rows_and_of_no_rows(sparse_rows, counts):
    weight = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    x = sparse_rows(counts)
    torch.testing.assert_close(sparse_linear(x.rows(5, 19), weight), torch.from_numpy(counts[5:19]) @ weight)
    assert sparse_linear(x.rows(3, 3), weight).shape == (0, 4)


def test_sparse_linear_gradient_passes_gradcheck_in_double_precision(sparse_rows, counts):
    weight = torch.randn(30, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: sparse_linear(sparse_rows(counts), w), weight)


def test_sparse_rows_slice_and_densify(sparse_rows, counts):
    x = sparse_rows(counts)
    np.testing.assert_array_equal(x.dense(), counts)
    np.testing.assert_array_equal(x.rows(5, 19).dense(), counts[5:19])
    np.testing.assert_allclose(x.log1p().dense(), np.log1p(counts), rtol=1e-6)
    assert (x.n_cells, x.n_genes) == (40, 30)


def test_linear_relu_dropout_is_torchs_in_value_and_gradient_without_dropout():
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(5, 16), torch.randn(40, 5, requires_grad=True)
    weights = torch.randn(40, 16)
    found, expected = linear_relu_dropout(x, layer, 0.0), layer(x).relu()
    torch.testing.assert_close(found, expected)
    parameters = [x, layer.weight, layer.bias]
    torch.testing.assert_close(
        torch.autograd.grad((found * weights).sum(), parameters),
        torch.autograd.grad((expected * weights).sum(), parameters),
    )


def test_linear_relu_dropout_keeps_the_mean_and_the_gradients_of_the_units_that_were_kept():
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(5, 64), torch.randn(500, 5, requires_grad=True)
    plain, out = layer(x).relu(), linear_relu_dropout(x, layer, 0.25)
    kept = (out > 0) | (plain == 0)
    assert (out > 0)[plain > 0].float().mean() == pytest.approx(0.75, abs=0.02)
    torch.testing.assert_close(out, torch.where(kept, plain / 0.75, torch.zeros_like(plain)))
    expected = torch.autograd.grad((plain * kept / 0.75).sum(), [x, layer.weight, layer.bias])
    found = torch.autograd.grad(out.sum(), [x, layer.weight, layer.bias])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)  # sums of 500 numbers, in another order


def test_linear_relu_dropout_shows_nan():
    x = torch.randn(4, 3)
    x[2, 1] = torch.nan
    assert linear_relu_dropout(x, torch.nn.Linear(3, 8), 0.1).isnan().all()
    layer = torch.nn.Linear(3, 8)
    with torch.no_grad():
        layer.bias[5] = torch.nan
    assert linear_relu_dropout(torch.randn(10, 3), layer, 0.1).isnan().all()
