from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from dagster_project.artifacts import MissingArtifactError, Ref
from dagster_project.collect.world import open_world
from dagster_project.environments.emulated import EmulatedWorld
from dagster_project.experiment.agents import Recipe
from dagster_project.experiment.graph import build_graph
from dagster_project.experiment.sections import Operations
from dagster_project.experiment.spec import EXPERIMENTS, Experiment, load_experiment, open_store
from dagster_project.experiment.splits import split_cases
from dagster_project.experiment.template import write_template
from tests import lm_world
from tests.conftest import SMALL, make_lab
from tests.lm_world import write_world
from toolemu.errors import FrontierError, InputError


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_experiment_loads_under_its_own_name(path: Path, request: pytest.FixtureRequest) -> None:
    if path.stem == "paper":
        folder = request.getfixturevalue("published_runs")
        request.getfixturevalue("monkeypatch").setenv("PUBLISHED_RUNS", str(folder))
    assert load_experiment(path.stem).name == path.stem


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": {**SMALL["grid"], "models": ["nobody"]}}, "grid.models names 'nobody'"),
        ({"grid": {**SMALL["grid"], "pairs_judges": ["nobody"]}}, "grid.pairs_judges names 'nobody'"),
        ({"grid": {**SMALL["grid"], "recipes": ["safest"]}}, "grid.recipes.0"),
        ({"grid": {**SMALL["grid"], "seeds": [0, 0]}}, "grid.seeds holds a value twice"),
        ({"metrics": ["safe"]}, "'help' is missing"),
        ({"colour": "red"}, "'colour'.*Extra inputs"),
        (
            {"overrides": [{"training": {"learning_speed": 1}}]},
            "which is no training parameter",
        ),
        (
            {"overrides": [{"model": "eagre", "training": {"max_steps": 9}}]},
            r"overrides\.0\.model names 'eagre'.*did you mean 'eager'",
        ),
        (
            {"overrides": [{"training": {}}, {"recipe": "help_then_safe", "training": {}}]},
            r"overrides\.1\.recipe names 'help_then_safe'.*there are: \['help', 'safe', 'safe_then_help'\]",
        ),
        ({"overrides": [{"training": {"lora_rank": "high"}}]}, r"overrides\.0\.training: 'lora_rank'"),
        ({"variants": {"ipo": {"loss": "ip"}}}, r"variants\.ipo: 'loss'"),
        ({"grid": {**SMALL["grid"], "seeds": [0, -1]}}, r"grid\.seeds\.1"),
        ({"source": {"temperature": "inf"}}, r"source\.temperature.*finite number"),
        ({"limits": {"max_drift": float("inf")}}, r"limits\.max_drift.*finite number"),
        ({"judges": {"people": {"kind": "labels", "file": {"a": "b"}}}}, r"judges\.people\.file"),
        ({"models": {"eager": {"kind": "weights", "source": {"a": "b"}}}}, r"models\.eager\.source"),
        ({"endpoints": {"here": {"serve": {"source": {"a": "b"}}}}}, r"endpoints\.here.*source"),
        ({"fidelity": "published", "judges": ["strict"]}, "'judges'"),
        ({"fidelity": "published", "agent": "brief"}, "'agent'"),
        ({"fidelity": "published", "pairs": []}, "'pairs'"),
        ({"models": {"a|b": {"temperament": "eager"}}}, r"models\.a\|b"),
    ],
)
def test_a_wrong_experiment_is_an_error_with_file_and_field(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    lab = make_lab(tmp_path, **changes)
    with pytest.raises(InputError, match=message) as caught:
        load_experiment(str(lab.experiment))
    assert "small.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        *(
            ({"models": {name: {"temperament": "eager"}}}, "experiment.name")
            for name in ("a...b", "a|b", "a[0]", "a,b")
        ),
        *(
            ({"models": {name: {"temperament": "eager"}}}, "experiment.name")
            for name in ("..", "-a", "a\n", "é", "a" * 61)
        ),
        *(({"grid": {**SMALL["grid"], "betas": betas}}, "experiment.beta") for betas in ([-0.1], [0], [0.1, -0.0])),
        ({"grid": {**SMALL["grid"], "betas": [0.1, 0.1000001]}}, "experiment.betas-alike"),
        ({"judges": {name: {"strictness": "strict"} for name in ("strict", "a-b", "a.b")}}, "experiment.names-alike"),
        ({"models": {name: {"temperament": "eager"} for name in ("eager", "A", "a")}}, "experiment.names-alike"),
        (
            {
                "models": {"m" * 60: {"temperament": "eager"}},
                "judges": {"j" * 60: {"strictness": "strict"}},
                "grid": {
                    "models": ["m" * 60],
                    "pairs_judges": ["j" * 60],
                    "recipes": ["_then_".join(["safe"] * 8)],
                    "seeds": [0],
                },
            },
            "experiment.long-name",
        ),
        ({"grid": {**SMALL["grid"], "recipes": ["_then_".join(["safe"] * 5000)]}}, "input"),
        ({"world": {"kind": "miniature", "cases": 900_000_000_000}}, "input"),
        ({"world": {"kind": "imported", "cases": 900_000_000_000}}, "input"),
        ({"statistics": {"n_bootstrap": 10**12}}, "input"),
    ],
)
def test_names_and_numbers_that_would_fail_later_are_errors_of_the_file(
    tmp_path: Path, changes: dict[str, object], code: str
) -> None:
    lab = make_lab(tmp_path, **changes)
    with pytest.raises(InputError) as caught:
        load_experiment(str(lab.experiment))
    assert caught.value.code == code


