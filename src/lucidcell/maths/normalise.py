"""What follows the linear map of a hidden layer in one operation: batch-norm, ReLU and dropout, or the last two.

On the CPU the separate torch operations cost more in dispatch, passes over memory and random numbers than the layer's
matrix product. Values and gradients equal those of `nn.Linear`, `nn.BatchNorm1d`, `relu` and dropout; only the dropout
mask comes from another generator, started from torch's, so that one seed still decides everything.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear

from lucidcell.maths import across


def norm_relu_dropout(x: Tensor, bias: Tensor, norm: nn.BatchNorm1d, rate: float) -> Tensor:
    """dropout(relu(norm(x + bias))) for x (B, H); in training mode the running statistics of `norm` are updated."""
    if _in_kernel(x, norm):
        return _NormReluDropout.apply(x, bias, norm.weight, norm.bias, norm, rate)
    return dropout(norm(x + bias).relu(), rate, norm.training)


def linear_norm_relu_dropout(x: Tensor, map_: nn.Linear, norm: nn.BatchNorm1d, rate: float) -> Tensor:
    """dropout(relu(norm(map_(x)))) for x (B, n_in), as `norm_relu_dropout`."""
    if _in_kernel(x, norm):
        return _LinearNormReluDropout.apply(x, map_.weight, map_.bias, norm.weight, norm.bias, norm, rate)
    return dropout(norm(linear(x, map_.weight, map_.bias)).relu(), rate, norm.training)


def linear_relu_dropout(x: Tensor, map_: nn.Linear, rate: float) -> Tensor:
    """dropout(relu(map_(x))) for x (B, n_in), with dropout at any time."""
    if x.device.type == "cpu" and x.dtype == torch.float32:
        return _LinearReluDropout.apply(x, map_.weight, map_.bias, rate)
    return dropout(map_(x).relu(), rate, True)


def _in_kernel(x: Tensor, norm: nn.BatchNorm1d) -> bool:
    one_process = across.n_processes() == 1
    return norm.training and one_process and x.device.type == "cpu" and x.dtype == torch.float32


class _Batch(NamedTuple):
    """What the way back needs of the way there."""

    x: np.ndarray  # (B, H), before the norm
    out: Tensor  # (B, H)
    mean: np.ndarray  # (H,)
    inverse_sd: np.ndarray  # (H,)
    keep_scale: float


def _dropout_seed(rate: float) -> int:
    return int(torch.randint(2**62, ())) if rate > 0 else 0


def _forward(x: Tensor, bias: Tensor, norm: nn.BatchNorm1d, rate: float) -> _Batch:
    from lucidcell.maths.normalise_kernels import forward

    assert norm.running_mean is not None
    assert norm.running_var is not None
    seed = _dropout_seed(rate)
    values, out = x.contiguous().numpy(), torch.empty_like(x)
    mean, inverse_sd = np.empty(x.shape[1], np.float32), np.empty(x.shape[1], np.float32)
    finite = forward(
        values, bias.detach().numpy(), norm.weight.detach().numpy(), norm.bias.detach().numpy(), np.float32(norm.eps),
        np.float32(norm.momentum), norm.running_mean.numpy(), norm.running_var.numpy(), seed, rate, mean, inverse_sd,
        out.numpy(),
    )  # fmt: skip
    if not finite:  # the kernel would take NaN for an inactive unit and hide a broken run
        out.fill_(torch.nan)
    return _Batch(values, out, mean, inverse_sd, 1 / (1 - rate))


def _backward(batch: _Batch, weight: Tensor, d_out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, and of weight and bias of the norm."""
    from lucidcell.maths.normalise_kernels import gradient

    d_x, d_weight, d_bias = torch.empty_like(batch.out), torch.empty_like(weight), torch.empty_like(weight)
    gradient(
        batch.x, batch.out.numpy(), d_out.contiguous().numpy(), batch.mean, batch.inverse_sd, weight.detach().numpy(),
        np.float32(batch.keep_scale), d_x.numpy(), d_weight.numpy(), d_bias.numpy(),
    )  # fmt: skip
    return d_x, d_weight, d_bias


class _NormReluDropout(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, bias: Tensor, weight: Tensor, shift: Tensor, norm: nn.BatchNorm1d, rate: float
    ) -> Tensor:
        batch = _forward(x, bias, norm, rate)
        ctx.batch, ctx.weight = batch._replace(out=batch.out.detach()), weight
        return batch.out

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        d_x, d_weight, d_shift = _backward(ctx.batch, ctx.weight, d_out)
        return d_x, torch.zeros_like(d_shift), d_weight, d_shift, None, None


class _LinearNormReluDropout(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        matrix: Tensor,
        bias: Tensor,
        weight: Tensor,
        shift: Tensor,
        norm: nn.BatchNorm1d,
        rate: float,
    ) -> Tensor:
        batch = _forward(x @ matrix.t(), bias, norm, rate)
        ctx.save_for_backward(x, matrix)
        ctx.batch, ctx.weight = batch._replace(out=batch.out.detach()), weight
        return batch.out

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        x, matrix = ctx.saved_tensors
        d_hidden, d_weight, d_shift = _backward(ctx.batch, ctx.weight, d_out)
        d_x = d_hidden @ matrix if ctx.needs_input_grad[0] else None
        return d_x, d_hidden.t() @ x, torch.zeros_like(d_shift), d_weight, d_shift, None, None


class _LinearReluDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor, bias: Tensor, rate: float) -> Tensor:
        from lucidcell.maths.normalise_kernels import rectify

        out = x @ matrix.t()
        if not rectify(out.numpy(), bias.detach().numpy(), _dropout_seed(rate), rate, out.numpy()):
            out.fill_(torch.nan)
        ctx.save_for_backward(x, matrix)
        ctx.out, ctx.keep_scale = out.detach(), np.float32(1 / (1 - rate))
        return out

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        from lucidcell.maths.normalise_kernels import rectify_back

        x, matrix = ctx.saved_tensors
        d_hidden, d_bias = torch.empty_like(ctx.out), matrix.new_empty(len(matrix))
        rectify_back(ctx.out.numpy(), d_out.contiguous().numpy(), ctx.keep_scale, d_hidden.numpy(), d_bias.numpy())
        d_x = d_hidden @ matrix if ctx.needs_input_grad[0] else None
        return d_x, d_hidden.t() @ x if ctx.needs_input_grad[1] else None, d_bias, None
