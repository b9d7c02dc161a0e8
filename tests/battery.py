"""`check_model`: what every model of lucidcell must hold to, in the manner of scikit-learn's `check_estimator`.

    check_model(SCVI, batch_key="batch", gene_likelihood="zinb")

runs all of `CHECKS` on a model with these arguments; `tests/models/test_battery.py` runs each as a test of its own.
A new model is added to `MODELS` there. Columns of obs at hand: batch, cell_type, sex, age, size.
"""

from __future__ import annotations

import hashlib
import random
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from faults import FAULTS, LAYOUTS, Fault, base

import lucidcell as lc
from lucidcell.cells import cells as cells_module
from lucidcell.cells import stored
from lucidcell.cells.cells import Cells, CellWindow
from lucidcell.cells.simulate import simulate_counts
from lucidcell.errors import DataError, LucidcellError, NotTrainedError, SettingError
from lucidcell.models.base import Model
from lucidcell.training import resume
from lucidcell.training.checkpoint import Checkpoint

HELD_OUT = "validation_negative_elbo"  # column of the history with the negative held-out ELBO
TRAINING = {"max_epochs": 4, "batch_size": 32, "num_threads": 1, "progress": False}
SMALL = {"n_hidden": 16, "n_latent": 3}

ReadOut = Callable[[Any, ad.AnnData | None], Any]
Answers = dict[str, list[np.ndarray]]
OF_CELLS: dict[str, ReadOut] = {
    "latent": lambda m, a: m.get_latent_representation(a, mc_samples=20),
    "latent distribution": lambda m, a: m.get_latent_representation(a, return_dist=True),
    "latent samples": lambda m, a: m.get_latent_representation(a, give_mean=False, n_samples=2),
}
OF_COUNTS: dict[str, ReadOut] = {
    "expression": lambda m, a: m.get_normalized_expression(a),
    "sampled expression": lambda m, a: m.get_normalized_expression(a, n_samples=2, library_size="latent"),
    "elbo": lambda m, a: m.get_elbo(a, return_mean=False),
    "reconstruction error": lambda m, a: m.get_reconstruction_error(a),
    "marginal likelihood": lambda m, a: m.get_marginal_ll(a, n_mc_samples=3),
    "likelihood parameters": lambda m, a: m.get_likelihood_parameters(a),
    "predictive sample": lambda m, a: m.posterior_predictive_sample(a),
    "predictive check": lambda m, a: m.posterior_predictive_check(a),
    "gene correlation": lambda m, a: m.get_feature_correlation_matrix(a, n_samples=1),
    "library": lambda m, a: m.get_latent_library_size(a),
}
OF_COUNTS_ALONE = ("likelihood parameters", "predictive sample", "predictive check", "gene correlation")
READ_OUTS = OF_CELLS | OF_COUNTS | {"loadings": lambda m, a: m.get_loadings()}


@dataclass(frozen=True)
class Case:
    """A model with its arguments."""

    model_class: type[Model]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    read_outs: Mapping[str, ReadOut] = field(default_factory=lambda: READ_OUTS)
    needs: Mapping[str, Any] = field(default_factory=dict)  # arguments without which there is no such model
    small: Mapping[str, Any] = field(default_factory=lambda: SMALL)  # sizes of the networks

    def __str__(self) -> str:
        return " ".join([self.model_class.__name__, *(f"{key}={value}" for key, value in self.arguments.items())])

    def build(self, adata: Any = None, **arguments: Any) -> Any:
        """An untrained model, of the shared cells by default."""
        given = dict(self.small) | dict(self.needs) | dict(self.arguments) | arguments
        return self.model_class(cells() if adata is None else adata, **given)

    def fit(self, adata: Any = None, **training: Any) -> Any:
        """A trained model."""
        model = self.build(adata)
        model.train(**(TRAINING | training))
        return model

    def trained(self) -> Any:
        """A model trained a little, shared by all checks of this case; not to be changed."""
        if str(self) not in _trained:
            _trained[str(self)] = self.fit()
        return _trained[str(self)]

    def answers(
        self, model: Any, adata: ad.AnnData | None = None, but: tuple[str, ...] = ()
    ) -> dict[str, list[np.ndarray]]:
        """Every read-out as arrays."""
        return {name: arrays(ask(model, adata)) for name, ask in self.read_outs.items() if name not in but}


