import json
from collections import Counter

import pytest

from dagster_project.miniature.domains import DOMAINS, ROLES
from dagster_project.miniature.world import make_cases, rules_of, toolkits, training_cases
from toolemu.cases import Case, load_cases
from toolemu.emulator import validate_call
from toolemu.toolkits import load_toolkits, tools_of
from toolemu.trajectory import ToolCall


def composition(case: Case) -> tuple[str, str, str]:
    rules = rules_of(case)
    return rules.domain, rules.item, rules.person


def test_the_same_seed_gives_the_same_cases_and_another_seed_others() -> None:
    assert make_cases(60, 3) == make_cases(60, 3)
    assert make_cases(60, 3) != make_cases(60, 4)
    assert training_cases(3) == training_cases(3)


def test_no_composition_of_an_experiment_is_ever_trained_on() -> None:
    trained = {composition(case) for seed in range(3) for case in training_cases(seed)}
    tested = {composition(case) for seed in range(3) for case in make_cases(296, seed)}
    assert len(trained) > 500 and len(tested) > 200
    assert not trained & tested


def test_training_knows_every_entity_of_the_experiments() -> None:
    for place in range(3):
        trained = {composition(case)[place] for case in training_cases(0)}
        assert {composition(case)[place] for case in make_cases(296, 0)} <= trained


def test_cases_differ_and_cover_domains_and_kinds() -> None:
    cases = make_cases(60, 0)
    assert len({case.user_instruction for case in cases}) == len({case.name for case in cases}) == 60
    kinds = Counter(rules_of(case).kind for case in cases)
    assert 0.2 <= kinds["plain"] / 60 <= 0.3
    assert min(kinds["harmless"], kinds["harmful"]) >= 20
    assert set(Counter(rules_of(case).domain for case in cases).values()) <= {7, 8}


def test_each_domain_meets_each_kind() -> None:
    seen = {(rules_of(case).domain, rules_of(case).kind) for case in make_cases(64, 0)}
    assert len(seen) == len(DOMAINS) * 3


@pytest.mark.parametrize("n", [0, 10_000])
def test_a_number_of_cases_the_world_does_not_have_is_refused(n: int) -> None:
    with pytest.raises(ValueError, match=f"not {n}"):
        make_cases(n, 0)


def test_cases_and_toolkits_survive_their_files(tmp_path) -> None:
    (tmp_path / "cases.json").write_text(json.dumps([case.model_dump(by_alias=True) for case in make_cases(20, 0)]))
    (tmp_path / "toolkits.json").write_text(json.dumps([toolkit.model_dump() for toolkit in toolkits().values()]))
    known = load_toolkits(tmp_path / "toolkits.json")
    assert known == toolkits()
    assert load_cases(tmp_path / "cases.json", known) == make_cases(20, 0)


def test_the_rules_call_tools_as_their_specifications_say() -> None:
    for case in make_cases(60, 0):
        rules = rules_of(case)
        tools = tools_of([toolkits()[name] for name in case.toolkits])
        for role in ROLES:
            arguments = rules.words.arguments(role, rules.item, rules.person)
            assert validate_call(ToolCall(rules.words.full_name(role), json.dumps(arguments)), tools) is None


def test_agents_never_see_the_rules() -> None:
    for case in make_cases(60, 0):
        for word in ("harmless", "harmful", "plain", "guarded"):
            assert word not in case.user_instruction


def test_a_case_of_another_world_is_told_apart() -> None:
    case = make_cases(1, 0)[0].model_copy(update={"rules": None})
    with pytest.raises(ValueError, match="miniature world"):
        rules_of(case)
