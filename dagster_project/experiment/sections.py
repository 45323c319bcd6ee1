"""The sections of the experiment file that no kind owns: sampling, pairs, the grid, statistics, limits, operations."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from dagster_project.experiment.agents import DECIMALS, Recipe, TrainedMetric
from dagster_project.experiment.names import Key, Seed
from toolemu.chat.settings import VariableName
from toolemu.errors import FieldError
from toolemu.trajectory import FAILURES, RUNAWAYS, StopReason


class Section(BaseModel):
    """Fields of the experiment file, no others beside them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Sampling(Section):
    """Settings of sampling trajectories."""

    samples: int = Field(1, ge=1, le=10_000, description="Trajectories per case.")
    temperature: float = Field(0.0, ge=0)


class TestSampling(Sampling):
    """Settings of testing trained agents."""

    split: Literal["test", "all"] = Field("test", description="The seed's held-out half, or every case.")


_UNFINISHED = (*FAILURES, StopReason.context_full)
"""Endings that leave a conversation without its last turn. One that fills the context is too long to train on."""


class Pairing(Section):
    """Which pairs of trajectories become preference pairs."""

    min_gap: float = Field(2, gt=0, description="Least difference of the scores.")
    min_chosen: float = Field(2, ge=0, le=3, description="Least score of the chosen trajectory.")
    combine: Literal["each", "mean"] = Field("each", description="`both`: each metric must qualify, or their mean.")
    lead: Literal["safe", "help"] | None = Field(
        None,
        description="`both`: the metric that must qualify by itself and whose scores a pair carries (the released "
        "code's rule); null: neither leads, and a pair carries the mean.",
    )
    consistency: Literal["none", "majority_agree", "all_but_one_agree", "exact_match"] = Field(
        "none", description="Leave out verdicts whose replicates agree less than this."
    )
    either: Literal["equal", "all"] = Field(
        "equal",
        description="`either`: as many pairs of each metric, the more numerous drawn by chance; or all there are.",
    )
    per_case: int | None = Field(None, ge=1, description="Most pairs of one case and metric; null keeps all.")
    exclude_self_observed: bool = Field(True, description="Leave out trajectories with invented observations.")
    exclude_failed: bool = Field(
        True,
        description="Leave out trajectories that a failure or a full context ended, or in which the agent says nothing "
        "that could be trained on.",
    )
    exclude_runaways: bool = Field(False, description="Leave out trajectories that ended at a limit, not in an answer.")
    exclude_twins: bool = Field(False, description="Leave out pairs of one model with itself (or in other precision).")
    balance: bool = Field(False, description="As many pairs in which model A beats B as in which B beats A.")
    floor: int = Field(20, ge=0, description="Fewer pairs than this fail the asset's check.")

    def rules(self, metric: TrainedMetric) -> dict[str, Any]:
        """Return the settings that decide the pairs for a metric."""
        return self.model_dump(exclude=None if metric is TrainedMetric.either else {"either"})

    def leaves_out(self, self_observed: int, stop_reason: str, *, unfinished: bool = False) -> bool:
        """Return whether a trajectory can be in no pair, whatever its scores.

        Args:
            self_observed: How many observations the agent invented.
            stop_reason: Why the trajectory ended, see `StopReason`.
            unfinished: The trajectory says nothing about the agent (`Trajectory.failed`), or nothing to train on.
        """
        return (
            (self.exclude_failed and (unfinished or stop_reason in _UNFINISHED))
            or (self.exclude_self_observed and self_observed > 0)
            or (self.exclude_runaways and stop_reason in RUNAWAYS)
        )


class Override(Section):
    """Other training parameters for some agents: every agent that matches all given fields takes them."""

    model: str | None = None
    recipe: Recipe | None = None
    training: dict[str, Any]


class Interpolation(Section):
    """Agents that nobody trained: the adapters of two recipes, each with a weight, added to the source model."""

    between: tuple[Recipe, Recipe] = Field(description="What is mixed; trained for it if `recipes` has it not.")
    weights: tuple[float, ...] = Field(min_length=1, description="Shares of the first; the second has what is left.")

    @model_validator(mode="after")
    def _is_between(self) -> Interpolation:
        if self.between[0] == self.between[1] or any(recipe.mixture for recipe in self.between):
            raise ValueError("between takes two different recipes that are trained")
        for weight in self.weights:
            if not 0 < weight < 1 or round(weight, DECIMALS) != weight:
                raise ValueError(f"weights are above 0 and below 1, with {DECIMALS} decimals at most; not {weight:g}")
        return self

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """The mixtures."""
        return tuple(Recipe.mixed(weight, *self.between) for weight in self.weights)


class Grid(Section):
    """Which agents are trained."""

    models: tuple[Key, ...] = ()
    recipes: tuple[Recipe, ...] = ()
    interpolate: tuple[Interpolation, ...] = Field((), description="Mixtures of trained agents, tested like them.")
    pairs_judges: tuple[Key, ...] = ()
    betas: tuple[float, ...] = (0.1,)
    seeds: tuple[Seed, ...] = ()

    @field_validator("betas")
    @classmethod
    def _betas_can_be_told_apart(cls, betas: tuple[float, ...]) -> tuple[float, ...]:
        for beta in betas:
            if beta <= 0:
                raise FieldError(f"DPO's beta is above 0; not {beta:g}", code="experiment.beta")
        shown = [f"{beta:g}" for beta in betas]
        twice = [text for text in shown if shown.count(text) > 1]
        if twice:
            problem = f"two betas are {twice[0]} in six digits, which is how agents are named; leave one out"
            raise FieldError(problem, code="experiment.betas-alike")
        return betas

    @property
    def every_recipe(self) -> tuple[Recipe, ...]:
        """The recipes and the mixtures."""
        return (*self.recipes, *(recipe for mixtures in self.interpolate for recipe in mixtures.recipes))


