"""The training loop with modules so small that what it should do is known by hand."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from battery import HELD_OUT, Killed, assert_same_weights, assert_sentence, checkpoint_every_step, killing
from torch import Tensor, nn

from lucidcell.cells.batch import Batch
from lucidcell.cells.cells import Cells
from lucidcell.errors import SettingError, TrainingError
from lucidcell.training.checkpoint import Checkpoint
from lucidcell.training.loop import Record, early_stopping_patience, epochs_per_phase, fit
from lucidcell.training.optimizer import Adam
from lucidcell.training.phases import Loss, Phase, Turn
from lucidcell.training.settings import Settings


class Level(nn.Module):
    """Learns one number: the mean of a cell's log library. The loss is a squared distance and a constant."""

    def __init__(self, warmup: float = 0.0) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.zeros(()))
        self.warmup = warmup
        self.seen: list[tuple[float, int, bool]] = []  # progress, cells, training?

    def loss(self, batch: Batch, progress: float) -> Loss:
        self.seen.append((progress, batch.n_cells, self.training))
        distance = (batch.library.log() - self.level).square().sum()
        terms = {"distance": distance.detach(), "constant": torch.tensor(2.0 * batch.n_cells)}
        return Loss(cells=distance + 2.0 * batch.n_cells, n_cells=batch.n_cells, terms=terms)

    def phases(self) -> list[Phase]:
        return [Phase("level", self.loss, [self.level], warmup=self.warmup)]


class Scripted(Level):
    """Reports a held-out loss from a script, one number an epoch."""

    def __init__(self, script: list[float], warmup: float = 0.0) -> None:
        super().__init__(warmup)
        self.script = script
        self.levels: list[float] = []  # after each epoch

    def loss(self, batch: Batch, progress: float) -> Loss:
        if self.training:
            return super().loss(batch, progress)
        self.levels.append(self.level.item())
        value = torch.tensor(self.script[len(self.levels) - 1]) * batch.n_cells
        return Loss(cells=value, n_cells=batch.n_cells, terms={"distance": value})


class Drawing(Level):
    """Its loss draws from torch's generator, so that order and number of draws decide the outcome."""

    def loss(self, batch: Batch, progress: float) -> Loss:
        noise = torch.randn(batch.n_cells)
        distance = (batch.library.log() + noise - self.level).square().sum()
        return Loss(cells=distance, n_cells=batch.n_cells, terms={"distance": distance.detach()})


