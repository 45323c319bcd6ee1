"""Before anything is launched: are the disk, the GPU, the secrets and the models there that an experiment names?"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from urllib.parse import urlsplit

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.artifacts.manifest import gpu_name
from dagster_project.collect.endpoints import RoleReport, check_roles, roles_of
from dagster_project.collect.weights import is_pinned
from dagster_project.experiment.graph import Graph
from dagster_project.experiment.nodes import Kind
from dagster_project.experiment.pods import secrets_of
from dagster_project.experiment.pools import GPU
from dagster_project.experiment.spec import Experiment
from dagster_project.operations.kubernetes import STEPS, check_secrets, step_executor
from dagster_project.training.trainable import check_trainable
from toolemu.chat.keys import read_secret
from toolemu.errors import FrontierError
from toolemu.redaction import LEAST, remember

TRAINED = (Kind.trajectories, Kind.adapters)
"""What assets hold before which it is validated that agents can be trained."""
SMALL_DISK = 2 * 1024**3


def preflight(graph: Graph, store: ArtifactStore, refs: Iterable[Ref] | None = None) -> Iterator[str]:
    """Checks what making `refs`, or everything, needs, the quickest first, and yields what models say of themselves.

    Not whether the store can be written to: whoever asks has just read it, and checks that before (`store.check`).

    Raises:
        FrontierError: Something is not there; names its place in the experiment file, and says what to do.
    """
    experiment, wanted = graph.experiment, None if refs is None else list(refs)
    check_disk(store)
    check_webhook(experiment)
    yield from short_keys(experiment)
    yield from _unpinned(experiment)
    if wanted is None or any(graph.node(ref).kind in TRAINED for ref in wanted):
        yield from check_trainable(experiment)
    if wanted is None or any(graph.node(ref).pool == GPU for ref in wanted):
        yield from check_gpu(experiment)
    names = graph.nodes if wanted is None else dict.fromkeys(ref.asset for ref in wanted)
    yield from check_secrets(secrets_of(experiment.kubernetes, [graph.nodes[name] for name in names]))
    places = list(
        graph.roles if wanted is None else dict.fromkeys(place for ref in wanted for place in roles_of(graph, ref))
    )
    if places:
        yield f"asking {', '.join(places)} …"
        asked = check_roles(experiment, places, serves=step_executor() is None)  # steps' pods have images of their own
        yield from (f"  {role_line(report)}" for report in asked)
        for place in sorted(set(places) - {report.place for report in asked}):
            yield f"  {place}: {graph.roles[place].model}, on a vLLM server that is started when it is needed"


def short_keys(experiment: Experiment) -> Iterator[str]:
    """Yield which keys are too short to be removed from what servers send back."""
    variables = {endpoint.key for endpoint in experiment.addresses().values() if endpoint.key}
    for variable in sorted(variables):
        with suppress(FrontierError):  # it is missing, which is said where it is needed
            if not remember(read_secret("the check", variable).get_secret_value()):
                yield (
                    f"the key in {variable} has fewer than {LEAST} letters and digits: if a server repeats it, it "
                    "stays in records and messages"
                )


def _unpinned(experiment: Experiment) -> Iterator[str]:
    """Yield the weights of the hub whose revision others can change."""
    for place, weights in experiment.weights().items():
        if not is_pinned(weights):
            named = f"its revision {weights.revision!r} can move" if weights.revision else "it has no revision"
            yield (
                f"{place}: {weights.source} is not pinned, since {named}; the commit that is fetched is recorded. To "
                "have the same weights elsewhere, give a commit as `revision`"
            )


def check_disk(store: ArtifactStore) -> None:
    """Raises `FrontierError` if the disk with the artifacts, or with copies of them, is nearly full."""
    free = shutil.disk_usage(store.root).free
    if free < SMALL_DISK:
        raise FrontierError(f"{store.root} has {free / 1024**3:.1f} GiB left; free some, or set FRONTIER_DATA.")


def check_webhook(experiment: Experiment) -> None:
    """Raises `FrontierError` if failures are to be posted to a URL that is nowhere to be found."""
    if experiment.operations.webhook:
        webhook_url(experiment)


def webhook_url(experiment: Experiment) -> str:
    """Returns the URL to which failures are posted; empty if to none.

    Raises:
        FrontierError: The variable that the experiment file names is not set, or holds no URL.
    """
    variable = experiment.operations.webhook
    if not variable:
        return ""
    url = read_secret("operations.webhook: failures are to be posted", variable).get_secret_value()
    try:
        parts = urlsplit(url)
        there = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        there = False
    if not there:
        raise FrontierError(f"operations.webhook: {variable} holds no URL (it should begin with https://).")
    return url


def check_gpu(experiment: Experiment) -> Iterator[str]:
    """Makes sure that this machine has the type of GPU that the experiment file names; yields what it cannot know.

    Raises:
        FrontierError: This machine has none of it.
    """
    wanted, found = experiment.operations.gpu_type, gpu_name()
    if wanted and step_executor() is not None:
        yield (
            f"not looked for, since steps have pods here ({STEPS}): a GPU {wanted!r} (operations.gpu_type); "
            "`node_selector` under `kubernetes` is what chooses their cards"
        )
    elif wanted and wanted.casefold() not in found.casefold():
        there = f"this machine's is {found!r}" if found else "this machine has none that nvidia-smi sees"
        raise FrontierError(
            f"operations.gpu_type: {experiment.name} needs a GPU {wanted!r}, but {there}. Run it elsewhere, or change "
            "the field: null takes whatever is there."
        )


_NOTES = {
    "system": "system prompts (they go into the first user message)",
    "response_format": "a JSON schema (the reply is read without)",
    "usage": "usage (it does not count tokens; they are estimated)",
}
"""How notes in `ChatReply.ignored` are put to people."""


def role_line(report: RoleReport) -> str:
    """Return what a model said of itself in its test completion, and what its server does not take."""
    settings, reply = report.settings, report.reply
    served = f", served as {reply.model}" if reply.model not in ("", settings.model) else ""
    notes = [_NOTES.get(name, name) for name in reply.ignored]
    ignored = f"; its server does not take: {', '.join(notes)}" if notes else ""
    return f"{report.place}: {settings.model} at {settings.endpoint} answers{served}{ignored}"
