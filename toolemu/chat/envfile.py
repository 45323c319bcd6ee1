"""`.env` files in the encodings that editors and shells write: UTF-8 with or without a mark, UTF-16, Latin-1."""

from __future__ import annotations

import codecs
import io
from pathlib import Path

from dotenv import dotenv_values

from toolemu.errors import InputError

# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)


def read_variable(path: Path, variable: str) -> str | None:
    """Return a variable of a `.env` file; None if there is no such file, or no such variable in it.

    Bytes that are not of the file's encoding matter only within the variable's own value.

    Raises:
        InputError: The file cannot be read, or the value has bytes that are not of its encoding.
    """
    if not (path.is_file() or path.is_fifo()):
        return None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            path, "", f"cannot be read: {error.strerror}.", "Check its permissions.", code="env-file.unreadable"
        ) from error
    encoding = _encoding(content)
    text = content.decode(encoding, errors="surrogateescape" if encoding.startswith("utf-8") else "replace")
    value = dotenv_values(stream=io.StringIO(text)).get(variable)
    if value is not None and any("\ud800" <= letter <= "\udfff" or letter == "\ufffd" for letter in value):
        raise InputError(  # the value is a secret, and is not repeated
            path,
            variable,
            "its value holds bytes that are not UTF-8.",
            "Expected: a file in UTF-8. Save it so.",
            code="env-file.encoding",
        )
    return value


def _encoding(content: bytes) -> str:
    marked = next((encoding for mark, encoding in _MARKS if content.startswith(mark)), None)
    if marked:
        return marked
    # Without a mark, UTF-16 shows by the zero bytes of its ASCII letters.
    if content[1:2] == b"\0" and b"\0" not in content[:1]:
        return "utf-16-le"
    return "utf-16-be" if content[:1] == b"\0" else "utf-8"