_trained: dict[str, Any] = {}


@cache
def _cells() -> ad.AnnData:
    adata = simulate_counts(90, 40, n_programs=3, n_types=3, n_batches=2, seed=2)
    rng = np.random.default_rng(0)
    adata.obs["sex"] = rng.choice(["f", "m"], 90)
    adata.obs["age"] = rng.normal(50, 10, 90)
    adata.obs["size"] = adata.X.sum(1).A1 * rng.uniform(0.8, 1.2, 90)
    return with_few_labels(adata)


def with_few_labels(adata: ad.AnnData) -> ad.AnnData:
    """Adds known, the types of half the cells and "?" for the others, and kind, a coarser label of all."""
    known = np.random.default_rng(1).random(adata.n_obs) < 0.5
    adata.obs["known"] = np.where(known, adata.obs["cell_type"].astype(str), "?")
    adata.obs["kind"] = np.where(adata.obs["cell_type"] == "type_2", "other", "first")
    return adata


def cells() -> ad.AnnData:
    """90 cells x 40 genes of 3 types in 2 batches."""
    return _cells().copy()


# --- comparing --------------------------------------------------------------------------------------------------


def arrays(answer: Any) -> list[np.ndarray]:
    """The numbers in any answer of a read-out."""
    if isinstance(answer, Mapping):
        answer = tuple(answer.values())
    if isinstance(answer, tuple | list):
        return [array for part in answer for array in arrays(part)]
    if isinstance(answer, pd.DataFrame):
        return [answer.to_numpy()]
    return [answer.toarray() if sp.issparse(answer) else np.asarray(answer)]


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.module.state_dict().items()}


