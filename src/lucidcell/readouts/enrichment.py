"""Which gene sets a factor stands for: over-representation among its top genes, and preranked GSEA.

GSEA (Subramanian et al. 2005, PNAS 102, 15545): genes in falling order of their value r on a factor; the score of a set
is the largest deviation of the running sum that rises by |r|^weight at its members and falls at all others. The null is
the score of random sets of the same size. It depends on the order through |r| only, so that all sets of a size share
it, and random members are drawn once for all factors and sizes: the sets of a draw are nested.

    NES = score / mean of the null scores of its sign
    p   = (1 + null scores of its sign that are as extreme) / (1 + null scores of its sign)
    q   = share of the null's NES of its sign that are as extreme / the same share of the sets' own NES,
          where all sets are pooled, as in the paper; made monotone in NES, and at most 1

Over-representation: hypergeometric test of the top genes, and Benjamini-Hochberg over the sets of a factor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from lucidcell.cells.gene_sets import GeneSets, gene_sets_of
from lucidcell.errors import DataError, SettingError
from lucidcell.readouts.arguments import is_whole, require_whole

if TYPE_CHECKING:
    from anndata import AnnData

FACTORS_AT_A_TIME = 8  # of whose null scores memory is taken


class Members(NamedTuple):
    """Gene sets as positions among the genes at hand."""

    names: list[str]
    indptr: np.ndarray  # (S + 1,)
    genes: np.ndarray  # positions of all members, set after set

    @property
    def sizes(self) -> np.ndarray:
        return np.diff(self.indptr)


def table_of(loadings: pd.DataFrame | AnnData, varm_key: str | None) -> pd.DataFrame:
    """Genes x factors: a table as it is, or an entry of an AnnData's varm.

    Raises
    ------
    DataError
        If the entry is missing, a value is no number, or a gene or a factor is named twice.
    """
    if isinstance(loadings, pd.DataFrame):
        table = loadings
    elif isinstance(loadings, np.ndarray):
        raise DataError("the loadings are an array, which names no genes: pass a DataFrame of genes x factors.")
    else:
        table = _of_varm(loadings, varm_key)
    texts = [str(name) for name, kind in table.dtypes.items() if not pd.api.types.is_numeric_dtype(kind)]
    if texts:
        raise DataError(f"the columns {texts[:3]} of the loadings hold no numbers: make gene names the index.")
    n_bad = int((~np.isfinite(table.to_numpy(float))).sum())
    if n_bad or table.empty:
        raise DataError(
            f"the loadings, {table.shape[0]} genes x {table.shape[1]} factors, hold {n_bad} NaN or infinite values: "
            "pass a finite number for every gene and factor."
        )
    for what, names in (("genes", table.index), ("factors", table.columns)):
        if not names.is_unique:
            twice = names[names.duplicated()]
            raise DataError(f"{len(twice)} {what} occur twice in the loadings, such as {twice[0]!r}: rename them.")
    return table


def _of_varm(adata: AnnData, varm_key: str | None) -> pd.DataFrame:
    """Genes x factors under the names that they have there, or that `write` has left in uns; without absent genes."""
    if varm_key not in adata.varm:
        known = ", ".join(adata.varm) or "none"
        raise DataError(f"varm_key is {varm_key!r}, and varm has {known}: pass the key of genes x factors.")
    values = adata.varm[varm_key]
    names = [f"{varm_key}_{d + 1}" for d in range(values.shape[1])]
    if isinstance(values, pd.DataFrame):
        names = [str(name) for name in values.columns]
    else:
        ours = adata.uns.get(str(varm_key).removesuffix("_loadings").removesuffix("_topic_genes"))
        if isinstance(ours, Mapping) and len(ours.get("factors", ())) == len(names):
            names = [str(name) for name in ours["factors"]]
    array = np.asarray(values)
    return pd.DataFrame(array, adata.var_names, names)[np.isfinite(array).any(axis=1)]


def members(sets: Mapping[str, Sequence[str]], genes: pd.Index, min_size: int, max_size: int) -> Members:
    """Sets with between `min_size` and `max_size` genes among `genes`.

    Raises
    ------
    DataError
        If none is left, with the number of genes in common.
    """
    require_whole(min_size, "min_size", 1)
    if not is_whole(max_size) or max_size < min_size:
        raise SettingError(f"max_size is {max_size!r}; it must be a whole number of at least min_size={min_size}.")
    place = {str(gene): g for g, gene in enumerate(genes)}
    found = {name: sorted({place[gene] for gene in of_set if gene in place}) for name, of_set in sets.items()}
    kept = {name: at for name, at in found.items() if min_size <= len(at) <= max_size and len(at) < len(genes)}
    if not kept:
        n_shared = len(set().union(*found.values()))
        raise DataError(
            f"none of {len(sets)} gene sets has {min_size} to {max_size} of the {len(genes)} genes, of which "
            f"{n_shared} are in any: use sets with the same kind of gene names, or lower min_size."
        )
    lengths = [len(at) for at in kept.values()]
    return Members(list(kept), np.r_[0, np.cumsum(lengths)], np.concatenate([*kept.values()]).astype(np.int64))


def gsea(
    loadings: pd.DataFrame | AnnData,
    gene_sets: GeneSets,
    *,
    varm_key: str | None = None,
    min_size: int = 5,
    max_size: int = 500,
    n_permutations: int = 1000,
    weight: float = 1.0,
    seed: int = 0,
) -> pd.DataFrame:
    """Preranked gene set enrichment of every factor.

    Parameters
    ----------
    loadings
        Genes x factors, by which genes are ranked from high to low; or an AnnData, with `varm_key`. Of any method.
    gene_sets
        A GMT file or several, or a dict from names to genes.
    varm_key
        Key of genes x factors in an AnnData's varm.
    min_size, max_size
        Sets with fewer or more genes among those of the loadings are left out.
    n_permutations
        Random sets of each size.
    weight
        Exponent of |loading|: 0 counts ranks only.
    seed
        Of the random sets, and of the order of genes with equal loadings.

    Returns
    -------
    DataFrame, one row for each factor and set, each factor's most extreme first: factor, term, size (genes at hand),
    es, nes, p_value, q_value (see the top of this file), leading_edge (its genes up to the peak, from the end of the
    list inwards, joined by ";"). Where no random set of the size has a score of that sign, as at the low end of
    positive loadings, nes is NaN and p and q are 1.

    Raises
    ------
    DataError
        If no set fits, or the loadings cannot be ranked.
    SettingError
        If an argument has no meaning.
    """
    from lucidcell.maths.enrichment_kernels import scores_of_sets

    table = table_of(loadings, varm_key)
    require_whole(n_permutations, "n_permutations", 10)
    if not 0 <= weight < np.inf:
        raise SettingError(f"weight is {weight!r}; it must be a number of at least 0.")
    require_whole(seed, "seed", 0)
    sets = members(gene_sets_of(gene_sets), table.index, min_size, max_size)
    values = table.to_numpy(float).T  # (D, G)
    shuffled = np.random.default_rng(seed).permutation(values.shape[1])  # decides between equal loadings
    order = shuffled[np.argsort(-values[:, shuffled], axis=1, kind="stable")]
    weights = np.take_along_axis(np.abs(values) ** weight, order, axis=1)
    weights[np.ptp(values, axis=1) == 0] = 0  # a factor that ranks nothing has no scores
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(order.shape[1])[None], axis=1)
    sizes, of_set = np.unique(sets.sizes, return_inverse=True)
    drawn = _random_members(order.shape[1], int(sizes[-1]), n_permutations, seed)
    genes, found = np.asarray(table.index.astype(str)), []
    for first in range(0, len(values), FACTORS_AT_A_TIME):
        block = slice(first, first + FACTORS_AT_A_TIME)
        null = _null_scores(drawn, sizes, weights[block])
        for d, of_sizes in zip(range(first, len(values)), null, strict=False):
            positions = _sorted_within(ranks[d][sets.genes], sets.indptr)
            scores, peaks = np.empty(len(sets.names)), np.empty(len(sets.names), np.int64)
            scores_of_sets(sets.indptr, positions, weights[d], scores, peaks)
            nes, p_values, q_values = significance(scores, of_set, of_sizes)
            edges = [
                ";".join(genes[order[d][_edge(positions[start:stop], score, peak)]])
                for start, stop, score, peak in zip(sets.indptr[:-1], sets.indptr[1:], scores, peaks, strict=True)
            ]
            one = pd.DataFrame(
                {
                    "factor": table.columns[d], "term": sets.names, "size": sets.sizes, "es": scores, "nes": nes,
                    "p_value": p_values, "q_value": q_values, "leading_edge": edges,
                }
            )  # fmt: skip
            found.append(one.iloc[np.argsort(-np.abs(nes), kind="stable")])
    return pd.concat(found, ignore_index=True)


def significance(scores: np.ndarray, of_set: np.ndarray, null: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """NES, p and q (S,) of scores (S,), from null scores (sizes, P) of which set s takes row of_set[s]."""
    nes, p_values, q_values = np.zeros(len(scores)), np.ones(len(scores)), np.ones(len(scores))
    n_sets_of_size = np.bincount(of_set, minlength=len(null))
    for sign in (1.0, -1.0):
        ours = np.flatnonzero(sign * scores > 0)
        if not len(ours):
            continue
        of_sign = np.where(sign * null > 0, sign * null, np.nan)  # (sizes, P)
        n_null = np.isfinite(of_sign).sum(1)
        means = np.divide(np.nansum(of_sign, axis=1), n_null, out=np.full(len(null), np.nan), where=n_null > 0)
        nes[ours] = scores[ours] / means[of_set[ours]]
        ours = ours[n_null[of_set[ours]] > 0]  # the others have nothing to be compared with
        if not len(ours):
            continue
        ranked = np.sort(of_sign, axis=1)  # NaN last
        for s in ours:
            row = of_set[s]
            extreme = n_null[row] - np.searchsorted(ranked[row, : n_null[row]], sign * scores[s], side="left")
            p_values[s] = (1 + extreme) / (1 + n_null[row])
        q_values[ours] = _q_values(np.abs(nes[ours]), of_sign / means[:, None], n_sets_of_size)
    return nes, p_values, q_values


def _q_values(observed: np.ndarray, null: np.ndarray, n_sets: np.ndarray) -> np.ndarray:
    """Share of pooled null NES beyond each observed one over the share of observed ones; all of one sign."""
    known = np.isfinite(null)
    values, counts = null[known], np.broadcast_to(n_sets[:, None], null.shape)[known].astype(float)
    order = np.argsort(values)
    values, beyond = values[order], counts[order][::-1].cumsum()[::-1]  # null sets at least as large as each value
    falling = np.argsort(-observed, kind="stable")
    at = np.searchsorted(values, observed[falling], side="left")
    share_of_null = (1 + np.append(beyond, 0.0)[at]) / (1 + beyond[0])
    ratio = share_of_null / (np.arange(1, len(observed) + 1) / len(observed))
    q_values = np.empty(len(observed))
    q_values[falling] = np.minimum.accumulate(np.minimum(ratio, 1.0)[::-1])[::-1]
    return q_values


def _random_members(n_genes: int, largest: int, n: int, seed: int) -> np.ndarray:
    """Different positions in each row, (n, largest)."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.choice(n_genes, largest, replace=False) for _ in range(n)]).astype(np.int64)


