"""Counts from a tree of cell types with bursting genes and a sequencing experiment, in the manner of SymSim.

Unlike `simulate_counts`, nothing here is a negative binomial, so that models with that likelihood are not flattered:

    f_n  = Brownian motion along the tree at the cell's place + within_sd e_n      extrinsic factors, e ~ N(0, 1)
    log k_on, log k_off, log s = base_g + effects_g . f_n                          rates of the two-state promoter
    x_ng ~ Beta-Poisson(k_on, k_off, s)                                            transcripts
    y_ng = what capture, PCR and sequencing in the cell's batch leave of x_ng      counts

A transcript of gene g is captured in batch b with the cell's own probability times an efficiency of gene and batch,
exp(N(0, batch_effect^2)). `lucidcell.cells.kinetics` has promoter and experiment, `lucidcell.cells.lineage` the tree.

SymSim takes rates fitted to real data by matching quantiles, gives each rate factors of its own, and fragments
molecules by gene length. Here the map from factors to rates is log-linear, so that a gene's rates are known from its
own effects; the three rates share the factors; gene length plays no part.

Reference: Zhang, Xu and Yosef, Nature Communications 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp

from lucidcell.cells.kinetics import RATES, Genes, Protocol, draw_genes
from lucidcell.cells.lineage import Lineage, Nested, drift, nested_lineage, random_lineage
from lucidcell.errors import SettingError

if TYPE_CHECKING:
    from anndata import AnnData

PAPER_PROTOCOLS = (Protocol(0.03, 0.009, 5e5, 1.5e4), Protocol(0.1, 0.03, 1e6, 1.5e5))
_BLOCK = 1024  # cells drawn at once, so that memory stays O(block x genes)


def simulate_tree(
    n_cells: int = 2000,
    n_genes: int = 500,
    *,
    tree: int | Nested = 5,
    n_groups: int | None = None,
    continuous: bool = False,
    n_batches: int = 2,
    protocols: Sequence[Protocol] = PAPER_PROTOCOLS,
    batch_effect: float = 0.3,
    n_factors: int = 10,
    effect_size: float = 0.4,
    within_sd: float = 0.4,
    de_fraction: float = 1.0,
    keep_transcripts: bool = False,
    seed: int = 0,
) -> AnnData:
    """Simulate counts of cells on a tree of types whose expression, kinetics and log fold changes are known.

    Parameters
    ----------
    n_cells, n_genes
        Size of the matrix.
    tree
        Number of leaves of a random binary tree, or nested names: ``{"T": ["CD4", "CD8"], "B": {}}``. Leaves are the
        cell types; every leaf has distance 1 from the root.
    n_groups
        Cut a random tree into so many coarse groups. In nested names the groups are the names at the top.
    continuous
        Spread the cells evenly over the length of all branches. Else they sit at the leaves, as many at each.
    n_batches
        Batches, of equal size and independent of the types.
    protocols
        Capture and sequencing of the batches, used in turn. The default are the two of the scANVI paper: capture
        0.03 +- 0.009 at 5e5 reads a cell and 0.1 +- 0.03 at 1e6.
    batch_effect
        Standard deviation of the natural log of a gene's capture efficiency in a batch; 1 in the first batch.
    n_factors
        Extrinsic factors F.
    effect_size
        Standard deviation of a gene's natural log rates over independent leaves.
    within_sd
        Standard deviation of a factor within a type. Over independent leaves it is 1.
    de_fraction
        Share of genes that respond to the factors. All others have the same rates in every cell, so that their log fold
        changes are exactly 0, and the expected total of transcripts is then held at one value in all cells.
    keep_transcripts
        Keep the transcripts before capture in ``layers["transcripts"]``; they have many more non-zeros than the counts.
    seed
        The same seed gives the same data. No global random state is read or changed.

    Returns
    -------
    AnnData of n_cells x n_genes. X holds the counts (CSR, float32); every cell has at least one. The truth is in

    - ``obs``: ``cell_type`` and, if there are groups, ``group`` (in the continuous case instead ``branch``, named after
      the node at its end, and ``pseudotime``, the distance from the root); ``batch``; ``capture`` (probability),
      ``depth`` (reads), ``transcripts`` (their total),
    - ``obsm["factors"]``: f (n_cells, F),
    - ``var``: ``log_k_on``, ``log_k_off``, ``log_synthesis`` (natural logs, where all factors are 0), ``differential``,
    - ``varm``: ``effects_k_on``, ``effects_k_off``, ``effects_synthesis`` (n_genes, F) on these logs, and
      ``batch_efficiency`` (n_genes, n_batches),
    - ``uns["tree"]``: a table of the nodes: ``parent``, ``position``, ``group``, ``leaf``,
    - ``uns["truth"]``: the settings; ``uns["protocols"]``: a row for each protocol.

    Raises
    ------
    SettingError
        If a size, a scale or the tree has no meaning.
    """
    sizes = {"n_cells": n_cells, "n_genes": n_genes, "n_batches": n_batches, "n_factors": n_factors}
    scales = {"batch_effect": batch_effect, "effect_size": effect_size, "within_sd": within_sd}
    _check_settings(sizes, scales, de_fraction, protocols)
    import anndata as ad  # here, so that importing lucidcell.cells stays fast

    rng = np.random.default_rng(seed)
    lineage = _lineage(tree, n_groups, rng)
    branch, position = _places(lineage, n_cells, continuous, rng)
    batch = rng.permutation(n_cells) % n_batches
    factors = drift(lineage, branch, position, n_factors, rng) + within_sd * rng.standard_normal((n_cells, n_factors))
    genes = draw_genes(n_genes, n_factors, effect_size, round(de_fraction * n_genes), rng)
    efficiency = np.exp(batch_effect * rng.standard_normal((n_genes, n_batches)))
    efficiency[:, 0] = 1.0
    used = [protocols[b % len(protocols)] for b in range(n_batches)]
    counts, transcripts, obs = _observe(genes, factors, batch, used, efficiency, keep_transcripts, rng)

    names = np.array(lineage.names)
    if continuous:
        obs["branch"] = pd.Categorical(names[branch], names[1:])
        obs["pseudotime"] = position
    else:
        obs["cell_type"] = pd.Categorical(names[branch], names[lineage.leaves])
        if lineage.group_names:
            obs["group"] = pd.Categorical.from_codes(lineage.group[branch], lineage.group_names)
    var = pd.DataFrame({f"log_{rate}": genes.base[i] for i, rate in enumerate(RATES)})
    var["differential"] = genes.differential
    effects = {f"effects_{rate}": genes.effects[i] for i, rate in enumerate(RATES)}
    truth = {**sizes, **scales, "continuous": continuous, "de_fraction": de_fraction, "seed": seed}
    return ad.AnnData(
        X=counts,
        obs=obs.set_index(np.array([f"cell_{n}" for n in range(n_cells)])),
        var=var.set_index(np.array([f"gene_{g}" for g in range(n_genes)])),
        obsm={"factors": factors},
        varm={**effects, "batch_efficiency": efficiency},
        layers={"transcripts": transcripts} if keep_transcripts else {},
        uns={"truth": truth, "tree": _nodes(lineage), "protocols": pd.DataFrame([asdict(p) for p in protocols])},
    )


def _lineage(tree: int | Nested, n_groups: int | None, rng: np.random.Generator) -> Lineage:
    if isinstance(tree, int):
        if tree < 2:
            msg = f"tree={tree} leaves no types to tell apart: pass at least 2 leaves, or nested names."
            raise SettingError(msg)
        if n_groups is not None and not 2 <= n_groups <= tree:
            msg = f"n_groups={n_groups} cannot be cut from a tree of {tree} leaves: pass a number from 2 to {tree}."
            raise SettingError(msg)
        return random_lineage(tree, n_groups, rng)
    lineage = nested_lineage(tree)
    if n_groups is not None:
        msg = f"n_groups={n_groups} is for random trees, and here the names at the top are the groups: leave it out."
        raise SettingError(msg)
    if len(lineage.leaves) < 2:
        msg = f"the tree has {len(lineage.names) - 1} nodes and fewer than 2 leaves: name at least 2 types."
        raise SettingError(msg)
    return lineage


def _places(
    lineage: Lineage, n_cells: int, continuous: bool, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """For each cell the node that ends its branch, and its distance from the root."""
    if not continuous:
        if n_cells < len(lineage.leaves):
            msg = f"n_cells={n_cells} leaves some of the {len(lineage.leaves)} types without a cell: pass more cells."
            raise SettingError(msg)
        return lineage.leaves[rng.permutation(n_cells) % len(lineage.leaves)], np.ones(n_cells)
    start = lineage.position[lineage.parent[1:]]
    length = lineage.position[1:] - start
    branch = rng.choice(len(length), n_cells, p=length / length.sum())
    position = start[branch] + rng.random(n_cells) * length[branch]
    return 1 + branch, np.minimum(position, lineage.position[1 + branch])


def _observe(
    genes: Genes,
    factors: np.ndarray,
    batch: np.ndarray,
    protocols: Sequence[Protocol],
    efficiency: np.ndarray,
    keep_transcripts: bool,
    rng: np.random.Generator,
) -> tuple[sp.csr_matrix, sp.csr_matrix | None, pd.DataFrame]:
    """Counts, transcripts if they are kept, and what happened to each cell."""
    capture, depth, totals = np.empty((3, len(batch)))
    for b, protocol in enumerate(protocols):
        cells = np.flatnonzero(batch == b)
        capture[cells], depth[cells] = protocol.draw_capture(len(cells), rng), protocol.draw_depth(len(cells), rng)
    found, made = [], []
    for start in range(0, len(batch), _BLOCK):
        rows = slice(start, start + _BLOCK)
        rates = genes.kinetics(factors[rows])
        transcripts = rates.draw(rng)
        totals[rows] = transcripts.sum(axis=1)
        probability = np.minimum(capture[rows, None] * efficiency[:, batch[rows]].T, 1.0)
        counts = rng.binomial(transcripts, probability)
        for b in np.unique(batch[rows]):
            cells = batch[rows] == b
            counts[cells] = protocols[b].draw_counts(counts[cells], depth[rows][cells], rng)
        for cell in np.flatnonzero(counts.sum(axis=1) == 0):
            share = rates.expected()[cell] * probability[cell]
            counts[cell, rng.choice(len(share), p=share / share.sum())] = 1
        found.append(sp.csr_matrix(counts.astype(np.float32)))
        if keep_transcripts:
            made.append(sp.csr_matrix(transcripts.astype(np.float32)))
    names = [f"batch_{b}" for b in range(len(protocols))]
    obs = {"batch": pd.Categorical.from_codes(batch, names), "capture": capture, "depth": depth, "transcripts": totals}
    return sp.vstack(found, format="csr"), sp.vstack(made, format="csr") if made else None, pd.DataFrame(obs)


def _nodes(lineage: Lineage) -> pd.DataFrame:
    """The tree as a table, a row for each node; the root's parent is empty."""
    names, groups = np.array(lineage.names, dtype=object), np.array([*lineage.group_names, ""], dtype=object)
    leaf = np.isin(np.arange(len(names)), lineage.leaves)
    above = np.where(lineage.parent < 0, "", names[lineage.parent])
    table = {"parent": above, "position": lineage.position, "group": groups[lineage.group], "leaf": leaf}
    return pd.DataFrame(table, index=names)


def _check_settings(
    sizes: dict[str, int], scales: dict[str, float], de_fraction: float, protocols: Sequence[Protocol]
) -> None:
    differing = round(de_fraction * sizes["n_genes"]) if 0 <= de_fraction <= 1 else 0
    rules = [
        *((v >= 1, f"{k}={v} leaves nothing to simulate: pass a number of at least 1.") for k, v in sizes.items()),
        *((0 <= v < np.inf, f"{k}={v} must be a finite number of at least 0.") for k, v in scales.items()),
        (0 <= de_fraction <= 1, f"de_fraction={de_fraction} is a share of the genes and must be between 0 and 1."),
        (
            differing != 1 or sizes["n_genes"] == 1,
            f"de_fraction={de_fraction} lets 1 of {sizes['n_genes']} genes differ, which a fixed total undoes: raise.",
        ),
        (len(protocols) > 0, "protocols is empty: pass at least one Protocol."),
    ]
    for holds, msg in rules:
        if not holds:
            raise SettingError(msg)
