"""Our client against a leased vLLM: how much of the server's own throughput arrives at those who ask.

Usage: python -m benchmarks.serving [--concurrency N] [--requests N] [--rounds N]

A miniature model is served by vLLM (`make vllm`, or a GPU). The same number of requests, of the same length and with
the same number of generated tokens, are made in turn by a bare loop around aiohttp, which does nothing but send bodies
made beforehand and read the answers, and by the client as rollouts use it: limits, retries, reading, journal. Prompts
differ, so that no round finds the other's prefixes cached. Rounds alternate; the first of either warms up and does not
count.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import itertools
import json
import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from statistics import mean, median

import aiohttp

from dagster_project.miniature.models import train_source_model
from dagster_project.miniature.world import make_cases, toolkits
from dagster_project.serving.leases import leased, stop_servers
from dagster_project.serving.settings import ServerSettings, server_of
from dagster_project.serving.state import Servers
from toolemu.chat import ChatRequest, Message
from toolemu.chat.endpoint import open_endpoints
from toolemu.chat.openai import OpenAIChatModel
from toolemu.chat.replies import JournaledChatModel, ReplyJournal
from toolemu.chat.settings import EndpointSettings, OpenAIModelSettings
from toolemu.prompts import AgentPrompt

TOKENS = (32, 96)
"""Each request is for another length in between: of one length they would all end at the same moment."""
SETTINGS = OpenAIModelSettings(endpoint="here", model="miniature", request={"ignore_eos": True})


def prompts() -> Iterator[tuple[Message, ...]]:
    """Yields prompts without end, each another."""
    prompt, known = AgentPrompt("brief"), toolkits()
    for seed in itertools.count(1000):
        for number, case in enumerate(make_cases(200, seed)):
            opening, *rest = prompt.messages(case, [known[name] for name in case.toolkits])
            yield (Message(opening.role, f"{seed} {number} {opening.content}"), *rest)


async def in_flight(count: int, work: list[Callable[[], Awaitable[object]]]) -> float:
    """Does all work, so much at once, and returns the seconds it took."""
    left, started = iter(work), time.perf_counter()

    async def worker() -> None:
        for task in left:
            await task()

    await asyncio.gather(*(worker() for _ in range(count)))
    return time.perf_counter() - started


def length(number: int) -> int:
    """Returns how many tokens the request of that number is for."""
    return random.Random(number).randint(*TOKENS)


async def measure(url: str, folder: Path, concurrency: int, requests: int, rounds: int) -> dict[str, list[float]]:
    """Returns the seconds of every round, `raw` and `client`."""
    source, seconds = prompts(), {"raw": list[float](), "client": list[float]()}
    endpoints = {"here": EndpointSettings(url=url, max_in_flight=concurrency)}
    connector = aiohttp.TCPConnector(limit=concurrency)
    with ReplyJournal.open(folder / "replies") as journal:
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            open_endpoints(endpoints, max_in_flight=concurrency) as found,
        ):
            model = JournaledChatModel(OpenAIChatModel(found["here"], SETTINGS), journal)

            async def raw(body: bytes, tokens: int) -> None:
                headers = {"Content-Type": "application/json"}
                async with session.post(f"{url}/chat/completions", data=body, headers=headers) as answer:
                    answer.raise_for_status()
                    assert json.loads(await answer.read())["usage"]["completion_tokens"] == tokens

            for _ in range(rounds + 1):
                bodies = [
                    json.dumps(
                        {
                            "model": "miniature",
                            "messages": [message._asdict() for message in next(source)],
                            "max_tokens": length(number),
                            "temperature": 1.0,
                            "seed": number,
                            "ignore_eos": True,
                        }
                    ).encode()
                    for number in range(requests)
                ]
                work = [functools.partial(raw, body, length(number)) for number, body in enumerate(bodies)]
                seconds["raw"].append(await in_flight(concurrency, work))
                asked = [
                    ChatRequest(next(source), max_tokens=length(number), temperature=1.0, seed=number)
                    for number in range(requests)
                ]
                seconds["client"].append(
                    await in_flight(concurrency, [lambda request=request: model.chat(request) for request in asked])
                )
    return {name: values[1:] for name, values in seconds.items()}


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--requests", type=int, default=96, help="a round")
    parser.add_argument("--rounds", type=int, default=10)
    asked = parser.parse_args()
    settings = ServerSettings(dtype="float32", adapters=0, arguments=("--enforce-eager",), idle_after_s=1)
    with tempfile.TemporaryDirectory() as name:
        folder, servers = Path(name), Servers(Path(name) / "servers")
        train_source_model("eager", 0, folder / "weights", steps=1, heads=3)
        server = server_of(folder / "weights", "miniature", settings)
        with leased(servers, [server], print) as urls:
            found = asyncio.run(measure(urls[server.key], folder, asked.concurrency, asked.requests, asked.rounds))
        stop_servers(servers)
    sizes = f"{asked.rounds} rounds of {asked.requests} requests, {TOKENS[0]} to {TOKENS[1]} tokens each"
    print(f"{asked.concurrency} at once, {sizes}")
    for kind, seconds in found.items():
        rates = [asked.requests / value for value in seconds]
        print(f"  {kind}: {mean(rates):.1f} requests a second ({', '.join(f'{rate:.1f}' for rate in rates)})")
    ratios = [raw / client for raw, client in zip(found["raw"], found["client"], strict=True)]
    whole = sum(found["raw"]) / sum(found["client"])
    print(f"  client / raw: {median(ratios):.3f}, the median of the rounds; {whole:.3f} over all")


if __name__ == "__main__":
    main()
