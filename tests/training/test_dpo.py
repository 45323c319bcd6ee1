from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from peft import PeftConfig
from safetensors.torch import load_file

from dagster_project.experiment.agents import Recipe
from dagster_project.experiment.spec import Experiment
from dagster_project.experiment.training import SMOOTHED, Loss, Trainer, Training
from dagster_project.training import dpo
from dagster_project.training.concatenate import weight_shapes
from dagster_project.training.dpo import Listener, TrainingResult, train_adapter
from dagster_project.training.estimate import Card, base_shape, flops_per_token
from tests.conftest import SMALL
from toolemu.errors import FrontierError

from .toy import FAST, Corpus, files_of, paths_in

QUIET = Listener()


def train(
    corpus: Corpus, base: Path, out: Path, training: Training = FAST, listener: Listener = QUIET, **fields: Any
) -> TrainingResult:
    return train_adapter(corpus.job(base, out, training, **fields), listener)


def test_the_same_training_gives_the_same_files_wherever_it_runs(corpus: Corpus, base: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "another-place" / "weights"
    shutil.copytree(base, elsewhere)
    first = train(corpus, base, tmp_path / "first")
    second = train(corpus, elsewhere, tmp_path / "a" / "b" / "second")
    files = files_of(tmp_path / "first")
    assert files == files_of(tmp_path / "a" / "b" / "second")
    assert {"adapter_config.json", "adapter_model.safetensors"} <= files.keys()
    assert first.steps == second.steps
    config = json.loads(files["adapter_config.json"])
    assert config["base_model_name_or_path"] == "source_models/model=m"
    assert config["target_modules"] == sorted(config["target_modules"])  # a set's order differs between processes
    assert not paths_in(tmp_path / "first", [str(base), str(tmp_path), str(Path.home())])


def test_a_base_on_the_hub_is_called_what_it_is_called_there(corpus: Corpus, base: Path, tmp_path: Path) -> None:
    short = FAST.model_copy(update={"max_steps": 1})
    train(corpus, base, tmp_path / "out", short, base_hub="lab/model", base_commit="abc")
    config = PeftConfig.from_pretrained(tmp_path / "out")
    assert (config.base_model_name_or_path, config.revision) == ("lab/model", "abc")


def test_saving_asks_no_hub_for_the_base(
    corpus: Corpus, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*_: object, **__: object) -> bool:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("peft.utils.save_and_load.check_file_exists_on_hf_hub", ask)
    train(corpus, base, tmp_path / "out", FAST.model_copy(update={"max_steps": 1}))


def test_a_process_alone_does_no_job_for_several(
    corpus: Corpus, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(*_: object, **__: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(dpo, "load_model", loaded)
    with pytest.raises(FrontierError, match=r"trainer\.processes is 2, but 1 take part\. Start it as `accelerate"):
        train(corpus, base, tmp_path / "out", trainer=Trainer(mode="accelerate", processes=2))


def test_another_seed_gives_another_adapter(corpus: Corpus, base: Path, tmp_path: Path) -> None:
    train(corpus, base, tmp_path / "first")
    train(corpus, base, tmp_path / "second", seed=6)
    assert files_of(tmp_path / "first") != files_of(tmp_path / "second")


def test_every_step_is_reported_and_the_loss_starts_at_log_2(corpus: Corpus, base: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    result = train(corpus, base, tmp_path / "out", listener=Listener(progress=lambda *at: seen.append(at)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert [step.step for step in result.steps] == [1, 2, 3]
    assert result.steps[0].loss == pytest.approx(0.6931, abs=1e-3)
    assert result.pairs == len(corpus.pairs)
    assert result.too_long == 0


def test_pairs_that_are_too_long_are_left_out_and_counted(corpus: Corpus, base: Path, tmp_path: Path) -> None:
    lengths = sorted(pair.length for pair in corpus.tokens())
    limit = lengths[len(lengths) // 2]
    short = sum(length <= limit for length in lengths)
    assert 0 < short < len(lengths)
    result = train(
        corpus,
        base,
        tmp_path / "out",
        FAST.model_copy(update={"max_length": limit, "max_steps": 1}),
    )
    assert (result.pairs, result.too_long) == (short, len(lengths) - short)


def test_pairs_with_too_long_a_prompt_are_left_out_and_counted(corpus: Corpus, base: Path, tmp_path: Path) -> None:
    prompts = sorted(len(pair.prompt_ids) for pair in corpus.tokens())
    limit = prompts[len(prompts) // 2]
    short = sum(length <= limit for length in prompts)
    assert 0 < short < len(prompts)
    training = FAST.model_copy(update={"max_prompt_length": limit, "max_steps": 1})
    result = train(corpus, base, tmp_path / "out", training)
    assert (result.pairs, result.too_long) == (short, len(prompts) - short)
    with pytest.raises(FrontierError, match=r"and a prompt of at most max_prompt_length = 3; raise it"):
        train(corpus, base, tmp_path / "out", training.model_copy(update={"max_prompt_length": 3}))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_base_of_fewer_bits_trains_an_adapter_of_32(corpus: Corpus, base: Path, dtype: str, tmp_path: Path) -> None:
    result = train(corpus, base, tmp_path / "out", FAST.model_copy(update={"dtype": dtype, "learning_rate": 1e-3}))
    exact = train(corpus, base, tmp_path / "exact", FAST.model_copy(update={"learning_rate": 1e-3}))
    assert result.steps != exact.steps
    assert [step.loss for step in result.steps] == pytest.approx([step.loss for step in exact.steps], abs=2e-2)
    adapter = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert {weight.dtype for weight in adapter.values()} == {torch.float32}


def test_training_needs_a_pair_that_fits(corpus: Corpus, base: Path, tmp_path: Path) -> None:
    with pytest.raises(FrontierError, match=f"None of the {len(corpus.pairs)} pairs has at most max_length = 16"):
        train(corpus, base, tmp_path / "out", FAST.model_copy(update={"max_length": 16}))


def test_every_step_is_reported_to_tensorboard_when_asked(corpus: Corpus, base: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="needs the extra track or dev: pip install 'safety-frontier[track]'")
    tracking = tmp_path / "board"
    train(corpus, base, tmp_path / "out", trainer=Trainer(track=("tensorboard",)), tracking=tracking)
    written = b"".join(path.read_bytes() for path in tracking.rglob("events.out.*"))
    assert written.count(b"train/loss") == FAST.max_steps
    assert b"rewards/margins" in written


def test_every_training_is_a_run_of_its_own_on_wandb(
    corpus: Corpus, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="needs the extra track or dev: pip install 'safety-frontier[track]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("one", "other"):
        trainer = Trainer(track=("wandb",), wandb_project="frontiers", wandb_entity="lab")
        train(corpus, base, tmp_path / name, trainer=trainer, name=f"agent {name}")
    for name, others in (("one", "other"), ("other", "one")):
        (written,) = (tmp_path / f"{name}-work").rglob("*.wandb")
        content = written.read_bytes()
        assert b"rewards/margins" in content
        assert content.count(b"train/loss") >= (FAST.max_steps or 0)
        assert f"agent {name}".encode() in content
        assert f"agent {others}".encode() not in content
        assert b"frontiers" in content
        assert b"lab" in content


def test_without_a_key_for_wandb_nothing_is_begun(
    corpus: Corpus, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb", reason="needs the extra track or dev")

    def refuse(**_: object) -> None:
        raise wandb.errors.UsageError("No API key configured.")

    def loaded(*_: object, **__: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(wandb, "init", refuse)
    monkeypatch.setattr("dagster_project.training.dpo.load_model", loaded)
    with pytest.raises(FrontierError, match=r"No API key configured\. Set WANDB_API_KEY, or WANDB_MODE=offline"):
        train(corpus, base, tmp_path / "out", trainer=Trainer(track=("wandb",)))


OTHER_ADAPTERS: dict[str, Any] = {
    "loss": "hinge", "learning_rate": 2e-2, "scheduler": "constant_with_warmup", "warmup_ratio": 0.9,
    "weight_decay": 0.1, "max_grad_norm": 1e-3, "max_steps": 2, "batch_size": 3, "length_grouping": True,
    "batch_by": "case", "lora_rank": 2, "lora_alpha": 4, "lora_dropout": 0.5, "lora_targets": ("q_proj",),
    "rslora": True, "dtype": "bfloat16", "mask_observations": False, "seed": 7,
}  # fmt: skip
"""A value of every field that decides an adapter, but for those that decide which pairs or steps there are, and
quantisation."""


@pytest.fixture(scope="module")
def plain(corpus: Corpus, base: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    out = tmp_path_factory.mktemp("plain") / "out"
    train(corpus, base, out)
    return (out / "adapter_model.safetensors").read_bytes()


def test_every_field_that_decides_an_adapter_is_known() -> None:
    elsewhere = {"preset", "label_smoothing", "quantization", "max_length", "max_prompt_length"}
    elsewhere |= {"epochs", "epochs_both"}  # a job has its stage's
    elsewhere |= {"train_on_reasoning"}  # these agents do not think
    assert OTHER_ADAPTERS.keys() == Training.model_fields.keys() - elsewhere


@pytest.mark.parametrize("field", OTHER_ADAPTERS)
def test_what_decides_an_adapter_does(corpus: Corpus, base: Path, plain: bytes, field: str, tmp_path: Path) -> None:
    train(corpus, base, tmp_path / "out", FAST.model_copy(update={field: OTHER_ADAPTERS[field]}))
    assert (tmp_path / "out" / "adapter_model.safetensors").read_bytes() != plain


def test_utilisation_counts_what_was_computed_by_all_cards_and_recomputing_apart(
    corpus: Corpus, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[float, float, float]] = []
    utilisation = dpo._Attempt._utilisation

    def keep(self: Any, speed: float, context: float, recomputed: float) -> float | None:
        asked.append((speed, context, recomputed))
        card = Card("NVIDIA H100 80GB HBM3", 2**36, 2**36)
        self.prepared = self.prepared._replace(card=card)
        self.job = self.job.model_copy(update={"trainer": Trainer(mode="accelerate", processes=2)})
        return utilisation(self, speed, context, recomputed)

    monkeypatch.setattr(dpo._Attempt, "_utilisation", keep)
    result = train(corpus, base, tmp_path / "out", trainer=Trainer(gradient_checkpointing="always"))
    (speed, context, plain), (again, _, recomputed) = asked
    assert speed == again == pytest.approx(result.computed_tokens / result.seconds, rel=1e-3)
    assert (plain, recomputed) == (0.0, result.recomputed) == (0.0, 1.0)
    lengths = [
        len(pair.prompt_ids) + len(side) for pair in corpus.tokens() for side in (pair.chosen_ids, pair.rejected_ids)
    ]
    assert context == pytest.approx(sum(lengths) / len(lengths), rel=1e-2)
    shape = base_shape(base, weight_shapes(base))
    assert result.mfu == pytest.approx(speed * flops_per_token(shape, context) / (2 * 989e12))
    assert result.hfu == pytest.approx(1.5 * (result.mfu or 0))


@pytest.mark.parametrize("loss", SMOOTHED)
def test_label_smoothing_is_read_by_the_losses_that_take_it(
    corpus: Corpus, base: Path, loss: Loss, tmp_path: Path
) -> None:
    ends = []
    for smoothing in (0.1, 0.3):
        training = FAST.model_copy(update={"loss": loss, "label_smoothing": smoothing})
        ends.append(train(corpus, base, tmp_path / str(smoothing), training).steps[-1].loss)
    assert ends[0] != pytest.approx(ends[1], abs=1e-4)


def test_beta_and_epochs_are_the_jobs(corpus: Corpus, base: Path, plain: bytes, tmp_path: Path) -> None:
    result = train(corpus, base, tmp_path / "stiff", beta=0.9)
    assert (tmp_path / "stiff" / "adapter_model.safetensors").read_bytes() != plain
    step = result.steps[1]
    assert step.reward_chosen == pytest.approx(
        9 * train(corpus, base, tmp_path / "soft").steps[1].reward_chosen, rel=0.2
    )
    training = FAST.model_copy(update={"max_steps": None, "batch_size": 8})
    each = -(-len(corpus.pairs) // 8)
    for epochs, steps in ((1, each), (2, 2 * each), (0.5, math.ceil(each / 2))):
        assert len(train(corpus, base, tmp_path / "long", training, epochs=epochs).steps) == steps


@pytest.mark.parametrize("scheduler", ["cosine", "linear", "constant_with_warmup"])
def test_the_learning_rate_rises_and_falls_as_asked(corpus: Corpus, base: Path, scheduler: str, tmp_path: Path) -> None:
    changes = {"scheduler": scheduler, "warmup_ratio": 0.25, "max_steps": 8, "learning_rate": 1e-3}
    result = train(corpus, base, tmp_path / "out", FAST.model_copy(update=changes))
    falls = {
        "cosine": [0.5 * (1 + math.cos(math.pi * step / 6)) for step in range(6)],
        "linear": [1 - step / 6 for step in range(6)],
        "constant_with_warmup": [1.0] * 6,
    }
    expected = [1e-3 * share for share in (0.0, 0.5, *falls[scheduler])]
    assert [step.learning_rate for step in result.steps] == pytest.approx(expected, rel=1e-6)


AT_FIRST = {
    "sigmoid": math.log(2),
    "hinge": 1.0,
    "ipo": 25.0,
    "exo_pair": 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1),
    "nca_pair": 2 * math.log(2),
    "robust": math.log(2),
    "sppo_hard": 50.0,
    "apo_zero": 1.0,
    "apo_down": 1.0,
    "discopop": 0.5 * math.log(2) + 0.5,
    "sigmoid_norm": math.log(2),
}
"""Each loss, at beta 0.1 and, if it knows of it, a label smoothing of 0.1, where policy and reference are the same."""


@pytest.mark.parametrize("loss", get_args(Loss))
def test_every_loss_of_an_experiment_file_starts_where_its_paper_says(
    corpus: Corpus, base: Path, loss: Loss, tmp_path: Path
) -> None:
    grid = {"models": ["eager"], "recipes": ["safe@other"], "pairs_judges": ["strict"], "seeds": [0]}
    smoothing = 0.1 if loss in SMOOTHED else 0.0
    variants = {"other": {**FAST.model_dump(), "loss": loss, "label_smoothing": smoothing, "max_steps": 3}}
    experiment = Experiment.model_validate({**SMALL, "grid": grid, "variants": variants})
    result = train(corpus, base, tmp_path / "out", experiment.training_of("eager", Recipe("safe@other")))
    assert result.steps[0].loss == pytest.approx(AT_FIRST[loss], rel=1e-4)
    assert result.steps[2].loss != pytest.approx(AT_FIRST[loss], abs=1e-6)


def test_dropout_is_on_when_asked_and_the_adapter_alone_has_it(corpus: Corpus, base: Path, tmp_path: Path) -> None:
    plain = train(corpus, base, tmp_path / "plain")
    dropped = train(corpus, base, tmp_path / "dropped", FAST.model_copy(update={"lora_dropout": 0.5}))
    again = train(corpus, base, tmp_path / "again", FAST.model_copy(update={"lora_dropout": 0.5}))
    assert dropped.steps == again.steps
    assert dropped.steps[-1].loss != plain.steps[-1].loss
    # the adapter adds nothing yet in the first step, with dropout or without, and the base has none
    assert dropped.steps[0].loss == pytest.approx(plain.steps[0].loss, abs=1e-6)


def test_modules_and_scale_are_those_asked_for(corpus: Corpus, base: Path, tmp_path: Path) -> None:
    asked = FAST.model_copy(update={"lora_targets": ("q_proj", "v_proj"), "rslora": True, "max_steps": 1})
    train(corpus, base, tmp_path / "out", asked)
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["target_modules"], config["use_rslora"]) == (["q_proj", "v_proj"], True)
