"""Shapes: from a type to a form, and from an answer back to a value."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import re
import typing
import uuid
from typing import Annotated, Any, Literal

import pydantic
import pytest

from intarsia.errors import BadInput
from intarsia.prompting.base import Constraint, InvalidOutput
from intarsia.prompting.base.masking import Matcher
from intarsia.prompting.execute.shape import Grammar, Shape
from tests.prompting_shapes_help import one_a_byte
from tests.test_prompting_shapes_masking import random_answer


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


class Level(enum.Enum):
    LOW = 1
    HIGH = 2


class Reading(pydantic.BaseModel):
    emotion: Literal["neutral", "joy"]
    evidence: str = pydantic.Field(max_length=12)
    sure: float | None = None


class Node(pydantic.BaseModel):
    name: Literal["a", "b"]
    children: list[Node] = pydantic.Field(max_length=2)


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Row(typing.TypedDict):
    id: int
    mood: Mood


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]
    lives: int = pydantic.Field(ge=1, le=9)


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]
    tricks: set[Literal["sit", "roll"]] = pydantic.Field(max_length=3)


Pet = Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]
TYPES: dict[str, Any] = {
    "int": int,
    "float": float,
    "bool": bool,
    "model": Reading,
    "recursive": Node,
    "dataclass": Point,
    "typed dict": Row,
    "list": Annotated[list[Point], pydantic.Field(min_length=1, max_length=3)],
    "dict": dict[str, bool],
    "dict of few": dict[Literal["a", "b"], bool],
    "dict of an enum": dict[Mood, int],
    "optional": Point | None,
    "union": Pet,
    "tuple": tuple[int, bool],
    "date": datetime.date,
    "time": datetime.time,
    "datetime": datetime.datetime,
    "timedelta": datetime.timedelta,
    "uuid": uuid.UUID,
    "decimal": decimal.Decimal,
    "bounded": Annotated[int, pydantic.Field(ge=-3, le=12)],
    "patterned": Annotated[str, pydantic.Field(pattern="^[a-c]{2,3}$")],
    "enum list": Annotated[list[Mood], pydantic.Field(max_length=2)],
}


def answers(shape: Shape, count: int, most: int = 500):
    tokenizer = one_a_byte()
    assert shape.constraint is not None
    matcher = Matcher(tokenizer, shape.constraint)
    for seed in range(count):
        at = matcher.fork()
        ids = random_answer(at, seed, forced=seed % 2 == 0, most=most)
        if at.may_end:  # not all of an endless form fits
            yield tokenizer.decode(ids)


@pytest.mark.parametrize("name", TYPES)
def test_whatever_is_drawn_under_the_form_is_of_the_type(name):
    kind = TYPES[name]
    shape, adapter = Shape.of(kind), pydantic.TypeAdapter(kind) if name != "typed dict" else None
    assert shape.kind == "json" and shape.constraint is not None
    read = 0
    for text in answers(shape, 12):
        value = shape.parse(text)
        read += 1
        if adapter is not None:
            adapter.validate_python(value, strict=True)
    assert read >= 6


@pytest.mark.parametrize(
    ("form", "text", "value"),
    [
        (Literal["joy", "anger"], " joy\n", "joy"),
        (["joy", "anger"], "anger", "anger"),
        (Literal[1, 2, True, None], "null", None),
        (Literal[1, 2], "2", 2),
        (Mood, "bad", Mood.BAD),
        (Level, "HIGH", Level.HIGH),
        (int, "12", 12),
        (Point, '```json\n{"x": 1}\n```', Point(1, 0)),
        (Row, '{"id": 3, "mood": "good"}', {"id": 3, "mood": Mood.GOOD}),
        (Reading, '{"emotion": "joy", "evidence": "e"}', Reading(emotion="joy", evidence="e")),
        (datetime.date, '"2024-02-29"', datetime.date(2024, 2, 29)),
        (re.compile("[a-z]+", re.IGNORECASE), "aB", "aB"),
        (re.compile(r"\d{2}-x$"), "12-x", "12-x"),
        (Grammar('start: "a" "b"*'), "abb", "abb"),
        ({"type": "object", "required": ["a"]}, '{"a": [1]}', {"a": [1]}),
        (str, " any text\n", " any text\n"),
        (Constraint("choice", '["x", "y"]'), "y", "y"),
        (Constraint("regex", "x+"), "xx", "xx"),
        (Constraint("json", '{"type": "integer"}'), "7", 7),
    ],
)
def test_reading_answers(form, text, value):
    found = Shape.of(form).parse(text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("form", "text", "said"),
    [
        (Literal["joy", "anger"], "jo", "none of joy, anger"),
        (int, "twelve", "Invalid JSON"),
        (Point, '{"x": "a"}', "x: Input should be a valid integer"),
        (Reading, '{"emotion": "joy"}', "evidence"),
        (re.compile("[a-z]+"), "a1", "does not match"),
        (Grammar('start: "a" "b"*'), "abc", "'c'"),
        (Grammar('start: "a" "b"'), "a", "too early"),
        ({"type": "object", "required": ["a"]}, "{}", "'a' is a required property"),
    ],
)
def test_answers_without_the_form(form, text, said):
    with pytest.raises(InvalidOutput) as error:
        Shape.of(form).parse(text)
    assert error.value.raw == text and said in "; ".join(error.value.errors)


@pytest.mark.parametrize(
    ("form", "said"),
    [
        (12, "no shape"),
        ("joy", "no shape"),
        ([], "one or more"),
        (["a", "a"], "differ"),
        ([" a"], "without space"),
        ([1], "texts only"),
        (object(), "no shape"),
        (re.compile("(?=a)b"), "look-ahead"),
        (Grammar("start: x"), "unknown name"),
        ({"type": "foo"}, "Invalid type"),
        ({"a": object()}, "JSON schema"),
        (type("Plain", (), {}), "no shape can be made of Plain"),
    ],
)
def test_what_is_no_shape(form, said):
    with pytest.raises(BadInput) as error:
        Shape.of(form)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_flags_of_a_regex_are_kept():
    shape = Shape.of(re.compile("a.b", re.DOTALL | re.IGNORECASE))
    found = set(answers(shape, 40))
    assert all(re.fullmatch("a.b", text, re.DOTALL | re.IGNORECASE) for text in found)
    assert {text[0] for text in found} == {"a", "A"}


def test_json_is_written_on_one_line():
    for text in answers(Shape.of(Reading), 10):
        value = json.loads(text)
        assert text.startswith(f'{{"emotion": "{value["emotion"]}", "evidence": "') and "\n" not in text


def test_objects_have_no_keys_of_their_own_making():
    schema = json.loads(Shape.of(Reading).constraint.source)  # type: ignore[union-attr]
    assert schema["additionalProperties"] is False and schema["required"] == ["emotion", "evidence"]
    assert Shape.of(Reading).name == "Reading"
    given = {"type": "object", "title": "My answer", "properties": {"a": {}}}
    shape = Shape.of(given)
    assert json.loads(shape.constraint.source) == given and shape.name == "My_answer"  # type: ignore[union-attr]


def test_a_shape_says_what_it_is():
    assert Shape.of(["joy", "anger"]).describe() == "joy | anger"
    told = Shape.of(Reading).describe()
    assert '"emotion": "neutral" | "joy"' in told and '"sure"?' in told
    assert Shape.of(str).describe() == ""
    shape = Shape.of(Mood)
    assert Shape.of(shape) is shape
