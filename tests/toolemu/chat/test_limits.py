from __future__ import annotations

import asyncio
import time

from toolemu.chat.limits import AdaptiveLimit


def test_the_limit_gives_way_once_for_requests_that_were_under_way_together() -> None:
    limit = AdaptiveLimit(100)
    asked = time.monotonic()
    for _ in range(50):
        limit.lower(0.5, asked)
    assert limit.current == 50
    limit.lower(0.5, time.monotonic() + 1)
    assert limit.current == 25


def test_the_limit_creeps_back_but_never_beyond_what_was_set() -> None:
    limit = AdaptiveLimit(10)
    limit.lower(0.1, time.monotonic())
    assert limit.current == 1
    for _ in range(3):
        limit.raise_after_success()
    assert limit.current == 2
    for _ in range(1000):
        limit.raise_after_success()
    assert limit.current == 10


def test_a_limit_that_gave_way_keeps_its_share_when_it_is_resized() -> None:
    limit = AdaptiveLimit(100)
    limit.resize(50)
    assert limit.current == 50
    limit.lower(0.5, time.monotonic())
    limit.resize(100)
    assert limit.current == 50
    limit.resize(1)
    assert limit.current == 1


def test_those_who_wait_are_let_in_in_order_and_a_cancelled_one_takes_no_place() -> None:
    entered: list[int] = []

    async def enter(limit: AdaptiveLimit, number: int) -> None:
        async with limit.slot():
            entered.append(number)
            await asyncio.sleep(0.001)

    async def run() -> None:
        limit = AdaptiveLimit(1)
        tasks = [asyncio.create_task(enter(limit, number)) for number in range(5)]
        await asyncio.sleep(0)
        tasks[2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.wait_for(enter(limit, 9), 1)

    asyncio.run(run())
    assert entered == [0, 1, 3, 4, 9]


def test_who_is_cancelled_at_the_moment_of_being_let_in_takes_no_place() -> None:
    async def wait(limit: AdaptiveLimit) -> None:
        async with limit.slot():
            raise AssertionError("it was cancelled before it knew")

    async def run() -> None:
        limit = AdaptiveLimit(1)
        async with limit.slot():
            waiting = asyncio.create_task(wait(limit))
            await asyncio.sleep(0)
        waiting.cancel()  # its place is free by now, and it has not run since
        await asyncio.gather(waiting, return_exceptions=True)
        assert waiting.cancelled()
        async with asyncio.timeout(1), limit.slot():
            pass

    asyncio.run(run())


def test_the_limit_never_shuts_everybody_out() -> None:
    async def run() -> None:
        limit = AdaptiveLimit(2)
        for _ in range(20):
            limit.lower(0.5, time.monotonic() + 1)
        async with asyncio.timeout(1), limit.slot():
            assert limit.current == 1

    asyncio.run(run())
