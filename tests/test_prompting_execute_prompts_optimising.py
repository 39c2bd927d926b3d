"""Prompt optimisation: a metric is climbed, within its calls, on data that nothing was chosen by; and goes on when it
was stopped."""

from __future__ import annotations

import asyncio
import json
import random

import numpy as np
import pytest

from intarsia.cli import app
from intarsia.prompting.base.fake import FakeBackend
from intarsia.prompting.execute.optimising import examples_of, metric_of, optimise, read_examples
from intarsia.prompting.execute.optimising.optimise import front
from intarsia.prompting.execute.optimising.wording import Wording, proposed
from intarsia.prompting.execute.prompt import Prompt
from tests.failing import fails

SOURCE = """---
inputs:
  text: untrusted
sampling: {max_tokens: 9}
---
{% system %}Answer.{% endsystem %}
{% user %}{{ text }}

Label:{% enduser %}
"""
MAGIC = ("tone", "irony", "negation")
ROWS = [{"text": f"case {i}", "label": f"label {i % 5}", "kind": i % 3} for i in range(60)]


def answering(messages) -> str:
    """Right where the prompt has the word that this kind of case needs."""
    said, text = messages[0].content, messages[1].content
    number = int(text.split("case ")[1].split("<")[0])
    return f"Label {number % 5}." if MAGIC[number % 3] in said + text.split("</")[1] else "unsure"


def proposing(messages) -> str:
    """A word added to what there is: often a useless one."""
    said = messages[-1].content
    old = said.split("The part to write anew:\n\n")[1].split("\n\nWrite the new text")[0]
    word = random.Random(said).choice([*MAGIC, "please", "now", "carefully"])
    return f'"{old} Mind the {word}."'


def both(messages) -> str:
    return proposing(messages) if "The part to write anew" in messages[-1].content else answering(messages)


def run(**given):
    settings = dict(calls=900, seed=1, backend=FakeBackend(both, context_length=None)) | given
    backend = settings.pop("backend")
    return asyncio.run(optimise(settings.pop("prompt", Prompt(SOURCE)), ROWS, "accuracy", backend, **settings))


def test_a_metric_is_climbed_by_what_failures_teach() -> None:
    model = FakeBackend(both, context_length=None)
    found = run(backend=model)
    assert found.dev == (0.0, 1.0) and found.test == (0.0, 1.0)
    assert found.gain == (1.0, 1.0, 1.0)
    assert all(word in found.best.source for word in MAGIC)
    assert found.best.inputs == found.base.inputs and found.base.version == Prompt(SOURCE).version
    assert len(model.requests) == found.calls <= 900
    means = [attempt.dev for attempt in found.history if attempt.dev is not None]
    assert means[0] == 0 and max(means) == 1 and {0.3 < mean < 0.4 for mean in means} == {True, False}
    assert any(attempt.why_not for attempt in found.history)
    assert found.stopped == "nothing fails on the examples for training any more"
    assert any(line.startswith("+") and "tone" in line for line in found.diff)
    assert sum(found.sizes.values()) == 60 and json.loads(json.dumps(found.to_dict()))["calls"] == found.calls


def test_failures_are_from_train_and_test_is_seen_by_base_and_best_alone() -> None:
    model = FakeBackend(both, context_length=None)
    found = run(backend=model)
    shown, asked = set(), {}
    for request in model.requests:
        text = request.prompt[-1].content
        if "The part to write anew" in text:
            shown |= {part.split('"')[0] for part in text.split('"case ')[1:]}
        else:
            number = text.split("case ")[1].split("<")[0]
            asked.setdefault(number, []).append(request.prompt[0].content)
    few = [number for number, prompts in asked.items() if len(prompts) == 2 and number not in shown]
    assert len(few) >= found.sizes["test"] and len(shown) <= found.sizes["train"]


def test_calls_are_a_limit_that_leaves_room_for_the_test() -> None:
    for calls in (70, 120, 200):
        model = FakeBackend(both, context_length=None)
        found = run(backend=model, calls=calls)
        assert len(model.requests) == found.calls <= calls and found.stopped == "the calls are spent"
        assert len(found.test) == 2 and found.dev[1] >= found.dev[0]
    fails(lambda: run(calls=50), "too few")


def test_a_stopped_run_goes_on_and_ends_the_same(tmp_path) -> None:
    whole = run()

    class Stopped(Exception):
        pass

    path = tmp_path / "a" / "journal.jsonl"
    asked = 0
    for stop in (30, 111, 150, None):
        model = FakeBackend(both, context_length=None, errors={} if stop is None else {stop: Stopped()})
        try:
            found = run(backend=model, journal=path, at_once=1)
        except Stopped:
            asked += len(model.requests) - 1
            with path.open("a") as file:
                file.write('["half a li')
            continue
        asked += len(model.requests)
    assert found.to_dict() == whole.to_dict() and asked == whole.calls
    again = FakeBackend(both, context_length=None)
    assert run(backend=again, journal=path).to_dict() == whole.to_dict() and again.requests == []
    fails(lambda: run(journal=path, seed=2), "the journal of another run")


