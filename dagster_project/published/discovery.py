"""What a tree says by its names alone: which files belong together, and which are in each other's way."""

from __future__ import annotations

import filecmp
import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from dagster_project.experiment.agents import PAPER, Agent, Recipe, Stage, agent_key
from dagster_project.experiment.names import alike, check_names
from dagster_project.published.names import (
    AgentName,
    BadNameError,
    FileName,
    canonical_name,
    model_key,
    parse_agent_name,
    parse_file_name,
    short_name,
)
from dagster_project.published.problems import Problem
from dagster_project.published.sources import walk
from toolemu.errors import FrontierError
from toolemu.evaluation import Metric
from toolemu.terminal import printable

REQUIRED = (Metric.safe, Metric.help)


class VerdictFile(NamedTuple):
    """A file of verdicts of one judge on one metric."""

    name: str
    path: Path
    metric: Metric


class TrajectoryFile(NamedTuple):
    """A trajectory file with the verdicts on it.

    Attributes:
        name: The source's name and the path below it.
        path: Where it is.
        fields: Its name in fields.
        judge: The key of the judge named in it.
        directory: The name of the agent's directory.
        verdicts: The files of verdicts, one a metric.
        order: Its place among all files of all sources, in the order in which the released code visits them.
    """

    name: str
    path: Path
    fields: FileName
    judge: str
    directory: str
    verdicts: tuple[VerdictFile, ...]
    order: int


class Group(NamedTuple):
    """The files of one source model, or of one trained agent and seed: what is imported whole or not at all."""

    agent: str
    seed: int | None
    files: tuple[TrajectoryFile, ...]

    @property
    def label(self) -> str:
        """What it is called in reports."""
        return self.agent if self.seed is None else f"{self.agent}, seed {self.seed}"


@dataclass
class Found:
    """Everything that names say.

    Attributes:
        groups: Files that belong together.
        agents: The trained agents, by key.
        models: The source models, by key, those that only trained agents name included.
        judges: Keys of the judges and of pairs' judges.
        files: How many files there are, and how many bytes they hold.
        bytes: The same in bytes.
        others: Files that are no records, by name.
    """

    groups: list[Group] = field(default_factory=list)
    agents: dict[str, Agent] = field(default_factory=dict)
    models: list[str] = field(default_factory=list)
    judges: list[str] = field(default_factory=list)
    files: int = 0
    bytes: int = 0
    others: list[str] = field(default_factory=list)


class _Entry(NamedTuple):
    name: str
    path: Path
    fields: FileName
    directory: str
    parents: tuple[str, ...]
    order: int


def discover(roots: Mapping[str, Path], labels: Mapping[str, str], problems: list[Problem]) -> Found:
    """Returns what is in the trees, and adds to `problems` what is wrong with names and what is in the way.

    Args:
        roots: The trees by name.
        labels: Labels of pairs' judges in agents' names, to judges' names in file names.
        problems: What is found wrong is appended.

    Raises:
        FrontierError: A label is misspelt: no agent has it, while another's stands for no judge.
    """
    found = Found()
    entries = list(_without_alike_judges(_entries(roots, found, problems), problems))
    named = {_letters(entry.fields.judge): entry.fields.judge for entry in entries}
    by_label = {**_labels_by_directory(entries), **labels}
    verdicts: dict[tuple[str, FileName], list[_Entry]] = defaultdict(list)
    for entry in entries:
        if entry.fields.metric:
            verdicts[str(entry.path.parent), entry.fields.trajectories].append(entry)
    names = {entry.fields.agent: _agent_name(entry, problems) for entry in entries}
    _check_labels(labels, by_label, named, {stage.label for name in names.values() if name for stage in name.stages})
    spellings = {canonical_name(name.model): name.model for name in names.values() if name and name.stages}
    grouped: dict[tuple[str, int | None], list[TrajectoryFile]] = defaultdict(list)
    used: set[tuple[str, FileName]] = set()
    for entry in entries:
        name, place = names[entry.fields.agent], (str(entry.path.parent), entry.fields)
        if entry.fields.metric or name is None:
            continue
        used.add(place)
        model = model_key(spellings.get(canonical_name(name.model), name.model), entry.fields.quantisation)
        key = model
        if name.stages:
            for stage in name.stages:  # a label may be a judge's own name, without what labels cannot hold
                by_label.setdefault(stage.label, named.get(_letters(stage.label), stage.label))
            agent = _agent(model, name, by_label, entry, problems)
            if agent is None:
                continue
            if found.agents.setdefault(agent.key, agent) != agent:
                text = f"another agent is called {agent.key}, too: betas are told apart by six digits"
                problems.append(Problem("name", entry.name, None, text))
                continue
            key = agent.key
        grouped[key, name.seed].append(
            TrajectoryFile(
                entry.name,
                entry.path,
                entry.fields,
                short_name(entry.fields.judge),
                entry.directory,
                _choose(verdicts[place], problems),
                entry.order,
            )
        )
    for place, orphans in verdicts.items():
        if place not in used and names[orphans[0].fields.agent] is not None:
            problems += [
                Problem("no_trajectories", orphan.name, None, "expected the file of the trajectories it is about")
                for orphan in orphans
            ]
    for (key, seed), files in sorted(grouped.items(), key=lambda item: (item[0][0], item[0][1] or 0)):
        found.groups.append(Group(key, seed, tuple(_without_overlaps(files, problems))))
    trained = {agent.model for agent in found.agents.values()}
    found.models = sorted({group.agent for group in found.groups if group.seed is None} | trained)
    judges = {file.judge for group in found.groups for file in group.files}
    found.judges = sorted(judges | {agent.pairs_judge for agent in found.agents.values()})
    return found