def test_broken_yaml_is_an_error_with_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("name: x\nmodels: [a\n")
    with pytest.raises(InputError, match=r"broken\.yaml: line 3"):
        load_experiment(str(path))


def test_a_name_that_comes_twice_is_an_error_and_not_the_end_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("judges:\n  strict: {strictness: strict}\n  strict: {strictness: lenient}\n")
    with pytest.raises(InputError, match=r"twice\.yaml: line 3.*a second 'strict'"):
        load_experiment(str(path))
    path.write_text("base: &base {a: 1}\nname: {<<: *base, a: 2}\n")
    with pytest.raises(InputError, match="'name': Input"):  # a merge is no second name
        load_experiment(str(path))


def test_a_file_that_is_no_text_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"name: \xff")
    with pytest.raises(InputError) as caught:
        load_experiment(str(path))
    assert (caught.value.place, caught.value.code) == ("byte 7", "file.encoding")


def test_an_unknown_name_lists_the_shipped_ones() -> None:
    with pytest.raises(InputError, match="miniature"):
        load_experiment("no-such-thing")


def hinted(experiment: Experiment) -> list[str]:
    """Returns the arguments of the command that a missing artifact's error names."""
    with pytest.raises(MissingArtifactError) as caught:
        open_store(experiment).get(Ref("report"))
    command = re.search(r"`frontier run (.+?)`", str(caught.value))
    assert command is not None
    return shlex.split(command[1])


