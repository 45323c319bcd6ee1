from __future__ import annotations

import importlib
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from dagster_project.experiment.training import Trainer
from dagster_project.training.chat_template import Tokens
from dagster_project.training.conversations import TokenPair
from dagster_project.training.dpo import TrainingResult, train_adapter
from dagster_project.training.grouping import Group, group_by_prompt
from dagster_project.training.references import ReferenceStore
from dagster_project.training.trainer import PreparedDPOTrainer

from .test_trainer import make_trainer, some_pairs
from .toy import FAST, Corpus, files_of


def sides(pairs: list[TokenPair]) -> dict[str, Tokens]:
    return {
        identity: side
        for pair in pairs
        for identity, side in zip((pair.chosen_id, pair.rejected_id), pair.sides, strict=True)
    }


@pytest.mark.parametrize("mask_observations", [True, False])
def test_a_reference_computed_beforehand_gives_the_loss_of_one_computed_with_the_batch(
    corpus: Corpus, mask_observations: bool, tmp_path: Path
) -> None:
    pairs = some_pairs(corpus, mask_observations=mask_observations)
    trainer = make_trainer(pairs, tmp_path)
    batch = trainer.data_collator([trainer.train_dataset[number] for number in range(len(pairs))])
    on_the_fly = trainer.compute_loss(trainer.model, batch).item()
    trainer.use_reference(trainer.reference(group_by_prompt(sides(pairs), 0)))
    batch = trainer.data_collator([trainer.train_dataset[number] for number in range(len(pairs))])
    beforehand = trainer.compute_loss(trainer.model, batch).item()
    assert beforehand == pytest.approx(on_the_fly, abs=1e-5)  # the column is float32
    # and it is read at all: TRL leaves such columns alone unless it is told
    batch["ref_chosen_logps"] += 1
    assert trainer.compute_loss(trainer.model, batch).item() != pytest.approx(beforehand, abs=1e-3)


def test_a_conversations_reference_does_not_depend_on_the_others(corpus: Corpus, tmp_path: Path) -> None:
    conversations = sides(corpus.tokens())
    trainer = make_trainer(corpus.tokens()[:1], tmp_path)
    groups = group_by_prompt(conversations, 0)
    together = trainer.reference(groups)
    assert together.keys() == conversations.keys()
    assert trainer.reference(groups[3:5]) == {name: together[name] for group in groups[3:5] for name in group}


def test_trainings_share_references_and_come_out_the_same_without(
    corpus: Corpus, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []
    compute = PreparedDPOTrainer.reference

    def count(self: Any, groups: Sequence[Group]) -> dict[str, float]:
        computed.append(sum(map(len, groups)))
        return compute(self, groups)

    monkeypatch.setattr(PreparedDPOTrainer, "reference", count)

    def train(name: str, **fields: Any) -> TrainingResult:
        return train_adapter(corpus.job(base, tmp_path / name, FAST, **fields))

    n = len(sides(corpus.tokens()))
    assert train("without").references_reused == 0
    assert train("first", references=tmp_path / "store").references_reused == 0
    assert train("again", references=tmp_path / "store").references_reused == n
    assert train("other beta", references=tmp_path / "store", beta=0.5, seed=7).references_reused == n
    assert computed == [n, n]
    assert files_of(tmp_path / "without") == files_of(tmp_path / "first") == files_of(tmp_path / "again")
    unmasked = FAST.model_copy(update={"mask_observations": False})
    changed = train_adapter(corpus.job(base, tmp_path / "unmasked", unmasked, references=tmp_path / "store"))
    assert changed.references_reused < n  # only trajectories without observations are the same either way


def other_base(base: Path, out: Path) -> Path:
    """Writes a base of the same shape and template."""
    shutil.copytree(base, out)
    weights = load_file(out / "model.safetensors")
    save_file({name: 1.01 * weight for name, weight in weights.items()}, out / "model.safetensors", {"format": "pt"})
    return out


def other_template(base: Path, out: Path) -> Path:
    """Writes the same weights with a template that puts something before every conversation."""
    shutil.copytree(base, out)
    template = out / "chat_template.jinja"
    template.write_text("Task: " + template.read_text())
    return out


OTHERWISE = {
    "the base's weights": {"base": other_base},
    "its template": {"base": other_template},
    "its precision": {"training": FAST.model_copy(update={"dtype": "bfloat16"})},
    "how attention is computed": {"trainer": Trainer(attention="eager")},
    "PyTorch": {"version": "torch"},
    "transformers": {"version": "transformers"},
    "TRL": {"version": "trl"},
}


@pytest.mark.parametrize("changes", OTHERWISE.values(), ids=list(OTHERWISE))
def test_references_are_computed_again_where_they_would_be_others(
    corpus: Corpus, base: Path, changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = FAST.model_copy(update={"max_steps": 1})
    store = tmp_path / "store"
    first = train_adapter(corpus.job(base, tmp_path / "first", once, references=store))
    assert train_adapter(corpus.job(base, tmp_path / "again", once, references=store)).references_reused
    if "version" in changes:
        monkeypatch.setattr(importlib.import_module(changes["version"]), "__version__", "9.9.9")
    own = changes["base"](base, tmp_path / "own") if "base" in changes else base
    training = changes.get("training", once).model_copy(update={"max_steps": 1})
    options = {"trainer": changes["trainer"]} if "trainer" in changes else {}
    result = train_adapter(corpus.job(own, tmp_path / "other", training, references=store, **options))
    assert first.references_reused == result.references_reused == 0


def test_stores_differ_by_all_that_their_values_depend_on(tmp_path: Path) -> None:
    tokens = {"a": Tokens([1, 2], [3, 4], [1, 0])}
    ReferenceStore(tmp_path, {"base": "x", "dtype": "float32"}).put(tokens, {"a": -1.5})
    assert ReferenceStore(tmp_path, {"dtype": "float32", "base": "x"}).get(tokens) == {"a": -1.5}
    assert ReferenceStore(tmp_path, {"base": "y", "dtype": "float32"}).get(tokens) == {}
    for other in (Tokens([1, 2], [3, 4], [1, 1]), Tokens([1, 2, 3], [4], [1]), Tokens([1, 2], [3, 5], [1, 0])):
        assert ReferenceStore(tmp_path, {"base": "x", "dtype": "float32"}).get({"a": other}) == {}


def test_many_may_write_at_once_and_a_half_written_file_is_not_read(tmp_path: Path) -> None:
    store = ReferenceStore(tmp_path, {})
    tokens = {str(n): Tokens([n], [n], [1]) for n in range(40)}
    threads = [
        threading.Thread(target=store.put, args=(tokens, {str(n): -float(n) for n in range(start, start + 10)}))
        for start in (0, 5, 10, 20, 30)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (folder,) = tmp_path.iterdir()
    (folder / ".x.parquet.1.partial").write_bytes(b"half")
    assert store.get(tokens) == {str(n): -float(n) for n in range(40)}
