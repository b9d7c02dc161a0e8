"""The command line: complete run folders, and one line for every mistake."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from battery import Killed, checkpoint_every_step, killing

import lucidcell as lc
from lucidcell import cli
from lucidcell.cells import stored
from lucidcell.training.checkpoint import Checkpoint

RUN_FILES = {"model.json", "weights.safetensors", "history.csv", "result.h5ad", "report.html"}
TABLES = {f"tables/{name}.csv" for name in ("cells", "latent", "loadings", "factors", "genes")}


class Answer(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def lucidcell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Run the command in this process, as its entry point does."""

    def run(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["lucidcell", *map(str, arguments)])
        status: object = 0
        try:
            cli.main()
        except SystemExit as leaving:
            status = leaving.code or 0
        assert isinstance(status, int)
        return Answer(status, *capsys.readouterr())

    return run


@pytest.fixture
def data(simulated: ad.AnnData, tmp_path: Path) -> Path:
    path = tmp_path / "cells.h5ad"
    simulated.write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def fitted(simulated_once: ad.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder that `lucidcell fit` wrote, in a process of its own."""
    folder = tmp_path_factory.mktemp("cli")
    simulated_once.write_h5ad(folder / "cells.h5ad")
    arguments = [
        "--batch-key",
        "batch",
        "--labels-key",
        "cell_type",
        "--n-hidden",
        "16",
        "--n-latent",
        "3",
        "--max-epochs",
        "3",
    ]
    command = [
        sys.executable,
        "-m",
        "lucidcell.cli",
        "fit",
        str(folder / "cells.h5ad"),
        "--out",
        str(folder / "run"),
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "120 cells, 50 genes, 2 batches, 3 labels" in done.stdout
    assert "3 epochs in" in done.stdout
    assert done.stdout.splitlines()[-1] == f"report: {folder / 'run' / 'report.html'}"
    return folder / "run"


# --- what works -------------------------------------------------------------------------------------------------


def test_version(lucidcell):
    assert lucidcell("--version") == (0, f"lucidcell {lc.__version__}\n", "")


@pytest.mark.parametrize("command", [(), ("fit",), ("report",), ("map",), ("enrich",), ("populations",), ("demo",)])
def test_help_names_every_option(lucidcell, command):
    answer = lucidcell(*command, "--help")
    assert answer.status == 0
    assert "Usage" in answer.out
    for option in {"fit": ["--n-latent", "--batch-key"], "map": ["--min-overlap"]}.get("".join(command), []):
        assert option in answer.out


def test_without_a_command_the_help_is_shown(lucidcell):
    answer = lucidcell()
    assert answer.status == 2
    assert "fit" in answer.out + answer.err


def test_help_answers_at_once():
    """Median of three; half a second on an idle machine, twice that allowed here."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "lucidcell.cli", "--help"], capture_output=True, check=True)
        seconds.append(time.perf_counter() - start)
    assert statistics.median(seconds) < 1.0, seconds


def test_help_does_not_load_torch():
    code = "import sys, lucidcell.cli; print([m for m in ('torch', 'scanpy', 'anndata', 'pandas') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_fit_writes_a_complete_run_folder(fitted):
    names = {p.relative_to(fitted).as_posix() for p in fitted.rglob("*") if p.is_file()}
    assert names >= RUN_FILES | TABLES
    facts = json.loads((fitted / "model.json").read_text())
    assert facts["command"].startswith("lucidcell fit ")
    assert facts["command"].endswith("--max-epochs 3")
    assert len(pd.read_csv(fitted / "history.csv")) == 3
    page = (fitted / "report.html").read_text()
    assert "<html" in page
    assert "Z1" in page
    assert "peak memory, with the data" in page


def test_a_fit_is_a_model_of_the_library(fitted, simulated):
    model = lc.load(fitted, simulated)
    assert repr(model) == "SCVI(50 genes, 2 batches, 3 factors; trained for 3 epochs)"
    np.testing.assert_allclose(
        model.get_latent_representation(),
        pd.read_csv(fitted / "tables/latent.csv")[["Z1", "Z2", "Z3"]],
        rtol=1e-4,
        atol=1e-5,
    )


def test_every_option_of_fit_reaches_the_model(lucidcell, data, tmp_path):
    answer = lucidcell(
        "fit", data, "--out", tmp_path / "run", "--model", "scvi", "--batch-key", "batch", "--labels-key", "cell_type",
        "--categorical-covariate", "sex", "--continuous-covariate", "age", "--size-factor-key", "size",
        "--n-top-genes", 30, "--n-latent", 4, "--n-hidden", 12, "--n-layers", 2, "--gene-likelihood", "zinb",
        "--max-epochs", 2, "--batch-size", 40, "--learning-rate", 0.004, "--no-early-stopping", "--device", "cpu",
        "--num-threads", 1, "--precision", "float32", "--seed", 7,
    )  # fmt: skip
    assert answer.status == 0, answer.err
    facts = json.loads((tmp_path / "run" / "model.json").read_text())
    config, schema, settings = facts["config"], facts["schema"], facts["training"]["settings"]
    assert (config["n_latent"], config["n_hidden"], config["n_layers"], config["gene_likelihood"]) == (4, 12, 2, "zinb")
    assert (schema["batch_key"], schema["labels_key"], schema["size_factor_key"]) == ("batch", "cell_type", "size")
    assert list(schema["categorical_covariates"]) == ["sex"]
    assert list(schema["continuous_covariates"]) == ["age"]
    assert len(schema["gene_names"]) == 30
    wanted = {
        "max_epochs": 2, "batch_size": 40, "learning_rate": 0.004, "early_stopping": False, "device": "cpu",
        "num_threads": 1, "precision": "float32", "seed": 7,
    }  # fmt: skip
    assert {name: settings[name] for name in wanted} == wanted


def test_layers_and_other_formats_are_read(lucidcell, simulated, tmp_path):
    simulated.layers["counts"] = simulated.X.copy()
    simulated.X = simulated.X.log1p()
    simulated.write_zarr(tmp_path / "cells.zarr")
    small = ("--n-hidden", 8, "--n-latent", 2, "--max-epochs", 1, "--num-threads", 1)
    answer = lucidcell("fit", tmp_path / "cells.zarr", "--out", tmp_path / "run", "--layer", "counts", *small)
    assert answer.status == 0, answer.err


def test_map_writes_a_run_folder_of_the_query(lucidcell, fitted, simulated, tmp_path):
    simulated.obs["batch"] = ["new"] * 120
    simulated[:40, :45].copy().write_h5ad(tmp_path / "query.h5ad")
    answer = lucidcell("map", fitted, tmp_path / "query.h5ad", "--out", tmp_path / "mapped", "--max-epochs", 2)
    assert answer.status == 0, answer.err
    assert {p.name for p in (tmp_path / "mapped").iterdir()} >= RUN_FILES
    assert len(pd.read_csv(tmp_path / "mapped" / "tables" / "latent.csv")) == 40
    assert lc.load(tmp_path / "mapped").schema.batch_categories == ("batch_0", "batch_1", "new")


def test_labels_are_learned_from_one_file_and_given_to_another(lucidcell, simulated, tmp_path):
    simulated.obs["known"] = ["?", *simulated.obs["cell_type"].astype(str)[1:]]
    simulated.write_h5ad(tmp_path / "cells.h5ad")
    (tmp_path / "tree.csv").write_text("child,parent\ntype_0,first\ntype_1,first\ntype_2,\n")
    answer = lucidcell(
        "fit", tmp_path / "cells.h5ad", "--out", tmp_path / "run", "--model", "scanvi", "--batch-key", "batch",
        "--labels-key", "known", "--unlabeled-category", "?", "--taxonomy", tmp_path / "tree.csv",
        "--n-hidden", 8, "--n-latent", 2, "--max-epochs", 3, "--num-threads", 1,
    )  # fmt: skip
    assert answer.status == 0, answer.err
    schema = json.loads((tmp_path / "run" / "model.json").read_text())["schema"]
    assert (schema["labels_key"], schema["unlabeled_category"]) == ("known", "?")
    assert dict(zip(schema["label_categories"], schema["label_parents"], strict=True))["first"] == -1
    assert "Annotation" in (tmp_path / "run" / "report.html").read_text()
    del simulated.obs["known"]
    simulated[:40].copy().write_h5ad(tmp_path / "query.h5ad")
    answer = lucidcell("map", tmp_path / "run", tmp_path / "query.h5ad", "--out", tmp_path / "mapped")
    assert answer.status == 0, answer.err
    table = pd.read_csv(tmp_path / "mapped" / "tables" / "annotation.csv")
    assert len(table) == 40
    assert set(table["prediction"]) <= {"type_0", "type_1", "type_2"}
    assert set(table["prediction_level_0"]) <= {"first", "type_2"}
    assert table["confidence"].between(1 / 3 - 1e-6, 1).all()


def test_report_can_be_written_again_with_a_title(lucidcell, fitted):
    answer = lucidcell("report", fitted, "--title", "Blood of <b>donors</b>")
    assert answer.status == 0, answer.err
    assert "Blood of &lt;b&gt;donors&lt;/b&gt;" in (fitted / "report.html").read_text()


def test_a_run_that_was_cut_off_is_resumed(lucidcell, data, tmp_path):
    small = ("--n-hidden", 8, "--n-latent", 2, "--num-threads", 1, "--max-epochs", 3)
    assert lucidcell("fit", data, "--out", tmp_path / "whole", *small).status == 0
    with checkpoint_every_step(), patch.object(Checkpoint, "write", killing(Checkpoint.write, 2, late=True)):
        with pytest.raises(Killed):
            lucidcell("fit", data, "--out", tmp_path / "resumed", *small)
    assert (tmp_path / "resumed" / "checkpoint").exists()
    answer = lucidcell("fit", data, "--out", tmp_path / "resumed", "--resume", *small)
    assert answer.status == 0, answer.err
    assert not (tmp_path / "resumed" / "checkpoint").exists(), "of use to a run that is not finished only"
    again = lucidcell("fit", data, "--out", tmp_path / "resumed", "--resume", *small)
    assert (again.status, "already holds a model" in again.err) == (1, True)
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "resumed")]
    assert weights[0] == weights[1]


