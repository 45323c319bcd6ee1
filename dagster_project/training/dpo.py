"""DPO with a LoRA adapter: a training job from its checks to the adapter on disk.

``python -m dagster_project.training.dpo JOB`` does one that lies in a file; ``accelerate launch -m`` the same in
several processes.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import importlib.util
import itertools
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
from pydantic import BaseModel, ConfigDict

from dagster_project.artifacts.manifest import content_sha256, file_sha256, tree_entries
from dagster_project.artifacts.snapshots import last_complete, mark_complete, number_of
from dagster_project.training.chat_template import Tokens
from dagster_project.training.estimate import (
    KEPT_CHECKPOINTS,
    Plan,
    divisors,
    flops_per_token,
    writes_checkpoints,
)
from dagster_project.training.grouping import group_by_prompt, group_keys
from dagster_project.training.job import TrainingJob, read_job
from dagster_project.training.launch import PROGRAM, every_so_often, failure_path, result_path, watch_parent
from dagster_project.training.preflight import Prepared, prepare
from dagster_project.training.references import ReferenceStore
from dagster_project.training.tracking import tracked
from toolemu.errors import FrontierError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from dagster_project.training.trainer import PreparedDPOTrainer

LOGS = {
    "loss": "loss",
    "rewards/accuracies": "reward_accuracy",
    "rewards/margins": "reward_margin",
    "rewards/chosen": "reward_chosen",
    "rewards/rejected": "reward_rejected",
    "logps/chosen": "logps_chosen",
    "logps/rejected": "logps_rejected",
    "entropy": "entropy",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "num_tokens": "tokens",
}
PROBES, N_PROBES, PROBE_TOKENS = "probes.json", 4, 1024
"""File beside the adapter with some of its conversations as token ids, to compare models on; how many, how long."""
KL_CONVERSATIONS, KL_TOKENS = 16, 512
"""How many conversations, and tokens of each, the divergence from the base is taken on."""


class TrainingStep(BaseModel):
    """What was measured at one optimiser step; sums of log-probabilities are over a completion's counted tokens.

    Attributes:
        entropy: Mean entropy of the agent's next token, in nats.
        tokens: Tokens trained on so far, prompts of both sides included, padding not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    loss: float
    reward_accuracy: float
    reward_margin: float
    reward_chosen: float
    reward_rejected: float
    logps_chosen: float
    logps_rejected: float
    entropy: float
    grad_norm: float
    learning_rate: float
    tokens: float


