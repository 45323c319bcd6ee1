"""How agents are trained: what decides an adapter (`Training`), and what only decides how it is computed (`Trainer`).

Plain data, without torch. Changing a `Training` field makes other agents; changing a `Trainer` field does not, up to
rounding, and makes nothing stale.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Preset = Literal["default", "published"]
Loss = Literal[
    "sigmoid",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "sppo_hard",
    "apo_zero",
    "apo_down",
    "discopop",
    "sigmoid_norm",
]

SMOOTHED: tuple[Loss, ...] = ("robust", "exo_pair")
"""Losses that read `label_smoothing`; TRL leaves it alone in all others, without a word."""


VOCABULARY_MODULES = frozenset(
    {
        "embed_tokens",
        "embed_in",
        "embed_out",
        "lm_head",
        "tok_embeddings",
        "token_embedding",
        "word_embeddings",
        "wpe",
        "wte",
    }
)
"""Names of embeddings and heads in common architectures. What a base calls others is found by their shape."""


class _WithPreset(BaseModel):
    """Settings whose defaults can be taken from a preset; what is given besides goes before it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]]

    preset: Preset = Field(
        "default", exclude=True, description="`published`: the values of the paper's released code where not given."
    )

    @model_validator(mode="before")
    @classmethod
    def _take_preset(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {**cls.PRESETS.get(str(values.get("preset")), {}), **values}

    def changed(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the fields with some of them changed, those of a preset among the changes included."""
        return {**self.model_dump(), **self.PRESETS.get(str(changes.get("preset")), {}), **changes}


class Training(_WithPreset):
    """DPO with a LoRA adapter: everything that decides an adapter besides its base, its pairs, beta and seed."""

    PRESETS = {
        "published": {
            "loss": "sigmoid",
            "label_smoothing": 0.0,
            "learning_rate": 5e-5,
            "scheduler": "cosine",
            "warmup_ratio": 0.1,
            "weight_decay": 0.0,
            "max_grad_norm": 1.0,
            "epochs": 1,
            "epochs_both": 3,
            "max_steps": None,
            "batch_size": 8,
            "length_grouping": False,
            "batch_by": "pair",
            "lora_rank": 16,
            "lora_alpha": 32,
            # The released code asks for 0.05, but its trainer sets every dropout to 0 before the first step.
            "lora_dropout": 0.0,
            "lora_targets": "all-linear",
            "rslora": False,
            "quantization": "none",
            "dtype": "bfloat16",
            "max_length": 8192,
            "max_prompt_length": 8192,
            "mask_observations": False,
            "train_on_reasoning": False,
            "seed": 42,
        }
    }

    loss: Loss = Field(
        "sigmoid",
        description="TRL's name of the loss; `sigmoid` is DPO's. Only losses of single pairs: one that compares the "
        "pairs of a batch would depend on how a batch is cut up for the card.",
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="Share of pairs taken to be the wrong way round, by the losses that ask for it."
    )
    learning_rate: float = Field(5e-5, gt=0, description="Of AdamW, at the end of the warm-up.")
    scheduler: Literal["cosine", "linear", "constant_with_warmup"] = Field(
        "cosine", description="How the learning rate goes on after the warm-up."
    )
    warmup_ratio: float = Field(0.1, ge=0, le=1, description="Share of the steps in which the learning rate rises.")
    weight_decay: float = Field(0.0, ge=0, description="Of AdamW.")
    max_grad_norm: float = Field(1.0, gt=0, description="Longer gradients are cut to this norm.")
    epochs: float = Field(1, gt=0, description="Passes over the pairs of a stage.")
    epochs_both: float = Field(3, gt=0, description="The same for stages on `both`, which has far fewer pairs.")
    max_steps: int | None = Field(None, ge=1, description="Optimiser steps; overrides epochs.")
    batch_size: int = Field(8, ge=1, description="Pairs an optimiser step, over all cards and micro-batches.")
    length_grouping: bool = Field(
        True, description="Pairs of about the same length go into one batch, so that little is padding."
    )
    batch_by: Literal["pair", "case"] = Field(
        "pair",
        description="`case`: a step's pairs are of one case, or of few, and have conversations in common, which "
        "trainer.shared_text computes once; which pairs meet in a step is then another choice than by chance.",
    )
    lora_rank: int = Field(16, ge=1, description="Rank of the adapter's matrices.")
    lora_alpha: int = Field(32, ge=1, description="The adapter's scale is this by the rank (rsLoRA: by its root).")
    lora_dropout: float = Field(
        0.0, ge=0, lt=1, description="Dropout on the adapter's input; on when asked, while the base never has any."
    )
    lora_targets: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        "all-linear",
        description="Names of the linear layers with an adapter, or every linear layer but the head. Not embeddings or "
        "the head: such an adapter cannot be merged and served.",
    )
    rslora: bool = Field(False, description="Scale by the root of the rank (Kalajdzievski 2023).")
    quantization: Literal["none", "int8", "int4"] = Field(
        "none", description="Of the frozen base while training, by bitsandbytes (int4: NF4, double quantisation); GPU."
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "bfloat16", description="Of the base; what is not computed in float32 is in bfloat16, with a float16 base, too."
    )
    max_length: int = Field(
        8192,
        ge=16,
        description="Longer pairs are left out and counted, never cut; the longest sequence of a pair decides.",
    )
    max_prompt_length: int | None = Field(
        None, ge=1, description="Pairs with longer prompts are left out and counted, too; null: max_length decides."
    )
    mask_observations: bool = Field(True, description="Only the agent's own turns count in the loss.")
    train_on_reasoning: bool = Field(
        True,
        description="The agent's thinking counts in the loss, too. On, since the agent wrote it and acts on it: DPO "
        "compares the probabilities of whole replies. Off, the words are trained given the thinking.",
    )
    seed: int | None = Field(None, description="Of order, adapter and dropout; null: the agent's seed.")

    @field_validator("lora_targets")
    @classmethod
    def _targets_can_be_served(cls, targets: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for target in () if isinstance(targets, str) else targets:
            if not target.strip("."):
                raise ValueError("lora_targets names modules such as q_proj; one of the names is blank")
            if target.rpartition(".")[2].strip() in VOCABULARY_MODULES:
                raise ValueError(
                    f"lora_targets names {target!r}, which has a row for each token: an adapter on the embeddings or "
                    "the head cannot be merged and served. Name linear layers between them, or all-linear"
                )
        return targets

    @model_validator(mode="after")
    def _loss_is_complete(self) -> Training:
        if self.loss == "exo_pair" and not self.label_smoothing:
            raise ValueError("the loss exo_pair needs label_smoothing above 0 (its paper: 0.001)")
        if self.label_smoothing and self.loss not in SMOOTHED:
            raise ValueError(
                f"the loss {self.loss} does not know of label_smoothing, only {' and '.join(SMOOTHED)} do: leave it out"
            )
        return self


class Trainer(_WithPreset):
    """How trainings are computed, on which hardware, and what is kept of them."""

    PRESETS = {"published": {"micro_batch_size": 1, "gradient_checkpointing": "always"}}

    mode: Literal["in_process", "subprocess", "accelerate"] = Field(
        "in_process",
        description="In the run's own process, in one of its own (its memory is free afterwards), or in `processes` "
        "of them by `accelerate launch`.",
    )
    processes: int = Field(1, ge=1, description="With `accelerate`: processes, one a card.")
    sharding: Literal["ddp", "fsdp"] = Field(
        "ddp", description="With `accelerate`: the whole base on every card, or shared out, for one that fits on none."
    )
    micro_batch_size: int | None = Field(
        None, ge=1, description="Pairs on a card at once; null: as many as the memory estimate allows."
    )
    gradient_checkpointing: Literal["auto", "always", "never"] = Field(
        "auto", description="Compute activations again going back, half as much work more; auto: if memory needs it."
    )
    attention: Literal["auto", "flash_attention_2", "sdpa", "eager"] = Field(
        "auto", description="auto: FlashAttention 2 where it is installed and a card is there, else PyTorch's own."
    )
    shared_text: bool = Field(
        False,
        description="Compute what the conversations of a batch begin with alike once, and without padding: the same "
        "loss and gradients up to rounding. Brings its own attention.",
    )
    liger: bool = Field(False, description="Liger's fused layers (RoPE, norms, SwiGLU); GPU.")
    checkpoint_every: int | None = Field(
        100, ge=1, description="Optimiser steps between checkpoints that a killed training goes on from; null: none."
    )
    keep_merged: Literal["all", "needed"] = Field(
        "all",
        description="`needed`: the weights of a merged model are removed once everything that reads them is made; they "
        "are merged again, from adapter and base, where something new needs them.",
    )
    track: tuple[Literal["tensorboard", "wandb"], ...] = Field((), description="Where to report every step, besides.")
    wandb_project: str | None = Field(
        None, description="W&B's project; null: what WANDB_PROJECT says, or `safety-frontier`."
    )
    wandb_entity: str | None = Field(None, description="Whose project it is; null: what WANDB_ENTITY or the key says.")
    push_to_hub: str | None = Field(
        None,
        pattern=r"^[\w.-]+/[\w.-]*$",
        description="Upload adapters, mixtures too, to the hub, private, as <this><experiment>-<asset>-<agent>-<seed>; "
        "needs HF_TOKEN.",
    )

    @model_validator(mode="after")
    def _processes_have_a_mode(self) -> Trainer:
        if self.mode != "accelerate" and (self.processes > 1 or self.sharding == "fsdp"):
            raise ValueError("several processes, or fsdp, need mode: accelerate")
        return self

    @model_validator(mode="after")
    def _one_attention(self) -> Trainer:
        if self.shared_text and self.attention != "auto":
            raise ValueError(f"shared_text brings its own attention: leave out attention: {self.attention}")
        return self
