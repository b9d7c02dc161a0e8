"""Networks of populations, and what they have to do with a phenotype: the result of `population_networks`.

The population is the unit of every test. A network that goes with a phenotype may only reflect that genes are switched
off, so every association of centrality stands beside the same test of mean expression.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp

from lucidcell.cells.covariates import some
from lucidcell.errors import DataError, SettingError
from lucidcell.readouts.arguments import require_whole
from lucidcell.readouts.population_tests import (
    SIGNIFICANT,
    Method,
    Phenotype,
    as_phenotype,
    q_values,
    rank_test,
    separation,
    series_of,
    what_can_be_found,
)

if TYPE_CHECKING:
    import networkx as nx

    from lucidcell.cells.gene_sets import GeneSets


class EdgesOfSet(NamedTuple):
    """Edges of a gene set in every population."""

    counts: (
        pd.DataFrame
    )  # per population: phenotype, within (edges between members), outside (from a member to another)
    association: pd.DataFrame  # of both with the phenotype: edges, statistic, effect, p_value


@dataclass(frozen=True)
class PopulationNetworks:
    """Networks of every population, and their tests."""

    bins: pd.DataFrame  # population, bin, n_cells, mean_centrality (over genes: near 0 where the fit found nothing)
    dropped: pd.DataFrame  # population, n_cells: those with fewer cells than a bin
    centrality: pd.DataFrame  # genes x populations, mean over bins
    mean_expression: pd.DataFrame  # genes x populations; attrs["unit"]
    genes: pd.Index  # nodes of the networks
    networks: dict[str, list[sp.csr_matrix]]  # per population and bin: adjacency over `genes`
    kernel: pd.DataFrame  # populations x populations: similarity of networks, 0 to 1
    embedding: pd.DataFrame  # populations x (PC1, PC2) of the similarities; attrs["share"] of variance
    phenotype: pd.Series | None  # by population
    depth: pd.Series | None = None  # counts per cell, by population; NaN of values that are no counts

    def associate(
        self, phenotype: Mapping[Any, Any] | pd.Series | None = None, method: Method = "auto"
    ) -> pd.DataFrame:
        """Genes whose degree centrality goes with the phenotype over populations.

        Parameters
        ----------
        phenotype
            Value of each population; that of `population_networks` by default. Populations without one are left out.
        method
            "spearman" for numbers, "wilcoxon" (rank sum) for two groups, "auto" by what the phenotype holds.

        Returns
        -------
        DataFrame, smallest p first: gene, statistic ("spearman", or "rank_biserial" of the second group), effect (its
        value, -1 to 1), p_value, q_value (Benjamini-Hochberg), mean_effect, mean_p_value, mean_q_value (the same of
        mean expression), independent (q_value at most 0.05, mean_q_value not, and counts per cell do not go with the
        phenotype: an absence of evidence). attrs holds groups, left_out, smallest_p (what so many populations can give
        at all), can_be_significant (whether that is enough for one gene among so many), depth_effect and depth_p_value
        (counts per cell against the phenotype) and note, sentences that say so.
        """
        chosen = self._phenotype(phenotype, method)
        effects, p_values = rank_test(self.centrality[chosen.populations].to_numpy(), chosen)
        of_mean = self.mean_expression.loc[self.centrality.index, chosen.populations]
        mean_effects, mean_p_values = rank_test(of_mean.to_numpy(), chosen)
        table = pd.DataFrame(
            {
                "gene": self.centrality.index, "statistic": _statistic(chosen), "effect": effects, "p_value": p_values,
                "q_value": q_values(p_values), "mean_effect": mean_effects, "mean_p_value": mean_p_values,
                "mean_q_value": q_values(mean_p_values),
            }
        )  # fmt: skip
        depth_effect, depth_p = self._depth_test(chosen)
        alone = not depth_p <= SIGNIFICANT
        table["independent"] = (table["q_value"] <= SIGNIFICANT) & ~(table["mean_q_value"] <= SIGNIFICANT) & alone
        ranked = _ranked(table, chosen)
        ranked.attrs |= {"depth_effect": depth_effect, "depth_p_value": depth_p}
        if not alone:
            ranked.attrs["note"] += (
                f" Counts per cell go with the phenotype (effect {depth_effect:.2f}, p = {depth_p:.2g}), and with them "
                "centrality: thin the counts to a common depth first."
            )
        return ranked

    def separation(
        self, phenotype: Mapping[Any, Any] | pd.Series | None = None, *, n_permutations: int = 999, seed: int = 0
    ) -> pd.Series:
        """Permutation test of whether networks, by 1 - kernel, are less alike between populations that differ.

        Returns
        -------
        Series: test, statistic, p_value (one-sided), n_permutations, exact, n_populations. For two groups the mean
        distance between minus that within groups; for numbers the Mantel correlation with the difference of ranks.
        """
        require_whole(n_permutations, "n_permutations", 19)
        require_whole(seed, "seed", 0)
        chosen = self._phenotype(phenotype, "auto")
        distance = 1 - self.kernel.loc[chosen.populations, chosen.populations].to_numpy()
        return separation(distance, chosen, n_permutations, seed)

    def enrichment(
        self,
        gene_sets: GeneSets,
        *,
        phenotype: Mapping[Any, Any] | pd.Series | None = None,
        min_size: int = 5,
        max_size: int = 500,
        n_permutations: int = 1000,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Preranked GSEA of the effects of `associate`; see `lucidcell.gsea`, whose table it gives.

        Its null draws random genes, not populations: it says which sets stand out, not that any gene does.
        """
        from lucidcell.readouts.enrichment import gsea

        effects = self.associate(phenotype).dropna(subset="effect").set_index("gene")[["effect"]]
        options: dict[str, Any] = {"min_size": min_size, "max_size": max_size, "n_permutations": n_permutations}
        return gsea(effects.rename(columns={"effect": "centrality"}), gene_sets, seed=seed, **options)

    def edges(
        self, phenotype: Mapping[Any, Any] | pd.Series | None = None, *, min_fraction: float = 0.2
    ) -> pd.DataFrame:
        """Pairs of genes whose edge, as the fraction of a population's bins that have it, goes with the phenotype.

        Only pairs that are an edge in at least one bin of `min_fraction` of the populations are tested.

        Returns
        -------
        DataFrame, smallest p first: gene1, gene2, fraction (of populations with the edge), statistic, effect, p_value,
        q_value; attrs as those of `associate`.
        """
        if not isinstance(min_fraction, float | int) or not 0 < min_fraction <= 1:
            raise SettingError(f"min_fraction is {min_fraction!r}; it must be above 0 and at most 1.")
        chosen = self._phenotype(phenotype, "auto")
        presence = [self._presence(name) for name in chosen.populations]
        fraction = sp.triu(sum((one > 0).astype(float) for one in presence) / len(presence), 1).tocoo()
        kept = fraction.data >= min_fraction - 1e-9
        first, second = fraction.row[kept], fraction.col[kept]
        values = np.stack([np.asarray(one[first, second]).ravel() for one in presence], axis=1)
        effects, p_values = rank_test(values, chosen)
        table = pd.DataFrame(
            {
                "gene1": self.genes[first], "gene2": self.genes[second], "fraction": fraction.data[kept],
                "statistic": _statistic(chosen), "effect": effects, "p_value": p_values, "q_value": q_values(p_values),
            }
        )  # fmt: skip
        return _ranked(table, chosen)

    def edges_of_set(self, genes: Sequence[str], phenotype: Mapping[Any, Any] | pd.Series | None = None) -> EdgesOfSet:
        """Edges within a set of genes, and from it to other genes: a population's mean over bins.

        Without any phenotype the table of associations is empty.
        """
        inside = self.genes.isin([genes] if isinstance(genes, str) else list(genes)).astype(float)
        if not inside.any():
            raise DataError(
                f"none of the genes, {some(list(genes))}, is among the {len(self.genes)} of the networks: raise "
                "n_top_genes."
            )
        counts = {}
        for name in self.networks:
            degree = self._presence(name) @ inside  # neighbours in the set
            counts[name] = inside @ degree / 2, (1 - inside) @ degree
        table = pd.DataFrame.from_dict(counts, orient="index", columns=["within", "outside"]).rename_axis("population")
        if phenotype is None and self.phenotype is None:
            return EdgesOfSet(table, pd.DataFrame(columns=["edges", "statistic", "effect", "p_value"]))
        chosen = self._phenotype(phenotype, "auto")
        effects, p_values = rank_test(table.loc[chosen.populations].to_numpy().T, chosen)
        found = pd.DataFrame({"edges": table.columns, "statistic": _statistic(chosen), "effect": effects})
        found["p_value"] = p_values
        found.attrs = what_can_be_found(chosen, len(found))
        values = self.phenotype if phenotype is None else series_of(phenotype, list(self.networks))
        return EdgesOfSet(table.assign(phenotype=values)[["phenotype", "within", "outside"]], found)

    def graph(self, population: str | Sequence[str], *, min_fraction: float = 0.0) -> nx.Graph:
        """The network of a population, or of several together, for networkx.

        The weight of an edge is the fraction of bins that have it, averaged over the populations; edges below
        `min_fraction` are left out. The centrality of a gene is that of `centrality`, averaged likewise.
        """
        import networkx

        wanted = [population] if isinstance(population, str) else list(population)
        strangers = [name for name in wanted if name not in self.networks]
        if strangers or not wanted:
            raise DataError(
                f"there is no network of {some(strangers) or 'no population'}; name {some([*self.networks])}."
            )
        presence = sp.triu(sum(self._presence(name) for name in wanted) / len(wanted), 1).tocoo()
        graph, centrality = networkx.Graph(), self.centrality.loc[self.genes, wanted].mean(axis=1)
        graph.add_nodes_from((gene, {"centrality": float(value)}) for gene, value in centrality.items())
        graph.add_weighted_edges_from(
            (self.genes[i], self.genes[j], float(weight))
            for i, j, weight in zip(presence.row, presence.col, presence.data, strict=True)
            if weight >= min_fraction
        )
        return graph

    def save(self, folder: str | Path) -> None:
        """Write every table as CSV, and each population's network as GraphML (numbered; networks.csv has the names)."""
        from networkx import generate_graphml

        from lucidcell.training.checkpoint import write_atomically

        place, names = Path(folder), list(self.networks)
        files = [f"network_{number}.graphml" for number in range(1, len(names) + 1)]
        tables = {
            "bins": self.bins, "dropped": self.dropped, "centrality": self.centrality.reset_index(),
            "mean_expression": self.mean_expression.reset_index(), "kernel": self.kernel.reset_index(),
            "embedding": self.embedding.reset_index(), "networks": pd.DataFrame({"population": names, "file": files}),
        }  # fmt: skip
        if self.phenotype is not None:
            tables["phenotype"] = self.phenotype.reset_index()
        for name, table in tables.items():
            write_atomically(place / f"{name}.csv", table.to_csv(index=False).encode())
        for name, file in zip(names, files, strict=True):
            write_atomically(place / file, "\n".join(generate_graphml(self.graph(name))).encode())

    def _depth_test(self, phenotype: Phenotype) -> tuple[float, float]:
        """Effect and p-value of counts per cell; NaN where they are not known."""
        if self.depth is None:
            return float("nan"), float("nan")
        effects, p_values = rank_test(self.depth[phenotype.populations].to_numpy(float)[None], phenotype)
        return float(effects[0]), float(p_values[0])

    def _presence(self, population: str) -> sp.csr_matrix:
        """Fraction of the population's bins that have each edge."""
        networks = self.networks[population]
        return sum(one.astype(float) for one in networks) / len(networks)

    def _phenotype(self, given: Mapping[Any, Any] | pd.Series | None, method: str) -> Phenotype:
        if given is None and self.phenotype is None:
            raise SettingError("there is no phenotype; pass one, from populations to values.")
        values = self.phenotype if given is None else series_of(given, list(self.networks))
        assert values is not None
        return as_phenotype(values, method)


def _statistic(phenotype: Phenotype) -> str:
    return "spearman" if phenotype.groups is None else "rank_biserial"


def _ranked(table: pd.DataFrame, phenotype: Phenotype) -> pd.DataFrame:
    """Smallest p first, of equal p the largest effect; with what can be found at all."""
    order = np.lexsort((-table["effect"].abs(), table["p_value"]))
    ranked = table.iloc[order].reset_index(drop=True)
    ranked.attrs = what_can_be_found(phenotype, int(table["p_value"].notna().sum()))
    return ranked
