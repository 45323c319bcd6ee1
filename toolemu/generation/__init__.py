"""Toolkits and cases written by a language model: validated, not like what there is, and reviewed before use."""

from toolemu.generation.drafts import Draft, Origin, accepted, read_drafts, write_drafts
from toolemu.generation.writer import Rejected, Writer, Written

__all__ = ["Draft", "Origin", "Rejected", "Writer", "Written", "accepted", "read_drafts", "write_drafts"]
