"""Counts with planted truth: gene programs, cell types, batches and library sizes that a model should find again.

Generative model, for cell n of type t and batch s, gene g, K programs:

    a_nk   = |centre_tk + 0.6 e_nk|,  e ~ N(0, 1)     activity of program k (centre 2 where the type uses it, else 0.5)
    rho_n  = softmax_g(base_g + sum_k a_nk w_gk + shift_gs)
    l_n    ~ LogNormal,  E[l] = mean_library          library size
    x_ng   ~ NB(mean l_n rho_ng, inverse dispersion), or Poisson, or NB with extra zeros
"""

from __future__ import annotations

from itertools import chain, combinations, islice
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.special import softmax

from lucidcell.errors import SettingError

if TYPE_CHECKING:
    from anndata import AnnData

Likelihood = Literal["nb", "zinb", "poisson"]
_BLOCK = 4096  # cells drawn at once, so that memory stays O(block x genes)


def simulate_counts(
    n_cells: int = 600,
    n_genes: int = 200,
    *,
    n_programs: int = 4,
    n_types: int = 4,
    n_batches: int = 2,
    batch_effect: float = 0.3,
    likelihood: Likelihood = "nb",
    mean_library: float = 3000.0,
    library_sd: float = 0.3,
    dispersion: float = 5.0,
    zero_inflation: float = 0.2,
    seed: int = 0,
) -> AnnData:
    """Simulate a count matrix whose programs, types, batches and library sizes are known.

    Parameters
    ----------
    n_cells, n_genes
        Size of the matrix.
    n_programs
        Gene programs K. Six genes in ten belong to a program, in K equal and disjoint sets; each set then
        borrows a tenth of its size from the next one, so that programs overlap a little.
    n_types
        Cell types, of equal size. Types use one program each; when the programs are used up, types use pairs of
        them, then triples (at most 2^K - 1 types). Programs that no type uses vary within types only.
    n_batches
        Batches, of equal size and independent of the types.
    batch_effect
        Standard deviation, in natural log units, of each gene's shift in each batch. The first batch has no shift.
    likelihood
        Noise: "nb" (gamma-Poisson), "zinb" (the same, then entries set to zero at random) or "poisson".
    mean_library
        Mean of the log-normal library size, in counts per cell (before extra zeros).
    library_sd
        Standard deviation of the natural log of the library size.
    dispersion
        Inverse dispersion theta of the NB, the same for all genes: variance = mu + mu^2 / theta.
    zero_inflation
        Probability that an entry is set to zero; used by "zinb" only.
    seed
        The same seed gives the same data. No global random state is read or changed.

    Returns
    -------
    AnnData of n_cells x n_genes. X holds the counts (CSR, float32); every cell has at least one. The truth is in

    - ``obs``: ``cell_type``, ``batch`` (categorical), ``library`` (the planted l, not the counts drawn),
    - ``var``: ``base`` (log expression without programs), ``program`` (the gene's own program, or "none"),
    - ``obsm["programs"]``: activities a (n_cells, K), non-negative,
    - ``varm["programs"]``: weights w (n_genes, K), zero or between 0.5 and 1.5 (borrowed genes: half of that),
    - ``varm["batch_shift"]``: shifts (n_genes, n_batches),
    - ``uns["truth"]``: the settings and ``program_names``.

    Raises
    ------
    SettingError
        If a size or a scale has no meaning, or there are more types than sets of programs.
    """
    sizes = {"n_programs": n_programs, "n_types": n_types, "n_batches": n_batches}
    scales = {"mean_library": mean_library, "library_sd": library_sd, "batch_effect": batch_effect}
    scales |= {"dispersion": dispersion, "zero_inflation": zero_inflation}
    _check_settings({"n_cells": n_cells, "n_genes": n_genes, **sizes}, scales, likelihood)
    import anndata as ad  # here, so that importing lucidcell.cells stays fast

    rng = np.random.default_rng(seed)
    names = [f"program_{k}" for k in range(n_programs)]
    cell_type = rng.permutation(n_cells) % n_types
    batch = rng.permutation(n_cells) % n_batches
    weights, owner = _program_weights(n_genes, n_programs, rng)
    centres = np.where(_type_programs(n_types, n_programs), 2.0, 0.5)[cell_type]
    activities = np.abs(centres + 0.6 * rng.standard_normal((n_cells, n_programs)))
    base = rng.standard_normal(n_genes)
    shift = batch_effect * rng.standard_normal((n_genes, n_batches))
    shift[:, 0] = 0.0
    library = rng.lognormal(np.log(mean_library) - library_sd**2 / 2, library_sd, n_cells)

    blocks = []
    for start in range(0, n_cells, _BLOCK):
        rows = slice(start, start + _BLOCK)
        rho = softmax(base + activities[rows] @ weights.T + shift[:, batch[rows]].T, axis=1)
        drawn = _draw_counts(rho, library[rows], likelihood, dispersion, zero_inflation, rng)
        blocks.append(sp.csr_matrix(drawn.astype(np.float32)))

    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical.from_codes(cell_type, [f"type_{t}" for t in range(n_types)]),
            "batch": pd.Categorical.from_codes(batch, [f"batch_{s}" for s in range(n_batches)]),
            "library": library,
        },
        index=[f"cell_{n}" for n in range(n_cells)],
    )
    var = pd.DataFrame(
        {"base": base, "program": pd.Categorical.from_codes(owner, [*names, "none"])},
        index=[f"gene_{g}" for g in range(n_genes)],
    )
    truth = {**sizes, **scales, "likelihood": likelihood, "seed": seed, "program_names": np.array(names, dtype=object)}
    return ad.AnnData(
        X=sp.vstack(blocks, format="csr"),
        obs=obs,
        var=var,
        obsm={"programs": activities},
        varm={"programs": weights, "batch_shift": shift},
        uns={"truth": truth},
    )


