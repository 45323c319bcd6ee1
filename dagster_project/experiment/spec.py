"""The experiment file: what is run, with what, on what. Validated here, once, with errors that name file and field."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from dagster_project.artifacts import ArtifactStore, Location
from dagster_project.environments import AnyEnvironment
from dagster_project.environments.emulated import parse_range
from dagster_project.experiment.agents import (
    DECIMALS,
    VARIANT,
    Agent,
    Recipe,
    Stage,
    TrainedMetric,
    agent_key,
)
from dagster_project.experiment.imported import Inventory
from dagster_project.experiment.names import KEY, MAX_PARTITION, Key, Seed, check_distinct, check_names
from dagster_project.experiment.places import Places
from dagster_project.experiment.pods import PodRule
from dagster_project.experiment.training import Trainer, Training
from dagster_project.experiment.yaml_reader import read_yaml
from dagster_project.judges import JUDGES, AnyJudge
from dagster_project.models import MODELS, AnyModel, AnyOwnAgent, ModelKind, OwnAgent
from dagster_project.serving.settings import ServedEndpoint, Weights
from dagster_project.shipped import shipped
from toolemu.agent import AgentSettings
from toolemu.chat import Price
from toolemu.chat.settings import EndpointSettings, OpenAIModelSettings, VariableName
from toolemu.errors import FieldError, FrontierError, InputError, validate_record, validation_problem
from toolemu.evaluation import Metric
from toolemu.prompts.sandbox import check_folder
from toolemu.secret_names import keys_in
from toolemu.trajectory import FAILURES, RUNAWAYS, StopReason

EXPERIMENTS = shipped("assets_data", "experiments")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _is_served(value: Any) -> str:
    served = isinstance(value, ServedEndpoint) or (isinstance(value, dict) and "serve" in value)
    return "(serve)" if served else "(url)"


AnyEndpoint = Annotated[
    Annotated[EndpointSettings, Tag("(url)")] | Annotated[ServedEndpoint, Tag("(serve)")],
    Discriminator(_is_served),
]


class Sampling(_Section):
    """How trajectories are sampled."""

    samples: int = Field(1, ge=1, le=10_000, description="Trajectories per case.")
    temperature: float = Field(0.0, ge=0)


class TestSampling(Sampling):
    """How trained agents are tested."""

    split: Literal["test", "all"] = Field("test", description="The seed's held-out half, or every case.")


_UNFINISHED = (*FAILURES, StopReason.context_full)
"""Endings that leave a conversation without its last turn. One that fills the context is too long to train on."""


class Pairing(_Section):
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
        """Returns what decides the pairs for a metric."""
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


class Override(_Section):
    """Other training parameters for some agents: every agent that matches all given fields takes them."""

    model: str | None = None
    recipe: Recipe | None = None
    training: dict[str, Any]


class Interpolation(_Section):
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


class Grid(_Section):
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


class Statistics(_Section):
    """How uncertainty is computed."""

    n_bootstrap: int = Field(2000, ge=0, le=1_000_000)
    confidence: float = Field(0.95, gt=0, lt=1)
    seed: Seed = 0


class Limits(_Section):
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


class Operations(_Section):
    """How Dagster's daemon runs it for weeks: when, on what, and whom it tells."""

    cron: str = Field(
        "0 * * * *",
        description="When the schedule looks for the next seed to make; it is off until somebody turns it on.",
    )
    timezone: str = Field("UTC", description="Of the schedule, by its name in the tz database: Europe/Berlin.")
    retries: int = Field(2, ge=0, description="How often a step is tried again after what may pass: a silent server.")
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


class Planning(_Section):
    """What `frontier plan` assumes where nothing was measured yet; it decides nothing else."""

    card: str = Field("H100", description="The GPU whose hours are counted: H100, A100, L40S … (NVIDIA's names).")
    mfu: float = Field(0.4, gt=0, le=1, description="Share of the card's peak that is of use, in training and reading.")
    generated_per_second: float = Field(
        2500, gt=0, description="Tokens that a busy server of 8 billion weights writes a second on a card of its own."
    )
    billions: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {}, description="Weights of models on the hub, by their name there, in billions; those in folders are counted."
    )
    pairs: float = Field(
        0.24, ge=0, le=1, description="Share of all pairs of a case's trajectories that qualify; the released runs'."
    )
    pairs_both: float = Field(0.05, ge=0, le=1, description="The same on `both`.")


