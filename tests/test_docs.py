"""The documentation keeps its word: links, named tests, quoted messages, options, code and tutorials."""

from __future__ import annotations

import ast
import inspect
import re
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lucidcell as lc
from lucidcell.cells import stored
from lucidcell.models.base import Model
from lucidcell.models.keywords import OURS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
TUTORIALS = sorted((DOCS / "tutorials").glob("*.py"))
BLOCK = re.compile(
    r"(?P<run><!-- run -->\n)?```python\n(?P<code>.*?)^```"
    r"(?:\n\n<!-- prints -->\n```text\n(?P<printed>.*?)^```)?",
    re.DOTALL | re.MULTILINE,
)

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def read(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


# --- what pages refer to ----------------------------------------------------------------------------------------


@every_page
def test_relative_links_exist(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    local = [target.split("#")[0] for target in targets if "://" not in target and not target.startswith("#")]
    assert [target for target in local if not (page.parent / target).exists()] == []


@every_page
def test_named_tests_exist(page: Path) -> None:
    for file, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page.read_text(encoding="utf-8")):
        assert (ROOT / file).is_file(), file
        assert not name or re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE), f"{file}::{name}"


def test_every_page_is_in_the_index() -> None:
    others = {path.relative_to(DOCS).as_posix() for path in [*PAGES[1:], *TUTORIALS]} - {"README.md"}
    assert sorted(name for name in others if f"]({name})" not in read("README.md")) == []


# --- what pages say of the code ---------------------------------------------------------------------------------


def defaults(function: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """Name and default of each argument that has one."""
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.default is not parameter.empty:
            yield name, parameter.default


@pytest.mark.parametrize(
    ("model", "page_name"),
    [
        (lc.SCVI, "scvi"),
        (lc.SCANVI, "scanvi"),
        (lc.LDVAE, "ldvae"),
        (lc.SIVAE, "sivae"),
        (lc.VAE, "sivae"),
        (lc.SCE2TM, "sce2tm"),
        (lc.SCETM, "sce2tm"),
    ],
)
def test_every_option_of_a_model_is_explained_with_its_default(model: type[Model], page_name: str) -> None:
    page = read(f"{page_name}.md")
    written = {name: f'("{value}")' if isinstance(value, str) else f"({value})" for name, value in defaults(model)}
    assert [name for name, default in written.items() if f"`{name}` {default}" not in page] == []


def test_every_read_out_of_scvi_is_explained() -> None:
    named = [name for name in dir(lc.SCVI) if name.startswith(("get_", "posterior_", "map_", "from_", "write"))]
    assert len(named) > 12
    assert [name for name in named if f"{name}(" not in read("scvi.md")] == []


def test_every_argument_of_train_is_explained() -> None:
    page = read("training.md")
    assert [name for name, _ in defaults(lc.SCVI.train) if f"`{name}" not in page and f"{name}=" not in page] == []


def test_every_argument_that_is_answered_by_ours_is_in_the_migration_table() -> None:
    page = read("migration.md")
    assert [name for name in OURS if not re.search(rf"[`\"{{]{name}\b", page)] == []


def texts_of_the_code() -> list[str]:
    """Every string of the package, with an ellipsis in the place of what is filled in."""
    found = []
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values]
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def quoted_messages(page: str) -> list[str]:
    """First column of the tables whose first column is headed "message" or "warning"."""
    messages, inside = [], False
    for line in page.splitlines():
        cell = line.strip("|").split(" | ")[0].strip() if line.startswith("|") else ""
        inside = bool(cell) and (inside or cell in ("message", "warning"))
        if inside and cell not in ("message", "warning") and not cell.startswith("---"):
            messages.append(cell)
    return messages


def test_quoted_messages_are_those_of_the_code() -> None:
    texts, messages = texts_of_the_code(), quoted_messages(read("data.md"))
    assert len(messages) > 45
    for message in messages:
        for part in (part.strip(" .,;()") for part in message.split("…")):
            assert any(part in text for text in texts), f"{part!r} of {message!r}"


# --- code on pages ----------------------------------------------------------------------------------------------


@every_page
def test_blocks_compile(page: Path) -> None:
    for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
        compile(block["code"], page.name, "exec")


