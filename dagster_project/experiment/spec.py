"""The experiment file: what is run, with what, on what. Validated here, once, with errors that name file and field."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from dagster_project.experiment.agents import Agent, Recipe, Stage, TrainedMetric, agent_key
from dagster_project.experiment.imported import Inventory
from dagster_project.experiment.roles import EmulatedWorld, LMJudgeRole
from toolemu.agent import AgentSettings
from toolemu.chat import Price
from toolemu.chat.settings import EndpointSettings, OpenAIModelSettings
from toolemu.errors import FrontierError, InputError, validate_record
from toolemu.evaluation import Metric

EXPERIMENTS = Path(__file__).resolve().parents[2] / "assets_data" / "experiments"
KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")

Key = Annotated[str, Field(pattern=rf"^{KEY.pattern}$", max_length=60)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MiniatureWorld(_Section):
    """The embedded toy world: its cases are generated, its emulator and judges are programs."""

    kind: Literal["miniature"] = "miniature"
    cases: int = Field(60, ge=4, description="How many cases to generate; half of them are held out.")
    seed: int = Field(0, description="Seed of the cases.")


class ImportedWorld(_Section):
    """The paper's released runs, or others in their format, imported: nothing is made, everything is counted again."""

    kind: Literal["imported"]
    cases: int = Field(144, ge=2, description="How many cases the runs are on; half of them are held out.")
    seeds: tuple[int, ...] = Field((0, 1, 2), description="Seeds of the pairs where no trained agent names any.")
    pairs_judges: dict[Key, str] = Field({}, description="Labels in the agents' names, to judges' names in files'.")
    paths: tuple[Path, ...] = Field((), exclude=True, description="Trees or archives to import; or give --source.")
    sources: dict[str, str] = Field({}, description="The trees' names and fingerprints; computed, never in the file.")


class ImportedModel(_Section):
    """A source model of which only trajectories are there."""

    kind: Literal["imported"] = "imported"


class ImportedJudge(_Section):
    """A judge of whom only verdicts are there."""

    kind: Literal["imported"] = "imported"


class MiniatureModel(_Section):
    """A tiny source model, trained on the spot."""

    kind: Literal["miniature"] = "miniature"
    temperament: Literal["eager", "balanced", "cautious"] = Field(description="How its demonstrators behave.")
    seed: int = Field(0, description="Seed of its weights and data.")
    steps: int = Field(300, ge=1, description="Optimiser steps; below about 200 it has not learned the format.")


class MiniatureJudge(_Section):
    """A rule-based judge of the toy world."""

    kind: Literal["miniature"] = "miniature"
    strictness: Literal["strict", "lenient"]


def _kind(value: Any) -> str:
    return str(value.get("kind", "miniature") if isinstance(value, dict) else getattr(value, "kind", "miniature"))


SourceModel = Annotated[
    Annotated[MiniatureModel, Tag("miniature")]
    | Annotated[ImportedModel, Tag("imported")]
    | Annotated[OpenAIModelSettings, Tag("openai")],
    Discriminator(_kind),
]
AnyJudge = Annotated[
    Annotated[MiniatureJudge, Tag("miniature")]
    | Annotated[ImportedJudge, Tag("imported")]
    | Annotated[LMJudgeRole, Tag("openai")],
    Discriminator(_kind),
]


class Sampling(_Section):
    """How trajectories are sampled."""

    samples: int = Field(1, ge=1, description="Trajectories per case.")
    temperature: float = Field(0.0, ge=0)


class TestSampling(Sampling):
    """How trained agents are tested."""

    split: Literal["test", "all"] = Field("test", description="The seed's held-out half, or every case.")


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
    per_case: int | None = Field(None, ge=1, description="Most pairs of one case; null keeps all.")
    exclude_self_observed: bool = Field(True, description="Leave out trajectories with invented observations.")
    exclude_runaways: bool = Field(False, description="Leave out trajectories that ended at a limit, not in an answer.")
    exclude_twins: bool = Field(False, description="Leave out pairs of one model with itself (or in other precision).")
    balance: bool = Field(False, description="As many pairs in which model A beats B as in which B beats A.")
    floor: int = Field(20, ge=0, description="Fewer pairs than this fail the asset's check.")


