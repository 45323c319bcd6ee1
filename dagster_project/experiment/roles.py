"""A language model in a role of the experiment file: the emulator, a judge. Agents are plain models."""

from __future__ import annotations

from toolemu.chat.settings import OpenAIModelSettings


class Role(OpenAIModelSettings):
    """A model in a role that has a temperature and a limit of its own."""

    def chat(self) -> OpenAIModelSettings:
        """Returns the model without what is the role's."""
        values = {name: getattr(self, name) for name in OpenAIModelSettings.model_fields}
        return OpenAIModelSettings(**{**values, "kind": "openai", "temperature": None})
