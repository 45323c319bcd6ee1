"""What an agent is trained with, as a file: it changes exactly when that agent's own recipe or parameters do."""

from __future__ import annotations

from pathlib import Path

import orjson

from dagster_project.experiment.agents import Agent
from dagster_project.experiment.graph import agent_spec
from dagster_project.experiment.spec import Experiment

SPEC = "spec.json"


def write_spec(folder: Path, experiment: Experiment, agent: Agent) -> None:
    """Writes an agent's specification into a folder."""
    spec = {
        "agent": agent.key,
        "model": agent.model,
        "recipe": agent.recipe.value,
        "pairs_judge": agent.pairs_judge,
        "beta": agent.beta,
        **agent_spec(experiment, agent),
    }
    (folder / SPEC).write_bytes(orjson.dumps(spec, option=orjson.OPT_INDENT_2))