def assert_same_weights(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> None:
    """Bit for bit."""
    assert list(one) == list(other)
    differing = [name for name in one if not torch.equal(one[name], other[name])]
    assert differing == []


def assert_same_answers(
    one: Mapping[str, list[np.ndarray]], other: Mapping[str, list[np.ndarray]], rtol: float = 0
) -> None:
    assert list(one) == list(other)
    for name in one:
        for a, b in zip(one[name], other[name], strict=True):
            if rtol:
                np.testing.assert_allclose(
                    a, b, rtol=rtol, atol=rtol * max(1.0, np.abs(b).max(initial=0)), err_msg=name
                )
            else:
                np.testing.assert_array_equal(a, b, err_msg=name)


def assert_same_training(one: Any, other: Any) -> None:
    """Weights and history, except for the clock."""
    assert_same_weights(weights(one), weights(other))
    pd.testing.assert_frame_equal(
        one.history.drop(columns="seconds"), other.history.drop(columns="seconds"), check_exact=True
    )
    assert one.record.best_epoch == other.record.best_epoch
    assert one.record.stopped == other.record.stopped


def fingerprint(adata: ad.AnnData) -> str:
    """Hash of everything in an AnnData: values, names, types, order."""
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        digest.update(type(value).__name__.encode())
        if isinstance(value, Mapping):
            for key in value:
                add(str(key))
                add(value[key])
        elif isinstance(value, pd.DataFrame):
            add(list(map(repr, value.index)))
            for name in value.columns:
                series = value[name]
                add([repr(name), str(series.dtype), *map(repr, series.tolist())])
                if isinstance(series.dtype, pd.CategoricalDtype):
                    add(list(map(repr, series.cat.categories)))
        elif sp.issparse(value):
            for part in (
                (value.data, value.indices, value.indptr) if value.format in ("csr", "csc") else (value.toarray(),)
            ):
                add(part)
        elif isinstance(value, np.ndarray) and value.dtype != object:
            digest.update(f"{value.dtype}{value.shape}{value.flags.f_contiguous}".encode() + value.tobytes())
        else:
            digest.update(repr(value).encode())

    raw = None if adata.raw is None else (adata.raw.X, adata.raw.var)
    for part in (adata.X, adata.obs, adata.var, adata.uns, *(raw or ())):
        add(part)
    for aligned in (adata.obsm, adata.varm, adata.obsp, adata.varp, adata.layers):
        add({key: aligned[key] for key in aligned})
    return digest.hexdigest()


def assert_sentence(error: BaseException) -> None:
    """An error of ours says everything in one line that ends like a sentence."""
    assert isinstance(error, LucidcellError), repr(error)
    text = str(error)
    assert "\n" not in text
    assert re.search(r"[.?)]$", text), text
    assert 20 < len(text) < 700, text


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Fail if anything inside draws from, or sets, a global random generator."""
    before = torch.get_rng_state(), str(np.random.get_state()), random.getstate()  # noqa: NPY002 (what is tested)
    yield
    after = torch.get_rng_state(), str(np.random.get_state()), random.getstate()  # noqa: NPY002
    assert torch.equal(before[0], after[0]), "torch's generator has moved"
    assert before[1] == after[1], "numpy's generator has moved"
    assert before[2] == after[2], "Python's generator has moved"


# --- training ---------------------------------------------------------------------------------------------------


def check_the_same_seed_gives_the_same_model(case: Case) -> None:
    first = case.trained()
    torch.manual_seed(12345)  # the state of the global generator must not matter
    again = case.fit()
    assert_same_training(again, first)
    assert_same_answers(case.answers(again), case.answers(first))
    other = case.fit(seed=1)
    assert not torch.equal(*(next(iter(m.module.parameters())) for m in (first, other)))


def check_training_twice_starts_afresh(case: Case) -> None:
    model = case.fit()
    model.train(**TRAINING)
    assert_same_training(model, case.trained())


def check_two_threads_repeat_each_other(case: Case) -> None:
    first, second = case.fit(num_threads=2), case.fit(num_threads=2)
    assert_same_training(first, second)
    # another order of sums, and Adam magnifies what is left of a vanishing gradient: near, and not equal
    assert_same_answers(
        {"held-out": [first.history[HELD_OUT].to_numpy()]},
        {"held-out": [case.trained().history[HELD_OUT].to_numpy()]},
        1e-3,
    )


def check_labels_stay_out_of_training(case: Case) -> None:
    """All labels of a model that does not learn from them; of one that does, those that it is not to see."""
    if case.arguments.get("dispersion") == "gene-label":
        return
    rng, adata, model = np.random.default_rng(0), cells(), case.build()
    if "labels_key" in case.needs:
        hidden = np.flatnonzero(model.cells.label < 0)
        for codes in (rng.integers(0, 3, len(hidden)), rng.integers(0, 3, len(hidden))):
            model.cells.label[hidden] = -2 - codes  # as if the data kept them behind the mask
            model.train(**TRAINING)
            assert_same_training(model, case.trained())
        return
    adata.obs["cell_type"] = rng.permutation(adata.obs["cell_type"].to_numpy())
    assert_same_training(case.fit(adata), case.trained())


def check_loss_falls(case: Case) -> None:
    history = case.fit(planted(), max_epochs=25, learning_rate=5e-3).history
    assert history["train_reconstruction"].iloc[-1] < history["train_reconstruction"].iloc[0]
    assert history[HELD_OUT].min() < history[HELD_OUT].iloc[0]
    for _, of_phase in history.groupby("phase"):  # a phase leaves the columns of others empty
        assert np.isfinite(of_phase.dropna(axis=1, how="all").select_dtypes("number").to_numpy()).all()


def check_planted_structure_is_found(case: Case) -> None:
    """Types by their 15 nearest neighbours, programs by canonical correlation.

    The last of the K correlations is left out: shares hardly tell a rise of all programs from a larger library.
    """
    from sklearn.model_selection import cross_val_predict
    from sklearn.neighbors import KNeighborsClassifier

    adata = planted()
    model = case.fit(adata, max_epochs=60, batch_size=32, learning_rate=5e-3)
    z = model.get_latent_representation(mc_samples=100)
    types = adata.obs["cell_type"].to_numpy().astype(str)
    found = cross_val_predict(KNeighborsClassifier(15), z, types, cv=5)
    assert (found == types).mean() > 0.8, "chance is a third, and the types overlap"
    correlations = canonical_correlations(z, adata.obsm["programs"])
    assert correlations[:-1].min() > 0.85, correlations


@cache
def planted() -> ad.AnnData:
    adata = simulate_counts(300, 100, n_programs=3, n_types=3, n_batches=2, mean_library=2000, seed=4)
    rng = np.random.default_rng(0)
    adata.obs["sex"], adata.obs["age"] = rng.choice(["f", "m"], 300), rng.normal(50, 10, 300)
    adata.obs["size"] = adata.X.sum(1).A1
    return with_few_labels(adata)


def canonical_correlations(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Correlations between the best-matching directions of two sets of columns, largest first."""
    q_x, q_y = (np.linalg.qr(columns - columns.mean(0))[0] for columns in (x.astype(float), y.astype(float)))
    return np.linalg.svd(q_x.T @ q_y, compute_uv=False)


class Killed(BaseException):
    """Stands for a signal that no code can catch."""


def check_resume_after_a_kill_is_exact(case: Case) -> None:
    """Killed while writing a checkpoint, before or after it is in place, or between two; then resumed."""
    with tempfile.TemporaryDirectory() as folder, checkpoint_every_step():
        whole = case.fit(checkpoint_dir=f"{folder}/whole")
        for i, (target, name, count, late) in enumerate(
            [
                (Checkpoint, "write", 1, False),
                (Checkpoint, "write", 4, True),
                (Cells, "take", 6, False),
                (Cells, "take", 9, True),
            ]
        ):
            place = f"{folder}/{i}"
            with patch.object(target, name, killing(getattr(target, name), count, late)), pytest.raises(Killed):
                case.fit(checkpoint_dir=place)
            resumed = case.fit(checkpoint_dir=place, resume=True)
            assert_same_training(resumed, whole)
            last, wanted = Checkpoint.read(Path(place)), Checkpoint.read(Path(folder, "whole"))
            assert last is not None
            assert wanted is not None
            assert_same_weights(last.tensors, wanted.tensors)  # with the optimiser's moments and the random state


@contextmanager
def checkpoint_every_step() -> Iterator[None]:
    with patch.object(resume, "CHECKPOINT_SECONDS", 0.0), patch.object(resume, "CHECKPOINT_SHARE", 0):
        yield


def killing(function: Callable[..., Any], count: int, late: bool) -> Callable[..., Any]:
    """The same function, whose `count`-th call kills the process before or after its work."""
    calls = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        mine = calls  # the function may call itself
        if mine == count and not late:
            raise Killed
        result = function(*args, **kwargs)
        if mine == count:
            raise Killed
        return result

    return wrapped


# --- data -------------------------------------------------------------------------------------------------------


def check_fault(case: Case, fault: Fault) -> None:
    """The data of one fault are refused in a sentence, or the model works; they are unchanged in either case."""
    adata = base()
    changed = fault.change(adata)
    adata = adata if changed is None else changed
    before = fingerprint(adata) if isinstance(adata, ad.AnnData) else None
    arguments = {key: value for key, value in case.arguments.items() if not key.endswith(("_key", "_keys"))}
    arguments = {key: value for key, value in arguments.items() if key != "unlabeled_category"} | dict(case.needs)
    refusal = fault.refusal if fault.with_labels is None or "labels_key" not in case.needs else fault.with_labels
    training = {"max_epochs": 2, "batch_size": 16, "num_threads": 1, "progress": False} | fault.train

    def use() -> Any:
        model = case.model_class(adata, **(dict(case.small) | arguments | fault.model))
        model.train(**training)
        return model

    if refusal is not None:
        with pytest.raises(LucidcellError, match=refusal) as caught:
            use()
        assert_sentence(caught.value)
    else:
        model = use()
        z = model.get_latent_representation()
        assert z.shape[1] == model.config.n_latent
        assert np.isfinite(z).all()
        of_last = model.history[model.history["phase"] == model.history["phase"].iloc[-1]]
        numbers = of_last.dropna(axis=1, how="all").select_dtypes("number")  # without the columns of other phases
        assert np.isfinite(numbers.to_numpy()).all()
    assert before is None or fingerprint(adata) == before, "the user's data were changed"


def check_every_layout_gives_the_same_bits(case: Case) -> None:
    wanted = case.trained()
    z, history = wanted.get_latent_representation(mc_samples=10), case.fit(max_epochs=1).history
    for name, layout in LAYOUTS.items():
        adata = cells()
        adata.X = layout(adata.X)
        before = fingerprint(adata)
        assert case.fit(adata, max_epochs=1).history["train_loss"][0] == history["train_loss"][0], name
        np.testing.assert_array_equal(wanted.get_latent_representation(adata, mc_samples=10), z, err_msg=name)
        assert fingerprint(adata) == before, name


def check_views_and_files_give_the_same_bits(case: Case) -> None:
    wanted = case.answers(case.trained(), but=("loadings",))
    twice = ad.concat([cells(), cells()], index_unique="-")
    view = twice[np.arange(len(twice)) < 90]
    assert_same_answers(case.answers(case.trained(), view, but=("loadings",)), wanted)
    assert view.is_view
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "cells.h5ad")
        cells().write_h5ad(path)
        backed = lc.read_h5ad(path, backed="r")
        assert_same_answers(case.answers(case.trained(), backed, but=("loadings",)), wanted)
        backed.file.close()
        if find_spec("xarray") and find_spec("dask"):
            lazy = ad.experimental.read_lazy(path)
            assert_same_answers(case.answers(case.trained(), lazy, but=("loadings",)), wanted)


