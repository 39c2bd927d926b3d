"""Prompts: what they render, what they refuse and where, and that text from outside is followed wherever it goes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from intarsia.errors import BadInput
from intarsia.prompting.base import Call, Constraint, Message
from intarsia.prompting.base.fake import FakeBackend
from intarsia.prompting.base.traced import Traced
from intarsia.prompting.execute.asking import ask_now
from intarsia.prompting.execute.prompt import Prompt, described
from intarsia.prompting.execute.shape import Shape
from intarsia.prompting.execute.trust import Untrusted, is_untrusted, plain
from intarsia.prompting.tracing import trace
from tests.failing import fails
from tests.tiny import tokenizer

EMOTION = """---
description: The emotion of the last turn
inputs:
  dialogue: list[Turn]
  shots: {type: "list[dict]", default: []}
  note: {type: untrusted | None, default: null, description: what a person adds}
shape: [joy, anger]
sampling: {max_tokens: 5, stop: "\\n"}
---
{% system %}
Answer with one of: {{ shape }}.
{% endsystem %}
{% for shot in shots %}
{% shot %}{{ shot.text }}{% answer %}{{ shot.label }}{% endshot %}
{% endfor %}
{% user %}
{% for turn in dialogue %}
{{ turn.speaker }}: {{ turn.text }}
{% endfor %}
{% if note is not none %}Note: {{ note }}{% endif %}
{% enduser %}
"""


@dataclass(frozen=True)
class Turn:
    text: str
    speaker: str = ""


TURNS = [Turn("Hi!", "Ann"), Turn("Oh no", "Bob")]


def test_messages_are_what_the_template_says() -> None:
    prompt = Prompt(EMOTION, name="emotion.md.j2")
    made = prompt.render(dialogue=TURNS, shots=[{"text": "Yes!", "label": "joy"}])
    assert made.messages == (
        Message("system", "Answer with one of: joy | anger."),
        Message("user", "Yes!"),
        Message("assistant", "joy"),
        Message("user", "Ann: Hi!\nBob: Oh no"),
    )
    assert list(made) == list(made.messages) and made[0].role == "system" and len(made) == 4
    assert made.hash == prompt.render(dialogue=TURNS, shots=[{"text": "Yes!", "label": "joy"}]).hash
    assert made.hash != prompt.render(dialogue=TURNS).hash
    assert (made.sampling.max_tokens, made.sampling.stop, made.shape) == (5, ("\n",), ["joy", "anger"])
    assert made.version == prompt.version and re.fullmatch("[0-9a-f]{12}", prompt.version)
    assert made.inputs["note"] is None and made.untrusted == () and made.text is None and made.fence == ""


def test_text_without_a_tag_is_one_message_of_the_user() -> None:
    made = Prompt("Say {{ word }} twice.\n").render(word="so")
    assert made.messages == (Message("user", "Say so twice."),)
    assert Prompt("No inputs").render().messages[0].content == "No inputs"


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({}, r"emotion.md.j2: input 'dialogue' is missing, it wants list\[Turn\] \(used in line 17\)"),
        ({"dialog": TURNS}, r"has no input 'dialog' \(did you mean dialogue\?\)"),
        ({"dialogue": "Hi"}, r"input 'dialogue' .*line 17.*: wants list\[Turn\], is str"),
        ({"dialogue": [3]}, r"\[0\]: wants Turn, is int \(3\)"),
        (
            {"dialogue": [{"txt": "a", "speaker": "b"}]},
            r"emotion.md.j2, line 18: 'dict object' has no attribute 'text'",
        ),
        ({"dialogue": [], "note": 3}, r"'note'.*: wants untrusted \| None, is int"),
    ],
)
def test_inputs_that_do_not_fit_are_named_with_their_line(inputs: dict, said: str) -> None:
    prompt = Prompt(EMOTION, name="emotion.md.j2")
    with pytest.raises(BadInput, match=said) as caught:
        prompt.render(**inputs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("---\ninputs: {a: str}\n---\n\n{{ b }}", "p, line 5: uses 'b', which the header does not declare"),
        ("---\ninputs: {a: strr}\n---\n{{ a }}", "input 'a': 'strr' is no type 'strr' .did you mean str"),
        ("---\ninputs: {a: 'list[str, int]'}\n---\n{{ a }}", "input 'a'"),
        ("---\ninputs: {shape: str}\n---\n", "cannot be called 'shape'"),
        ("---\ninput: {a: str}\n---\n", "knows no 'input' .did you mean inputs"),
        ("---\ninputs: {a: {type: int, default: x}}\n---\n", "input 'a', its default: wants int, is str"),
        ("---\nsampling: {temprature: 1}\n---\n", "knows no 'temprature' .did you mean temperature"),
        ("---\nsampling: {max_tokens: many}\n---\n", "sampling: max_tokens: wants int, is str"),
        ("---\na: [\n---\n", "line 3: the header is no YAML"),
        ("---\ninputs: {a: list[str]}\n---\n", "line 2: the header is no YAML: .* is quoted"),
        ("---\na: b\n", "no end"),
        ("one\n{% user %}two\n", "p, line 2: "),
        ("{% user %}a{% enduser %}\n\nloose", "p, line 3: text outside of all messages: 'loose'"),
        ("{% user %}\n{% system %}a{% endsystem %}{% enduser %}", "p, line 2: a message inside of the user's message"),
        ("{% shot %}a{% endshot %}", "line 1: a shot has two parts"),
        ("{{ a | uper }}", "p, line 1: No filter named 'uper'"),
        ("{% autoescape true %}{{ a }}{% endautoescape %}", "no `autoescape`"),
        ("{% include 'x' %}", "no file has nothing to include"),
        ("{% set a = 'b' %}{% include a %}", "has to be named"),
        ("{{ lipsum() }}", None),
    ],
)
def test_a_file_that_is_no_prompt_says_where(source: str, said: str | None) -> None:
    if said is None:  # a name that is no global is an input
        assert list(Prompt(source).inputs) == ["lipsum"]
        return
    with pytest.raises(BadInput, match=said) as caught:
        Prompt(source, name="p")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}", "{{ a.__class__ }}", "{{ a|attr('__class__') }}", "{{ a['__class__'] }}",
        "{{ '{0.__class__}'.format(a) }}", "{{ range(10000000)|list }}", "{{ a.format(1) }}", "{{ cycler.__init__ }}",
        "{% set b = rows.append(1) %}", "{{ a.format_map({}) }}",
    ],
)  # fmt: skip
def test_templates_are_sandboxed(source: str) -> None:
    prompt = Prompt("---\ninputs: {a: untrusted, rows: {type: list, default: []}}\n---\n" + source)
    with pytest.raises(BadInput):
        prompt.render(a="{0.__class__}")


def test_includes_come_from_the_prompts_folder_and_count_in_its_version(tmp_path: Path) -> None:
    folder = tmp_path / "prompts"
    folder.mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "rules.md").write_text("Be {{ how }}.")
    (folder / "a.md.j2").write_text("{% include 'rules.md' %} Go.")
    prompt = Prompt.load(folder / "a.md.j2")
    assert prompt.render(how="brief").messages[0].content == "Be brief. Go."
    (folder / "rules.md").write_text("Be very {{ how }}.")
    assert Prompt.load(folder / "a.md.j2").version != prompt.version
    (folder / "link.md").symlink_to(tmp_path / "secret.txt")
    for other in ("../secret.txt", "/etc/hostname", "link.md", "none.md"):
        (folder / "b.md.j2").write_text(f"{{% include '{other}' %}}")
        with pytest.raises(BadInput, match=r"^b\.md\.j2"):
            Prompt.load(folder / "b.md.j2")
    (folder / "rules.md").write_text("{{ a.b }}")
    (folder / "c.md.j2").write_text("{% include 'rules.md' %}")
    with pytest.raises(BadInput, match=r"^rules.md, line 1: .*'b'"):
        Prompt.load(folder / "c.md.j2").render(a={})
    fails(lambda: Prompt.load(folder / "d.md.j2"), "no prompt there")


# ---- text from outside


def outside(source: str, **inputs) -> tuple[str, list[str]]:
    """The one message's text, and the data in it that is known to be from outside."""
    made = Prompt(source).render(**inputs)
    content = made.messages[0].content
    assert all(span.message == 0 for span in made.untrusted)
    return plain(content), [plain(content)[span.start : span.end] for span in made.untrusted]


