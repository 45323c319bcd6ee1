from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from dagster_project.experiment.agents import Recipe
from dagster_project.experiment.spec import Experiment
from dagster_project.experiment.training import Trainer, Training
from dagster_project.training.job import TrainingJob
from tests.conftest import SMALL


def experiment(**sections: Any) -> Experiment:
    return Experiment.model_validate({**SMALL, **sections})


def test_a_preset_gives_what_is_not_given() -> None:
    training = Training.model_validate({"preset": "published", "lora_rank": 4})
    assert (training.lora_rank, training.lora_alpha, training.mask_observations, training.seed) == (4, 32, False, 42)
    assert Training().mask_observations
    assert Trainer.model_validate({"preset": "published"}).micro_batch_size == 1


def test_the_published_preset_names_every_field() -> None:
    assert set(Training.PRESETS["published"]) == set(Training.model_fields) - {"preset"}


RELEASED = {
    "quantization": "training.quantization",
    "fp16": "training.dtype",
    "batch-size": "trainer.micro_batch_size",
    "gradient-accumulation-steps": "training.batch_size",
    "learning-rate": "training.learning_rate",
    "num-epochs": "training.epochs",
    "max-steps": "training.max_steps",
    "warmup-ratio": "training.warmup_ratio",
    "seed": "training.seed",
    "resume-from-checkpoint": "trainer.checkpoint_every",
    "lora-r": "training.lora_rank",
    "lora-alpha": "training.lora_alpha",
    "lora-dropout": "training.lora_dropout",
    "dpo-beta": "job.beta",
    "max-length": "training.max_length",
    "max-prompt-length": "training.max_prompt_length",
    "save-steps": "trainer.checkpoint_every",
    "wandb project": "trainer.wandb_project",
    "wandb entity": "trainer.wandb_entity",
    "no-wandb": "trainer.track",
    "model": "job.base",
    "data-path": "job.pairs",
    "output-dir": "job.out",
}
"""The options of the released trainer, and where they are here. Not here: its evaluation on held-out pairs, which is
off there; `logging-steps`, since every step is kept; the split's seed, since pairs are of one half of the cases."""


def test_every_setting_of_the_released_trainer_has_a_field_and_every_field_says_what_it_is() -> None:
    parts: dict[str, type[BaseModel]] = {"training": Training, "trainer": Trainer, "job": TrainingJob}
    for place in RELEASED.values():
        part, _, name = place.partition(".")
        assert name in parts[part].model_fields, place
    for part in parts.values():
        undescribed = [name for name, field in part.model_fields.items() if not field.description]
        assert undescribed in ([], ["training", "trainer"])


def test_a_preset_is_its_values_and_leaves_no_other_trace() -> None:
    named = Training.model_validate({"preset": "published"})
    spelled = Training.model_validate(dict(Training.PRESETS["published"]))
    assert named.model_dump() == spelled.model_dump()
    assert Training.model_validate(named.model_dump()).model_dump() == named.model_dump()


def test_an_override_may_take_a_preset_or_change_one() -> None:
    found = experiment(overrides=[{"recipe": "safe", "training": {"preset": "published", "batch_size": 2}}])
    safe, other = found.training_of("eager", Recipe.safe), found.training_of("eager", Recipe.help)
    assert (safe.mask_observations, safe.batch_size, safe.learning_rate) == (False, 2, 5e-5)
    assert (other.mask_observations, other.batch_size) == (True, 4)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"training": {"loss": "exo_pair"}}, "exo_pair needs label_smoothing"),
        ({"training": {"label_smoothing": 0.1}}, "the loss sigmoid does not know of label_smoothing"),
        ({"training": {"loss": "aot"}}, "training.loss"),
        ({"training": {"preset": "papers"}}, "training.preset"),
        ({"trainer": {"processes": 2}}, "need mode: accelerate"),
        ({"trainer": {"push_to_hub": "no slash"}}, "trainer.push_to_hub"),
        ({"overrides": [{"training": {"learning_rate": -1}}]}, "learning_rate"),
        ({"overrides": [{"training": {"loss": "exo_pair"}}]}, "exo_pair needs label_smoothing"),
    ],
)
def test_settings_that_cannot_be_are_refused(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        experiment(**sections)


def test_how_a_training_is_computed_makes_no_other_agents() -> None:
    from dagster_project.experiment.graph import build_graph

    def configs(found: Experiment) -> list[Any]:
        node = build_graph(found).nodes["agent_specs"]
        return [node.config(ref) for ref in node.refs()]

    assert configs(experiment(trainer={"micro_batch_size": 1, "checkpoint_every": 7})) == configs(experiment())
    assert configs(experiment(training={**SMALL["training"], "lora_dropout": 0.1})) != configs(experiment())  # type: ignore[dict-item]
