"""`.env` files as editors and shells write them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolemu.chat.envfile import read_variable
from toolemu.chat.keys import read_key
from toolemu.errors import FrontierError, InputError

PLAIN = "# the team's keys\r\nOTHER=x\r\nTEST_KEY=sk-1\r\n"


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.encode(),
        PLAIN.encode("utf-8-sig"),
        PLAIN.encode("utf-16"),
        b"\xfe\xff" + PLAIN.encode("utf-16-be"),
        PLAIN.encode("utf-16-le"),
        PLAIN.encode("utf-16-be"),
        PLAIN.encode("utf-32"),
        b"# caf\xe9\nOTHER=\xfc\n" + PLAIN.encode(),
    ],
    ids=["utf-8", "bom", "utf-16", "utf-16-be", "no mark, le", "no mark, be", "utf-32", "latin-1 elsewhere"],
)
def test_a_key_is_read_whatever_the_encoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.delenv("TEST_KEY", raising=False)
    (tmp_path / ".env").write_bytes(content)
    assert read_key("here", "TEST_KEY", tmp_path).get_secret_value() == "sk-1"


@pytest.mark.parametrize(
    "content", [b"TEST_KEY=sk-\xe9\n", b"\xff\xfe" + "TEST_KEY=sk-".encode("utf-16-le") + b"\x00\xd8"]
)
def test_a_key_with_other_bytes_is_an_error_that_names_the_file_and_not_the_key(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".env").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_key("here", "TEST_KEY", tmp_path)
    assert (caught.value.code, caught.value.path) == ("env-file.encoding", str(tmp_path / ".env"))
    assert "sk-" not in str(caught.value)


def test_no_file_and_no_variable_are_none(tmp_path: Path) -> None:
    assert read_variable(tmp_path / ".env", "TEST_KEY") is None
    (tmp_path / ".env").write_text("OTHER=1")
    assert read_variable(tmp_path / ".env", "TEST_KEY") is None


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80))
def test_any_file_is_read_or_an_error_of_ours(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.env"
    path.write_bytes(content + b"\nTEST_KEY=1\n")
    try:
        read_variable(path, "TEST_KEY")
    except FrontierError as error:
        assert error.code == "env-file.encoding"
