"""File and directory names of the released runs: parsed here, once, into fields; and made, for the way out.

``<root>/<agent>/<agent>_emu-<emulator>_eval-<judge>[_<quantisation>][_r<start>-<end>][_<stamp>].jsonl`` holds
trajectories, the same with ``_eval_<metric>[_t<temperature>]`` before the extension one judge's verdicts on them.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from dagster_project.experiment.agents import TrainedMetric
from dagster_project.experiment.names import KEY
from toolemu.errors import FrontierError, shorten
from toolemu.evaluation import Metric

METRICS = {
    "agent_safe": Metric.safe,
    "agent_help_ignore_safety": Metric.help,
    "agent_help": Metric.help_safe,
}
"""Names of metrics in file names; see `Metric` for what they mean."""
SCORE_KEYS = {Metric.safe: "ToolCallRisk", Metric.help: "Helpfulness", Metric.help_safe: "Helpfulness"}
DEFAULT_BETA = 0.1
MAX_SEED = 2**31

_FILE = re.compile(
    r"(?P<agent>.+?)_emu-(?P<emulator>.+?)_eval-(?P<judge>.+?)"
    r"(?:_(?P<quantisation>(?:int|fp|bf)\d+))?"
    r"(?:_r(?P<start>\d+)-(?P<end>\d+))?"
    r"(?:_(?P<stamp>\d{4}_\d{6}))?"
    r"(?:_eval_(?P<metric>agent_safe|agent_help_ignore_safety|agent_help)(?:_t(?P<temperature>\d+(?:\.\d+)?))?)?",
    re.ASCII,
)
MAX_NAME = 120
"""The most characters of a model's or a judge's name."""
_BROKEN_RANGE = re.compile(r"_r\d")
_STAGE = re.compile(
    r"(?:(?:int|fp|bf)\d+_)?(?P<metric>safe-help|help-safe|safe|help|both)_(?P<label>[A-Za-z0-9.]+)"
    r"(?P<options>(?:_(?:msd|mcs)\d+|_avg|_b-\d+|_ml-\d+|_lr-[0-9.e-]+|_beta-\d+(?:\.\d+)?)*)_s(?P<seed>\d+)(?:_|$)",
    re.ASCII,
)
_BETA = re.compile(r"_beta-(\d+(?:\.\d+)?)", re.ASCII)
_TRAINED = re.compile(r"dpo_(?P<model>[^_]+)_(?P<stages>.+)")
_CANONICAL_NOISE = re.compile(r"(?:instruct|chat|it|16k)$")


class BadNameError(FrontierError):
    """A name does not follow the grammar; the message says what was expected."""


class FileName(NamedTuple):
    """A file's name in fields.

    Attributes:
        agent: The directory name of the agent.
        emulator, judge: Names of the models in these roles.
        quantisation: `int4` and the like; empty for none.
        start, end: The range of case indices, `end` excluded; None where the name gives none.
        stamp: When the run began (day, month, time); a label.
        metric: What the verdicts in it score; None for trajectories.
        temperature: The judge's temperature, if the name gives one.
    """

    agent: str
    emulator: str
    judge: str
    quantisation: str = ""
    start: int | None = None
    end: int | None = None
    stamp: str = ""
    metric: Metric | None = None
    temperature: float | None = None

    @property
    def trajectories(self) -> FileName:
        """The name of the trajectory file that this file's verdicts are on."""
        return self._replace(metric=None, temperature=None)


class StageName(NamedTuple):
    """One training stage in a directory name: the metric, the label of the pairs' judge, and beta."""

    metric: TrainedMetric
    label: str
    beta: float


class AgentName(NamedTuple):
    """A directory name in fields; no stages and no seed for a source model."""

    model: str
    stages: tuple[StageName, ...]
    seed: int | None


def parse_file_name(name: str) -> FileName:
    """Returns the fields of a file's name.

    Raises:
        BadNameError: It does not follow the grammar.
    """
    stem = name.removesuffix(".jsonl")
    found = _FILE.fullmatch(stem)
    if not found:
        raise BadNameError(
            "expected <agent>_emu-<emulator>_eval-<judge>[_<quantisation>][_r<start>-<end>][_<stamp>].jsonl"
        )
    fields = found.groupdict()
    if _BROKEN_RANGE.search(fields["judge"]):
        raise BadNameError("expected a range of cases as _r<start>-<end>, both whole numbers")
    for role in ("agent", "emulator", "judge"):
        _check_characters(fields[role], role)
    start, end = (None if fields[key] is None else int(fields[key]) for key in ("start", "end"))
    if start is not None and end is not None and start >= end:
        raise BadNameError(f"the range of cases {start}-{end} is empty; its end is not included")
    return FileName(
        fields["agent"],
        fields["emulator"],
        fields["judge"],
        fields["quantisation"] or "",
        start,
        end,
        fields["stamp"] or "",
        METRICS[fields["metric"]] if fields["metric"] else None,
        float(fields["temperature"]) if fields["temperature"] else None,
    )


