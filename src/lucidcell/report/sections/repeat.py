"""How to run this again, and how to load the model."""

from __future__ import annotations

from lucidcell.report.blocks import Block, Code, Section
from lucidcell.report.folder import Run

_KEYS = ("layer", "batch_key", "labels_key", "unlabeled_category", "size_factor_key")


def repeat(run: Run) -> Section:
    """Give the command, or else the lines of Python, that repeat the run; and the lines that load it."""
    blocks: list[Block] = []
    if run.model["command"] is not None:
        blocks.append(Code(run.model["command"], "The command that made this run:"))
    else:
        blocks.append(Code(_python(run), "The model was made in Python; these lines repeat it:"))
    load = f"import lucidcell as lc\n\nadata = lc.read_h5ad({_DATA!r})\nmodel = lc.load({str(run.path)!r}, adata)"
    blocks.append(Code(load, "To go on with the trained model:"))
    return Section("Repeat and reload", blocks)


_DATA = "your_data.h5ad"


def _python(run: Run) -> str:
    arguments = {key: run.schema.get(key) for key in _KEYS} | run.config
    given = "".join(f"    {key}={value!r},\n" for key, value in arguments.items() if value is not None)
    lines = f"import lucidcell as lc\n\nadata = lc.read_h5ad({_DATA!r})\nmodel = lc.{run.name}(\n    adata,\n{given})\n"
    if run.training is not None:
        chosen = {key: value for key, value in run.training["settings"].items() if value is not None}
        lines += "model.train(\n" + "".join(f"    {key}={value!r},\n" for key, value in chosen.items()) + ")\n"
    return lines.rstrip("\n")
