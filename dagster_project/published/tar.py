"""Read the headers of a tar archive that somebody else made, strictly: nothing is guessed, repaired or passed over."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from toolemu.errors import InputError, shorten

BLOCK = 512
CHUNK = 2**20
MAX_EXTENSION = 2**20
"""The most bytes of a header's extension, such as a long name."""
MAX_EXTENSIONS = 8
"""The most extended headers of one file; programs write one or two."""
FILE_KINDS, FOLDER = (b"0", b"\x00", b"7"), b"5"
_SPECIAL = {b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"6": "a pipe"}


class Limits(NamedTuple):
    """How much of an archive is unpacked.

    Attributes:
        entries: The most files and folders.
        file: The most bytes of one file.
        total: The most bytes of all files and headers together.
        ratio: The most bytes that one byte of the archive may become, once there are `ratio_from` bytes.
        ratio_from: The number of unpacked bytes from which on `ratio` counts.
    """

    entries: int = 200_000
    file: int = 2 * 2**30
    total: int = 100 * 2**30
    ratio: int = 250
    ratio_from: int = 64 * 2**20


class Member(NamedTuple):
    """A file or folder: its name as it stands in the archive, its kind, and how many bytes it has."""

    name: str
    kind: bytes
    size: int


class Stream:
    """The bytes of an archive, in order, counted against the limits."""

    def __init__(self, archive: Path, source: BinaryIO, packed: int, limits: Limits) -> None:
        self.archive, self.limits = archive, limits
        self._source, self._packed, self._read = source, packed, 0

    def take(self, size: int) -> bytes:
        """Return up to `size` bytes, fewer only at the end of the archive."""
        found = b""
        while len(found) < size and (more := self._source.read(size - len(found))):
            found += more
        self._read += len(found)
        if self._read > self.limits.total:
            raise too_large(self.archive, f"more than {self.limits.total:,} bytes")
        if self._read > max(self.limits.ratio_from, self._packed * self.limits.ratio):
            raise too_large(self.archive, f"more than {self.limits.ratio} bytes for each byte of the archive")
        return found

    def chunks(self, size: int) -> Iterator[bytes]:
        """Yield the next `size` bytes in pieces."""
        while size:
            chunk = self.take(min(size, CHUNK))
            if not chunk:
                raise damaged(self.archive, "the archive ends within a file")
            size -= len(chunk)
            yield chunk

    def skip(self, size: int) -> None:
        """Pass over the next `size` bytes."""
        for _ in self.chunks(size):
            pass

    def rest_is_blank(self) -> bool:
        """Say whether nothing but zeros is left."""
        while chunk := self.take(CHUNK):
            if chunk.strip(b"\x00"):
                return False
        return True


def members(stream: Stream) -> Iterator[Member]:
    """Yield the files and folders of an archive; the caller reads each file's content before it goes on."""
    extended: dict[str, str] = {}
    extensions = 0
    while True:
        block = stream.take(BLOCK)
        if len(block) < BLOCK:
            raise damaged(stream.archive, "the archive ends before its end mark")
        if not block.strip(b"\x00"):
            break
        member = _header(stream.archive, block)
        if member.kind in (b"x", b"g", b"L", b"K"):
            extended |= _extension(stream, member)
            extensions += 1
            if extensions > MAX_EXTENSIONS:
                raise damaged(stream.archive, "one file has many extended headers")
            continue
        name, size = extended.get("path", member.name), extended.get("size")
        member = Member(name, member.kind, member.size if size is None else _decimal(stream.archive, size))
        extended, extensions = {}, 0
        if member.kind == b"\x00" and member.name.endswith("/"):
            member = member._replace(kind=FOLDER)  # as the oldest archives say it
        _check_kind(stream, member)
        yield member
    if extended or not stream.rest_is_blank():
        raise damaged(stream.archive, "there is something behind its end mark")


