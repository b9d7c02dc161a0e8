"""Ten measures of how readable topics are, for any cells x topics with genes x topics.

With the h best genes of each of K topics (h = 10), and gene sets as the texts of a corpus:

    TC   coherence: mean over topics and pairs of their best genes of NPMI = log[p_ij / (p_i p_j)] / -log p_ij, where
         p_i is the share of the sets that hold gene i, and p_ij that of those that hold both
    TD   diversity: different genes among the K h best, over K h
    TQ   quality: TC x TD
    IP   purity: share of the cells whose label is the most frequent one among the cells of the same largest topic
    ORA_N, ORA_U, ORA_Q     different sets that the best genes of any topic are over-represented in; the same over all
                            (set, topic) pairs; their product
    GSEA_N, GSEA_U, GSEA_Q  the same for preranked enrichment of all genes

Purity rises with the number of topics that are in use: `used_topics`, and adjusted mutual information and homogeneity
of the same two partitions, stand beside it. Every choice that the paper and its code leave open is an argument; their
defaults are ours, and docs/interpretability.md says which reproduce the published ones.

Reference: Chen et al., scE2TM, eqs. 1 to 8; Bouma (2009) for NPMI.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from lucidcell.cells.gene_sets import GeneSets, gene_sets_of
from lucidcell.metrics.topic_measures import (
    MAX_Q,
    N_TOP,
    best_genes,
    gsea_pairs,
    number_unique_quality,
    ora_pairs,
    topic_coherence,
    topic_diversity,
    topic_purity,
    topic_table,
)

logger = logging.getLogger("lucidcell")


class Interpretability(NamedTuple):
    """The ten measures, and what they are made of."""

    summary: pd.Series  # TC, TD, TQ, IP, ORA_N ..., and the numbers beside them
    topics: pd.DataFrame  # a row for each topic


@dataclass(frozen=True)
class Conventions:
    """What the ten measures leave open; the defaults are ours, `PUBLISHED` those of the published code."""

    n_top: int = N_TOP  # best genes of a topic, h
    missing_pair: str = "zero"  # see `topic_coherence`
    smoothing: float = 0.0
    diversity: str = "unique"  # see `topic_diversity`
    background: str = "model"  # see `ora_pairs`
    tested: str = "all"
    pool: bool = False
    gsea_ranking: str = "zscore"  # see `gsea_pairs`
    positive_only: bool = True
    min_size: int = 15
    max_size: int = 500
    max_q: float = MAX_Q  # of ORA and GSEA


PUBLISHED = Conventions(
    diversity="exclusive", background="gene_sets", tested="overlapping", gsea_ranking="scores", positive_only=False
)


def interpretability(
    shares: pd.DataFrame | np.ndarray | None,
    scores: pd.DataFrame,
    *,
    labels: ArrayLike | None = None,
    gene_sets: GeneSets | None = None,
    corpus: GeneSets | None = None,
    conventions: Conventions | None = None,
    n_permutations: int = 1000,
    seed: int = 0,
) -> Interpretability:
    """The ten measures of one model.

    Parameters
    ----------
    shares
        Cells x topics, for IP; None to leave it out.
    scores
        Genes x topics, by which genes are ranked.
    labels
        Of the cells, for IP.
    gene_sets
        For ORA and GSEA; None to leave them out.
    corpus
        For TC; `gene_sets` for None.
    conventions
        Number of best genes, and how each measure is counted; None for our defaults, `PUBLISHED` for the paper's code.
    n_permutations, seed
        Of GSEA; 0 permutations leave it out.

    Returns
    -------
    Interpretability
        `summary`, and `topics` with a row for each topic: topic, genes (joined by ";"), coherence, known_genes,
        known_pairs, ora_terms, gsea_terms. Where no gene set has a size that GSEA takes, nothing is enriched.

    Raises
    ------
    DataError
        If a table or the gene sets cannot be used.
    SettingError
        If an argument has no meaning.
    """
    by = Conventions() if conventions is None else conventions
    table = topic_table(scores)
    top = best_genes(table, by.n_top)
    topics = pd.DataFrame({"topic": list(top), "genes": [";".join(genes) for genes in top.values()]})
    summary: dict[str, float] = {"TC": np.nan, "TD": topic_diversity(top, kind=by.diversity), "TQ": np.nan}
    texts = gene_sets if corpus is None else corpus
    if texts is not None:
        coherence = topic_coherence(top, texts, missing_pair=by.missing_pair, smoothing=by.smoothing)
        topics = topics.merge(coherence, on="topic", sort=False)
        summary["TC"] = float(coherence["coherence"].mean())
        summary["TQ"] = summary["TC"] * summary["TD"]
        summary["known_genes"] = float(coherence["known_genes"].mean())
    if shares is not None and labels is not None:
        summary |= topic_purity(shares, labels)
    if gene_sets is not None:
        sets = gene_sets_of(gene_sets)
        pairs = ora_pairs(
            top, list(table.index), sets, background=by.background, tested=by.tested, pool=by.pool, max_q=by.max_q
        )
        topics["ora_terms"] = _terms_of(topics["topic"], pairs)
        summary |= dict(zip(("ORA_N", "ORA_U", "ORA_Q"), number_unique_quality(pairs), strict=True))
        if n_permutations:
            pairs = _enriched(table, sets, by, n_permutations, seed)
            topics["gsea_terms"] = _terms_of(topics["topic"], pairs)
            summary |= dict(zip(("GSEA_N", "GSEA_U", "GSEA_Q"), number_unique_quality(pairs), strict=True))
    return Interpretability(pd.Series(summary, dtype=float), topics)


def _terms_of(topics: pd.Series, pairs: pd.DataFrame) -> pd.Series:
    return topics.map(pairs["topic"].value_counts()).fillna(0).astype(int)


def _enriched(
    table: pd.DataFrame, sets: Mapping[str, Sequence[str]], by: Conventions, n_permutations: int, seed: int
) -> pd.DataFrame:
    """`gsea_pairs`, none where no set has a size that is wanted."""
    genes = set(table.index)
    sizes = [len(genes & set(of_set)) for of_set in sets.values()]
    if not any(by.min_size <= size <= by.max_size for size in sizes):
        logger.warning(
            "none of %d gene sets has %d to %d of the genes (the largest has %d), so GSEA finds nothing: lower "
            "min_size of the conventions, or pass other sets.", len(sizes), by.min_size, by.max_size, max(sizes),
        )  # fmt: skip
        return pd.DataFrame({"topic": [], "term": [], "nes": [], "q_value": []})
    return gsea_pairs(
        table, sets, ranking=by.gsea_ranking, positive_only=by.positive_only, min_size=by.min_size,
        max_size=by.max_size, n_permutations=n_permutations, max_q=by.max_q, seed=seed,
    )  # fmt: skip
