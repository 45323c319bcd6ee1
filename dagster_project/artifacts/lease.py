"""Keeps commands of different machines apart: a lease in the object store says who has something, and is renewed.

A lease is a folder of objects named by numbers. Taking it is making the next number on condition that it is not there;
who made the highest number has it. The holder writes its object anew every few seconds, and at the end with the note
that it ended. That last object stays: numbers only ever go up, so whoever slept through being overtaken finds a higher
one. Who finds a lease held watches whether its object changes; no machine's clock is compared with another's.

All of it needs one condition, that an object is not there. Writing on condition of what is there would need no numbers,
but servers differ in it: some do not know it, others let such a write pass where nothing is there.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from dagster_project.artifacts.files import write_atomically
from dagster_project.artifacts.objects import HASTE, ExistsError, ObjectStore, StorageError
from toolemu.errors import FrontierError

LOST_AFTER = "FRONTIER_LOST_AFTER_S"
"""Environment variable: after so many seconds without a sign, 30 by default, others take this machine for lost."""
SIGNS = 6
"""Renewals in that time."""
LOOK_EVERY_S = 1.0
"""Who waits looks so often, or five times from one renewal to the next."""

Tell = Callable[[str], None]

_logger = logging.getLogger(__name__)


class BusyError(FrontierError):
    """Another command has what this one needs for itself."""


class LostLeaseError(FrontierError):
    """Another machine has taken over what this one had."""


class Holder(BaseModel):
    """Who has a lease: what its object holds.

    Attributes:
        since: By the holder's clock, for people.
        token: Drawn anew by whoever takes a lease.
        lost_after_s: How long the object must stay as it is for its holder to count as lost.
        renewals: How often it was written anew.
        ended: The holder needs it no more.
    """

    model_config = ConfigDict(frozen=True)

    host: str
    pid: int
    since: datetime
    token: str
    lost_after_s: float
    renewals: int = 0
    ended: bool = False

    @property
    def who(self) -> str:
        """The holder, for messages."""
        return f"process {self.pid} of {self.host}, since {self.since:%Y-%m-%d %H:%M} UTC"


class Lease:
    """One command's right to something, among all machines that share an object store; held from `with` to its end.

    A store that cannot be reached for a while takes nothing away; another holder does.

    Args:
        url: The object store.
        folder: The key of the lease's folder there.
        what: What it is for, for messages: "A `frontier run x` is under way on y".
        mark: A file of this machine that nobody else uses meanwhile, as whoever holds a lock beside it can tell. By it,
            what was left here by a process that is gone is known for that at once.
        tell: Is told that something is waited for, and why.

    Raises:
        FrontierError: What the environment says of machines that are lost is no number of seconds.
    """

    def __init__(self, url: str, folder: str, what: str, mark: Path, tell: Tell) -> None:
        self._objects = ObjectStore(url, HASTE)
        self._folder, self._what, self._mark, self._tell = folder, what, mark, tell
        self._lost_after_s = _lost_after_s()
        self._taken_by: Holder | None = None
        self._lost = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        """Takes the lease.

        Raises:
            BusyError: Another command has it, and gives signs of life.
            StorageError: The object store cannot be reached.
        """
        self._acquire()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Gives it back."""
        self._closing.set()
        self._thread.join()
        if not self._lost.is_set():
            try:
                self._write({"ended": True})
            except StorageError as error:
                _logger.warning("the next command will wait for %g s: %s", self._lost_after_s, error)

    def holder(self) -> Holder | None:
        """Returns who has it, or had it on a machine that was lost; None if it can be had."""
        _, holder = self._latest()
        return None if holder is None or self._is_free(holder) else holder

    def check(self) -> None:
        """Raises an error once another machine is known to have taken over.

        Raises:
            LostLeaseError: One has.
        """
        if self._lost.is_set():
            by = (
                f"was taken over by {self._taken_by.who}, since this machine had given no sign for "
                f"{self._lost_after_s:g} s: it slept, or was cut off"
                if self._taken_by
                else "was removed"
            )
            raise LostLeaseError(
                f"{self._objects.url}/{self._folder} {by}. This command stops, so that nothing is made twice; "
                "what was finished is kept."
            )

    def _acquire(self) -> None:
        watched, since = None, 0.0
        while True:
            now = time.monotonic()  # before the look, which may take long
            number, holder = self._latest()
            silent = watched is not None and holder == watched and now - since > watched.lost_after_s
            if silent:
                self._tell("There was none: that machine is taken for lost, and this one goes on.")
            if holder is None or silent or self._is_free(holder):
                if self._take(number + 1):
                    return
            elif watched is None:
                watched, since = holder, time.monotonic()
                self._tell(f"{self._what}: {holder.who}. Waiting up to {holder.lost_after_s:g} s for a sign of it.")
            elif holder != watched:
                raise BusyError(f"{self._what}: {holder.who}. Wait until it ended, or end it there.")
            time.sleep(min(LOOK_EVERY_S, (holder or self._mine).lost_after_s / SIGNS / 5))

    def _is_free(self, holder: Holder) -> bool:
        """Whether nobody needs the lease, or a process did that was here and is gone.

        Machines may share the mark's folder over a network where locks hold on one machine only: hence the host.
        """
        left_here = self._mark.is_file() and self._mark.read_text() == holder.token
        return holder.ended or (left_here and holder.host == socket.gethostname())

    def _take(self, number: int) -> bool:
        self._key = f"{self._folder}/{number:09d}"
        self._mine = Holder(
            host=socket.gethostname(),
            pid=os.getpid(),
            since=datetime.now(UTC),
            token=uuid.uuid4().hex,
            lost_after_s=self._lost_after_s,
        )
        write_atomically(self._mark, self._mine.token.encode())
        with suppress(ExistsError):  # it may be ours, if only the answer was lost
            self._objects.put(self._key, self._mine.model_dump_json().encode(), new=True)
        # Somebody else may have made this number, or be further by now: the highest number is never removed.
        if not self._is_mine(self._latest()[1]):
            return False
        self._objects.delete(key for key in self._keys() if key < self._key)
        return True

    def _renew(self) -> None:
        reached = True
        while not self._closing.wait(self._lost_after_s / SIGNS):
            try:
                _, holder = self._latest()
                if not self._is_mine(holder):
                    self._taken_by = holder
                    self._lost.set()
                    return
                self._write({"renewals": self._mine.renewals + 1})
                reached = True
            except StorageError as error:
                if reached:
                    _logger.warning("the lease cannot be renewed for now, and work goes on: %s", error)
                reached = False

    def _write(self, changes: dict[str, object]) -> None:
        """Writes our object anew. Where a higher one is there by now, that does no harm."""
        self._mine = self._mine.model_copy(update=changes)
        self._objects.put(self._key, self._mine.model_dump_json().encode())

    def _is_mine(self, holder: Holder | None) -> bool:
        return holder is not None and holder.token == self._mine.token

    def _keys(self) -> list[str]:
        return sorted(entry.key for entry in self._objects.entries(self._folder))

    def _latest(self) -> tuple[int, Holder | None]:
        """Returns the highest number and who made it; 0 and None if there never was one."""
        while keys := self._keys():
            content = self._objects.get(keys[-1])
            if content is not None:  # else there is a higher one by now
                try:
                    return int(keys[-1].rpartition("/")[2]), Holder.model_validate_json(content)
                except ValidationError as error:
                    problem = "no lease that is known here. Once nothing runs, delete it."
                    raise StorageError(f"{self._objects.url}/{keys[-1]}: {problem}") from error
        return 0, None


def _lost_after_s() -> float:
    text = os.environ.get(LOST_AFTER) or "30"
    with suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise FrontierError(f"{LOST_AFTER}={text}: expected a number of seconds above 0, such as 30.")
