"""What the ten measures of `interpretability.py` are made of: one function for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import ArrayLike

from lucidcell.cells.gene_sets import GeneSets, gene_sets_of
from lucidcell.errors import DataError, SettingError
from lucidcell.metrics.checks import groups
from lucidcell.readouts.arguments import require_whole
from lucidcell.readouts.enrichment import gsea, table_of

N_TOP = 10
MAX_Q = 0.01
MISSING = ("zero", "minus_one", "skip")
DIVERSITIES = ("unique", "exclusive")
BACKGROUNDS = ("model", "gene_sets")
TESTED = ("all", "overlapping")
GSEA_RANKINGS = ("zscore", "scores")


def best_genes(scores: pd.DataFrame, n: int = N_TOP) -> dict[str, list[str]]:
    """The `n` genes with the highest scores of each topic, best first; equal ones in the order of the table.

    Raises
    ------
    DataError
        If the table has fewer genes, or cannot be ranked.
    """
    table = topic_table(scores)
    require_whole(n, "n", 2)
    if n > len(table):
        raise DataError(f"n={n} best genes are wanted and there are {len(table)} genes: choose fewer.")
    order = np.argsort(-table.to_numpy(float), axis=0, kind="stable")[:n]
    genes = np.asarray(table.index)
    return {topic: list(genes[order[:, k]]) for k, topic in enumerate(table.columns)}


def topic_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Genes x topics, checked, both with names that are text."""
    return table_of(scores, None).rename(index=str, columns=str)


def topic_coherence(
    top: Mapping[str, Sequence[str]], corpus: GeneSets, *, missing_pair: str = "zero", smoothing: float = 0.0
) -> pd.DataFrame:
    """NPMI of the pairs of each topic's genes in a corpus of gene sets.

    Parameters
    ----------
    top
        Best genes of each topic.
    corpus
        Gene sets: a GMT file or several, or a dict from names to genes.
    missing_pair
        What a pair counts that no set holds both of: "zero" (the published code; it stays in the number of pairs),
        "minus_one" (the limit of NPMI), or "skip". Genes that no set holds count zero for "zero" and "minus_one".
    smoothing
        Added to all probabilities before the logarithm.

    Returns
    -------
    DataFrame with one row for each topic: topic, coherence (NaN where all pairs are skipped), known_genes (share of its
    genes that any set holds), known_pairs (share of its pairs that any set holds).

    Raises
    ------
    DataError
        If a topic has fewer than two genes, or there is no gene set.
    SettingError
        If an argument has no meaning.
    """
    if missing_pair not in MISSING:
        raise SettingError(f"missing_pair is {missing_pair!r}; it must be one of {', '.join(MISSING)}.")
    if not 0 <= smoothing < 1:
        raise SettingError(f"smoothing is {smoothing!r}; it must be at least 0 and below 1.")
    short = [topic for topic, genes in top.items() if len(set(genes)) < 2]
    if short or not top:
        raise DataError(f"{len(short)} of {len(top)} topics have fewer than 2 genes: give each its best genes.")
    sets = gene_sets_of(corpus)
    place = {gene: i for i, gene in enumerate(dict.fromkeys(gene for genes in top.values() for gene in genes))}
    holds = _membership(sets, place)
    together = (holds.T @ holds).toarray() / len(sets)  # p_ij, and p_i on the diagonal
    rows = []
    for topic, genes in top.items():
        at = np.array([place[gene] for gene in dict.fromkeys(genes)])
        i, j = np.triu_indices(len(at), 1)
        joint, single = together[np.ix_(at, at)], np.diag(together)[at]
        values, seen = npmi(joint[i, j], single[i], single[j], missing_pair, smoothing)
        rows.append((topic, values.mean() if len(values) else np.nan, (single > 0).mean(), seen.mean()))
    return pd.DataFrame(rows, columns=["topic", "coherence", "known_genes", "known_pairs"])


