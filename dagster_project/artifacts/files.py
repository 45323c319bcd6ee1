"""Files that appear whole: a reader, or a crash, sees the old one or the new one."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a path beside `path` to write to; it takes the place of `path` if the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        yield partial
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    partial.replace(path)


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces `path` by `content`, durably: a power cut leaves the old file or the new one, too."""
    with replacing(path) as partial, partial.open("wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
