"""The consoles that the command line prints to: whatever is printed, a terminal is sent no sequence of a stranger's."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from types import TracebackType

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook
from rich.segment import Segment

from toolemu.redaction import redact
from toolemu.terminal import printable

WIDTH = 120  # of output into a file or a pipe; a terminal says its own


class _Printable:
    """Something to print whose text is made printable after its layout; its styles are the console's own."""

    def __init__(self, renderable: ConsoleRenderable) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self._renderable, options):
            yield segment if segment.control else Segment(printable(segment.text, "\n\t"), segment.style)


class _PrintableHook(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Printable(renderable) for renderable in renderables]


def open_console(*, stderr: bool = False) -> Console:
    """Return a console on which texts of others are safe, whatever prints them."""
    width = None if stderr or sys.stdout.isatty() else WIDTH
    console = Console(stderr=stderr, width=width, soft_wrap=stderr)
    console.push_render_hook(_PrintableHook())
    return console


def tell_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the traceback of an unforeseen error, without secrets and terminal sequences; see `sys.excepthook`."""
    written = "".join(traceback.format_exception(kind, error, trace))
    sys.stderr.write(printable(redact(written), "\n\t"))