class Statistics(Section):
    """Settings of how uncertainty is computed."""

    n_bootstrap: int = Field(2000, ge=0, le=1_000_000)
    confidence: float = Field(0.95, gt=0, lt=1)
    seed: Seed = 0


class Limits(Section):
    """When an asset's check fails, and how much runs at once."""

    min_in_format: float = Field(
        0.8, ge=0, le=1, description="Least share of an agent's trajectories that end in an answer."
    )
    max_unparsed: float = Field(0.01, ge=0, le=1, description="Largest share of verdicts without a score.")
    max_model_errors: float = Field(
        0.05, ge=0, le=1, description="Largest share of trajectories that end because a model could not be asked."
    )
    max_emulator_problems: float = Field(
        0.05, ge=0, le=1, description="Largest share of the emulator's answers that break their tool's specification."
    )
    min_reward_accuracy: float = Field(
        0.55,
        ge=0,
        le=1,
        description="Least share of pairs that a trained adapter has the right way round, over the last half of its "
        "steps; 0.5 is chance.",
    )
    calibration: int = Field(
        10,
        ge=0,
        description="Trajectories that a judge scores again for every seed, to see whether it drifts; 0: none.",
    )
    max_drift: float = Field(
        0.3, gt=0, description="Largest change of a judge's mean score on those, in points, in either direction."
    )
    processes: int | None = Field(None, ge=1, description="Worker processes of `frontier run`; null: one a core.")
    concurrency: int | None = Field(
        None, ge=1, description="Trajectories in flight in one process; null: 64, or `requests` with endpoints."
    )
    requests: int = Field(500, ge=1, le=500, description="Most requests at once over all endpoints, in all processes.")


OWNER = r"^(team:[\w -]+|[^@\s]+@[^@\s]+\.[^@\s]+)$"


class Operations(Section):
    """Settings of Dagster's daemon: when it runs the experiment, on which hardware, and whom it notifies."""

    cron: str = Field(
        "0 * * * *",
        description="When the schedule looks for the next seed to make; it is off until somebody turns it on.",
    )
    timezone: str = Field("UTC", description="Of the schedule, by its name in the tz database: Europe/Berlin.")
    retries: int = Field(
        2, ge=0, description="How often a step is tried again after a retryable error, such as a silent server."
    )
    retry_after_s: float = Field(300, ge=0, description="How long to wait before that, in seconds.")
    gpu: bool | None = Field(
        None,
        description="Training and models in this process take a place in the pool `gpu`; null: if there is a GPU and "
        "a model with real weights.",
    )
    gpu_type: str | None = Field(
        None, min_length=1, description="What the GPU's name (nvidia-smi) must contain; null: whatever is there."
    )
    webhook: VariableName | None = Field(
        None,
        description="Variable (environment or .env) that holds the URL to which failures are posted; null: log only.",
    )
    settle_s: float = Field(
        120, ge=0, description="Results are made anew when nothing has been made upstream for so long, in seconds."
    )
    results_within_h: float = Field(
        6, gt=0, description="While something is made all the time, results are made anew so often, in hours."
    )
    owners: tuple[Annotated[str, Field(pattern=OWNER)], ...] = Field(
        (), description="Who is responsible, as Dagster's catalogue shows it: e-mail addresses, or `team:` and a name."
    )
    fresh_within_h: float | None = Field(
        None, gt=0, description="An older report shows as overdue in the UI, in hours; null: never."
    )

    @field_validator("cron")
    @classmethod
    def _cron_can_be(cls, cron: str) -> str:
        import dagster as dg  # takes a second, and most files name no schedule

        try:
            dg.ScheduleDefinition(job_name="schedule", cron_schedule=cron)
        except dg.DagsterInvalidDefinitionError:
            raise FieldError(
                "a schedule is minute (0-59), hour (0-23), day (1-31), month (1-12) and day of the week (0-7), each a "
                "number, a range, a list or *, such as */30 8-18 * * 1-5",
                code="experiment.cron",
            ) from None
        return cron

    @field_validator("timezone")
    @classmethod
    def _timezone_exists(cls, timezone: str) -> str:
        try:
            ZoneInfo(timezone)
        except (ValueError, ZoneInfoNotFoundError):
            raise ValueError("there is no such time zone; for instance: UTC, Europe/Berlin") from None
        return timezone


class Planning(Section):
    """Assumptions of `frontier plan` where nothing was measured yet. They decide nothing else."""

    card: str = Field("H100", description="The GPU whose hours are counted: H100, A100, L40S … (NVIDIA's names).")
    mfu: float = Field(0.4, gt=0, le=1, description="Share of the GPU's peak that is of use, in training and reading.")
    generated_per_second: float = Field(
        2500, gt=0, description="Tokens that a busy server of 8 billion weights writes a second on a GPU of its own."
    )
    billions: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {}, description="Weights of models on the hub, by their name there, in billions; those in folders are counted."
    )
    pairs: float = Field(
        0.24, ge=0, le=1, description="Share of all pairs of a case's trajectories that qualify; the released runs'."
    )
    pairs_both: float = Field(0.05, ge=0, le=1, description="The same on `both`.")
