"""Why making a partition failed, in the few kinds that differ in what to do about it."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from enum import StrEnum

from toolemu.errors import FrontierError, PassingError


class Cause(StrEnum):
    """Why it failed."""

    server = "server"
    memory = "memory"
    disk = "disk"
    check = "check"
    input = "input"
    lost = "lost"
    code = "code"


PASSING = (Cause.server, Cause.lost)
"""What may be gone the next time."""
REMEDIES = {
    Cause.server: "It is tried again by itself; if that does not help, start the server or mend its URL.",
    Cause.memory: "Lower `training.batch_size`, `max_length` or `limits.concurrency`, or use a larger GPU.",
    Cause.disk: "Free some space, or set FRONTIER_DATA to a larger disk.",
    Cause.check: "What the check found must be mended, or its limit changed, in the experiment file.",
    Cause.input: "The message says what to mend.",
    Cause.lost: "Its process was killed, often for lack of memory. What was finished is kept: launch it again.",
    Cause.code: "This was not foreseen: see the traceback in Dagster's log.",
}
_OUT_OF_MEMORY = ("OutOfMemoryError", "MemoryError")
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def cause_of(error: BaseException) -> Cause:
    """Returns the cause of a failure: of the error, or of what it was raised from, which knows better."""
    links = list(_chain(error))
    if any(isinstance(link, PassingError) for link in links):
        return Cause.server
    if any(type(link).__name__ in _OUT_OF_MEMORY for link in links):  # torch's is not imported for that
        return Cause.memory
    if any(isinstance(link, OSError) and link.errno in _DISK_FULL for link in links):
        return Cause.disk
    return Cause.input if any(isinstance(link, FrontierError) for link in links) else Cause.code


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