def test_counts_may_stay_in_the_file(lucidcell, simulated, tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "IN_MEMORY", 0)
    simulated.write_h5ad(tmp_path / "a.h5ad")
    simulated.write_zarr(tmp_path / "a.zarr")
    small = ["--n-hidden", 16, "--n-latent", 3, "--max-epochs", 2, "--num-threads", 1]
    for name, read in {"a.h5ad": lc.read_h5ad, "a.zarr": lc.read_zarr}.items():
        out = tmp_path / f"run of {name}"
        answer = lucidcell("fit", tmp_path / name, "--out", out, "--backed", "--buffer-gb", 0.001, *small)
        assert answer.status == 0, answer.err
        written = pd.read_csv(out / "tables" / "latent.csv")[["Z1", "Z2", "Z3"]]
        model = lc.SCVI(read(tmp_path / name, backed="r"), n_hidden=16, n_latent=3)
        model.train(2, num_threads=1, buffer_gb=0.001, progress=False)
        np.testing.assert_allclose(written, model.get_latent_representation(), rtol=1e-5)
    (tmp_path / "matrix.h5").touch()
    answer = lucidcell("fit", tmp_path / "matrix.h5", "--out", tmp_path / "x", "--backed")
    assert answer.status == 1
    assert "--backed reads .h5ad and .zarr piece by piece, and" in answer.err