class TrainingResult(BaseModel):
    """What came of a training.

    Attributes:
        steps: The curve.
        pairs: Pairs used.
        too_long: Pairs left out for their length.
        without_words: Pairs left out because the agent says nothing on one side.
        conversations: Distinct conversations in the pairs.
        sequences: Sequences of tokens that these are; more if the chat template rewrites earlier turns.
        references_reused: Of these, how many had their reference log-probability from the store.
        kl: Divergence KL(agent ‖ base) a token of the agent's, in nats; exact over the vocabulary, mean over tokens of
            some of the pairs' conversations.
        seconds: What the training took, without loading and reference.
        reference_seconds: What the reference took.
        resumed_at: The step that was gone on from; 0 for a fresh start.
        tokens_per_second: Tokens trained on a second, padding left out.
        computed_tokens: Tokens that the policy computed for it since `resumed_at`: fewer where text was shared.
        mfu: Share of the card's peak that was of use: recomputing is not counted. None without a known card.
        hfu: The same with what was recomputed.
        peak_memory: Most bytes on the (first) card; None without one.
        micro_batch: Pairs on a card at once.
        recomputed: Share of the tokens whose activations were computed again.
        attention: How attention was computed.
        notes: What did not go as planned.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: list[TrainingStep]
    pairs: int
    too_long: int
    without_words: int
    conversations: int
    sequences: int
    references_reused: int
    kl: float
    seconds: float
    reference_seconds: float
    resumed_at: int
    tokens_per_second: float
    computed_tokens: int
    mfu: float | None
    hfu: float | None
    peak_memory: int | None
    micro_batch: int
    recomputed: float
    attention: str
    notes: list[str]


class Listener(NamedTuple):
    """Who is told how a training goes: a line for a log, and steps done of how many."""

    log: Callable[[str], None] = lambda _: None
    progress: Callable[[int, int], None] = lambda *_: None


def load_model(path: Path, dtype: str, **options: Any) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Returns the model and the tokenizer in a directory; nothing is fetched from a hub."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(
        path,
        dtype=dtype if dtype == "auto" else getattr(torch, dtype),
        local_files_only=True,
        trust_remote_code=False,
        **options,
    )
    return model, AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)


def train_adapter(job: TrainingJob, listener: Listener = Listener()) -> TrainingResult:  # noqa: B008
    """Trains a LoRA adapter by DPO and writes it to the job's folder; the reference is the base without the adapter.

    A training that was killed goes on from its last checkpoint and comes out as if it had not been. A card that runs
    out of memory is answered by half as many pairs at once and twice as many micro-batches a step.

    Raises:
        FrontierError: Something will not do (see `prepare`), the loss or its gradient is no number, or not even one
            pair fits the card.
    """
    # TRL and its companions greet on import and warn of the masks that we set on purpose.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in ("transformers", "bitsandbytes"):
        logging.getLogger(name).setLevel(logging.ERROR)
    prepared = prepare(job)
    _check_processes(job, int(os.environ.get("WORLD_SIZE", "1")))
    listener.log(prepared.summary())
    if not job.base_sha256:
        job = job.model_copy(update={"base_sha256": base_sha256(job.base)})
    import torch

    if prepared.card is not None and not torch.cuda.is_available():
        raise FrontierError(
            f"There is {prepared.card.name}, but PyTorch {torch.__version__} cannot use it. Install PyTorch for CUDA, "
            "or set CUDA_VISIBLE_DEVICES to nothing to train on the CPU."
        )
    notes: list[str] = []
    while True:
        try:
            return _Attempt(job, prepared, listener, notes).run()
        except torch.OutOfMemoryError as error:
            smaller = _smaller(job, prepared.plan)
            if smaller is None or job.trainer.processes > 1:
                raise FrontierError(
                    f"The card ran out of memory with {prepared.plan.micro_batch} pairs at once: {error}. Set "
                    "trainer.micro_batch_size or training.max_length lower, trainer.gradient_checkpointing to auto, or "
                    "trainer.shared_text to true."
                ) from error
        notes.append(
            f"The card ran out of memory with {prepared.plan.micro_batch} pairs at once; went on with "
            f"{smaller.micro_batch}{'' if smaller.plain_tokens else ' and recomputed activations'}."
        )
        listener.log(notes[-1])
        prepared = prepared._replace(plan=smaller)
        gc.collect()
        torch.cuda.empty_cache()


def _check_processes(job: TrainingJob, found: int) -> None:
    """Checks how many processes take part: too few would each train alone, without a word."""
    wanted = job.trainer.processes
    if found != wanted:
        raise FrontierError(
            f"trainer.processes is {wanted}, but {found} take part. Start it as `accelerate launch --num_processes "
            f"{wanted} -m {PROGRAM} JOB` (with --multi_gpu on CPUs, too), or set trainer.processes to {found}."
        )


def _smaller(job: TrainingJob, plan: Plan) -> Plan | None:
    """Returns a plan of the same batch that needs less memory, if there is one."""
    if plan.micro_batch > 1:
        each = plan.micro_batch * plan.accumulation
        size = next(size for size in divisors(each) if size <= plan.micro_batch // 2)
        return plan._replace(micro_batch=size, accumulation=each // size, tokens=plan.tokens * size // plan.micro_batch)
    if job.trainer.gradient_checkpointing == "auto" and plan.plain_tokens:
        return plan._replace(plain_tokens=0, checkpointing=True)
    return None


class _Attempt:
    """One try at a training with one plan."""

    def __init__(self, job: TrainingJob, prepared: Prepared, listener: Listener, notes: list[str]) -> None:
        self.job, self.prepared, self.listener, self.notes = job, prepared, listener, notes

    def run(self) -> TrainingResult:
        identity = _identity(self.job)
        with tracked(self.job, identity):
            return self._train(self.job.workspace / f"checkpoints-{identity}")

    def _train(self, checkpoints: Path) -> TrainingResult:
        import torch

        job, prepared = self.job, self.prepared
        trainer = self._trainer(checkpoints)
        _check_processes(job, trainer.accelerator.num_processes)
        if prepared.card:
            torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        reused = self._reference(trainer)
        reference_seconds = time.perf_counter() - started
        checkpoint = last_complete(checkpoints)
        if checkpoint is not None:
            self.listener.log(f"Going on from {checkpoint.name}.")
        resumed_at = number_of(checkpoint) if checkpoint else 0
        started = time.perf_counter()
        if checkpoint and resumed_at >= prepared.steps:
            trainer.take_up(checkpoint)
        else:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        seconds = time.perf_counter() - started
        steps = _steps(trainer.state.log_history)
        before = steps[resumed_at - 1].tokens if resumed_at else 0.0
        speed = (steps[-1].tokens - before) / seconds
        kl = divergence(trainer, list(prepared.conversations.values()))
        weights = trainer.weights()
        if trainer.accelerator.is_main_process:
            _save_adapter(trainer.accelerator.unwrap_model(trainer.model), weights, job)
            _save_probes(prepared.conversations.values(), job.out)
        ours = trainer.tokens * job.trainer.processes  # nothing is padded where text is shared
        computed = ours if job.trainer.shared_text else steps[-1].tokens - before
        recomputed = trainer.recomputed_tokens / max(trainer.tokens, 1)
        return TrainingResult(
            steps=steps,
            pairs=len(prepared.pairs),
            too_long=prepared.too_long,
            without_words=prepared.without_words,
            conversations=len(prepared.conversations),
            sequences=prepared.sequences,
            references_reused=reused,
            kl=kl,
            seconds=seconds,
            reference_seconds=reference_seconds,
            resumed_at=resumed_at,
            tokens_per_second=speed,
            computed_tokens=int(computed),
            mfu=self._utilisation(computed / seconds, prepared.context, 0.0),
            hfu=self._utilisation(computed / seconds, prepared.context, recomputed),
            peak_memory=torch.cuda.max_memory_allocated() if prepared.card else None,
            micro_batch=prepared.plan.micro_batch,
            recomputed=recomputed,
            attention=str(trainer.accelerator.unwrap_model(trainer.model).config._attn_implementation),
            notes=self.notes,
        )

    def _utilisation(self, speed: float, context: float, recomputed: float) -> float | None:
        card = self.prepared.card
        if card is None or card.peak is None or not speed:
            return None
        cards = self.job.trainer.processes
        return speed * flops_per_token(self.prepared.shape, context, recomputed=recomputed) / (cards * card.peak)

    def _trainer(self, checkpoints: Path) -> PreparedDPOTrainer:
        from peft import LoraConfig
        from transformers import TrainerCallback
        from transformers.trainer_callback import PrinterCallback
        from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
        from trl import DPOConfig
        from trl.trainer.utils import disable_dropout_in_model

        from dagster_project.training.shared_text import share_text
        from dagster_project.training.trainer import MaskedPreferenceCollator, PreparedDPOTrainer, pair_dataset

        job, prepared, training, plan = self.job, self.prepared, self.job.training, self.prepared.plan
        on_cpu = prepared.card is None
        model = self._model()
        disable_dropout_in_model(model)  # the base's; TRL's own switch would take the adapter's, too
        config = DPOConfig(
            output_dir=str(checkpoints),
            run_name=job.name or None,
            loss_type=[training.loss],
            label_smoothing=training.label_smoothing,
            beta=job.beta,
            learning_rate=training.learning_rate,
            weight_decay=training.weight_decay,
            num_train_epochs=job.epochs,
            max_steps=training.max_steps or -1,
            per_device_train_batch_size=plan.micro_batch,
            gradient_accumulation_steps=plan.accumulation,
            lr_scheduler_type=training.scheduler,
            warmup_steps=training.warmup_ratio,
            max_grad_norm=training.max_grad_norm,
            disable_dropout=False,
            max_length=None,
            bf16=training.dtype != "float32",
            gradient_checkpointing=plan.checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False} if plan.checkpointing else None,
            use_liger_kernel=job.trainer.liger,
            remove_unused_columns=False,
            logging_steps=1,
            logging_nan_inf_filter=False,
            save_strategy="steps" if writes_checkpoints(job.trainer, prepared.steps) else "no",
            save_steps=job.trainer.checkpoint_every or 1,
            save_total_limit=KEPT_CHECKPOINTS,
            report_to=list(job.trainer.track) or "none",
            disable_tqdm=True,
            seed=job.training.seed if job.training.seed is not None else job.seed,
            ddp_find_unused_parameters=False,
            use_cpu=on_cpu,
            dataloader_pin_memory=not on_cpu,
        )
        listener = self.listener

        class Watch(TrainerCallback):  # type: ignore[misc]
            def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                if state.log_history:
                    trainer._total_train_tokens = state.log_history[-1]["num_tokens"]

            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                listener.progress(state.global_step, state.max_steps)

            def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                trainer.accelerator.wait_for_everyone()  # every process writes a file of its own
                # With FSDP, weights are shared out in `train` only, so there must be a step left to take.
                enough = job.trainer.sharding == "ddp" or state.global_step < state.max_steps
                if enough and trainer.accelerator.is_main_process:
                    mark_complete(checkpoints / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}")

        trainer = PreparedDPOTrainer(
            model=model,
            args=config,
            train_dataset=pair_dataset(prepared.pairs),
            processing_class=prepared.tokenizer,
            data_collator=MaskedPreferenceCollator(pad_token_id=_pad_token(prepared.tokenizer)),
            peft_config=LoraConfig(
                r=training.lora_rank,
                lora_alpha=training.lora_alpha,
                lora_dropout=training.lora_dropout,
                use_rslora=training.rslora,
                target_modules=training.lora_targets
                if isinstance(training.lora_targets, str)
                else list(training.lora_targets),
                bias="none",
                task_type="CAUSAL_LM",
            ),
            callbacks=[Watch()],
        )
        trainer.length_grouping = training.length_grouping
        trainer.plain_tokens = plan.plain_tokens
        trainer.batch_by_case = training.batch_by == "case"
        if job.trainer.shared_text:
            share_text(trainer.model.get_base_model())
            trainer.shared_text = True
        trainer.remove_callback(PrinterCallback)
        return trainer

    def _model(self) -> PreTrainedModel:
        import torch

        training = self.job.training
        options: dict[str, Any] = {}
        if self.prepared.card is not None:
            options["attn_implementation"] = _attention(self.job.trainer.attention)
            if self.job.trainer.sharding == "ddp":
                from accelerate import PartialState

                options["device_map"] = {"": PartialState().local_process_index}
        elif self.job.trainer.attention != "auto":
            options["attn_implementation"] = self.job.trainer.attention
        if training.quantization != "none":
            from peft import prepare_model_for_kbit_training
            from transformers import BitsAndBytesConfig

            options["quantization_config"] = (
                BitsAndBytesConfig(load_in_8bit=True)
                if training.quantization == "int8"
                else BitsAndBytesConfig(
                    load_in_4bit=True,
                    bnb_4bit_quant_type="nf4",
                    bnb_4bit_use_double_quant=True,
                    bnb_4bit_compute_dtype=torch.bfloat16,
                )
            )
            model, _ = load_model(self.job.base, training.dtype, **options)
            checkpointing = self.prepared.plan.checkpointing
            prepared: PreTrainedModel = prepare_model_for_kbit_training(model, use_gradient_checkpointing=checkpointing)
            return prepared
        return load_model(self.job.base, training.dtype, **options)[0]

    def _reference(self, trainer: PreparedDPOTrainer) -> int:
        """Gives the trainer its reference, from the store as far as that goes; returns how many came from there."""
        if self.job.trainer.sharding == "fsdp":  # no process has the whole base; TRL asks it with each batch
            return 0
        conversations = self.prepared.conversations
        store = ReferenceStore(self.job.references, self._reference_settings(trainer)) if self.job.references else None
        # What a step has room for with its activations, a reference pass has room for without.
        budget = self.prepared.plan.tokens if self.job.trainer.shared_text else 0
        groups = group_by_prompt(conversations, budget)
        keys = group_keys(groups)
        known = store.get(keys) if store else {}
        missing = [group for group in groups if not group.keys() <= known.keys()]
        computed = trainer.reference(missing) if missing else {}
        if store and trainer.accelerator.is_main_process:
            store.put(keys, computed)
        trainer.use_reference({**known, **computed})
        return len(known)

    def _reference_settings(self, trainer: PreparedDPOTrainer) -> dict[str, object]:
        import torch
        import transformers
        import trl

        training = self.job.training
        return {
            "base": self.job.base_sha256,
            "dtype": training.dtype,
            "quantization": training.quantization,
            "attention": trainer.model.config._attn_implementation,
            "liger": self.job.trainer.liger,
            "device": self.prepared.card.name if self.prepared.card else "cpu",
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "trl": trl.__version__,
        }


def divergence(trainer: PreparedDPOTrainer, conversations: Sequence[Tokens]) -> float:
    """Returns KL(agent ‖ base) in nats, mean over tokens of the agent's in the first conversations."""
    import torch

    model = trainer.accelerator.unwrap_model(trainer.model).eval()
    total, count = 0.0, 0
    with torch.no_grad(), trainer.accelerator.autocast():
        for sequence, places in _counted(conversations[:KL_CONVERSATIONS]):
            ids = torch.tensor([sequence], device=model.device)
            at = torch.tensor(places, device=model.device)
            agent = model(input_ids=ids, logits_to_keep=at, use_cache=False).logits[0].float().log_softmax(-1)
            with model.disable_adapter():
                base = model(input_ids=ids, logits_to_keep=at, use_cache=False).logits[0].float().log_softmax(-1)
            total += float((agent.exp() * (agent - base)).sum(-1).double().sum())
            count += len(places)
    return total / max(count, 1)


