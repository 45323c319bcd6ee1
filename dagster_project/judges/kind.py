"""The base of all kinds of judges: the questions that the rest of the program asks of a judge."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict

from dagster_project.kinds import PYTHON, source_version
from toolemu.chat import ChatModel, ChatRequest
from toolemu.chat.settings import OpenAIModelSettings
from toolemu.evaluation import Evaluation, Metric
from toolemu.judge import Judge
from toolemu.prompts import JudgePrompt
from toolemu.toolkits import Toolkit
from toolemu.trajectory import Trajectory


class JudgeWorld(NamedTuple):
    """What a judge can use while it is open.

    Attributes:
        toolkits: All toolkits that cases may name.
        prompts_dir: Templates that replace the shipped ones; None for none.
        chat: Opens a model behind an endpoint: its settings, its name, and how often to look for a batch, in seconds
            (None: requests are asked one by one). Its replies are kept, and its tokens counted.
    """

    toolkits: Mapping[str, Toolkit]
    prompts_dir: Path | None
    chat: Callable[[OpenAIModelSettings, str, float | None], ChatModel]


class JudgeKind(BaseModel):
    """One kind of judge. Derive from it, add fields, and override what differs.

    Attributes:
        expensive: Whether verdicts are made again only when asked to.
        drifts: Whether the judge may score differently at another time, so that it is asked again for every seed.
        world: The kind of environment that the judge knows; None for any.
        kind: The word in the experiment file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    expensive: ClassVar[bool] = True
    drifts: ClassVar[bool] = False
    world: ClassVar[str | None] = None

    kind: str

    @property
    def role(self) -> OpenAIModelSettings | None:
        """The model behind an endpoint that it asks; None if it asks none."""
        return None

    @property
    def verdicts_each(self) -> int:
        """Verdicts on each trajectory and metric."""
        return 1

    def code_version(self, metric: Metric, prompts_dir: Path | None) -> str:
        """Return the version of what decides a verdict besides the fields; change it when the meaning changes.

        By default that is a hash of the source of a class that the experiment file names by `kind: python`.
        """
        return source_version(type(self)) if self.kind == PYTHON else ""

    def prompt(self, metric: Metric, prompts_dir: Path | None) -> JudgePrompt | None:
        """Return the prompt by which costs are estimated; None if it asks no model."""
        return None

    def sample_request(self) -> ChatRequest | None:
        """Return a request as the judge sends them, without messages; None if it asks no model."""
        return None

    @property
    def in_batches(self) -> bool:
        """Whether it asks by a Batch API, which its server must have."""
        return False

    def in_flight(self, verdicts: int, usual: int) -> int:
        """Return how many verdicts are asked for at once, of so many to give."""
        return usual

    def given(self, name: str, trajectories: Sequence[Trajectory]) -> list[Evaluation] | None:
        """Return the verdicts that exist already, instead of `open`; None if the judge is to be asked."""
        return None

    def advice(self, without_score: Sequence[Evaluation]) -> str:
        """Return advice to a user about verdicts without a score, of which there is at least one."""
        return ""

    def remarks(self, name: str, trajectories: Collection[str]) -> Iterator[str]:
        """Yield what a user should be told after a run, given the ids of all trajectories that there are."""
        return iter(())

    def open(self, name: str, world: JudgeWorld) -> Judge:
        """Return the judge, whose verdicts carry `name`."""
        raise NotImplementedError(f"{type(self).__name__} has no verdicts of its own to give")