class TwoPhases(nn.Module):
    """First one number, then another that depends on it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))

    def _loss(self, batch: Batch, wanted: Tensor, value: Tensor) -> Loss:
        distance = (wanted + torch.randn(batch.n_cells) - value).square().sum()
        return Loss(cells=distance, n_cells=batch.n_cells, terms={"distance": distance.detach()})

    def phases(self) -> list[Phase]:
        def first(batch: Batch, progress: float) -> Loss:
            return self._loss(batch, batch.library.log(), self.first)

        def second(batch: Batch, progress: float) -> Loss:
            return self._loss(batch, self.first.detach().expand(batch.n_cells), self.second)

        return [Phase("one", first, [self.first]), Phase("two", second, [self.second], share=2.0)]


class Alternating(nn.Module):
    """One number learns the mean of all cells; after each epoch another learns how far batch 1 lies from it."""

    def __init__(self, passes: int = 3) -> None:
        super().__init__()
        self.level, self.gap = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))
        self.passes = passes
        self.seen: list[tuple[int, bool, bool]] = []  # cells of a pass, training?, does the level learn?

    def loss(self, batch: Batch, progress: float) -> Loss:
        noise = torch.randn(batch.n_cells)
        distance = (batch.library.log() + noise - self.level + 0 * self.gap).square().sum()
        return Loss(cells=distance, n_cells=batch.n_cells, terms={"distance": distance.detach()})

    def of_turn(self, above: Tensor, batch: Tensor) -> Tensor:
        self.seen.append((len(above), self.training, self.level.requires_grad))
        assert (batch == 1).all()
        return (above + torch.randn(len(above)) - self.gap + 0 * self.level).square().mean()

    def inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        assert not self.training
        assert not torch.is_grad_enabled()
        return batch.library.log() - self.level, batch.batch

    def phases(self) -> list[Phase]:
        turn = Turn("gap", lambda cells: cells.batch == 1, self.inputs, self.of_turn, [self.gap], self.passes)
        return [Phase("both", self.loss, [self.level], turn=turn)]


@pytest.fixture(scope="module")
def cells(simulated_once: ad.AnnData) -> Cells:
    return Cells.from_anndata(simulated_once, batch_key="batch")


def run(module: nn.Module, cells: Cells, folder: Path | None = None, resume: bool = False, **changed: object) -> Record:
    settings = Settings(**({"max_epochs": 6, "batch_size": 16, "num_threads": 1, "learning_rate": 0.5} | changed))
    return fit(module, cells, settings.resolve(len(cells)), checkpoint_dir=folder, resume=resume, progress=False)


# --- what happens in an epoch -----------------------------------------------------------------------------------


def test_the_minimum_is_found(cells):
    module = Level()
    record = run(module, cells, max_epochs=60, train_size=1.0)
    logs = np.log(cells.library[record.train_rows])
    assert module.level.item() == pytest.approx(logs.mean(), abs=0.02)
    assert record.history["train_distance"].iloc[-1] == pytest.approx(logs.var(), rel=0.05)


def test_progress_runs_from_zero_to_one_and_every_cell_counts_once(cells):
    module = Level()
    record = run(module, cells, max_epochs=3)
    training = [(progress, n) for progress, n, in_training in module.seen if in_training]
    held_out = [(progress, n) for progress, n, in_training in module.seen if not in_training]
    steps = len(training)
    np.testing.assert_allclose([progress for progress, _ in training], np.arange(steps) / steps)
    assert sum(n for _, n in training) == 3 * len(record.train_rows)
    assert held_out == [(1.0, len(record.validation_rows))] * 3, "the held-out loss has the full KL weight"


def test_history_holds_means_per_cell(cells):
    record = run(Level(), cells, max_epochs=4)
    table = record.history
    assert list(table["epoch"]) == [1, 2, 3, 4]
    assert set(table["phase"]) == {"level"}
    assert np.allclose(table["train_constant"], 2)
    np.testing.assert_allclose(table["train_loss"], table["train_distance"] + 2, rtol=1e-5)
    np.testing.assert_allclose(table[HELD_OUT], table["validation_distance"] + table["validation_constant"], rtol=1e-5)
    assert table["seconds"].is_monotonic_increasing
    assert table["learning_rate"].iloc[-1] == pytest.approx(0.5e-3)
    assert record.epochs == 4
    assert record.cells_per_second > 0


def test_without_held_out_cells_the_last_weights_stay(cells):
    record = run(Level(), cells, train_size=1.0)
    assert HELD_OUT not in record.history
    assert len(record.validation_rows) == 0
    assert (record.best_epoch, record.stopped) == (5, "finished")


def test_a_term_of_the_data_set_counts_once_a_step(cells):
    class WithPrior(Level):
        def loss(self, batch: Batch, progress: float) -> Loss:
            return super().loss(batch, progress)._replace(dataset={"prior": 1000.0 * (self.level - 3.0).square()})

    module = WithPrior()
    run(module, cells, max_epochs=60, train_size=1.0)
    mean = np.log(cells.library[:]).mean()
    assert module.level.item() == pytest.approx((mean + 1000 * 3) / 1001, abs=0.05)


def test_gradients_are_clipped(cells):
    norms: list[float] = []
    step = Adam.step

    def watch(self: Adam, learning_rate: float) -> None:
        norms.append(math.sqrt(sum(float(p.grad.square().sum()) for p in self.parameters)))
        step(self, learning_rate)

    with patch.object(Adam, "step", watch):
        run(Level(), cells, max_epochs=1)
        free, norms = norms, []
        run(Level(), cells, max_epochs=1, gradient_clip=0.01)
    assert min(free) > 1
    assert max(norms) <= 0.01 * 1.001


def test_afterwards_the_module_evaluates_and_holds_no_gradients(cells):
    module = Level()
    run(module, cells)
    assert not module.training
    assert module.level.grad is None


def test_phases_train_their_own_parameters_in_turn(cells):
    module = TwoPhases()
    record = run(module, cells, max_epochs=30, train_size=1.0)
    assert list(record.history["phase"]) == ["one"] * 10 + ["two"] * 20
    assert list(record.history["epoch"]) == list(range(1, 31))
    assert module.first.item() == pytest.approx(np.log(cells.library).mean(), abs=0.6)
    assert module.second.item() == pytest.approx(module.first.item(), abs=0.6)


def test_a_turn_follows_every_epoch_over_the_cells_that_it_concerns(cells):
    module = Alternating()
    record = run(module, cells, max_epochs=60, batch_size=1000, early_stopping=False)
    concerned = record.train_rows[cells.batch[record.train_rows] == 1]
    assert module.seen == [(len(concerned), True, False)] * 3 * 60
    logs = np.log(cells.library)
    assert module.gap.item() == pytest.approx(logs[concerned].mean() - module.level.item(), abs=0.5)
    assert record.history["train_gap"].iloc[-1] == pytest.approx(1 + logs[concerned].var(), abs=0.7)
    assert module.level.requires_grad
    assert module.gap.requires_grad


def test_a_phase_trains_its_parameters_alone_and_gradients_do_not_pile_up(cells):
    module = Alternating()
    gaps = []

    def watch(self: Adam, learning_rate: float) -> None:
        assert [p.grad is None for p in self.parameters] == [False]
        others = {module.level, module.gap} - set(self.parameters)
        assert [p.grad is None for p in others] == [True]
        if self.parameters == [module.level]:
            gaps.append(module.gap.item())

    with patch.object(Adam, "step", watch):
        run(module, cells, max_epochs=2)
    assert set(gaps) == {0.0}


def test_a_turn_without_cells_is_passed_over(cells):
    alone = cells.select(np.flatnonzero(cells.batch == 0))
    record = run(Alternating(), alone)
    assert "train_gap" not in record.history
    assert record.epochs == 6


def test_a_turn_that_goes_wrong_says_so(cells):
    module = Alternating()
    module.of_turn = lambda above, batch: module.gap * math.nan  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match="the gap loss stopped being finite") as caught:
        run(module, cells)
    assert_sentence(caught.value)


def test_best_epochs_are_those_of_the_last_phase(cells):
    class Twice(Scripted):
        def phases(self) -> list[Phase]:
            return [Phase("one", self.loss, [self.level]), Phase("two", self.loss, [self.level])]

    module = Twice([1.0, 5.0, 9.0, 8.0, 7.0, 7.5])
    record = run(module, cells)
    assert list(record.history["phase"]) == ["one"] * 3 + ["two"] * 3
    assert record.best_epoch == 4, "the first phase came lower"
    assert module.level.item() == module.levels[4]


def test_a_phase_that_stops_early_does_not_end_the_next(cells):
    class Twice(Scripted):
        def phases(self) -> list[Phase]:
            return [Phase("one", self.loss, [self.level]), Phase("two", self.loss, [self.level])]

    record = run(Twice([1.0] + [2.0] * 5 + list(np.linspace(9, 8, 20))), cells, max_epochs=20)
    assert list(record.history["phase"]) == ["one"] * 6 + ["two"] * 10
    assert (record.best_epoch, record.stopped) == (15, "finished")


def test_the_best_weights_count_the_terms_of_the_data_set(cells):
    class WithTerm(Scripted):
        def loss(self, batch: Batch, progress: float) -> Loss:
            loss = super().loss(batch, progress)
            return loss if self.training else loss._replace(dataset={"term": torch.tensor(4.0 - len(self.levels))})

    record = run(WithTerm([1.0, 1.5, 2.0, 3.5, 9.0, 9.0]), cells)
    assert record.history["validation_term"].tolist() == [3.0, 2.0, 1.0, 0.0, -1.0, -2.0]
    assert record.history[HELD_OUT].tolist() == [1.0, 1.5, 2.0, 3.5, 9.0, 9.0]
    assert record.best_epoch == 2


def test_epochs_are_shared_out_and_every_phase_gets_one():
    def phases(*shares: float) -> list[Phase]:
        return [Phase(str(i), lambda b, p: None, [], share=share) for i, share in enumerate(shares)]

    assert epochs_per_phase(phases(1), 17, 30) == [17]
    assert epochs_per_phase(phases(1, 3), 20, 30) == [5, 15]
    assert epochs_per_phase(phases(1, 1000), 20, 30) == [1, 20]


# --- stopping ---------------------------------------------------------------------------------------------------


def test_early_stopping_keeps_the_best_weights(cells):
    script = [5.0, 4.0, 3.0, 3.5, 3.4, 3.3, 3.2, 3.1, 3.0, *[9.0] * 30]
    module = Scripted(script)
    record = run(module, cells, max_epochs=30)
    assert record.stopped == "early stopping"
    assert record.best_epoch == 2
    assert record.epochs == 3 + early_stopping_patience(30)
    assert module.level.item() == module.levels[2] != module.levels[-1]


def test_the_best_weights_are_kept_without_early_stopping_too(cells):
    module = Scripted([5.0, 1.0, 3.0, 3.0, 3.0, 3.0])
    record = run(module, cells, early_stopping=False)
    assert (record.stopped, record.epochs, record.best_epoch) == ("finished", 6, 1)
    assert module.level.item() == module.levels[1]


def test_early_stopping_looks_only_after_the_warm_up(cells):
    script = [0.0, *np.linspace(9, 1, 19).tolist()]  # lowest before the warm-up is over
    module = Scripted(script, warmup=0.5)
    record = run(module, cells, max_epochs=20)
    assert record.stopped == "finished"
    assert record.best_epoch == 19
    assert module.level.item() == module.levels[19]
    late = Scripted([0.0] * 10 + [1.0] + [2.0] * 30, warmup=0.5)
    record = run(late, cells, max_epochs=20)
    assert record.best_epoch == 10
    assert record.stopped == "early stopping"


def test_ctrl_c_keeps_the_model_trained_so_far(cells, caplog):
    module = Drawing()
    with patch.object(Cells, "take", interrupting(Cells.take, 30)), caplog.at_level(logging.WARNING, "lucidcell"):
        record = run(module, cells)
    assert record.stopped == "interrupted"
    assert 1 <= record.epochs < 6
    assert "the model keeps what it has learned" in caplog.text
    assert module.level.item() != 0
    assert not module.training
    assert record.best_epoch < record.epochs


def test_ctrl_c_in_the_first_step_keeps_a_usable_model(simulated, tmp_path):
    import lucidcell as lc

    model = lc.SCVI(simulated, n_hidden=8, n_latent=2)
    with patch.object(Cells, "take", interrupting(Cells.take, 1)):
        model.train(3, num_threads=1, progress=False)
    assert model.record.stopped == "interrupted"
    assert model.get_latent_representation().shape == (120, 2)
    model.save(tmp_path / "run")
    assert lc.load(tmp_path / "run").training_facts["stopped"] == "interrupted"


def interrupting(function, count: int):
    """The same function, at whose `count`-th call the user presses Ctrl-C."""
    calls = 0

    def wrapped(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == count:
            raise KeyboardInterrupt
        return function(*args, **kwargs)

    return wrapped


# --- what goes wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_step_term_and_cause(cells, value):
    class Broken(Level):
        def loss(self, batch: Batch, progress: float) -> Loss:
            loss = super().loss(batch, progress)
            if progress < 0.5:
                return loss
            return loss._replace(cells=loss.cells * value, terms=loss.terms | {"constant": torch.tensor(value)})

    with pytest.raises(TrainingError) as caught:
        run(Broken(), cells, max_epochs=2)
    text = str(caught.value)
    assert "in phase 'level', epoch 2, step 1" in text
    assert f"the constant term is {value}" in text
    assert "learning rate of 0.5" in text
    assert_sentence(caught.value)


def test_weights_gone_wrong_are_noticed(simulated):
    """Also in the compiled layers: a NaN must not be taken for a unit that is switched off."""
    import lucidcell as lc

    model = lc.SCVI(simulated, n_hidden=8, n_latent=2)
    step = Adam.step

    def poison(self: Adam, learning_rate: float) -> None:
        step(self, learning_rate)
        with torch.no_grad():
            self.parameters[0].fill_(math.nan)

    with patch.object(Adam, "step", poison), pytest.raises(TrainingError, match="epoch 1, step 2"):
        model.train(2, batch_size=32, num_threads=1, progress=False)


def test_far_too_large_a_learning_rate_ends_in_a_sentence_or_a_finite_model(simulated):
    import lucidcell as lc

    model = lc.SCVI(simulated, n_hidden=8, n_latent=2)
    try:
        model.train(10, learning_rate=1e6, batch_size=32, num_threads=1, progress=False)
    except TrainingError as error:
        assert_sentence(error)
    else:
        assert np.isfinite(model.get_latent_representation()).all()


def test_settings_of_the_process_are_restored_after_an_error(cells):
    class Failing(Level):
        def loss(self, batch: Batch, progress: float) -> Loss:
            torch.rand(5)
            raise RuntimeError("in the middle")

    torch.manual_seed(4)
    state, precision, n_threads = torch.get_rng_state(), torch.get_float32_matmul_precision(), torch.get_num_threads()
    with pytest.raises(RuntimeError, match="in the middle"):
        run(Failing(), cells, num_threads=2, precision="bfloat16")
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_float32_matmul_precision() == precision
    assert torch.get_num_threads() == n_threads


# --- resuming ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [Drawing, TwoPhases, Alternating])
@pytest.mark.parametrize("write", [1, 2, 9, 20, 33])
def test_a_run_killed_anywhere_resumes_bit_for_bit(cells, tmp_path, module, write):
    whole = module()
    record = run(whole, cells, train_size=0.8)
    with checkpoint_every_step():
        with patch.object(Checkpoint, "write", killing(Checkpoint.write, write, late=True)), pytest.raises(Killed):
            run(module(), cells, tmp_path, train_size=0.8)
        resumed = module()
        again = run(resumed, cells, tmp_path, resume=True, train_size=0.8)
    assert_same_weights(resumed.state_dict(), whole.state_dict())
    pd.testing.assert_frame_equal(
        again.history.drop(columns="seconds"), record.history.drop(columns="seconds"), check_exact=True
    )
    assert again.history["seconds"].is_monotonic_increasing
    assert (again.best_epoch, again.stopped) == (record.best_epoch, record.stopped)


def test_early_stopping_survives_a_kill(cells, tmp_path):
    class Climbing(Drawing):
        """Gets worse all the time; the held-out loss is a function of the weights."""

        def loss(self, batch: Batch, progress: float) -> Loss:
            loss = super().loss(batch, progress)
            return loss._replace(cells=-loss.cells, terms={"distance": loss.terms["distance"]})

    whole, resumed = Climbing(), Climbing()
    record = run(whole, cells, max_epochs=40)
    assert record.stopped == "early stopping"
    with checkpoint_every_step():
        with patch.object(Checkpoint, "write", killing(Checkpoint.write, 15, late=True)), pytest.raises(Killed):
            run(Climbing(), cells, tmp_path, max_epochs=40)
        again = run(resumed, cells, tmp_path, resume=True, max_epochs=40)
    assert again.stopped == "early stopping"
    assert_same_weights(resumed.state_dict(), whole.state_dict())


def test_resuming_without_a_checkpoint_is_a_fresh_start(cells, tmp_path):
    one, other = Drawing(), Drawing()
    run(one, cells)
    run(other, cells, tmp_path / "empty", resume=True)
    assert_same_weights(one.state_dict(), other.state_dict())


def test_without_resume_an_old_checkpoint_is_passed_over(cells, tmp_path):
    one, other = Drawing(), Drawing()
    with checkpoint_every_step():
        run(one, cells, tmp_path)
        run(other, cells, tmp_path)
    assert_same_weights(one.state_dict(), other.state_dict())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"max_epochs": 7}, "max_epochs was 6 and is 7"),
        ({"batch_size": 8, "learning_rate": 0.1}, "batch_size was 16 and is 8; learning_rate was 0.5 and is 0.1"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(cells, tmp_path, changed, said):
    with checkpoint_every_step():
        run(Drawing(), cells, tmp_path)
    with pytest.raises(SettingError, match=f"belongs to another run .*{said}") as caught:
        run(Drawing(), cells, tmp_path, resume=True, **changed)
    assert_sentence(caught.value)


def test_a_checkpoint_of_other_data_or_another_structure_is_refused(cells, tmp_path):
    with checkpoint_every_step():
        run(Drawing(), cells, tmp_path)
    with pytest.raises(SettingError, match="n_cells was 120 and is 100"):
        run(Drawing(), cells.select(np.arange(100)), tmp_path, resume=True)
    with pytest.raises(SettingError, match="checksum of the data"):
        run(Drawing(), cells.select(np.arange(120)[::-1]), tmp_path, resume=True)
    with pytest.raises(SettingError, match="checksum of the structure"):
        run(TwoPhases(), cells, tmp_path, resume=True)
    with pytest.raises(SettingError, match="checksum of the data"):
        run(Drawing(), replace(cells, label=cells.label + 1), tmp_path, resume=True)


def test_a_checkpoint_of_another_course_is_refused(cells, tmp_path):
    with checkpoint_every_step():
        run(Alternating(), cells, tmp_path)
    with pytest.raises(SettingError, match="checksum of the structure"):
        run(Alternating(passes=4), cells, tmp_path, resume=True)


def test_resume_needs_a_folder(simulated):
    import lucidcell as lc

    with pytest.raises(SettingError, match="resume=True needs checkpoint_dir") as caught:
        lc.SCVI(simulated).train(1, resume=True, progress=False)
    assert_sentence(caught.value)


def test_a_checkpoint_that_cannot_be_written_ends_in_a_sentence(cells, tmp_path):
    from lucidcell.errors import FileError

    (tmp_path / "file").write_text("in the way")
    with checkpoint_every_step(), pytest.raises(FileError, match="could not be written") as caught:
        run(Drawing(), cells, tmp_path / "file")
    assert_sentence(caught.value)


# --- the bar ----------------------------------------------------------------------------------------------------


def test_the_bar_shows_loss_and_held_out_loss_and_can_be_silenced(cells, capsys):
    settings = Settings(max_epochs=3, batch_size=16, num_threads=1).resolve(len(cells))
    fit(Level(), cells, settings, progress=False)
    assert capsys.readouterr() == ("", "")
    fit(Level(), cells, settings, progress=True)
    shown = capsys.readouterr().err
    assert "3/3" in shown
    assert "loss" in shown
    assert "held-out" in shown
