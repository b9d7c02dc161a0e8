"""The page: what it says, that it stands alone, and that names from the data stay text."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lucidcell.errors import FileError
from lucidcell.report import report

SCRIPT = "<script>alert(1)</script>"
ODD = [
    SCRIPT, "a$b$c", "_under", "x & y", "\"quoted\" 'n'", "]]>--><!--", "new\nline", "back\\slash", "{{ 7*7 }}",
    "NA", "null", "</svg></title>", "<b onclick=alert(3)>", "L" * 300, "$\\x{$",
]  # fmt: skip
SECTIONS = [
    "What went in", "Training", "Map of cells", "Factors", "Reconstruction", "Settings and versions",
    "Repeat and reload",
]  # fmt: skip
VOID = {"meta", "img", "br", "hr"}


class Page(HTMLParser):
    """Elements, attributes and texts of a page, as a browser's parser would see them."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.texts, self.open = Counter(), [], [], []
        self.raw = text
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", " ".join(data.split())))

    def inside(self, tag: str) -> list[str]:
        return [text for where, text in self.texts if where == tag]

    @property
    def text(self) -> str:
        return " ".join(text for where, text in self.texts if where not in ("style", "text"))


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def edit_model(run: Path, **parts) -> Path:
    model = json.loads((run / "model.json").read_text())
    for key, value in parts.items():
        model[key] = (model[key] or {}) | value if isinstance(value, dict) else value
    (run / "model.json").write_text(json.dumps(model))
    return run


@pytest.fixture(scope="module")
def run(make_run) -> Path:
    return make_run()


@pytest.fixture(scope="module")
def page(run) -> Page:
    return read(report(run))


@pytest.fixture(scope="module")
def odd_page(make_run) -> Page:
    genes = ODD + [f"gene_{g}" for g in range(80 - len(ODD))]
    label = [ODD[i % len(ODD)] for i in range(120)]
    run = make_run(
        cells=[f"<i>{i}" for i in range(120)], genes=genes, label=label, batch=[ODD[i % 2] for i in range(120)]
    )
    edit_model(run, command=f"lucidcell fit '{SCRIPT}'", data={"warnings": [f"layer {SCRIPT} is odd."]})
    edit_model(
        run, config={SCRIPT: SCRIPT}, versions={SCRIPT: SCRIPT}, training={"stopped": SCRIPT}, loadings={"how": SCRIPT}
    )
    return read(report(run, title=f"{SCRIPT} & title"))


def test_sections_are_in_the_table_of_contents(page):
    links = [value for tag, name, value in page.attributes if tag == "a" and name == "href"]
    targets = [value for tag, name, value in page.attributes if tag == "section" and name == "id"]
    assert links == [f"#{target}" for target in targets]
    assert page.inside("a") == page.inside("h2") == SECTIONS


def test_page_says_what_went_in_and_how_training_went(page, run):
    cells = pd.read_csv(run / "tables/cells.csv")
    for group in ("batch", "label"):
        for name, count in cells[group].value_counts().items():
            assert f"{name} {count} {100 * count / len(cells):.1f} %" in page.text
    nonzero = json.loads((run / "model.json").read_text())["data"]["nonzero_fraction"]
    for words in (
        "120 cells × 80 genes", f"entries that are not 0 {100 * nonzero:.1f} %", "1 min 23 s", "speed 21,346 cells/s",
        "40 of 60", "108 + 12", "held-out cells were no longer described better", "lucidcell fit cells.h5ad",
        "n_hidden 128", "torch 2.13.0", f"lc.load('{run}', adata)", "Z3 is not used", "nothing to warn of",
    ):  # fmt: skip
        assert words in page.text, words


def test_worst_genes_are_listed_in_order(page, run):
    genes = pd.read_csv(run / "tables/genes.csv").set_index("gene")
    ratio = np.log2((genes["mean_expected"] + 0.01) / (genes["mean_observed"] + 0.01))
    worst = ratio.abs().sort_values(ascending=False).index[:5]
    places = [page.text.index(f"{gene} {genes.at[gene, 'mean_observed']:.3g} ") for gene in worst]
    assert places == sorted(places)


def test_factor_cards_name_the_label_that_is_high(page, run):
    cells, latent = pd.read_csv(run / "tables/cells.csv"), pd.read_csv(run / "tables/latent.csv")
    means = latent["Z1"].groupby(cells["label"]).mean()
    assert f"The mean is highest in {means.idxmax()} (+{means.max():.2f})" in page.text
    assert page.inside("h3") == ["Z1", "Z2"]


def test_every_figure_has_a_caption_and_a_description(page):
    assert page.tags["figure"] == page.tags["figcaption"] == len(page.inside("figcaption")) >= 10
    described = [
        value for tag, name, value in page.attributes if (tag, name) in (("svg", "aria-label"), ("img", "alt"))
    ]
    assert len(described) == page.tags["figure"]
    assert all(described)


def test_maps_are_png_and_light_figures_svg(page):
    images = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    assert len(images) == 3  # by label, by batch, by factor
    assert all(base64.b64decode(image.split(",")[1]).startswith(b"\x89PNG") for image in images)
    assert page.tags["svg"] == page.tags["figure"] - 3


