"""Models behind endpoints, as one partition uses them: leased, opened for an event loop, replies kept and counted."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import SecretStr

from dagster_project.artifacts import Artifact, Ref
from dagster_project.collect.key_hosts import check_key_hosts
from dagster_project.collect.weights import find_weights, model_folder, weights_name
from dagster_project.environments import EnvironmentKind
from dagster_project.experiment.graph import Graph, acting_model
from dagster_project.experiment.nodes import Kind, Side
from dagster_project.experiment.spec import Experiment
from dagster_project.judges import JudgeKind
from dagster_project.models import ACTING
from dagster_project.serving.adapters import ServedAdapter, load_adapter
from dagster_project.serving.leases import leased, stop_servers, vllm_python
from dagster_project.serving.settings import ServedEndpoint, Server, Weights, server_of
from dagster_project.serving.state import Address, Servers
from toolemu.chat import ChatModel, ChatReply, ChatRequest
from toolemu.chat.keys import read_key
from toolemu.chat.settings import OpenAIModelSettings
from toolemu.errors import FrontierError
from toolemu.react import STOP_SEQUENCES

if TYPE_CHECKING:  # the client's library takes most of a second to import
    from toolemu.chat.endpoint import Endpoint
    from toolemu.chat.replies import ReplyJournal

sharing: ContextVar[Callable[[], int]] = ContextVar("sharing", default=lambda: 1)
"""Says among how many processes the endpoints' limits are shared now."""
REPLIES, SERVERS = "replies", ".servers"
FOLDER = "FRONTIER_SERVERS"
"""Environment variable: the folder of this machine's servers; without it, one beside the experiments."""
_CHECK_PATIENCE_S = 20.0


class Chats:
    """Gives out models behind endpoints; every reply goes through the journal.

    Args:
        endpoints: By name.
        journal: Where replies are kept; None if there are no endpoints.
        served: By endpoint, the name under which a leased server has what is asked of it.
        replies: The journal's file.
    """

    def __init__(
        self, endpoints: dict[str, Endpoint], journal: ReplyJournal | None, served: Mapping[str, str], replies: Path
    ) -> None:
        self._replies = replies
        self._endpoints = endpoints
        self._journal = journal
        self._served = served

    def model(self, settings: OpenAIModelSettings, name: str, *, batch_poll_s: float | None = None) -> ChatModel:
        """Returns a model, asked in batches that are looked for every `batch_poll_s`, or at once."""
        from toolemu.chat.batch import BatchChatModel
        from toolemu.chat.openai import OpenAIChatModel
        from toolemu.chat.replies import JournaledChatModel

        assert self._journal is not None, "the experiment has a role behind an endpoint"
        if settings.endpoint in self._served:
            settings = settings.model_copy(update={"model": self._served[settings.endpoint]})
        endpoint = self._endpoints[settings.endpoint]
        model = OpenAIChatModel(endpoint, settings, name)
        if batch_poll_s is None:
            return JournaledChatModel(model, self._journal)
        ledger = self._replies.with_suffix(".batches")
        return JournaledChatModel(BatchChatModel(model, endpoint, ledger, poll_s=batch_poll_s), self._journal)

    def counts(self) -> dict[str, int]:
        """Returns how many replies were bought and replayed, and how many attempts failed, by the kind of failure."""
        total: Counter[str] = Counter()
        if self._journal is not None:
            total.update({f"replies_{name}": count for name, count in self._journal.counts.items()})
        for endpoint in self._endpoints.values():
            total.update(endpoint.counts)
        return dict(total)


class Workspace(NamedTuple):
    """Where a partition's unfinished work lies, and who is told of it.

    Attributes:
        journal: Folder of finished records; goes when the partition is done.
        replies: File of the replies of models behind endpoints; stays.
        servers: Folder of the leased servers.
        progress: Told how many records are finished, of how many.
        say: Told what is waited for.
    """

    journal: Path
    replies: Path
    servers: Path
    progress: Callable[[int, int], None]
    say: Callable[[str], None]


def servers_folder(root: Path) -> Path:
    """Returns the folder of this machine's servers, for artifacts below `root`."""
    named = os.environ.get(FOLDER)
    return Path(named) if named else root / SERVERS / socket.gethostname()


class Acting(NamedTuple):
    """The weights of the agent that acts.

    Attributes:
        model: The source model that it is or was trained from.
        base: The artifact with its weights: what a leased server serves, or the trained weights to run in process.
        adapter: What it was trained to, for a leased server; None for the source model.
    """

    model: str
    base: Artifact
    adapter: ServedAdapter | None = None


