"""Folders that anyone can check: BagIt (RFC 8493), with SHA-256 in lists that `sha256sum --check` reads, too."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from dagster_project.artifacts.manifest import file_sha256
from toolemu.errors import InputError
from toolemu.textfile import read_bytes

DATA = "data"
DECLARATION = "bagit.txt"
INFO = "bag-info.txt"
PAYLOAD_LIST = "manifest-sha256.txt"
TAG_LIST = "tagmanifest-sha256.txt"
SIGNATURE = f"{TAG_LIST}.sig"
"""The signature of the list of lists, as `ssh-keygen -Y sign` writes it; the only file that no list can hold."""
DECLARED = "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"


class Bag(NamedTuple):
    """What lies in a bag.

    Attributes:
        hashes: The SHA-256 of every regular file, by its path below the bag's folder.
        problems: What is wrong, each with the name of its file.
    """

    hashes: dict[str, str]
    problems: list[str]


class _Contents(NamedTuple):
    files: list[str]
    odd: list[str]


def seal(folder: Path, info: Mapping[str, str]) -> int:
    """Make a folder with a payload in `data` a bag, and return the number of files in it.

    Args:
        folder: The folder, of regular files alone.
        info: What `bag-info.txt` says of it.
    """
    _write(folder / DECLARATION, DECLARED)
    _write(folder / INFO, "".join(f"{name}: {' '.join(value.split())}\n" for name, value in info.items()))
    payload = [name for name in _contents(folder).files if _is_payload(name)]
    _write(folder / PAYLOAD_LIST, _lines({name: file_sha256(folder / name) for name in payload}))
    tags = [name for name in _contents(folder).files if not _is_payload(name) and name != TAG_LIST]
    _write(folder / TAG_LIST, _lines({name: file_sha256(folder / name) for name in tags}))
    return len(payload)


def read_bag(folder: Path) -> Bag:
    """Return what lies in a bag, and what is wrong with it; no problems if it is as it was sealed.

    Lists must be to the byte what `seal` writes for the files that are there: no byte of a bag can change unnoticed.
    Everything that is in no list is a problem, wherever it lies: files, links, pipes, devices, empty folders.

    Raises:
        InputError: The folder is no bag, or a list cannot be read.
    """
    contents = _contents(folder)
    for name in (DECLARATION, PAYLOAD_LIST, TAG_LIST):
        if name not in contents.files:
            problem = f"is no bundle: it has no {name}."
            raise InputError(folder, "", problem, "Name a folder that `frontier bundle` wrote.", code="bundle.none")
    hashes: dict[str, str] = {}
    problems = list(contents.odd)
    for name in contents.files:
        try:
            hashes[name] = file_sha256(folder / name)
        except OSError as error:
            problems.append(f"{name}: cannot be read: {error.strerror}")
    unlisted = {TAG_LIST, SIGNATURE}
    for listing, payload in ((PAYLOAD_LIST, True), (TAG_LIST, False)):
        expected = _read_list(folder / listing)
        actual = {name: sha for name, sha in hashes.items() if _is_payload(name) is payload and name not in unlisted}
        problems += [f"{path}: missing" for path in expected if path not in actual]
        altered = [path for path, sha256 in actual.items() if expected.get(path, sha256) != sha256]
        problems += [f"{path}: altered, or its line in {listing} is" for path in altered]
        problems += [f"{path}: not in {listing}" for path in actual if path not in expected]
        if read_bytes(folder / listing) != _lines(expected).encode():
            problems.append(f"{listing}: altered")
    return Bag(hashes, problems)


def _is_payload(name: str) -> bool:
    return name.startswith(f"{DATA}/")


def _contents(folder: Path) -> _Contents:
    """Return the regular files below a folder, sorted, and what else there is but folders with something in them."""
    found = _Contents([], [])
    folders = [folder]
    while folders:
        place = folders.pop()
        with os.scandir(place) as listed:
            entries = list(listed)
        if not entries:
            found.odd.append(f"{place.relative_to(folder).as_posix()}: an empty folder, which is in no list")
        for entry in entries:
            name = Path(entry.path).relative_to(folder).as_posix()
            mode = entry.stat(follow_symlinks=False).st_mode
            if not name.isprintable():
                found.odd.append(f"{name!a}: in no list, since its name cannot be printed")
            elif stat.S_ISDIR(mode):
                folders.append(Path(entry.path))
            elif stat.S_ISREG(mode):
                found.files.append(name)
            else:
                what = "a link" if stat.S_ISLNK(mode) else "a pipe, a socket or a device"
                found.odd.append(f"{name}: is {what}")
    return _Contents(sorted(found.files), sorted(found.odd))


def _lines(hashes: Mapping[str, str]) -> str:
    return "".join(f"{sha256}  {path}\n" for path, sha256 in sorted(hashes.items()))


def _read_list(path: Path) -> dict[str, str]:
    hashes = {}
    try:
        lines = read_bytes(path).decode().split("\n")
    except UnicodeDecodeError as error:
        problem = "is not UTF-8: the file was altered."
        raise InputError(path, f"byte {error.start}", problem, code="bundle.altered-list") from error
    for number, line in enumerate(lines, 1):
        sha256, separator, name = line.partition("  ")
        if line and not (separator and len(sha256) == 64 and not set(sha256) - set("0123456789abcdef")):
            problem = "expected a SHA-256, two spaces and a path: the file was altered."
            raise InputError(path, f"line {number}", problem, code="bundle.altered-list")
        if line:
            hashes[name] = sha256
    return hashes


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