@pytest.mark.parametrize("which", ["page", "odd_page"])
def test_page_stands_alone(which, request):
    page = request.getfixturevalue(which)
    banned = {"script", "link", "iframe", "object", "embed", "base", "form", "foreignobject", "b", "i"}
    assert not banned & set(page.tags)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    refs = [value for _, name, value in page.attributes if name in ("href", "xlink:href", "src", "srcset", "action")]
    assert refs
    assert all(value.startswith(("#", "data:image/png;base64,")) for value in refs)
    assert not re.search(r"url\((?!#)|@import|@font-face", page.raw)
    policy = next(value for tag, name, value in page.attributes if name == "content" and "default-src" in value)
    assert policy.split("; ")[:3] == ["default-src 'none'", "img-src data:", "style-src 'unsafe-inline'"]
    assert not page.open  # every element is closed


@pytest.mark.parametrize("which", ["page", "odd_page"])
def test_ids_are_unique_and_references_resolve(which, request):
    page = request.getfixturevalue(which)
    ids = Counter(value for _, name, value in page.attributes if name == "id")
    repeated = [name for name, count in ids.items() if count > 1]
    assert not repeated
    wanted = set(re.findall(r"url\(#([^)]+)\)", page.raw)) | {
        value[1:] for _, name, value in page.attributes if name in ("href", "xlink:href") and value.startswith("#")
    }
    assert wanted <= set(ids)


def test_names_from_the_data_stay_text(odd_page):
    assert "<script" not in odd_page.raw.lower()
    assert odd_page.inside("title") == [f"{SCRIPT} & title"]
    assert odd_page.text.count(SCRIPT) >= 9  # title (3), warning, batch, label, setting, version, command, ...
    for name in ("a$b$c", "_under", "x & y", "\"quoted\" 'n'", "]]>--><!--", "new line", "{{ 7*7 }}", "NA", "null"):
        assert name in odd_page.text, name
    assert "49" not in odd_page.inside("th")


def test_names_from_the_data_stay_text_in_svg(odd_page):
    written = set(odd_page.inside("text"))
    for name in (
        SCRIPT,
        "a$b$c",
        "_under",
        "x & y",
        "\"quoted\" 'n'",
        "]]>--><!--",
        "{{ 7*7 }}",
        "</svg></title>",
        "NA",
    ):
        assert name in written, name
    assert any(text.startswith("LLLL") and len(text) < 40 for text in written)


def test_same_run_same_bytes_wherever_they_go(run, page, tmp_path):
    path = report(str(run), out=str(tmp_path / "<odd> name.html"))
    assert path == tmp_path / "<odd> name.html"
    assert path.read_text(encoding="utf-8") == page.raw
    assert list(tmp_path.iterdir()) == [path]  # no temporary file is left


@pytest.mark.parametrize(("out", "words"), [("", "it is a folder"), ("nowhere/report.html", "there is no folder")])
def test_impossible_places(run, tmp_path, out, words):
    with pytest.raises(FileError, match=words):
        report(run, out=tmp_path / out)


def test_run_without_labels_and_batches_and_validation(make_run):
    run = edit_model(make_run(label=None, batch=None, validation=False), command=None)
    page = read(report(run))
    assert page.inside("h2") == SECTIONS
    assert page.tags["img"] == 1  # the factors only
    for words in (
        "No labels were given",
        "No batch key was given",
        "Without held-out cells",
        "model = lc.SCVI( adata,",
    ):
        assert words in page.text, words
    assert "held-out cells" not in page.inside("text")
    assert "cell label" not in page.inside("text")
    assert page.inside("h3") == ["Z1", "Z2"]


def test_too_few_cells_for_a_map(make_run):
    page = read(report(make_run(n_cells=8, umap=False)))
    assert "8 cells are too few for a map" in page.text
    assert page.inside("h2") == SECTIONS


def test_untrained_model_has_a_report_of_what_it_was_given(make_run):
    run = edit_model(make_run(), training=None)
    for name in (
        "history.csv",
        *(f"tables/{table}.csv" for table in ("latent", "loadings", "factors", "genes", "umap")),
    ):
        (run / name).unlink()
    assert read(report(run)).inside("h2") == ["What went in", "Settings and versions", "Repeat and reload"]


def test_model_trained_elsewhere(make_run):
    training = {"epochs": 0, "best_epoch": 0, "stopped": "imported from scvi-tools", "seconds": 0.0}
    run = edit_model(edit_model(make_run(), training=None), training=training)
    (run / "history.csv").write_text("\n")
    page = read(report(run))
    assert "imported from scvi-tools" in page.text
    assert "No epoch is on record" in page.text
    assert page.inside("h2") == SECTIONS


def test_report_needs_neither_torch_nor_scanpy_when_the_map_is_there(run, tmp_path):
    code = (
        "import sys; from lucidcell.report import report; report(sys.argv[1], out=sys.argv[2]);"
        "sys.exit(' '.join({'torch', 'anndata', 'scanpy', 'matplotlib.pyplot'} & set(sys.modules)) or 0)"
    )
    command = [sys.executable, "-c", code, str(run), str(tmp_path / "r.html")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