U = Untrusted("evil text")


@pytest.mark.parametrize(
    ("source", "data"),
    [
        ("a {{ u }} b", ["evil text"]),
        ("{{ u }}{{ u }}", ["evil text", "evil text"]),
        ("{{ 'x' ~ u ~ 'y' }}", ["evil text"]),
        ("{{ 'x' + u }}", ["evil text"]),
        ("{{ u | upper }}", ["EVIL TEXT"]),
        ("{{ u.title() }}", ["Evil Text"]),
        ("{{ u[:4] }}", ["evil"]),
        ("{{ u[0] }}", ["e"]),
        ("{{ u[::-1] }}", ["txet live"]),
        ("{{ u | replace('evil', 'good') }}", ["good text"]),
        ("{{ 'x' | replace('x', u) }}", ["evil text"]),
        ("{{ '%s!' | format(u) }}", ["evil text!"]),
        ("{{ '%s!' % u }}", ["evil text!"]),
        ("{{ '{}!'.format(u) }}", ["evil text!"]),
        ("{{ '{a}!'.format_map({'a': u}) }}", ["evil text!"]),
        ("{{ [u, u] | join('-') }}", ["evil text-evil text"]),
        ("{{ '-'.join([u, 'b']) }}", ["evil text-b"]),
        ("{{ [u, 'b'] }}", ["['evil text', 'b']"]),
        ("{{ {'a': u} | tojson }}", ['{"a": "evil text"}']),
        ("{{ u.split() | join(',') }}", ["evil,text"]),
        ("{{ [u] | map('upper') | join }}", ["EVIL TEXT"]),
        ("{{ [{'t': u}] | map(attribute='t') | join }}", ["evil text"]),
        ("{{ u | list | join }}", ["evil text"]),
        ("{{ u | wordwrap(4) }}", ["evil\ntext"]),
        ("{{ [u] | first }}", ["evil text"]),
        ("{{ u | truncate(6, true, '.', 0) }}", ["evil ."]),
        ("{% set v = u %}{{ v }}", ["evil text"]),
        ("{% set v %}a {{ u }} b{% endset %}{{ v }}", ["evil text"]),
        ("{% set v | upper %}a {{ u }}{% endset %}{{ v }}", ["A EVIL TEXT"]),
        ("{% filter upper %}a {{ u }}{% endfilter %}", ["A EVIL TEXT"]),
        ("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(u) }}", ["evil text"]),
        ("{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}a {{ u }}{% endcall %}", ["evil text"]),
        ("{% for k, v in {'a': u}.items() %}{{ v }}{% endfor %}", ["evil text"]),
        ("{% set n = namespace(v='') %}{% for x in [u] %}{% set n.v = n.v ~ x %}{% endfor %}{{ n.v }}", ["evil text"]),
        ("{{ dict(a=u).a }}", ["evil text"]),
        ("{{ u | default('x') }}", ["evil text"]),
        ("{{ [u, u] | unique | list | join }}", ["evil text"]),
        ("{{ u * 2 }}", ["evil textevil text"]),
        ("{{ u if u else 'x' }}", ["evil text"]),
        ("{{ [[u]] | sum(start=[]) | join }}", ["evil text"]),
        ("{{ u | int }}{{ u | length }}", []),
        ("{% block b %}{{ u }}{% endblock %}", ["evil text"]),
    ],
)
def test_a_templates_work_on_text_from_outside_is_followed(source: str, data: list[str]) -> None:
    text, found = outside("---\ninputs: {u: untrusted}\n---\n" + source, u="evil text")
    assert found == data
    assert text.count("</untrusted-") == len(data)


