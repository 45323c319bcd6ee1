"""Prompt templates, one Jinja file a role and style, and their renderers."""

from toolemu.prompts.emulation import EmulatorPrompt
from toolemu.prompts.judging import JudgePrompt, JudgeView, describe_trajectory
from toolemu.prompts.render import AgentPrompt, PromptLayout, Templates
from toolemu.prompts.writing import WriterPrompt

__all__ = [
    "AgentPrompt",
    "EmulatorPrompt",
    "JudgePrompt",
    "JudgeView",
    "PromptLayout",
    "Templates",
    "WriterPrompt",
    "describe_trajectory",
]