@asynccontextmanager
async def open_chats(
    experiment: Experiment, places: Iterable[str], workspace: Workspace, acting: Acting | None = None
) -> AsyncIterator[Chats]:
    """Opens the endpoints of some roles, with their replies kept; servers of ours are leased, and started if need be.

    Args:
        experiment: The experiment.
        places: The roles, by their places in the experiment file.
        workspace: Where replies and servers are.
        acting: The agent, if one acts.

    Raises:
        FrontierError: A key is missing or may not go where it is sent, another process has the file of replies open,
            or a server cannot be had.
    """
    roles = experiment.roles()
    used = {roles[place].endpoint for place in places if place in roles}
    settings = {name: endpoint for name, endpoint in experiment.addresses().items() if name in used}
    ours = {name: endpoint for name, endpoint in experiment.leased().items() if name in used}
    servers = {name: _server(endpoint) for name, endpoint in ours.items()}
    if acting is not None and experiment.is_served(acting.model):
        ours[ACTING], servers[ACTING] = _acting(experiment, acting)
    if not settings and not ours:
        yield Chats({}, None, {}, workspace.replies)
        return
    check_key_hosts(settings, experiment.argument)
    from toolemu.chat.endpoint import SilentEndpointError, open_endpoints
    from toolemu.chat.replies import ReplyJournal

    async with AsyncExitStack() as held:
        journal = held.enter_context(ReplyJournal.open(workspace.replies))
        served = {name: server.model for name, server in servers.items()}
        state = Servers(workspace.servers) if servers else None
        keys: dict[str, SecretStr] = {}
        if state is not None:
            addresses = await _lease(held, state, servers, workspace.say)
            settings |= {name: ours[name].at(address.url) for name, address in addresses.items()}
            keys = {name: address.key for name, address in addresses.items()}
            if acting is not None and acting.adapter is not None:
                await asyncio.to_thread(
                    load_adapter, state.place(servers[ACTING].key), addresses[ACTING], acting.adapter
                )
                served[ACTING] = acting.adapter.name
        endpoints = await held.enter_async_context(
            open_endpoints(settings, max_in_flight=experiment.limits.requests, sharing=sharing.get(), keys=keys)
        )
        try:
            yield Chats(endpoints, journal, served, workspace.replies)
        except SilentEndpointError as error:
            if (
                state is not None and error.endpoint in servers
            ):  # its process lives, or its keeper would have ended it: the next gets another
                stop_servers(state, [servers[error.endpoint].key])
            raise


def _server(endpoint: ServedEndpoint) -> Server:
    folder = find_weights(endpoint.serve)
    return server_of(folder, weights_name(endpoint.serve, folder), endpoint.server)


def _acting(experiment: Experiment, acting: Acting) -> tuple[ServedEndpoint, Server]:
    """Returns endpoint and server of the agent's base; other roles with equal weights and settings share the server."""
    model = experiment.section(acting.model)
    assert model.served is not None, "others have no server"
    if model.offers is not None:
        model_folder(model, acting.base.path)  # they are what they were
        return model.offers, _server(model.offers)
    name = f"{acting.model}@{acting.base.manifest.sha256[:12]}"
    return ServedEndpoint(serve=Weights(source=acting.model)), server_of(acting.base.path, name, model.served)


async def _lease(
    held: AsyncExitStack, state: Servers, wanted: Mapping[str, Server], say: Callable[[str], None]
) -> dict[str, Address]:
    """Return the addresses of servers by endpoint, leased until `held` is closed."""
    given_up = threading.Event()
    context = leased(state, list(wanted.values()), say, given_up)
    try:
        addresses = await asyncio.to_thread(context.__enter__)
    except asyncio.CancelledError:
        given_up.set()  # the thread would wait on, and the process with it
        raise
    held.callback(context.__exit__, None, None, None)
    return {name: addresses[server.key] for name, server in wanted.items()}


def _acting_section(graph: Graph, ref: Ref) -> str:
    """Return the section of the experiment file that describes the model of a partition's agent."""
    node = graph.node(ref)
    if node.side is Side.source:
        return ref.key("model")
    return ref.key("agent") if node.kind is Kind.model else acting_model(graph.experiment, graph.agent(ref))


def roles_of(graph: Graph, ref: Ref) -> list[str]:
    """Return the places in the experiment file of the roles that making a partition asks."""
    node, experiment = graph.node(ref), graph.experiment
    asked: list[str] = []
    if node.kind in (Kind.evaluations, Kind.calibration):
        asked = [f"judges.{node.judge}"]
    elif node.kind in (Kind.model, Kind.trajectories):
        acting = experiment.place_of(_acting_section(graph, ref))
        asked = [acting, "world.emulator"] if node.kind is Kind.trajectories else [acting]
    return [place for place in asked if place in graph.roles]