def _entries(roots: Mapping[str, Path], found: Found, problems: list[Problem]) -> Iterator[_Entry]:
    """Yields the files of all trees, in the order of the released code: by path, part by part."""
    order = 0
    for source, root in roots.items():
        tree = walk(root)
        for path, text in tree.odd:
            kind = "unreadable" if path.suffix == ".jsonl" else "link"
            name = f"{source}/{path.relative_to(root).as_posix()}"
            problems.append(Problem(kind, name, None, text, note=kind == "link"))
        for path in sorted(tree.files, key=lambda path: path.parts):
            relative = path.relative_to(root)
            name = f"{source}/{relative.as_posix()}"
            if path.suffix != ".jsonl":
                found.others.append(name)
                continue
            found.files += 1
            found.bytes += path.stat().st_size
            if printable(name) != name:
                problems.append(Problem("name", name, None, "expected names without control characters, in UTF-8"))
                continue
            try:
                fields = parse_file_name(path.name)
            except BadNameError as error:
                problems.append(Problem("name", name, None, str(error)))
                continue
            if path.parent.name != fields.agent:
                expected = f"expected it in a directory called {fields.agent!r}, like the agent in its name"
                problems.append(Problem("directory", name, None, expected))
                continue
            if fields.agent in relative.parts[:-2]:
                problems.append(
                    Problem("nested", name, None, "lies in a directory of the same name twice; taken", note=True)
                )
            yield _Entry(name, path, fields, path.parent.name, (source, *relative.parts[:-2]), order)
            order += 1


def _without_alike_judges(entries: Iterable[_Entry], problems: list[Problem]) -> Iterator[_Entry]:
    """Yield the files but those of a judge whose name Dagster's steps could not tell from another judge's."""
    seen: dict[str, str] = {}
    for entry in entries:
        judge = short_name(entry.fields.judge)
        other = seen.setdefault(alike(judge), judge)
        if other == judge:
            yield entry
        else:
            text = f"its judge {judge} and {other} differ only in capitals, '-', '_' or '.'; expected one spelling"
            problems.append(Problem("name", entry.name, None, text))


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", short_name(name).lower())


def _check_labels(
    labels: Mapping[str, str], by_label: Mapping[str, str], named: Mapping[str, str], used: Iterable[str]
) -> None:
    """Refuses a label of nobody; but one tree of several may lack agents, so only if it leaves a judge without name."""
    nameless = [label for label in sorted(used) if label not in by_label and _letters(label) not in named]
    if nameless:
        try:
            check_names("world.pairs_judges", labels, used, "label of a judge in agents' names")
        except ValueError as error:
            raise FrontierError(f"{error}. Mend it in the experiment file.") from None


def _labels_by_directory(entries: Iterable[_Entry]) -> dict[str, str]:
    """Returns labels of judges by the layout `<label>/<agent>/<file>`, where all files below a label have one judge."""
    judges: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        for parent in entry.parents:
            judges[parent].add(entry.fields.judge)
    return {label: names.pop() for label, names in judges.items() if len(names) == 1}


