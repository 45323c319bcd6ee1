"""Our client against a leased vLLM: how much of the server's own throughput arrives at those who ask.

Usage: python -m benchmarks.serving [--concurrency N] [--requests N] [--rounds N]

A miniature model is served by vLLM (`make vllm`, or a GPU). The same number of requests, of the same length and with
the same number of generated tokens, are made in turn by a bare loop around aiohttp, which does nothing but send bodies
made beforehand and read the answers, and by the client as rollouts use it: limits, retries, reading, journal. Prompts
differ, so that no round finds the other's prefixes cached. The bare loop takes two turns in each round, in random order
with the client: how far those two lie apart is what the machine's unrest alone does. The first round warms up and does
not count.
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
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from statistics import harmonic_mean, mean, quantiles
from typing import NamedTuple

import aiohttp

from dagster_project.miniature.models import train_source_model
from dagster_project.miniature.world import make_cases, toolkits
from dagster_project.serving.leases import leased, stop_servers
from dagster_project.serving.settings import ServerSettings, server_of
from dagster_project.serving.state import Address, Servers
from toolemu.chat import ChatRequest, Message
from toolemu.chat.endpoint import KEEP_ALIVE_S, open_endpoints
from toolemu.chat.openai import OpenAIChatModel
from toolemu.chat.replies import JournaledChatModel, ReplyJournal
from toolemu.chat.settings import EndpointSettings, OpenAIModelSettings
from toolemu.prompts import AgentPrompt

TOKENS = (32, 96)
"""Each request is for another length in between: of one length they would all end at the same moment."""
Work = Callable[[], Awaitable[object]]
SETTINGS = OpenAIModelSettings(endpoint="here", model="miniature", request={"ignore_eos": True})


def prompts() -> Iterator[tuple[Message, ...]]:
    """Yields prompts without end, each another."""
    prompt, known = AgentPrompt("brief"), toolkits()
    for seed in itertools.count(1000):
        for number, case in enumerate(make_cases(200, seed)):
            opening, *rest = prompt.messages(case, [known[name] for name in case.toolkits])
            yield (Message(opening.role, f"{seed} {number} {opening.content}"), *rest)


class Turn(NamedTuple):
    """What one turn gave: requests a second, and our own processor time a request in seconds."""

    rate: float
    used_s: float


async def in_flight(count: int, work: list[Work]) -> float:
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


def request(messages: tuple[Message, ...], number: int) -> ChatRequest:
    """Returns the client's request of that number."""
    return ChatRequest(messages, max_tokens=length(number), temperature=1.0, seed=number)


def body(messages: tuple[Message, ...], number: int) -> bytes:
    """Returns the same request as the bare loop sends it."""
    said = [message._asdict() for message in messages]
    asked = {"model": "miniature", "messages": said, "max_tokens": length(number), "temperature": 1.0, "seed": number}
    return json.dumps({**asked, **SETTINGS.request}).encode()


async def measure(
    address: Address, folder: Path, concurrency: int, requests: int, rounds: int
) -> dict[str, list[Turn]]:
    """Returns every turn of the bare loop (twice) and of the client."""
    source, found = prompts(), defaultdict[str, list[Turn]](list)
    url, key = address
    endpoints = {"here": EndpointSettings(url=url, max_in_flight=concurrency)}
    connector = aiohttp.TCPConnector(limit=concurrency, keepalive_timeout=KEEP_ALIVE_S)
    with ReplyJournal.open(folder / "replies") as journal:
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            open_endpoints(endpoints, max_in_flight=concurrency, keys={"here": key}) as opened,
        ):
            model = JournaledChatModel(OpenAIChatModel(opened["here"], SETTINGS), journal)

            async def raw(body: bytes, tokens: int) -> None:
                headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key.get_secret_value()}"}
                async with session.post(f"{url}/chat/completions", data=body, headers=headers) as answer:
                    answer.raise_for_status()
                    assert json.loads(await answer.read())["usage"]["completion_tokens"] == tokens

            def bare() -> list[Work]:
                return [
                    functools.partial(raw, body(next(source), number), length(number)) for number in range(requests)
                ]

            def client() -> list[Work]:
                return [functools.partial(model.chat, request(next(source), number)) for number in range(requests)]

            turns = {"raw": bare, "raw again": bare, "client": client}
            for number in range(rounds + 1):
                for name in random.Random(number).sample(list(turns), len(turns)):
                    work, used = turns[name](), time.process_time()
                    took = await in_flight(concurrency, work)
                    if number:
                        found[name].append(Turn(requests / took, (time.process_time() - used) / requests))
    return found


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--requests", type=int, default=96, help="a round")
    parser.add_argument("--rounds", type=int, default=20)
    asked = parser.parse_args()
    settings = ServerSettings(dtype="float32", adapters=0, arguments=("--enforce-eager",), idle_after_s=1)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder, servers = Path(name), Servers(Path(name) / "servers")
        train_source_model("eager", 0, folder / "weights", steps=1, heads=3)
        server = server_of(folder / "weights", "miniature", settings)
        with leased(servers, [server], print) as urls:
            found = asyncio.run(measure(urls[server.key], folder, asked.concurrency, asked.requests, asked.rounds))
        stop_servers(servers)
    sizes = f"{asked.rounds} rounds of {asked.requests} requests, {TOKENS[0]} to {TOKENS[1]} tokens each"
    print(f"{asked.concurrency} at once, {sizes}")
    for name, turns in found.items():
        rates = ", ".join(f"{turn.rate:.0f}" for turn in turns)
        print(
            f"  {name}: {harmonic_mean(turn.rate for turn in turns):.1f} requests a second ({rates}); "
            f"{1000 * mean(turn.used_s for turn in turns):.2f} ms of processor time a request"
        )
    for name in ("raw again", "client"):
        ratios = [turn.rate / bare.rate for turn, bare in zip(found[name], found["raw"], strict=True)]
        low, middle, high = quantiles(ratios, n=4)
        print(f"  {name} / raw: {middle:.2f}, the median of the rounds; half of them within {low:.2f} to {high:.2f}")
    pooled = [turn.rate for name in ("raw", "raw again") for turn in found[name]]
    whole = harmonic_mean(turn.rate for turn in found["client"]) / harmonic_mean(pooled)
    print(f"  client / both raw, all rounds together: {whole:.2f}")


if __name__ == "__main__":
    main()