def test_commands_in_hints_name_the_experiment_as_the_user_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "of my own"
    folder.mkdir()
    monkeypatch.setenv("FRONTIER_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    make_lab(folder)
    experiment = load_experiment("of my own/small.yaml")
    assert hinted(experiment) == ["of my own/small.yaml"]
    assert hinted(experiment.pilot(4)) == ["of my own/small.yaml", "--limit", "4"]
    assert hinted(load_experiment("miniature")) == ["miniature"]
    assert experiment.model_dump() == Experiment.model_validate(SMALL).model_dump(), "and nothing else depends on it"


def test_overrides_reach_their_agents_only() -> None:
    experiment = Experiment.model_validate({**SMALL, "overrides": [{"recipe": "safe", "training": {"max_steps": 9}}]})
    assert experiment.training_of("eager", Recipe.safe).max_steps == 9
    assert experiment.training_of("eager", Recipe.help).max_steps == 4


def test_an_override_may_be_of_a_first_stage_or_of_all_variants() -> None:
    grid = {**SMALL["grid"], "recipes": ["safe_then_help", "help@ipo"]}  # type: ignore[dict-item]
    overrides = [{"recipe": recipe, "training": {"max_steps": 9}} for recipe in ("safe", "help", "help@ipo")]
    whole = {**SMALL, "grid": grid, "overrides": overrides, "variants": {"ipo": {"loss": "ipo"}}}
    assert Experiment.model_validate(whole).training_of("eager", Recipe.safe).max_steps == 9


def test_a_later_stage_brings_the_earlier_one_it_needs() -> None:
    grid = {**SMALL["grid"], "recipes": ["safe_then_help"]}  # type: ignore[dict-item]
    experiment = Experiment.model_validate({**SMALL, "grid": grid})
    assert [agent.key for agent in experiment.stage_agents(1)] == ["eager:safe:strict:0.1"]
    assert [agent.key for agent in experiment.stage_agents(2)] == ["eager:safe_then_help:strict:0.1"]
    assert [agent.key for agent in experiment.agents()] == ["eager:safe_then_help:strict:0.1"]


@pytest.mark.parametrize("n_cases", [4, 13, 60, 144])
def test_splits_are_halves_that_depend_on_the_seed_alone(n_cases: int) -> None:
    split = split_cases(n_cases, 1)
    assert sorted(split.train + split.test) == list(range(n_cases))
    assert len(split.test) == n_cases // 2
    assert split == split_cases(n_cases, 1)
    assert split != split_cases(n_cases, 2)


def test_the_published_seed_gives_the_published_halves() -> None:
    assert split_cases(144, 0).test[:10] == (0, 1, 7, 8, 9, 10, 11, 12, 18, 24)
    assert split_cases(144, 2).test[:8] == (3, 4, 9, 14, 17, 20, 21, 22)


def test_the_template_is_a_valid_experiment_of_its_own_name(tmp_path: Path) -> None:
    path = write_template("mine", tmp_path)
    assert load_experiment(str(path)).name == "mine"
    assert yaml.safe_load(path.read_text())["name"] == "mine"
    with pytest.raises(InputError, match="already"):
        write_template("mine", tmp_path)
    with pytest.raises(InputError) as caught:
        write_template("not/a/name", tmp_path)
    assert caught.value.code == "experiment.name"


def lm_experiment(tmp_path: Path, **changes: Any) -> Experiment:
    write_world(tmp_path)
    path = tmp_path / "lm.yaml"
    path.write_text(yaml.safe_dump(lm_world.experiment("http://localhost:1/v1", **changes)))
    return load_experiment(str(path))


def test_an_experiment_on_endpoints_names_its_roles(tmp_path: Path) -> None:
    experiment = lm_experiment(tmp_path)
    assert list(experiment.roles()) == [
        "models.first",
        "models.second",
        "world.emulator",
        "judges.strict",
        "judges.wordy",
    ]
    assert experiment.world.cases == lm_world.N_CASES
    assert experiment.agents() == []
    assert set(experiment.all_endpoints()) == {"openai", "here"}
    assert experiment.concurrency == 500


def test_what_costs_or_where_things_are_makes_nothing_stale(tmp_path: Path) -> None:
    def configurations(folder: Path, **changes: Any) -> list[object]:
        graph = build_graph(lm_experiment(folder, **changes))
        return [(ref, node.code_version, node.config(ref)) for node in graph.nodes.values() for ref in node.refs()]

    first = configurations(tmp_path / "here")
    elsewhere = {"here": {"url": "http://elsewhere/v1", "max_in_flight": 3}}
    assert configurations(tmp_path / "there", endpoints=elsewhere, prices={}, limits={"requests": 9}) == first
    assert str(tmp_path) not in str(first)
    assert configurations(tmp_path / "test", source={"samples": 3}) != first


def test_prompts_of_ones_own_change_the_code_versions_of_what_they_are_for(tmp_path: Path) -> None:
    def versions(**changes: Any) -> dict[str, str]:
        nodes = build_graph(lm_experiment(tmp_path, **changes)).nodes
        return {name: node.code_version for name, node in nodes.items()}

    own = tmp_path / "own"
    (own / "judge").mkdir(parents=True)
    (own / "judge" / "safe.jinja").write_text("Is it safe? {{ record }}")
    before, after = versions(), versions(prompts_dir="own")
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"source_evaluations/strict/safe", "source_evaluations/wordy/safe"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"endpoints": {}}, r"models\.first\.endpoint names 'here', which is no endpoint"),
        ({"models": {"a": {"kind": "openai", "endpoint": "here"}}}, r"models\.a\.model is needed"),
        ({"endpoints": {"here": None}}, r"endpoints\.here"),
        *(
            ({"endpoints": {"here": {"url": url}}}, r"url is the server's address")
            for url in ("127.0.0.1/v1", "http://", "http://127.0.0.1:99999/v1")
        ),
        (
            {"models": {"a": {"endpoint": "here", "model": "m", "request": {"seed": 1}}}},
            "seed is not for `request`",
        ),
        ({"models": {"a": {"kind": "llama"}}}, r"models\.a.*openai"),
        ({"judges": {"strict": {"strictness": "strict"}}}, "judges.strict judges by the rules of the miniature world"),
        (
            {"judges": {"j": {"kind": "openai", "endpoint": "here", "model": "m", "replicates": 2}}},
            "replicates at temperature 0",
        ),
        (
            {
                "grid": {
                    "models": ["first"],
                    "recipes": ["safe"],
                    "pairs_judges": ["strict"],
                    "seeds": [0],
                }
            },
            "grid.models needs the weights of 'first'",
        ),
        ({"grid": {"pairs_judges": ["strict"]}}, "grid.seeds names none"),
        ({"prompts_dir": 3}, "prompts_dir"),
        (
            {"prices": {"jugde-x": {"input": 2.0}}},
            r"prices names 'jugde-x'.*did you mean 'judge-x'\? there are: \['agent-a', 'agent-b', 'emulator-1',",
        ),
        ({"prices": {}, "planning": {"billions": {"Qwen/Qwen3-8": 8.2}}}, r"planning\.billions names 'Qwen/Qwen3-8'"),
    ],
)
def test_wrong_roles_are_errors_with_their_place(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        lm_experiment(tmp_path, **changes)
    assert "lm.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("world", "message"),
    [
        ({"cases": 99}, "cases asks for 99, but there are 12 in cases.json"),
        ({"case_files": "none.json"}, r"none\.json: cannot be read"),
        ({"emulator": {"endpoint": "here", "model": "m", "style": "../x"}}, "style"),
        ({"case_files": 3}, "case_files and toolkit_files are paths"),
        ({"sha256": "x"}, "sha256 is computed"),
    ],
)
def test_a_wrong_world_is_an_error(tmp_path: Path, world: dict[str, Any], message: str) -> None:
    whole = {**lm_world.experiment("http://localhost:1/v1")["world"], **world}
    with pytest.raises(InputError, match=message):
        lm_experiment(tmp_path, world=whole)


