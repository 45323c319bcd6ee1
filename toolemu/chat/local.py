"""A language model in this process: transformers, batched as requests come in, with replies that no batch can change.

What a request gets depends on its messages, seed and limits only, never on the requests it happened to share a batch
with. Sampling adds seeded Gumbel noise of the request's own to the logits and takes the maximum (which samples from
the softmax: Gumbel 1954; Maddison et al. 2014), and `dtype="float64"` keeps the rounding of differently shaped batches
below anything that could flip a token. A rollout that was killed and resumed then gives the same texts.

This module imports torch; `toolemu.chat` does not import it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch

from toolemu.chat.protocol import ChatReply, ChatRequest, ContextFullError
from toolemu.chat.rendering import encode_rendered, render_chat
from toolemu.chat.settings import ModelOptions

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Dtype = Literal["float64", "float32", "bfloat16", "float16"]

# Stop texts are looked for once in so many tokens; a reply is cut at the first one, so this changes no result.
_STOP_INTERVAL = 8
# Noise is drawn for so many positions at once.
_NOISE_POSITIONS = 16
# Rows that are finished are dropped from the batch once they make up this share of it.
_DROP_SHARE = 0.25


class LoadedModel(NamedTuple):
    """A causal language model and its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


@dataclass
class _Row:
    """One request in the batch being generated."""

    request: ChatRequest
    prompt: list[int]
    budget: int
    reply: asyncio.Future[ChatReply]
    tokens: list[int] = field(default_factory=list)
    noise: np.ndarray[Any, np.dtype[np.float64]] | None = None
    rng: np.random.Generator | None = None