def test_fields_of_records_are_followed() -> None:
    source = "---\ninputs: {turns: 'list[untrusted[Turn]]'}\n---\n"
    _, found = outside(source + "{{ turns | map(attribute='text') | join(' ') }}", turns=TURNS)
    assert found == ["Hi! Oh no"]
    assert outside(source + "{{ turns[0] }}", turns=TURNS)[1][0].startswith("Turn(")
    assert not is_untrusted(TURNS)

    class Loose:
        text = "a"

    fails(lambda: Prompt("---\ninputs: {a: 'untrusted[any]'}\n---\n{{ a }}").render(a=Loose()), "cannot be followed")


def test_a_value_of_a_literal_is_no_text_from_outside() -> None:
    prompt = Prompt('---\ninputs: {a: \'Literal["joy", "anger"]\'}\n---\n{{ a }}')
    assert prompt.render(a=Untrusted("joy")).untrusted == ()
    fails(lambda: prompt.render(a=Untrusted("ignore all")), "wants Literal")


def test_marks_are_the_same_again_and_others_for_other_data() -> None:
    prompt = Prompt("---\ninputs: {u: untrusted}\n---\nBetween {{ fence.open }} and {{ fence.close }}: {{ u }}")
    one, two = prompt.render(u="a"), prompt.render(u="b")
    assert one == prompt.render(u="a") and one.fence != two.fence
    assert one[0].content == f"Between <{one.fence}> and </{one.fence}>: <{one.fence}>a</{one.fence}>"
    assert prompt.render(u="a", seed="s").fence == prompt.render(u="a", seed="s").fence != one.fence
    assert prompt.render(u="a", seed="s").fence != prompt.render(u="a", seed="t").fence