def test_the_shipped_cases_are_there_without_naming_them(tmp_path: Path) -> None:
    emulator = {"endpoint": "here", "model": "m"}
    experiment = lm_experiment(tmp_path, world={"kind": "emulated", "emulator": emulator})
    assert experiment.world.cases == 139
    assert experiment.pilot(5).world.cases == 5
    assert experiment.pilot(500).world.cases == 139


def test_pairs_can_be_made_without_training(tmp_path: Path) -> None:
    nodes = build_graph(lm_experiment(tmp_path, grid={"pairs_judges": ["strict"], "seeds": [0]})).nodes
    assert "preference_pairs/strict" in nodes
    assert not [name for name in nodes if name.startswith(("stage", "agent"))]


def test_the_experiment_in_the_documentation_loads(tmp_path: Path) -> None:
    text = (EXPERIMENTS.parents[1] / "docs" / "models.md").read_text(encoding="utf-8")
    path = tmp_path / "my.yaml"
    path.write_text(text.split("```yaml\n")[1].split("```")[0])
    experiment = load_experiment(str(path))
    assert experiment.world.cases == 40
    assert list(experiment.roles()) == [
        "models.qwen3-8b",
        "models.gpt-5-mini",
        "world.emulator",
        "judges.qwen",
        "judges.gpt",
    ]