class LocalChatModel:
    """A `ChatModel` on a model in this process.

    Requests that are pending together are generated together. Weights are read on construction.

    Args:
        source: Folder (or hub name) of model and tokenizer, or both already loaded; a loaded model is used as it is
            apart from the cast to `dtype`.
        name: The model's name.
        dtype: Precision to compute in. Replies are independent of the batch in float64; elsewhere almost always.
        max_batch: Most requests to generate together.
        adapter: Folder of a PEFT adapter, merged into the weights.
        device: Where to compute.
        threads: Number of threads torch may use, process-wide; None leaves it. One is best for tiny models.
        options: How it is asked: its temperature, limit, thinking and template's arguments count here.
    """

    def __init__(
        self,
        source: Path | str | LoadedModel,
        name: str,
        *,
        dtype: Dtype = "float64",
        max_batch: int = 64,
        adapter: Path | None = None,
        device: str = "cpu",
        threads: int | None = 1,
        options: ModelOptions | None = None,
    ) -> None:
        self.name = name
        self._options = options or ModelOptions()
        self._max_batch = max_batch
        self._threads = threads
        model, self._tokenizer = source if isinstance(source, LoadedModel) else _load(source)
        model = model.to(device=device, dtype=getattr(torch, dtype))
        if adapter is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
        self._model: PreTrainedModel = model.eval()
        self._context = int(model.config.max_position_embeddings)
        ends = model.generation_config.eos_token_id
        self._ends = {*(ends if isinstance(ends, list) else [ends]), self._tokenizer.eos_token_id} - {None}
        pad = self._tokenizer.pad_token_id
        self._pad = 0 if pad is None else int(pad)
        self._pending: list[_Row] = []
        self._worker: asyncio.Task[None] | None = None

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Generates one reply, together with whatever else is pending.

        Raises:
            ContextFullError: The messages leave no room for a token.
        """
        request = self._with_options(request)
        prompt = self._encode(request)
        room = self._context - len(prompt)
        if room < 1:
            raise ContextFullError(f"{self.name}: {len(prompt)} prompt tokens fill a context of {self._context}.")
        row = _Row(request, prompt, min(request.max_tokens, room), asyncio.get_running_loop().create_future())
        self._pending.append(row)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await row.reply

    def _with_options(self, request: ChatRequest) -> ChatRequest:
        options = self._options
        return replace(
            request,
            temperature=request.temperature if options.temperature is None else options.temperature,
            max_tokens=min(request.max_tokens, options.max_tokens or request.max_tokens),
        )

    def _encode(self, request: ChatRequest) -> list[int]:
        continued = request.messages[-1].role == "assistant"
        text = render_chat(
            self._tokenizer,
            request.messages,
            self._options.template_arguments(),
            add_generation_prompt=not continued,
            continue_final_message=continued,
        )
        return encode_rendered(self._tokenizer, text)

    async def _work(self) -> None:
        """Generates batch after batch until nothing is pending."""
        while self._pending:
            # Whoever is about to ask gets the chance to do so before the batch closes.
            await asyncio.sleep(0)
            # Prompts of similar length waste the least on padding.
            self._pending.sort(key=lambda row: len(row.prompt))
            batch, self._pending = self._pending[: self._max_batch], self._pending[self._max_batch :]
            batch = [row for row in batch if not row.reply.done()]
            if not batch:
                continue
            try:
                replies = await asyncio.to_thread(self._generate, batch)
            except asyncio.CancelledError:
                for row in [*batch, *self._pending]:
                    row.reply.cancel()
                self._pending.clear()
                raise
            except Exception as error:  # noqa: BLE001 - whoever asked gets it, as if the call had failed there
                for row in batch:
                    if not row.reply.done():
                        row.reply.set_exception(error)
                continue
            for row, reply in zip(batch, replies, strict=True):
                if not row.reply.done():
                    row.reply.set_result(reply)

    @torch.inference_mode()
    def _generate(self, batch: list[_Row]) -> list[ChatReply]:
        if self._threads is not None:
            torch.set_num_threads(self._threads)
        length = max(len(row.prompt) for row in batch)
        device = self._model.device
        ids = torch.tensor([[self._pad] * (length - len(row.prompt)) + row.prompt for row in batch], device=device)
        mask = torch.tensor([[0] * (length - len(row.prompt)) + [1] * len(row.prompt) for row in batch], device=device)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        active = list(batch)  # the rows of the tensors, finished ones included until they are dropped
        replies: dict[int, ChatReply] = {}
        cache: Any = None
        while True:
            output = self._model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = output.past_key_values
            tokens = self._choose(output.logits[:, -1], active)
            for row, token in zip(active, tokens, strict=True):
                if id(row) in replies:
                    continue
                row.tokens.append(token)
                reply = self._finished(row)
                if reply is not None:
                    replies[id(row)] = reply
            if len(replies) == len(batch):
                return [replies[id(row)] for row in batch]
            ids = torch.tensor(tokens, device=device)[:, None]
            positions = positions[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(active), 1)], dim=1)
            keep = [index for index, row in enumerate(active) if id(row) not in replies]
            if len(active) - len(keep) > _DROP_SHARE * len(active):
                chosen = torch.tensor(keep, device=device)
                cache.batch_select_indices(chosen)
                ids, positions, mask = ids[chosen], positions[chosen], mask[chosen]
                active = [active[index] for index in keep]

    def _choose(self, logits: torch.Tensor, rows: Sequence[_Row]) -> list[int]:
        """Returns the next token of each row: the maximum of logits / temperature plus the row's own noise."""
        temperatures = [row.request.temperature for row in rows]
        if not any(temperatures):
            return [int(token) for token in logits.argmax(-1)]
        scores = logits.double().cpu().numpy()
        for index, (row, temperature) in enumerate(zip(rows, temperatures, strict=True)):
            if temperature > 0:
                scores[index] = scores[index] / temperature + self._noise(row, scores.shape[1])
        return [int(token) for token in scores.argmax(-1)]

    def _noise(self, row: _Row, vocabulary: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        position = len(row.tokens) % _NOISE_POSITIONS
        if row.rng is None:
            row.rng = np.random.default_rng(row.request.seed % 2**64)
        if row.noise is None or position == 0:
            row.noise = row.rng.gumbel(size=(_NOISE_POSITIONS, vocabulary))
        noise: np.ndarray[Any, np.dtype[np.float64]] = row.noise[position]
        return noise

    def _finished(self, row: _Row) -> ChatReply | None:
        """Returns the row's reply if its last token ended it."""
        ended = row.tokens[-1] in self._ends
        full = len(row.tokens) >= row.budget
        if not (ended or full or len(row.tokens) % _STOP_INTERVAL == 0):
            return None
        text = self._decode(row.tokens[:-1] if ended else row.tokens)
        cut = _first_stop(text, row.request.stop)
        if cut is not None:
            needed = next(
                count
                for count in range(1, len(row.tokens) + 1)
                if _first_stop(self._decode(row.tokens[:count]), row.request.stop) is not None
            )
            return ChatReply(text[:cut], "stop", len(row.prompt), needed)
        if ended or full:
            return ChatReply(text, "stop" if ended else "length", len(row.prompt), len(row.tokens))
        return None

    def _decode(self, tokens: list[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text


def _load(source: Path | str) -> LoadedModel:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(str(source), trust_remote_code=False)
    return LoadedModel(model, AutoTokenizer.from_pretrained(str(source), trust_remote_code=False))


def _first_stop(text: str, stops: Sequence[str]) -> int | None:
    return min((place for stop in stops if (place := text.find(stop)) >= 0), default=None)
