"""How many requests may be under way at a server: a limit that gives way to its complaints and creeps back up.

Additive increase, multiplicative decrease (Chiu and Jain 1989), as TCP does it: several processes that share a server
come to share it evenly without knowing of each other.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

REFUSED = 0.7
"""The limit is multiplied by this when the server refuses (429) or does not answer in time."""
SLOW = 0.9
"""The same when it takes so long that a time-out is near."""


class AdaptiveLimit:
    """Lets so many in at once, first come, first served.

    It begins at `most`: a server that queues, as vLLM does, is best given everything at once, and one that refuses
    says so at once.

    Args:
        most: The limit is never above this.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = float(most)
        self._in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._lowered_at = float("-inf")

    @property
    def current(self) -> int:
        """The limit as it stands, 1 or more."""
        return int(self._limit)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Waits for a place and holds it."""
        await self._acquire()
        try:
            yield
        finally:
            self._in_flight -= 1
            self._admit()

    def raise_after_success(self) -> None:
        """Raises the limit a little: by one for as many successes as it lets in at once."""
        self._limit = min(float(self._most), self._limit + 1 / self._limit)
        self._admit()

    def lower(self, factor: float, asked_at: float) -> None:
        """Lowers the limit, once for all requests that were under way together.

        Args:
            factor: What to multiply it by.
            asked_at: When the request that met trouble was sent, by `time.monotonic`: one that was sent before the
                limit was last lowered tells nothing new.
        """
        if asked_at > self._lowered_at:
            self._limit = max(1.0, self._limit * factor)
            self._lowered_at = time.monotonic()

    def resize(self, most: int) -> None:
        """Changes what it is never above; a limit that gave way to complaints keeps its share of that."""
        self._limit = max(1.0, self._limit * most / self._most)
        self._most = most
        self._admit()

    async def _acquire(self) -> None:
        if self._in_flight < self.current and not self._waiting:
            self._in_flight += 1
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # it was let in, and cancelled before it knew
                self._in_flight -= 1
                self._admit()
            raise

    def _admit(self) -> None:
        while self._waiting and self._in_flight < self.current:
            place = self._waiting.popleft()
            if not place.done():
                self._in_flight += 1
                place.set_result(None)
