"""Folders that anyone can check: BagIt (RFC 8493), with SHA-256 in lists that `sha256sum --check` reads, too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from dagster_project.artifacts.manifest import file_sha256
from toolemu.errors import InputError

DATA = "data"
DECLARATION = "bagit.txt"
INFO = "bag-info.txt"
PAYLOAD_LIST = "manifest-sha256.txt"
TAG_LIST = "tagmanifest-sha256.txt"
DECLARED = "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"


def seal(folder: Path, info: Mapping[str, str]) -> int:
    """Makes a folder with a payload in `data` a bag, and returns the number of files in it.

    Args:
        folder: The folder.
        info: What `bag-info.txt` says of it.
    """
    _write(folder / DECLARATION, DECLARED)
    _write(folder / INFO, "".join(f"{name}: {' '.join(value.split())}\n" for name, value in info.items()))
    payload = _files(folder / DATA)
    _write(folder / PAYLOAD_LIST, _list(folder, payload))
    _write(folder / TAG_LIST, _list(folder, _tags(folder)))
    return len(payload)


def bag_problems(folder: Path) -> list[str]:
    """Returns what is wrong with a bag, each with the name of its file; nothing if it is as it was sealed.

    Lists must be to the byte what `seal` writes for the files that are there: no byte of a bag can change unnoticed.

    Raises:
        InputError: The folder is no bag, or a list cannot be read.
    """
    for name in (DECLARATION, PAYLOAD_LIST, TAG_LIST):
        if not (folder / name).is_file():
            raise InputError(
                folder, "", f"is no bundle: it has no {name}.", "Name a folder that `frontier bundle` wrote."
            )
    found = [f"{path.relative_to(folder).as_posix()}: is a link" for path in folder.rglob("*") if path.is_symlink()]
    for name, files in ((PAYLOAD_LIST, _files(folder / DATA)), (TAG_LIST, _tags(folder))):
        expected = _read_list(folder / name)
        actual = {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}
        found += [f"{path}: missing" for path in expected if path not in actual]
        altered = [path for path, sha256 in actual.items() if expected.get(path, sha256) != sha256]
        found += [f"{path}: altered, or its line in {name} is" for path in altered]
        found += [f"{path}: not in {name}" for path in actual if path not in expected]
        if (folder / name).read_bytes() != _lines(expected).encode():
            found.append(f"{name}: altered")
    return found


def _tags(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and path.name != TAG_LIST)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _list(folder: Path, files: Iterable[Path]) -> str:
    return _lines({path.relative_to(folder).as_posix(): file_sha256(path) for path in files})


def _lines(hashes: Mapping[str, str]) -> str:
    return "".join(f"{sha256}  {path}\n" for path, sha256 in sorted(hashes.items()))


def _read_list(path: Path) -> dict[str, str]:
    hashes = {}
    try:
        lines = path.read_bytes().decode().split("\n")
    except UnicodeDecodeError as error:
        raise InputError(path, f"byte {error.start}", "is not UTF-8: the file was altered.") from error
    for number, line in enumerate(lines, 1):
        sha256, separator, name = line.partition("  ")
        if line and not (separator and len(sha256) == 64 and not set(sha256) - set("0123456789abcdef")):
            raise InputError(path, f"line {number}", "expected a SHA-256, two spaces and a path: the file was altered.")
        if line:
            hashes[name] = sha256
    return hashes


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
