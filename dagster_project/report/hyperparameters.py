"""What training used, for the table of hyper-parameters: from the experiment, never by heart."""

from __future__ import annotations

from dagster_project.experiment.spec import Experiment


def hyperparameters(experiment: Experiment) -> dict[str, str] | None:
    """Returns the training's parameters by name; None for imported runs, which do not say theirs."""
    if experiment.imports:
        return None
    training = {name: str(value) for name, value in experiment.training.model_dump().items() if value is not None}
    grid = {
        "betas": ", ".join(f"{beta:g}" for beta in experiment.grid.betas),
        "seeds": ", ".join(map(str, experiment.grid.seeds)),
        "agent prompt": experiment.agent.prompt_style,
        "agent token budget": str(experiment.agent.token_budget),
        "test temperature": f"{experiment.test.temperature:g}",
        "test samples per case": str(experiment.test.samples),
    }
    return {**{name.replace("_", " "): value for name, value in training.items()}, **grid}
