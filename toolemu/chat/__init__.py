"""Language models for the sandbox: the protocol and its backends."""

from toolemu.chat.protocol import ChatModel, ChatReply, ChatRequest, ContextFullError, Message, ModelError, Role

__all__ = ["ChatModel", "ChatReply", "ChatRequest", "ContextFullError", "Message", "ModelError", "Role"]
