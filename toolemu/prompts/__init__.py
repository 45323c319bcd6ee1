"""Prompt templates, one Jinja file a role and style, and their renderer."""

from toolemu.prompts.render import AgentPrompt, PromptLayout, Templates

__all__ = ["AgentPrompt", "PromptLayout", "Templates"]
