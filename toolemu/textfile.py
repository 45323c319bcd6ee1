"""Read a file that a user gave: a regular file of bounded size, in the encodings that editors write."""

from __future__ import annotations

import codecs
import stat
from pathlib import Path

from toolemu.errors import InputError

MAX_BYTES = 256 * 2**20
"""The largest file that is read into memory as a whole, unless a caller has a smaller limit."""
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins with the mark of UTF-16, so it comes first
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def read_bytes(path: Path, limit: int = MAX_BYTES) -> bytes:
    """Return the content of a regular file.

    Args:
        path: The file.
        limit: The most bytes that it may have.

    Raises:
        InputError: There is no such file, it is a folder, a pipe or a device, or it is larger than `limit`.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise InputError(path, "", f"is {what}.", "Name a file.", code="file.not-regular")
        if status.st_size > limit:
            raise InputError(
                path,
                "",
                f"has {status.st_size:,} bytes; at most {limit:,} are read.",
                "Check that this is the right file.",
                code="file.too-large",
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        why = getattr(error, "strerror", None) or error
        raise InputError(path, "", f"cannot be read: {why}.", "Check the path.", code="file.unreadable") from error


def decode(content: bytes, path: Path) -> str:
    """Return the text of a file: UTF-8, or UTF-16 or UTF-32 with a byte-order mark. The mark is left out.

    Raises:
        InputError: The bytes are no such text; names the byte.
    """
    mark, encoding = next(((mark, name) for mark, name in _MARKS if content.startswith(mark)), (b"", "utf-8"))
    try:
        return content[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(
            path,
            f"byte {len(mark) + error.start + 1}",
            f"is not text in {encoding.upper()}.",
            "Save the file as UTF-8.",
            code="file.encoding",
        ) from None


def read_text(path: Path, limit: int = MAX_BYTES) -> str:
    """Return the text of a file; see `read_bytes` and `decode`. Line ends are kept as they are."""
    return decode(read_bytes(path, limit), path)