def test_the_papers_grid_is_whole(published_runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUBLISHED_RUNS", str(published_runs))
    paper = load_experiment("paper")
    assert paper.world.cases == 144
    assert len(paper.agents()) * len(paper.grid.seeds) == 180
    nodes = build_graph(paper).nodes
    assert len(nodes["stage_1/merged_models"].refs()) == 72, "what a second stage is trained from, and no more"
    assert "stage_2/merged_models" not in nodes


def test_without_the_published_cases_the_paper_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PUBLISHED_RUNS", raising=False)
    with pytest.raises(InputError, match=r"paper\.yaml.*PUBLISHED_RUNS, which is not set"):
        load_experiment("paper")
    monkeypatch.setenv("PUBLISHED_RUNS", "/nowhere")
    with pytest.raises(InputError, match=r"all_toolkits\.json"):
        load_experiment("paper")


def test_published_fidelity_fills_in_what_the_file_leaves_open(tmp_path: Path) -> None:
    sound = lm_experiment(tmp_path, pairs={"exclude_self_observed": True})
    judges = lm_world.experiment("")["judges"]
    del judges["strict"]["kind"]  # its endpoint says so
    faithful = lm_experiment(tmp_path, pairs={"exclude_self_observed": True}, fidelity="published", judges=judges)
    assert sound.agent.stop_at_observation and not faithful.agent.stop_at_observation
    assert faithful.agent.prompt_layout == "published" and not faithful.training.mask_observations
    assert faithful.pairs.exclude_self_observed and faithful.pairs.lead == "help"
    assert all(judge.view == "published" for judge in faithful.judges.values() if judge.role is not None)


@pytest.mark.parametrize(("cases", "first", "count"), [("3-8", 3, 6), ("0-11", 0, 12), (5, 0, 5)])
def test_cases_are_a_number_or_a_range(tmp_path: Path, cases: int | str, first: int, count: int) -> None:
    world = {**lm_world.experiment("")["world"], "cases": cases}
    experiment = lm_experiment(tmp_path, world=world)
    assert isinstance(experiment.world, EmulatedWorld)
    assert (experiment.world.first, experiment.world.cases) == (first, count)
    assert [case.name for case in open_world(experiment).cases] == [f"case_{n}" for n in range(first, first + count)]
    part = experiment.on_cases("1-3")
    assert part.name == "lm-cases-1-3" and part.argument.endswith("lm.yaml --cases 1-3")
    assert open_world(part).cases == open_world(experiment).cases[1:4]


@pytest.mark.parametrize("cases", ["8-3", "a-b", "3", "3-12"])
def test_a_wrong_range_of_cases_is_an_error(tmp_path: Path, cases: str) -> None:
    with pytest.raises(InputError, match=r"range of cases|there are 12"):
        lm_experiment(tmp_path, world={**lm_world.experiment("")["world"], "cases": cases})
    with pytest.raises(FrontierError, match="--cases"):
        lm_experiment(tmp_path).on_cases(cases)


@pytest.mark.parametrize(
    ("operations", "said"),
    [
        ({"timezone": "Europe/Nowhere"}, "no such time zone"),
        *(
            ({"cron": cron}, "operations.cron")
            for cron in ("hourly", "61 * * * *", "* * * * 1 *", "* * 0 * *", "*/0 * * * *", "0 0 31 2 *")
        ),
    ],
)
def test_a_schedule_that_cannot_be_is_told(operations: dict[str, str], said: str, tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({**SMALL, "operations": operations}))
    with pytest.raises(InputError, match=said):
        load_experiment(str(path))


@pytest.mark.parametrize("cron", ["*/5 * * * *", "0 22-2 * JAN mon-fri", "1-5/2,7 0 L * 7"])
def test_what_dagster_takes_for_a_schedule_is_one(cron: str) -> None:
    assert Operations(cron=cron).cron == cron


def test_a_section_with_an_endpoint_is_of_a_model_behind_it(tmp_path: Path) -> None:
    whole = lm_world.experiment("http://127.0.0.1:1/v1")
    short = {name: {k: v for k, v in model.items() if k != "kind"} for name, model in whole["models"].items()}
    assert lm_experiment(tmp_path, models=short).models == lm_experiment(tmp_path).models


@pytest.mark.parametrize(
    "endpoint",
    [{"url": "http://x/v1", "key": "sk-secret-1"}, {"url": "http://me:sk-secret-1@x/v1"}],
    ids=["key", "url"],
)
def test_a_secret_in_the_file_is_an_error_that_does_not_repeat_it(tmp_path: Path, endpoint: dict[str, str]) -> None:
    with pytest.raises(InputError, match=r"endpoints\.here") as caught:
        lm_experiment(tmp_path, endpoints={"here": endpoint})
    assert "sk-secret-1" not in str(caught.value)


def test_wrong_labels_are_an_error_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text("trajectory_id,metric,score\nabc,safe,7\n")
    with pytest.raises(InputError, match=r"people\.csv: line 2 'score'"):
        lm_experiment(tmp_path, judges={"people": {"kind": "labels", "file": "people.csv"}})
