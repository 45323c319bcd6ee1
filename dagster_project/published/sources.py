"""Where released runs lie: directories, or archives of them, which are unpacked for the time of the import."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from dagster_project.published.archive import unpack, unsafe_part
from toolemu.errors import FrontierError, InputError

ARCHIVES = (".tar.xz", ".txz", ".tar.gz", ".tgz", ".tar.bz2", ".tar")
MAX_ENTRIES = 500_000
"""The most files and folders of a tree."""
HELP = "Give the root of a tree of released runs, or a .tar.xz of it."


def fingerprints(paths: Iterable[Path]) -> dict[str, str]:
    """Return a fingerprint of every source by its name: of the files' names, sizes and times, not of their content.

    Raises:
        InputError: One of the paths is neither a directory nor an archive, or two have one name.
    """
    found: dict[str, str] = {}
    for path in paths:
        name = source_name(path)
        if name in found:
            raise InputError(path, "", f"two sources are called {name!r}.", "Rename one, or give their parent alone.")
        if path.is_dir():
            lines = [f"{file}|{size}|{time}" for file, size, time in _listing(path)]
        elif path.is_file() and path.name.endswith(ARCHIVES):
            status = path.stat()
            lines = [f"{path.name}|{status.st_size}|{status.st_mtime_ns}"]
        else:
            what = "is neither a directory nor an archive" if path.exists() else "does not exist"
            raise InputError(path, "", f"{what}.", HELP)
        found[name] = hashlib.sha256("\n".join(sorted(lines)).encode(errors="surrogateescape")).hexdigest()[:16]
    return found


def source_name(path: Path) -> str:
    """Return what a source is called in every table: the last part of its path, without an archive's extension.

    Raises:
        InputError: Nothing that can be a name is left.
    """
    name = path.resolve().name
    for ending in ARCHIVES:
        name = name.removesuffix(ending)
    if problem := unsafe_part(name):
        raise InputError(
            path, "", f"a source cannot have the name {name!r}: {problem}.", "Rename it.", code="source.name"
        )
    return name


class Tree(NamedTuple):
    """What lies below a folder.

    Attributes:
        files: The regular files, also those behind links.
        odd: Everything else that is no folder, and links that were not followed; each with what is the matter.
    """

    files: list[Path]
    odd: list[tuple[Path, str]]


def walk(root: Path) -> Tree:
    """Return what lies below a folder, behind links to folders too.

    A folder is entered once, however many links lead to it, and the folders above `root` are not entered. So the walk
    ends, whatever links there are.

    Raises:
        InputError: There are more than `MAX_ENTRIES` files and folders.
    """
    tree = Tree([], [])
    above = {(status.st_dev, status.st_ino) for status in (folder.stat() for folder in root.resolve().parents)}
    seen: set[tuple[int, int]] = set()
    folders, links = [root], deque[Path]()
    while folders or links:
        folder = folders.pop() if folders else links.popleft()  # what lies in the tree itself comes first
        try:
            status = folder.stat()
            identity = status.st_dev, status.st_ino
            if identity in seen or identity in above:
                tree.odd.append((folder, "is a link to a folder that is read anyway, or lies above"))
                continue
            seen.add(identity)
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            tree.odd.append((folder, f"cannot be opened: {error.strerror}"))
            continue
        for entry in found:
            _sort_in(entry, tree, folders, links)
        if len(tree.files) + len(seen) > MAX_ENTRIES:
            problem = f"holds more than {MAX_ENTRIES:,} files and folders."
            raise InputError(root, "", problem, "Name the folder of the runs alone.", code="source.too-many-files")
    return tree


def _sort_in(entry: os.DirEntry[str], tree: Tree, folders: list[Path], links: deque[Path]) -> None:
    path = Path(entry.path)
    try:
        mode = entry.stat().st_mode
    except OSError as error:
        tree.odd.append((path, f"is a link that leads nowhere: {error.strerror}"))
        return
    if stat.S_ISDIR(mode):
        (links if entry.is_symlink() else folders).append(path)
    elif stat.S_ISREG(mode):
        tree.files.append(path)
    else:
        tree.odd.append((path, "is a pipe, a socket or a device"))


def archives_in(folders: Iterable[Path]) -> list[Path]:
    """Return the archives that lie in the folders, which are not looked into."""
    return sorted(
        path
        for folder in folders
        if folder.is_dir()
        for path in folder.iterdir()
        if path.name.endswith(ARCHIVES) and path.name.isprintable()
    )


def _listing(root: Path) -> Iterator[tuple[str, int, int]]:
    tree = walk(root)
    for path in tree.files:
        status = path.stat()
        yield path.relative_to(root).as_posix(), status.st_size, status.st_mtime_ns
    for path, problem in tree.odd:
        yield f"{path.relative_to(root).as_posix()}: {problem}", 0, 0


@contextmanager
def opened(sources: Mapping[str, Path], scratch: Path) -> Iterator[dict[str, Path]]:
    """Give every source as a folder, archives unpacked below `scratch`; the caller removes `scratch`.

    Raises:
        InputError: An archive is damaged, too large, or holds something that is not unpacked; see `unpack`.
    """
    found = {}
    for number, (name, path) in enumerate(sources.items()):
        if path.is_dir():
            found[name] = path
            continue
        target = scratch / str(number)
        shutil.rmtree(target, ignore_errors=True)  # of an import that was killed
        unpack(path, target)
        inside = [entry for entry in target.iterdir() if not entry.name.startswith(".")]
        # An archive of a tree holds the tree's root; an archive made inside it does not.
        found[name] = inside[0] if len(inside) == 1 and inside[0].name == name else target
    if not found:
        raise FrontierError(f"there is nothing to import. {HELP} Repeat --source for several.")
    yield found