def _counted(conversations: Iterable[Tokens]) -> Iterator[tuple[list[int], list[int]]]:
    """Yield each sequence and the places before its tokens that count, at most `KL_TOKENS` a conversation."""
    for tokens in conversations:
        room = KL_TOKENS
        for stretch in tokens.stretches():
            places = [place - 1 for place, counts in enumerate(tokens.mask[stretch]) if counts][:room]
            room -= len(places)
            if places:
                yield tokens.ids[stretch], places


def base_sha256(base: Path) -> str:
    """Returns a hash of all files of a base."""
    return content_sha256(tree_entries(base))


def _identity(job: TrainingJob) -> str:
    """Returns a hash of all that a checkpoint depends on, so that no other training is taken for this one."""
    files = [file_sha256(path) for path in (job.pairs, job.conversations) if path is not None]
    settings = job.training.model_dump(mode="json")
    run = [job.beta, job.epochs, job.seed, job.trainer.processes]
    parts = [settings, *run, job.base_sha256, job.chat_template, files]
    return hashlib.sha256(orjson.dumps(parts)).hexdigest()[:12]


def _attention(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    return "flash_attention_2" if importlib.util.find_spec("flash_attn") else "sdpa"


def _pad_token(tokenizer: PreTrainedTokenizerBase) -> int:
    token = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    if not isinstance(token, int):
        raise FrontierError(f"The tokenizer of {tokenizer.name_or_path} has neither a padding nor an end token.")
    return token


def _steps(history: Sequence[dict[str, Any]]) -> list[TrainingStep]:
    logs = [log for log in history if "loss" in log]
    return [TrainingStep(step=log["step"], **{name: float(log[key]) for key, name in LOGS.items()}) for log in logs]


def _save_adapter(model: Any, weights: Mapping[str, Any] | None, job: TrainingJob) -> None:
    """Saves the adapter so that equal adapters are equal files, with a stable name for its base.

    Where the base is on the hub that is its name there, by which `AutoPeftModel` finds it. PEFT would write a path of
    this machine, and the modules in a set's order, which differs from process to process.
    """
    config = model.peft_config["default"]
    config.base_model_name_or_path, config.revision = job.base_hub or job.label, job.base_commit or None
    config.target_modules = sorted(config.target_modules)
    # Left to itself, PEFT asks the hub for a model of that name to find out whether the vocabulary was changed.
    model.save_pretrained(job.out, state_dict=weights, save_embedding_layers=False)
    (job.out / "README.md").unlink(missing_ok=True)  # PEFT's empty model card


def _save_probes(conversations: Iterable[Tokens], out: Path) -> None:
    some = [tokens.ids[tokens.stretches()[-1]][-PROBE_TOKENS:] for tokens in itertools.islice(conversations, N_PROBES)]
    (out / PROBES).write_bytes(orjson.dumps(some))


def main(arguments: Sequence[str]) -> int:
    """Does the job in a file and writes its result beside its checkpoints; returns the exit status.

    Under Dagster Pipes, log lines go to Dagster; alone, to standard error.
    """
    from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR, open_dagster_pipes

    first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(level=logging.INFO if first else logging.ERROR, format="%(message)s")
    log = logging.getLogger("dagster_project.training")
    if len(arguments) != 1:
        log.error("usage: python -m dagster_project.training.dpo JOB")
        return 2
    watch_parent()
    with (
        open_dagster_pipes()
        if first and DAGSTER_PIPES_CONTEXT_ENV_VAR in os.environ
        else contextlib.nullcontext() as pipes
    ):
        say = pipes.log.info if pipes else log.info
        try:
            job = read_job(Path(arguments[0]))
            result = train_adapter(job, Listener(say, every_so_often(say)))
        except FrontierError as error:
            log.error("%s", error)
            if first and Path(arguments[0]).is_file():
                failure_path(Path(arguments[0])).write_text(str(error), encoding="utf-8")
            return 1
        if first:
            result_path(Path(arguments[0])).write_text(result.model_dump_json(indent=1), encoding="utf-8")
            say(f"Wrote {job.out}.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