PUBLISHED: dict[str, dict[str, Any]] = {
    "agent": {"stop_at_observation": False, "prompt_layout": "published"},
    "pairs": {"lead": "help", "exclude_self_observed": False, "exclude_failed": False},
    "training": {"preset": "published"},
}
"""The fields of each section that `fidelity: published` fills in, beside `judge_failed` and the judges' view."""
OPENAI = EndpointSettings(url="https://api.openai.com/v1", key="OPENAI_API_KEY")


class Experiment(_Section):
    """One experiment."""

    name: Key
    description: str = ""
    fidelity: Literal["sound", "published"] = Field(
        "sound", description="published: where the file says nothing else, as the paper's released code did it."
    )
    toy: bool = Field(False, description="A toy world: every figure and table says so.")
    endpoints: dict[Key, AnyEndpoint] = Field(
        {},
        description="Servers, at a `url` or to `serve`; `openai` and served `models.<name>` are there anyway.",
    )
    prices: dict[str, Price] = Field({}, description="By a model's name at its server, per million tokens.")
    currency: str = Field("USD", description="Of the prices.")
    prompts_dir: Path | None = Field(
        None, exclude=True, description="Folder of templates that replace the shipped ones."
    )
    world: AnyEnvironment
    models: dict[Key, AnyModel] = {}
    judges: dict[Key, AnyJudge] = {}
    own_agents: dict[Key, AnyOwnAgent] = Field(
        {}, description="Agents trained elsewhere, tested like those trained here."
    )
    metrics: tuple[Metric, ...] = (Metric.safe, Metric.help)
    judge_failed: bool = Field(
        False,
        description="Also judge and score trajectories that say nothing about the agent: a failure ended them, or the "
        "agent wrote nothing. The released code did.",
    )
    agent: AgentSettings = AgentSettings()
    source: Sampling = Sampling()
    test: TestSampling = TestSampling()
    pairs: Pairing = Pairing()
    grid: Grid = Grid()
    training: Training = Training()
    trainer: Trainer = Trainer()
    overrides: tuple[Override, ...] = ()
    variants: dict[Annotated[str, Field(pattern=rf"^{VARIANT}$")], dict[str, Any]] = Field(
        {}, description="Other training parameters by name; a recipe with a name takes them: `safe@ipo`."
    )
    statistics: Statistics = Statistics()
    limits: Limits = Limits()
    operations: Operations = Operations()
    planning: Planning = Field(Planning(), exclude=True, description="Assumptions of `frontier plan`.")
    kubernetes: tuple[PodRule, ...] = Field((), description="Pods of assets, where steps run in pods; docs/deploy.md.")
    inventory: Inventory | None = Field(None, exclude=True, description="What was imported; never in the file.")
    asked_as: str = Field("", exclude=True, description="On the command line, options too; never in the file.")

    @field_validator("prompts_dir", mode="before")
    @classmethod
    def _prompts_are_in_no_link(cls, folder: Any, info: ValidationInfo) -> Any:
        if not isinstance(folder, str) or not isinstance(info.context, Places):
            return folder
        found = info.context.find("prompts_dir", folder)
        check_folder(found, info.context.folder)
        return found

    @field_validator("overrides")
    @classmethod
    def _overrides_name_parameters(cls, overrides: tuple[Override, ...]) -> tuple[Override, ...]:
        for override in overrides:
            _check_parameters(override.training)
        return overrides

    @field_validator("own_agents")
    @classmethod
    def _own_agents_can_be_shown(cls, own_agents: dict[str, OwnAgent]) -> dict[str, OwnAgent]:
        for name, own in own_agents.items():
            try:
                own.recipe.named(name)
            except ValueError:
                raise ValueError(
                    f"{name} is shown as a variant of {own.recipe}, and those are named by lower-case letters, digits "
                    f"and hyphens, 20 at most; rename it, or give its recipe a variant: {own.recipe}@short"
                ) from None
        return own_agents

    @field_validator("variants")
    @classmethod
    def _variants_name_parameters(cls, variants: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for changes in variants.values():
            _check_parameters(changes)
        return variants

    @model_validator(mode="after")
    def _overrides_make_sense(self) -> Experiment:
        overrides = (
            (f"overrides.{place}.training", override.training) for place, override in enumerate(self.overrides)
        )
        for place, changes in (*overrides, *((f"variants.{name}", changes) for name, changes in self.variants.items())):
            try:
                Training.model_validate(self.training.changed(changes))
            except ValidationError as error:
                where, problem = validation_problem(error)
                raise ValueError(f"{place}: {where}: {problem.rstrip('.')}") from None
        return self

    @model_validator(mode="after")
    def _recipes_can_be_trained(self) -> Experiment:
        for recipe in self.grid.recipes:
            if recipe.mixture:
                raise ValueError(f"grid.recipes names {recipe}, a mixture: it goes below grid.interpolate")
        trained = [*self.grid.recipes, *(recipe for mixed in self.grid.interpolate for recipe in mixed.between)]
        for recipe in trained:
            if recipe.variant is not None and recipe.variant not in self.variants:
                raise ValueError(f"grid names {recipe}; variants defined: {sorted(self.variants)}")
        idle = set(self.variants) - {recipe.variant for recipe in trained}
        if idle:
            raise ValueError(f"variants.{min(idle)} is of no recipe; name it in the grid: safe@{min(idle)}")
        return self

    @model_validator(mode="after")
    def _imported_or_made(self) -> Experiment:
        given = {
            "models": self.models,
            "judges": self.judges,
            "grid.models": self.grid.models,
            "grid.recipes": self.grid.every_recipe,
            "grid.pairs_judges": self.grid.pairs_judges,
            "grid.betas": self.grid.betas,
            "grid.seeds": self.grid.seeds,
        }
        for name, values in given.items():
            if self.imports:
                if values and name != "grid.betas" and self.inventory is None:
                    raise ValueError(f"{name} is given, but an imported experiment takes it from what it imports")
            elif not values and (name in ("models", "judges") or self._grid_needs(name)):
                raise ValueError(f"{name} names none; at least one is needed")
        return self

    def _grid_needs(self, name: str) -> bool:
        """Says whether the grid needs `name`: without models and recipes nothing is trained, and it may be empty."""
        grid = self.grid
        if grid.models or grid.every_recipe:
            return True
        return name == "grid.seeds" and bool(grid.pairs_judges or self.own_agents)

    @model_validator(mode="after")
    def _names_are_known(self) -> Experiment:
        """Check every name that refers to something else: a setting under nobody's name would change nothing."""
        asked, endpoints = self.roles(), self.all_endpoints()
        for place, role in asked.items():
            check_names(f"{place}.endpoint", [role.endpoint], endpoints, "endpoint")
        check_names("grid.models", self.grid.models, self.models, "source model")
        check_names("grid.pairs_judges", self.grid.pairs_judges, self.judges, "judge")
        for name, own in self.own_agents.items():
            check_names(f"own_agents.{name}.of", [own.of], self.models, "source model")
            check_names(f"own_agents.{name}.judge", [own.judge], self.judges, "judge")
        models = (role.model for role in asked.values())
        check_names("prices", self.prices, models, "model that a role asks at a server")
        sources = (weights.source for weights in self.weights().values())
        check_names("planning.billions", self.planning.billions, sources, "source of weights in this file")
        trained = {agent.recipe for stage in range(1, self.n_stages + 1) for agent in self.stage_agents(stage)}
        recipes = {*trained, *(recipe.plain for recipe in trained)}
        for at, override in enumerate(self.overrides):
            for field, known in (("model", self.grid.models), ("recipe", recipes)):
                names = filter(None, [getattr(override, field)])
                check_names(f"overrides.{at}.{field}", names, known, f"{field} that the grid trains")
        return self

    @model_validator(mode="after")
    def _roles_can_be_played(self) -> Experiment:
        addresses = self.addresses()
        for place, role in self.roles().items():
            if not role.model and role.endpoint in addresses:
                raise ValueError(f"{place}.model is needed: the name of the model at {role.endpoint}")
        for name, judge in self.judges.items():
            if judge.world not in (None, self.world.kind):
                raise ValueError(f"judges.{name} judges by the rules of the {judge.world} world and knows no other")
        return self

    @model_validator(mode="after")
    def _models_can_act(self) -> Experiment:
        for place, model in self.sections().items():
            if model.imported and not self.imports:
                raise FieldError(
                    f"{place} is imported, but this experiment runs its agents; give it another kind, or import runs "
                    "by `world: {kind: imported}`",
                    code="experiment.imported-model",
                )
        for name, model in self.models.items():
            if model.on_base:
                raise FieldError(
                    f"models.{name} is an adapter, which cannot act alone; put it below own_agents, with the source "
                    "model that it is of",
                    code="experiment.adapter-alone",
                )
        adapters = {f"own_agents.{name}": own.of for name, own in self.own_agents.items() if own.on_base}
        for place, base in [*(("grid.models", name) for name in self.grid.models), *adapters.items()]:
            if not self.models[base].trainable:
                raise FieldError(
                    f"{place} needs the weights of {base!r}, which are not here; name a model with weights here, such "
                    "as one of `kind: weights`",
                    code="experiment.not-trainable",
                )
        return self

    @model_validator(mode="after")
    def _servers_take_adapters(self) -> Experiment:
        for agent in self._trained():
            server = self.models[agent.model].served
            ends = [share.recipe for share in agent.recipe.mixture] or [agent.recipe]
            stages = {recipe.stages(n) for recipe in ends for n in range(1, len(recipe.metrics) + 1)}
            rank = sum(self.training_of(agent.model, stage).lora_rank for stage in stages)
            if server is not None and rank > server.adapter_rank:
                raise ValueError(
                    f"models.{agent.model}.server.adapter_rank is {server.adapter_rank}, but "
                    f"{agent.recipe.label} is an adapter of rank {rank} (that of its stages together)"
                )
        return self

    @model_validator(mode="after")
    def _axes_and_grid_are_whole(self) -> Experiment:
        for metric in (Metric.safe, Metric.help):
            if metric not in self.metrics:
                raise ValueError(
                    f"metrics must hold 'safe' and 'help' (the frontier's axes); {metric.value!r} is missing"
                )
        for name, values in (
            ("models", self.grid.models),
            ("recipes", self.grid.every_recipe),
            ("pairs_judges", self.grid.pairs_judges),
            ("betas", self.grid.betas),
            ("seeds", self.grid.seeds),
        ):
            if len(set(values)) != len(values):
                raise ValueError(f"grid.{name} holds a value twice")
        return self

    @model_validator(mode="after")
    def _names_can_be_told_apart(self) -> Experiment:
        check_distinct("models and own_agents", [*self.models, *self.own_agents])
        check_distinct("judges", self.judges)
        trained = {(agent.model, agent.recipe, agent.pairs_judge, agent.beta) for agent in self._trained()}
        for own in self._own():
            if (own.model, own.recipe, own.pairs_judge, own.beta) in trained:
                raise ValueError(
                    f"own_agents.{own.key} would be taken for the agent of the grid with its recipe and beta"
                )
        for agent in self.trainees():
            if len(agent.key) > MAX_PARTITION and self.inventory is None:
                raise FieldError(
                    f"the agent {agent.key[:80]}… has a name of {len(agent.key)} characters, and at most "
                    f"{MAX_PARTITION} fit; shorten the names of its model and judge, or the recipe",
                    code="experiment.long-name",
                )
        return self

    def training_of(self, model: str, recipe: Recipe) -> Training:
        """Returns the training parameters of an agent, overrides applied in order, its recipe's variant last."""
        training = self.training
        named = (None, recipe, recipe.plain)
        for override in self.overrides:
            if override.model in (None, model) and override.recipe in named:
                training = Training.model_validate(training.changed(override.training))
        if recipe.variant is not None:
            training = Training.model_validate(training.changed(self.variants[recipe.variant]))
        return training

    def agents(self) -> list[Agent]:
        """Returns every trained agent: the grid's by model, recipe, judge and beta, then one's own; or the imported."""
        if self.inventory is not None:
            return list(self.inventory.agents)
        return [*self._trained(), *self._own()]

    def _own(self) -> list[Agent]:
        """Returns the agents that were trained elsewhere, each in a variant of its own, averaged with none."""
        return [
            Agent(name, own.of, own.recipe.named(name), own.judge, own.beta, ())
            for name, own in self.own_agents.items()
        ]

    def _trained(self) -> list[Agent]:
        return [
            self._agent(model, recipe, judge, beta)
            for model in self.grid.models
            for recipe in self.grid.every_recipe
            for judge in self.grid.pairs_judges
            for beta in self.grid.betas
        ]

    def trainees(self) -> list[Agent]:
        """Returns every agent, and those that are only trained to be mixed."""
        found = {agent.key: agent for agent in self.agents()}
        for agent in self._trained():
            for share in agent.recipe.mixture:
                assert agent.beta is not None, "the grid has betas"
                end = self._agent(agent.model, share.recipe, agent.pairs_judge, agent.beta)
                found.setdefault(end.key, end)
        return list(found.values())

    def stage_agents(self, stage: int) -> list[Agent]:
        """Returns the agents that training `stage` (1, 2 …) makes, those that only later stages need included."""
        found: dict[str, Agent] = {}
        for agent in self.trainees():
            if len(agent.stages) >= stage:
                assert agent.beta is not None, "only imported agents' stages differ in beta"
                base = self._agent(agent.model, agent.recipe.stages(stage), agent.pairs_judge, agent.beta)
                found.setdefault(base.key, base)
        return list(found.values())

    def all_endpoints(self) -> dict[str, EndpointSettings | ServedEndpoint]:
        """Returns the endpoints by name, `openai` and those of served models among them."""
        offered = {place: model.offers for place, model in self.sections().items()}
        served = {place: endpoint for place, endpoint in offered.items() if endpoint is not None}
        return {"openai": OPENAI, **served, **self.endpoints}

    def addresses(self) -> dict[str, EndpointSettings]:
        """Return the endpoints that have a URL, by name."""
        return {name: end for name, end in self.all_endpoints().items() if isinstance(end, EndpointSettings)}

    def leased(self) -> dict[str, ServedEndpoint]:
        """Return the endpoints whose servers are started when they are needed, by name."""
        return {name: end for name, end in self.all_endpoints().items() if isinstance(end, ServedEndpoint)}

    def roles(self) -> dict[str, OpenAIModelSettings]:
        """Returns every model behind an endpoint, by its place in the file."""
        asked = {place: model.role(place) for place, model in self.sections().items()}
        found = {place: role for place, role in asked.items() if role is not None}
        if self.world.role is not None:
            found["world.emulator"] = self.world.role
        found |= {f"judges.{name}": judge.role for name, judge in self.judges.items() if judge.role is not None}
        served = {name: endpoint.serve for name, endpoint in self.leased().items()}
        return {
            place: role.model_copy(update={"model": served[role.endpoint].source}) if role.endpoint in served else role
            for place, role in found.items()
        }

    def sections(self) -> dict[str, ModelKind]:
        """Return every source model, and every agent that was trained elsewhere, by its place in the file."""
        return {self.place_of(name): self.section(name) for name in (*self.models, *self.own_agents)}

    def weights(self) -> dict[str, Weights]:
        """Return all weights of the hub or of folders that the file names, by their place in it."""
        found = {place: model.weights for place, model in self.sections().items()}
        found |= {f"endpoints.{name}.serve": end.serve for name, end in self.leased().items() if name in self.endpoints}
        return {place: weights for place, weights in found.items() if weights is not None}

    def section(self, name: str) -> ModelKind:
        """Returns what the file says of a source model, or of an agent that was trained elsewhere."""
        return self.own_agents[name] if name in self.own_agents else self.models[name]

    def place_of(self, name: str) -> str:
        """Returns where in the file a source model or an agent that was trained elsewhere is."""
        return f"own_agents.{name}" if name in self.own_agents else f"models.{name}"

    def identity_of(self, model: str) -> dict[str, Any]:
        """Returns what decides a source model, or an agent that was trained elsewhere, apart from what runs it."""
        section = self.section(model)
        return {**section.identity(), **_code_of(section)}

    def running_of(self, model: str) -> dict[str, Any]:
        """Returns what decides how a source model and what is trained from it are run; nothing by default."""
        section = self.section(model)
        running = section.running()
        return {**({"running": running} if running else {}), **_code_of(section)}

    def is_served(self, model: str) -> bool:
        """Whether a source model, and what is trained from it, runs on a leased server."""
        return self.section(model).served is not None

    @property
    def argument(self) -> str:
        """What the command line calls it, in hints that work as they are: its name, or the path of its file."""
        return self.asked_as or self.name

    @property
    def concurrency(self) -> int:
        """Trajectories or verdicts in flight in one process."""
        return self.limits.concurrency or (self.limits.requests if self.roles() else 64)

    @property
    def imports(self) -> bool:
        """Whether its trajectories and verdicts are imported and not made."""
        return self.world.imported

    def with_inventory(self, inventory: Inventory) -> Experiment:
        """Returns an imported experiment with what was imported in the place of models, judges and grid."""
        trained = inventory.agents
        grid = Grid(
            models=tuple(dict.fromkeys(agent.model for agent in trained)),
            recipes=tuple(dict.fromkeys(agent.recipe for agent in trained)),
            pairs_judges=tuple(dict.fromkeys(agent.pairs_judge for agent in trained)) or inventory.judges,
            betas=tuple(sorted({agent.beta for agent in trained if agent.beta is not None})),
            seeds=inventory.seeds,
        )
        update = {
            "models": {model: MODELS.imported() for model in inventory.models},
            "judges": {judge: JUDGES.imported() for judge in inventory.judges},
            "metrics": inventory.metrics,
            "grid": grid,
            "inventory": inventory,
        }
        return self.model_copy(update=update)

    def pilot(self, n_cases: int) -> Experiment:
        """Returns a pilot of the experiment on its first `n_cases` cases, under a name of its own.

        Raises:
            FrontierError: It is imported: what was run on other cases cannot be run again on these.
        """
        if self.imports:
            raise FrontierError(f"--limit: {self.name} is imported; what it holds cannot be run on fewer cases.")
        world = self.world.pilot(n_cases)
        pairs = self.pairs.model_copy(update={"floor": min(self.pairs.floor, 1)})
        named = {"name": f"{self.name}-pilot", "asked_as": f"{self.argument} --limit {n_cases}"}
        return self.model_copy(update={**named, "world": world, "pairs": pairs})

    def on_cases(self, which: str) -> Experiment:
        """Returns the experiment on a range of its cases (``72-143``), under a name of its own.

        Raises:
            FrontierError: Its cases are not from files, or there are no such cases.
        """
        try:
            first, count = parse_range(which)
        except ValueError as error:
            raise FrontierError(f"--cases: {error}.") from error
        if count < 2 or first + count > self.world.cases:
            raise FrontierError(f"--cases {which}: {self.name} has cases 0-{self.world.cases - 1}; two are the least.")
        world = self.world.on_cases(first, count)
        if world is None:
            raise FrontierError(
                f"--cases: {self.name} has no files of cases to take some from; --limit takes the first."
            )
        name = f"{self.name}-cases-{first}-{first + count - 1}"
        asked_as = f"{self.argument} --cases {shlex.quote(which)}"
        return self.model_copy(update={"name": name, "asked_as": asked_as, "world": world})

    @property
    def n_stages(self) -> int:
        """The most stages any agent has."""
        return max((len(agent.stages) for agent in self.trainees()), default=0)

    def _agent(self, model: str, recipe: Recipe, judge: str, beta: float) -> Agent:
        key = agent_key(model, recipe, judge, beta)
        if recipe.mixture:
            parts = tuple((agent_key(model, share.recipe, judge, beta), share.weight) for share in recipe.mixture)
            return Agent(key, model, recipe, judge, beta, (), parts)
        training = self.training_of(model, recipe)
        stages = tuple(
            Stage(
                metric=metric,
                judge=judge,
                beta=beta,
                epochs=training.epochs_both if metric is TrainedMetric.both else training.epochs,
            )
            for metric in recipe.metrics
        )
        return Agent(key, model, recipe, judge, beta, stages)


def _code_of(section: ModelKind) -> dict[str, str]:
    """Return a model's code version for its configuration: Dagster's code versions are of all models together."""
    version = section.code_version()
    return {"model_code": version} if version else {}


def _check_parameters(changes: dict[str, Any]) -> None:
    unknown = set(changes) - set(Training.model_fields)
    if unknown:
        raise ValueError(f"there is no training parameter {sorted(unknown)[0]!r}")


def experiment_path(name_or_path: str) -> Path:
    """Returns the file of an experiment given by its shipped name or by a path.

    Raises:
        InputError: There is no such file.
    """
    shipped = EXPERIMENTS / f"{name_or_path}.yaml"
    path = shipped if KEY.fullmatch(name_or_path) and shipped.is_file() else Path(name_or_path)
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in EXPERIMENTS.glob("*.yaml")))
        raise InputError(name_or_path, "", f"is neither a shipped experiment ({names}) nor a file.", "Check the name.")
    return path


