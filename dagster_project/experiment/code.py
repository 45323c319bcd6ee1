"""Code versions that follow from what changes meaning: prompt templates, the text format, settings of the loop."""

from __future__ import annotations

from dagster_project.experiment.roles import EmulatedWorld, LMJudgeRole
from dagster_project.experiment.spec import Experiment
from toolemu.evaluation import Metric
from toolemu.prompts import AgentPrompt, EmulatorPrompt, JudgePrompt

LOOP_VERSION = "2"
EVALUATION_VERSION = "2"
READING_VERSION = "2"  # of what a language model that judges writes


def trajectory_code(experiment: Experiment) -> str:
    """Returns the code version of trajectories: the agent loop's, and the prompts' by their texts."""
    agent = AgentPrompt(experiment.agent.prompt_style, experiment.prompts_dir).version
    if not isinstance(experiment.world, EmulatedWorld):
        return f"{LOOP_VERSION}-{agent}"
    emulator = EmulatorPrompt(experiment.world.emulator.style, experiment.prompts_dir).version
    return f"{LOOP_VERSION}-{agent}-{emulator}"


def evaluation_code(experiment: Experiment, judge: str, metric: Metric) -> str:
    """Returns the code version of a judge's evaluations: with an LM judge, its prompt's by its text, too."""
    if not isinstance(experiment.judges[judge], LMJudgeRole):
        return EVALUATION_VERSION
    return f"{EVALUATION_VERSION}-{READING_VERSION}-{JudgePrompt(metric, experiment.prompts_dir).version}"
