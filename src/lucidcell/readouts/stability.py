"""Are the factors those of the data, or of the seed? The same model fitted again, and its factors matched.

Loadings are compared in the model's readable rotation (varimax for a linear decoder, which is identified only up to a
rotation), centred and weighted by the root of mean expression; see `refits.comparable_loadings`. Factors of two fits
are paired one to one so that the sum of absolute correlations is largest (Hungarian algorithm). The agreement of a
factor is its mean over the other seeds; of the subspaces, the mean cosine of the principal angles, which no rotation
changes. Bootstrap fits see cells drawn with replacement, and give intervals of the loadings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.linalg import subspace_angles
from scipy.optimize import linear_sum_assignment

from lucidcell.errors import SettingError
from lucidcell.readouts.arguments import require_whole
from lucidcell.readouts.refits import Task, comparable_loadings, refit, template, whole_numbers

if TYPE_CHECKING:
    from anndata import AnnData

    from lucidcell.models.factor_model import FactorModel

LEVEL = 0.95  # of the bootstrap intervals


@dataclass(frozen=True)
class Stability:
    """What stays the same from fit to fit."""

    factors: pd.DataFrame  # one row per factor of the first seed: factor, agreement (mean), lowest, highest
    matches: pd.DataFrame  # seeds x factors: absolute correlation with the factor of that seed that was matched
    subspace: pd.Series  # per other seed: mean cosine of the principal angles with the first seed's loadings
    loadings: pd.DataFrame  # of the first seed, as compared; genes x factors
    low: pd.DataFrame | None  # genes x factors: ends of the 95 % bootstrap intervals of these loadings
    high: pd.DataFrame | None


def stability(
    model_class: type[FactorModel],
    adata: AnnData,
    *,
    seeds: int | Sequence[int] = 5,
    n_bootstrap: int = 0,
    reference: FactorModel | None = None,
    folder: str | Path | None = None,
    n_jobs: int = -1,
    training: dict[str, Any] | None = None,
    **arguments: Any,
) -> Stability:
    """Fit a model with several seeds, and say which of the first one's factors come back.

    Parameters
    ----------
    model_class
        `LDVAE`, `SCVI`, ...
    adata
        The cells, as the model takes them: AnnData, also backed or lazy, or several.
    seeds
        Seeds of training, the first of which is the reference; a number n stands for 0 ... n - 1.
    n_bootstrap
        Fits on cells drawn with replacement, all with the first seed; none by default.
    reference
        A trained model of the same class, data and arguments, whose factors are then judged in the place of those of
        the first seed. Its own seed is left out of `seeds`.
    folder
        Keeps the result of every fit, so that a run that was cut off goes on where it stopped.
    n_jobs
        Fits at the same time, of one thread each; -1 for one on every core.
    training
        Arguments of `train`, for instance `{"max_epochs": 20}`.
    **arguments
        Arguments of the model, such as `n_latent` and `batch_key`.

    Raises
    ------
    SettingError
        If no other seed and no bootstrap is asked for, the reference is another model, or the folder holds fits of
        other data or settings.
    """
    require_whole(n_bootstrap, "n_bootstrap", 0)
    untrained, listed = template(model_class, adata, arguments), whole_numbers(seeds, "seeds", 0)
    if reference is not None:
        _check_alike(reference, untrained)
    judged_seed = listed[0] if reference is None or reference.seed is None else reference.seed
    other_seeds = [seed for seed in listed if seed != judged_seed]
    if not other_seeds and not n_bootstrap:
        raise SettingError(f"seeds is {seeds!r}; it must name at least one besides {judged_seed}, whose fit is judged.")
    tasks = [Task(judged_seed)] if reference is None else []
    tasks += [Task(seed) for seed in other_seeds]
    tasks += [Task(judged_seed, resample=b) for b in range(n_bootstrap)]
    fits = refit(untrained, tasks, training=training, folder=folder, n_jobs=n_jobs)
    judged = fits[0].loadings if reference is None else comparable_loadings(reference)
    others = {fit.task.seed: fit.loadings for fit in fits if fit.task.resample is None and fit.task.seed != judged_seed}
    resampled = [fit.loadings for fit in fits if fit.task.resample is not None]
    found = {seed: np.abs(matched(judged, other)[1]) for seed, other in others.items()}
    matches = pd.DataFrame.from_dict(found, orient="index", columns=list(judged.columns)).rename_axis("seed")
    subspace = pd.Series({seed: subspace_agreement(judged, other) for seed, other in others.items()}, dtype=float)
    factors = pd.DataFrame(
        {
            "factor": list(judged.columns),
            "agreement": matches.mean().to_numpy(),
            "lowest": matches.min().to_numpy(),
            "highest": matches.max().to_numpy(),
        }
    )
    low, high = intervals(judged, resampled) if resampled else (None, None)
    return Stability(factors, matches, subspace.rename_axis("seed"), judged, low, high)


def _check_alike(reference: FactorModel, untrained: FactorModel) -> None:
    """Refuse to judge a model by fits of another one."""
    reference._check_trained()
    ours, theirs = vars(untrained.config), vars(reference.config)
    differing = [key for key in theirs if key not in ours or ours[key] != theirs[key]]
    differing += ["class"] if type(reference) is not type(untrained) else []
    fields = ["gene_names", "batch_categories", "categorical_covariates", "continuous_covariates", "size_factor_key"]
    if untrained.schema.labels_key is not None:
        fields.append("label_categories")
    differing += [key for key in fields if getattr(reference.schema, key) != getattr(untrained.schema, key)]
    if differing:
        raise SettingError(
            f"the reference and the fits differ in {', '.join(differing)}: pass its class, data and arguments."
        )


def matched(reference: pd.DataFrame, other: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """For every factor of `reference` its partner in `other`, one to one, and their signed correlation over genes.

    Partner -1 and correlation 0 where `other` has fewer factors.
    """
    signed = correlations(reference, other)
    rows, columns = linear_sum_assignment(-np.abs(signed))
    partner, correlation = np.full(signed.shape[0], -1), np.zeros(signed.shape[0])
    partner[rows], correlation[rows] = columns, signed[rows, columns]
    return partner, correlation


def correlations(one: pd.DataFrame, other: pd.DataFrame) -> np.ndarray:
    """Correlation of the columns of two tables over genes, (D1, D2); 0 with a column that is constant."""

    def standardised(table: pd.DataFrame) -> np.ndarray:
        values = table.to_numpy(float) - table.to_numpy(float).mean(0)
        norm = np.linalg.norm(values, axis=0)
        return values / np.where(norm > 0, norm, 1)

    return standardised(one).T @ standardised(other)


def subspace_agreement(one: pd.DataFrame, other: pd.DataFrame) -> float:
    """Mean cosine of the principal angles between the column spaces of two tables, in [0, 1]."""
    return float(np.cos(subspace_angles(one.to_numpy(float), other.to_numpy(float))).mean())


def intervals(reference: pd.DataFrame, resampled: Sequence[pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Percentile intervals of loadings from bootstrap fits, whose factors are first matched and turned alike."""
    aligned = []
    for table in resampled:
        partner, correlation = matched(reference, table)
        aligned.append(table.to_numpy()[:, partner] * np.sign(correlation))
    low, high = np.quantile(np.stack(aligned), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return (
        pd.DataFrame(low, reference.index, reference.columns),
        pd.DataFrame(high, reference.index, reference.columns),
    )
