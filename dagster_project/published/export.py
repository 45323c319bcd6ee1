"""The way out: preference pairs with texts, ready for TRL, and runs in the released format."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import orjson

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.artifacts.files import write_atomically
from dagster_project.collect.files import EVALUATIONS, TRAJECTORIES
from dagster_project.collect.world import open_cases
from dagster_project.experiment.agents import PAPER_METRICS, TrainedMetric
from dagster_project.experiment.graph import IMPORT, Graph
from dagster_project.experiment.nodes import Kind, Node, Side
from dagster_project.experiment.splits import split_cases
from dagster_project.preferences.pairs import Candidates, Selected, gather_candidates, is_left_out, select_pairs
from dagster_project.published.conversations import Message, published_conversation
from dagster_project.published.importer import RECORDS
from dagster_project.published.names import (
    MAX_NAME,
    BadNameError,
    FileName,
    StageName,
    agent_name,
    file_name,
    parse_file_name,
)
from dagster_project.published.records import write_evaluation, write_trajectory
from toolemu import chat
from toolemu.cases import Case
from toolemu.errors import FrontierError
from toolemu.evaluation import Evaluation, Metric
from toolemu.jsonl import read_jsonl
from toolemu.prompts import AgentPrompt
from toolemu.toolkits import Toolkit
from toolemu.trajectory import Trajectory

SAMPLE = "sample_"
"""How the folders of an export begin that hold a sample each."""
UNNAMED = "agents left out that have no name in that format (mixtures, variants, either, one's own)"


class ExportedPairs(NamedTuple):
    """Pairs in the released code's order, with where their trajectories stand in the released files.

    Attributes:
        candidates: All trajectories with scores, in the order in which the released code visits them.
        selected: Which of them make pairs.
        files: The released file of every candidate; its id where it was not imported.
    """

    candidates: Candidates
    selected: Selected
    files: list[str]


def export_pairs(
    graph: Graph,
    store: ArtifactStore,
    judge: str,
    metric: TrainedMetric,
    cases: Collection[int],
    trajectories: Mapping[str, Trajectory],
    seed: int = 0,
) -> ExportedPairs:
    """Returns the pairs of an experiment over `cases`, by its rules (`pairs` in its file), in the released order.

    Args:
        graph: The experiment's.
        store: Where its verdicts are.
        judge: Whose scores decide.
        metric: What the pairs are to train.
        cases: Other cases are left alone.
        trajectories: Of `source_trajectories`: some are left out by the rules.
        seed: Decides what rules leave to chance.

    Raises:
        FrontierError: There is no such judge, or none of its verdicts.
    """
    experiment = graph.experiment
    evaluations: dict[Metric, list[Evaluation]] = {}
    for part in metric.judged:
        nodes = graph.find(Kind.evaluations, side=Side.source, judge=judge, metric=part)
        refs = [ref for node in nodes for ref in node.refs()]
        if not refs:
            judges = ", ".join(experiment.judges) or "none"
            raise FrontierError(f"{experiment.name} has no verdicts of {judge!r} on source models. Judges: {judges}.")
        evaluations[part] = [
            verdict for ref in sorted(refs) for verdict in read_jsonl(store.get(ref).path / EVALUATIONS, Evaluation)
        ]
    excluded = {identity for identity, one in trajectories.items() if is_left_out(one, experiment.pairs)}
    candidates, _ = gather_candidates(evaluations, metric, cases, experiment.pairs, excluded)
    places = _places(store, judge) if experiment.imports else {}
    order = sorted(range(len(candidates.ids)), key=lambda row: places.get(candidates.ids[row], (0, row, ""))[:2])
    candidates = Candidates(
        [candidates.ids[row] for row in order],
        [candidates.models[row] for row in order],
        candidates.cases[order],
        candidates.scores[order],
    )
    files = [places[identity][2] if identity in places else identity for identity in candidates.ids]
    return ExportedPairs(candidates, select_pairs(candidates, metric, experiment.pairs, seed), files)


def _places(store: ArtifactStore, judge: str) -> dict[str, tuple[int, int, str]]:
    path = store.get(Ref(IMPORT)).path / RECORDS
    with duckdb.connect() as database:
        rows = database.execute(
            'SELECT trajectory_id, "order", line, file FROM read_parquet($path) WHERE judge = $judge',
            {"path": str(path), "judge": judge},
        ).fetchall()
    return {identity: (order, line, file.rpartition("/")[2]) for identity, order, line, file in rows}


def pair_records(
    pairs: ExportedPairs,
    trajectories: Mapping[str, Trajectory],
    cases: Mapping[int, Case],
    toolkits: Mapping[str, Toolkit],
    prompt: AgentPrompt,
    *,
    released: bool,
) -> Iterator[dict[str, Any]]:
    """Yields every pair as a record with texts: `prompt`, `chosen`, `rejected` as messages, and what it is about.

    Args:
        pairs: Of `export_pairs`.
        trajectories: By id.
        cases: By index.
        toolkits: By name, for the prompt.
        prompt: How the agent is asked.
        released: Whether conversations are as the released code made them; else they are what our training sees.

    Raises:
        FrontierError: A case asks for a toolkit that is not given.
    """
    candidates, selected, files = pairs
    prompts: dict[int, list[Message]] = {}
    conversations: dict[str, list[Message]] = {}
    rows = zip(
        selected.chosen.tolist(),
        selected.rejected.tolist(),
        selected.chosen_scores.tolist(),
        selected.rejected_scores.tolist(),
        selected.decided_by,
        strict=True,
    )
    for chosen, rejected, high, low, decided_by in rows:
        case = int(candidates.cases[chosen])
        if case not in prompts:
            missing = [name for name in cases[case].toolkits if name not in toolkits]
            if missing:
                raise FrontierError(f"case {case} asks for the toolkit {missing[0]!r}; give its file with --toolkits.")
            asked = prompt.messages(cases[case], [toolkits[name] for name in cases[case].toolkits])
            prompts[case] = as_dicts(asked)
        for identity in (candidates.ids[chosen], candidates.ids[rejected]):
            if identity not in conversations:
                trajectory = trajectories[identity]
                given = [toolkits[name] for name in cases[case].toolkits]
                conversations[identity] = (
                    published_conversation(trajectory)
                    if released
                    else as_dicts(prompt.conversation(cases[case], given, trajectory).completion)
                )
        yield {
            "prompt": prompts[case],
            "chosen": conversations[candidates.ids[chosen]],
            "rejected": conversations[candidates.ids[rejected]],
            "case_idx": case,
            "chosen_score": high,
            "rejected_score": low,
            "chosen_model": candidates.models[chosen],
            "rejected_model": candidates.models[rejected],
            "chosen_file": files[chosen],
            "rejected_file": files[rejected],
            "score_difference": high - low,
            **({"decided_by": decided_by.value} if decided_by else {}),
        }


def as_dicts(messages: Iterable[chat.Message]) -> list[Message]:
    """Returns messages as TRL reads them."""
    return [{"role": message.role, "content": message.content} for message in messages]


def source_trajectories(graph: Graph, store: ArtifactStore) -> dict[str, Trajectory]:
    """Returns the source models' trajectories by id."""
    refs = [ref for node in graph.find(Kind.trajectories, side=Side.source) for ref in node.refs()]
    found = (record for ref in refs for record in read_jsonl(store.get(ref).path / TRAJECTORIES, Trajectory))
    return {trajectory.trajectory_id: trajectory for trajectory in found}