def _program_weights(n_genes: int, n_programs: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Weights (n_genes, K) and, for each gene, the index of its own program (K for none)."""
    size = max(1, 6 * n_genes // (10 * n_programs))
    own = rng.permutation(n_genes)[: size * n_programs]
    owner = np.full(n_genes, n_programs)
    owner[own] = np.arange(len(own)) % n_programs
    weights = np.zeros((n_genes, n_programs))
    weights[own, owner[own]] = rng.uniform(0.5, 1.5, len(own))
    if n_programs == 1:
        return weights, owner
    for k in range(n_programs):
        lender = (k + 1) % n_programs
        borrowed = np.flatnonzero(owner == lender)[: size // 10]
        weights[borrowed, k] = 0.5 * weights[borrowed, lender]
    return weights, owner


def _type_programs(n_types: int, n_programs: int) -> np.ndarray:
    """Which programs each type uses, (n_types, K) booleans, all rows different: singles first, then pairs, ..."""
    sets = chain.from_iterable(combinations(range(n_programs), size) for size in range(1, n_programs + 1))
    uses = np.zeros((n_types, n_programs), dtype=bool)
    for t, programs in enumerate(islice(sets, n_types)):
        uses[t, list(programs)] = True
    return uses


def _draw_counts(
    rho: np.ndarray,
    library: np.ndarray,
    likelihood: Likelihood,
    dispersion: float,
    zero_inflation: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Counts (cells, genes) with mean library x rho; a cell left empty gets one count, placed according to rho."""
    rate = library[:, None] * rho
    if likelihood != "poisson":
        rate = rng.gamma(dispersion, rate / dispersion)
    counts = rng.poisson(rate)
    if likelihood == "zinb":
        counts[rng.random(counts.shape) < zero_inflation] = 0
    for cell in np.flatnonzero(counts.sum(axis=1) == 0):
        counts[cell, rng.choice(rho.shape[1], p=rho[cell])] = 1
    return counts


def _check_settings(sizes: dict[str, int], scales: dict[str, float], likelihood: str) -> None:
    n_genes, n_programs, n_types = sizes["n_genes"], sizes["n_programs"], sizes["n_types"]
    positive = ("mean_library", "dispersion")
    zeros, known, most = scales["zero_inflation"], get_args(Likelihood), 2**n_programs - 1
    rules = [
        *((v >= 1, f"{k}={v} leaves nothing to simulate: pass a number of at least 1.") for k, v in sizes.items()),
        *((0 <= v < np.inf, f"{k}={v} must be a finite number of at least 0.") for k, v in scales.items()),
        *((scales[k] > 0, f"{k}=0 would leave cells empty or infinitely noisy: pass more than 0.") for k in positive),
        (0 <= zeros < 1, f"zero_inflation={zeros} is a probability and must be at least 0 and below 1."),
        (likelihood in known, f"likelihood={likelihood!r} is unknown: pass one of {', '.join(map(repr, known))}."),
        (n_programs <= n_genes, f"n_programs={n_programs} exceeds n_genes={n_genes}: pass more genes."),
        (n_types <= most, f"n_types={n_types} exceeds the {most} sets of {n_programs} programs: raise n_programs."),
    ]
    for holds, msg in rules:
        if not holds:
            raise SettingError(msg)