@every_page
def test_marked_blocks_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each by itself; what it prints is what the page says, but for the digits of numbers."""
    monkeypatch.chdir(tmp_path)
    for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
        assert block["run"] or not block["printed"], "a block with output must be run"
        if block["run"]:
            capsys.readouterr()
            exec(compile(block["code"], page.name, "exec"), {"__name__": "page"})
            printed = capsys.readouterr().out
            assert block["printed"] is None or without_digits(printed) == without_digits(block["printed"])


def without_digits(text: str) -> str:
    return re.sub(r"\d+(\.\d+)?", "0", text.strip())


# --- tutorials --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.stem)
def test_tutorials_run_and_say_the_truth(
    tutorial: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import matplotlib.pyplot as plt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stored, "IN_MEMORY", stored.IN_MEMORY)  # one of them lowers it
    names = runpy.run_path(str(tutorial), run_name="tutorial")
    plt.close("all")
    pictures = re.findall(r'savefig\("(.*?)"', tutorial.read_text(encoding="utf-8"))
    assert [picture for picture in pictures if not (tmp_path / picture).stat().st_size] == []
    assert capsys.readouterr().out
    OUTCOMES[tutorial.stem](names, tmp_path)


def outcome_of_pbmc3k(names: dict[str, Any], folder: Path) -> None:
    means = names["marker_means"]
    for marker, cell_type in {"CD79A": "B", "NKG7": "NK", "LYZ": "CD14+ Mono", "PPBP": "Platelet"}.items():
        assert means[marker].idxmax() == cell_type
    assert {"CD74", "HLA-DRA"} <= set(names["b_genes"].index)
    assert names["held_out_elbo"] == pytest.approx(-names["model"].history["validation_negative_elbo"].min(), rel=0.02)
    assert names["same"]
    assert names["reference"].obsm["X_scvi"].shape == (names["reference"].n_obs, 10)
    assert np.isfinite(names["mapped"].get_latent_representation()).all()
    assert names["agreement"] > 0.75
    assert (folder / "runs/pbmc3k/report.html").stat().st_size > 50_000


def outcome_of_annotation(names: dict[str, Any], folder: Path) -> None:
    assert names["seed_precision"] > 0.85
    assert names["accuracy"] > 0.7
    assert names["model"].calibration.labels == "labelled cells that could be left out in turn"
    assert names["model"].calibration.error_after <= names["model"].calibration.error_before + 0.05
    share, right = names["named_share"], names["named_accuracy"]
    assert share[0.0] == 1 > share[0.7] > share[0.9] > 0.3
    assert right[0.9] > right[0.7] > right[0.0]
    assert names["found"].declined is None
    assert names["coarse_accuracy"] > 0.95
    assert names["fine_accuracy"] > 0.75
    assert list(names["mixing"].index[names["mixing"]["suspicious"]]) == ["B"]
    assert "scanvi_prediction" in names["both"].obs


def outcome_of_factors(names: dict[str, Any], folder: Path) -> None:
    assert names["error"] < 1e-3
    assert names["shares"]["share"].sum() == pytest.approx(1)
    best, tops = names["best"], names["lc"].top_genes(names["signal"], 20, sign="both").groupby("factor")["gene"]
    for cell_type, markers in {
        "B": {"CD79A", "CD74", "HLA-DRA", "MS4A1"}, "NK": {"NKG7", "GNLY", "GZMB"}, "Platelet": {"PPBP", "PF4"},
        "CD14+ Mono": {"LYZ", "S100A8", "S100A9"},
    }.items():  # fmt: skip
        assert abs(best["effect"][cell_type] - 0.5) > 0.45
        assert len(markers & set(tops.get_group(best["factor"][cell_type]))) >= 2
    assert len(names["stable"]) >= 3
    assert names["b_factor"] in names["stable"]
    assert (names["names"]["term"] != "").any()
    np.testing.assert_allclose(names["archetypes"].sum(), 1)
    assert list(names["adata"].uns["ldvae"]["factors"]) == list(names["loadings"].columns)
    assert names["unseen"]["weighted_accuracy"].min() > 0.5


def outcome_of_large_data(names: dict[str, Any], folder: Path) -> None:
    assert names["in_the_file"]
    assert not names["joint"].cells.in_memory
    assert names["same"]
    assert names["estimate"].epochs == 60
    assert names["joint"].schema.batch_categories == ("first", "second")
    assert (folder / "fits" / "seed2").is_dir()


def outcome_of_gene_space(names: dict[str, Any], folder: Path) -> None:
    along, near = names["along"], names["neighbors"].groupby("gene")["neighbor"]
    for cell_type, markers in {
        "B": {"CD79A", "TCL1A", "CD74"}, "CD14+ Mono": {"LYZ", "S100A8", "S100A9"}, "NK": {"GNLY", "GZMB", "CCL5"},
    }.items():  # fmt: skip
        assert len(markers & set(along[cell_type].nlargest(10).index)) >= 2
    assert {"TCL1A", "IGLL5"} & set(near.get_group("CD79A"))
    assert np.median(names["agreement"]["deeplift"]) > 0.6
    assert names["faithful"]["faithfulness"].mean() > 0.2
    assert names["explained"]["siVAE"] > 0.1
    assert names["rewired"][:12].sum() >= 7
    assert "at the least" in names["genes"].attrs["note"]
    assert (folder / "network.graphml").stat().st_size > 1000
    assert (folder / "tables/kernel.csv").exists()


def outcome_of_topics(names: dict[str, Any], folder: Path) -> None:
    own, top, measures = names["own"], names["top"], names["measures"]
    for cell_type, markers in {
        "B": {"CD79A", "CD74", "HLA-DRA", "MS4A1", "CD79B"}, "NK": {"NKG7", "GNLY", "GZMB", "PRF1"},
        "CD14+ Mono": {"LYZ", "S100A8", "S100A9", "CST3"}, "Platelet": {"PPBP", "PF4", "SDPR"},
    }.items():  # fmt: skip
        assert len(markers & set(top[own[cell_type]])) >= 2, (cell_type, top[own[cell_type]])
    assert measures["TD"]["scE2TM", "published"] > measures["TD"]["without transport", "published"]
    assert measures["IP"]["scE2TM", "signal"] > 0.55, "the largest type has 26 % of the cells"
    assert {"CD79A", "CD74", "HLA-DRA"} & set(names["seen"].nsmallest(5).index)
    assert (folder / "runs/topics/report.html").stat().st_size > 50_000


OUTCOMES: dict[str, Callable[[dict[str, Any], Path], None]] = {
    "large_data": outcome_of_large_data,
    "annotation": outcome_of_annotation,
    "factors": outcome_of_factors,
    "gene_space": outcome_of_gene_space,
    "topics": outcome_of_topics,
    "pbmc3k": outcome_of_pbmc3k,
}
