"""Every model through the whole battery; a new model is a line in `MODELS`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from _pytest.mark import ParameterSet
from battery import CHECKS, SLOW_CHECKS, Case, check_fault
from faults import FAULTS, Fault

from lucidcell.models.scvi import SCVI

BATCH = {"batch_key": "batch"}
COVARIATES = {
    "labels_key": "cell_type",
    "categorical_covariate_keys": ["sex"],
    "continuous_covariate_keys": ["age"],
}

MODELS = [
    Case(SCVI, BATCH),
    Case(SCVI, BATCH | {"gene_likelihood": "zinb"}),
    Case(SCVI, BATCH | {"gene_likelihood": "poisson"}),
    Case(SCVI, BATCH | {"use_observed_lib_size": False}),
    Case(SCVI, BATCH | {"latent_distribution": "ln", "n_latent": 5}),
    Case(SCVI, BATCH | {"dispersion": "gene-batch"}),
    Case(SCVI, BATCH | {"dispersion": "gene-label", "labels_key": "cell_type"}),
    Case(SCVI, BATCH | COVARIATES | {"encode_covariates": True, "n_layers": 2, "size_factor_key": "size"}),
    Case(SCVI, {"reproduce": "paper"}),
]
ONE_OF_EACH_CLASS = list({case.model_class: case for case in reversed(MODELS)}.values())


def everything() -> list[ParameterSet]:
    """Every check of every model; what takes seconds is fast for one model of each class only."""
    return [
        pytest.param(
            case,
            check,
            id=f"{case}-{check.__name__.removeprefix('check_')}",
            marks=pytest.mark.slow if check in SLOW_CHECKS and case not in ONE_OF_EACH_CLASS else (),
        )
        for case in MODELS
        for check in CHECKS
    ]


@pytest.mark.parametrize(("case", "check"), everything())
def test_model(case: Case, check: Callable[[Case], None]) -> None:
    check(case)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
@pytest.mark.parametrize("case", ONE_OF_EACH_CLASS, ids=lambda case: case.model_class.__name__)
def test_data(case: Case, fault: Fault) -> None:
    if fault.name == "dask":
        pytest.importorskip("dask.array")
    check_fault(case, fault)