def check_cells_that_stay_in_their_file(case: Case) -> None:
    """Read-outs are those of the same cells in memory, and training repeats itself and can be cut off."""
    training = {"max_epochs": 2, "buffer_gb": 1e-6}
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(stored, "IN_MEMORY", 0),
        patch.object(cells_module, "READ_AT_ONCE", 1000),
    ):
        cells().write_h5ad(f"{folder}/cells.h5ad")
        backed = lc.read_h5ad(f"{folder}/cells.h5ad", backed="r")
        assert not case.build(backed).cells.in_memory
        assert_same_answers(case.answers(case.trained(), backed), case.answers(case.trained()))
        with checkpoint_every_step():
            whole = case.fit(backed, **training, checkpoint_dir=f"{folder}/whole")
            assert_same_training(case.fit(backed, **training), whole)
            with (
                patch.object(CellWindow, "take", killing(CellWindow.take, 5, True)),
                pytest.raises(Killed),
            ):
                case.fit(backed, **training, checkpoint_dir=f"{folder}/killed")
            resumed = case.fit(backed, **training, checkpoint_dir=f"{folder}/killed", resume=True)
        assert_same_training(resumed, whole)
        whole.save(f"{folder}/run")
        again = lc.load(f"{folder}/run", backed)
        assert_same_answers(case.answers(again), case.answers(whole))
        backed.file.close()