TWO = Prompt("---\ninputs: {u: untrusted, v: untrusted}\n---\n[{{ u }}|{{ v }}]")


@settings(max_examples=100, deadline=None)
@given(st.text(), st.text(alphabet="<>/untrsed- \n\u200b\u2066ｕ〈⟨", max_size=60))
def test_whatever_the_data_its_fence_holds(one: str, two: str) -> None:
    made = TWO.render(u=one, v=two)
    text, mark = plain(made[0].content), made.fence
    assert text.count(f"<{mark}>") == text.count(f"</{mark}>") == 2
    first, second = made.untrusted
    assert text[first.start : first.end].count(mark) == text[second.start : second.end].count(mark) == 0
    rest = text[: first.start] + text[first.end : second.start] + text[second.end :]
    assert rest.replace("\n", "") == f"[<{mark}></{mark}>|<{mark}></{mark}>]"


# ---- the shape in words


class Evidence(BaseModel):
    quote: str = Field(description="the words\nthat show it", max_length=80)
    certainty: int = Field(ge=0, le=10)


class Reading(BaseModel):
    emotion: Literal["joy", "anger"]
    evidence: list[Evidence] = []
    remark: str | None = None


def test_a_schema_in_words() -> None:
    assert described(Reading) == (
        '{\n  "emotion": "joy" | "anger",\n  "evidence"?: [{\n    "quote": text (at most 80 characters),'
        '  // the words that show it\n    "certainty": whole number (0 to 10)\n  }, ...],\n  "remark"?: text | null\n}'
    )
    constraint = Constraint("json", json.dumps(Reading.model_json_schema()))
    assert described(constraint) == described(Reading) == described(Reading.model_json_schema())
    assert described(Constraint("choice", '["a", "b"]')) == "a | b" == described(["a", "b"])
    assert described(None) == "" and described("as I say") == "as I say"
    assert Prompt("Answer as {{ shape }}").render(shape=["x", "y"])[0].content == "Answer as x | y"
    assert Prompt("{% if shape %}never{% endif %}so").render()[0].content == "so"
    tree = {"$defs": {"N": {"properties": {"next": {"$ref": "#/$defs/N"}}}}, "$ref": "#/$defs/N"}
    assert described(tree) == '{\n  "next"?: N\n}'
    assert described(Literal["x", "y"]) == "x | y" == described(Shape.of(["x", "y"])) and described(Shape.of(str)) == ""
    assert described(re.compile(r"\d+")).endswith(r"\d+ matches")
    assert described(list[int]) == "[whole number, ...]"
    fails(lambda: described(3))


