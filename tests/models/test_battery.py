"""Every model through the whole battery; a new model is a line in `MODELS`."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from _pytest.mark import ParameterSet
from battery import (
    CHECKS,
    OF_COUNTS_ALONE,
    READ_OUTS,
    SLOW_CHECKS,
    Case,
    check_fault,
    check_global_random_state_is_left_alone,
    check_model,
    check_read_outs_repeat_themselves,
    check_the_same_seed_gives_the_same_model,
    check_the_users_data_stay_as_they_are,
)
from faults import FAULTS, Fault

from lucidcell.models import storage
from lucidcell.models.ldvae import LDVAE
from lucidcell.models.scanvi import SCANVI
from lucidcell.models.sce2tm import SCE2TM
from lucidcell.models.scetm import SCETM
from lucidcell.models.scvi import SCVI
from lucidcell.models.sivae import SIVAE
from lucidcell.models.vae import VAE

BATCH = {"batch_key": "batch"}
COVARIATES = {
    "labels_key": "cell_type",
    "categorical_covariate_keys": ["sex"],
    "continuous_covariate_keys": ["age"],
}

SEX = {"categorical_covariate_keys": ["sex"]}
LABELS = {"labels_key": "cell_type"}
PARTLY = {"labels_key": "known", "unlabeled_category": "?"}
TYPES = READ_OUTS | {
    "prediction": lambda m, a: m.predict(a),
    "probabilities": lambda m, a: m.predict(a, soft=True),
    "coarse probabilities": lambda m, a: m.predict(a, soft=True, level=0),
}

NORMALISED = {name: ask for name, ask in READ_OUTS.items() if name not in OF_COUNTS_ALONE}
GENES = NORMALISED | {
    "deep loadings": lambda m, a: m.get_loadings(layer=1 if m.config.linear_decoder else 2),
    "centrality": lambda m, a: m.get_degree_centrality(a),
    "neighbors": lambda m, a: m.get_gene_neighbors(3)["distance"],
    "sample": lambda m, a: m.sample(a),
    "sample of the prior": lambda m, a: m.sample(a, n_cells=7, of="prior", seed=1),
}
TOPICS = NORMALISED | {
    "topics": lambda m, a: m.get_topics(a),
    "genes of topics": lambda m, a: [m.get_topic_genes(ranking=r) for r in ("signal", "relevance", "published")],
    "points": lambda m, a: (m.get_gene_embedding(), m.get_topic_embedding()),
    "perturbed": lambda m, a: m.perturb_topics("T2", a),
}
SMALL_TOPICS = {"n_hidden": 16, "n_topics": 5, "n_embedding": 8}
VIEW = {"external_key": "programs"}

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
    Case(LDVAE, BATCH),
    Case(LDVAE, BATCH | COVARIATES | {"use_batch_norm": False, "gene_likelihood": "zinb", "encode_covariates": True}),
    Case(LDVAE, BATCH | SEX | {"latent_distribution": "ln", "n_latent": 5, "dispersion": "gene-batch"}),
    Case(LDVAE, BATCH | {"nonnegative": True, "l1": 5.0, "size_factor_key": "size", "gene_likelihood": "poisson"}),
    Case(LDVAE, {"reproduce": "paper", "use_batch_norm": False, "latent_distribution": "ln", "n_latent": 5}),
    Case(VAE, BATCH | COVARIATES | {"size_factor_key": "size"}, NORMALISED),
    Case(VAE, {"linear_decoder": True, "n_hidden": [16, 8]}, NORMALISED),
    Case(SIVAE, BATCH, GENES),
    Case(SIVAE, BATCH | {"gene_likelihood": "nb"}, READ_OUTS | GENES),
    Case(SIVAE, BATCH | SEX | {"linear_decoder": True, "feature_input": "all", "feature_kl_weight": "elbo"}, GENES),
    Case(SIVAE, {"gene_batch_size": 16, "pretrain": False, "feature_input": "sample", "n_feature_inputs": 30}, GENES),
    Case(SCE2TM, BATCH | VIEW, TOPICS, small=SMALL_TOPICS),
    Case(SCE2TM, BATCH | VIEW | SEX | {"external_use": "concatenate", "target": "counts"}, TOPICS, small=SMALL_TOPICS),
    Case(
        SCE2TM,
        VIEW
        | {"ecr_weight": 0.0, "size_factor_key": "size", "target": "normalized", "reproduce": "paper"}
        | {"con": "log_mean", "reg": "cell"},
        TOPICS,
        small=SMALL_TOPICS,
    ),
    Case(SCETM, BATCH | SEX, TOPICS, small=SMALL_TOPICS),
    Case(SCANVI, BATCH | PARTLY, TYPES, LABELS),
    Case(SCANVI, BATCH | PARTLY | {"training": "joint", "elbo": "marginal"}, TYPES, LABELS),
    Case(
        SCANVI, BATCH | PARTLY | {"training": "both", "label_sum": "sampled", "n_unobserved_types": 16}, TYPES, LABELS
    ),
    Case(SCANVI, BATCH | PARTLY | {"labels_key": ["kind", "known"], "use_observed_lib_size": False}, TYPES, LABELS),
    Case(
        SCANVI,
        BATCH | {"taxonomy": {"type_0": "a", "type_1": "a", "type_2": None}, "classifier_layers": 0},
        TYPES,
        LABELS,
    ),
    Case(
        SCANVI, BATCH | PARTLY | {"latent_distribution": "ln", "n_latent": 5, "dispersion": "gene-batch"}, TYPES, LABELS
    ),
    Case(SCANVI, PARTLY | {"gene_likelihood": "zinb", "encode_covariates": True} | SEX, TYPES, LABELS),
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


@pytest.mark.slow
def test_check_model_runs_everything() -> None:
    pytest.importorskip("dask.array")
    check_model(SCVI, batch_key="batch")


# --- the checks find what they look for -------------------------------------------------------------------------


class Restless(SCVI):
    """Its factors tremble."""

    def get_latent_representation(self, *args: Any, **kwargs: Any) -> Any:
        return super().get_latent_representation(*args, **(kwargs | {"give_mean": False, "seed": next(COUNTER)}))


class Careless(SCVI):
    """Draws from the global generator."""

    def get_elbo(self, *args: Any, **kwargs: Any) -> Any:
        torch.rand(1)
        return super().get_elbo(*args, **kwargs)


class Scribbling(SCVI):
    """Leaves a note in the user's data."""

    def get_latent_library_size(self, adata: Any = None, **kwargs: Any) -> Any:
        if adata is not None:
            adata.uns["_note"] = "was here"
        return super().get_latent_library_size(adata, **kwargs)


class Forgetful(SCVI):
    """Starts from other weights every time."""

    def _new_module(self, cells: Any, settings: Any) -> Any:
        return super()._new_module(cells, replace(settings, seed=next(COUNTER)))


COUNTER = itertools.count()


@pytest.mark.parametrize(
    ("model_class", "check"),
    [
        (Restless, check_read_outs_repeat_themselves),
        (Careless, check_global_random_state_is_left_alone),
        (Scribbling, check_the_users_data_stay_as_they_are),
        (Forgetful, check_the_same_seed_gives_the_same_model),
    ],
)
def test_a_model_with_a_fault_fails_its_check(
    model_class: type[SCVI], check: Callable[[Case], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(storage.MODELS, model_class.__name__, model_class.__module__)
    with pytest.raises(AssertionError):
        check(Case(model_class, BATCH))
