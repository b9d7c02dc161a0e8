"""Trees of labels: from columns, parents, tables, files and graphs; what does not form a tree is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import networkx as nx
import numpy as np
import pandas as pd
import pytest
from battery import assert_sentence

from lucidcell.cells.cells import Cells
from lucidcell.cells.read_taxonomy import read_parents
from lucidcell.cells.schema import Schema
from lucidcell.cells.simulate import simulate_counts
from lucidcell.cells.taxonomy import Taxonomy
from lucidcell.errors import DataError, FileError, SettingError

PARENTS = {"CD4": "T", "CD8": "T", "T": "lymphoid", "B": "lymphoid", "mono": None}


def graph(tree: Taxonomy) -> nx.DiGraph:
    """The tree with its root, for networkx to judge."""
    edges = [(tree.parents[node], node) for node in range(len(tree.names))]
    return nx.DiGraph(edges)


# --- the tree ---------------------------------------------------------------------------------------------------------


def test_a_tree_knows_its_shape() -> None:
    tree = Taxonomy.from_parents(PARENTS)
    names = tree.names
    assert names == ("lymphoid", "T", "CD4", "CD8", "B", "mono")
    assert [names[p] if p >= 0 else None for p in tree.parents] == [None, "lymphoid", "T", "T", "lymphoid", None]
    assert tree.leaf_names == ("CD4", "CD8", "B", "mono")
    assert tree.depths.tolist() == [0, 1, 2, 2, 1, 0]
    assert tree.n_levels == 3


@pytest.mark.parametrize("seed", range(5))
def test_random_trees_agree_with_networkx(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parents = {f"n{i}": f"n{rng.integers(0, i)}" if rng.random() < 0.8 else None for i in range(1, 30)}
    tree = Taxonomy.from_parents(dict(sorted(parents.items())), ["n7", "n3"])
    judged = graph(tree)
    assert nx.is_arborescence(judged)
    assert {tree.names.index(name) for name in tree.names} == set(judged) - {-1}
    assert sorted(tree.leaves) == sorted(node for node in judged if judged.out_degree(node) == 0)
    depths = nx.shortest_path_length(judged, -1)
    assert tree.depths.tolist() == [depths[node] - 1 for node in range(len(tree.names))]
    for node in range(len(tree.names)):
        below = nx.descendants(judged, node) | {node}
        assert set(tree.leaves[tree.holds[node]]) == below & set(tree.leaves)


def test_levels_part_the_leaves() -> None:
    tree = Taxonomy.from_parents(PARENTS)
    found = [tree.level(level) for level in range(3)]
    assert [names for names, _ in found] == [("lymphoid", "mono"), ("T", "B", "mono"), ("CD4", "CD8", "B", "mono")]
    assert [member.tolist() for _, member in found] == [[0, 0, 0, 1], [0, 0, 1, 2], [0, 1, 2, 3]]
    assert tree.level(None)[0] == tree.leaf_names
    for wrong in (3, -1):
        with pytest.raises(SettingError, match="3 levels, from 0, the coarsest, to 2") as caught:
            tree.level(wrong)
        assert_sentence(caught.value)


def test_one_node_above_all_is_the_root() -> None:
    with_root = {name: parent or "cell" for name, parent in PARENTS.items()} | {"lymphoid": "cell"}
    assert Taxonomy.from_parents(with_root) == Taxonomy.from_parents(PARENTS)
    assert Taxonomy.from_parents({"a": "cell", "b": "cell"}) == Taxonomy.flat(("a", "b"))
    assert Taxonomy.from_parents({"a": None}) == Taxonomy.flat(("a",))


def test_siblings_come_in_the_order_of_the_labels() -> None:
    tree = Taxonomy.from_parents({"a": "x", "b": "x", "c": None}, ["c", "b", "a"])
    assert tree.names == ("c", "x", "b", "a"), "x stands where b does"


def test_unobserved_types_are_leaves_under_the_root() -> None:
    tree = Taxonomy.from_parents(PARENTS).with_unobserved(2)
    assert tree.names[-2:] == ("unobserved_1", "unobserved_2")
    assert tree.parents[-2:] == (-1, -1)
    assert tree.leaf_names[-2:] == ("unobserved_1", "unobserved_2")
    with pytest.raises(SettingError, match="'unobserved_1' is a label") as caught:
        Taxonomy.flat(("unobserved_1", "b")).with_unobserved(1)
    assert_sentence(caught.value)


@pytest.mark.parametrize(
    ("parents", "circle"),
    [
        ({"a": "a"}, "'a' under 'a'"),
        ({"a": "b", "b": "a"}, "'a' under 'b' under 'a'"),
        ({"z": "a", "a": "b", "b": "c", "c": "a"}, "'a' under 'b' under 'c' under 'a'"),
    ],
)
def test_circles_are_refused(parents: dict[str, str | None], circle: str) -> None:
    with pytest.raises(DataError, match=circle) as caught:
        Taxonomy.from_parents(parents)
    assert_sentence(caught.value)


# --- from what users have ---------------------------------------------------------------------------------------------


def test_every_source_gives_the_same_parents(tmp_path: Path) -> None:
    table = pd.DataFrame({"child": list(PARENTS), "parent": list(PARENTS.values()), "note": "seen"})
    table.to_csv(tmp_path / "taxonomy.csv", index=False)
    edges = nx.DiGraph([(parent, child) for child, parent in PARENTS.items() if parent is not None])
    edges.add_node("mono")
    for source in (PARENTS, table, table.fillna("").astype("category"), tmp_path / "taxonomy.csv", edges):
        found = {name: parent for name, parent in read_parents(source).items() if parent is not None}
        assert found == {name: parent for name, parent in PARENTS.items() if parent is not None}
    assert read_parents(str(tmp_path / "taxonomy.csv")) == read_parents(tmp_path / "taxonomy.csv")
    assert read_parents({1: 2.0, "a": float("nan")}) == {"1": "2", "a": None}


@pytest.mark.parametrize(
    ("source", "error", "said"),
    [
        (pd.DataFrame({"child": ["a", "a"], "parent": ["x", "y"]}), DataError, "'a' has the parents 'x' and 'y'"),
        (nx.DiGraph([("x", "a"), ("y", "a")]), DataError, "'a' has the parents 'x' and 'y'"),
        (pd.DataFrame({"child": ["a"]}), DataError, "this table has 1"),
        (pd.DataFrame({"child": [None], "parent": ["x"]}), DataError, "a parent, 'x', of no child"),
        (["a", "b"], SettingError, "taxonomy is of type list"),
        (nx.Graph([("x", "a")]), SettingError, "taxonomy is of type Graph"),
        ("nowhere.csv", FileError, "nowhere.csv cannot be read as CSV"),
    ],
)
def test_what_is_no_taxonomy_is_refused(source: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said) as caught:
        read_parents(source)
    assert_sentence(caught.value)


# --- in the cells -----------------------------------------------------------------------------------------------------


@pytest.fixture
def adata() -> ad.AnnData:
    """12 cells: three lineages, finer labels for some."""
    adata = simulate_counts(12, 20, seed=0)
    adata.obs["lineage"] = ["T"] * 5 + ["B"] * 3 + ["myeloid"] * 3 + ["?"]
    adata.obs["type"] = ["CD4", "CD4", "CD8", "?", np.nan, "B", "B", "?", "mono", "mono", "DC", "?"]
    return adata


def taken(adata: ad.AnnData, **arguments: Any) -> Cells:
    return Cells.from_anndata(adata, **({"labels_key": ["lineage", "type"], "unlabeled_category": "?"} | arguments))


def named(cells: Cells) -> list[str]:
    return [[*cells.schema.label_categories, "-"][code] for code in cells.label]


def test_columns_form_a_tree_and_each_cell_has_its_finest_label(adata: ad.AnnData) -> None:
    cells = taken(adata)
    tree = cells.schema.taxonomy
    assert {name: tree.names[p] if p >= 0 else None for name, p in zip(tree.names, tree.parents, strict=True)} == {
        "T": None, "CD4": "T", "CD8": "T", "B": None, "myeloid": None, "mono": "myeloid", "DC": "myeloid",
    }  # fmt: skip
    assert named(cells) == ["CD4", "CD4", "CD8", "T", "T", "B", "B", "B", "mono", "mono", "DC", "-"]


def test_a_query_may_lack_columns_and_have_strange_labels(adata: ad.AnnData) -> None:
    schema = taken(adata).schema
    assert Schema.from_json(schema.to_json()) == schema
    query = adata[::-1].copy()
    query.obs["type"] = query.obs["type"].replace("DC", "pDC")
    cells = Cells.from_schema(query, schema)
    assert named(cells)[:5] == ["-", "myeloid", "mono", "mono", "B"], "a type that is not known, in a lineage that is"
    assert cells.record.warnings == ["labels unknown to the model ('pDC') count as none"]
    del query.obs["type"]
    assert named(Cells.from_schema(query, schema))[:5] == ["-", "myeloid", "myeloid", "myeloid", "B"]


def test_three_columns_may_skip_a_level(adata: ad.AnnData) -> None:
    adata.obs["state"] = ["naive", "?", *["?"] * 5, "plasma", *["?"] * 4]
    tree = taken(adata, labels_key=["lineage", "type", "state"]).schema.taxonomy
    parent_of = {name: tree.names[p] for name, p in zip(tree.names, tree.parents, strict=True) if p >= 0}
    assert (parent_of["naive"], parent_of["plasma"]) == ("CD4", "B")


@pytest.mark.parametrize(
    ("column", "changes", "said"),
    [
        ("type", {5: "CD4"}, "'CD4' of obs\\['type'\\] lies under '[TB]' in \\d cells and under '[TB]' in \\d cells"),
        ("type", {8: "B"}, "'B' of obs\\['type'\\] lies under 'myeloid', and is a label of a coarser column"),
        ("lineage", {10: "?"}, "'DC' of obs\\['type'\\] has no coarser label in any cell"),
    ],
)
def test_columns_that_contradict_themselves_are_refused(
    adata: ad.AnnData, column: str, changes: dict[int, str], said: str
) -> None:
    for row, value in changes.items():
        adata.obs.iloc[row, adata.obs.columns.get_loc(column)] = value
    with pytest.raises(DataError, match=said) as caught:
        taken(adata)
    assert_sentence(caught.value)


def test_labels_of_one_column_lie_anywhere_in_a_given_tree(adata: ad.AnnData) -> None:
    parents = {"CD4": "T", "CD8": "T", "B": None, "T": None, "mono": "myeloid", "DC": "myeloid", "NK": "T"}
    adata.obs["type"] = adata.obs["type"].fillna("T")
    cells = taken(adata, labels_key="type", taxonomy=parents)
    assert cells.schema.taxonomy.leaf_names == ("B", "CD4", "CD8", "NK", "DC", "mono")
    assert named(cells)[4] == "T"
    with pytest.raises(DataError, match="2 of 6 labels of obs\\['type'\\] are not in the taxonomy \\('DC', 'mono'\\)"):
        taken(adata, labels_key="type", taxonomy={"CD4": "T", "CD8": "T", "B": None})
    with pytest.raises(DataError, match="labels_key names 2") as caught:
        taken(adata, taxonomy=parents)
    assert_sentence(caught.value)


def test_the_root_as_a_label_is_none(adata: ad.AnnData) -> None:
    adata.obs["type"] = adata.obs["type"].fillna("cell")
    parents = dict.fromkeys(["CD4", "CD8", "B", "mono", "DC"], "cell")
    cells = taken(adata, labels_key="type", taxonomy=parents)
    assert "cell" not in cells.schema.label_categories
    assert named(cells)[4] == "-"


@pytest.mark.parametrize("parents", [[0], [1, -1, -1], [-1, -1], ["a", -1, -1], "no", [-1, -2, -1]])
def test_a_stored_tree_that_is_none_is_refused(parents: Any) -> None:
    stored = Schema(("g",), labels_key="type", label_categories=("a", "b", "c")).to_json()
    with pytest.raises(DataError, match="'label_parents' instead of a list of positions"):
        Schema.from_json(stored | {"label_parents": parents})


def test_a_schema_of_version_0_1_has_no_tree() -> None:
    stored = Schema(("g",), labels_key="type", label_categories=("a", "b")).to_json()
    del stored["label_parents"], stored["coarser_labels_keys"]
    assert Schema.from_json(stored).taxonomy == Taxonomy.flat(("a", "b"))


def test_relabelled_cells_keep_everything_else(adata: ad.AnnData) -> None:
    adata.obs["type"] = adata.obs["type"].fillna("?")
    kept = Cells.from_anndata(adata, labels_key="type")
    cells = kept.relabelled(None, "?", {"CD4": "T", "CD8": "T", "B": None, "mono": None, "DC": None})
    direct = taken(adata, labels_key="type", taxonomy={"CD4": "T", "CD8": "T", "B": None, "mono": None, "DC": None})
    assert cells.schema == direct.schema
    np.testing.assert_array_equal(cells.label, direct.label)
    assert cells.counts is kept.counts