def _null_scores(drawn: np.ndarray, sizes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(D, sizes, P), the draws shared out between threads."""
    from joblib import Parallel, cpu_count, delayed

    from lucidcell.maths.enrichment_kernels import scores_of_random_sets

    parts = np.array_split(drawn, min(cpu_count(), len(drawn)))
    found = [np.empty((len(weights), len(sizes), len(part))) for part in parts]
    Parallel(n_jobs=len(parts), require="sharedmem")(
        delayed(scores_of_random_sets)(part, sizes, weights, out) for part, out in zip(parts, found, strict=True)
    )
    return np.concatenate(found, axis=2)


def _sorted_within(positions: np.ndarray, indptr: np.ndarray) -> np.ndarray:
    """Positions in ascending order within each set."""
    of_set = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    return positions[np.lexsort((positions, of_set))]


def _edge(positions: np.ndarray, score: float, peak: np.integer) -> np.ndarray:
    """Members up to the peak, from the end of the list inwards."""
    return positions[: peak + 1] if score > 0 else positions[peak:][::-1] if score < 0 else positions[:0]


def over_representation(
    top: pd.DataFrame | Mapping[Any, Sequence[str]],
    gene_sets: GeneSets,
    background: Sequence[str] | pd.Index,
    *,
    min_size: int = 5,
    max_size: int = 500,
) -> pd.DataFrame:
    """Hypergeometric test of every set among the top genes of every factor.

    Parameters
    ----------
    top
        A table of `top_genes`, whose two ends are tested apart, or a dict from factors to genes.
    gene_sets
        A GMT file or several, or a dict from names to genes.
    background
        All genes of the model. Of these and of the top genes, only those that are in any of the sets count, whatever
        its size.
    min_size, max_size
        Sets with fewer or more genes in the background are not tested.

    Returns
    -------
    DataFrame, one row for each factor, end and set, smallest p first: factor, sign ("+" or "-"; "" for a dict), term,
    overlap, n_top (top genes in any set), size (genes of the set in the background), n_background, fold (overlap over
    what chance expects), p_value (P(at least this overlap)), q_value (Benjamini-Hochberg within factor and end), genes
    (joined by ";").

    Raises
    ------
    DataError
        If no set fits, there is no top gene, or one is not in the background.
    """
    from scipy.stats import false_discovery_control, hypergeom

    wanted = _wanted(top)
    universe = pd.Index(pd.unique(pd.Index(background).astype(str)))
    collection = gene_sets_of(gene_sets)
    sets = members(collection, universe, min_size, max_size)
    strangers = sorted({gene for genes in wanted.values() for gene in genes} - set(universe))
    if strangers or not any(wanted.values()):
        raise DataError(
            f"{len(strangers)} of the top genes are not in the background, such as {strangers[:3]}, and "
            f"{sum(map(len, wanted.values())) - len(strangers)} are: pass all genes of the model that they are from."
        )
    in_any = universe.isin([gene for genes in collection.values() for gene in genes])
    of_set = np.repeat(np.arange(len(sets.names)), sets.sizes)
    n_background, found = int(in_any.sum()), []
    for (factor, sign), genes in wanted.items():
        chosen = universe.isin(genes) & in_any
        hits, n_top = chosen[sets.genes], int(chosen.sum())
        overlap = np.bincount(of_set, weights=hits, minlength=len(sets.names)).astype(int)
        p_values = hypergeom.sf(overlap - 1, n_background, sets.sizes, n_top)
        shared = [
            ";".join(universe[sets.genes[start:stop][hits[start:stop]]])
            for start, stop in zip(sets.indptr[:-1], sets.indptr[1:], strict=True)
        ]
        one: dict[str, Any] = {
            "factor": factor, "sign": sign, "term": sets.names, "overlap": overlap, "n_top": n_top, "size": sets.sizes,
            "n_background": n_background, "fold": overlap * n_background / np.maximum(sets.sizes * max(n_top, 1), 1),
            "p_value": p_values, "q_value": false_discovery_control(np.clip(p_values, 0, 1)), "genes": shared,
        }  # fmt: skip
        found.append(pd.DataFrame(one).iloc[np.argsort(p_values, kind="stable")])
    return pd.concat(found, ignore_index=True)


def _wanted(top: pd.DataFrame | Mapping[Any, Sequence[str]]) -> dict[tuple[Any, str], list[str]]:
    """Top genes of each factor and end."""
    if not isinstance(top, pd.DataFrame):
        return {(factor, ""): list(map(str, genes)) for factor, genes in top.items()}
    missing = [column for column in ("factor", "sign", "gene") if column not in top]
    if missing:
        raise DataError(f"the table of top genes lacks {', '.join(missing)}: pass the result of top_genes().")
    return {key: list(rows["gene"].astype(str)) for key, rows in top.groupby(["factor", "sign"], sort=False)}
