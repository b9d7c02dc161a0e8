"""What a section of the report holds, for tests to look at."""

from __future__ import annotations

import re

from lucidcell.report.blocks import Card, Picture, Row, Section, Text


def blocks(section: Section, kind: type) -> list:
    """All blocks of a kind, at any depth."""
    found, waiting = [], list(section.blocks)
    while waiting:
        block = waiting.pop(0)
        if isinstance(block, kind):
            found.append(block)
        if isinstance(block, Row | Card):
            waiting = [*block.blocks, *waiting]
    return found


def pictures(section: Section | None) -> list[str]:
    """What each picture says it shows, in the order of the page."""
    assert section is not None
    return [re.search(r'(?:alt|aria-label)="([^"]*)"', one.image).group(1) for one in blocks(section, Picture)]


def texts(section: Section) -> str:
    return " ".join(block.text for block in blocks(section, Text))
