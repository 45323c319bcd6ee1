from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks import training
from benchmarks.published_lengths import histogram
from benchmarks.shared_text import LLAMA_8B, llama_config
from benchmarks.training import ARCHITECTURES, LENGTHS, main, pairs_that_fit, ways, write_pairs
from dagster_project.miniature.tokenizer import build_tokenizer
from dagster_project.training.conversations import tokenize_pairs
from dagster_project.training.job import TrainingJob, read_pairs


def test_the_committed_lengths_are_of_pairs_of_one_case() -> None:
    lengths = json.loads(LENGTHS.read_bytes())
    conversations, pairs = lengths["conversations"], lengths["pairs"]
    assert (len(pairs), len(conversations)) == (6827, 1916)
    assert all(conversations[chosen][0] == conversations[rejected][0] for chosen, rejected in pairs)
    assert {case for case, _ in conversations} == set(lengths["prompts"])


def test_the_histogram_of_the_committed_lengths_counts_every_pair() -> None:
    title, *lines = histogram(LENGTHS).splitlines()
    assert title == "6827 pairs of 1916 conversations; tokens of both sides: mean 6008"
    assert sum(int(re.findall(r"\d+", line)[2]) for line in lines) == 6827


PARAMETERS = {"llama-3.1-8b": 8_030_261_248, "qwen2.5-7b": 7_615_616_512, "phi-4": 14_659_507_200}
"""As the models' authors published them."""


@pytest.mark.parametrize("name", PARAMETERS)
def test_architectures_are_those_they_are_named_for(name: str) -> None:
    settings = dict(ARCHITECTURES[name])
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert sum(weight.numel() for weight in model.parameters()) == PARAMETERS[name]


def test_both_benchmarks_train_the_same_8b_model() -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(llama_config(LLAMA_8B))
    assert sum(weight.numel() for weight in model.parameters()) == PARAMETERS["llama-3.1-8b"]


def test_made_up_pairs_are_as_long_as_published_and_share_what_those_share(tmp_path: Path) -> None:
    released, ours, _ = ways(tiny=True)
    lengths = json.loads(LENGTHS.read_bytes())
    assert 0.95 * len(lengths["pairs"]) < len(pairs_that_fit()) < len(lengths["pairs"])
    found = {}
    for way in (released, ours):
        folder = tmp_path / way.name
        folder.mkdir()
        pairs, conversations = write_pairs(64, way, folder, 1)
        file = read_pairs(TrainingJob(base=folder, pairs=pairs, conversations=conversations, out=folder))
        found[way.name] = tokenize_pairs(build_tokenizer(), file, mask_observations=False)
    tokens, pairs_of = found["ours"]
    assert len(tokens) < 2 * 64 == len(found["released"][0])
    for identity, one in tokens.items():
        case, length = lengths["conversations"][int(identity)]
        assert abs(len(one.prompt_ids) - lengths["prompts"][case]) < 10
        assert abs(len(one.completion_ids) - length) < 0.1 * length + 10
    assert max(pair.length for pair in pairs_of) <= training.LONGEST
    cases: dict[str, list[int]] = {}
    for identity, one in tokens.items():
        assert cases.setdefault(lengths["conversations"][int(identity)][0], one.prompt_ids) == one.prompt_ids
    beginnings = [tuple(prompt[:20]) for prompt in cases.values()]
    assert len(set(beginnings)) == len(beginnings) > 1


@pytest.mark.slow
def test_the_benchmark_runs_without_a_card_and_goes_on_where_it_was_cut_off(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 2)
    command = ["--model", "tiny", "--steps", "4", "--work", str(tmp_path)]
    ends = training.Clock.progress

    def cut(self: training.Clock, done: int, total: int) -> None:
        ends(self, done, total)
        if done == 3:
            raise training.TimeUpError

    with monkeypatch.context() as patched:
        patched.setattr(training.Clock, "progress", cut)
        main(command)
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "tiny on the CPU: this says nothing of speed, 4 steps"
    assert told[1].startswith("released: 3 of 4 steps, 1 timed: ")  # the first, and the one after a checkpoint
    assert told[2:4] == [f"{name}: 0 of 4 steps, none of them timed" for name in ("ours", "shared")]
    assert told[4] == "Time is up; the same command goes on from here."
    main(command)
    told = capsys.readouterr().out.splitlines()
    assert told[1].startswith("released: 4 of 4 steps, 2 timed: ")
    assert re.search(r"since step 2: .*; 1 pairs at once, 100% recomputed, sdpa; loss of the last steps 0\.", told[2])
    assert told[3].startswith("ours: 4 of 4 steps, 2 timed: ")
    assert "since step 0: " in told[4]
    assert "8 pairs at once, 0% recomputed, sdpa" in told[4]
    assert told[5].startswith("shared: 4 of 4 steps, 2 timed: ")
    assert "token_tree" in told[6]
    assert re.fullmatch(r"tiny: ours has [\d.]+ times the released code's pairs a second", told[7])
    assert len(told) == 9
    timed = [json.loads(line) for line in (tmp_path / "tiny" / "released-4" / "times.jsonl").read_text().splitlines()]
    assert [note["references"] for note in timed if "references" in note] == [63]  # two a pair, but for the first
    main(command)  # nothing is measured twice
    assert capsys.readouterr().out.splitlines() == told