def asks(graph: Graph, ref: Ref) -> bool:
    """Return whether making a partition may ask a model behind an endpoint."""
    if roles_of(graph, ref):
        return True
    acts = graph.node(ref).kind is Kind.trajectories
    return acts and graph.experiment.is_served(_acting_section(graph, ref))


class RoleReport(NamedTuple):
    """What a model said when it was asked something simple."""

    place: str
    settings: OpenAIModelSettings
    reply: ChatReply


def check_roles(
    experiment: Experiment, places: Iterable[str] | None = None, *, serves: bool = True
) -> list[RoleReport]:
    """Request a test completion of every role, or of those at `places`, as the role's requests are asked.

    Keys are looked for first. A judge that asks in batches needs a server with a Batch API. Models on servers of ours
    are not asked, since that would start those; where they would be started by this Python (`serves`), it must have
    vLLM.

    Raises:
        FrontierError: A key is missing or refused, or may not go where it is sent; a server does not answer, the
            account has no credit, a model is unknown or refuses such requests, or a server refuses a field that the
            experiment file names in `request`.
    """
    roles = experiment.roles()
    asked = {place: roles[place] for place in (roles if places is None else places)}
    addresses = experiment.addresses()
    wanted = {place: role for place, role in asked.items() if role.endpoint in addresses}
    served = len(wanted) < len(asked) or (places is None and any(map(experiment.is_served, experiment.models)))
    if served and serves:
        vllm_python()
    endpoints = {role.endpoint: addresses[role.endpoint] for role in wanted.values()}
    for name, endpoint in endpoints.items():
        read_key(name, endpoint.key)
    check_key_hosts(endpoints, experiment.argument)
    if not wanted:
        return []
    from toolemu.chat.batch import probe_batches
    from toolemu.chat.endpoint import open_endpoints
    from toolemu.chat.openai import OpenAIChatModel

    in_batches = {f"judges.{name}" for name, judge in experiment.judges.items() if judge.in_batches}

    async def ask() -> list[RoleReport]:
        hasty = {
            name: endpoint.model_copy(update={"give_up_after_s": min(endpoint.give_up_after_s, _CHECK_PATIENCE_S)})
            for name, endpoint in endpoints.items()
        }
        async with open_endpoints(hasty, max_in_flight=experiment.limits.requests) as found:

            async def probe(place: str, role: OpenAIModelSettings) -> ChatReply:
                if place in in_batches:
                    await probe_batches(found[role.endpoint])
                model = OpenAIChatModel(found[role.endpoint], role)
                reply = await model.probe(_like(experiment, place))
                _check_fields(role, reply)
                return reply

            replies = await asyncio.gather(*(probe(*item) for item in wanted.items()), return_exceptions=True)
        for place, reply in zip(wanted, replies, strict=True):
            if isinstance(reply, FrontierError):
                raise FrontierError(f"{place}: {reply}", code=reply.code) from reply
            if isinstance(reply, BaseException):
                raise reply
        return [
            RoleReport(place, role, reply)
            for (place, role), reply in zip(wanted.items(), replies, strict=True)
            if isinstance(reply, ChatReply)
        ]

    return asyncio.run(ask())


def _asking(experiment: Experiment, place: str) -> JudgeKind | EnvironmentKind | None:
    """Return the judge or the environment whose model stands at a place of the experiment file; None for an agent's."""
    judges = {f"judges.{name}": judge for name, judge in experiment.judges.items()}
    return experiment.world if place == "world.emulator" else judges.get(place)


def _like(experiment: Experiment, place: str) -> ChatRequest:
    """Return a request with the temperature, stops and schema of a role's requests; its messages do not count."""
    kind = _asking(experiment, place)
    request = None if kind is None else kind.sample_request()
    if request is not None:
        return request
    sampling = experiment.source if place.startswith("models.") else experiment.test
    return ChatRequest(
        (),
        stop=STOP_SEQUENCES if experiment.agent.stop_at_observation else (),
        temperature=sampling.temperature,
        max_tokens=experiment.agent.max_tokens_per_turn,
    )


def _check_fields(role: OpenAIModelSettings, reply: ChatReply) -> None:
    """Raise `FrontierError` if the server refused a field that the experiment file names itself."""
    refused = sorted(role.request.keys() & {*reply.ignored})
    if refused:
        raise FrontierError(
            f"Endpoint {role.endpoint} refuses `{refused[0]}`, or its value, which `request` names for the model "
            f"{role.model}. Expected: fields that the server takes. Correct or delete it.",
            code="endpoint.refuses-field",
        )
