"""The agents of an experiment: the grid, how each of its agents is trained, and those that were trained elsewhere."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from dagster_project.experiment.agents import VARIANT, Agent, Recipe, Stage, TrainedMetric, agent_key
from dagster_project.experiment.imported import Inventory
from dagster_project.experiment.names import Key, check_names
from dagster_project.experiment.sections import Grid, Override, Section
from dagster_project.experiment.training import Training
from dagster_project.models import AnyOwnAgent, OwnAgent
from toolemu.errors import validation_problem


class AgentGrid(Section):
    """The fields of the experiment file that decide which agents there are."""

    own_agents: dict[Key, AnyOwnAgent] = Field(
        {}, description="Agents trained elsewhere, tested like those trained here."
    )
    grid: Grid = Grid()
    training: Training = Training()
    overrides: tuple[Override, ...] = ()
    variants: dict[Annotated[str, Field(pattern=rf"^{VARIANT}$")], dict[str, Any]] = Field(
        {}, description="Other training parameters by name; a recipe with a name takes them: `safe@ipo`."
    )
    inventory: Inventory | None = Field(None, exclude=True, description="What was imported; never in the file.")

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

    @model_validator(mode="after")
    def _overrides_make_sense(self) -> Self:
        overrides = (
            (f"overrides.{place}.training", override.training) for place, override in enumerate(self.overrides)
        )
        for place, changes in (*overrides, *((f"variants.{name}", changes) for name, changes in self.variants.items())):
            check_names(place, changes, Training.model_fields, "training parameter")
            try:
                Training.model_validate(self.training.changed(changes))
            except ValidationError as error:
                where, problem = validation_problem(error)
                raise ValueError(f"{place}: {where}: {problem.rstrip('.')}") from None
        return self

    @model_validator(mode="after")
    def _recipes_can_be_trained(self) -> Self:
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