def test_an_estimate_trains_nothing(lucidcell, data, tmp_path):
    answer = lucidcell("fit", data, "--out", tmp_path / "run", "--estimate", "--max-epochs", 7)
    assert answer.status == 0, answer.err
    assert re.search(r"at most 7 epochs in about \d+ s, [\d.]+ GiB of memory and [\d.e-]+ GiB on the disk", answer.out)
    assert not (tmp_path / "run").exists()


def test_evaluate_prints_and_writes_the_scores(lucidcell, simulated, tmp_path):
    rng = np.random.default_rng(0)
    simulated.obsm["X_a"], simulated.obsm["X_b"] = rng.normal(size=(120, 3)), rng.normal(size=(120, 2))
    simulated.write_h5ad(tmp_path / "cells.h5ad")
    keys = ("--embedding", "X_a", "--embedding", "X_b", "--batch-key", "batch", "--labels-key", "cell_type")
    files = ("--out", tmp_path / "scores.csv", "--plot", tmp_path / "scores.svg")
    answer = lucidcell("evaluate", tmp_path / "cells.h5ad", *keys, *files)
    assert answer.status == 0, answer.err
    written = pd.read_csv(tmp_path / "scores.csv", index_col="embedding")
    table = lc.evaluate(simulated, ["X_a", "X_b"], batch_key="batch", labels_key="cell_type")
    np.testing.assert_allclose(written, table)
    assert list(written.columns) == list(table.columns)
    assert f"{table.at['X_b', 'total']:.3f}" in answer.out
    assert "batch correction" in (tmp_path / "scores.svg").read_text()


