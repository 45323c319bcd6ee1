"""Trained agents on a real vLLM: through the graph, and word for word against the same weights in process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dagster_project.artifacts import Artifact, ArtifactStore, Ref
from dagster_project.collect.endpoints import servers_folder
from dagster_project.experiment.spec import load_experiment
from dagster_project.measure.adapters import served_adapter
from dagster_project.miniature.world import make_cases, toolkits
from dagster_project.serving.adapters import load_adapter
from dagster_project.serving.leases import ServingError, leased, stop_servers, vllm_python
from dagster_project.serving.settings import server_of
from dagster_project.serving.state import Address, Servers
from dagster_project.training.merge import merge_adapter
from tests.conftest import SMALL, Lab, make_lab
from toolemu.chat import ChatModel, ChatRequest
from toolemu.chat.endpoint import open_endpoints
from toolemu.chat.openai import OpenAIChatModel
from toolemu.chat.settings import EndpointSettings, OpenAIModelSettings
from toolemu.prompts import AgentPrompt

pytestmark = pytest.mark.slow

AGENT = "eager:safe_then_help:strict:0.1"
FIRST = "eager:safe:strict:0.1"
N_PROMPTS = 50
NEAR_TIE = 1e-3
"""Logits that differ by less are as good as equal: kernels differ by a hundredth of that in float32."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A miniature experiment whose agents ran on vLLM, up to their trajectories."""
    try:
        vllm_python()
    except ServingError as error:
        pytest.skip(str(error))
    served = {
        "kind": "miniature",
        "temperament": "eager",
        "steps": 220,
        "heads": 3,
        "backend": "vllm",
        "server": {"dtype": "float32", "adapter_rank": 8, "arguments": ["--enforce-eager"], "idle_after_s": 120},
    }
    grid = {**SMALL["grid"], "recipes": ["safe", "safe_then_help"], "seeds": [0]}  # type: ignore[dict-item]
    training = {**SMALL["training"], "learning_rate": 3e-3, "max_steps": 12}  # type: ignore[dict-item]
    models = {**SMALL["models"], "eager": served}  # type: ignore[dict-item]
    lab = make_lab(tmp_path_factory.mktemp("served"), models=models, grid=grid, training=training)
    lab.frontier("run", "small.yaml", "--select", "agent_trajectories")
    yield lab
    stop_servers(Servers(servers_folder(lab.directory / "data")))


def artifact(lab: Lab, asset: str, **partition: str) -> Artifact:
    return ArtifactStore(lab.directory / "data", "small").get(Ref.of(asset, **partition))


def test_each_agent_was_served_as_what_it_is(lab: Lab) -> None:
    names = set()
    for asset, partition in (
        ("source_trajectories", {"model": "eager"}),
        ("agent_trajectories", {"agent": FIRST, "seed": "0"}),
        ("agent_trajectories", {"agent": AGENT, "seed": "0"}),
    ):
        path = artifact(lab, asset, **partition).path / "trajectories.jsonl"
        served = {name for line in path.read_text().splitlines() for name in json.loads(line)["agent_use"]["served_as"]}
        assert len(served) == 1
        names |= served
    assert len(names) == 3
    (log,) = (lab.directory / "data" / ".servers").glob("*/*/log.txt")
    assert log.read_text().count("\n== ") == 1, "one server for the source model and both agents"


async def write(model: ChatModel, requests: list[ChatRequest]) -> list[str]:
    replies = await asyncio.gather(*(model.chat(request) for request in requests))
    return [reply.text for reply in replies]