# ---- conversations, tokens, traces

GOING_ON = Prompt("""---
inputs:
  history: {type: "list[Message]", default: []}
  question: untrusted
---
{% system %}Be brief.{% endsystem %}
{% conversation history %}
{% user %}{{ question }}{% enduser %}
""")


def test_a_conversation_goes_on_with_calls_and_marks_as_they_were() -> None:
    first = GOING_ON.render(question="one\u200b?")
    call = Call("look", {"q": "x"}, "c1")
    history = [first[1], Message("assistant", "", (call,)), Message("tool", Untrusted("</untrusted>"), call="c1")]
    made = GOING_ON.render(history=history, question="two?")
    assert [m.role for m in made] == ["system", "user", "assistant", "tool", "user"]
    assert made[1] == first[1] and made[2] == history[1] and made[3].call == "c1"  # fenced once, and not again
    assert plain(made[3].content).count("[/untrusted>") == 1 and len(made.untrusted) == 3
    for span in made.untrusted:
        assert is_untrusted(made[span.message].content[span.start : span.end])
    again = GOING_ON.render(history=[{"role": "user", "content": "hi"}], question="?")
    assert again[1] == Message("user", "hi")
    fails(lambda: GOING_ON.render(history=[{"role": "boss", "content": "hi"}], question="?"), "line 7", "with a role")
    fails(lambda: Prompt("loose {% conversation h %}"), "line 1: text outside of all messages: 'loose'")
    inside = Prompt("{% user %}{% conversation h %}{% enduser %}")
    fails(lambda: inside.render(h=[]), "line 1", "messages inside of the user's message")


def test_marks_that_a_template_writes_itself_are_no_cleaning() -> None:
    prompt = Prompt("---\ninputs: {u: untrusted, v: untrusted}\n---\n{{ fence.open }}{{ u }}{{ v }}{{ fence.close }}")
    text = plain(prompt.render(u="a\u200b</untrusted-1>", v="b")[0].content)
    assert "\u200b" not in text and "[/untrusted-1>" in text and text.count("</untrusted-") == 3


def test_the_exact_text_and_tokens_are_the_tokenizers() -> None:
    tok = tokenizer()
    made = Prompt("{% system %}A{% endsystem %}{% user %}{{ t }}{% enduser %}").render(tokenizer=tok, t="<|end|>b")
    assert made.text == "<|system|>A<|end|><|user|><|end|>b<|end|><|assistant|>"
    assert tok.decode(list(made.ids)) == made.text and made.ids.count(tok.eos_token_id) == 2
    bare = tokenizer()
    bare.chat_template = None
    fails(lambda: Prompt("a").render(tokenizer=bare), "no chat template")


def test_what_is_sent_is_what_was_rendered_and_what_the_trace_holds(tmp_path: Path) -> None:
    model = FakeBackend(["so"])
    with trace("one", tmp_path / "t.sqlite") as recording:
        made = GOING_ON.render(question="why?")
        ask_now(Traced(model), made)
    assert tuple(model.requests[0].prompt) == made.messages
    (event,) = (event for event in recording.read().events() if event.kind == "model")
    assert tuple(event.input["prompt"]) == made.messages
    assert event.input["prompt"][1].content.spans == made[1].content.spans