def test_evaluate_measures_topics_by_pairs_of_keys(lucidcell, simulated, tmp_path):
    rng = np.random.default_rng(0)
    simulated.obsm["shares"] = rng.dirichlet(np.ones(3), 120)
    simulated.varm["scores"] = rng.random((simulated.n_vars, 3))
    simulated.write_h5ad(tmp_path / "cells.h5ad")
    names = "\t".join(simulated.var_names[:20])
    (tmp_path / "sets.gmt").write_text(f"first\t\t{names}\n")
    kind = ("--metrics", "interpretability", "--labels-key", "cell_type", "--gene-sets", tmp_path / "sets.gmt")
    pairs = ("--embedding", "shares:scores", "--embedding", "shares:programs")
    answer = lucidcell("evaluate", tmp_path / "cells.h5ad", *pairs, *kind)
    assert answer.status == 0, answer.err
    assert "shares:scores" in answer.out
    assert "shares:programs" in answer.out
    purity = lc.metrics.topic_purity(simulated.obsm["shares"], simulated.obs["cell_type"])["IP"]
    assert f"{purity:.3f}" in answer.out
    answer = lucidcell("evaluate", tmp_path / "cells.h5ad", "--embedding", "shares", *kind)
    assert answer.status == 1
    assert "pairs of keys of obsm and varm" in answer.err


def test_de_writes_the_table_of_the_method(lucidcell, fitted, simulated, data, tmp_path):
    out = tmp_path / "genes.csv"
    groups = ("--groupby", "cell_type", "--group1", "type_0", "--group1", "type_2", "--group2", "type_1")
    answer = lucidcell("de", fitted, data, *groups, "--delta", 0.1, "--fdr", 0.2, "--seed", 3, "--out", out)
    assert answer.status == 0, answer.err
    table = lc.load(fitted).differential_expression(
        simulated, groupby="cell_type", group1=["type_0", "type_2"], group2="type_1", delta=0.1, fdr=0.2, seed=3
    )
    pd.testing.assert_frame_equal(pd.read_csv(out, index_col="gene", float_precision="round_trip"), table)
    first = table[table["group1"] == "type_2"].index[:10]
    assert f"type_2 vs type_1: {', '.join(first)}" in answer.out
    answer = lucidcell(
        "de", fitted, data, "--groupby", "batch", "--group1", "batch_0", "--mode", "vanilla", "--out", out
    )
    assert_one_line(answer, "no batch has both")