def npmi(
    joint: np.ndarray, one: np.ndarray, other: np.ndarray, missing_pair: str = "zero", smoothing: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """NPMI of pairs, those left out where they are to be skipped; and which pairs occur together.

    A pair that all sets hold has NPMI 1, its limit.
    """
    seen = joint > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log((joint + smoothing) / ((one + smoothing) * (other + smoothing)))
        values = np.where(joint + smoothing >= 1, 1.0, ratio / -np.log(joint + smoothing))
    if smoothing > 0:
        return values, seen
    if missing_pair == "skip":
        return values[seen], seen
    unknown = (one == 0) | (other == 0)
    absent = np.where(unknown | (missing_pair == "zero"), 0.0, -1.0)
    return np.where(seen, values, absent), seen


def topic_diversity(top: Mapping[str, Sequence[str]], *, kind: str = "unique") -> float:
    """Share of the topics' best genes that differ.

    Parameters
    ----------
    top
        Best genes of each topic.
    kind
        "unique": different genes over all, from 1 / K for equal topics to 1; "exclusive": genes of one topic only over
        all (the published code).

    Raises
    ------
    DataError
        If there are no genes.
    SettingError
        If the kind is unknown.
    """
    if kind not in DIVERSITIES:
        raise SettingError(f"kind is {kind!r}; it must be one of {', '.join(DIVERSITIES)}.")
    counts = Counter(gene for genes in top.values() for gene in genes)
    if not counts:
        raise DataError("there are no best genes: pass some for each topic.")
    found = len(counts) if kind == "unique" else sum(count == 1 for count in counts.values())
    return found / sum(counts.values())


def topic_purity(shares: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Purity of the cells' largest topics, and what does not rise with their number.

    Parameters
    ----------
    shares
        Cells x topics.
    labels
        Of the cells, (n,); those without one are left out.

    Returns
    -------
    dict
        IP, IP_ami (adjusted mutual information), IP_homogeneity, used_topics (that are the largest of any cell).
    """
    from sklearn.metrics import adjusted_mutual_info_score, homogeneity_score

    values = np.asarray(shares, float)
    known = ~pd.isna(np.asarray(labels, dtype=object))
    names = groups(np.asarray(labels, dtype=object)[known], "the labels")
    if values.ndim != 2 or len(values) != len(known):
        raise DataError(f"the shares have shape {values.shape} for {len(known)} labels: pass cells x topics.")
    if not np.isfinite(values).all():
        n_bad = int((~np.isfinite(values)).sum())
        raise DataError(f"the shares hold {n_bad} NaN or infinite values: pass a number for each cell and topic.")
    largest = values[known].argmax(1)
    table = sp.coo_matrix((np.ones(len(largest)), (largest, names.codes))).toarray()
    return {
        "IP": float(table.max(1).sum() / table.sum()),
        "IP_ami": float(adjusted_mutual_info_score(names.codes, largest)),
        "IP_homogeneity": float(homogeneity_score(names.codes, largest)),
        "used_topics": float(len(np.unique(largest))),
    }


def ora_pairs(
    top: Mapping[str, Sequence[str]],
    genes: Sequence[str],
    gene_sets: GeneSets,
    *,
    background: str = "model",
    tested: str = "all",
    pool: bool = False,
    max_q: float = MAX_Q,
) -> pd.DataFrame:
    """Gene sets that the best genes of the topics are over-represented in: topic, term, p_value, q_value.

    Parameters
    ----------
    top, genes
        Best genes of each topic, and all genes of the model.
    gene_sets
        A GMT file or several, or a dict from names to genes.
    background
        "model": genes of the model that are in any set; "gene_sets": all genes of the sets (the published code).
    tested
        Sets that Benjamini-Hochberg counts: "all" with a gene in the background, or those "overlapping" the best genes
        (the published code).
    pool
        Benjamini-Hochberg over all topics together, and not within each.
    max_q
        Largest q-value.

    Raises
    ------
    DataError
        If no gene is in any set.
    SettingError
        If an argument has no meaning.
    """
    from scipy.stats import false_discovery_control, hypergeom

    for name, value, allowed in (("background", background, BACKGROUNDS), ("tested", tested, TESTED)):
        if value not in allowed:
            raise SettingError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}.")
    sets = gene_sets_of(gene_sets)
    in_any = {gene for of_set in sets.values() for gene in of_set}
    universe = in_any if background == "gene_sets" else in_any & set(map(str, genes))
    if not universe:
        raise DataError(
            f"none of the {len(list(genes))} genes is in any of {len(sets)} gene sets, whose genes are named like "
            f"{sorted(in_any)[0]!r}: use sets with the same kind of names."
        )
    place = {gene: i for i, gene in enumerate(sorted(universe))}
    holds = _membership(sets, place)
    sizes = np.asarray(holds.sum(1)).ravel().astype(int)
    chosen = [[place[gene] for gene in dict.fromkeys(of_topic) if gene in place] for of_topic in top.values()]
    of_topic = np.repeat(np.arange(len(chosen)), [len(one) for one in chosen])
    picked = sp.csc_matrix((np.ones(len(of_topic)), (np.concatenate([*chosen, []]).astype(int), of_topic)),
                           (len(place), len(chosen)))  # fmt: skip
    overlap = (holds @ picked).toarray().astype(int)  # sets x topics
    n_top = np.array([len(one) for one in chosen])
    p_values = np.ones(overlap.shape)
    hit = overlap > 0
    rows, columns = np.nonzero(hit)
    p_values[hit] = hypergeom.sf(overlap[hit] - 1, len(place), sizes[rows], n_top[columns])
    counted = (sizes > 0)[:, None] & (hit if tested == "overlapping" else np.ones_like(hit))
    q_values = np.ones(overlap.shape)
    for where in [counted] if pool else [counted & (np.arange(len(chosen)) == k) for k in range(len(chosen))]:
        if where.any():
            q_values[where] = false_discovery_control(np.clip(p_values[where], 0, 1))
    at = np.nonzero((q_values <= max_q) & hit)
    names, topics = np.array(list(sets), object), np.array(list(top), object)
    found = {"topic": topics[at[1]], "term": names[at[0]], "p_value": p_values[at], "q_value": q_values[at]}
    return pd.DataFrame(found).sort_values(["topic", "p_value"], kind="stable", ignore_index=True)


def gsea_pairs(
    scores: pd.DataFrame,
    gene_sets: GeneSets,
    *,
    ranking: str = "zscore",
    positive_only: bool = True,
    min_size: int = 15,
    max_size: int = 500,
    n_permutations: int = 1000,
    max_q: float = MAX_Q,
    seed: int = 0,
) -> pd.DataFrame:
    """Gene sets that the genes of the topics are enriched in: topic, term, nes, q_value.

    Parameters
    ----------
    scores
        Genes x topics.
    gene_sets
        A GMT file or several, or a dict from names to genes.
    ranking
        "zscore": a gene's score against its scores of all topics; "scores": as they are (the published code).
    positive_only
        Leave out sets at the low end of the ranking.
    min_size, max_size, n_permutations, seed
        As in `lucidcell.gsea`.
    max_q
        Largest q-value.

    Raises
    ------
    DataError
        If no set fits, or the scores cannot be ranked.
    SettingError
        If an argument has no meaning.
    """
    if ranking not in GSEA_RANKINGS:
        raise SettingError(f"ranking is {ranking!r}; it must be one of {', '.join(GSEA_RANKINGS)}.")
    table = topic_table(scores)
    if ranking == "zscore":
        spread = table.std(axis=1, ddof=0)
        table = table.sub(table.mean(axis=1), axis=0).div(spread.where(spread > 0, 1), axis=0)
    found = gsea(
        table, gene_sets, min_size=min_size, max_size=max_size, n_permutations=n_permutations, seed=seed
    ).rename(columns={"factor": "topic"})  # fmt: skip
    kept = found[(found["q_value"] <= max_q) & ((found["nes"] > 0) | (not positive_only))]
    return kept[["topic", "term", "nes", "q_value"]].reset_index(drop=True)


def number_unique_quality(pairs: pd.DataFrame) -> tuple[int, float, float]:
    """N: different terms; U: the same over all pairs, NaN where there is none; Q: N x U, 0 where there is none."""
    n = int(pairs["term"].nunique())
    if not len(pairs):
        return 0, np.nan, 0.0
    return n, n / len(pairs), n * n / len(pairs)


def _membership(sets: Mapping[str, Sequence[str]], place: Mapping[str, int]) -> sp.csr_matrix:
    """Sets x genes of `place`, ones where a set holds the gene."""
    indices = [[place[gene] for gene in genes if gene in place] for genes in sets.values()]
    indptr = np.cumsum([0, *map(len, indices)])
    columns = np.fromiter((i for of_set in indices for i in of_set), np.int64, int(indptr[-1]))
    return sp.csr_matrix((np.ones(len(columns)), columns, indptr), (len(sets), len(place)))
