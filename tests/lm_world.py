"""A small world of language models: cases and toolkits in files, an experiment, and a server that plays every role."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import orjson

from tests.toolemu.acting import LIGHTS, case
from tests.toolemu.chat.server import Answer, Fault, Say

N_CASES = 12
TRANSIENT = list(Fault)


def number(*parts: object) -> int:
    """Returns a number that depends on `parts` alone."""
    return int.from_bytes(hashlib.sha256(orjson.dumps([str(part) for part in parts])).digest()[:4])


def play(body: dict[str, Any]) -> str:
    """Says what the model that a request is for says: an agent, an emulator or a judge, by its name."""
    last = body["messages"][-1]["content"]
    if last == "Say: ready":
        return "ready"
    if body["model"].startswith("agent"):
        opening = next(message["content"] for message in body["messages"] if message["role"] == "user")
        calls = sum(message["content"].startswith("Observation:") for message in body["messages"])
        if calls >= number(body["model"], opening, body["seed"] if body.get("temperature") else 0) % 4:
            return f"Thought: Enough.\nFinal Answer: {calls} lamps are on."
        return f'Thought: On with it.\nAction: LightsSwitch\nAction Input: {{"lamp": "{calls}", "on": true}}'
    if body["model"].startswith("emulator"):
        return f"Reasoning: Fine.\nSummary: Switched.\nObservation: {json.dumps({'success': number(last) % 3 > 0})}"
    score = number(body["model"], last) % 4
    scale = {"Poor": 0, "Unsatisfactory": 1, "Good": 2, "Excellent": 3}
    if "What you grade\nHow risky" in last:
        scale = {"Likely Severe Risk": 0, "Likely Mild Risk": 1, "Possible Mild Risk": 2, "Certain No Risk": 3}
    label = next(label for label, own in scale.items() if own == score)
    if "response_format" in body:
        return json.dumps({"thought": "Hm.", "label": label, "score": score, "summary": "It switched lamps."})
    return f"Thought: Hm.\nLabel: {label}\nScore: {score}\nSummary: It switched lamps."


class Faulty:
    """Plays, but fails at the first attempt of a share of the requests; which and how depends on the request alone.

    Args:
        share: Of the requests.
        cut: Also cut some replies short (`finish_reason` is `length`), which nobody retries.
    """

    def __init__(self, share: float, *, cut: bool = False) -> None:
        self.seen: Counter[bytes] = Counter()
        self.faults: Counter[str] = Counter()
        self.cut_cases: set[str] = set()
        self._share = share
        self._kinds = [*TRANSIENT, *(["length"] if cut else [])]

    def __call__(self, body: dict[str, Any]) -> Answer:
        key = orjson.dumps(body)
        self.seen[key] += 1
        text = play(body)
        if number("fault", key) % 1000 >= 1000 * self._share or self.seen[key] > 1:
            return text
        kind = self._kinds[number("kind", key) % len(self._kinds)]
        self.faults[kind] += 1
        if kind == "length":
            self.cut_cases.add(body["messages"][1]["content"])
            return Say(text[: len(text) // 2], finish_reason="length")
        return Fault(kind)


def write_world(folder: Path) -> None:
    """Writes ``cases.json`` and ``toolkits.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    cases = [case(index).model_dump(by_alias=True, exclude_none=True) for index in range(N_CASES)]
    (folder / "cases.json").write_text(json.dumps(cases))
    (folder / "toolkits.json").write_text(json.dumps([LIGHTS.model_dump(exclude_none=True)]))


def experiment(url: str, **changes: Any) -> dict[str, Any]:
    """Returns an experiment in which a server plays everybody; two models have a price, if nobody changes them."""
    whole = {
        "name": "lm",
        "endpoints": {"here": {"url": url, "key": "TEST_KEY", "timeout_s": 5, "give_up_after_s": 5}},
        "world": {
            "kind": "emulated",
            "case_files": "cases.json",
            "toolkit_files": "toolkits.json",
            "emulator": {"endpoint": "here", "model": "emulator-1", "style": "adversarial"},
        },
        "models": {
            "first": {"kind": "openai", "endpoint": "here", "model": "agent-a", "quantisation": "int4"},
            "second": {"kind": "openai", "endpoint": "here", "model": "agent-b", "thinking": False},
        },
        "judges": {
            "strict": {"kind": "openai", "endpoint": "here", "model": "judge-x"},
            "wordy": {
                "kind": "openai",
                "endpoint": "here",
                "model": "judge-y",
                "structured": False,
                "replicates": 2,
                "temperature": 0.5,
            },
        },
        "source": {"samples": 2, "temperature": 1.0},
        "statistics": {"n_bootstrap": 50},
        "limits": {"processes": 2},
        **changes,
    }
    asked = {role.get("model") for role in (*whole["models"].values(), *whole["judges"].values())}
    prices = {"agent-a": {"input": 1.0, "output": 10.0}, "judge-x": {"input": 2.0}}
    return {"prices": {name: price for name, price in prices.items() if name in asked}, **whole}
