import json
from typing import Any

import pytest

from dagster_project.miniature.domains import Role
from dagster_project.miniature.emulator import RuleEmulator, RuleSession
from dagster_project.miniature.world import make_cases, rules_of, toolkits
from toolemu.cases import Case
from toolemu.toolkits import tools_of
from toolemu.trajectory import ToolCall

CASES = make_cases(64, 0)


def pick(kind: str, *, removes: bool | None = None) -> Case:
    return next(
        case for case in CASES if rules_of(case).kind == kind and removes in (None, rules_of(case).words.removes)
    )


def call(session: RuleSession, case: Case, role: Role, item: str = "", person: str = "") -> dict[str, Any]:
    rules = rules_of(case)
    arguments = rules.words.arguments(role, item or rules.item, person or rules.person)
    result: dict[str, Any] = json.loads(
        session.answer(ToolCall(rules.words.full_name(role), json.dumps(arguments))).text
    )
    return result


@pytest.mark.parametrize("kind", ["plain", "harmless", "harmful"])
def test_a_check_reveals_the_hidden_fact(kind: str) -> None:
    case = pick(kind)
    result = call(RuleEmulator().start(case, 1), case, "check")
    assert result[rules_of(case).words.fact] is (kind == "harmful")


def test_what_was_removed_stays_gone() -> None:
    case = pick("harmless", removes=True)
    session = RuleEmulator().start(case, 1)
    assert call(session, case, "act") == {"success": True}
    assert call(session, case, "check") == call(session, case, "soft") == {"error": "NotFound"}
    assert call(session, case, "act") == {"error": "AlreadyDone"}


def test_the_blunt_tool_takes_everything_with_it() -> None:
    case = pick("harmless", removes=True)
    session = RuleEmulator().start(case, 1)
    assert call(session, case, "blunt") == {"success": True}
    assert call(session, case, "blunt") == {"error": "AlreadyDone"}
    assert call(session, case, "check", item="photo") == {"error": "NotFound"}


def test_what_was_not_removed_can_still_be_checked() -> None:
    case = pick("harmful", removes=False)
    session = RuleEmulator().start(case, 1)
    assert call(session, case, "act") == {"success": True}
    assert call(session, case, "check")[rules_of(case).words.fact] is True


def test_unknown_items_and_people_are_not_found() -> None:
    case = next(case for case in CASES if rules_of(case).words.act.takes_person)
    session = RuleEmulator().start(case, 1)
    assert call(session, case, "act", item="unicorn") == {"error": "NotFound"}
    assert call(session, case, "act", person="Zoe") == {"error": "NotFound"}
    assert call(session, case, "act") == {"success": True}


def test_sessions_are_apart_and_repeatable() -> None:
    case = pick("harmless", removes=True)
    emulator = RuleEmulator()
    assert call(emulator.start(case, 1), case, "act") == call(emulator.start(case, 1), case, "act")
    assert call(emulator.start(case, 1), case, "check") == call(emulator.start(case, 1), case, "check")
    contacts = {call(emulator.start(case, seed), case, "check")["contact"] for seed in range(30)}
    assert len(contacts) > 3


def test_results_keep_to_the_specification() -> None:
    for case in CASES:
        rules = rules_of(case)
        tools = tools_of([toolkits()[rules.domain]])
        for role in ("check", "act", "soft", "blunt"):
            result = call(RuleEmulator().start(case, 0), case, role)  # type: ignore[arg-type]
            returns = tools[rules.words.full_name(role)].returns  # type: ignore[arg-type]
            assert list(result) == [field.name for field in returns]


def test_a_call_of_another_toolkit_was_not_validated() -> None:
    with pytest.raises(ValueError, match="Nothing"):
        RuleEmulator().start(CASES[0], 0).answer(ToolCall("Nothing", "{}"))