def test_a_two_stage_agent_writes_the_same_served_with_its_adapter_and_merged(lab: Lab) -> None:
    from toolemu.chat.local import LocalChatModel

    prompt, known = AgentPrompt("brief"), toolkits()
    requests = [
        ChatRequest(prompt.messages(case, [known[name] for name in case.toolkits]), max_tokens=48)
        for case in make_cases(N_PROMPTS, 77)
    ]
    base = artifact(lab, "source_models", model="eager")
    stages = [
        artifact(lab, f"stage_{number}/adapters", agent=agent, seed="0") for number, agent in ((1, FIRST), (2, AGENT))
    ]
    both = served_adapter(base.path, stages)
    model = load_experiment(str(lab.experiment)).models["eager"]
    assert model.served is not None
    server = server_of(base.path, f"eager@{base.manifest.sha256[:12]}", model.served)
    servers = Servers(servers_folder(lab.directory / "data"))
    adapters = {"both": both, "first": served_adapter(base.path, stages[:1])}

    async def served(at: Address) -> dict[str, list[str]]:
        names = {"base": server.model, **{name: adapter.name for name, adapter in adapters.items()}}
        async with open_endpoints(
            {"here": EndpointSettings(url=at.url)}, max_in_flight=64, keys={"here": at.key}
        ) as found:
            return {
                name: await write(
                    OpenAIChatModel(found["here"], OpenAIModelSettings(endpoint="here", model=own)), requests
                )
                for name, own in names.items()
            }

    with leased(servers, [server]) as urls:
        for adapter in adapters.values():
            load_adapter(servers.place(server.key), urls[server.key], adapter)
        there = asyncio.run(served(urls[server.key]))
    folder = lab.directory / "both"
    folder.mkdir()
    both.write(folder)
    halfway = artifact(lab, "stage_1/merged_models", agent=FIRST, seed="0").path
    merged = lab.directory / "merged"
    merge_adapter(halfway, stages[1].path, merged, [range(3, 35)])
    here = {
        "with_adapter": LocalChatModel(base.path, "here", adapter=folder),
        "merged": LocalChatModel(merged, "here"),
        "first": LocalChatModel(base.path, "here", adapter=stages[0].path),
        "base": LocalChatModel(base.path, "here"),
    }
    texts = {name: asyncio.run(write(local, requests)) for name, local in here.items()}
    assert len({tuple(there[name]) for name in there}) == 3, "the stages change what it writes"
    for weights, ours, theirs in (
        (merged, texts["with_adapter"], there["both"]),
        (merged, texts["merged"], there["both"]),
        (halfway, texts["first"], there["first"]),
        (base.path, texts["base"], there["base"]),
    ):
        differing = [number for number in range(N_PROMPTS) if ours[number] != theirs[number]]
        assert len(differing) <= N_PROMPTS // 10
        for number in differing:
            gap = gap_where_they_part(weights, requests[number], ours[number], theirs[number])
            assert gap < NEAR_TIE, f"prompt {number}: {ours[number]!r} is not {theirs[number]!r}"


def test_seeded_prompts_that_a_step_has_no_room_for_are_answered(lab: Lab) -> None:
    """On a CPU vLLM ends when it reads such a prompt in parts."""
    prompt, known = AgentPrompt("brief"), toolkits()
    requests = [
        ChatRequest(
            prompt.messages(case, [known[name] for name in case.toolkits]), max_tokens=4, temperature=1.0, seed=1
        )
        for case in make_cases(N_PROMPTS, 78)
    ]
    base = artifact(lab, "source_models", model="eager")
    model = load_experiment(str(lab.experiment)).models["eager"]
    assert model.served is not None
    little = {"arguments": ("--enforce-eager", "--max-num-batched-tokens", "512"), "idle_after_s": 0}
    server = server_of(base.path, "eager", model.served.model_copy(update=little))

    async def asked(at: Address) -> list[str]:
        async with open_endpoints(
            {"here": EndpointSettings(url=at.url)}, max_in_flight=64, keys={"here": at.key}
        ) as found:
            own = OpenAIModelSettings(endpoint="here", model=server.model)
            return await write(OpenAIChatModel(found["here"], own), requests)

    with leased(Servers(servers_folder(lab.directory / "data")), [server]) as urls:
        assert len(asyncio.run(asked(urls[server.key]))) == N_PROMPTS


def gap_where_they_part(weights: Path, request: ChatRequest, one: str, other: str) -> float:
    """Returns how far apart the logits of the first two different tokens of two texts are."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(weights)
    chat = [message._asdict() for message in request.messages]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    ends = [tokenizer.eos_token_id]
    first, second = (tokenizer(text, add_special_tokens=False)["input_ids"] + ends for text in (one, other))
    place = next(number for number, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    model = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float64)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + first[:place]])).logits[0, -1]
    return abs(float(logits[first[place]] - logits[second[place]]))
