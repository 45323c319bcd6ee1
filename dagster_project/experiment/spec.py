"""The experiment file: what is run, with what, on what. Validated here, once, with errors that name file and field."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from dagster_project.artifacts import ArtifactStore, Location
from dagster_project.environments import AnyEnvironment
from dagster_project.environments.emulated import parse_range
from dagster_project.experiment.agent_grid import AgentGrid
from dagster_project.experiment.fidelity import with_fidelity
from dagster_project.experiment.imported import Inventory
from dagster_project.experiment.names import KEY, MAX_PARTITION, Key, check_distinct, check_names
from dagster_project.experiment.places import Places
from dagster_project.experiment.pods import PodRule
from dagster_project.experiment.sections import (
    Grid,
    Limits,
    Operations,
    Pairing,
    Planning,
    Sampling,
    Statistics,
    TestSampling,
)
from dagster_project.experiment.training import Trainer
from dagster_project.experiment.yaml_reader import read_yaml
from dagster_project.judges import JUDGES, AnyJudge
from dagster_project.models import MODELS, AnyModel, ModelKind
from dagster_project.serving.settings import AnyEndpoint, ServedEndpoint, Weights
from dagster_project.shipped import shipped
from toolemu.agent import AgentSettings
from toolemu.chat import Price
from toolemu.chat.settings import EndpointSettings, OpenAIModelSettings
from toolemu.errors import FieldError, FrontierError, InputError, validate_record
from toolemu.evaluation import Metric
from toolemu.prompts.sandbox import check_folder
from toolemu.secret_names import keys_in

EXPERIMENTS = shipped("assets_data", "experiments")


OPENAI = EndpointSettings(url="https://api.openai.com/v1", key="OPENAI_API_KEY")


class Experiment(AgentGrid):
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
    models: dict[Key, AnyModel] = Field({}, description="Source models, whose trajectories become pairs.")
    judges: dict[Key, AnyJudge] = Field({}, description="Who scores trajectories.")
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
    trainer: Trainer = Trainer()
    statistics: Statistics = Statistics()
    limits: Limits = Limits()
    operations: Operations = Operations()
    planning: Planning = Field(Planning(), exclude=True, description="Assumptions of `frontier plan`.")
    kubernetes: tuple[PodRule, ...] = Field((), description="Pods of assets, where steps run in pods; docs/deploy.md.")
    asked_as: str = Field("", exclude=True, description="On the command line, options too; never in the file.")

    @field_validator("prompts_dir", mode="before")
    @classmethod
    def _prompts_are_in_no_link(cls, folder: Any, info: ValidationInfo) -> Any:
        if not isinstance(folder, str) or not isinstance(info.context, Places):
            return folder
        found = info.context.find("prompts_dir", folder)
        check_folder(found, info.context.folder)
        return found

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


def _code_of(section: ModelKind) -> dict[str, str]:
    """Return a model's code version for its configuration: Dagster's code versions are of all models together."""
    version = section.code_version()
    return {"model_code": version} if version else {}


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
        experiment = validate_record(Experiment, with_fidelity(value), path, "", remedy, context=places)
    except InputError as error:
        raise places.hide(error) from None
    return experiment.model_copy(update={"asked_as": shlex.quote(name_or_path)})


def open_store(experiment: Experiment) -> ArtifactStore:
    """Returns an experiment's artifacts, below `data_root`."""
    return ArtifactStore(data_root(), experiment.name, experiment.argument)


def data_root() -> Location:
    """Returns where artifacts go: `$FRONTIER_DATA` (a path, or `s3://bucket/prefix`), or `data` where we are."""
    place = os.environ.get("FRONTIER_DATA") or "data"
    return place.rstrip("/") if "://" in place else Path(place).resolve()