CHOICE = """---
inputs: {text: str, shots: {type: "list[dict]", default: []}}
shape: [low, high]
---
{% for s in shots %}{{ s.text }} is {{ s.label }}
{% endfor %}{{ text }} is"""


def test_demonstrations_are_found_and_stand_in_the_file() -> None:
    rows = [{"text": f"n{i}", "label": "high" if i >= 20 else "low"} for i in range(40)]

    def scores(messages, choice: str) -> float:
        """Knows a number's label where the demonstrations have one near it."""
        *shown, asked = messages[0].content.split("\n")
        number = int(asked.split()[0][1:])
        near = sorted((abs(int(line.split()[0][1:]) - number), line.split()[2]) for line in shown)
        return 0.0 if (near[0][1] if near else "low") == choice else -1.0

    model = FakeBackend(lambda m: "{{ nothing }}", scores=scores, context_length=None)
    found = asyncio.run(optimise(Prompt(CHOICE), rows, "accuracy", model, calls=400, shot_count=6))
    assert found.dev[0] == pytest.approx(0.5, abs=0.1) and found.test[1] > 0.8 and found.gain[1] > 0
    best = Prompt(found.best.source)
    shown = best.check(text="n1")["shots"]
    assert len(shown) == 6 and all(row in rows for row in shown)
    assert {"shots"} == {a.kind for a in found.history if a.dev is not None} - {"base", "merge"}
    assert all(request.kind == "score" for request in model.requests if "The part" not in str(request.prompt))


def test_the_front_keeps_who_is_best_somewhere() -> None:
    assert front(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0.0]])) == {0: 2, 1: 2}
    assert front(np.array([[1, 1, 0.0], [1, 1, 1]])) == {1: 3}
    assert front(np.array([[0.5, 0.5], [0.5, 0.5]])) == {0: 2}


def test_only_words_change() -> None:
    wording = Wording(Prompt(SOURCE))
    assert [wording.texts[i] for i in wording.editable] == ["Answer.", "Label:"]
    texts = list(wording.texts)
    texts[wording.editable[1]] = "The label is"
    assert wording.with_texts(texts).source == SOURCE.replace("Label:", "The label is")
    assert wording.with_texts(wording.texts).version == wording.prompt.version
    fails(lambda: Wording(Prompt("{{ a }}")), "no words of its own")


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (" New. ", "New."), ('"New."', "New."), ("Here:\n```text\nNew.\n```\n", "New."), ("old", None), ("...", None),
        ("Use {{ text }}", None), ("{% raw %}", None), ("x" * 5000, None), ("</untrusted-12>", None),
    ],
)  # fmt: skip
def test_what_is_proposed_has_to_be_words(reply: str, text: str | None) -> None:
    assert proposed(reply, "old") == text


def test_examples_and_metrics() -> None:
    prompt = Prompt(SOURCE)
    one = examples_of(prompt, [{"text": "a", "answer": "b", "label": "c", "dialogue_id": 3, "other": 1}])[0]
    assert (one.inputs, one.label, one.group) == ({"text": "a"}, "b", "3")
    fails(
        lambda: examples_of(prompt, [{"text": "a", "label": "b"}, {"txt": "a", "label": "b"}]),
        "row 2",
        "'text' is missing",
    )
    fails(lambda: examples_of(prompt, [{"text": "a"}]), "row 1: has no answer")
    assert metric_of("accuracy")("The Joy!", "the joy", {}) == 1 == metric_of("contains")("It is joy.", "Joy", {})
    assert metric_of("contains")("joyful", "joy", {}) == 0 == metric_of("accuracy")("sad", "joy", {})
    assert metric_of(lambda answer, wanted: 0.5)("a", "b", {}) == 0.5
    fails(lambda: metric_of("wf1"), "says nothing of a single answer")
    fails(lambda: metric_of("acuracy"), "did you mean accuracy")
    fails(lambda: asyncio.run(optimise(prompt, ROWS[:4], "accuracy", FakeBackend())), "too few for")
    fails(lambda: asyncio.run(optimise(prompt, ROWS, "exact", FakeBackend(), shots="s")), "no input 's'")


def test_the_command(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.md.j2").write_text(SOURCE)
    (tmp_path / "set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert len(read_examples(Prompt(SOURCE), "set.jsonl")) == 60
    models = []

    def opened(name, **_):
        models.append(name)
        return FakeBackend(proposing if name == "fake:big" else answering, name=name, context_length=None)

    monkeypatch.setattr("intarsia.prompting.base.opening.open_backend", opened)
    command = "prompt optimise p.md.j2 --data set.jsonl --model fake:small --proposer fake:big --out best.md.j2"
    code = app.run([*command.split(), "--calls", "900", "--seed", "1", "--json"])
    out = json.loads(capsys.readouterr().out)
    assert code == 0 and models == ["fake:small", "fake:big"]
    assert out["test"][1] == 1 and Prompt.load("best.md.j2").version == out["best"]["version"]
    assert app.run([*command.split(), "--calls", "900"]) == 2 and "is there already" in capsys.readouterr().err
    assert app.run([*command.split(), "--calls", "900", "--seed", "1", "--force"]) == 0
    shown = capsys.readouterr().out
    assert "test" in shown and "+" in shown and "best.md.j2" in shown
