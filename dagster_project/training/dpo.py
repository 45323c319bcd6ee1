"""DPO with a LoRA adapter: TRL's trainer on tokens of our own, so that observations can be masked."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from dagster_project.experiment.spec import Training
from dagster_project.training.conversations import TokenPair
from toolemu.errors import FrontierError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LOGS = {
    "loss": "loss",
    "rewards/accuracies": "reward_accuracy",
    "rewards/margins": "reward_margin",
    "rewards/chosen": "reward_chosen",
    "rewards/rejected": "reward_rejected",
    "logps/chosen": "logps_chosen",
    "logps/rejected": "logps_rejected",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
}


class TrainingStep(BaseModel):
    """What was measured at one optimiser step; sums of log-probabilities are over a completion's counted tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    loss: float
    reward_accuracy: float
    reward_margin: float
    reward_chosen: float
    reward_rejected: float
    logps_chosen: float
    logps_rejected: float
    grad_norm: float
    learning_rate: float


class TrainingResult(NamedTuple):
    """The steps of a training; what it took (not part of its content); and how many pairs it used and left out."""

    steps: list[TrainingStep]
    seconds: float
    tokens_per_second: float
    pairs: int
    too_long: int


@dataclass(frozen=True)
class DPOParameters:
    """Everything that decides an adapter besides the base and the pairs."""

    training: Training
    beta: float
    epochs: float
    seed: int


def load_model(path: Path, dtype: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Returns the model and the tokenizer in a directory; nothing is fetched from a hub."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype), local_files_only=True)
    return model, AutoTokenizer.from_pretrained(path, local_files_only=True)


def train_adapter(
    base: Path,
    base_label: str,
    tokenized: Callable[[PreTrainedTokenizerBase], Sequence[TokenPair]],
    parameters: DPOParameters,
    out: Path,
    progress: Callable[[int, int], None],
) -> TrainingResult:
    """Trains a LoRA adapter by DPO and writes it below `out`; the reference is the base without the adapter.

    Args:
        base: Directory of the base's weights and tokenizer.
        base_label: What the adapter's configuration calls its base: a name that does not change from machine to
            machine, so that the same training gives the same files.
        tokenized: Gives the pairs, tokenized by the base's tokenizer.
        parameters: How to train.
        out: Where the adapter goes.
        progress: Told the step and how many there are.

    Raises:
        FrontierError: No pair is short enough, or the loss is not a number.
    """
    # TRL and its companions greet on import and warn of the masks that we set on purpose.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch
    from peft import LoraConfig
    from transformers import TrainerCallback
    from transformers.trainer_callback import PrinterCallback
    from trl import DPOConfig

    from dagster_project.training.trainer import MaskedPreferenceCollator, PreparedDPOTrainer, pair_dataset

    logging.getLogger("transformers").setLevel(logging.ERROR)
    training = parameters.training
    model, tokenizer = load_model(base, training.dtype)
    everything = tokenized(tokenizer)
    pairs = [pair for pair in everything if pair.length <= training.max_length]
    if not pairs:
        raise FrontierError(
            f"None of the {len(everything)} pairs has at most max_length = {training.max_length} tokens; raise it."
        )

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            progress(state.global_step, state.max_steps)

    on_cpu = not torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as scratch:
        config = DPOConfig(
            output_dir=scratch,
            beta=parameters.beta,
            learning_rate=training.learning_rate,
            num_train_epochs=parameters.epochs,
            max_steps=training.max_steps or -1,
            per_device_train_batch_size=training.batch_size,
            lr_scheduler_type="cosine",
            warmup_steps=training.warmup_ratio,
            max_grad_norm=1.0,
            max_length=None,
            bf16=training.dtype == "bfloat16",
            gradient_checkpointing=False,
            remove_unused_columns=False,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=parameters.seed,
            use_cpu=on_cpu,
            dataloader_pin_memory=not on_cpu,
        )
        trainer = PreparedDPOTrainer(
            model=model,
            args=config,
            train_dataset=pair_dataset(pairs),
            processing_class=tokenizer,
            data_collator=MaskedPreferenceCollator(pad_token_id=_pad_token(tokenizer)),
            peft_config=LoraConfig(
                r=training.lora_rank,
                lora_alpha=training.lora_alpha,
                target_modules="all-linear",
                bias="none",
                task_type="CAUSAL_LM",
            ),
            callbacks=[Watch()],
        )
        trainer.remove_callback(PrinterCallback)
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
        steps = _steps(trainer.state.log_history)
        _save_adapter(trainer.model, base_label, out)
    tokens = sum(2 * len(pair.prompt_ids) + len(pair.chosen_ids) + len(pair.rejected_ids) for pair in pairs)
    seen = tokens * len(steps) * training.batch_size / len(pairs)
    return TrainingResult(steps, seconds, seen / seconds, len(pairs), len(everything) - len(pairs))


def _pad_token(tokenizer: PreTrainedTokenizerBase) -> int:
    token = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    if not isinstance(token, int):
        raise FrontierError(f"The tokenizer of {tokenizer.name_or_path} has neither a padding nor an end token.")
    return token


def _steps(history: Sequence[dict[str, Any]]) -> list[TrainingStep]:
    logs = [log for log in history if "loss" in log]
    steps = [TrainingStep(step=log["step"], **{name: float(log[key]) for key, name in LOGS.items()}) for log in logs]
    for step in steps:
        if step.loss != step.loss:  # NaN
            raise FrontierError(f"The loss is not a number at step {step.step}; lower the learning rate.")
    return steps


def _save_adapter(model: Any, base_label: str, out: Path) -> None:
    """Saves the adapter so that equal adapters are equal files, with a stable name for its base.

    PEFT would write a path of this machine, and the modules in a set's order, which differs from process to process.
    """
    config = model.peft_config["default"]
    config.base_model_name_or_path = base_label
    config.target_modules = sorted(config.target_modules)
    # Left to itself, PEFT asks the hub for a model of that name to find out whether the vocabulary was changed.
    model.save_pretrained(out, save_embedding_layers=False)
    (out / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
