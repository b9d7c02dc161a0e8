"""The package as a user meets it: light import, public names, version, and a README that tells the truth."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import lucidcell

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "lucidcell"
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())


def in_fresh_python(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.strip()


def test_import_is_light():
    code = """
import sys, time
start = time.perf_counter()
import lucidcell
seconds = time.perf_counter() - start
print([m for m in ("torch", "scanpy", "anndata", "pandas", "numpy") if m in sys.modules], seconds < 0.5)
"""
    assert in_fresh_python(code) == "[] True"


@pytest.mark.parametrize("name", lucidcell.__all__)
def test_public_name_resolves(name):
    assert getattr(lucidcell, name).__name__ == name
    assert name in dir(lucidcell)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'SCVY'"):
        lucidcell.SCVY  # noqa: B018 (the look-up is what is tested)


def test_report_stays_a_function_after_its_folder_is_imported():
    code = "import lucidcell as lc, lucidcell.report; print(callable(lc.report), lc.report.__name__)"
    assert in_fresh_python(code) == "True report"


def test_version_has_one_source_and_an_entry_in_the_changelog():
    assert SETTINGS["project"]["dynamic"] == ["version"]
    assert ROOT / SETTINGS["tool"]["hatch"]["version"]["path"] == PACKAGE / "__init__.py"
    assert re.fullmatch(r"\d+\.\d+\.\d+", lucidcell.__version__)
    assert lucidcell.__version__ in (ROOT / "CHANGELOG.md").read_text()


def test_constraints_pin_every_dependency_within_its_range():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    pins = dict(line.split("==") for line in lines)
    assert len(pins) == len(lines)
    assert pins["torch"] == "2.13.0"
    extras = [text for extra in SETTINGS["project"]["optional-dependencies"].values() for text in extra]
    groups = [text for group in SETTINGS["dependency-groups"].values() for text in group if isinstance(text, str)]
    for text in [*SETTINGS["project"]["dependencies"], *extras, *groups]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pins[requirement.name.lower()]), text


def code_blocks(language: str) -> list[str]:
    """Return the blocks of this language in the README."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)


def tree_paths() -> set[str]:
    """Return the paths in the README's tree: two spaces a level; a folder with nothing below it is closed."""
    paths, parents = set(), []
    for line in code_blocks("text")[0].splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        parents[depth:] = [name]
        paths.add("".join(parents))
    return paths


def test_readme_tree_is_the_disk():
    listed = tree_paths()
    closed = tuple(p for p in listed if p.endswith("/") and not any(other.startswith(p) for other in listed - {p}))
    modules = {p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py"} | {PACKAGE / "__init__.py"}
    disk = {p.relative_to(ROOT).as_posix() for p in modules}
    unlisted = {p for p in disk - listed if not p.startswith(closed)}
    assert sorted(unlisted) == [], "on disk and not in the README's tree"
    assert sorted(p for p in listed if not (ROOT / p).exists()) == [], "in the README's tree and not on disk"
    assert sorted(p for p in listed if (ROOT / p).is_dir() != p.endswith("/")) == [], "folders end in a slash"


def test_readme_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "readme"}
    for example in code_blocks("python"):
        assert len(example.splitlines()) <= 18
        exec(compile(example, "<example of the README>", "exec"), names)
    assert list(tmp_path.rglob("report.html"))
    assert (names["scanvi"].predict() == names["types"]).mean() > 0.7


@pytest.mark.parametrize("folder", ["plots", "metrics", "comparators"])
def test_folders_need_no_import_of_their_own(folder: str) -> None:
    code = f"import lucidcell as lc; assert {folder!r} in dir(lc); print(lc.{folder}.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"lucidcell.{folder}"
