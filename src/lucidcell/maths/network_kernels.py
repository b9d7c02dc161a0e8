"""Numba kernels of gene networks: what is cubic in the genes, or linear in the cells for every pair of genes.

Each takes the genes first, first + step, ...: threads share the genes evenly and write to rows of their own.
"""
# mypy: allow-untyped-defs, allow-untyped-decorators

from __future__ import annotations

import numpy as np
from numba import njit

KERNEL = {"nogil": True, "cache": True, "error_model": "numpy"}  # sums in the order they are written: no fastmath
ADDS = KERNEL | {"fastmath": {"contract", "nsz"}}


@njit(**KERNEL)
def binned_information(codes, n_bins, table, out, first, step):
    """Mutual information (nats) of the bins of genes i > j, with the correction of Miller and Madow, into out[i, j].

    `codes` (G, n) are bins from 0 on, `table` (n + 1,) holds x log x. I = H_i + H_j - H_ij, and each entropy gains
    (bins in use - 1) / 2n.
    """
    n_genes, n = codes.shape
    entropy, used = np.empty(n_genes), np.empty(n_genes)
    single = np.zeros(n_bins, np.int64)
    for i in range(n_genes):
        single[:] = 0
        for c in range(n):
            single[codes[i, c]] += 1
        entropy[i], used[i] = 0.0, 0.0
        for b in range(n_bins):
            entropy[i] += table[single[b]]
            used[i] += single[b] > 0
    joint = np.zeros(n_bins * n_bins, np.int32)
    for i in range(first, n_genes, step):
        for j in range(i):
            joint[:] = 0
            for c in range(n):
                joint[np.int64(codes[i, c]) * n_bins + np.int64(codes[j, c])] += 1
            together, cells = 0.0, 0
            for b in range(joint.shape[0]):
                together += table[joint[b]]
                cells += joint[b] > 0
            found = np.log(n) + (together - entropy[i] - entropy[j]) / n + (used[i] + used[j] - cells - 1) / (2 * n)
            out[i, j] = found if found > 0.0 else 0.0


@njit(**KERNEL)
def mrnet_scores(information, out, first, step):
    """Score of every gene j where the greedy selection for target i takes it, into out[i, j]; stops below 0.

    The next gene is the one with the largest I(i, j) - mean of I(j, k) over the genes k taken before.
    """
    n_genes = information.shape[0]
    relevance, redundancy = np.empty(n_genes), np.empty(n_genes)
    for i in range(first, n_genes, step):
        for j in range(n_genes):
            relevance[j], redundancy[j] = information[i, j], 0.0
        relevance[i] = -np.inf
        for taken in range(n_genes - 1):
            share = 1.0 / max(taken, 1)
            best, at = -np.inf, -1
            for j in range(n_genes):
                score = relevance[j] - redundancy[j] * share
                if score > best:
                    best, at = score, j
            if best <= 0.0:
                break
            out[i, at] = best
            relevance[at] = -np.inf
            for j in range(n_genes):
                redundancy[j] += information[at, j]


@njit(**KERNEL)
def weakest_edges(information, weakest, first, step):
    """Whether edge i > j is the weakest of a triangle, that is below both others, into weakest[i, j]."""
    n_genes = information.shape[0]
    for i in range(first, n_genes, step):
        for j in range(i):
            edge = information[i, j]
            for k in range(n_genes):
                if edge < information[i, k] and edge < information[j, k]:
                    weakest[i, j] = True
                    break


@njit(**ADDS)
def bin_errors(strata, n_folds, n_bins, x, error, first, step):
    """Sum over cells of (x - x_hat)^2 - x^2, less n mean(x - x_hat)^2, into error[i, g].

    x_hat is the mean of gene g over the cells of the other folds in the same bin of query i (0, the mean of all, where
    there are none). `strata` (Q, n) are fold * n_bins + bin; x (n, M) has columns of mean 0.
    """
    n, width = x.shape
    rows = n_folds * n_bins
    sums, total, bias = np.empty((rows, width)), np.empty(width), np.empty(width)
    counts = np.empty(rows)
    for i in range(first, strata.shape[0], step):
        sums[:], counts[:], bias[:] = 0.0, 0.0, 0.0
        for c in range(n):
            row = strata[i, c]
            counts[row] += 1.0
            for g in range(width):
                sums[row, g] += x[c, g]
        error[i] = 0.0
        for b in range(n_bins):
            n_total = 0.0
            total[:] = 0.0
            for k in range(n_folds):
                n_total += counts[k * n_bins + b]
                for g in range(width):
                    total[g] += sums[k * n_bins + b, g]
            for k in range(n_folds):
                row = k * n_bins + b
                n_here = counts[row]
                if n_here == 0.0:
                    continue
                inverse = 1.0 / (n_total - n_here) if n_total > n_here else 0.0
                for g in range(width):
                    mean = (total[g] - sums[row, g]) * inverse
                    error[i, g] += mean * (n_here * mean - 2.0 * sums[row, g])
                    bias[g] += sums[row, g] - n_here * mean
        for g in range(width):
            error[i, g] -= bias[g] * bias[g] / n
