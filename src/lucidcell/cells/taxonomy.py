"""`Taxonomy`: labels as the nodes of a tree.

The root is implied and has no name. Leaves are the finest types; a cell may be labelled at any node. A flat list of
labels is the tree of depth 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lucidcell.errors import DataError, SettingError

TOP = -1  # stands for the root where the parent of a node is asked for


@dataclass(frozen=True)
class Taxonomy:
    """A tree of labels. Nodes are numbered by their position in `names`, leaves by their order among the nodes.

    Attributes
    ----------
    names
        Every node but the root.
    parents
        Position of each node's parent, -1 right under the root.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]

    @classmethod
    def flat(cls, names: Sequence[str]) -> Taxonomy:
        """Labels without any above them."""
        return cls(tuple(names), (TOP,) * len(names))

    @classmethod
    def from_parents(cls, parent_of: Mapping[str, str | None], order: Sequence[str] = ()) -> Taxonomy:
        """The tree in which each key lies under its value, or under the root for None.

        Names that occur as parents only, and those of `order`, lie under the root. If one node is above all others, it
        is the root. Children follow their parent; siblings come in the order in which they, or nodes under them, come
        in `order` and then in `parent_of`.

        Raises
        ------
        DataError
            If following the parents leads in a circle.
        """
        others = [name for name in [*parent_of.values(), *order] if name is not None]
        above = dict(parent_of) | {name: None for name in others if name not in parent_of}
        _refuse_circles(above)
        rank = dict[str | None, int]()
        for name in [*order, *above]:  # a node comes where the first of those under it comes
            above_it: str | None = name
            while above_it is not None and above_it not in rank:
                rank[above_it] = len(rank)
                above_it = above[above_it]
        below: dict[str | None, list[str]] = {}
        for name in sorted(above, key=rank.__getitem__):
            below.setdefault(above[name], []).append(name)
        tops = below.get(None, [])
        if len(tops) == 1 and tops[0] in below:
            tops = below[tops[0]]
        names, parents = list[str](), list[int]()
        waiting = [(name, TOP) for name in reversed(tops)]
        while waiting:
            name, parent = waiting.pop()
            waiting += [(child, len(names)) for child in reversed(below.get(name, []))]
            names.append(name)
            parents.append(parent)
        return cls(tuple(names), tuple(parents))

    def with_unobserved(self, n: int) -> Taxonomy:
        """The same with `n` further leaves under the root, for types that no label names."""
        new = tuple(f"unobserved_{i + 1}" for i in range(n))
        if taken := [name for name in new if name in self.names]:
            raise SettingError(f"{taken[0]!r} is a label, and stands for an unobserved type too: rename the label.")
        return Taxonomy(self.names + new, self.parents + (TOP,) * n)

    # --- its shape ---

    @cached_property
    def depths(self) -> np.ndarray:
        """Number of nodes above each node, (nodes,) int."""
        depths = np.zeros(len(self.names), int)
        for node, parent in enumerate(self.parents):  # parents come before their children
            depths[node] = 0 if parent == TOP else depths[parent] + 1
        return depths

    @property
    def n_levels(self) -> int:
        return int(self.depths.max(initial=-1)) + 1

    @cached_property
    def leaves(self) -> np.ndarray:
        """Positions of the nodes without children, in order."""
        return np.setdiff1d(np.arange(len(self.names)), self.parents)

    @property
    def leaf_names(self) -> tuple[str, ...]:
        return tuple(self.names[node] for node in self.leaves)

    @cached_property
    def holds(self) -> np.ndarray:
        """Whether each leaf lies at or under each node, (nodes, leaves) bool."""
        found = np.zeros((len(self.names), len(self.leaves)), bool)
        for position, leaf in enumerate(self.leaves):
            node = int(leaf)
            while node != TOP:
                found[node, position] = True
                node = self.parents[node]
        return found

    def level(self, level: int | None) -> tuple[tuple[str, ...], np.ndarray]:
        """The nodes at a level and, for each leaf, which of them it belongs to.

        Parameters
        ----------
        level
            0 for the coarsest labels; None for the leaves. Leaves above a level stand in it for themselves.

        Returns
        -------
        names
            Of the nodes at that level.
        member
            (leaves,) position of each leaf's node among them.

        Raises
        ------
        SettingError
            If there is no such level.
        """
        if level is None:
            level = self.n_levels - 1
        if not 0 <= level < self.n_levels:
            raise SettingError(
                f"level is {level!r}; the taxonomy has {self.n_levels} levels, from 0, the coarsest, to "
                f"{self.n_levels - 1}."
            )
        ends = np.isin(np.arange(len(self.names)), self.leaves) & (self.depths < level)
        at = np.flatnonzero((self.depths == level) | ends)
        return tuple(self.names[node] for node in at), self.holds[at].argmax(0)


def _refuse_circles(above: Mapping[str, str | None]) -> None:
    settled: set[str | None] = {None}
    for start in above:
        path, name = dict[str, None](), start
        while name not in settled:
            if name in path:
                circle = [*path][[*path].index(name) :]
                raise DataError(
                    f"the taxonomy goes in a circle, {' under '.join(map(repr, [*circle, name]))}: take one of these "
                    "parents out."
                )
            path[name] = None
            name = above[name]  # type: ignore[assignment]  # None is settled
        settled |= set(path)
