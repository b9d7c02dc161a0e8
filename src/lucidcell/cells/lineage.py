"""A tree of cell types, factors that drift along it, and distances on it.

Every leaf lies at distance 1 from the root. A factor starts at 0 and moves as Brownian motion of variance 1 per unit of
length, so that its variance is 1 at the leaves, and that of the difference of two leaves is the length of their path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from lucidcell.errors import SettingError

Nested: TypeAlias = "Mapping[str, Nested | None] | Sequence[str]"


@dataclass(frozen=True)
class Lineage:
    """A rooted tree; parents stand before their children, and node 0 is the root."""

    names: list[str]
    parent: np.ndarray  # (nodes,) index of the parent, -1 for the root
    position: np.ndarray  # (nodes,) distance from the root, 0 to 1
    group: np.ndarray  # (nodes,) coarse group, -1 for nodes above all groups
    group_names: list[str]  # empty: the tree has no groups

    @property
    def leaves(self) -> np.ndarray:
        """Indices of the nodes without children."""
        return np.setdiff1d(np.arange(len(self.names)), self.parent)

    def shared(self) -> np.ndarray:
        """Position of the last common node of every two nodes, (nodes, nodes)."""
        common = np.zeros((len(self.names), len(self.names)))
        for node in range(1, len(self.names)):
            common[node, :node] = common[:node, node] = common[self.parent[node], :node]
            common[node, node] = self.position[node]
        return common


def random_lineage(n_leaves: int, n_groups: int | None, rng: np.random.Generator) -> Lineage:
    """Binary tree grown by splitting a random branch at a time, as in a Yule process.

    The split of k branches into k + 1 lies at log k / log(2 n_leaves), where exponential growth would put it. The
    groups are the branches present when there are ``n_groups`` of them.
    """
    parent, position, group = [-1], [0.0], [-1]
    starts = [0, 0]  # the node at which each open branch starts
    clade = [0, 1] if n_groups == 2 else [-1, -1]
    for n_open in range(2, n_leaves):
        split = int(rng.integers(n_open))
        parent.append(starts[split])
        position.append(np.log(n_open) / np.log(2 * n_leaves))
        group.append(clade[split])
        starts[split] = len(parent) - 1
        starts.append(len(parent) - 1)
        clade = list(range(n_groups)) if n_groups == n_open + 1 else [*clade, clade[split]]
    n_inner = len(parent)
    return Lineage(
        ["root", *(f"node_{i}" for i in range(1, n_inner)), *(f"type_{i}" for i in range(n_leaves))],
        np.array([*parent, *starts]),
        np.array([*position, *([1.0] * n_leaves)]),
        np.array([*group, *clade]),
        [f"group_{i}" for i in range(n_groups or 0)],
    )


def nested_lineage(tree: Nested) -> Lineage:
    """Tree of nested names; a node h levels above its deepest leaf, in a tree H levels deep, lies at 1 - h / H."""
    names, parent, levels = ["root"], [-1], [0]

    def add(children: Nested | None, above: int) -> int:
        """Append the nodes below ``above``; how many levels there are."""
        depths = [0]
        below = children if isinstance(children, Mapping) else dict.fromkeys(children or ())
        for name, grandchildren in below.items():
            names.append(name)
            parent.append(above)
            levels.append(0)
            depths.append(1 + add(grandchildren, len(names) - 1))
        levels[above] = max(depths)
        return levels[above]

    depth = add(tree, 0)
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        msg = f"the tree has {names.count(repeated[0])} nodes named {repeated[0]!r}: give every node a name of its own."
        raise SettingError(msg)
    group = np.full(len(names), -1)
    for node in range(1, len(names)):
        group[node] = group.max() + 1 if parent[node] == 0 else group[parent[node]]
    return Lineage(
        names,
        np.array(parent),
        1 - np.array(levels) / max(depth, 1),
        group,
        [name for name, above in zip(names, parent, strict=True) if above == 0],
    )


def drift(
    lineage: Lineage, branch: np.ndarray, position: np.ndarray, n_factors: int, rng: np.random.Generator
) -> np.ndarray:
    """Brownian motion from 0 at the root along every branch, seen at the cells.

    Parameters
    ----------
    lineage
        The tree.
    branch
        For each cell the node that ends its branch, (n_cells,).
    position
        Distance of each cell from the root, between those of the branch's ends, (n_cells,).
    n_factors
        Independent motions F, each of variance 1 per unit of length.
    rng
        Source of the increments.

    Returns
    -------
    Values of the factors, (n_cells, F). Cells at the same place have the same values.
    """
    values, at_node = np.zeros((len(branch), n_factors)), np.zeros((len(lineage.names), n_factors))
    order = np.lexsort((position, branch))
    first = np.searchsorted(branch[order], np.arange(len(lineage.names) + 1))
    for node in range(1, len(lineage.names)):
        cells, above = order[first[node] : first[node + 1]], lineage.parent[node]
        stops = np.concatenate([[lineage.position[above]], position[cells], [lineage.position[node]]])
        steps = rng.standard_normal((len(stops) - 1, n_factors)) * np.sqrt(np.diff(stops))[:, None]
        path = at_node[above] + np.cumsum(steps, axis=0)
        values[cells], at_node[node] = path[:-1], path[-1]
    return values
