"""Where released runs lie: directories, or archives of them, which are unpacked for the time of the import."""

from __future__ import annotations

import hashlib
import lzma
import os
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from toolemu.errors import FrontierError, InputError

ARCHIVES = (".tar.xz", ".txz", ".tar.gz", ".tgz", ".tar.bz2", ".tar")
END_OF_TAR = 1024
"""Zero bytes that end an uncompressed archive."""
HELP = "Give the root of a tree of released runs, or a .tar.xz of it."


def fingerprints(paths: Iterable[Path]) -> dict[str, str]:
    """Returns a fingerprint of every source by its name: of the files' names, sizes and times, not of their content.

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
        found[name] = hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]
    return found


def source_name(path: Path) -> str:
    """Returns what a source is called in every table: the last part of its path, without an archive's extension."""
    name = path.resolve().name
    for ending in ARCHIVES:
        name = name.removesuffix(ending)
    return name


def files_below(root: Path) -> Iterator[Path]:
    """Yields every file of a tree, through links to folders too, but not through those that lead back up."""
    for folder, folders, files in os.walk(root, followlinks=True):
        here = Path(folder).resolve()
        folders[:] = [name for name in folders if Path(folder, name).resolve() not in (here, *here.parents)]
        yield from (Path(folder, file) for file in files)


def archives_in(folders: Iterable[Path]) -> list[Path]:
    """Returns the archives that lie in the folders, which are not looked into."""
    return sorted(
        path for folder in folders if folder.is_dir() for path in folder.iterdir() if path.name.endswith(ARCHIVES)
    )


def _listing(root: Path) -> Iterator[tuple[str, int, int]]:
    for path in files_below(root):
        status = path.stat()
        yield path.relative_to(root).as_posix(), status.st_size, status.st_mtime_ns


@contextmanager
def opened(sources: Mapping[str, Path], scratch: Path) -> Iterator[dict[str, Path]]:
    """Gives every source as a directory, archives unpacked below `scratch`; the caller removes `scratch`.

    Raises:
        InputError: An archive is damaged, or holds a path outside itself.
    """
    found = {}
    for name, path in sources.items():
        if path.is_dir():
            found[name] = path
            continue
        target = scratch / name
        target.mkdir(parents=True, exist_ok=True)
        try:
            # Not as a stream ("r|*"), which takes the end of a truncated file for the end of the archive.
            with tarfile.open(path, "r:*") as archive:
                for member in archive:  # one by one: extractall would first read all of it to list the members
                    archive.extract(member, target, filter="data")
            if path.name.endswith(".tar") and any(path.read_bytes()[-END_OF_TAR:]):
                raise tarfile.ReadError("it ends before its end")
        except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError) as error:
            raise InputError(path, "", f"cannot be unpacked: {error}.", "Fetch or make the archive again.") from error
        inside = [entry for entry in target.iterdir() if not entry.name.startswith(".")]
        # An archive of a tree holds the tree's root; an archive made inside it does not.
        found[name] = inside[0] if len(inside) == 1 and inside[0].name == name else target
    if not found:
        raise FrontierError(f"there is nothing to import. {HELP} Repeat --source for several.")
    yield found
