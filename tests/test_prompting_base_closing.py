"""Answers in a form end within their room, whatever is drawn."""

from __future__ import annotations

import json

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from intarsia.prompting.base import Constraint
from intarsia.prompting.base.closing import Closing, Quotes
from intarsia.prompting.base.masking import Matcher
from tests.prompting_shapes_help import KINDS, WHOLE

MADE = {kind: make() for kind, make in KINDS.items() if kind in WHOLE}
TREE = {
    "type": "object",
    "properties": {
        "word": {"type": "string"},
        "id": {"type": "string", "pattern": "^[a-z]{3}-[0-9]{2}$"},
        "parts": {"type": "array", "items": {"$ref": "#"}},
        "size": {"type": ["number", "null"]},
        "mail": {"type": "string", "format": "email"},
    },
    "required": ["word", "parts", "mail"],
    "additionalProperties": False,
}
ENDLESS = {"type": "array", "items": {"type": "string", "minLength": 3}, "minItems": 1}


def drawn(matcher: Matcher, draws: np.random.Generator, most: int, told: bool) -> tuple[bytes, bool]:
    """What is drawn evenly from what is allowed, and whether it ended. told: the matcher knows what room is left."""
    ids: list[int] = []
    while len(ids) < most and not matcher.done:
        logits = draws.normal(size=matcher.vocabulary)
        matcher.apply(logits, most - len(ids) if told else None)
        token = int(logits.argmax())
        matcher.accept(token)
        if token in matcher.end:
            break
        ids.append(token)
    return matcher._lexicon.decode_bytes(ids), matcher.done


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("schema", [TREE, ENDLESS], ids=["tree", "list"])
@pytest.mark.parametrize("most", [110, 250])
def test_whatever_is_drawn_it_is_whole(kind, schema, most):
    form = Constraint("json", json.dumps(schema))
    for seed in range(6):
        text, ended = drawn(Matcher(MADE[kind], form), np.random.default_rng(seed), most, told=True)
        assert ended, seed
        Draft202012Validator(schema).validate(json.loads(text))


def test_without_knowing_its_room_it_is_cut():
    form = Constraint("json", json.dumps(ENDLESS))
    ends = [drawn(Matcher(MADE[WHOLE[0]], form), np.random.default_rng(i), 90, told=False)[1] for i in range(5)]
    assert not all(ends)


def test_with_room_enough_nothing_is_changed():
    form = Constraint("json", json.dumps(ENDLESS))
    matcher = Matcher(MADE[WHOLE[0]], form)
    logits = np.random.default_rng(0).normal(size=matcher.vocabulary)
    with_room, without = logits.copy(), logits.copy()
    matcher.apply(with_room, 400)
    matcher.apply(without)
    assert np.array_equal(with_room, without)


def test_a_form_that_has_no_room_at_all_is_left_as_it_is():
    form = Constraint("json", json.dumps(TREE))
    text, ended = drawn(Matcher(MADE[WHOLE[0]], form), np.random.default_rng(0), 4, told=True)
    assert not ended and text.startswith(b"{")


@pytest.mark.parametrize(
    "text, inside",
    [
        (b'{"a', True),
        (b'{"a"', False),
        (b'{"a\\"', True),
        (b'{"a\\\\"', False),
        (b"[1", False),
        (b'["\\u0041" , "', True),
    ],
)
def test_where_strings_are(text, inside):
    quotes = Quotes()
    quotes.read(text)
    assert quotes.inside == inside


def test_a_copy_goes_its_own_way():
    matcher = Matcher(MADE[WHOLE[0]], Constraint("json", json.dumps(ENDLESS)))
    matcher.accept_many(matcher.forced())
    other = matcher.fork()
    assert isinstance(other._closing, Closing) and other._closing is not matcher._closing
    assert drawn(other, np.random.default_rng(1), 90, told=True)[1]
    assert drawn(matcher, np.random.default_rng(2), 90, told=True)[1]
