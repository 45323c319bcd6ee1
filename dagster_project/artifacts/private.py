"""Files and folders of this user alone: what others could have written is not believed, what is secret is not shown."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from toolemu.errors import FrontierError

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def private_folder(path: Path) -> Path:
    """Return a folder that only this user can enter; made if there is none.

    Raises:
        FrontierError: Another user owns it or can write to it, so that its content may be planted; or it is a link.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    check_private(path)
    if path.lstat().st_mode & 0o077:
        path.chmod(0o700)
    return path


def make_folder(path: Path) -> None:
    """Make a folder that only this user can enter, if there is none; one that is there keeps its mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)


def check_private(path: Path) -> None:
    """Make sure that nobody else can have written a file or folder.

    Raises:
        FrontierError: Another user owns it or can write to it, or it is a link.
    """
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        problem = "is a link"
    elif status.st_uid != os.geteuid():
        problem = f"belongs to another user (number {status.st_uid})"
    elif status.st_mode & _OTHERS_WRITE:
        problem = f"can be written by other users (mode {stat.S_IMODE(status.st_mode):o})"
    else:
        return
    raise FrontierError(
        f"{path} {problem}, so its content may be planted. It must be a file or folder of this user alone. If you know "
        f"who made it, delete it (rm -r {path}) and run again; or name another place.",
        code="files.not-private",
    )


def write_private(path: Path, content: bytes) -> None:
    """Replace a file by one that only this user can read."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    partial.replace(path)


def read_private(path: Path) -> bytes | None:
    """Return the content of a file that nobody else can have written; None if there is no file.

    Raises:
        FrontierError: See `check_private`.
    """
    try:
        check_private(path)
        return path.read_bytes()
    except FileNotFoundError:
        return None
