"""Find the genes of a model among those of other data, by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from lucidcell.cells.covariates import some
from lucidcell.errors import DataError

SMALLEST_OVERLAP = 0.1  # below this share of the model's genes nothing sensible can be said of a cell
ENSEMBL = re.compile(r"ENS[A-Z]*G\d{6,}(\.\d+)?$")


def match_genes(wanted: Sequence[str], given: Sequence[str], *, pad: bool) -> np.ndarray:
    """Which of the model's genes the data have, (G,) bool.

    Parameters
    ----------
    wanted
        Gene names of the model.
    given
        Gene names of the data, in any order, more or fewer.
    pad
        Accept missing genes, as long as a tenth of the model's genes is there.

    Raises
    ------
    DataError
        If genes are missing and `pad` is False, or fewer than a tenth is there.
    """
    have = set(given)
    present = np.array([name in have for name in wanted], bool)
    n_missing = int(np.count_nonzero(~present))
    if n_missing == 0 or (pad and present.mean() >= SMALLEST_OVERLAP):
        return present
    missing = [name for name, there in zip(wanted, present, strict=True) if not there]
    message = (
        f"{n_missing} of the model's {len(wanted)} genes ({n_missing / len(wanted):.0%}) are missing ({some(missing)})"
    )
    if present.mean() >= SMALLEST_OVERLAP:
        raise DataError(f"{message}: use model.map_query, which completes missing genes, or data with all genes.")
    raise DataError(f"{message}, and at least {SMALLEST_OVERLAP:.0%} must be there: {_naming(wanted, given)}.")


def _naming(wanted: Sequence[str], given: Sequence[str]) -> str:
    """A guess why almost no name is found, as a way out."""
    models, datas = _kind(wanted), _kind(given)
    if models != datas:
        return f"the model's names look like {models} and the data's like {datas}, so rename one kind to the other"
    if models == "Ensembl ids" and _share(map(_without_version, wanted), map(_without_version, given)) > 0.5:
        return "they agree without the version after the dot, so remove it from both"
    if _share(map(str.upper, wanted), map(str.upper, given)) > 0.5:
        return "they agree when case is ignored, so one may be human and the other mouse: map them to orthologues"
    return f"the data's names ({some(given[:5])}) should be of the same kind and species as the model's"


def _kind(names: Sequence[str]) -> str:
    return "Ensembl ids" if sum(bool(ENSEMBL.match(name)) for name in names) > len(names) / 2 else "gene symbols"


def _without_version(name: str) -> str:
    return name.split(".")[0]


def _share(wanted: Iterable[str], given: Iterable[str]) -> float:
    first, second = set(wanted), set(given)
    return len(first & second) / max(1, len(first))
