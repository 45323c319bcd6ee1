"""A training as a file: what to train on what, how, and where to. All that a process of its own needs to know."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import orjson
from pydantic import BaseModel, ConfigDict, Field

from dagster_project.experiment.training import Trainer, Training
from dagster_project.experiment.yaml_reader import read_yaml
from toolemu.chat import Message
from toolemu.errors import InputError, validate_record
from toolemu.jsonl import iter_jsonl

Messages = Annotated[tuple[Message, ...], Field(min_length=1)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ConversationRecord(_Record):
    """One trajectory as messages: what the agent was asked, and everything after it."""

    id: str
    prompt: Messages
    completion: tuple[Message, ...]


class TrainingJob(_Record):
    """One training of one adapter.

    A pair file holds a pair a line, in one of two forms: `chosen` and `rejected` as ids of conversations in the file
    `conversations`, so that no text is there twice; or, without such a file, `prompt`, `chosen` and `rejected` as
    lists of messages, as TRL has them. Other fields of a line are left alone.
    """

    base: Path = Field(description="Folder of the base's weights and tokenizer.")
    base_label: str = Field("", description="What the adapter calls its base; empty: the folder's name.")
    base_sha256: str = Field("", description="A hash of the base; empty: computed from its files where needed.")
    base_hub: str = Field("", description="The base's name on the hub, for the model card; empty: it is not there.")
    base_commit: str = Field("", description="The base's commit there.")
    pairs: Path = Field(description="The pair file, JSON lines.")
    conversations: Path | None = Field(None, description="The conversations that pairs name, JSON lines.")
    out: Path = Field(description="Folder for the adapter.")
    work: Path | None = Field(None, description="Folder for checkpoints and results; null: <out>.work beside it.")
    references: Path | None = Field(
        None, description="Folder of stored reference log-probabilities, shared among trainings; null: none are kept."
    )
    tracking: Path | None = Field(None, description="Folder for TensorBoard's files; null: in `work`.")
    name: str = Field("", description="The training's name, for trackers and model cards.")
    chat_template: dict[str, Any] = Field(
        {}, description="Arguments of the chat template, the same that the agent's requests have."
    )
    beta: float = Field(0.1, gt=0, description="DPO's beta.")
    epochs: float = Field(1, gt=0, description="Passes over the pairs, unless training.max_steps is given.")
    seed: int = Field(0, description="The seed, unless training.seed is given.")
    training: Training = Training()
    trainer: Trainer = Trainer()
    lineage: dict[str, Any] = Field({}, description="For the model card: what this was made from.")

    @property
    def workspace(self) -> Path:
        """Folder for unfinished work."""
        return self.work or self.out.with_name(f"{self.out.name}.work")

    @property
    def label(self) -> str:
        """What the adapter calls its base."""
        return self.base_label or self.base.name


def read_job(path: Path) -> TrainingJob:
    """Return the job in a YAML or JSON file; paths in it are relative to its folder.

    Raises:
        InputError: No such file, not YAML, or a wrong field.
    """
    value = read_yaml(path)
    if isinstance(value, dict):
        names = ("base", "pairs", "conversations", "out", "work", "references", "tracking")
        value |= {name: path.parent / value[name] for name in names if isinstance(value.get(name), str)}
    return validate_record(TrainingJob, value, path, "", "The fields are those of TrainingJob in training/job.py.")


def write_job(job: TrainingJob, path: Path) -> None:
    """Writes a job for `read_job`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(job.model_dump(mode="json"), option=orjson.OPT_INDENT_2))


class _Named(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    chosen: str
    rejected: str


class _Spelled(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    prompt: Messages
    chosen: Messages
    rejected: Messages


class NamedPair(_Record):
    """A pair by the ids of its conversations."""

    chosen: str
    rejected: str


class PairFile(NamedTuple):
    """What a pair file holds: each distinct conversation once, by id, and the pairs in the file's order."""

    conversations: dict[str, ConversationRecord]
    pairs: list[NamedPair]


def read_pairs(job: TrainingJob) -> PairFile:
    """Returns a job's pairs and the conversations they are of.

    Raises:
        InputError: A field is missing or wrong, a conversation is not there or there twice, what follows a prompt does
            not begin with the agent, or the two sides' prompts differ.
    """
    for path in filter(None, (job.pairs, job.conversations)):
        if not path.is_file():
            raise InputError(path, "", "there is no such file.", "It is named by the training job.")
    if job.conversations is None:
        return _spelled(job.pairs)
    known: dict[str, ConversationRecord] = {}
    for number, record in enumerate(iter_jsonl(job.conversations, ConversationRecord), 1):
        _check_beginning(record.completion, job.conversations, f"line {number} 'completion'")
        if known.setdefault(record.id, record) != record:
            raise InputError(job.conversations, f"line {number}", f"another conversation has the id {record.id!r}.")
    pairs = [NamedPair(chosen=pair.chosen, rejected=pair.rejected) for pair in iter_jsonl(job.pairs, _Named)]
    for number, pair in enumerate(pairs, 1):
        missing = [side for side in (pair.chosen, pair.rejected) if side not in known]
        if missing:
            raise InputError(job.pairs, f"line {number}", f"{missing[0]!r} is not in {job.conversations}.")
        if known[pair.chosen].prompt != known[pair.rejected].prompt:
            raise InputError(job.pairs, f"line {number}", "its two conversations do not begin with the same prompt.")
    return PairFile(known, pairs)


def _spelled(path: Path) -> PairFile:
    known: dict[str, ConversationRecord] = {}

    def identity(prompt: Sequence[Message], completion: Sequence[Message]) -> str:
        found = hashlib.sha256(orjson.dumps([prompt, completion], default=list)).hexdigest()[:16]
        known.setdefault(found, ConversationRecord(id=found, prompt=tuple(prompt), completion=tuple(completion)))
        return found

    pairs = []
    for number, pair in enumerate(iter_jsonl(path, _Spelled), 1):
        _check_beginning(pair.chosen, path, f"line {number} 'chosen'")
        _check_beginning(pair.rejected, path, f"line {number} 'rejected'")
        pairs.append(
            NamedPair(chosen=identity(pair.prompt, pair.chosen), rejected=identity(pair.prompt, pair.rejected))
        )
    return PairFile(known, pairs)


def _check_beginning(completion: Sequence[Message], path: Path, place: str) -> None:
    if completion and completion[0].role != "assistant":
        raise InputError(
            path,
            place,
            f"begins with a turn of the {completion[0].role}'s, not of the agent's (assistant).",
            "What comes before the agent's first turn belongs into the prompt.",
        )
