import asyncio
import copy
from collections.abc import Sequence
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402

from toolemu.chat import ChatReply, ChatRequest, ContextFullError, Message  # noqa: E402
from toolemu.chat.local import LoadedModel, LocalChatModel  # noqa: E402

CONTEXT = 128
WORDS = [f"w{index}" for index in range(30)]
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %} <assistant> {{ m['content'] }} <end>"
    "{% else %} <user> {{ m['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} <assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    """A random model, far from uniform: its replies depend on everything it is given."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {
        word: index for index, word in enumerate(["<pad>", "<unk>", "<user>", "<assistant>", "<end>", *WORDS])
    }
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>", eos_token="<end>", chat_template=TEMPLATE
    )
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=CONTEXT, initializer_range=0.3, bos_token_id=None, eos_token_id=4, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    return LoadedModel(LlamaForCausalLM(config), tokenizer)


def request(text: str, seed: int = 0, temperature: float = 1.0, **more) -> ChatRequest:
    more = {"max_tokens": 40} | more
    return ChatRequest((Message("user", text),), seed=seed, temperature=temperature, **more)


def ask(model: LocalChatModel, *requests: ChatRequest) -> list[ChatReply]:
    async def gather() -> list[ChatReply]:
        return list(await asyncio.gather(*map(model.chat, requests)))

    return asyncio.run(gather())


def requests_of_all_sizes() -> list[ChatRequest]:
    return [request(" ".join(WORDS[: 1 + index % 17]), seed=index, temperature=0.5 + index % 3) for index in range(40)]


def test_a_reply_does_not_depend_on_who_shares_the_batch(loaded: LoadedModel) -> None:
    requests = requests_of_all_sizes()
    alone = [ask(LocalChatModel(loaded, "m"), one)[0] for one in requests]
    assert ask(LocalChatModel(loaded, "m", max_batch=64), *requests) == alone
    assert ask(LocalChatModel(loaded, "m", max_batch=7), *reversed(requests)) == alone[::-1]
    assert ask(LocalChatModel(loaded, "m"), *requests[11:20]) == alone[11:20]
    assert len({reply.text for reply in alone}) > 30


def test_a_late_request_joins_without_changing_anything(loaded: LoadedModel) -> None:
    requests = requests_of_all_sizes()
    model = LocalChatModel(loaded, "m", max_batch=8)

    async def staggered() -> list[ChatReply]:
        async def later(one: ChatRequest, delay: float) -> ChatReply:
            await asyncio.sleep(delay)
            return await model.chat(one)

        return list(await asyncio.gather(*(later(one, 0.004 * index) for index, one in enumerate(requests))))

    assert asyncio.run(staggered()) == ask(LocalChatModel(loaded, "m"), *requests)


def test_seeds_decide_and_temperature_zero_is_greedy(loaded: LoadedModel) -> None:
    model = LocalChatModel(loaded, "m")
    assert ask(model, request("w1", 1)) == ask(model, request("w1", 1)) != ask(model, request("w1", 2))
    assert ask(model, request("w1", 1, 0.0)) == ask(model, request("w1", 2, 0.0))


def test_greedy_is_what_transformers_generates(loaded: LoadedModel) -> None:
    reply = ask(LocalChatModel(loaded, "m"), request("w3 w1 w4", temperature=0.0, max_tokens=20))[0]
    ids = loaded.tokenizer.apply_chat_template(
        [{"role": "user", "content": "w3 w1 w4"}], add_generation_prompt=True, return_tensors="pt", return_dict=False
    )
    out = loaded.model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=20)
    assert reply.text == loaded.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


def test_sampling_follows_the_softmax(loaded: LoadedModel) -> None:
    model = LocalChatModel(loaded, "m", max_batch=500)
    replies = ask(model, *(request("w5", seed, 2.0, max_tokens=1) for seed in range(3000)))
    ids = loaded.tokenizer.apply_chat_template(
        [{"role": "user", "content": "w5"}], add_generation_prompt=True, return_tensors="pt", return_dict=False
    )
    with torch.no_grad():
        expected = (loaded.model(ids).logits[0, -1] / 2).softmax(-1)
    for index, word in enumerate(WORDS, 5):
        share = sum(reply.text == word for reply in replies) / len(replies)
        assert share == pytest.approx(expected[index].item(), abs=0.03)


def test_stop_texts_end_a_reply_and_are_no_part_of_it(loaded: LoadedModel) -> None:
    model = LocalChatModel(loaded, "m")
    for seed in range(20):
        whole = ask(model, request("w2 w7", seed))[0]
        words = whole.text.split()
        if len(words) < 6:
            continue
        stop = f"{words[3]} {words[4]}"
        cut = ask(model, request("w2 w7", seed, stop=("never", stop)))[0]
        assert cut.text == whole.text[: whole.text.find(stop)]
        assert cut.finish_reason == "stop"
        assert cut.completion_tokens == len(whole.text[: whole.text.find(stop) + len(stop)].split())
        return
    raise AssertionError("no reply was long enough")


