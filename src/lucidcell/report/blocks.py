"""What a section of the report is made of. Sections hold data; only page.html turns them into HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from markupsafe import Markup


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Facts:
    """Names and values, as tiles."""

    kind: ClassVar[str] = "facts"
    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """Rows of text under a header. `shares` (0 to 1, one per row) are drawn as bars in the last column."""

    kind: ClassVar[str] = "table"
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    shares: Sequence[float] = ()
    visible: int = 15  # further rows are folded away


@dataclass(frozen=True)
class Picture:
    """A figure with its caption."""

    kind: ClassVar[str] = "picture"
    image: Markup
    caption: str = ""
    wide: bool = False  # not narrower than 640 px: on a phone, it scrolls


@dataclass(frozen=True)
class Row:
    """Blocks side by side where there is room."""

    kind: ClassVar[str] = "row"
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Card:
    """A titled box."""

    kind: ClassVar[str] = "card"
    title: str
    subtitle: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Code:
    """Text to copy."""

    kind: ClassVar[str] = "code"
    text: str
    caption: str = ""


@dataclass(frozen=True)
class Warnings:
    """Sentences that the reader should not miss."""

    kind: ClassVar[str] = "warnings"
    sentences: Sequence[str]


Block = Text | Facts | Table | Picture | Row | Card | Code | Warnings


@dataclass(frozen=True)
class Section:
    """One entry of the table of contents."""

    title: str
    blocks: Sequence[Block]
