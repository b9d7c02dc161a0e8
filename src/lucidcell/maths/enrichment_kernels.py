"""Numba kernels of gene set enrichment: running-sum scores of sets, and of random sets of many sizes at once."""

from __future__ import annotations

from numba import njit

KERNEL = {"nogil": True, "cache": True, "error_model": "numpy"}  # sums in the order they are written: no fastmath


@njit(**KERNEL)
def score(positions, size, weights):
    """Enrichment score of the set at ascending `positions` (the first `size` of them), and the hit where it is reached.

    The running sum rises by weight / (sum over the set) at each hit, falls by 1 / (G - size) at each other gene, and
    the score is its value farthest from 0. It is largest right after a hit and smallest right before one.
    """
    total = 0.0
    for i in range(size):
        total += weights[positions[i]]
    if total <= 0.0:
        return 0.0, 0
    fall = 1.0 / (len(weights) - size)
    highest, lowest, at_highest, at_lowest, risen = 0.0, 0.0, 0, 0, 0.0
    for i in range(size):
        fallen = (positions[i] - i) * fall
        before = risen / total - fallen
        if before < lowest:
            lowest, at_lowest = before, i
        risen += weights[positions[i]]
        after = risen / total - fallen
        if after > highest:
            highest, at_highest = after, i
    if highest >= -lowest:
        return highest, at_highest
    return lowest, at_lowest


@njit(**KERNEL)
def scores_of_sets(indptr, positions, weights, out, peaks):
    """Score of every set (positions[indptr[s]:indptr[s + 1]], ascending) into out (S,), and its hit into peaks (S,)."""
    for s in range(len(indptr) - 1):
        members = positions[indptr[s] : indptr[s + 1]]
        out[s], peaks[s] = score(members, len(members), weights)


@njit(**KERNEL)
def scores_of_random_sets(drawn, sizes, weights, out):
    """Scores of nested random sets: of draw p, the first sizes[s] of drawn[p], for the weights of each factor.

    `drawn` (P, largest size) holds different positions in each row, sizes (S,) ascend, weights are (D, G); out is
    (D, S, P). Members are merged into an ascending list, which one after the other set then reads.
    """
    largest = sizes[-1]
    members, merged, fresh = drawn[0, :largest].copy(), drawn[0, :largest].copy(), drawn[0, :largest].copy()
    for p in range(len(drawn)):
        n = 0
        for s in range(len(sizes)):
            n_fresh = sizes[s] - n
            for i in range(n_fresh):
                fresh[i] = drawn[p, n + i]
            fresh[:n_fresh].sort()
            i, j, k = 0, 0, 0
            while i < n and j < n_fresh:
                if members[i] < fresh[j]:
                    merged[k] = members[i]
                    i += 1
                else:
                    merged[k] = fresh[j]
                    j += 1
                k += 1
            while i < n:
                merged[k] = members[i]
                i, k = i + 1, k + 1
            while j < n_fresh:
                merged[k] = fresh[j]
                j, k = j + 1, k + 1
            members, merged = merged, members
            n = sizes[s]
            for d in range(len(weights)):
                out[d, s, p], _ = score(members, n, weights[d])
