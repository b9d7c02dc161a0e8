"""Cells from planted gene networks: hubs and spokes, and donors whose genes go together more or less tightly.

Hubs (Choi, Li, Quon 2023, Genome Biology 24:29; Figure 4). In a community with hub h and spokes s, all of variance 1

    x_h ~ N(0, 1),   x_s = rho x_h + sqrt(1 - rho^2) e_s     so that corr(h, s) = rho and corr(s, s') = rho^2

and the precision matrix is zero between any two spokes: the only edges are those to the hub. The paper drew this
covariance with qpgraph's qpG2Sigma, whose edges have correlations around rho; here they have rho exactly.

Donors. For gene g of module m, cell n of donor d, with coupling c_md between 0 and 1

    log rate_ng = log mean_g - s^2 / 2 + s (sqrt(c_md) f_nm + sqrt(1 - c_md) e_ng),   f, e ~ N(0, 1)
    x_ng        ~ Poisson(rate_ng)

The log rates of two genes of a module have correlation c_md, while mean and variance of each gene are the same for
every c: E[rate] = mean_g. In the rewired module c = 0.5 + 0.45 effect (2 phenotype_d - 1); elsewhere c = 0.5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd
import scipy.sparse as sp

from lucidcell.errors import SettingError

if TYPE_CHECKING:
    from anndata import AnnData

Phenotype = Literal["binary", "continuous"]
COUPLING, LARGEST_SHIFT = 0.5, 0.45


def simulate_hubs(
    n_cells: int = 5000,
    n_communities: int = 5,
    community_size: int = 50,
    n_isolated: int = 50,
    *,
    rho: float = 0.6,
    seed: int = 0,
) -> AnnData:
    """Simulate real-valued cells of a network of hubs and spokes; the defaults are those of siVAE's paper.

    Parameters
    ----------
    n_cells
        Cells.
    n_communities, community_size
        Communities, and genes in each: a hub, which comes first, and its spokes.
    n_isolated
        Genes without an edge; they come last.
    rho
        Correlation of a hub and each of its spokes, between -1 and 1.
    seed
        The same seed gives the same data. No global random state is read or changed.

    Returns
    -------
    AnnData with Gaussian X (float32, dense, each gene of mean 0 and variance 1): these are no counts. ``var`` has
    ``community`` (categorical, "isolated" for the last genes) and ``is_hub``; ``varp["covariance"]`` the planted
    covariance, and ``varp["network"]`` (sparse) 1 at each edge.

    Raises
    ------
    SettingError
        If a size has no meaning, or rho is no correlation.
    """
    _require_sizes({"n_cells": (n_cells, 1), "n_communities": (n_communities, 0), "n_isolated": (n_isolated, 0)})
    _require_sizes({"community_size": (community_size, 2), "seed": (seed, 0)})
    if not -1 < rho < 1:
        raise SettingError(f"rho is {rho!r}; a correlation below 1 and above -1 is needed, such as 0.6.")
    if n_communities + n_isolated == 0:
        raise SettingError("n_communities and n_isolated are both 0, which leaves no genes: raise one.")
    import anndata as ad  # here, so that importing lucidcell.cells stays fast

    rng = np.random.default_rng(seed)
    n_genes = n_communities * community_size + n_isolated
    own = rng.standard_normal((n_cells, n_genes))
    community = np.minimum(np.arange(n_genes) // community_size, n_communities)
    place = np.arange(n_genes) - community * community_size
    is_hub = (place == 0) & (community < n_communities)
    hub = community * community_size  # of each gene; not used for isolated genes
    spokes = np.flatnonzero((community < n_communities) & ~is_hub)
    x = own.copy()
    x[:, spokes] = rho * own[:, hub[spokes]] + np.sqrt(1 - rho**2) * own[:, spokes]

    weight = np.where(is_hub, 1.0, rho)
    same = (community[:, None] == community) & (community < n_communities)
    covariance = np.where(same, np.outer(weight, weight), 0.0)
    np.fill_diagonal(covariance, 1.0)
    ends = np.r_[spokes, hub[spokes]], np.r_[hub[spokes], spokes]
    network = sp.csr_matrix((np.ones(len(ends[0])), ends), (n_genes, n_genes))
    names = [*(f"community_{m}" for m in range(n_communities)), "isolated"]
    var = pd.DataFrame(
        {"community": pd.Categorical.from_codes(community, names), "is_hub": is_hub},
        index=[f"gene_{g}" for g in range(n_genes)],
    )
    settings = {"n_communities": n_communities, "community_size": community_size, "n_isolated": n_isolated}
    return ad.AnnData(
        X=x.astype(np.float32),
        obs=pd.DataFrame(index=[f"cell_{n}" for n in range(n_cells)]),
        var=var,
        varp={"covariance": covariance, "network": network},
        uns={"truth": {**settings, "rho": rho, "seed": seed}},
    )


def simulate_donors(
    n_donors: int = 20,
    n_cells: int = 200,
    n_genes: int = 200,
    *,
    n_modules: int = 4,
    module_size: int = 20,
    rewired: int | None = 0,
    effect: float = 0.8,
    phenotype: Phenotype = "binary",
    counts: bool = True,
    mean_count: float = 2.0,
    log_sd: float = 0.7,
    seed: int = 0,
) -> AnnData:
    """Simulate donors in whom the genes of one module go together more tightly the higher the donor's phenotype.

    No gene's mean or variance depends on the donor, so that differential expression has nothing to find; its network
    has. (Dividing counts by a cell's total brings the network into the means a little.)

    Parameters
    ----------
    n_donors, n_cells
        Donors, at least 2, and cells of each.
    n_genes
        Genes; those of the modules come first, the others vary independently.
    n_modules, module_size
        Modules, and genes in each.
    rewired
        The module whose coupling depends on the phenotype, from 0 on; None for none.
    effect
        How strongly, from -1 to 1: at 1 the coupling runs from 0.05 to 0.95. 0 is the null.
    phenotype
        "binary": half of the donors are 0, the others 1. "continuous": evenly spread from 0 to 1, in random order.
    counts
        Counts (CSR, float32), or log rates (float32, dense), which are exactly normal.
    mean_count
        Mean over genes, about, of their mean counts in a cell; means of genes are log-normal with sd 0.5.
    log_sd
        Standard deviation s of each gene's log rate over cells.
    seed
        The same seed gives the same data. No global random state is read or changed.

    Returns
    -------
    AnnData of n_donors * n_cells x n_genes. ``obs`` has ``donor`` (categorical) and ``phenotype`` (0 and 1, or
    real), ``var`` ``module`` (categorical, "none" outside), ``rewired`` and ``mean`` (E[rate], the same in all donors);
    ``uns["truth"]`` the settings, and ``coupling`` and ``phenotype`` of each donor.

    Raises
    ------
    SettingError
        If a size or a number has no meaning.
    """
    _require_sizes({"n_donors": (n_donors, 2), "n_cells": (n_cells, 1), "n_genes": (n_genes, 1), "seed": (seed, 0)})
    _require_sizes({"n_modules": (n_modules, 0), "module_size": (module_size, 2)})
    _require_network(n_genes, n_modules, module_size, rewired)
    _require_numbers(effect, phenotype, mean_count, log_sd)
    import anndata as ad

    rng = np.random.default_rng(seed)
    levels = np.arange(n_donors) * 2 // n_donors if phenotype == "binary" else np.linspace(0, 1, n_donors)
    of_donor = rng.permutation(levels).astype(float)
    coupling = COUPLING + LARGEST_SHIFT * effect * (2 * of_donor - 1)
    mean = mean_count * np.exp(0.5 * rng.standard_normal(n_genes) - 0.125)
    module = np.minimum(np.arange(n_genes) // module_size, n_modules)

    blocks = []
    for donor in range(n_donors):
        c = np.full(n_genes, COUPLING)
        c[module == n_modules] = 0.0
        if rewired is not None:
            c[module == rewired] = coupling[donor]
        shared = rng.standard_normal((n_cells, n_modules + 1))[:, module]
        noise = np.sqrt(c) * shared + np.sqrt(1 - c) * rng.standard_normal((n_cells, n_genes))
        log_rate = np.log(mean) - log_sd**2 / 2 + log_sd * noise
        drawn = rng.poisson(np.exp(log_rate)) if counts else log_rate
        blocks.append(sp.csr_matrix(drawn.astype(np.float32)) if counts else drawn.astype(np.float32))

    names = [f"donor_{d}" for d in range(n_donors)]
    code = np.repeat(np.arange(n_donors), n_cells)
    obs = pd.DataFrame(
        {"donor": pd.Categorical.from_codes(code, names), "phenotype": of_donor[code]},
        index=[f"cell_{n}" for n in range(len(code))],
    )
    modules = [*(f"module_{m}" for m in range(n_modules)), "none"]
    changed = np.zeros(n_genes, bool) if rewired is None else module == rewired
    var = pd.DataFrame(
        {"module": pd.Categorical.from_codes(module, modules), "rewired": changed, "mean": mean},
        index=[f"gene_{g}" for g in range(n_genes)],
    )
    truth = {"effect": effect, "log_sd": log_sd, "seed": seed, "donors": np.array(names, dtype=object)}
    truth |= {"coupling": coupling, "phenotype": of_donor, "rewired": "none" if rewired is None else modules[rewired]}
    x = sp.vstack(blocks, format="csr") if counts else np.concatenate(blocks)
    return ad.AnnData(X=x, obs=obs, var=var, uns={"truth": truth})


def _require_sizes(sizes: dict[str, tuple[int, int]]) -> None:
    for name, (value, smallest) in sizes.items():
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < smallest:
            raise SettingError(f"{name} is {value!r}; it must be a whole number of at least {smallest}.")


def _require_network(n_genes: int, n_modules: int, module_size: int, rewired: int | None) -> None:
    if n_modules * module_size > n_genes:
        need = f"{n_modules} modules of {module_size} genes need {n_modules * module_size}"
        raise SettingError(f"{need}, and n_genes is {n_genes}: raise it, or pass fewer or smaller modules.")
    if rewired is not None:
        _require_sizes({"rewired": (rewired, 0)})
        if rewired >= n_modules:
            raise SettingError(f"rewired is {rewired}, and modules run from 0 to {n_modules - 1}: pass one, or None.")


def _require_numbers(effect: float, phenotype: str, mean_count: float, log_sd: float) -> None:
    known = ", ".join(map(repr, get_args(Phenotype)))
    rules = [
        (-1 <= effect <= 1, f"effect is {effect!r}; it must be between -1 and 1, and 0 is the null."),
        (phenotype in get_args(Phenotype), f"phenotype is {phenotype!r}; it must be one of {known}."),
        (0 < mean_count < np.inf, f"mean_count is {mean_count!r}; it must be a finite number above 0."),
        (0 < log_sd < np.inf, f"log_sd is {log_sd!r}; it must be a finite number above 0."),
    ]
    for holds, msg in rules:
        if not holds:
            raise SettingError(msg)