class Training(_Section):
    """DPO with a LoRA adapter; the defaults are the paper's where it is sound."""

    learning_rate: float = Field(5e-5, gt=0)
    epochs: float = Field(1, gt=0, description="Passes over the pairs of a stage.")
    epochs_both: float = Field(3, gt=0, description="The same for stages on `both`, which has far fewer pairs.")
    max_steps: int | None = Field(None, ge=1, description="Optimiser steps; overrides epochs.")
    batch_size: int = Field(8, ge=1, description="Pairs an optimiser step.")
    warmup_ratio: float = Field(0.1, ge=0, le=1)
    lora_rank: int = Field(16, ge=1)
    lora_alpha: int = Field(32, ge=1)
    max_length: int = Field(8192, ge=16, description="Longer pairs are left out and counted, never cut.")
    mask_observations: bool = Field(True, description="Only the agent's own turns count in the loss.")
    dtype: Literal["float32", "bfloat16"] = "bfloat16"


class Override(_Section):
    """Other training parameters for some agents: every agent that matches all given fields takes them."""

    model: str | None = None
    recipe: Recipe | None = None
    training: dict[str, float | int | bool | str]


class Grid(_Section):
    """Which agents are trained."""

    models: tuple[Key, ...] = ()
    recipes: tuple[Recipe, ...] = ()
    pairs_judges: tuple[Key, ...] = ()
    betas: tuple[float, ...] = (0.1,)
    seeds: tuple[int, ...] = ()


class Statistics(_Section):
    """How uncertainty is computed."""

    n_bootstrap: int = Field(2000, ge=0)
    confidence: float = Field(0.95, gt=0, lt=1)
    seed: int = 0


class Limits(_Section):
    """When an asset's check fails, and how much runs at once."""

    min_in_format: float = Field(0.8, ge=0, le=1, description="Least share of trajectories that end in an answer.")
    max_unparsed: float = Field(0.01, ge=0, le=1, description="Largest share of verdicts without a score.")
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
        pattern=r"^([0-9A-Za-z*/,-]+ +){4}[0-9A-Za-z*/,-]+$",
        description="When the schedule looks for the next seed to make; it is off until somebody turns it on.",
    )
    timezone: str = Field("UTC", description="Of the schedule, by its name in the tz database: Europe/Berlin.")
    retries: int = Field(2, ge=0, description="How often a step is tried again after what may pass: a silent server.")
    retry_after_s: float = Field(300, ge=0, description="How long to wait before that, in seconds.")
    gpu: bool | None = Field(
        None, description="Training and models in this process take a place in the pool `gpu`; null: unless miniature."
    )
    gpu_type: str | None = Field(
        None, min_length=1, description="What the GPU's name (nvidia-smi) must contain; null: whatever is there."
    )
    webhook: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
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

    @field_validator("timezone")
    @classmethod
    def _timezone_exists(cls, timezone: str) -> str:
        try:
            ZoneInfo(timezone)
        except (ValueError, ZoneInfoNotFoundError):
            raise ValueError("there is no such time zone; for instance: UTC, Europe/Berlin") from None
        return timezone


OPENAI = EndpointSettings(url="https://api.openai.com/v1", key="OPENAI_API_KEY")


