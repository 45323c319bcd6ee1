"""Replies kept on disk by everything that determined them: what was paid for once is not asked for again."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import BinaryIO, Protocol

import orjson

from toolemu.chat.protocol import ChatModel, ChatReply, ChatRequest
from toolemu.errors import InputError, shorten
from toolemu.journal import AppendFile, drop_torn_line, locked
from toolemu.jsonl import encodable


class KeyedChatModel(ChatModel, Protocol):
    """A model that can say which of its replies would be the same."""

    def key(self, request: ChatRequest) -> str:
        """Returns a hash of everything that determines the reply to `request`."""
        ...


class ReplyJournal:
    """The replies in one file, a line each, for one process at a time.

    Only their places in the file are held in memory. A reply is on its way to disk before anyone sees it, so a killed
    process loses none that it acted on.
    """

    def __init__(self, path: Path) -> None:
        self.counts: Counter[str] = Counter()
        self._path = path
        self._places: dict[str, int] = {}
        self._end = 0
        self._index()
        self._file = AppendFile(path)
        self._reader: BinaryIO = path.open("rb")

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path) -> Iterator[ReplyJournal]:
        """Opens the journal at `path`, made if there is none.

        Raises:
            JournalBusyError: Another process has it open.
            InputError: It is damaged before its last line.
        """
        with locked(path):
            journal = cls(path)
            try:
                yield journal
            finally:
                journal._reader.close()
                journal._file.close()

    def __len__(self) -> int:
        return len(self._places)

    def get(self, key: str) -> ChatReply | None:
        """Returns the reply kept under `key`."""
        place = self._places.get(key)
        if place is None:
            return None
        self._reader.seek(place)
        record = orjson.loads(self._reader.readline())["reply"]
        return ChatReply(**{**record, "ignored": tuple(record["ignored"])})

    def put(self, key: str, reply: ChatReply) -> None:
        """Keeps a reply."""
        line = orjson.dumps({"key": key, "reply": asdict(reply)}) + b"\n"
        self._file.append(line)
        self._places[key] = self._end
        self._end += len(line)

    def _index(self) -> None:
        if not self._path.exists():
            return
        drop_torn_line(self._path)
        with self._path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    self._places[orjson.loads(line)["key"]] = self._end
                except (orjson.JSONDecodeError, KeyError, TypeError) as error:
                    raise InputError(
                        self._path, f"line {number}", f"is no reply: {shorten(line)}.", "Delete the line."
                    ) from error
                self._end += len(line)


class JournaledChatModel:
    """A `ChatModel` whose replies are kept, and given again to the same request.

    Args:
        model: Who is asked what was never asked.
        journal: Where replies are kept.
    """

    def __init__(self, model: KeyedChatModel, journal: ReplyJournal) -> None:
        self.name = model.name
        self._model = model
        self._journal = journal

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Returns the reply, from the journal if it is there; see the model's `chat`."""
        key = self._model.key(request)
        reply = self._journal.get(key)
        if reply is not None:
            self._journal.counts["replayed"] += 1
            return reply
        reply = _encodable(await self._model.chat(request))
        self._journal.put(key, reply)
        self._journal.counts["bought"] += 1
        return reply


def _encodable(reply: ChatReply) -> ChatReply:
    """Returns a reply without lone surrogates, which servers send now and then and no file can hold."""
    return replace(
        reply, text=encodable(reply.text), reasoning=encodable(reply.reasoning), model=encodable(reply.model)
    )
