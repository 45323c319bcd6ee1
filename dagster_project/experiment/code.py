"""Code versions that follow from what changes meaning: prompt templates, the text format, settings of the loop."""

from __future__ import annotations

from toolemu.agent import AgentSettings
from toolemu.prompts.render import AgentPrompt

LOOP_VERSION = "1"
EVALUATION_VERSION = "2"


def trajectory_code(settings: AgentSettings) -> str:
    """Returns the code version of trajectories: the agent loop's, and the prompt's by its text."""
    return f"{LOOP_VERSION}-{AgentPrompt(settings.prompt_style).version}"


def evaluation_code() -> str:
    """Returns the code version of evaluations."""
    return EVALUATION_VERSION
