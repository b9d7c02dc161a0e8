"""Transcripts of genes that switch on and off, and what a sequencing experiment finds of them.

Two-state promoter (Peccoud and Ycart, Theoretical Population Biology 1995), rates in units of the mRNA's decay rate:

    p ~ Beta(k_on, k_off)        share of time the promoter is on
    x ~ Poisson(s p)             transcripts, s = synthesis rate while on

so that E[x] = s m and Var[x] = s m + s^2 m (1 - m) / (1 + k_on + k_off) with m = k_on / (k_on + k_off).

Experiment, as in SymSim (Zhang, Xu and Yosef, Nature Communications 2019) without fragmentation:

    c ~ Binomial(x, capture)     captured molecules
    a   copies of a molecule: from one, each copied with probability e in each of the PCR cycles
    r ~ Poisson(d a / E[a])      reads of the molecule, d = depth / captured molecules of the cell
    UMIs: molecules with r > 0   (or all reads, without UMIs)

The chance that a molecule has no read is the generating function of a, which is that of one cycle,
t -> (1 - e) t + e t^2, applied once for each cycle to exp(-d / E[a]).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lucidcell.errors import SettingError

RATES = ("k_on", "k_off", "synthesis")


@dataclass(frozen=True)
class Protocol:
    """How the cells of a batch are captured, amplified and sequenced. The defaults are the scANVI paper's first batch.

    Parameters
    ----------
    capture, capture_sd
        Probability that a transcript is captured: mean and standard deviation over cells (normal, kept between a tenth
        of the mean and 1).
    depth, depth_sd
        Reads per cell: mean and standard deviation over cells (normal, kept above a tenth of the mean).
    pcr_cycles, pcr_efficiency
        Cycles, and the probability that one copies a molecule.
    umis
        Count molecules; False counts reads.

    Raises
    ------
    SettingError
        If a number is out of its range.
    """

    capture: float = 0.03
    capture_sd: float = 0.009
    depth: float = 5e5
    depth_sd: float = 1.5e4
    pcr_cycles: int = 16
    pcr_efficiency: float = 0.8
    umis: bool = True

    def __post_init__(self) -> None:
        for name, value, most in (
            ("capture", self.capture, 1.0),
            ("depth", self.depth, 1e12),
            ("pcr_efficiency", self.pcr_efficiency, 1.0),
        ):
            if not 0 < value <= most:
                msg = f"{name}={value} of a Protocol must be above 0 and at most {most:g}."
                raise SettingError(msg)
        for name, value in (
            ("capture_sd", self.capture_sd),
            ("depth_sd", self.depth_sd),
            ("pcr_cycles", self.pcr_cycles),
        ):
            if not 0 <= value < float("inf"):
                msg = f"{name}={value} of a Protocol must be finite and at least 0."
                raise SettingError(msg)

    def draw_capture(self, n_cells: int, rng: np.random.Generator) -> np.ndarray:
        """Capture probability of each cell, (n_cells,)."""
        return np.clip(rng.normal(self.capture, self.capture_sd, n_cells), self.capture / 10, 1.0)

    def draw_depth(self, n_cells: int, rng: np.random.Generator) -> np.ndarray:
        """Reads of each cell, (n_cells,)."""
        return np.maximum(rng.normal(self.depth, self.depth_sd, n_cells), self.depth / 10)

    def draw_counts(self, captured: np.ndarray, depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Counts (cells, genes) of captured molecules (cells, genes) under so many reads a cell (cells,)."""
        reads = depth / np.maximum(captured.sum(axis=1), 1)  # a molecule
        if self.umis:
            missed = np.exp(-reads / (1 + self.pcr_efficiency) ** self.pcr_cycles)
            for _ in range(self.pcr_cycles):
                missed *= 1 - self.pcr_efficiency + self.pcr_efficiency * missed
            return rng.binomial(captured, 1 - missed[:, None])
        copies = captured.copy()
        for _ in range(self.pcr_cycles):
            copies += rng.binomial(copies, self.pcr_efficiency)
        return rng.poisson(copies * (depth / np.maximum(copies.sum(axis=1), 1))[:, None])


class Kinetics(NamedTuple):
    """Rates of the two-state promoter in units of the decay rate, each (cells, genes)."""

    k_on: np.ndarray
    k_off: np.ndarray
    synthesis: np.ndarray

    def expected(self) -> np.ndarray:
        """Expected transcripts, (cells, genes)."""
        return self.synthesis * self.k_on / (self.k_on + self.k_off)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Transcripts from the stationary Beta-Poisson distribution, (cells, genes)."""
        return rng.poisson(rng.beta(self.k_on, self.k_off) * self.synthesis)


class Genes(NamedTuple):
    """How factors set the rates: log rate = base + factors @ effects."""

    base: np.ndarray  # (3, genes) natural logs of k_on, k_off and synthesis where all factors are 0
    effects: np.ndarray  # (3, genes, factors)
    differential: np.ndarray  # (genes,) False: no effect at all

    def kinetics(self, factors: np.ndarray) -> Kinetics:
        """Rates of every gene in cells with these factors (cells, factors).

        If some genes are not differential, the synthesis of the others is scaled in each cell so that together they are
        expected to make the same number of transcripts in all cells. Else a gene without any effect would still change
        its share of the cell, which is what counts tell.
        """
        rates = Kinetics(
            *(np.exp(base + factors @ effect.T) for base, effect in zip(self.base, self.effects, strict=True))
        )
        if self.differential.any() and not self.differential.all():
            total = Kinetics(*np.exp(self.base[:, None, self.differential])).expected().sum()
            own = rates.expected()[:, self.differential].sum(axis=1, keepdims=True)
            rates.synthesis[:, self.differential] *= total / own
        return rates


def draw_genes(
    n_genes: int, n_factors: int, effect_size: float, n_differential: int, rng: np.random.Generator
) -> Genes:
    """Genes with random rates. A gene responds to three factors in ten, at least one, and not alike in its three rates.

    Log10 rates at the root are normal: k_on 0 +- 0.4, k_off 0.3 +- 0.4, synthesis 1.2 +- 0.6. ``effect_size`` is the
    norm of a gene's effects on one log rate: the standard deviation of that log rate under independent factors of
    variance 1.
    """
    base = np.log(10) * rng.normal([[0.0], [0.3], [1.2]], [[0.4], [0.4], [0.6]], (3, n_genes))
    effects = rng.standard_normal((3, n_genes, n_factors))
    responds = rng.random(effects.shape) < 0.3
    np.put_along_axis(responds, rng.integers(n_factors, size=(3, n_genes, 1)), values=True, axis=2)
    effects *= responds
    effects *= effect_size / np.linalg.norm(effects, axis=2, keepdims=True)
    differential = np.zeros(n_genes, dtype=bool)
    differential[rng.permutation(n_genes)[:n_differential]] = True
    effects[:, ~differential] = 0.0
    return Genes(base, effects, differential)