def write_lines(path: Path, records: Iterator[dict[str, Any]]) -> int:
    """Writes records as JSON lines, the file replaced whole, and returns their number."""
    lines = [orjson.dumps(record) for record in records]
    write_atomically(path, b"".join(line + b"\n" for line in lines))
    return len(lines)


def export_runs(graph: Graph, store: ArtifactStore, out: Path) -> dict[str, int]:
    """Writes an experiment's trajectories and evaluations below `out` in the released format.

    One tree for each sample of a case (`sample_<n>`, where there are several), since the format knows one trajectory
    for an agent, a judge and a case. Returns the number of files and records, and of agents that the format has no
    name for, which are left out.

    Raises:
        FrontierError: Something is missing, or `out` is a file or holds files already.
    """
    if out.exists() and not out.is_dir():
        raise FrontierError(f"{out} is a file; name a folder, which need not exist.")
    if out.exists() and any(out.iterdir()):
        raise FrontierError(f"{out} is not empty; name another folder, so that nothing mixes.")
    experiment = graph.experiment
    cases = {index: _released_case(case) for index, case in open_cases(experiment, store).items()}
    counts = {"files": 0, "records": 0}
    unnamed = set()
    for node in graph.find(Kind.trajectories):
        for ref in node.refs():
            directory = _directory(graph, ref)
            if directory is None:
                unnamed.add(ref.key("agent"))
                continue
            trajectories = read_jsonl(store.get(ref).path / TRAJECTORIES, Trajectory)
            for judge in experiment.judges:
                verdicts = _verdicts(graph, store, node, judge, ref)
                for number, kept in enumerate(_trees(trajectories, verdicts)):
                    _write_agent(
                        out / f"{SAMPLE}{number}" / directory,
                        directory,
                        judge,
                        kept,
                        verdicts,
                        cases,
                        experiment.world.cases,
                        counts,
                    )
    if unnamed:
        counts[UNNAMED] = len(unnamed)
    made = list(out.iterdir()) if out.exists() else []
    if len(made) == 1:
        for path in list(made[0].iterdir()):
            path.rename(out / path.name)
        made[0].rmdir()
    return counts