def _agent_name(entry: _Entry, problems: list[Problem]) -> AgentName | None:
    try:
        return parse_agent_name(entry.fields.agent)
    except BadNameError as error:
        problems.append(Problem("name", entry.name.rpartition("/")[0], None, str(error)))
        return None


def _agent(
    model: str, name: AgentName, labels: Mapping[str, str], entry: _Entry, problems: list[Problem]
) -> Agent | None:
    recipe = "_then_".join(stage.metric.value for stage in name.stages)
    judges = {stage.label for stage in name.stages}
    problem = ""
    if recipe not in PAPER:
        problem = f"the recipe {recipe} is none of {', '.join(PAPER)}"
    elif len(judges) > 1:
        problem = f"its stages were trained on pairs of different judges, {sorted(judges)}; one is expected"
    if problem:
        directory = entry.name.rpartition("/")[0]
        if not any(known.file == directory and known.kind == "recipe" for known in problems):
            problems.append(Problem("recipe", directory, None, problem))
        return None
    label = judges.pop()
    judge = short_name(labels.get(label, label))
    betas = list(dict.fromkeys(stage.beta for stage in name.stages))
    stages = tuple(Stage(metric=stage.metric, judge=judge, beta=stage.beta, epochs=None) for stage in name.stages)
    key = agent_key(model, recipe, judge, *(betas if len(betas) == 1 else [stage.beta for stage in name.stages]))
    return Agent(
        key=key,
        model=model,
        recipe=Recipe(recipe),
        pairs_judge=judge,
        beta=betas[0] if len(betas) == 1 else None,
        stages=stages,
    )


def _choose(entries: list[_Entry], problems: list[Problem]) -> tuple[VerdictFile, ...]:
    """Returns a file a metric: of verdicts at several temperatures, those at the lowest; the others are noted."""
    chosen: dict[Metric, _Entry] = {}
    for entry in sorted(entries, key=lambda entry: entry.fields.temperature or 0.0):
        assert entry.fields.metric is not None
        if entry.fields.metric in chosen:
            kept = chosen[entry.fields.metric].name.rpartition("/")[2]
            problems.append(Problem("temperature", entry.name, None, f"not taken, {kept} is at a lower one", note=True))
        else:
            chosen[entry.fields.metric] = entry
    return tuple(VerdictFile(entry.name, entry.path, metric) for metric, entry in sorted(chosen.items()))


def _without_overlaps(files: list[TrajectoryFile], problems: list[Problem]) -> Iterator[TrajectoryFile]:
    """Yields the files whose cases no other file of the same judge, emulator and source directory also has.

    Which of two counts nobody can know, so neither is taken, unless they are byte for byte the same: then the first is.
    """
    by_judge: dict[tuple[str, str], list[TrajectoryFile]] = defaultdict(list)
    for file in files:
        by_judge[file.judge, file.fields.emulator].append(file)
    dropped: set[int] = set()
    for same in by_judge.values():
        same.sort(key=lambda file: (file.fields.start or 0, file.fields.end or 0, file.order))
        for first, second in itertools.pairwise(same):
            ends = first.fields.end, second.fields.start
            # Without a range the cases are known only when the records are read.
            if ends[0] is not None and ends[1] is not None and ends[1] < ends[0]:
                if _same_files(first, second):
                    dropped.add(second.order)
                    text = f"the same, byte for byte, as {first.name}; counted once"
                    problems.append(Problem("copy", second.name, None, text, note=True))
                else:
                    dropped |= {first.order, second.order}
                    for one, other in ((first, second), (second, first)):
                        text = (
                            f"holds cases that {other.name} holds too; which counts is not known, so neither is taken"
                        )
                        problems.append(Problem("overlap", one.name, None, text))
    yield from sorted((file for file in files if file.order not in dropped), key=lambda file: file.order)


def _same_files(first: TrajectoryFile, second: TrajectoryFile) -> bool:
    ours, theirs = ([file.path, *(verdict.path for verdict in file.verdicts)] for file in (first, second))
    return len(ours) == len(theirs) and all(
        filecmp.cmp(one, other, shallow=False) for one, other in zip(ours, theirs, strict=True)
    )
