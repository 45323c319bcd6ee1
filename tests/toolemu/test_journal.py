import asyncio
import logging
import multiprocessing
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from toolemu.errors import InputError
from toolemu.journal import JournalBusyError, run_journaled
from toolemu.jsonl import encode


class Square(BaseModel):
    number: int
    square: int


def squares(
    numbers: Sequence[int],
    journal: Path,
    *,
    concurrency: int = 4,
    worked: list[int] | None = None,
    fails: int | None = None,
    progress: list[tuple[int, int]] | None = None,
) -> list[Square]:
    """Squares numbers, later ones sooner; notes which it worked on."""

    async def work(number: int) -> Square:
        for _ in range(20 - number % 20):
            await asyncio.sleep(0)
        if number == fails:
            raise RuntimeError(f"no square of {number}")
        if worked is not None:
            worked.append(number)
        return Square(number=number, square=number**2)

    return asyncio.run(
        run_journaled(
            numbers,
            str,
            work,
            Square,
            lambda record: str(record.number),
            journal,
            concurrency,
            None if progress is None else lambda done, total: progress.append((done, total)),
        )
    )


def lines(journal: Path) -> list[bytes]:
    return journal.read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize("concurrency", [1, 3, 100])
def test_the_result_is_in_order_of_tasks(tmp_path: Path, concurrency: int) -> None:
    numbers = list(range(30, 0, -1))
    progress: list[tuple[int, int]] = []
    records = squares(numbers, tmp_path / "new" / "journal", concurrency=concurrency, progress=progress)
    assert [record.number for record in records] == numbers
    assert all(record.square == record.number**2 for record in records)
    assert progress == [(done, 30) for done in range(31)]
    assert len(lines(tmp_path / "new" / "journal")) == 30


def test_no_more_than_allowed_run_at_once(tmp_path: Path) -> None:
    under_way, most = 0, 0

    async def work(number: int) -> Square:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.001)
        under_way -= 1
        return Square(number=number, square=0)

    async def run() -> None:
        await run_journaled(range(50), str, work, Square, lambda record: str(record.number), tmp_path / "j", 7)

    asyncio.run(run())
    assert most == 7


def test_pending_tasks_take_no_worker(tmp_path: Path) -> None:
    alive: list[int] = []

    async def work(number: int) -> Square:
        alive.append(len(asyncio.all_tasks()))
        await asyncio.sleep(0)
        return Square(number=number, square=0)

    async def run() -> None:
        await run_journaled(range(5000), str, work, Square, lambda record: str(record.number), tmp_path / "j", 10)

    asyncio.run(run())
    assert max(alive) <= 11


def test_what_is_journaled_is_not_done_again(tmp_path: Path) -> None:
    journal, worked = tmp_path / "journal", list[int]()
    squares(range(10), journal)
    records = squares(range(15), journal, worked=worked)
    assert sorted(worked) == [10, 11, 12, 13, 14]
    assert [record.number for record in records] == list(range(15))
    worked.clear()
    squares(range(15), journal, worked=worked)
    assert worked == []


def test_no_tasks_are_no_work(tmp_path: Path) -> None:
    assert squares([], tmp_path / "journal") == []


@given(st.data())
def test_a_journal_cut_anywhere_is_taken_up_again(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    journal = tmp_path_factory.mktemp("cut") / "journal"
    squares(range(8), journal)
    content = journal.read_bytes()
    cut = data.draw(st.integers(0, len(content)))
    zeros = data.draw(st.sampled_from([b"", b"\0" * 40, b"\0\n", b'{"number": 1}'[:7]]))
    journal.write_bytes(content[:cut] + zeros)
    whole = content[:cut].count(b"\n")
    worked: list[int] = []
    assert [record.square for record in squares(range(8), journal, worked=worked)] == [n * n for n in range(8)]
    assert len(worked) in (8 - whole, 8 - whole + 1)
    assert sorted(int(line[10:11]) for line in lines(journal)) == list(range(8))


def test_doubled_records_and_those_of_other_tasks_are_counted_and_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = tmp_path / "journal"
    held = [Square(number=1, square=1), Square(number=1, square=-1), Square(number=99, square=0)]
    journal.write_bytes(b"".join(map(encode, held)))
    with caplog.at_level(logging.WARNING):
        records = squares([1, 2], journal)
    assert [record.square for record in records] == [1, 4]
    assert "1 records of other tasks and 1 doubled" in caplog.text


def test_damage_before_the_last_line_is_reported(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    squares(range(5), journal)
    held = lines(journal)
    journal.write_bytes(held[0] + b'{"number": \n' + b"".join(held[1:]))
    with pytest.raises(InputError, match="line 2"):
        squares(range(5), journal)
    assert len(lines(journal)) == 6
    journal.write_bytes(b'{"some": "thing"}\n' + held[0])
    with pytest.raises(InputError, match="line 1"):
        squares(range(5), journal)


def test_a_failure_ends_the_work_and_keeps_what_was_finished(tmp_path: Path) -> None:
    journal, worked = tmp_path / "journal", list[int]()
    with pytest.raises(RuntimeError, match="no square of 17"):
        squares(range(40), journal, worked=worked, fails=17)
    assert 0 < len(worked) < 39
    assert len(lines(journal)) == len(worked)
    again: list[int] = []
    assert len(squares(range(40), journal, worked=again)) == 40
    assert sorted(worked + again) == list(range(40))


def test_cancelling_keeps_what_was_finished(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    started = 0

    async def work(number: int) -> Square:
        nonlocal started
        started += 1
        if number >= 10:
            await asyncio.Event().wait()
        return Square(number=number, square=number**2)

    async def run() -> None:
        task = asyncio.create_task(
            run_journaled(range(20), str, work, Square, lambda record: str(record.number), journal, 3)
        )
        while started < 13:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run())
    assert len(lines(journal)) == 10
    assert len(squares(range(20), journal)) == 20


def test_a_keyboard_interrupt_passes(tmp_path: Path) -> None:
    async def work(number: int) -> Square:
        raise KeyboardInterrupt

    async def run() -> None:
        await run_journaled([1], str, work, Square, lambda record: str(record.number), tmp_path / "j", 3)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(run())


def test_mistakes_of_the_caller_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="same key"):
        squares([1, 1], tmp_path / "journal")
    with pytest.raises(ValueError, match="concurrency"):
        squares([1], tmp_path / "journal", concurrency=0)

    async def work(number: int) -> Square:
        return Square(number=number + 1, square=0)

    async def run() -> None:
        await run_journaled([1], str, work, Square, lambda record: str(record.number), tmp_path / "journal", 1)

    with pytest.raises(ValueError, match="'1'"):
        asyncio.run(run())
    assert (tmp_path / "journal").read_bytes() == b""


def _hold(
    journal: Path, holding: "multiprocessing.synchronize.Event", release: "multiprocessing.synchronize.Event"
) -> None:
    async def work(number: int) -> Square:
        holding.set()
        release.wait(60)
        return Square(number=number, square=0)

    asyncio.run(run_journaled([1], str, work, Square, lambda record: str(record.number), journal, 1))


def test_a_second_process_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    holding, release = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path / "journal", holding, release))
    process.start()
    try:
        assert holding.wait(60)
        with pytest.raises(JournalBusyError, match="another process"):
            squares([1], tmp_path / "journal")
    finally:
        release.set()
        process.join(60)
    assert [record.square for record in squares([1], tmp_path / "journal")] == [0]
