"""Missing and damaged files of a run folder: one sentence each, never a traceback of another kind."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest

from lucidcell.errors import FileError
from lucidcell.report import report
from lucidcell.report.folder import Run


@pytest.fixture(scope="module")
def sound(make_run):
    return make_run()


@pytest.fixture
def run(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "run")


def assert_refused(run, words):
    with pytest.raises(FileError, match=words) as caught:
        report(run)
    message = str(caught.value)
    assert message.endswith(".")
    assert ": " in message  # a way out follows the colon
    assert not (run / "report.html").exists()


@pytest.mark.parametrize("name", [
    "model.json", "history.csv", "tables/cells.csv", "tables/latent.csv", "tables/loadings.csv", "tables/factors.csv",
    "tables/genes.csv",
])  # fmt: skip
class TestEveryFile:
    def test_missing(self, run, name):
        (run / name).unlink()
        assert_refused(run, f"{name} is missing")

    def test_empty(self, run, name):
        (run / name).write_text("")
        assert_refused(run, name)

    def test_cut_off(self, run, name):
        text = (run / name).read_text()
        (run / name).write_text(text[: len(text) // 2].rpartition(",")[0])
        assert_refused(run, name)

    def test_binary(self, run, name):
        (run / name).write_bytes(bytes(range(128, 256)) * 20)
        assert_refused(run, name)

    def test_folder_in_its_place(self, run, name):
        (run / name).unlink()
        (run / name).mkdir()
        assert_refused(run, name)

    def test_another_table(self, run, name):
        (run / name).write_text("gene,species\nA,B\n")
        assert_refused(run, name)


@pytest.mark.parametrize(("change", "words"), [
    (lambda m: m.pop("class"), "holds nothing at 'class', where str belongs"),
    (lambda m: m.update(config=[1]), r"holds \[1\] at 'config', where dict belongs"),
    (lambda m: m.update(schema_version=2), "schema version 2, and this lucidcell reads 1"),
    (lambda m: m.update(training="yes"), "'yes' at 'training', where dict or null belongs"),
    (lambda m: m["data"].update(n_cells="many"), "'many' at 'data.n_cells', where int belongs"),
    (lambda m: m["data"].update(n_cells=True), "True at 'data.n_cells'"),
    (lambda m: m["data"].update(median_library=float("nan")), "nan at 'data.median_library'"),
    (lambda m: m["data"].update(warnings="one"), "'one' at 'data.warnings', where list belongs"),
    (lambda m: m["data"].update(n_cells=7), "120 rows where model.json says 7"),
    (lambda m: m["schema"].pop("batch_key"), "holds nothing at 'schema.batch_key', where str or null belongs"),
    (lambda m: m["training"].update(seconds=None), "None at 'training.seconds'"),
    (lambda m: m["training"].update(settings=None), "None at 'training.settings'"),
])  # fmt: skip
def test_faults_of_model_json(run, change, words):
    model = json.loads((run / "model.json").read_text())
    change(model)
    (run / "model.json").write_text(json.dumps(model))
    assert_refused(run, words)


@pytest.mark.parametrize("text", ["[1, 2]", "null", "3", "{", '{"a": 1}{', "[" * 100_000])
def test_model_json_that_is_no_object(run, text):
    (run / "model.json").write_text(text)
    assert_refused(run, r"model\.json")


@pytest.mark.parametrize(("table", "change", "words"), [
    ("latent", lambda t: t.iloc[::-1], "do not list the same cells in the same order"),
    ("latent", lambda t: t.iloc[:-1], "119 and 120 rows"),
    ("latent", lambda t: t.assign(Z1=float("inf")), "120 of 120 cells lack a finite value"),
    ("latent", lambda t: t.assign(Z1="x"), "latent.csv cannot be read as the table it should be"),
    ("latent", lambda t: t[["cell"]], "holds 0 factors"),
    ("loadings", lambda t: t.iloc[::-1], "do not list the same genes in the same order"),
    ("loadings", lambda t: t.drop(columns="Z2"), "lacks the columns Z2"),
    ("factors", lambda t: t.assign(factor="Z9"), "do not list the same factors"),
    ("factors", lambda t: t.assign(kl="large"), "factors.csv cannot be read"),
    ("genes", lambda t: t.drop(columns="cv_expected"), "lacks the columns cv_expected"),
    ("cells", lambda t: t.iloc[:5], "5 rows where model.json says 120"),
    ("umap", lambda t: t.assign(cell="someone else"), "120 rows, 120 of them of an unknown cell"),
    ("umap", lambda t: t.assign(umap1=float("nan")), "120 of them of an unknown cell or without numbers: delete it"),
    ("umap", lambda t: t.iloc[:0], "0 rows"),
    ("umap", lambda t: t.drop(columns="umap2"), "lacks the columns umap2"),
])  # fmt: skip
def test_faults_of_tables(run, table, change, words):
    path = run / "tables" / f"{table}.csv"
    change(pd.read_csv(path)).to_csv(path, index=False)
    assert_refused(run, words)


def test_model_saved_without_data(run):
    model = json.loads((run / "model.json").read_text()) | {"data": {}}
    (run / "model.json").write_text(json.dumps(model))
    assert_refused(run, "saved by a model without data")


def test_no_folder(tmp_path):
    with pytest.raises(FileError, match="is not a folder: pass the folder that model.save"):
        report(tmp_path / "nothing")


def test_names_that_look_like_missing_values_or_numbers_stay_names(make_run):
    names = ["NA", "nan", "null", "None", "", "1", "1.0", "001", "TRUE", "-inf"]
    cells = [f"{i:03d}" for i in range(120)]
    run = Run(make_run(genes=names + [f"g{i}" for i in range(70)], cells=cells, label=(names * 12)))
    assert list(run.genes["gene"][:10]) == names
    assert list(run.loadings["gene"][:10]) == names
    assert list(run.cells["cell"]) == cells
    assert set(run.labels.categories) == set(names) - {""}
    assert (run.labels.codes < 0).sum() == 12


def test_empty_numbers_are_missing_numbers(run):
    factors = pd.read_csv(run / "tables/factors.csv").assign(kl="")
    factors.to_csv(run / "tables/factors.csv", index=False)
    assert Run(run).factors["kl"].isna().all()


def test_labels_keep_the_order_of_the_schema(make_run):
    run = make_run(label=["a", "b", "c", "Unknown"] * 30)
    model = json.loads((run / "model.json").read_text())
    model["schema"]["label_categories"] = ["c", "never", "a"]
    (run / "model.json").write_text(json.dumps(model))
    assert list(Run(run).labels.categories) == ["c", "a", "b"]