def _trees(
    trajectories: Sequence[Trajectory], verdicts: Mapping[Metric, Mapping[str, list[Evaluation]]]
) -> list[list[Trajectory]]:
    """Returns the trajectories that one judge scored: the first of every case, the second, and so on."""
    trees: list[list[Trajectory]] = []
    seen: Counter[int] = Counter()
    for trajectory in sorted(trajectories, key=lambda trajectory: (trajectory.case_idx, trajectory.sample)):
        if any(trajectory.trajectory_id in scored for scored in verdicts.values()):
            number = seen[trajectory.case_idx]
            seen[trajectory.case_idx] += 1
            if number == len(trees):
                trees.append([])
            trees[number].append(trajectory)
    return trees


def _released_case(case: Case) -> dict[str, Any]:
    record = case.model_dump(mode="json", by_alias=True)
    record.pop("Rules", None)  # the released format has no such key
    return record


def _directory(graph: Graph, ref: Ref) -> str | None:
    """Return the folder of an agent, None if it is none that the released code could have trained."""
    if ref.seed is None:
        return _plain(ref.key("model"))
    agent = graph.agent(ref)
    if not agent.stages or agent.recipe.variant or {stage.metric for stage in agent.stages} - set(PAPER_METRICS):
        return None
    stages = tuple(StageName(stage.metric, _plain(stage.judge, "."), stage.beta) for stage in agent.stages)
    return agent_name(_plain(agent.model), stages, ref.seed)


def _plain(name: str, dash: str = "-") -> str:
    """Returns a name without what the grammar of names reserves."""
    return name.replace("_", "-").replace("-", dash)


def emulator_name(model: str) -> str:
    """Return an emulator's name for a file's name: the model's where the grammar can hold it, else what is left."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", model)[:MAX_NAME].replace("...", "-").strip("_.-") or "none"
    fields = FileName("agent", name, "judge", start=0, end=1)
    try:
        same = parse_file_name(file_name(fields)) == fields
    except BadNameError:
        same = False
    return name if same else _plain(name)


def _verdicts(
    graph: Graph, store: ArtifactStore, node: Node, judge: str, ref: Ref
) -> dict[Metric, dict[str, list[Evaluation]]]:
    found: dict[Metric, dict[str, list[Evaluation]]] = {}
    for judged in graph.find(Kind.evaluations, side=node.side, judge=judge):
        source, metric = Ref(judged.name, ref.partition), judged.metric
        if source not in graph.refs or metric is None:
            continue
        by_trajectory: dict[str, list[Evaluation]] = {}
        for verdict in read_jsonl(store.get(source).path / EVALUATIONS, Evaluation):
            by_trajectory.setdefault(verdict.trajectory_id, []).append(verdict)
        found[metric] = by_trajectory
    return found


def _write_agent(
    folder: Path,
    directory: str,
    judge: str,
    trajectories: Sequence[Trajectory],
    verdicts: Mapping[Metric, Mapping[str, list[Evaluation]]],
    cases: Mapping[int, dict[str, Any]],
    n_cases: int,
    counts: dict[str, int],
) -> None:
    emulator = emulator_name(trajectories[0].emulator)
    fields = FileName(directory, emulator, _plain(judge), start=0, end=n_cases, stamp="0101_000000")
    records = [write_trajectory(trajectory, cases[trajectory.case_idx]) for trajectory in trajectories]
    counts["records"] += write_lines(folder / file_name(fields), iter(records))
    counts["files"] += 1
    for metric, by_trajectory in verdicts.items():
        lines = [
            write_evaluation(by_trajectory[trajectory.trajectory_id], line)
            for line, trajectory in enumerate(trajectories)
        ]
        counts["records"] += write_lines(folder / file_name(fields._replace(metric=metric)), iter(lines))
        counts["files"] += 1


def pair_cases(n_cases: int, seed: int | None) -> Collection[int]:
    """Returns the cases to build pairs of: the training half of a seed, or all."""
    return range(n_cases) if seed is None else split_cases(n_cases, seed).train
