"""Calls of tools in a model's text: read whole, read as it comes, and held to."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import validate
from transformers import AddedToken

from intarsia.errors import BadInput
from intarsia.prompting.base import Call, Constraint, ToolSpec
from intarsia.prompting.base.call_forms import calls_constraint
from intarsia.prompting.base.calling import CallReader, call_format, malformed_in, read_calls, special_id
from intarsia.prompting.base.masking import Matcher
from tests.prompting_shapes_help import byte_level, one_a_byte
from tests.test_prompting_shapes_masking import random_answer, spelt

# What chat templates have in them, in short.
SHOWN = {
    "hermes": "{{ '<tool_call>\\n' }}{{ call | tojson }}{{ '\\n</tool_call>' }}",
    "mistral": "{{ '[TOOL_CALLS] [' }}",
    "mistral-args": "{{ '[TOOL_CALLS]' + name + '[ARGS]' + arguments }}",
    "llama": "{{ '<|python_tag|>' }}{{ '\"parameters\": ' }}",
    "pythonic": "[func_name1(params_name1=params_value1)]",
}
FORMS = {name: call_format(shown) for name, shown in SHOWN.items()}
ADD, LOOK = ("add", {"a": 1, "b": True}), ("look", {"q": 'a "quote" </tool_call> [x]'})
WRITTEN = {
    "hermes": (
        '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": true}}\n</tool_call>\n'
        '<tool_call>{"name": "look", "arguments": {"q": "a \\"quote\\" </tool_call> [x]"}}</tool_call>'
    ),
    "mistral": (
        '[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1, "b": true}}, '
        '{"name": "look", "arguments": {"q": "a \\"quote\\" </tool_call> [x]"}}]'
    ),
    "mistral-args": (
        '[TOOL_CALLS]add[ARGS]{"a": 1, "b": true}[TOOL_CALLS]look[ARGS]{"q": "a \\"quote\\" </tool_call> [x]"}'
    ),
    "llama": (
        '{"name": "add", "parameters": {"a": 1, "b": true}}; '
        '{"name": "look", "parameters": {"q": "a \\"quote\\" </tool_call> [x]"}}'
    ),
    "pythonic": '[add(a=1, b=True), look(q="a \\"quote\\" </tool_call> [x]")]',
}
TOOLS = [
    ToolSpec(
        "add",
        "Adds.",
        {
            "type": "object",
            "properties": {"a": {"type": "integer", "minimum": -9, "maximum": 9}, "b": {"type": "boolean"}},
            "required": ["a"],
        },
    ),
    ToolSpec(
        "look",
        "Looks.",
        {
            "type": "object",
            "properties": {"q": {"$ref": "#/$defs/Q"}, "n": {"enum": ["few", "many"]}},
            "$defs": {"Q": {"type": "string", "maxLength": 5}},
        },
    ),
    ToolSpec("now", "The time.", {"type": "object", "properties": {}}),
]


def pairs(calls: tuple[Call, ...] | list[Call]) -> list[tuple[str, dict]]:
    return [(call.name, call.arguments) for call in calls]


@pytest.mark.parametrize("name", FORMS)
def test_a_template_shows_how_calls_are_written(name):
    assert FORMS[name].name == name and FORMS[name].known
    read = read_calls(WRITTEN[name], FORMS[name])
    assert pairs(read.calls) == [ADD, LOOK] and read.text == "" and read.malformed == ()
    ids = [call.id for call in read.calls]
    assert len(set(ids)) == 2 and all(len(i) == 9 and i.isalnum() for i in ids)
    assert [c.id for c in read_calls(WRITTEN[name], FORMS[name], salt="3").calls] != ids


def test_a_template_without_tools():
    form = call_format(one_a_byte())
    assert form.name == "hermes" and not form.known


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(
    "text", ["plain", "  a < b, f(x) = [1]\n\n{} ", "", "\n", "{1, 2}", "[1, 2] is a list", "<tool_"]
)
def test_text_is_passed_on_as_it_is(name, text):
    assert read_calls(text, FORMS[name]) == type(read_calls("", FORMS[name]))(text, (), ())


@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), before=st.sampled_from(["", "I look. \n", "<tool [TOOL {", "  \n"]))
def test_pieces_read_as_the_whole(name, seed, before):
    """However an answer is cut, the same comes of it; and nothing of a call is passed on as text."""
    if FORMS[name].bare and before.strip() and name in ("llama", "pythonic"):
        before = ""  # calls there begin the answer
    text = before + WRITTEN[name]
    random.seed(seed)
    reader, passed, at = CallReader(FORMS[name]), "", 0
    while at < len(text):
        step = random.randint(1, 7)
        passed += reader.feed(text[at : at + step])
        assert before.startswith(passed)
        at += step
    passed += reader.finish()
    whole = read_calls(text, FORMS[name])
    assert passed == whole.text == before.rstrip()
    assert reader.calls == list(whole.calls) and pairs(reader.calls) == [ADD, LOOK]


def test_text_is_passed_on_before_the_call_is_there():
    reader = CallReader(FORMS["hermes"])
    assert reader.feed("I shall look") == "I shall look"
    assert reader.feed(" it up <tool") == " it up"
    assert reader.feed('_call>{"name": "now"}') == ""
    assert reader.feed("</tool_call> done") == " done" and pairs(reader.calls) == [("now", {})]
    assert reader.finish() == ""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("hermes", '<tool_call>\n{"name": "add", "arguments": {"a": 1\n</tool_call>'),
        ("hermes", '<tool_call>{"arguments": {}}</tool_call> and on'),
        ("hermes", '<tool_call>{"name": "add", "arguments": [1]}</tool_call>'),
        ("hermes", "<tool_call></tool_call>"),
        ("mistral", "[TOOL_CALLS] [add]"),
        ("mistral-args", "[TOOL_CALLS]add[ARGS]{1}"),
        ("llama", '{"name": "add", "parameters": {"a": 1}'),
        ("llama", "<|python_tag|>1 +"),
        ("pythonic", "<|python_start|>[add(1)]<|python_end|>"),
    ],
)
def test_malformed_calls_are_told_and_kept(name, text):
    read = read_calls(text, FORMS[name])
    assert read.calls == () and read.text == text and len(read.malformed) == 1
    assert read.malformed[0].raw in text and read.malformed[0].why
    if name in ("hermes", "mistral"):
        assert malformed_in(read.text)[0].raw == read.malformed[0].raw


def test_calls_in_other_people_s_spelling():
    hermes = FORMS["hermes"]
    for body in (
        '{"name": "add", "parameters": {"a": 1, "b": true}}',
        '{"name": "add", "arguments": "{\\"a\\": 1, \\"b\\": true}"}',
        '{"function": {"name": "add", "arguments": {"a": 1, "b": true}}, "type": "function"}',
    ):
        assert pairs(read_calls(f"<tool_call>{body}</tool_call>", hermes).calls) == [ADD]
        assert pairs(read_calls(f"<tool_call>{body}", hermes).calls) == [ADD]  # the end was cut off
    assert pairs(read_calls('<|python_tag|>brave.call(query="x")', FORMS["llama"]).calls) == [("brave", {"query": "x"})]
    assert pairs(read_calls("[f(x=true, y=[null, -1])]", FORMS["pythonic"]).calls) == [
        ("f", {"x": True, "y": [None, -1]})
    ]


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("name", FORMS)
def test_a_model_held_to_calls_makes_valid_ones(name, special):
    """Whatever is drawn under the form reads back as calls of the tools, with arguments their schemas allow."""
    tokenizer, form = one_a_byte(), FORMS[name]
    if special:
        marks = [*form.opens, *([form.closes] if form.closes else []), "[ARGS]"]
        tokenizer.add_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
        assert special_id(tokenizer, form.opens[0]) in form.marker_ids(tokenizer)
    else:
        assert form.marker_ids(tokenizer) == frozenset()
    known = {tool.name: tool for tool in TOOLS}
    seen = set()
    for choice in ("required", "look", "auto"):
        matcher = Matcher(tokenizer, calls_constraint(TOOLS, choice, tokenizer=tokenizer, form=form))
        for seed in range(8):
            ids = random_answer(matcher.fork(), seed, forced=seed % 2 == 0, most=600)
            text = tokenizer.decode(ids)
            read = read_calls(text, form)
            assert not read.malformed, text
            for call in read.calls:
                validate(call.arguments, known[call.name].parameters)
                seen.add(call.name)
            if choice != "auto":
                assert read.calls and not read.text, text
            if choice == "look":
                assert [call.name for call in read.calls] == ["look"]
    assert seen == set(known)


@pytest.mark.parametrize("name", FORMS)
def test_auto_allows_text_and_calls(name):
    tokenizer, form = byte_level(), FORMS[name]
    matcher = Matcher(tokenizer, calls_constraint(TOOLS, "auto", tokenizer=tokenizer, form=form))
    gap = {"hermes": "\n", "mistral": " "}.get(name, "")
    call = {
        "hermes": f'{{"name": "add", "arguments": {json.dumps({"a": 1})}}}{gap}</tool_call>',
        "mistral": '[{"name": "add", "arguments": {"a": 1}}]',
        "mistral-args": 'add[ARGS]{"a": 1}',
        "llama": '{"name": "add", "parameters": {"a": 1}}',
        "pythonic": "[add(a=1)]",
    }[name]
    opening = "" if name in ("llama", "pythonic") else form.opens[0] + gap
    for text in ("", "the hat, and nothing else", opening + call):
        at, ids = matcher.fork(), tokenizer.encode(text)
        assert at.accept_many(ids) == len(ids) and at.may_end, text
    if not form.bare:
        text = "I look: " + opening + call
        at, ids = matcher.fork(), tokenizer.encode(text)
        assert at.accept_many(ids) == len(ids) and at.may_end
    wrong = tokenizer.encode(opening + call.replace("add", "sub"))
    assert matcher.fork().accept_many(wrong) < len(wrong)
    assert spelt(tokenizer, wrong).decode() == opening + call.replace("add", "sub")


def test_what_cannot_be_called():
    with pytest.raises(BadInput, match="no tools"):
        calls_constraint([], form=FORMS["hermes"])
    with pytest.raises(BadInput, match=r"did you mean look"):
        calls_constraint(TOOLS, "lok", form=FORMS["hermes"])


@pytest.mark.parametrize("name", FORMS)
def test_an_answer_in_place_of_calls_may_have_a_form(name):
    tokenizer, form = byte_level(), FORMS[name]
    schema = {"type": "object", "properties": {"total": {"type": "integer"}}, "required": ["total"]}
    call = {
        "hermes": '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>',
        "mistral": '[TOOL_CALLS] [{"name": "now", "arguments": {}}]',
        "mistral-args": "[TOOL_CALLS]now[ARGS]{}",
        "llama": '{"name": "now", "parameters": {}}',
        "pythonic": "[now()]",
    }[name]
    for answer, good, bad in (
        (Constraint("json", json.dumps(schema)), '{"total": 3}', "three"),
        (Constraint("choice", '["yes", "no"]'), "yes", "perhaps"),
        (Constraint("regex", r"\d+/\d+"), "1/2", "1-2"),
    ):
        form_ = calls_constraint(TOOLS, "auto", tokenizer=tokenizer, form=form, answer=answer)
        matcher = Matcher(tokenizer, form_)
        for text in (good, call):
            at, ids = matcher.fork(), tokenizer.encode(text)
            assert at.accept_many(ids) == len(ids) and at.may_end, text
        assert matcher.fork().accept_many(tokenizer.encode(bad)) < len(tokenizer.encode(bad))
    with pytest.raises(BadInput, match="grammar of one's own"):
        calls_constraint(TOOLS, "auto", form=form, answer=Constraint("grammar", "start: /a/"))
