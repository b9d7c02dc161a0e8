"""`Model`: the AnnData-facing shell around a module. It builds the cells, trains, reads out, saves and loads.

A shell holds its own registry (`schema`): nothing is hidden in the AnnData, and nothing is global. What a trained model
can say is a function in `readouts/`; the method here is one line.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import numpy as np
import pandas as pd

from lucidcell.cells.batch import Batch
from lucidcell.cells.cells import Cells
from lucidcell.cells.loader import Loader
from lucidcell.cells.parts import PART_KEY
from lucidcell.cells.schema import Schema
from lucidcell.errors import DataError, NotTrainedError, SettingError
from lucidcell.models import storage
from lucidcell.models.keywords import refuse_keywords, refuse_setup
from lucidcell.training.loop import Record, fit
from lucidcell.training.phases import Trainable
from lucidcell.training.settings import BATCH_SIZE, Settings
from lucidcell.training.split import hold_out

if TYPE_CHECKING:
    from anndata import AnnData
    from torch import nn

    from lucidcell.readouts.calibration import Calibration
    from lucidcell.training.estimate import Estimate

logger = logging.getLogger("lucidcell")

READ_OUT_BATCH = 1024  # cells at a time outside training


class Model:
    """What every model shares. A subclass gives `name`, `config` and `module`, and its own read-outs."""

    name: ClassVar[str]  # key of what `write` leaves in an AnnData
    share_of_epochs: float = 1.0  # of the default number: less from another model, more for several phases
    share_of_learning_rate: float = 1.0  # of the default peak
    batch_size_by_default: int = BATCH_SIZE
    fewest_steps: int = 0  # of training, by default, where few cells would make fewer

    config: Any
    module: nn.Module
    schema: Schema
    cells: Cells | None  # None for a model that was loaded without data
    record: Record | None  # of the last training
    training_facts: dict[str, Any] | None  # the same as stored, also known after loading
    data_facts: dict[str, Any]
    calibration: Calibration | None  # of a trained model that predicts labels
    command: str | None = None  # the command line that made this model, for the report

    def _start(self, config: Any, module: nn.Module, schema: Schema, cells: Cells | None) -> None:
        self.config, self.module, self.schema, self.cells = config, module.eval(), schema, cells
        self.record, self.training_facts, self.calibration = None, None, None
        self.history = pd.DataFrame()
        self.data_facts = {} if cells is None else asdict(cells.record)

    # --- training ---

    def train(
        self,
        max_epochs: int | None = None,
        *,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        early_stopping: bool = True,
        train_size: float = 0.9,
        seed: int = 0,
        device: str = "auto",
        num_threads: int | None = None,
        checkpoint_dir: str | Path | None = None,
        resume: bool = False,
        progress: bool = True,
        precision: str = "auto",
        gradient_clip: float | None = None,
        buffer_gb: float = 0.5,
        loader: Iterable[Mapping[str, Any]] | None = None,
        **unknown: object,
    ) -> None:
        """Train from a fresh start; with `resume`, from the last checkpoint.

        The same seed, data, number of threads and torch give bitwise the same model. Ctrl-C ends training and keeps
        what has been learned. None stands for the measured default (docs/training.md).

        Parameters
        ----------
        max_epochs
            Planned passes over the training cells; the learning rate and the KL warm-up are spread over them.
        batch_size
            Cells per step.
        learning_rate
            Peak of the one-cycle schedule.
        early_stopping
            Stop when the held-out ELBO no longer improves. The best weights are kept in either case.
        train_size
            Fraction of the cells that train; the rest is held out.
        seed
            Of the split, the initial weights, the order of the cells and the sampling noise.
        device
            "auto", "cpu", "cuda", ...
        num_threads
            CPU threads; all cores by default.
        checkpoint_dir
            Folder for atomic checkpoints, from which `resume=True` continues a killed run of one process bit for bit.
        resume
            Continue from the checkpoint in `checkpoint_dir`, if there is one.
        progress
            Show a progress bar with the loss and the time left.
        precision
            "float32", "bfloat16" for the decoder's matrix products, or "auto": bfloat16 where the CPU has it.
        gradient_clip
            Largest norm of the gradient.
        buffer_gb
            For cells in a file that is read while training (`read_h5ad(backed="r")`): memory for their counts, in GiB.
            The more, the better they are mixed (docs/scaling.md).
        loader
            Batches to train on from elsewhere, such as annbatch's loader: an iterable with a length, gone through once
            an epoch, of dicts with X (cells x the model's genes) and obs. The model's own cells, which should be like
            those, then give start values and held-out cells (docs/scaling.md). `max_epochs` has no default with it;
            `batch_size` is the loader's, to be said for the sake of the learning rate.

        Raises
        ------
        SettingError
            If an argument has no meaning.
        TrainingError
            If the loss stops being finite.
        """
        refuse_keywords("train", unknown, tuple(signature(self.train).parameters))
        cells = self._own_cells("train it")
        settings = self._resolve(Settings(
            max_epochs, batch_size, learning_rate, early_stopping, train_size, seed, device, num_threads, precision,
            gradient_clip, buffer_gb,
        ))  # fmt: skip
        if resume and checkpoint_dir is None:
            raise SettingError("resume=True needs checkpoint_dir, the folder with the checkpoint to go on from.")
        folder = None if checkpoint_dir is None else Path(checkpoint_dir)
        elsewhere = None if loader is None else self._loader(loader, max_epochs)
        self.module = self._new_module(cells, settings)
        self.record = fit(
            self.module, self._cells_to_train(cells, settings), settings, keep=self._never_held_out(cells, settings),
            checkpoint_dir=folder, resume=resume, progress=progress,
            loader=elsewhere,
        )  # fmt: skip
        self.module.to("cpu")
        self.history = self.record.history
        self.training_facts = storage.training_facts(self.record)
        self._after_training()

    def estimate_training(self, **training: Any) -> Estimate:
        """What `train` with these arguments will take, from some steps of it; the model stays as it is.

        Parameters
        ----------
        **training
            Arguments of `train` that settle how it goes: `max_epochs`, `batch_size`, `device`, `num_threads`, ...

        Returns
        -------
        Estimate
            Epochs, seconds, peak memory and disk in GiB; as text, a sentence.

        Raises
        ------
        SettingError
            If an argument has no meaning.
        """
        from lucidcell.training.estimate import estimate

        known = tuple(field.name for field in fields(Settings))
        refuse_keywords("estimate_training", {name: one for name, one in training.items() if name not in known}, known)
        return estimate(self, self._resolve(Settings(**training)))

    def _loader(self, batches: Iterable[Mapping[str, Any]], max_epochs: int | None) -> Loader:
        if max_epochs is None:
            raise SettingError("with a loader, whose cells are not known, max_epochs has no default: say how many.")
        if self.external_of(vars(self.config))[0] is not None:
            raise SettingError(
                "a loader has no external embedding: make the model without external_key, or train from files."
            )
        if any(phase.turn is not None for phase in cast(Trainable, self.module).phases()):
            raise SettingError(
                "with a loader no classifier is fitted to cells that are not at hand: make the model with "
                "training='joint'."
            )
        if self.schema.batch_key == PART_KEY:
            raise SettingError(
                "the batches of this model are its data sets, which the cells of a loader do not name: make it of one "
                "AnnData with batch_key."
            )
        return Loader(batches, self.schema, type(self).__name__)

    def _resolve(self, settings: Settings) -> Settings:
        """The settings with this model's defaults."""
        return settings.resolve(
            len(self._own_cells("train it")), self.share_of_epochs, self.share_of_learning_rate, self.fewest_steps,
            self.batch_size_by_default,
        )  # fmt: skip

    def _new_module(self, cells: Cells, settings: Settings) -> nn.Module:
        """An untrained module for `cells`, drawn with the seed of the settings."""
        raise NotImplementedError

    def _training_cells(self, cells: Cells, settings: Settings) -> Cells:
        """Those that the loop will train on."""
        return cells.select(hold_out(len(cells), settings.train_size, settings.seed)[0])

    def _cells_to_train(self, cells: Cells, settings: Settings) -> Cells:
        """The same cells, with what the loss needs besides."""
        return cells

    def _never_held_out(self, cells: Cells, settings: Settings) -> np.ndarray | None:
        """Cells (n,) that always train; None for no such wish."""
        return None

    def _after_training(self) -> None:
        """What a model works out once it is trained, besides its weights."""

    # --- data ---

    def _own_cells(self, action: str) -> Cells:
        if self.cells is None:
            raise DataError(f"this model was loaded without data; pass an AnnData to {action}.")
        return self.cells

    def cells_of(self, adata: AnnData | None, indices: Sequence[int] | np.ndarray | None = None) -> Cells:
        """The model's own cells, or those of another AnnData with the same genes; of them `indices` (or a mask)."""
        self._check_trained()
        if adata is None:
            cells = self._own_cells("read it out")
        else:
            external_key, required = self.external_of(vars(self.config))
            cells = Cells.from_schema(
                adata, self.schema, external_key=external_key, external_required=required, model=type(self).__name__
            )
        if indices is None:
            return cells
        try:
            chosen = cells.select(np.asarray(indices))
        except IndexError as error:
            raise DataError(f"indices cannot be used: {error}") from error
        if not len(chosen):
            raise DataError(
                f"indices name none of the {len(cells)} cells; give positions or a boolean mask, or None for all."
            )
        return chosen

    @staticmethod
    def external_of(config: Mapping[str, Any]) -> tuple[str | None, bool]:
        """Key of obsm that a model with this structure reads, and whether its encoder cannot do without."""
        return None, False

    def batches(self, cells: Cells, batch_size: int | None = None) -> Iterator[Batch]:
        """All cells in order, some at a time."""
        size = READ_OUT_BATCH if batch_size is None else batch_size
        if size < 1:
            raise SettingError(f"batch_size is {batch_size!r}; it must be a whole number of at least 1, or None.")
        yield from cells.in_order(size)

    def _check_trained(self) -> None:
        if self.training_facts is None:
            raise NotTrainedError(f"this {type(self).__name__} has not been trained; call train() first.")

    @property
    def train_indices(self) -> np.ndarray:
        """Positions of the cells that trained."""
        return self._trained_record().train_rows

    @property
    def validation_indices(self) -> np.ndarray:
        """Positions of the cells that were held out."""
        return self._trained_record().validation_rows

    @property
    def seed(self) -> int | None:
        """Seed of the training; None for a model that was not trained, or not here."""
        facts = self.training_facts or {}
        return facts.get("settings", {}).get("seed")

    def _trained_record(self) -> Record:
        if self.record is None:
            raise NotTrainedError("the split is known only to the model that was trained in this session.")
        return self.record

    @property
    def factor_names(self) -> list[str]:
        """Z1 ... ZD."""
        return [f"Z{d + 1}" for d in range(self.config.n_latent)]

    def tables(self) -> dict[str, pd.DataFrame]:
        """Read-outs of the model's own cells for the run folder, by file name."""
        raise NotImplementedError

    # --- on disk ---

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the run folder: weights, JSON, history, tables and read-outs; see `lucidcell.models.storage`."""
        storage.save(self, Path(path), overwrite=overwrite)

    @classmethod
    def setup_anndata(cls, *args: object, **kwargs: object) -> None:
        """Not needed; raises a sentence that says what to do instead."""
        refuse_setup(cls.__name__)

    # --- display ---

    def __repr__(self) -> str:
        schema = self.schema
        state = "not trained"
        if self.training_facts is not None:
            state = f"trained for {self.training_facts['epochs']} epochs"
        return (
            f"{type(self).__name__}({schema.n_genes} genes, {schema.n_batches} batches, "
            f"{self.config.n_latent} factors; {state})"
        )

    def _repr_html_(self) -> str:
        from html import escape

        rows = {"genes": self.schema.n_genes, "batches": ", ".join(self.schema.batch_categories)} | asdict(self.config)
        if self.training_facts is not None:
            rows |= {key: self.training_facts[key] for key in ("epochs", "best_epoch", "stopped", "seconds")}
        body = "".join(f"<tr><td>{escape(key)}</td><td>{escape(str(value))}</td></tr>" for key, value in rows.items())
        return f"<b>{type(self).__name__}</b><table>{body}</table>"

    @classmethod
    def _restore(cls, config: dict[str, Any], schema: Schema, cells: Cells | None) -> Self:
        """An untrained model from its stored description."""
        raise NotImplementedError


def load(path: str | Path, adata: AnnData | None = None) -> Any:
    """Load a model saved with `Model.save`.

    Parameters
    ----------
    path
        Run folder.
    adata
        Data to read the model out on; genes and categories are aligned by name. Without it, read-outs need an AnnData.

    Raises
    ------
    FileError
        If the folder is not a run folder, or is damaged (the weights are checked against their sha256).
    DataError
        If `adata` does not fit the model.
    """
    return storage.load(Path(path), adata)
