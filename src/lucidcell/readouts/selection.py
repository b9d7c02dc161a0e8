"""How many factors? By what they add on held-out cells, and by whether they come back."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lucidcell.errors import SettingError
from lucidcell.readouts.refits import Fit, Task, refit, template, whole_numbers
from lucidcell.readouts.stability import matched, subspace_agreement

if TYPE_CHECKING:
    from anndata import AnnData

    from lucidcell.models.factor_model import FactorModel


def select_n_latent(
    model_class: type[FactorModel],
    adata: AnnData,
    n_latent: Sequence[int] = (5, 10, 15, 20, 30),
    *,
    seeds: int | Sequence[int] = 3,
    folder: str | Path | None = None,
    n_jobs: int = -1,
    training: dict[str, Any] | None = None,
    **arguments: Any,
) -> pd.DataFrame:
    """Fit a model with several numbers of factors and seeds, and compare held-out ELBO and stability.

    A seed holds out the same cells for every number of factors, so that differences are paired. `attrs["selected"]` is
    the smallest number whose held-out negative ELBO is, on average over the seeds, within one standard error of the
    paired difference from the best one.

    Parameters
    ----------
    model_class, adata, folder, n_jobs, training, **arguments
        As in `stability`.
    n_latent
        Numbers of factors to try.
    seeds
        Seeds, at least 2; a number n stands for 0 ... n - 1.

    Returns
    -------
    DataFrame with one row for each number: n_latent, negative_elbo (mean over seeds, nats per held-out cell), above
    (mean difference from the best number), above_se (its standard error), agreement (mean absolute correlation of
    matched factors over pairs of seeds), subspace (mean cosine of principal angles), n_used (factors with KL >= 0.05).

    Raises
    ------
    SettingError
        If there are fewer than two seeds or numbers, or cells are not held out.
    """
    sizes = sorted(whole_numbers(n_latent if isinstance(n_latent, Sequence | np.ndarray) else [], "n_latent", 1, 2))
    listed = whole_numbers(seeds, "seeds", 0, 2)
    if isinstance(training, dict) and training.get("train_size") == 1:
        raise SettingError("training has train_size=1, and held-out cells decide between numbers: hold some out.")
    untrained = template(model_class, adata, arguments)
    tasks = [Task(seed, size) for size in sizes for seed in listed]
    fits = refit(untrained, tasks, training=training, folder=folder, n_jobs=n_jobs)
    by_size = [fits[i : i + len(listed)] for i in range(0, len(fits), len(listed))]
    elbos = np.array([[fit.validation_negative_elbo for fit in some] for some in by_size])  # sizes x seeds
    above = elbos - elbos[elbos.mean(1).argmin()]
    errors = above.std(1, ddof=1) / np.sqrt(len(listed))
    table = pd.DataFrame(
        {
            "n_latent": sizes,
            "negative_elbo": elbos.mean(1),
            "above": above.mean(1),
            "above_se": errors,
            "agreement": [_agreement(some) for some in by_size],
            "subspace": [
                np.mean([subspace_agreement(a.loadings, b.loadings) for a, b in combinations(some, 2)])
                for some in by_size
            ],
            "n_used": [np.mean([fit.n_used for fit in some]) for some in by_size],
        }
    )
    table.attrs["selected"] = sizes[int(np.flatnonzero(above.mean(1) <= errors)[0])]
    return table


def _agreement(fits: Sequence[Fit]) -> float:
    return float(np.mean([np.abs(matched(a.loadings, b.loadings)[1]).mean() for a, b in combinations(fits, 2)]))