def check_the_users_data_stay_as_they_are(case: Case) -> None:
    adata = cells()
    adata.layers["other"], adata.raw = adata.X.copy(), adata.copy()
    before = fingerprint(adata)
    model = case.fit(adata)
    case.answers(model)
    case.answers(model, adata)
    model.map_query(adata, max_epochs=1)
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder, "run"))
        lc.load(Path(folder, "run"), adata)
    assert fingerprint(adata) == before


def check_global_random_state_is_left_alone(case: Case) -> None:
    with tempfile.TemporaryDirectory() as folder:
        case.trained().save(Path(folder, "run"))  # imports libraries, one of which draws when it is imported
    with random_state_kept(), tempfile.TemporaryDirectory() as folder:
        model = case.fit()
        case.answers(model)
        model.map_query(renamed_batches(cells()), max_epochs=1)
        model.write(cells())
        model.save(Path(folder, "run"))
        lc.load(Path(folder, "run"))


def finite(values: np.ndarray) -> bool:
    """Whether all are numbers, or names."""
    return bool(np.isfinite(values).all() if values.dtype != object else all(isinstance(v, str) for v in values))


def renamed_batches(adata: ad.AnnData) -> ad.AnnData:
    adata.obs["batch"] = ["new"] * adata.n_obs
    return adata


def check_one_batch(case: Case) -> None:
    model = case.fit(cells()[cells().obs["batch"] == "batch_0"].copy())
    answers = case.answers(model, but=("predictive check",))  # which divides by means that may be zero
    assert [name for name, answer in answers.items() if not all(map(finite, answer))] == []


# --- read-outs --------------------------------------------------------------------------------------------------