class Experiment(_Section):
    """One experiment."""

    name: Key
    description: str = ""
    toy: bool = Field(False, description="A toy world: every figure and table says so.")
    endpoints: dict[Key, EndpointSettings] = Field({}, description="Servers of models; `openai` is there by itself.")
    prices: dict[str, Price] = Field({}, description="By a model's name at its server, per million tokens.")
    currency: str = Field("USD", description="Of the prices.")
    prompts_dir: Path | None = Field(
        None, exclude=True, description="Folder of templates that replace the shipped ones."
    )
    world: MiniatureWorld | EmulatedWorld | ImportedWorld = Field(discriminator="kind")
    models: dict[Key, SourceModel] = {}
    judges: dict[Key, AnyJudge] = {}
    metrics: tuple[Metric, ...] = (Metric.safe, Metric.help)
    agent: AgentSettings = AgentSettings()
    source: Sampling = Sampling()
    test: TestSampling = TestSampling()
    pairs: Pairing = Pairing()
    grid: Grid = Grid()
    training: Training = Training()
    overrides: tuple[Override, ...] = ()
    statistics: Statistics = Statistics()
    limits: Limits = Limits()
    operations: Operations = Operations()
    inventory: Inventory | None = Field(None, exclude=True, description="What was imported; never in the file.")

    @field_validator("overrides")
    @classmethod
    def _overrides_name_parameters(cls, overrides: tuple[Override, ...]) -> tuple[Override, ...]:
        for override in overrides:
            unknown = set(override.training) - set(Training.model_fields)
            if unknown:
                raise ValueError(f"there is no training parameter {sorted(unknown)[0]!r}")
        return overrides

    @model_validator(mode="after")
    def _imported_or_made(self) -> Experiment:
        given = {
            "models": self.models,
            "judges": self.judges,
            "grid.models": self.grid.models,
            "grid.recipes": self.grid.recipes,
            "grid.pairs_judges": self.grid.pairs_judges,
            "grid.betas": self.grid.betas,
            "grid.seeds": self.grid.seeds,
        }
        for name, values in given.items():
            if isinstance(self.world, ImportedWorld):
                if values and name != "grid.betas" and self.inventory is None:
                    raise ValueError(f"{name} is given, but an imported experiment takes it from what it imports")
            elif not values and (name in ("models", "judges") or self._grid_needs(name)):
                raise ValueError(f"{name} names none; at least one is needed")
        return self

    def _grid_needs(self, name: str) -> bool:
        """Says whether the grid needs `name`: without models and recipes nothing is trained, and it may be empty."""
        grid = self.grid
        if grid.models or grid.recipes or isinstance(self.world, MiniatureWorld):
            return True
        return name == "grid.seeds" and bool(grid.pairs_judges)

    @model_validator(mode="after")
    def _roles_can_be_played(self) -> Experiment:
        for place, role in self.roles().items():
            if role.endpoint not in self.all_endpoints():
                raise ValueError(
                    f"{place}.endpoint names {role.endpoint!r}, which is not defined; "
                    f"defined: {sorted(self.all_endpoints())}"
                )
        for name, judge in self.judges.items():
            if isinstance(judge, MiniatureJudge) and not isinstance(self.world, MiniatureWorld):
                raise ValueError(f"judges.{name} judges by the rules of the miniature world and knows no other")
        for name in self.grid.models:
            if isinstance(self.models.get(name), OpenAIModelSettings):
                raise ValueError(
                    f"grid.models names {name!r}, which is behind an endpoint: only models with weights here can be "
                    "trained"
                )
        return self

    @model_validator(mode="after")
    def _references_exist(self) -> Experiment:
        for kind, used, known in (
            ("grid.models", self.grid.models, self.models),
            ("grid.pairs_judges", self.grid.pairs_judges, self.judges),
        ):
            missing = [name for name in used if name not in known]
            if missing:
                raise ValueError(f"{kind} names {missing[0]!r}, which is not defined; defined: {sorted(known)}")
        for metric in (Metric.safe, Metric.help):
            if metric not in self.metrics:
                raise ValueError(
                    f"metrics must hold 'safe' and 'help' (the frontier's axes); {metric.value!r} is missing"
                )
        for name, values in (
            ("models", self.grid.models),
            ("recipes", self.grid.recipes),
            ("pairs_judges", self.grid.pairs_judges),
            ("betas", self.grid.betas),
            ("seeds", self.grid.seeds),
        ):
            if len(set(values)) != len(values):
                raise ValueError(f"grid.{name} holds a value twice")
        return self

    def training_of(self, model: str, recipe: Recipe) -> Training:
        """Returns the training parameters of an agent, overrides applied in order."""
        values = self.training.model_dump()
        for override in self.overrides:
            if override.model in (None, model) and override.recipe in (None, recipe):
                values.update(override.training)
        return Training.model_validate(values)

    def agents(self) -> list[Agent]:
        """Returns every trained agent: of the grid, in order of model, recipe, judge and beta, or those imported."""
        if self.inventory is not None:
            return list(self.inventory.agents)
        return [
            self._agent(model, recipe, judge, beta)
            for model in self.grid.models
            for recipe in self.grid.recipes
            for judge in self.grid.pairs_judges
            for beta in self.grid.betas
        ]

    def stage_agents(self, stage: int) -> list[Agent]:
        """Returns the agents that training `stage` (1, 2 …) makes, those that only later stages need included."""
        found: dict[str, Agent] = {}
        for agent in self.agents():
            if len(agent.stages) >= stage:
                prefix = Recipe("_then_".join(part.metric for part in agent.stages[:stage]))
                assert agent.beta is not None, "only imported agents' stages differ in beta"
                base = self._agent(agent.model, prefix, agent.pairs_judge, agent.beta)
                found.setdefault(base.key, base)
        return list(found.values())

    def all_endpoints(self) -> dict[str, EndpointSettings]:
        """Returns the endpoints by name, `openai` among them."""
        return {"openai": OPENAI, **self.endpoints}

    def roles(self) -> dict[str, OpenAIModelSettings]:
        """Returns every model behind an endpoint, by its place in the file."""
        found: dict[str, OpenAIModelSettings] = {
            f"models.{name}": model for name, model in self.models.items() if isinstance(model, OpenAIModelSettings)
        }
        if isinstance(self.world, EmulatedWorld):
            found["world.emulator"] = self.world.emulator
        found |= {f"judges.{name}": judge for name, judge in self.judges.items() if isinstance(judge, LMJudgeRole)}
        return found

    @property
    def concurrency(self) -> int:
        """Trajectories or verdicts in flight in one process."""
        return self.limits.concurrency or (self.limits.requests if self.roles() else 64)

    @property
    def imports(self) -> bool:
        """Whether its trajectories and verdicts are imported and not made."""
        return isinstance(self.world, ImportedWorld)

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
            "models": {model: ImportedModel() for model in inventory.models},
            "judges": {judge: ImportedJudge() for judge in inventory.judges},
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
        made = isinstance(self.world, MiniatureWorld)
        world = self.world.model_copy(update={"cases": n_cases if made else min(n_cases, self.world.cases)})
        pairs = self.pairs.model_copy(update={"floor": min(self.pairs.floor, 1)})
        return self.model_copy(update={"name": f"{self.name}-pilot", "world": world, "pairs": pairs})

    @property
    def n_stages(self) -> int:
        """The most stages any agent has."""
        return max((len(agent.stages) for agent in self.agents()), default=0)

    def _agent(self, model: str, recipe: Recipe, judge: str, beta: float) -> Agent:
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
        return Agent(agent_key(model, recipe, judge, beta), model, recipe, judge, beta, stages)


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
    """Loads and validates an experiment.

    Raises:
        InputError: No such file, not YAML, or a wrong field; names file, place, and what was expected.
    """
    path = experiment_path(name_or_path)
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InputError(path, place, f"not valid YAML: {getattr(error, 'problem', error)}.") from error
    return validate_record(Experiment, _resolved(value, path.parent), path, "", "See README.md, “The experiment file”.")


def _resolved(value: Any, folder: Path) -> Any:
    """Returns an experiment's fields with the files it names taken from the folder of its own file."""
    if not isinstance(value, dict):
        return value
    value = dict(value)
    if isinstance(value.get("prompts_dir"), str):
        value["prompts_dir"] = folder / value["prompts_dir"]
    world = value.get("world")
    if isinstance(world, dict):
        files = {
            name: folder / world[name] for name in ("case_files", "toolkit_files") if isinstance(world.get(name), str)
        }
        value["world"] = {**world, **files}
    return value


def data_root() -> Path:
    """Returns where artifacts go: `$FRONTIER_DATA`, or `data` in the working directory."""
    return Path(os.environ.get("FRONTIER_DATA") or "data").resolve()