def load_experiment(name_or_path: str) -> Experiment:
    """Load and validate an experiment.

    Raises:
        InputError: No such file, not YAML (see `read_yaml`), or a wrong field; names file and place.
    """
    path = experiment_path(name_or_path)
    value = read_yaml(path)
    key_at = next(keys_in(value), None)
    if key_at is not None:
        raise InputError(
            path,
            f"'{key_at}'",
            "holds an API key or a password by its form.",
            "Take it out, and treat it as known to others. Put it into a variable (environment or .env), and name the "
            "variable as `key` of the endpoint.",
            code="experiment.secret-in-file",
        )
    places = Places(path)
    try:
        remedy = "See README.md, “The experiment file”."
        experiment = validate_record(Experiment, _published(value), path, "", remedy, context=places)
    except InputError as error:
        raise places.hide(error) from None
    return experiment.model_copy(update={"asked_as": shlex.quote(name_or_path)})


def _published(value: Any) -> Any:
    """Returns an experiment's fields with what `fidelity: published` stands for."""
    if not isinstance(value, dict) or value.get("fidelity") != "published":
        return value
    sections = {name: value.get(name, {}) for name in PUBLISHED}
    filled = {name: {**PUBLISHED[name], **given} for name, given in sections.items() if isinstance(given, dict)}
    judges = value.get("judges")
    if isinstance(judges, dict):
        filled["judges"] = {
            name: {"view": "published", **judge}
            if isinstance(judge, dict) and JUDGES.word(judge) == "openai"
            else judge
            for name, judge in judges.items()
        }
    return {"judge_failed": True, **value, **filled}


def open_store(experiment: Experiment) -> ArtifactStore:
    """Returns an experiment's artifacts, below `data_root`."""
    return ArtifactStore(data_root(), experiment.name, experiment.argument)


def data_root() -> Location:
    """Returns where artifacts go: `$FRONTIER_DATA` (a path, or `s3://bucket/prefix`), or `data` where we are."""
    place = os.environ.get("FRONTIER_DATA") or "data"
    return place.rstrip("/") if "://" in place else Path(place).resolve()
