"""Text of others made safe to show: no control characters, no invisible or bidirectional marks."""

from __future__ import annotations


def printable(text: str, kept: str = "") -> str:
    r"""Return the text with a number such as ``\x1b`` in place of every character that is not printable.

    Such characters move a terminal's cursor, set its title, or hide and reorder what a reader sees: control characters,
    line ends, zero-width and bidirectional marks, halves of surrogate pairs.

    Args:
        text: The text.
        kept: Characters that stay although they are not printable, such as line ends.
    """
    if text.isprintable():
        return text
    return "".join(c if c in kept or c.isprintable() else f"\\x{ord(c):02x}" for c in text)
