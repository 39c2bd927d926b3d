"""`intarsia prompt`: what it lists, shows, prints and compares, and how it refuses."""

from __future__ import annotations

import functools
import io
import json
from pathlib import Path

import pytest

from tests.tiny import tiny

SOURCE = """---
description: The emotion of a turn
inputs:
  turn: {type: untrusted, description: what was said}
  shots: {type: int, default: 3}
---
{% system %}Name it, {{ shots }}.{% endsystem %}
{% user %}{{ turn }}{% enduser %}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("prompts")
    (folder / "in" / ".hidden").mkdir(parents=True)
    (folder / "old.md.j2").write_text(SOURCE)
    (folder / "in" / "new.md.j2").write_text(SOURCE.replace("Name it", "Say it").replace("turn", "text"))
    (folder / "in" / ".hidden" / "no.j2").write_text("{{")
    (folder / "inputs.json").write_text(json.dumps({"turn": "Oh \u200bno"}))
    tiny("llama").save(folder / "model")
    return folder


@pytest.fixture
def cli(cli, place, monkeypatch):
    monkeypatch.chdir(place)
    return functools.partial(cli, "prompt")


def test_ls_lists_inputs_and_versions_and_what_is_no_prompt(cli, place) -> None:
    code, out, _ = cli("ls")
    rows = [line.split() for line in out.splitlines()[1:]]
    assert code == 0 and [row[0] for row in rows] == ["in/new.md.j2", "old.md.j2"]
    assert "turn: untrusted, shots: int?" in out and "The emotion of a turn" in out
    (place / "bad.j2").write_text("one\n{{ a")
    code, out, _ = cli("ls", "--json")
    (place / "bad.j2").unlink()
    found = {row["prompt"]: row for row in json.loads(out)}
    assert code == 2 and "line 2" in found["bad.j2"]["error"]
    assert found["old.md.j2"]["inputs"]["turn"] == {
        "type": "untrusted",
        "required": True,
        "description": "what was said",
    }
    assert cli("ls", "nowhere")[0] == 2 and "no prompts" in cli("ls", "model")[1]


def test_show_says_the_source_and_then_what_is_made_of_it(cli) -> None:
    code, out, _ = cli("show", "old.md.j2")
    assert code == 0 and "{% system %}" in out and "turn: untrusted  what was said" in out
    code, out, _ = cli("show", "old.md.j2", "--inputs", "inputs.json", "--set", "shots=5", "--model", "model")
    assert code == 0 and "[system]" in out and "Name it, 5." in out and ">Oh no<" in out
    assert "5 characters from outside; hidden characters taken out: 1 zero-width" in out
    code, out, _ = cli("show", "old.md.j2", "--inputs", "inputs.json", "--model", "model", "--json")
    made = json.loads(out)["rendered"]
    assert made["text"].startswith("<|system|>Name it, 3.<|end|><|user|><untrusted-")
    assert made["tokens"] == len(made["ids"]) > 40
    span = made["untrusted"][0]
    assert made["messages"][1]["content"][span["start"] : span["end"]] == "Oh no"


def test_render_prints_only_what_is_sent(cli, monkeypatch) -> None:
    code, out, _ = cli("render", "old.md.j2", "--set", "turn=a")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and lines[0] == {"role": "system", "content": "Name it, 3."} and len(lines) == 2
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"turn": "b"}')))
    code, out, _ = cli("render", "old.md.j2", "--inputs", "-", "--json")
    assert code == 0 and ">b</untrusted-" in json.loads(out)["messages"][1]["content"]


def test_diff_is_of_the_files_or_of_what_they_make(cli) -> None:
    code, out, _ = cli("diff", "old.md.j2", "in/new.md.j2")
    assert code == 0 and "-  turn: {" in out and "+  text: {" in out
    code, out, _ = cli("diff", "old.md.j2", "in/new.md.j2", "--set", "turn=x", "--set", "text=x")
    assert "-Name it, 3." in out and "+Say it, 3." in out
    assert [line for line in out.splitlines() if "untrusted" in line] == [" <untrusted>x</untrusted>"]
    assert cli("diff", "old.md.j2", "old.md.j2")[1] == "no difference\n"
    assert json.loads(cli("diff", "old.md.j2", "old.md.j2", "--json")[1])["diff"] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "none.md.j2"], "none.md.j2: no prompt there"),
        (["show", "intarsia:nothing"], "no prompt 'intarsia:nothing' comes with the package"),
        (["show", "old.md.j2", "--set", "trun=a"], "--set trun: no such input (did you mean turn?)"),
        (["show", "old.md.j2", "--set", "turn"], "give NAME=VALUE"),
        (["show", "old.md.j2", "--set", "turn=a", "--set", "shots=many"], "input 'shots' (used in line 7): wants int"),
        (["render", "old.md.j2"], "input 'turn' is missing, it wants untrusted (used in line 8)"),
        (["render", "old.md.j2", "--inputs", "none.json"], "none.json: cannot be read"),
        (["render", "old.md.j2", "--inputs", "old.md.j2"], "old.md.j2: is no JSON"),
        (["show", "old.md.j2", "--model", "model"], "--model counts a rendered prompt: give its inputs"),
    ],
)
def test_refusals_are_one_line(cli, arguments, said) -> None:
    code, out, errors = cli(*arguments)
    assert code == 2 and out == "" and said in errors and errors.count("\n") == 1
