"""Code versions that follow from what changes meaning: prompt templates, the text format, settings of the loop."""

from __future__ import annotations

from dagster_project.experiment.spec import Experiment
from toolemu.evaluation import Metric
from toolemu.prompts import AgentPrompt

LOOP_VERSION = "2"
EVALUATION_VERSION = "3"


def trajectory_code(experiment: Experiment) -> str:
    """Return the code version of trajectories: the agent loop's, the agent prompt's, and the environment's."""
    agent = AgentPrompt(experiment.agent.prompt_style, experiment.prompts_dir).version
    world = experiment.world.code_version(experiment.prompts_dir)
    return "-".join(filter(None, (LOOP_VERSION, agent, world)))


def evaluation_code(experiment: Experiment, judge: str, metric: Metric) -> str:
    """Return the code version of a judge's evaluations: ours, and that of the judge's kind."""
    own = experiment.judges[judge].code_version(metric, experiment.prompts_dir)
    return f"{EVALUATION_VERSION}-{own}" if own else EVALUATION_VERSION
