"""Models behind endpoints, as one partition uses them: opened for an event loop, their replies kept and counted."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dagster_project.artifacts import Ref
from dagster_project.experiment.graph import CALIBRATION
from dagster_project.experiment.spec import Experiment
from toolemu.chat import ChatModel, ChatReply
from toolemu.chat.keys import read_key
from toolemu.chat.settings import OpenAIModelSettings
from toolemu.errors import FrontierError

if TYPE_CHECKING:  # the client's library takes most of a second to import
    from toolemu.chat.endpoint import Endpoint
    from toolemu.chat.replies import ReplyJournal

WORKERS = "FRONTIER_WORKERS"
"""Environment variable: among so many processes the endpoints' limits are shared."""
REPLIES = "replies"
_CHECK_PATIENCE_S = 20.0


class Chats:
    """Gives out models behind endpoints; every reply goes through the journal."""

    def __init__(self, endpoints: dict[str, Endpoint], journal: ReplyJournal | None) -> None:
        self._endpoints = endpoints
        self._journal = journal

    def model(self, settings: OpenAIModelSettings, name: str) -> ChatModel:
        """Returns a model."""
        from toolemu.chat.openai import OpenAIChatModel
        from toolemu.chat.replies import JournaledChatModel

        assert self._journal is not None, "the experiment has a role behind an endpoint"
        return JournaledChatModel(OpenAIChatModel(self._endpoints[settings.endpoint], settings, name), self._journal)

    def counts(self) -> dict[str, int]:
        """Returns how many replies were bought and replayed, and how many attempts failed, by the kind of failure."""
        total: Counter[str] = Counter()
        if self._journal is not None:
            total.update({f"replies_{name}": count for name, count in self._journal.counts.items()})
        for endpoint in self._endpoints.values():
            total.update(endpoint.counts)
        return dict(total)


@asynccontextmanager
async def open_chats(experiment: Experiment, replies: Path) -> AsyncIterator[Chats]:
    """Opens the endpoints that the experiment's roles use, with their replies kept in the file `replies`.

    Raises:
        FrontierError: A key is missing, or another process has the file open.
    """
    used = used_endpoints(experiment)
    if not used:
        yield Chats({}, None)
        return
    from toolemu.chat.endpoint import open_endpoints
    from toolemu.chat.replies import ReplyJournal

    settings = {name: experiment.all_endpoints()[name] for name in used}
    share = int(os.environ.get(WORKERS) or 1)
    with ReplyJournal.open(replies) as journal:
        async with open_endpoints(settings, max_in_flight=experiment.limits.requests, share=share) as endpoints:
            yield Chats(endpoints, journal)


def used_endpoints(experiment: Experiment) -> list[str]:
    """Returns the names of the endpoints that the experiment's roles use, in order of the file."""
    return list(dict.fromkeys(role.endpoint for role in experiment.roles().values()))


def roles_of(experiment: Experiment, ref: Ref) -> list[str]:
    """Returns the places in the experiment file of the roles that making a partition asks."""
    room, _, rest = ref.asset.partition("/")
    keys = dict(ref.partition)
    asked = {
        "source_models": [f"models.{keys.get('model')}"],
        "source_trajectories": [f"models.{keys.get('model')}", "world.emulator"],
        "agent_trajectories": ["world.emulator"],
        "source_evaluations": [f"judges.{rest.partition('/')[0]}"],
        "agent_evaluations": [f"judges.{rest.partition('/')[0]}"],
        CALIBRATION: [f"judges.{rest}"],
    }
    roles = experiment.roles()
    return [place for place in asked.get(room, []) if place in roles]


class RoleReport(NamedTuple):
    """What a model said when it was asked something simple."""

    place: str
    settings: OpenAIModelSettings
    reply: ChatReply


def check_roles(experiment: Experiment, places: Iterable[str] | None = None) -> list[RoleReport]:
    """Asks the models of all roles, or of those at `places`, something simple; first of all, looks for the keys.

    Raises:
        FrontierError: A key is missing or refused, a server does not answer, or a model refuses such requests.
    """
    roles = experiment.roles()
    wanted = {place: roles[place] for place in (roles if places is None else places)}
    endpoints = {role.endpoint: experiment.all_endpoints()[role.endpoint] for role in wanted.values()}
    for name, endpoint in endpoints.items():
        read_key(name, endpoint.key)
    if not wanted:
        return []
    from toolemu.chat.endpoint import open_endpoints
    from toolemu.chat.openai import OpenAIChatModel

    async def ask() -> list[RoleReport]:
        hasty = {
            name: endpoint.model_copy(update={"give_up_after_s": min(endpoint.give_up_after_s, _CHECK_PATIENCE_S)})
            for name, endpoint in endpoints.items()
        }
        async with open_endpoints(hasty, max_in_flight=experiment.limits.requests) as found:
            models = [OpenAIChatModel(found[role.endpoint], role) for role in wanted.values()]
            replies = await asyncio.gather(*(model.probe() for model in models), return_exceptions=True)
        for place, reply in zip(wanted, replies, strict=True):
            if isinstance(reply, FrontierError):
                raise FrontierError(f"{place}: {reply}") from reply
            if isinstance(reply, BaseException):
                raise reply
        return [
            RoleReport(place, role, reply)
            for (place, role), reply in zip(wanted.items(), replies, strict=True)
            if isinstance(reply, ChatReply)
        ]

    return asyncio.run(ask())
