"""The section on predicted labels, of a fabricated run."""

from __future__ import annotations

import json

import pytest
from sections import blocks, texts

from lucidcell.errors import FileError
from lucidcell.report.blocks import Facts, Picture, Table, Warnings
from lucidcell.report.folder import Run
from lucidcell.report.sections.annotation import annotation


def test_a_model_without_predictions_has_no_section(make_run):
    assert annotation(Run(make_run())) is None


def test_what_is_shown(annotated_run):
    section = annotation(Run(annotated_run()))
    assert "Labels were given for 40 of 120 cells; the rest is predicted." in texts(section)
    facts = dict(blocks(section, Facts)[0].rows)
    assert facts["cells with + without a label"] == "40 + 80"
    assert facts["temperature"] == "1.7"
    assert facts["calibration error, raw → calibrated"] == "20.0 % → 3.0 %"
    titles = [picture.caption.split(".")[0] for picture in blocks(section, Picture)]
    assert titles == [
        "On 80 cells (held-out cells)",
        "On the same cells",
        "Probability of each label",
        "Predictions at every level of the hierarchy, with their cells, and how sure the model is",
    ]
    table = blocks(section, Table)[0]
    assert sum(int(row[1]) for row in table.rows) == 80
    assert sum(table.shares) == pytest.approx(1)


def test_clusters_that_mix_little_are_warned_of(annotated_run):
    (warning,) = blocks(annotation(Run(annotated_run())), Warnings)[0].sentences
    assert "A cluster of 25 cells without a label, mostly predicted to be type_0, mixes little" in warning
    assert blocks(annotation(Run(annotated_run(n_suspicious=0))), Warnings) == []


def test_a_calibration_that_was_declined_says_so(annotated_run):
    section = annotation(Run(annotated_run(declined=True)))
    assert "Probabilities are not calibrated: 12 labelled cells are too few." in texts(section)
    assert len(blocks(section, Picture)) == 2
    assert "temperature" not in dict(blocks(section, Facts)[0].rows)


def test_a_temperature_that_is_not_used_is_not_shown(annotated_run):
    run = annotated_run()
    model = json.loads((run / "model.json").read_text())
    model["calibration"]["temperature"] = 1.0
    (run / "model.json").write_text(json.dumps(model))
    section = annotation(Run(run))
    assert dict(blocks(section, Facts)[0].rows)["calibration error"] == "20.0 %"
    curve = blocks(section, Picture)[1]
    assert "No temperature made the labels likelier" in curve.caption
    assert ">calibrated<" not in curve.image


def test_a_flat_model_has_no_hierarchy(annotated_run):
    run = annotated_run()
    path = run / "tables/taxonomy.csv"
    lines = [line for line in path.read_text().splitlines() if ",coarse," not in line]
    path.write_text("\n".join(lines))
    assert len(blocks(annotation(Run(run)), Picture)) == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"calibration": [1]}, "holds \\[1\\] at 'calibration'"),
        ({"calibration": {"temperature": "hot"}}, "holds 'hot' at 'calibration.temperature'"),
        ({"calibration": {"reliability": None}}, "holds None at 'calibration.reliability'"),
    ],
)
def test_damaged_facts_are_refused(annotated_run, change, said):
    run = annotated_run()
    model = json.loads((run / "model.json").read_text())
    for key, value in change.items():
        model[key] = model[key] | value if isinstance(value, dict) else value
    (run / "model.json").write_text(json.dumps(model))
    with pytest.raises(FileError, match=said):
        Run(run)


def test_tables_of_other_cells_are_refused(annotated_run):
    run = annotated_run()
    path = run / "tables/annotation.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:50]))
    with pytest.raises(FileError, match="annotation.csv has 49 rows where model.json says 120"):
        Run(run).check()
