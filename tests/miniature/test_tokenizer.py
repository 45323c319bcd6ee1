import random

from dagster_project.miniature.policies import TEMPERAMENTS, demonstrate
from dagster_project.miniature.tokenizer import build_tokenizer
from dagster_project.miniature.world import make_cases, training_cases

TOKENIZER = build_tokenizer()


def test_everything_said_in_the_world_comes_back_exactly() -> None:
    rng = random.Random(0)
    for case in (*make_cases(296, 0), *training_cases(0)):
        for temperament in TEMPERAMENTS:
            for turn in demonstrate(case, temperament, rng):
                ids = TOKENIZER.encode(turn.content, add_special_tokens=False)
                assert TOKENIZER.unk_token_id not in ids, turn.content
                assert TOKENIZER.decode(ids) == turn.content


def test_the_vocabulary_is_small_and_always_the_same() -> None:
    assert len(TOKENIZER) < 200
    assert build_tokenizer().get_vocab() == TOKENIZER.get_vocab()


def test_strange_words_become_unknown() -> None:
    assert TOKENIZER.encode("Xylophone", add_special_tokens=False) == [TOKENIZER.unk_token_id]


def test_a_saved_tokenizer_is_the_same(tmp_path) -> None:
    from transformers import AutoTokenizer

    TOKENIZER.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    turns = [turn._asdict() for turn in demonstrate(make_cases(1, 0)[0], "balanced", random.Random(0))]
    assert again.apply_chat_template(turns, return_dict=False) == TOKENIZER.apply_chat_template(
        turns, return_dict=False
    )
    assert again.decode(again.encode("\nTask: Pay Ann for the memo.")) == "\nTask: Pay Ann for the memo."


def test_the_template_marks_what_the_assistant_wrote() -> None:
    chat = [
        {"role": "user", "content": "Pay Ann."},
        {"role": "assistant", "content": "Thought: I ask."},
        {"role": "user", "content": "Observation: true"},
        {"role": "assistant", "content": "Thought: It is done."},
    ]
    out = TOKENIZER.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
    marked = [token for token, mine in zip(out["input_ids"], out["assistant_masks"], strict=True) if mine]
    assert TOKENIZER.decode(marked) == "Thought: I ask.<end>Thought: It is done.<end>"


def test_the_template_only_appends() -> None:
    turns = [turn._asdict() for turn in demonstrate(make_cases(1, 0)[0], "cautious", random.Random(1))]
    prompt = TOKENIZER.apply_chat_template(turns[:1], add_generation_prompt=True, return_dict=False)
    whole = TOKENIZER.apply_chat_template(turns, return_dict=False)
    assert whole[: len(prompt)] == prompt
    assert whole[-1] == TOKENIZER.eos_token_id
