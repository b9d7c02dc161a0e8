"""Names from the data, made fit to be written in a figure."""

from __future__ import annotations

LONGEST = 28


def readable(name: object, longest: int = LONGEST) -> str:
    """Put the name on one line: unprintable characters become U+FFFD, the middle of a long name an ellipsis.

    Parameters
    ----------
    name
        Name of a gene, cell type, batch or factor.
    longest
        Characters kept at most.
    """
    text = " ".join(str(name).split()) or "\N{REPLACEMENT CHARACTER}"
    text = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    if len(text) <= longest:
        return text
    head = (longest - 1) * 2 // 3
    return f"{text[:head]}\N{HORIZONTAL ELLIPSIS}{text[len(text) - (longest - 1 - head) :]}"