@pytest.fixture(scope="module")
def linear(simulated_once: ad.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of an LDVAE, fitted with other seeds too, and a GMT file with the genes of its programs."""
    folder = tmp_path_factory.mktemp("linear")
    simulated_once.write_h5ad(folder / "cells.h5ad")
    given = ["--model", "ldvae", "--batch-key", "batch", "--labels-key", "cell_type", "--n-latent", "3"]
    given += [
        "--n-hidden",
        "16",
        "--max-epochs",
        "20",
        "--batch-size",
        "32",
        "--stability-seeds",
        "2",
        "--num-threads",
        "1",
    ]
    command = [sys.executable, "-m", "lucidcell.cli", "fit", str(folder / "cells.h5ad"), "--out", str(folder / "run")]
    done = subprocess.run([*command, *given], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    of_program = simulated_once.var["program"].astype(str)
    lines = [
        "\t".join([f"HALLMARK_{name.upper()}", "", *of_program.index[of_program == name]])
        for name in sorted(set(of_program))
    ]
    (folder / "programs.gmt").write_text("\n".join(lines) + "\n")
    return folder / "run"


def test_factors_get_names_shares_and_stability(lucidcell, linear):
    answer = lucidcell("enrich", linear, "--gene-sets", linear.parent / "programs.gmt", "--min-size", 3)
    assert answer.status == 0, answer.err
    assert "R1 +  " in answer.out
    assert answer.out.splitlines()[-1] == f"report: {linear / 'report.html'}"
    tables = {path.stem: pd.read_csv(path, keep_default_na=False) for path in (linear / "tables").glob("*.csv")}
    assert set(tables["enrichment"]["factor"]) == {"R1", "R2", "R3"}
    assert tables["factors"]["share"].sum() == pytest.approx(1)
    assert tables["stability"]["agreement"].between(0, 1).all()
    page = (linear / "report.html").read_text()
    for said in ("share", "stability", "program 1", "Gene sets that the ends of the factors are enriched in"):
        assert said in page
    signal = lc.gene_signal(tables["loadings"].set_index("gene"), tables["genes"]["mean_observed"])
    wanted = lc.gsea(signal, linear.parent / "programs.gmt", min_size=3)
    np.testing.assert_allclose(tables["enrichment"]["es"], wanted["es"])


def test_networks_of_populations_are_compared_and_written(lucidcell, tmp_path):
    donors = lc.simulate_donors(4, 60, 30, n_modules=1, module_size=10, phenotype="continuous", seed=0)
    donors.write_h5ad(tmp_path / "donors.h5ad")
    size = ["--bin-size", 60, "--n-latent", 2, "--n-hidden", 16, "--n-hidden", 8, "--max-epochs", 30]
    out = tmp_path / "networks"
    answer = lucidcell("populations", tmp_path / "donors.h5ad", "--out", out, "--phenotype", "phenotype", *size)
    assert answer.status == 0, answer.err
    assert "separation by phenotype: mantel correlation" in answer.out
    assert "4 populations give p = 0.083 at the least: nothing can be significant" in answer.out
    genes = pd.read_csv(out / "genes.csv")
    assert set(genes["gene"]) == set(donors.var_names)
    assert len(list((out / "fits").glob("bin_*.npz"))) == 4
    for file in ("kernel.csv", "edges.csv", "network_4.graphml", "embedding.png"):
        assert (out / file).stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--by", "patient"], "obs has no column 'patient'"),
        (["--phenotype", "age"], "obs has no column 'age'"),
        (["--bin-size", "1"], "bin_size is 1"),
        (["--bin-size", "500"], "lower bin_size"),
        (["--n-bins-max", "0"], "n_bins_max is 0"),
        (["--layer", "raw"], "'raw'"),
        (["--n-top-genes", "1"], "n_top_genes is 1"),
        (["--quantile", "1"], "quantile is 1"),
        (["--n-latent", "0"], "n_latent is 0"),
        (["--n-hidden", "0"], "n_hidden"),
        (["--max-epochs", "0"], "max_epochs is 0"),
        (["--n-jobs", "0"], "n_jobs is 0"),
        (["--seed", "-1"], "seed is -1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_one_mistake_in_each_option_of_populations(lucidcell, tmp_path, arguments, said):
    lc.simulate_donors(2, 40, 10, n_modules=0, rewired=None, seed=0).write_h5ad(tmp_path / "donors.h5ad")
    size = [] if "--bin-size" in arguments else ["--bin-size", 40]
    answer = lucidcell("populations", tmp_path / "donors.h5ad", "--out", tmp_path / "out", *size, *arguments)
    assert_one_line(answer, said)


def test_loadings_of_other_methods_are_enriched(lucidcell, simulated, linear, tmp_path):
    simulated.varm["PCs"] = np.random.default_rng(0).normal(size=(50, 2))
    simulated.write_h5ad(tmp_path / "cells.h5ad")
    sets = ("--gene-sets", linear.parent / "programs.gmt", "--min-size", 3)
    answer = lucidcell("enrich", tmp_path / "cells.h5ad", "--varm-key", "PCs", "--out", tmp_path, *sets)
    assert answer.status == 0, answer.err
    assert set(pd.read_csv(tmp_path / "enrichment.csv")["factor"]) == {"PCs_1", "PCs_2"}


# --- mistakes ---------------------------------------------------------------------------------------------------


def assert_one_line(answer: Answer, said: str) -> None:
    """Status 1 and one line that begins with the program's name."""
    assert answer.status == 1, answer
    lines = answer.err.strip().splitlines()
    assert lines[-1].startswith("lucidcell: "), answer.err
    assert [line for line in lines if "Traceback" in line or line.startswith("  File")] == []
    assert len([line for line in lines if line.startswith("lucidcell: ")]) == 1
    assert said in lines[-1], lines[-1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "scvy"], "--model is 'scvy'; it must be one of scvi"),
        (["--layer", "counts"], "layers has no 'counts'"),
        (["--batch-key", "Batch"], "did you mean 'batch'"),
        (["--labels-key", "celltype"], "did you mean 'cell_type'"),
        (["--categorical-covariate", "sexe"], "did you mean 'sex'"),
        (["--continuous-covariate", "sex"], "as continuous covariate it must be numeric"),
        (["--size-factor-key", "library_size"], "obs has no 'library_size'"),
        (["--unlabeled-category", "Unknown"], "--unlabeled-category has no meaning for --model scvi"),
        (["--taxonomy", "tree.csv"], "--taxonomy has no meaning for --model scvi"),
        (["--n-top-genes", "0"], "n_top_genes=0 is not possible"),
        (["--n-latent", "0"], "n_latent is 0"),
        (["--n-hidden", "-5"], "n_hidden is -5"),
        (["--n-layers", "0"], "n_layers is 0"),
        (["--gene-likelihood", "normal"], "gene_likelihood is 'normal'; it must be one of nb, zinb, poisson"),
        (["--latent-distribution", "beta"], "latent_distribution is 'beta'; it must be one of normal, ln"),
        (["--stability-seeds", "-1"], "--stability-seeds is -1"),
        (["--max-epochs", "0"], "max_epochs is 0"),
        (["--batch-size", "1"], "batch_size is 1"),
        (["--learning-rate", "-1"], "learning_rate is -1.0"),
        (["--device", "tpu"], "device 'tpu' is not to be had here"),
        (["--num-threads", "0"], "num_threads is 0"),
        (["--precision", "half"], "precision is 'half'"),
        (["--buffer-gb", "0"], "buffer_gb is 0.0; it must be a positive number."),
        (["--seed", "-1"], "seed is -1"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_one_mistake_in_each_option_of_fit(lucidcell, data, tmp_path, arguments, said):
    assert_one_line(lucidcell("fit", data, "--out", tmp_path / "run", *arguments), said)
    assert not (tmp_path / "run" / "model.json").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--embedding", "X_pca"], "obsm has no 'X_pca', given as embeddings"),
        (["--metrics", "all"], "metrics='all' is not known"),
        (["--out", "nowhere/scores.csv"], "the folder nowhere does not exist"),
        (["--plot", "scores.gif"], "its name must end in .png, .svg or .pdf"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_one_mistake_in_each_option_of_evaluate(lucidcell, simulated, tmp_path, arguments, said):
    simulated.obsm["X_a"] = np.zeros((120, 2))
    simulated.write_h5ad(tmp_path / "cells.h5ad")
    keys = [] if "--embedding" in arguments else ["--embedding", "X_a"]
    answer = lucidcell("evaluate", tmp_path / "cells.h5ad", "--batch-key", "batch", *keys, *arguments)
    assert_one_line(answer, said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--groupby", "celltype"], "did you mean 'cell_type'"),
        (["--group1", "type_9"], "group1='type_9' does not occur"),
        (["--group2", "type_9"], "group2='type_9' does not occur"),
        (["--mode", "wilcoxon"], "mode is 'wilcoxon'"),
        (["--delta", "-1"], "delta is -1.0"),
        (["--fdr", "2"], "fdr is 2.0"),
        (["--out", "nowhere/genes.csv"], "the folder nowhere does not exist"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_one_mistake_in_each_option_of_de(lucidcell, fitted, data, tmp_path, arguments, said):
    out = [] if "--out" in arguments else ["--out", tmp_path / "genes.csv"]
    assert_one_line(lucidcell("de", fitted, data, *out, *arguments), said)
    assert not (tmp_path / "genes.csv").exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("nowhere.h5ad", None, "does not exist"),
        ("cells.txt", b"hello", "is of an unknown kind; lucidcell reads .h5ad, .zarr, 10x .h5 and 10x folders"),
        ("cells.h5ad", b"hello", "is not an HDF5 file"),
        ("cells.zarr", b"hello", "is a file, while a zarr store is a folder"),
        ("cells.h5", b"hello", "is not an HDF5 file"),
    ],
)
def test_data_that_cannot_be_read(lucidcell, tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert_one_line(lucidcell("fit", tmp_path / name, "--out", tmp_path / "run"), said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "none of 50 gene sets has 5 to 500 of the 50 genes"),
        (["--gene-sets", "none.gmt"], "none.gmt does not exist"),
        (["--varm-key", "PCs"], "--varm-key is for an AnnData"),
        (["--out", "nowhere"], "nowhere cannot be written to"),
        (["--min-size", "0"], "min_size is 0"),
        (["--max-size", "2"], "max_size is 2"),
        (["--n-permutations", "1"], "n_permutations is 1"),
        (["--max-q", "2"], "max_q is 2"),
    ],
    ids=lambda value: value[0] if value and isinstance(value, list) else "",
)
def test_one_mistake_in_each_option_of_enrich(lucidcell, linear, arguments, said):
    sets = [] if not arguments or "--gene-sets" in arguments else ["--gene-sets", linear.parent / "programs.gmt"]
    size = [] if not arguments or "--min-size" in arguments or "--max-size" in arguments else ["--min-size", 3]
    assert_one_line(lucidcell("enrich", linear, *sets, *size, *arguments), said)


def test_what_is_neither_a_run_nor_loadings(lucidcell, data, tmp_path):
    assert_one_line(lucidcell("enrich", data), "is no run folder; for an AnnData pass --varm-key and --out")
    answer = lucidcell("enrich", data, "--varm-key", "PCs", "--out", tmp_path)
    assert_one_line(answer, "varm_key is 'PCs', and varm has batch_shift, programs")


def test_a_place_that_is_taken_or_cannot_be_written(lucidcell, data, fitted, tmp_path):
    assert_one_line(
        lucidcell("fit", data, "--out", fitted), "already holds a model; choose another --out, or pass --overwrite"
    )
    assert_one_line(lucidcell("map", fitted, data, "--out", fitted), "already holds a model")
    (tmp_path / "file").write_text("in the way")
    small = ("--n-hidden", 8, "--n-latent", 2, "--max-epochs", 1)
    assert_one_line(lucidcell("fit", data, "--out", tmp_path / "file", *small), "could not be written")
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.parametrize("command", ["report", "map"])
def test_folders_that_hold_no_run(lucidcell, data, tmp_path, command):
    arguments = [tmp_path / "nowhere"] + ([data, "--out", tmp_path / "mapped"] if command == "map" else [])
    assert_one_line(lucidcell(command, *arguments), "nowhere")


def test_queries_that_do_not_fit(lucidcell, fitted, simulated, tmp_path):
    simulated[:, :20].copy().write_h5ad(tmp_path / "few.h5ad")
    arguments = ("map", fitted, tmp_path / "few.h5ad", "--out", tmp_path / "mapped")
    assert_one_line(lucidcell(*arguments), "the query has 20 of the reference's 50 genes (40%), below min_overlap=50%")
    assert lucidcell(*arguments, "--min-overlap", 0.3).status == 0
    simulated.X = simulated.X.log1p()
    simulated.write_h5ad(tmp_path / "logs.h5ad")
    assert_one_line(lucidcell("map", fitted, tmp_path / "logs.h5ad", "--out", tmp_path / "m"), "looks log-transformed")


@pytest.mark.parametrize(
    "arguments", [["--n-latent", "many"], ["--n-latents", "3"], ["--max-epochs"]], ids=lambda a: a[-1]
)
def test_options_that_are_none_are_explained_by_typer(lucidcell, data, tmp_path, arguments):
    answer = lucidcell("fit", data, "--out", tmp_path / "run", *arguments)
    assert answer.status == 2
    assert "Traceback" not in answer.err
    assert arguments[0] in answer.err


def test_a_command_that_is_none(lucidcell):
    answer = lucidcell("fitt")
    assert answer.status == 2
    assert "No such command 'fitt'" in answer.err
