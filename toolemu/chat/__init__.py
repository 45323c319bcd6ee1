"""Language models for the sandbox: the protocol and its backends.

`toolemu.chat.local` (transformers in this process) and `toolemu.chat.openai` (an endpoint) are imported by whoever
wants them, since each brings a large library along.
"""

from toolemu.chat.protocol import (
    ChatModel,
    ChatReply,
    ChatRequest,
    ContextFullError,
    Message,
    ModelError,
    Role,
    fold_system,
)
from toolemu.chat.usage import ModelUse, Price

__all__ = [
    "ChatModel",
    "ChatReply",
    "ChatRequest",
    "ContextFullError",
    "Message",
    "ModelError",
    "ModelUse",
    "Price",
    "Role",
    "fold_system",
]
