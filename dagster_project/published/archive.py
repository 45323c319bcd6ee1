"""Unpack a tar archive that somebody else made: regular files and folders only, below one folder, within limits.

Headers are read here and not by Python's `tarfile`, whose extraction filters can be led out of the target folder
(CVE-2025-4517) and whose header parser can be made to loop (CVE-2024-6232, CVE-2025-8194) in Python versions that are
in use. Links are never made and never followed, so that a checked name cannot lead anywhere else.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import zlib
from pathlib import Path
from typing import BinaryIO

from dagster_project.published.tar import (
    BLOCK,
    CHUNK,
    FOLDER,
    Limits,
    Stream,
    damaged,
    members,
    too_large,
    unsafe_name,
)
from dagster_project.published.xz import XzStream
from toolemu.errors import InputError, shorten

MAX_PARTS = 32
LIMITS = Limits()
RESERVED = re.compile(r"(?i)(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?:\..*)?")
"""Names that are devices on Windows, whatever their extension."""
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def unsafe_part(part: str) -> str:
    """Return why one part of a path cannot be the name of a file here or on another system; empty if it can."""
    if part in ("", ".", ".."):
        return f"{part!r} is no name of a file"
    if _UNPRINTABLE.search(part):
        return "it holds a control character"
    if "/" in part or "\\" in part:
        return "it holds a slash or a backslash"
    if re.match(r"[A-Za-z]:", part):
        return "it begins with a drive letter"
    if RESERVED.fullmatch(part):
        return "Windows reserves it for a device"
    if part != part.rstrip(" ."):
        return "it ends with a blank or a full stop"
    return "it is longer than 255 bytes" if len(part.encode()) > 255 else ""


def unpack(archive: Path, target: Path, limits: Limits = LIMITS) -> None:
    """Unpack an archive (`.tar`, or compressed by gzip, bzip2 or xz, whatever its name) into a new folder.

    Args:
        archive: The archive.
        target: The folder to make; it must not exist.
        limits: How much is unpacked.

    Raises:
        InputError: The archive is damaged, exceeds the limits, or holds something else than regular files and folders
            with harmless names. `target` then holds a part of it; the caller removes that.
    """
    target.mkdir(parents=True)
    made: set[tuple[str, ...]] = {()}
    try:
        with archive.open("rb") as file:
            stream = Stream(archive, _decompressed(file), archive.stat().st_size, limits)
            for count, member in enumerate(members(stream), 1):
                if count > limits.entries:
                    raise too_large(archive, f"more than {limits.entries:,} files and folders")
                parts = _parts(archive, member.name)
                if member.kind == FOLDER:
                    _make_folders(target, parts, made)
                else:
                    _make_folders(target, parts[:-1], made)
                    with target.joinpath(*parts).open("xb") as out:
                        for chunk in stream.chunks(member.size):
                            out.write(chunk)
                    stream.skip(-member.size % BLOCK)
    except (FileExistsError, NotADirectoryError) as error:
        problem = f"holds {shorten(member.name)} twice."
        raise InputError(archive, "", problem, "Make the archive again.", code="archive.twice") from error
    except (lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        raise damaged(archive, str(error)) from error


def _make_folders(target: Path, parts: tuple[str, ...], made: set[tuple[str, ...]]) -> None:
    for depth in range(1, len(parts) + 1):
        if parts[:depth] not in made:
            target.joinpath(*parts[:depth]).mkdir()
            made.add(parts[:depth])


def _decompressed(file: BinaryIO) -> BinaryIO:
    """Return the archive's content as it is read, by what its first bytes say."""
    start = file.read(6)
    file.seek(0)
    if start.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]
    if start.startswith(b"BZh"):
        return bz2.BZ2File(file)  # type: ignore[return-value]
    return io.BufferedReader(XzStream(file), CHUNK) if start == b"\xfd7zXZ\x00" else file


def _parts(archive: Path, name: str) -> tuple[str, ...]:
    """Return the parts of an entry's name below the target folder; none for the folder itself."""
    if name.startswith("/"):
        raise unsafe_name(archive, name, "it is absolute")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    for part in parts:
        if problem := unsafe_part(part):
            raise unsafe_name(archive, name, problem)
    if len(parts) > MAX_PARTS:
        raise unsafe_name(archive, name, f"it lies more than {MAX_PARTS} folders deep")
    return parts