def check_read_outs_need_training(case: Case) -> None:
    model = case.build()
    for name, ask in case.read_outs.items():
        with pytest.raises(NotTrainedError, match="call train") as caught:
            ask(model, None)
        assert_sentence(caught.value), name


def check_read_outs_repeat_themselves(case: Case) -> None:
    model = case.trained()
    first = case.answers(model)
    torch.manual_seed(99)
    assert_same_answers(case.answers(model), first)
    assert_same_answers(case.answers(model, cells()), first)


def check_order_of_genes_does_not_matter(case: Case) -> None:
    """Genes are found by name, and those that the model does not know are passed over."""
    strangers = simulate_counts(90, 7, seed=9)
    strangers.var_names = [f"stranger_{i}" for i in range(7)]
    more = ad.concat([cells(), strangers], axis=1)
    more.obs, more.obsm["programs"] = cells().obs, cells().obsm["programs"]
    more = more[:, np.random.default_rng(0).permutation(more.n_vars)].copy()
    assert_same_answers(case.answers(case.trained(), more), case.answers(case.trained()))


def check_cells_can_be_picked(case: Case) -> None:
    model = case.trained()
    rows = np.array([7, 3, 80, 7])
    whole, some = (
        model.get_latent_representation(mc_samples=1),
        model.get_latent_representation(indices=rows, mc_samples=1),
    )
    if case.arguments.get("latent_distribution") != "ln":  # whose mean is drawn, cell by cell
        np.testing.assert_allclose(some, whole[rows], rtol=1e-4, atol=1e-5)
        mask = np.arange(90) < 20
        np.testing.assert_allclose(model.get_latent_representation(indices=mask), whole[:20], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(model.get_latent_representation(batch_size=7), whole, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(model.get_latent_representation(cells()[5]), whole[5:6], rtol=1e-4, atol=1e-5)
    for wrong in ([90], [-1], [], [0.5], [True, False]):
        with pytest.raises(DataError) as caught:
            model.get_latent_representation(indices=wrong)
        assert_sentence(caught.value)


def check_loadings_are_a_table_of_genes_and_factors(case: Case) -> None:
    table = case.trained().get_loadings()
    assert list(table.index) == list(cells().var_names)
    assert list(table.columns) == case.trained().factor_names
    assert np.isfinite(table.to_numpy()).all()
    assert table.to_numpy().any()
    assert {"how", "sign"} <= set(table.attrs)


def check_unknown_batches_are_refused_or_mapped(case: Case) -> None:
    if "batch_key" not in case.arguments:
        return
    model, query = case.trained(), renamed_batches(cells())
    before, answers = weights(model), case.answers(model)
    with pytest.raises(DataError, match="'new'.*map_query") as caught:
        model.get_latent_representation(query)
    assert_sentence(caught.value)
    mapped = model.map_query(query, max_epochs=2)
    assert np.isfinite(mapped.get_latent_representation()).all()
    assert_same_weights(weights(model), before)
    assert_same_answers(case.answers(model), answers)


def check_unknown_arguments_are_named(case: Case) -> None:
    with pytest.raises(SettingError, match="has no argument 'n_hiden'; did you mean 'n_hidden'") as caught:
        case.build(n_hiden=3)
    assert_sentence(caught.value)
    with pytest.raises(SettingError, match="has no argument 'accelerator', which is scvi-tools'") as caught:
        case.build().train(accelerator="gpu")
    assert_sentence(caught.value)
    with pytest.raises(SettingError, match="no setup step") as caught:
        case.model_class.setup_anndata(cells())
    assert_sentence(caught.value)


# --- storage ----------------------------------------------------------------------------------------------------


def check_saving_and_loading_is_exact(case: Case) -> None:
    model = case.trained()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run")
        model.save(path)
        loaded, without = lc.load(path, cells()), lc.load(path)
        assert [p for p in Path(folder).rglob("*") if p.suffix in (".pkl", ".pickle", ".pt", ".npy")] == []
    assert type(loaded) is case.model_class
    assert loaded.config == model.config
    assert loaded.schema == model.schema
    assert_same_weights(weights(loaded), weights(model))
    answers = case.answers(model)
    assert_same_answers(case.answers(loaded), answers)
    assert_same_answers(
        case.answers(without, cells(), but=("loadings",)), {k: v for k, v in answers.items() if k != "loadings"}
    )
    pd.testing.assert_frame_equal(loaded.history, model.history)
    with pytest.raises(DataError, match="loaded without data"):
        without.get_latent_representation()


def check_a_loaded_model_can_be_trained(case: Case) -> None:
    with tempfile.TemporaryDirectory() as folder:
        case.trained().save(Path(folder, "run"))
        loaded = lc.load(Path(folder, "run"), cells())
    loaded.train(**TRAINING)
    assert_same_training(loaded, case.trained())


def check_write_adds_the_fields_it_lists_and_no_others(case: Case) -> None:
    adata, name = cells(), case.model_class.name
    case.trained().write(adata)
    del adata.obsm[f"X_{name}"], adata.varm[f"{name}_loadings"], adata.uns[name]
    for kind, key in re.findall(r'`(obs|obsm|varm)\["(\w+)"\]`', case.model_class.write.__doc__):
        if not key.startswith("X_") and not key.endswith("_loadings"):
            del getattr(adata, kind)[key.replace("sce2tm", name)]  # topic models share their docstring
    assert fingerprint(adata) == fingerprint(cells())
    with pytest.raises(DataError, match="is a view") as caught:
        case.trained().write(cells()[10:50])
    assert_sentence(caught.value)


def check_what_is_written_survives_files(case: Case) -> None:
    adata, model, name = cells(), case.trained(), case.model_class.name
    wanted = model.get_latent_representation(rotate=model.readable_rotation)
    model.write(adata)
    for part in (adata.obsm, adata.varm, adata.uns):
        for key in [key for key in part if name not in key]:
            del part[key]
    with tempfile.TemporaryDirectory() as folder:
        adata.write_h5ad(Path(folder, "a.h5ad"))
        adata.write_zarr(Path(folder, "a.zarr"))
        back = [lc.read_h5ad(Path(folder, "a.h5ad")), lc.read_zarr(Path(folder, "a.zarr"))]
    for one in (adata, *back):
        np.testing.assert_array_equal(one.obsm[f"X_{name}"], wanted)
        np.testing.assert_allclose(one.varm[f"{name}_loadings"], model.readable_loadings(), rtol=1e-6)
        assert list(one.uns[name]["factors"]) == list(model.readable_loadings().columns)
        assert one.uns[name]["config"]["n_latent"] == model.config.n_latent


SLOW_CHECKS = [  # the last four are of the data, which options of a model do not touch
    check_loss_falls,
    check_two_threads_repeat_each_other,
    check_planted_structure_is_found,
    check_what_is_written_survives_files,
    check_every_layout_gives_the_same_bits,
    check_views_and_files_give_the_same_bits,
    check_cells_that_stay_in_their_file,
    check_the_users_data_stay_as_they_are,
]
CHECKS: list[Callable[[Case], None]] = [
    check_the_same_seed_gives_the_same_model,
    check_training_twice_starts_afresh,
    check_two_threads_repeat_each_other,
    check_labels_stay_out_of_training,
    check_loss_falls,
    check_planted_structure_is_found,
    check_resume_after_a_kill_is_exact,
    check_every_layout_gives_the_same_bits,
    check_views_and_files_give_the_same_bits,
    check_cells_that_stay_in_their_file,
    check_the_users_data_stay_as_they_are,
    check_global_random_state_is_left_alone,
    check_one_batch,
    check_read_outs_need_training,
    check_read_outs_repeat_themselves,
    check_order_of_genes_does_not_matter,
    check_cells_can_be_picked,
    check_loadings_are_a_table_of_genes_and_factors,
    check_unknown_batches_are_refused_or_mapped,
    check_unknown_arguments_are_named,
    check_saving_and_loading_is_exact,
    check_a_loaded_model_can_be_trained,
    check_write_adds_the_fields_it_lists_and_no_others,
    check_what_is_written_survives_files,
]


def check_model(model_class: type[Model], **arguments: Any) -> None:
    """Run every check, and every fault of the data, on a model with these arguments; the first failure is raised."""
    case = Case(model_class, arguments)
    for check in CHECKS:
        check(case)
    for fault in FAULTS:
        check_fault(case, fault)
