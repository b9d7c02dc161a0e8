"""exp and log in single precision that LLVM can vectorise: no calls, no branches, error below 1e-7.

Numba alone turns `math.exp` in a loop into one library call per element. These are range reductions with a polynomial
(coefficients: Cephes `expf` and `logf`, S. Moshier 1984), written so that a loop over genes becomes AVX code.
`reassoc` must stay off here: it would fold away the rounding tricks below.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

F = np.float32
EXACT = {"contract", "nnan", "ninf", "nsz", "arcp"}  # fast-math flags that keep the order of operations
LN2_HIGH, LN2_LOW = F(0.693359375), F(-2.12194440e-4)  # ln 2 in two parts, so that n * ln 2 is exact enough
ROUNDER = F(12582912.0)  # 1.5 * 2**23: adding and subtracting it rounds to the nearest integer


def _bitcast(source: types.Type, target: types.Type, llvm_type: ir.Type) -> Any:
    @intrinsic
    def cast(typingctx: Any, x: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.bitcast(args[0], llvm_type)

        return target(source), codegen

    return cast


float_bits = _bitcast(types.float32, types.int32, ir.IntType(32))
bits_float = _bitcast(types.int32, types.float32, ir.FloatType())


@njit(inline="always", fastmath=EXACT, error_model="numpy")
def exp(x):
    """e**x, clamped below at x = -87 (1.6e-38)."""
    x = x if x > F(-87.0) else F(-87.0)
    shifted = x * F(1.4426950408889634) + ROUNDER
    n = shifted - ROUNDER
    r = x - n * LN2_HIGH
    r = r - n * LN2_LOW
    p = F(1.9875691500e-4)
    p = p * r + F(1.3981999507e-3)
    p = p * r + F(8.3334519073e-3)
    p = p * r + F(4.1665795894e-2)
    p = p * r + F(1.6666665459e-1)
    p = p * r + F(5.0000001201e-1)
    p = p * r * r + r + F(1.0)
    return p * bits_float((float_bits(shifted) + np.int32(127)) << np.int32(23))


@njit(inline="always", fastmath=EXACT, error_model="numpy")
def log(x):
    """Natural logarithm of a positive normal number."""
    bits = float_bits(x)
    exponent = (bits - np.int32(0x3F3504F3)) >> np.int32(23)
    m = bits_float(bits - (exponent << np.int32(23)))
    n = F(exponent)
    f = m - F(1.0)
    p = F(7.0376836292e-2)
    p = p * f + F(-1.1514610310e-1)
    p = p * f + F(1.1676998740e-1)
    p = p * f + F(-1.2420140846e-1)
    p = p * f + F(1.4249322787e-1)
    p = p * f + F(-1.6668057665e-1)
    p = p * f + F(2.0000714765e-1)
    p = p * f + F(-2.4999993993e-1)
    p = p * f + F(3.3333331174e-1)
    return f + (f * f * f * p + n * LN2_LOW - F(0.5) * f * f) + n * LN2_HIGH


@njit(inline="always", fastmath=EXACT, error_model="numpy")
def log1p(x, reciprocal):
    """log(1 + x) for x > -1, given 1 / (1 + x)."""
    v = F(1.0) + x
    return log(v) + (x - (v - F(1.0))) * reciprocal


@njit(fastmath=True, error_model="numpy")
def maximum(row):
    """Largest element; compared as integers of the same order, since LLVM vectorises no float maximum."""
    best = np.int32(-2147483647)
    for g in range(row.shape[0]):
        bits = float_bits(row[g])
        key = bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))
        best = key if key > best else best
    return bits_float(best ^ ((best >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@njit(fastmath=True, error_model="numpy")
def total(row):
    """Sum of a float32 row in double precision."""
    s = 0.0
    for g in range(row.shape[0]):
        s += np.float64(row[g])
    return s


def load_row(source: Any, bias: Any, out: Any) -> None:
    """out = source + bias; `source` is float32, or bfloat16 held as uint16."""


def store_row(row: Any, target: Any) -> None:
    """target = row; `target` is float32, or bfloat16 held as uint16 (rounded to nearest even)."""


def load_one(source: Any, g: int) -> Any:
    """source[g] as float32."""


@overload(load_row)
def _load_row(source, bias, out):
    if source.dtype == types.uint16:

        def load(source, bias, out):
            for g in range(out.shape[0]):
                out[g] = bits_float(np.int32(source[g]) << np.int32(16)) + bias[g]
    else:

        def load(source, bias, out):
            for g in range(out.shape[0]):
                out[g] = source[g] + bias[g]

    return load


@overload(store_row)
def _store_row(row, target):
    if target.dtype == types.uint16:

        def store(row, target):
            for g in range(row.shape[0]):
                bits = float_bits(row[g])
                odd = (bits >> np.int32(16)) & np.int32(1)
                target[g] = np.uint16((bits + np.int32(0x7FFF) + odd) >> np.int32(16))
    else:

        def store(row, target):
            for g in range(row.shape[0]):
                target[g] = row[g]

    return store


@overload(load_one)
def _load_one(source, g):
    if source.dtype == types.uint16:
        return lambda source, g: bits_float(np.int32(source[g]) << np.int32(16))
    return lambda source, g: source[g]