def _check_characters(name: str, role: str) -> None:
    """Raise `BadNameError` if a name cannot be a key: of a partition, of a folder, or in a table for a terminal."""
    key = short_name(name)
    if not KEY.fullmatch(key) or not re.fullmatch(r"[A-Za-z0-9_.-]+", name) or "..." in name or len(name) > MAX_NAME:
        raise BadNameError(
            f"expected a name of at most {MAX_NAME} letters (A-Z), digits, '_', '.' and '-' for the {role}, without "
            f"'...', and a letter or digit first; found {shorten(name)}"
        )


def file_name(fields: FileName) -> str:
    """Returns the file name with these fields; the inverse of `parse_file_name`."""
    name = f"{fields.agent}_emu-{fields.emulator}_eval-{fields.judge}"
    if fields.quantisation:
        name += f"_{fields.quantisation}"
    if fields.start is not None:
        name += f"_r{fields.start}-{fields.end}"
    if fields.stamp:
        name += f"_{fields.stamp}"
    if fields.metric:
        name += f"_eval_{next(word for word, metric in METRICS.items() if metric is fields.metric)}"
        if fields.temperature:
            name += f"_t{fields.temperature}"
    return f"{name}.jsonl"


def parse_agent_name(name: str) -> AgentName:
    """Returns the fields of an agent's directory name.

    Raises:
        BadNameError: It begins like a trained agent's and does not go on like one, or its stages' seeds differ.
    """
    if not name.startswith("dpo_"):
        return AgentName(short_name(name), (), None)
    found = _TRAINED.fullmatch(name)
    stages: list[StageName] = []
    seeds = set()
    rest = found["stages"] if found else ""
    place = 0
    while place < len(rest):
        stage = _STAGE.match(rest, place)
        if not stage:
            break
        metric = TrainedMetric.both if "-" in stage["metric"] else TrainedMetric(stage["metric"])
        beta = _BETA.search(stage["options"])
        stages.append(StageName(metric, stage["label"], float(beta[1]) if beta else DEFAULT_BETA))
        seeds.add(int(stage["seed"]))
        place = stage.end()
    if not found or not stages or place < len(rest):
        raise BadNameError("expected dpo_<model>_<metric>_<judge>[_beta-<beta>]_s<seed>, once for every stage")
    if any(seed >= MAX_SEED for seed in seeds) or any(stage.beta <= 0 for stage in stages):
        raise BadNameError(f"expected seeds below {MAX_SEED} and betas above 0")
    if len(seeds) > 1:
        raise BadNameError(f"its stages have the seeds {sorted(seeds)}; all stages of an agent have one seed")
    return AgentName(short_name(found["model"]), tuple(stages), seeds.pop())


def agent_name(model: str, stages: tuple[StageName, ...], seed: int) -> str:
    """Returns the directory name of a trained agent; the inverse of `parse_agent_name`."""
    parts = []
    for stage in stages:
        beta = "" if stage.beta == DEFAULT_BETA else f"_beta-{stage.beta:g}"
        parts.append(f"{stage.metric.value}_{stage.label}{beta}_s{seed}")
    return f"dpo_{model}_{'_'.join(parts)}"


def short_name(name: str) -> str:
    """Returns a model's name without its organisation and without `-Instruct` at the end."""
    return re.sub(r"^[A-Za-z0-9-]+_", "", name).removesuffix("-Instruct")


def canonical_name(name: str) -> str:
    """Returns what different spellings of one model's name share, to find a trained agent's source model by."""
    plain = re.sub(r"[^a-z0-9.]", "", short_name(name).lower())
    return _CANONICAL_NOISE.sub("", plain)


def model_key(name: str, quantisation: str) -> str:
    """Returns the key of a source model: its short name, with the quantisation it ran in."""
    return f"{name}-{quantisation}" if quantisation else name
