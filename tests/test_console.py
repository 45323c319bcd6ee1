"""Whatever the command line prints, a terminal gets no sequence of a stranger's and nobody sees a secret."""

from __future__ import annotations

import io

import pytest
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from dagster_project.console import open_console, tell_traceback
from tests.conftest import make_lab
from toolemu.redaction import remember

HOSTILE = "\x1b]0;title\x07\x1b[2J\x9b31m\u202eabc\u200b\r\x08\x00"
KEY = "sk-planted-0123456789abcdef"


def table() -> Table:
    made = Table(title=Text(HOSTILE))
    made.add_column(Text(HOSTILE))
    made.add_row(Text(HOSTILE))
    return made


@pytest.mark.parametrize("what", [HOSTILE, Text(HOSTILE), Text(HOSTILE, style="red"), table(), Panel(Text(HOSTILE))])
def test_what_is_printed_is_printable(what: object) -> None:
    console = open_console()
    console.file = file = io.StringIO()
    console.print(what, markup=False, highlight=False)
    written = file.getvalue()
    assert "abc" in written
    assert all(c.isprintable() or c in "\n\t" for c in written)


def test_colours_and_live_views_of_our_own_work() -> None:
    console = open_console()
    console.file = file = io.StringIO()
    console._force_terminal, console._color_system = True, console._detect_color_system()
    with Live(Text("going"), console=console, refresh_per_second=1):
        console.print(Text(HOSTILE, style="red"))
    assert "\x1b[2J" not in file.getvalue() and "going" in file.getvalue()


def test_an_unforeseen_error_is_told_without_secrets_and_sequences(capsys: pytest.CaptureFixture[str]) -> None:
    remember(KEY)
    error = ValueError(f"{HOSTILE} {KEY}")
    tell_traceback(ValueError, error, None)
    told = capsys.readouterr().err
    assert "ValueError" in told and KEY not in told
    assert all(c.isprintable() or c in "\n\t" for c in told)


def test_an_error_of_the_command_line_is_printable(tmp_path_factory: pytest.TempPathFactory) -> None:
    lab = make_lab(tmp_path_factory.mktemp("console"), description=HOSTILE)
    done = lab.frontier("check", "small.yaml", check=False)
    failed = lab.frontier("check", f"no\x1b[2J{'x'}.yaml", check=False)
    for told in (done.stdout + done.stderr, failed.stderr):
        assert told and all(c.isprintable() or c in "\n\t" for c in told)
    assert failed.returncode == 1