def _check_kind(stream: Stream, member: Member) -> None:
    if member.kind != FOLDER and member.kind not in FILE_KINDS:
        what = _SPECIAL.get(member.kind, "of an unknown kind")
        raise InputError(
            stream.archive,
            "",
            f"holds {shorten(member.name)}, which is {what}; only regular files and folders are unpacked.",
            "Make it again, with --dereference --hard-dereference if it is a link.",
            code="archive.special-file",
        )
    if member.size > stream.limits.file:
        raise too_large(stream.archive, f"a file of {member.size:,} bytes, {shorten(member.name)}")
    if member.kind == FOLDER and member.size:
        raise damaged(stream.archive, f"the folder {shorten(member.name)} has a content")


def _header(archive: Path, block: bytes) -> Member:
    """Return what a header block says.

    Source: POSIX.1-2017, `pax`, "ustar Interchange Format"; GNU tar's manual, "Basic Tar Format".
    """
    told = _octal(archive, block[148:156])
    if told != sum(block[:148]) + sum(block[156:]) + 8 * ord(" "):
        raise damaged(archive, "a header's checksum is wrong")
    name = block[:100].split(b"\x00")[0]
    if block[257:263] == b"ustar\x00" and (prefix := block[345:500].split(b"\x00")[0]):
        name = prefix + b"/" + name
    return Member(_text(archive, name), block[156:157], _octal(archive, block[124:136]))


def _extension(stream: Stream, member: Member) -> dict[str, str]:
    """Return the name and size that an extended header gives the next entry."""
    if member.size > MAX_EXTENSION:
        raise too_large(stream.archive, f"a header of {member.size:,} bytes")
    content = b"".join(stream.chunks(member.size))
    stream.skip(-member.size % BLOCK)
    if member.kind in (b"L", b"K"):
        return {"path": _text(stream.archive, content.split(b"\x00")[0])} if member.kind == b"L" else {}
    found = dict(_records(stream.archive, content))
    if any(name.startswith("GNU.sparse") for name in found) or (member.kind == b"g" and {"path", "size"} & set(found)):
        raise damaged(stream.archive, "it is sparse, or names all its files at once")
    return {name: found[name] for name in ("path", "size") if name in found}


def _records(archive: Path, content: bytes) -> Iterator[tuple[str, str]]:
    """Yield the records of an extended header: each is its length, a blank, a name, `=`, a value and a line end."""
    while content.strip(b"\x00"):
        digits, _, _ = content[:12].partition(b" ")
        length = _decimal(archive, digits.decode("ascii", "replace"))
        record = content[len(digits) + 1 : length]
        if not len(digits) + 1 < length <= len(content) or b"=" not in record or not record.endswith(b"\n"):
            raise damaged(archive, "an extended header is malformed")
        name, _, value = record[:-1].partition(b"=")
        if name in (b"path", b"size") or name.startswith(b"GNU.sparse"):  # others, such as times, may be no text
            yield name.decode(), _text(archive, value)
        content = content[length:]


def _octal(archive: Path, field: bytes) -> int:
    if field[0] == 0x80:  # GNU's way of writing large numbers
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \x00")
    if not re.fullmatch(rb"[0-7]*", digits):
        raise damaged(archive, "a number in a header is malformed")
    return int(digits or b"0", 8)


def _decimal(archive: Path, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise damaged(archive, "a number in a header is malformed")
    return int(text)


def _text(archive: Path, name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise unsafe_name(archive, name, "it is not UTF-8") from None


def unsafe_name(archive: Path, name: object, why: str) -> InputError:
    """Return the error for a name that no honest archive holds."""
    problem = f"holds the name {shorten(name)}: {why}."
    return InputError(archive, "", problem, "Do not trust this archive.", code="archive.unsafe-name")


def too_large(archive: Path, what: str) -> InputError:
    """Return the error for an archive that exceeds a limit."""
    remedy = "If you trust it, unpack it yourself and name the folder."
    return InputError(archive, "", f"holds {what}, which is more than is unpacked.", remedy, code="archive.too-large")


def damaged(archive: Path, why: str) -> InputError:
    """Return the error for an archive that cannot be read."""
    remedy = "Fetch or make the archive again."
    return InputError(archive, "", f"cannot be unpacked: {why}.", remedy, code="archive.damaged")
