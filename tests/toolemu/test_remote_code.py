"""Weights of strangers bring no code with them."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOADERS = ("from_pretrained", "from_config")


def test_every_call_that_loads_a_model_says_that_it_trusts_no_code() -> None:
    found = 0
    for package in ("toolemu", "dagster_project", "benchmarks"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOADERS:
                    owner = node.func.value
                    if isinstance(owner, ast.Name) and owner.id.startswith("Auto"):  # PEFT's take no such argument
                        found += 1
                        said = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                        assert said.get("trust_remote_code") == "False", f"{path}:{node.lineno}"
    assert found > 5


def evil_weights(folder: Path) -> Path:
    """Write weights whose configuration names code beside it, which leaves a mark when it is run."""
    folder.mkdir()
    mark = folder / "executed"
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Config: pass\nclass Model: pass\n")
    auto_map = {
        "AutoConfig": "evil.Config",
        "AutoModelForCausalLM": "evil.Model",
        "AutoTokenizer": ["evil.Model", None],
    }
    (folder / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": auto_map}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": auto_map, "tokenizer_class": "Evil"}))
    (folder / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    return mark


def test_weights_with_code_of_their_own_are_not_run(tmp_path: Path) -> None:
    from dagster_project.training.dpo import load_model
    from dagster_project.training.preflight import load_tokenizer
    from toolemu.chat.local import LocalChatModel
    from toolemu.errors import InputError

    mark = evil_weights(tmp_path / "weights")
    with pytest.raises(ValueError, match=r"trust_remote_code|model type|Unrecognized"):
        LocalChatModel(tmp_path / "weights", "evil")
    with pytest.raises(ValueError, match=r"trust_remote_code|model type|Unrecognized"):
        load_model(tmp_path / "weights", "float32")
    with pytest.raises(InputError):
        load_tokenizer(tmp_path / "weights")
    assert not mark.exists()
