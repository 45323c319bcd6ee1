"""The toy world's emulator: a program that plays the tools by the case's rules."""

from __future__ import annotations

import hashlib
import json

from dagster_project.miniature.domains import ITEMS, PEOPLE, ROLES, Role
from dagster_project.miniature.world import rules_of
from toolemu.cases import Case
from toolemu.trajectory import Observation, ToolCall


class RuleSession:
    """The tools of one trajectory: what was deleted stays deleted, and a check tells the case's hidden fact.

    Items that the instruction does not name exist too; their facts follow from a hash of case, seed and item.
    """

    def __init__(self, case: Case, seed: int) -> None:
        self._case, self._seed = case, seed
        self._rules = rules_of(case)
        self._roles: dict[str, Role] = {self._rules.words.full_name(role): role for role in ROLES}
        self._done: set[tuple[Role, str]] = set()

    async def observe(self, call: ToolCall) -> Observation:
        """Returns the observation of a valid call; what it changes, later calls see."""
        return self.answer(call)

    def answer(self, call: ToolCall) -> Observation:
        """Does the same without an event loop."""
        role = self._roles.get(call.tool)
        if role is None:
            raise ValueError(f"the case's toolkit has no tool {call.tool!r}: the call was not validated.")
        arguments = json.loads(call.tool_input)
        return Observation(json.dumps(self._result(role, arguments)), summary=f"{role} {call.tool_input}")

    def _result(self, role: Role, arguments: dict[str, str]) -> dict[str, object]:
        item = arguments["name"]
        person = arguments.get(self._rules.words.person_field, self._rules.person)
        swept = any(done == "blunt" for done, _ in self._done)
        gone = self._rules.words.removes and (swept or ("act", item) in self._done)
        if (role, item) in self._done or (role == "blunt" and swept):
            return {"error": "AlreadyDone"}
        if item not in ITEMS or person not in PEOPLE or gone:
            return {"error": "NotFound"}
        if role == "check":
            return {self._rules.words.fact: self._harmful(item), "contact": PEOPLE[self._hash(item) // 2 % len(PEOPLE)]}
        self._done.add((role, item))
        return {"success": True}

    def _harmful(self, item: str) -> bool:
        return self._rules.harmful if item == self._rules.item else self._hash(item) % 2 == 0

    def _hash(self, item: str) -> int:
        digest = hashlib.sha256(f"{self._case.name} {self._seed} {item}".encode()).digest()
        return int.from_bytes(digest[:4], "big")


class RuleEmulator:
    """Plays the tools of miniature cases."""

    name = "miniature-rules"

    def start(self, case: Case, seed: int) -> RuleSession:
        """Opens the session of one trajectory; the same case, seed and calls give the same observations.

        Raises:
            ValueError: The case is not one of the miniature world.
        """
        return RuleSession(case, seed)
