"""Results of a world whose every text tries to be more than text, and its page."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from dagster_project.experiment.agents import Recipe
from dagster_project.experiment.sections import Statistics
from dagster_project.experiment.spec import Experiment
from dagster_project.report.page import PAGE, write_page
from dagster_project.report.page.data import load_tables
from dagster_project.report.transcript_files import FOLDER, Source, write_transcripts
from dagster_project.results.agreement import agreement_tables
from dagster_project.results.audits import audit_tables
from dagster_project.results.claims import claims
from dagster_project.results.frontier import frontier
from dagster_project.results.persistence import persistence
from dagster_project.results.scores import agent_scores, load_agents, load_scores
from tests.conftest import SMALL
from tests.results.tiny import SPLITS, Trained, Verdict, build
from toolemu.cases import Case
from toolemu.evaluation import Evaluation, Metric
from toolemu.jsonl import write_jsonl
from toolemu.trajectory import ObservationSource, Step, StopReason, Trajectory

EVIL = "</script><img src=x onerror=\"window.hacked='yes'\"><b>\x1b[2J\u202egnirts\u2028{{7*7}} '\"&amp;"
FORMULA = '=HYPERLINK("http://evil")'
MODEL = f"m{EVIL}"
JUDGES = (f"a{EVIL}", "b")
LONG = 10_000_000
RECIPES = {Recipe.safe: (3, 0), Recipe.help: (0, 3), Recipe.both: (2, 2), Recipe.safe_then_help: (2, 1)}
AGENTS = [Trained(MODEL, recipe, JUDGES[0]) for recipe in RECIPES]
EXPERIMENT = Experiment.model_validate({**SMALL, "statistics": {"n_bootstrap": 50}})


class World(NamedTuple):
    """A page, its tables, and the trained agents in it."""

    page: Path
    tables: dict[str, pd.DataFrame]


def make_world(directory: Path) -> World:
    """Writes a hostile page with its transcripts below `directory`."""
    warehouse = build(directory / "w.duckdb", AGENTS, _verdicts(), models=[MODEL])
    paths = []
    for name, table in result_tables(warehouse).items():
        paths.append(directory / f"{name}.parquet")
        table.to_parquet(paths[-1], index=False)
    tables = load_tables(warehouse, paths, EXPERIMENT.statistics)
    site = directory / "site"
    (site / FOLDER).mkdir(parents=True)
    write_transcripts(_sources(directory / "records"), site / FOLDER)
    cases = {index: _case(FORMULA if index == 0 else EVIL) for index in range(4)}
    write_page(site / PAGE, EXPERIMENT, tables, cases, "http://localhost:3000")
    return World(site / PAGE, tables)


def result_tables(warehouse: Path) -> dict[str, pd.DataFrame]:
    """Returns what the result assets hold, computed by the same functions."""
    scores, agents, statistics = load_scores(warehouse), load_agents(warehouse), Statistics(n_bootstrap=50)
    tables = frontier(scores, agents, statistics).tables()
    tables |= {**persistence(scores, agents, statistics).tables(), "agent_scores": agent_scores(scores, agents)}
    tables |= agreement_tables(warehouse, statistics) | audit_tables(warehouse, agents, EXPERIMENT)
    return {**tables, **claims(tables, toy=True)}


def _places(agent: str) -> list[tuple[int | None, int]]:
    if agent == MODEL:
        return [(None, case) for case in range(4)]
    return [(seed, case) for seed, cases in SPLITS.items() for case in cases]


def _scores(agent: str) -> tuple[float, float]:
    return next((RECIPES[made.recipe] for made in AGENTS if made.key == agent), (1, 1))


def _names() -> list[str]:
    return [MODEL, *(agent.key for agent in AGENTS)]


def _verdicts() -> list[Verdict]:
    return [
        Verdict(agent, seed, case, score, judge, metric)
        for agent in _names()
        for seed, case in _places(agent)
        for judge in JUDGES
        for metric, score in zip(("safe", "help"), _scores(agent), strict=True)
    ]


def _sources(directory: Path) -> list[Source]:
    found = []
    for agent in _names():
        for seed in [None] if agent == MODEL else list(SPLITS):
            folder = directory / str(len(found))
            folder.mkdir(parents=True)
            cases = [case for own, case in _places(agent) if own == seed]
            write_jsonl(folder / "trajectories.jsonl", [trajectory(agent, seed, case) for case in cases])
            verdicts = [verdict(agent, seed, case, judge) for case in cases for judge in JUDGES]
            write_jsonl(folder / "evaluations.jsonl", verdicts)
            found.append(Source(agent, seed, folder / "trajectories.jsonl", (folder / "evaluations.jsonl",)))
    return found


def trajectory(agent: str, seed: int | None, case: int) -> Trajectory:
    """Returns a trajectory full of hostile text; case 3 of the source model has a very long line, too."""
    log = f"Thought: {EVIL}\nAction: Tool\nAction Input: {{}}\nObservation: invented {EVIL}\nThought: go on {case}"
    end = "x" * LONG if (agent, case) == (MODEL, 3) else f"Final Answer: done {case}"
    step = Step(
        log=log,
        tool="Tool",
        tool_input="{}",
        observation=EVIL,
        observation_source=ObservationSource.emulator,
        self_observed=True,
    )
    return Trajectory(
        trajectory_id=f"{agent}/{seed}/{case}/0",
        experiment="small",
        agent=agent,
        seed=seed,
        case_idx=case,
        sample=0,
        user_input=f"case {case} {EVIL}",
        steps=(step,),
        output="done",
        final_log=end,
        stop_reason=StopReason.final_answer,
        emulator=EVIL,
    )


def verdict(agent: str, seed: int | None, case: int, judge: str) -> Evaluation:
    """Returns a verdict with hostile reasons."""
    return Evaluation(
        trajectory_id=f"{agent}/{seed}/{case}/0",
        agent=agent,
        seed=seed,
        case_idx=case,
        sample=0,
        judge=judge,
        metric=Metric.safe,
        score=_scores(agent)[0],
        label=EVIL,
        thought=EVIL,
        parsed_by="rules",
    )


def _case(instruction: str) -> Case:
    return Case.model_validate(
        {
            "name": EVIL,
            "Toolkits": [EVIL],
            "User Instruction": instruction,
            "Underspecifications": {"Task Information": [EVIL], "Safety & Security Constraints": []},
            "Expected Achievements": [EVIL],
            "Potential Risky Outcomes": [EVIL],
            "Potential Risky Actions": [EVIL],
        }
    )
