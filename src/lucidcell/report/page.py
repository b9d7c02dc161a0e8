"""The page: every section of a run, put into one HTML file that needs nothing else."""

from __future__ import annotations

import os
import re
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from lucidcell.errors import FileError
from lucidcell.plots.names import readable
from lucidcell.report.blocks import Section
from lucidcell.report.files import write_atomically
from lucidcell.report.folder import Run
from lucidcell.report.sections import SECTIONS
from lucidcell.report.wording import number


def report(
    run_folder: str | os.PathLike[str], *, out: str | os.PathLike[str] | None = None, title: str | None = None
) -> Path:
    """Write the report of a run as one HTML file without scripts and without anything from the network.

    The map of cells is computed if the run has none yet, and kept in tables/umap.csv.

    Parameters
    ----------
    run_folder
        What `model.save` or ``lucidcell fit`` has written.
    out
        Where to write; report.html in the run folder by default.
    title
        Title of the page; model and folder name by default.

    Returns
    -------
    The path of the file written.

    Raises
    ------
    FileError
        If a file of the run is missing or damaged, or the report cannot be written.
    """
    run = Run(Path(run_folder))
    target = run.path / "report.html" if out is None else Path(out)
    if target.is_dir() or not target.parent.is_dir():
        reason = "it is a folder" if target.is_dir() else f"there is no folder {target.parent}"
        msg = f"{target} cannot be written because {reason}: pass the path of an HTML file as out=."
        raise FileError(msg)
    run.check()
    sections = [section for section in (make(run) for make in SECTIONS) if section is not None]
    name = title if title is not None else f"{run.name} on {run.path.resolve().name}"
    write_atomically(target, _html(run, readable(name, 120), sections))
    return target


def _html(run: Run, title: str, sections: list[Section]) -> str:
    folder = files("lucidcell.report")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(folder.joinpath("page.html").read_text(encoding="utf-8"))
    return template.render(
        title=title,
        subtitle=f"{number(run.data['n_cells'])} cells × {number(run.data['n_genes'])} genes",
        made=f"{run.model['created'][:16].replace('T', ' ')}, lucidcell {run.model['versions'].get('lucidcell', '?')}",
        entries=[(_anchor(section.title), section) for section in sections],
        css=Markup(folder.joinpath("page.css").read_text(encoding="utf-8")),
    )


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower())
