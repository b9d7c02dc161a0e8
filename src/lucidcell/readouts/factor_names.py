"""A short name for each end of each factor, with the evidence it rests on."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lucidcell.errors import DataError, SettingError
from lucidcell.readouts.top_genes import top_genes

COLLECTIONS = (
    "HALLMARK", "REACTOME", "KEGG_MEDICUS_REFERENCE", "KEGG_MEDICUS", "KEGG", "WP", "BIOCARTA", "PID", "SA", "SIG",
    "NABA", "GOBP", "GOCC", "GOMF", "HP",
)  # fmt: skip
NEEDED = ("factor", "term", "nes", "q_value", "leading_edge")
MAX_Q = 0.05  # of a gene set that gives its name
LEAST_LEADING = 3  # genes that a name needs in its leading edge


def name_factors(
    loadings: pd.DataFrame, enrichment: pd.DataFrame, *, max_q: float = MAX_Q, n_genes: int = 3, prefer: str = "nes"
) -> pd.DataFrame:
    """Name both ends of every factor by their best gene set, and by their top genes.

    Two factors may share a gene set; the genes in the name then tell them apart. An end without a significant set is
    named by its genes alone.

    Parameters
    ----------
    loadings
        Genes x factors that were ranked, as given to `gsea`.
    enrichment
        What `gsea` found.
    max_q
        Largest q-value of a set that gives its name.
    n_genes
        Top genes in the name.
    prefer
        Which significant set is best: the one with the largest "nes", or with the smallest "q_value" first.

    Returns
    -------
    DataFrame with a row for each factor and end: factor, sign, name, term (empty without), nes, q_value, size,
    leading_edge (its first ten genes), top_genes.

    Raises
    ------
    DataError
        If the tables do not belong together.
    SettingError
        If an argument has no meaning.
    """
    missing = [column for column in NEEDED if column not in enrichment]
    unknown = set(enrichment["factor"]) - set(loadings.columns) if not missing else set()
    if missing or unknown:
        wrong = f"lacks {', '.join(missing)}" if missing else f"names the factors {sorted(map(str, unknown))[:3]}"
        raise DataError(f"the enrichment table {wrong}: pass the result of gsea() on these loadings.")
    if prefer not in ("nes", "q_value"):
        raise SettingError(f"prefer is {prefer!r}; it must be 'nes' or 'q_value'.")
    check_max_q(max_q)
    edges = enrichment["leading_edge"].fillna("").astype(str)
    enrichment = enrichment.assign(leading_edge=edges)
    rows = []
    for factor in loadings.columns:
        of_factor = enrichment[enrichment["factor"] == factor]
        for sign in ("+", "-"):
            direction = 1 if sign == "+" else -1
            genes = list(top_genes(loadings[[factor]], n_genes, sign="positive" if sign == "+" else "negative")["gene"])
            candidates = of_factor[(direction * of_factor["nes"] > 0) & (of_factor["q_value"] <= max_q)]
            candidates = candidates[candidates["leading_edge"].str.count(";") + 1 >= LEAST_LEADING]
            by = [-candidates["nes"].abs()] if prefer == "nes" else [candidates["q_value"], -candidates["nes"].abs()]
            best = candidates.iloc[np.lexsort(by[::-1])[:1]]
            row = {"factor": factor, "sign": sign, "name": ", ".join(genes) or "no genes", "term": "", "nes": np.nan,
                   "q_value": np.nan, "size": 0, "leading_edge": "", "top_genes": ";".join(genes)}  # fmt: skip
            for one in best.to_dict("records"):
                row |= {
                    "name": f"{short_term(one['term'])} ({', '.join(genes)})" if genes else short_term(one["term"]),
                    "term": one["term"],
                    "nes": one["nes"],
                    "q_value": one["q_value"],
                    "size": one["size"],
                    "leading_edge": ";".join(one["leading_edge"].split(";")[:10]),
                }
            rows.append(row)
    return pd.DataFrame(rows)


def check_max_q(max_q: float) -> None:
    """Refuse what is no q-value."""
    if isinstance(max_q, bool) or not isinstance(max_q, int | float) or not 0 < max_q <= 1:
        raise SettingError(f"max_q is {max_q!r}; it must be above 0 and at most 1.")


def short_term(term: str) -> str:
    """A gene set's name without its collection, in lower-case words: "HALLMARK_APOPTOSIS" is "apoptosis"."""
    for collection in COLLECTIONS:
        if term.startswith(f"{collection}_"):
            term = term.removeprefix(f"{collection}_")
            break
    return term.replace("_", " ").lower() if term.isupper() else term.replace("_", " ")