def test_limits_and_counts(loaded: LoadedModel) -> None:
    model = LocalChatModel(loaded, "m")
    replies = ask(model, *(request("w1 w2", seed, max_tokens=5) for seed in range(30)))
    for reply in replies:
        assert reply.prompt_tokens == 4
        assert reply.completion_tokens <= 5
        assert (reply.finish_reason == "stop") or reply.completion_tokens == 5
        assert len(reply.text.split()) <= reply.completion_tokens
    assert {reply.finish_reason for reply in replies} == {"length", "stop"}


def test_a_full_context_is_an_error_and_a_nearly_full_one_a_short_reply(loaded: LoadedModel) -> None:
    model = LocalChatModel(loaded, "m")
    with pytest.raises(ContextFullError, match="128"):
        ask(model, request("w1 " * (CONTEXT - 2)))
    replies = ask(model, *(request("w1 " * (CONTEXT - 4), seed) for seed in range(10)))
    assert all(reply.completion_tokens <= 2 for reply in replies)


def test_an_assistants_message_is_continued(loaded: LoadedModel) -> None:
    model = LocalChatModel(loaded, "m")
    whole = ask(model, request("w1", 0, 0.0, max_tokens=12))[0]
    begun = " ".join(whole.text.split()[:4])
    messages: Sequence[Message] = (Message("user", "w1"), Message("assistant", begun))
    rest = ask(model, ChatRequest(tuple(messages), max_tokens=8))[0]
    assert f"{begun} {rest.text}".strip() == whole.text


def test_an_adapter_is_applied(loaded: LoadedModel, tmp_path) -> None:
    from peft import LoraConfig, get_peft_model

    loaded.model.save_pretrained(tmp_path / "base")
    loaded.tokenizer.save_pretrained(tmp_path / "base")
    adapted = get_peft_model(
        LlamaForCausalLM.from_pretrained(tmp_path / "base"),
        LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"),
    )
    adapted.save_pretrained(tmp_path / "adapter")
    merged = LoadedModel(adapted.merge_and_unload(), loaded.tokenizer)
    questions = [request(f"w{index}", index) for index in range(10)]
    plain = ask(LocalChatModel(tmp_path / "base", "m"), *questions)
    with_adapter = ask(LocalChatModel(tmp_path / "base", "m", adapter=tmp_path / "adapter"), *questions)
    assert with_adapter == ask(LocalChatModel(merged, "m"), *questions) != plain


def test_what_fails_in_a_batch_reaches_everybody_who_waits(loaded: LoadedModel, monkeypatch) -> None:
    model = LocalChatModel(loaded, "m")

    def fail(*_: object) -> list[int]:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(model, "_choose", fail)

    async def both() -> list[object]:
        return list(await asyncio.gather(*map(model.chat, [request("w1"), request("w2")]), return_exceptions=True))

    assert [str(error) for error in asyncio.run(both())] == ["out of luck"] * 2


def test_a_cancelled_run_leaves_a_usable_model(loaded: LoadedModel) -> None:
    model = LocalChatModel(loaded, "m", max_batch=2)

    async def give_up() -> None:
        async with asyncio.timeout(0.01):
            await asyncio.gather(*(model.chat(request("w1 w2", seed)) for seed in range(50)))

    with pytest.raises(TimeoutError):
        asyncio.run(give_up())
    assert ask(model, request("w1")) == ask(LocalChatModel(loaded, "m"), request("w1"))


def test_one_model_serves_several_event_loops(loaded: LoadedModel) -> None:
    model = LocalChatModel(loaded, "m")
    assert ask(model, request("w1")) == ask(model, request("w1"))


def test_the_package_does_not_import_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys, toolemu.chat, toolemu.rollout, dagster_project.miniature.judges; sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_template_without_system_role_has_the_system_prompt_in_the_first_user_message(loaded: LoadedModel) -> None:
    system, user = Message("system", "w3"), Message("user", "w5 w1")
    asked = replace(request("", 0), messages=(system, user))
    tokenizer = copy.deepcopy(loaded.tokenizer)
    refuses = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
    tokenizer.chat_template = refuses + str(loaded.tokenizer.chat_template)
    reply = ask(LocalChatModel(LoadedModel(loaded.model, tokenizer), "m"), asked)
    folded = replace(asked, messages=(Message("user", "w3\n\nw5 w1"),))
    assert reply == ask(LocalChatModel(loaded, "m"), folded) != ask(LocalChatModel(loaded, "m"), asked)
