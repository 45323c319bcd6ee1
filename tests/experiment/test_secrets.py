"""Keys belong into variables that `key` names. Anywhere else they are an error that does not repeat them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from dagster_project.experiment.spec import load_experiment
from tests.lm_world import experiment, write_world
from toolemu.errors import InputError

KEY = "sk-planted-0123456789abcdef"


def load(folder: Path, changes: dict[str, Any]) -> None:
    write_world(folder)
    (folder / "lm.yaml").write_text(yaml.safe_dump(experiment("http://127.0.0.1:9/v1", **changes)))
    load_experiment(str(folder / "lm.yaml"))


def endpoint(**fields: Any) -> dict[str, Any]:
    return {"endpoints": {"here": {"url": "http://127.0.0.1:9/v1", **fields}}}


def world(**fields: Any) -> dict[str, Any]:
    emulator = {"endpoint": "here", "model": "emulator-1"}
    files = {"case_files": "cases.json", "toolkit_files": "toolkits.json"}
    return {"world": {"kind": "emulated", **files, "emulator": emulator, **fields}}


def model(**fields: Any) -> dict[str, Any]:
    return {"models": {"m": {"kind": "openai", "endpoint": "here", "model": "agent-a", **fields}}}


SERVED = {"serve": {"source": "a/b"}, "server": {"arguments": ["--api-key", "a-secret-of-mine"]}}
WRONG = {
    "user of a URL": (endpoint(url="https://me@x.example/v1"), "endpoint.secret-in-url"),
    "password of a URL": (endpoint(url="https://me:a-secret-of-mine@x.example/v1"), "endpoint.secret-in-url"),
    "query of a URL": (endpoint(url="https://x.example/v1?api_key=a-secret-of-mine"), "endpoint.secret-in-url"),
    "fragment of a URL": (endpoint(url="https://x.example/v1#a-secret-of-mine"), "endpoint.secret-in-url"),
    "key in a URL's path": (endpoint(url=f"https://x.example/{KEY}/v1"), "experiment.secret-in-file"),
    "no URL at all": (endpoint(url="a-secret-of-mine"), "input"),
    "key in place of a variable": (endpoint(key=KEY), "experiment.secret-in-file"),
    "password in place of a variable": (endpoint(key="a-secret-of-mine"), "input"),
    "field that there is not": (endpoint(api_key="a-secret-of-mine"), "input"),
    "section that there is not": ({"secrets": {"password": "a-secret-of-mine"}}, "input"),
    "field of a request": (model(request={"api_key": "a-secret-of-mine"}), "experiment.secret-in-file"),
    "nested field of a request": (
        model(request={"extra": [{"Authorization": "a-secret-of-mine"}]}),
        "experiment.secret-in-file",
    ),
    "argument of a template": (model(chat_template={"token": "a-secret-of-mine"}), "experiment.secret-in-file"),
    "key as a model's name": (model(model=KEY), "experiment.secret-in-file"),
    "key in the description": ({"description": f"Use {KEY}."}, "experiment.secret-in-file"),
    "header in the description": ({"description": "Bearer a-secret-of-mine"}, "experiment.secret-in-file"),
    "private key": ({"description": "-----BEGIN RSA PRIVATE KEY-----"}, "experiment.secret-in-file"),
    "argument of a server": ({"endpoints": {"here": SERVED}}, "serving.argument"),
    "variable of a pod": (
        {"kubernetes": [{"env": {"OPENAI_API_KEY": "a-secret-of-mine"}}]},
        "experiment.secret-in-file",
    ),
    "permission by a pod": (
        {"kubernetes": [{"env": {"FRONTIER_KEY_HOSTS": "OPENAI_API_KEY=https://evil.example"}}]},
        "experiment.secret-in-file",
    ),
    "key as cases": (world(case_files="$PLANTED_KEY"), "experiment.secret-in-path"),
    "key in a path of cases": (world(case_files="data/${}$PLANTED_KEY/cases.json"), "experiment.secret-in-path"),
    "token as toolkits": (world(toolkit_files="$MY_TOKEN"), "experiment.secret-in-path"),
    "unknown variable": (world(case_files="$NOWHERE_AT_ALL/cases.json"), "experiment.variable"),
    "secret under another name": (world(case_files="$HARMLESS"), "experiment.no-file"),
    "secret under another name, in a path": (world(toolkit_files="$HARMLESS/x.json"), "experiment.no-file"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_secret_in_the_wrong_place_is_an_error_that_does_not_repeat_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, code = WRONG[name]
    for variable in ("PLANTED_KEY", "MY_TOKEN", "HARMLESS"):
        monkeypatch.setenv(variable, "a-secret-of-mine")
    with pytest.raises(InputError) as raised:
        load(tmp_path, changes)
    assert raised.value.code == code
    for part in (str(raised.value), repr(raised.value.__cause__) if raised.value.code != "input" else ""):
        assert "a-secret-of-mine" not in part and KEY not in part
    assert raised.value.path.endswith("lm.yaml")


def test_a_variable_of_a_path_is_not_shown_in_later_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kept-to-myself").mkdir()
    (tmp_path / "kept-to-myself" / "cases.json").write_text("[{]")
    monkeypatch.setenv("CASES_FOLDER", str(tmp_path / "kept-to-myself"))
    with pytest.raises(InputError) as raised:
        load(tmp_path, world(case_files="$CASES_FOLDER/cases.json"))
    assert "kept-to-myself" not in str(raised.value) and "$CASES_FOLDER" in str(raised.value)


def test_prompts_reached_by_a_link_out_of_the_files_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "prompts" / "agent").mkdir(parents=True)
    (tmp_path / "elsewhere" / "prompts" / "agent" / "naive.jinja").write_text("{{ instruction }}")
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "own").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError) as raised:
        load(shared, {"prompts_dir": "own/prompts"})
    assert raised.value.code == "templates.link"
    load(shared, {"prompts_dir": "../elsewhere/prompts"})  # the file says so openly


def test_what_only_sounds_like_a_secret_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASES", str(tmp_path))
    fields = {"stop_token_ids": [1], "skip_special_tokens": False, "min_tokens": 1, "reasoning_effort": "low"}
    load(tmp_path, {**world(case_files="$CASES/cases.json"), **model(request=fields), "prices": {}, "judges": {}}
         | {"judges": {"j": {"kind": "openai", "endpoint": "here", "model": "judge-x"}}})  # fmt: skip
