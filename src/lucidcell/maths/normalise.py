"""Batch-norm, ReLU and dropout of a hidden layer in one operation.

On the CPU the separate torch operations cost more in dispatch, passes over memory and random numbers than the layer's
matrix product. Values and gradients equal those of `nn.BatchNorm1d`, `relu` and dropout; only the dropout mask comes
from another generator, started from torch's, so that one seed still decides everything.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout


def norm_relu_dropout(x: Tensor, norm: nn.BatchNorm1d, rate: float) -> Tensor:
    """dropout(relu(norm(x))) for x (B, H); in training mode the running statistics of `norm` are updated."""
    if norm.training and x.device.type == "cpu" and x.dtype == torch.float32:
        return _NormReluDropout.apply(x, norm.weight, norm.bias, norm, rate)
    return dropout(norm(x).relu(), rate, norm.training)


class _NormReluDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, norm: nn.BatchNorm1d, rate: float) -> Tensor:
        from lucidcell.maths.normalise_kernels import column_moments, scale_and_mask

        seed = int(torch.randint(2**62, ())) if rate > 0 else 0
        values, out = x.contiguous().numpy(), torch.empty_like(x)
        mean, variance = column_moments(values)
        if not np.isfinite(variance).all():  # the kernel would take NaN for an inactive unit and hide a broken run
            out.fill_(torch.nan)
            ctx.save_for_backward(x, weight, out)
            ctx.mean, ctx.inverse_sd, ctx.keep_scale = mean, variance, 1.0
            return out
        _update_running(norm, mean, variance, len(values))
        inverse_sd = (1 / np.sqrt(variance + norm.eps)).astype(np.float32)
        scale = inverse_sd * weight.detach().numpy()
        shift = bias.detach().numpy() - mean * scale
        scale_and_mask(values, scale, shift, seed, rate, out.numpy())
        ctx.save_for_backward(x, weight, out)
        ctx.mean, ctx.inverse_sd, ctx.keep_scale = mean, inverse_sd, 1 / (1 - rate)
        return out

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        from lucidcell.maths.normalise_kernels import gradient

        x, weight, out = ctx.saved_tensors
        d_x, d_weight, d_bias = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)
        gradient(
            x.contiguous().numpy(), out.numpy(), d_out.contiguous().numpy(), ctx.mean, ctx.inverse_sd,
            weight.detach().numpy(), np.float32(ctx.keep_scale), d_x.numpy(), d_weight.numpy(), d_bias.numpy(),
        )  # fmt: skip
        return d_x, d_weight, d_bias, None, None


def _update_running(norm: nn.BatchNorm1d, mean: np.ndarray, variance: np.ndarray, n: int) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    norm.num_batches_tracked += 1
    norm.running_mean.lerp_(torch.from_numpy(mean), norm.momentum)
    norm.running_var.lerp_(torch.from_numpy(variance * np.float32(n / (n - 1))), norm.momentum)
