"""Prompt templates of strangers: what they may not do, and the error that says so. Every input is written here."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.toolemu.acting import LIGHTS, case
from toolemu.errors import InputError
from toolemu.prompts import AgentPrompt, EmulatorPrompt
from toolemu.trajectory import ToolCall

FORBIDDEN = {
    "class of a string": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals of a template": "{{ self.__init__.__globals__ }}",
    "attribute by subscript": "{{ instruction['__class__'].__base__ }}",
    "attribute in a format": "{{ '{0.__class__.__mro__}'.format(instruction) }}",
    "method of a record": "{{ call.model_dump_json() }}",
    "unpickling by a record": "{{ call.parse_raw(b='gASVIAAAAA==', proto='pickle', allow_pickle=true) }}",
    "file by a record": "{{ call.parse_file('/etc/passwd') }}",
    "change of a list": "{% if risky_actions.append('x') %}{% endif %}",
    "change of a dict": "{% set d = dict(a=1) %}{% if d.update(a=2) %}{% endif %}",
    "huge range": "{% for i in range(10**15) %}{% endfor %}",
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "repeated text": "{{ 'a' * 10**10 }}",
    "repeated list": "{{ ([0] * 10**10) | length }}",
    "tower of powers": "{{ 9**(9**9) }}",
    "long products": "{% set ns = namespace(n=3) %}{% for i in range(60) %}{% set ns.n = ns.n * ns.n %}{% endfor %}",
    "doubling by ~": "{% set ns = namespace(s='ab') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "doubling by +": "{% set ns = namespace(s='ab') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "doubling by join": (
        "{% set ns = namespace(s='ab') %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s]|join %}{% endfor %}"
    ),
    "doubling by replace": (
        "{% set ns = namespace(s='aa') %}{% for i in range(9) %}{% set ns.s = ns.s.replace('a', ns.s) %}{% endfor %}"
    ),
    "list of lists": (
        "{% set ns = namespace(s=[1]) %}{% for i in range(40) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s }}"
    ),
    "wide format": "{{ '%999999999d' % 1 }}",
    "wide indent": "{{ ('a\\n' * 9999) | indent(99999) }}",
    "wide JSON": "{{ range(9999) | list | tojson(999999) }}",
    "branching macros": ("{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}"),
    "endless output": "{% for i in range(99999) %}{{ instruction ~ 'a' * 1000 }}{% endfor %}",
}
FAILING = {
    "endless macro": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "endless include": "{% include 'emulator/hostile.jinja' %}",
    "text plus number": "{{ instruction + 1 }}",
    "deep nesting": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "loops in loops": "{% for a in [1] %}" * 25 + "x" + "{% endfor %}" * 25,
    "number of 5,000 digits": "{{ " + "9" * 5000 + " }}",
}
UNKNOWN = {
    "format in a map": "{{ ['{0.__class__}'] | map('format', instruction) | list }}",
    "attribute by filter": "{{ instruction | attr('__class__') }}",
    "filter that multiplies": "{{ 'a' | center(10**10) }}",
    "global that writes text": "{{ lipsum(10**9) }}",
    "recursive loop": "{% for a in risky_actions recursive %}{{ loop(a) }}{% endfor %}",
    "absolute path": "{% include '/etc/passwd' %}",
    "path out of the folder": "{% include '../secret.jinja' %}",
}


def render(folder: Path, text: str) -> str:
    """Return what an emulator is sent by a template of this text, given everything that a template can be given."""
    path = folder / "prompts" / "emulator" / "hostile.jinja"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    call = ToolCall(tool="LightsSwitch", tool_input="{}")
    (message,) = EmulatorPrompt("hostile", folder / "prompts").messages(case(), LIGHTS, [], call)
    return message.content


def refused(folder: Path, text: str) -> InputError:
    began = time.process_time()
    with pytest.raises(InputError) as raised:
        render(folder, text)
    assert time.process_time() - began < 20, "the error came after a long computation"
    return raised.value


@pytest.mark.parametrize("name", FORBIDDEN)
def test_the_sandbox_forbids(name: str, tmp_path: Path) -> None:
    error = refused(tmp_path, "\n" + FORBIDDEN[name])
    assert error.code == "templates.forbidden", str(error)
    assert error.place == ("" if name == "endless output" else "line 2")
    assert error.path.endswith("hostile.jinja")


@pytest.mark.parametrize("name", FAILING)
def test_an_error_of_python_becomes_an_error_with_file_and_code(name: str, tmp_path: Path) -> None:
    error = refused(tmp_path, FAILING[name])
    assert error.code == "templates.failed"
    assert error.path.endswith("hostile.jinja")


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_templates_have_not_is_an_error(name: str, tmp_path: Path) -> None:
    assert refused(tmp_path, UNKNOWN[name]).path


@pytest.mark.parametrize("target", ["a file outside", "a folder outside", "nothing", "itself"])
def test_a_template_that_is_a_link_out_of_its_folder_is_refused(target: str, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "naive.jinja").write_text("a secret of {{ instruction }}")
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    if target == "a folder outside":
        (prompts / "agent").symlink_to(tmp_path / "outside")
        (prompts / "judge").mkdir()
        (prompts / "judge" / "safe.jinja").write_text("x")
    else:
        (prompts / "agent").mkdir()
        places = {
            "a file outside": tmp_path / "outside" / "naive.jinja",
            "nothing": prompts / "nothing",
            "itself": prompts / "agent" / "naive.jinja",
        }
        (prompts / "agent" / "naive.jinja").symlink_to(places[target])
    with pytest.raises(InputError) as raised:
        AgentPrompt("naive", prompts)
    assert raised.value.code in ("templates.link", "templates.not-a-file")


def test_a_folder_of_templates_that_is_a_link_is_refused_if_it_leads_out(tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "agent").mkdir(parents=True)
    (tmp_path / "elsewhere" / "agent" / "naive.jinja").write_text("{{ instruction }}")
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "prompts").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError) as raised:
        AgentPrompt("naive", tmp_path / "shared" / "prompts")
    assert raised.value.code == "templates.link"
    (tmp_path / "prompts").symlink_to(tmp_path / "elsewhere")  # a link within the folder is a name, no way out
    assert AgentPrompt("naive", tmp_path / "prompts").messages(case(), [LIGHTS])


@pytest.mark.parametrize("kind", ["pipe", "folder", "large", "binary"])
def test_a_template_that_is_no_text_file_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "agent" / "naive.jinja"
    path.parent.mkdir()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"a" * 1_000_001 if kind == "large" else b"\xff\xfe\x00")
    with pytest.raises(InputError) as raised:
        AgentPrompt("naive", tmp_path)
    assert raised.value.code == ("templates.text" if kind == "binary" else "templates.not-a-file")


def test_what_real_prompts_do_works(tmp_path: Path) -> None:
    text = (
        "{% macro line(text) %}- {{ text | trim | upper }}{% endmacro %}"
        "{% set ns = namespace(n=0) %}{% for risk in risky_actions %}{{ line(risk) }} "
        "{{ loop.index }}/{{ loop.length }}"
        "{% if not loop.last %}, {% endif %}{% set ns.n = ns.n + 1 %}{% else %}none{% endfor %}"
        "{{ ' / '.join(['a', 'b']) }} {{ call.tool.lower() ~ '!' }} {{ dict(a=1).items() | list }} "
        "{{ 'x' * 3 }} {% for i in range(2) %}{{ i }}{% endfor %} {{ [3, 1] | sort | tojson }} {{ ns.n }} {{ 7 % 4 }}"
    )
    written = render(tmp_path, text)
    count = len(case().risky_actions)
    assert written.startswith(f"- {case().risky_actions[0].upper()} 1/{count}")
    assert written.endswith(f"a / b lightsswitch! [('a', 1)] xxx 01 [1, 3] {count} 3")
