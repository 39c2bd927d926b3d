"""Values in a trace: whatever goes in comes back of the same type, and what cannot says where it is."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import math
import pathlib
import re
import subprocess
import sys
import uuid
from collections import namedtuple
from typing import Any

import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intarsia.errors import BadInput
from intarsia.prompting.base import Message, Reply, Usage
from intarsia.prompting.tracing import NotSerialisable, hash_of, pack, plain, redact_secrets, register, unpack
from intarsia.prompting.tracing.redacting import redacted


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


class Marked(str):
    """A text that says where it is from."""


class Answer(pydantic.BaseModel):
    mood: Mood
    when: datetime.date
    more: list[int] = []


@dataclasses.dataclass(frozen=True)
class Page:
    title: str
    answer: Answer | None = None
    tags: frozenset[str] = frozenset()
    shown: int = dataclasses.field(init=False, default=3)


Point = namedtuple("Point", "x y")


def marked(text: str, source: str) -> Marked:
    made = Marked(text)
    made.source = source
    return made


VALUES = [
    None, True, 3, -1.5, "text", "half a pair \ud800", [1, [2.0, "x"]], {"a": {"b": None}}, {1: "x", (2, 3): [4]},
    {"$type": "mine"}, (1, ("a",)), {3, 1, 2}, frozenset({"a"}), b"\x00\xff", math.inf, -math.inf,
    datetime.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
    datetime.date(2026, 1, 2), datetime.time(3, 4), datetime.timedelta(days=-1, microseconds=5),
    pathlib.Path("a/b.txt"), decimal.Decimal("1.10"), uuid.UUID(int=5), Mood.BAD, Point(1, [2]), range(1, 9, 2),
    Answer(mood=Mood.GOOD, when=datetime.date(2026, 1, 1)), Page("t", Answer(mood=Mood.BAD, when=datetime.date.min)),
    re.compile(r"\d+", re.IGNORECASE), Answer, np.float32(1.5), np.int64(7), np.bool_(True), np.dtype("<f2"),
    Reply("hi", usage=Usage(prompt=3), tokens=(1, 2)), [Message("user", "<|im_end|>")], 2**80,
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_comes_back_equal_and_of_the_same_type(value):
    back = unpack(json.loads(json.dumps(pack(value))))
    assert back == value and type(back) is type(value)


def test_what_equality_does_not_tell_comes_back_too():
    assert math.isnan(unpack(pack(math.nan)))
    array = np.arange(6, dtype=">i2").reshape(2, 3)
    back = unpack(pack(array))
    assert back.dtype == array.dtype and (back == array).all() and back.flags.writeable
    assert unpack(pack(np.zeros((0, 4)))).shape == (0, 4)
    text = unpack(pack(marked("abc", "page 3")))
    assert type(text) is Marked and text == "abc" and text.source == "page 3"
    answer = unpack(pack(Answer(mood=Mood.GOOD, when=datetime.date.max)))
    assert answer.model_fields_set == {"mood", "when"} and answer.mood is Mood.GOOD


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@given(JSONS)
def test_any_plain_value_comes_back(value):
    assert unpack(json.loads(json.dumps(pack(value)))) == value


@given(st.dictionaries(st.text(max_size=3), JSONS, max_size=4))
def test_the_hash_knows_no_order_of_keys_and_sees_every_change(value):
    assert hash_of(pack(value)) == hash_of(pack(dict(reversed(value.items()))))
    assert hash_of(pack(value)) != hash_of(pack([value]))
    assert hash_of(pack({1, 2, 3})) == hash_of(pack({3, 2, 1}))
    assert len({hash_of(pack(v)) for v in (1, 1.0, "1", (1,), [1], True)}) == 6


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"documents": [1, 2, 3, {"owner": object()}]}, "inputs.documents[3].owner: object cannot"),
        ({"a key": {2: {1j}}}, "inputs['a key'][2]{}: complex cannot"),
        (Page("t", answer=lambda: 1), "inputs.answer: function cannot"),
        (Answer.model_construct(mood=open, when=1), "inputs.mood: builtin_function_or_method cannot"),
        (np.array([object()]), "inputs: a numpy array of objects"),
        ((x for x in ()), "inputs: generator cannot"),
        ({object(): 1}, "inputs (a key): object"),
    ],
)
def test_what_cannot_be_kept_says_where_it_is_and_how_to_mend_it(value, path):
    with pytest.raises(NotSerialisable, match=r"give plain data, a dataclass .*register") as caught:
        pack(value, "inputs")
    assert str(caught.value).startswith(path) and "\n" not in str(caught.value)


def test_other_classes_can_be_registered():
    class Box:
        def __init__(self, inside: Any):
            self.inside = inside

    with pytest.raises(NotSerialisable):
        pack(Box(1))
    register(Box, lambda box: {"inside": box.inside}, lambda kept: Box(**kept))
    back = unpack(json.loads(json.dumps(pack([Box((1, 2))]))))
    assert isinstance(back[0], Box) and back[0].inside == (1, 2)


def test_classes_come_from_loaded_modules_only():
    kept = {"$type": "dataclass", "class": "antigravity:Thing", "fields": {}}
    with pytest.raises(BadInput, match="import antigravity before it is replayed"):
        unpack(kept)
    assert "antigravity" not in sys.modules
    with pytest.raises(BadInput, match="which is not there"):
        unpack(kept | {"class": f"{__name__}:Gone"})
    with pytest.raises(BadInput, match="a newer Intarsia"):
        unpack({"$type": "quaternion"})
    for tag, named in (("dataclass", "pathlib:Path"), ("pydantic", f"{__name__}:Page"), ("enum", f"{__name__}:Page"),
                       ("scalar", "subprocess:Popen"), ("tuple", "subprocess:Popen")):  # fmt: skip
        with pytest.raises(BadInput):
            unpack({"$type": tag, "class": named, "fields": {}, "items": [], "set": [], "name": "x", "value": "ls"})


def test_a_class_whose_fields_changed_is_refused():
    kept = pack(Page("t"))
    del kept["fields"]["tags"]
    with pytest.raises(BadInput, match="its fields are now answer, shown, tags, title, and were"):
        unpack(kept)


def test_people_read_values_without_their_types():
    assert plain(pack({"p": Page("t", tags=frozenset({"b", "a"})), "n": np.arange(2), 3: Mood.BAD})) == {
        "p": {"title": "t", "answer": None, "tags": ["a", "b"], "shown": 3}, "n": [0, 1], "3": "BAD",
    }  # fmt: skip


SECRETS = [
    "sk-proj-abcdefghijklmnop0123456789", "sk-ant-api03-abcdefghij0123456789", "ghp_abcdefghijklmnopqrstuvwxyz0123",
    "AKIAABCDEFGHIJKLMNOP", "hf_abcdefghijklmnopqrstuvwxyz", "xoxb-1234567890-abcdef",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc123_-", "Bearer abcdef0123456789", "api_key=s3cr3tvalue",
    'password: "hunter2hunter2"', "AIzaSyA-1234567890abcdefghijklmnopqrs",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nabc\n-----END RSA PRIVATE KEY-----",
]  # fmt: skip


@pytest.mark.parametrize("secret", SECRETS)
def test_secrets_are_taken_out_and_the_rest_stays(secret):
    kept = redact_secrets(f"before {secret} after")
    assert kept.startswith("before ") and kept.endswith(" after") and "[redacted]" in kept
    last = re.findall(r"[A-Za-z0-9_-]{6,}", secret.replace("PRIVATE KEY", ""))[-1]
    assert last not in kept or last in ("password", "api_key")
    assert redact_secrets(kept) == kept


@pytest.mark.parametrize(
    "text", ["the token: a word piece", "key = value", "a sketch of task-1", "https://a.org/x?y=1", "risk-based work"]
)
def test_what_is_no_secret_stays(text):
    assert redact_secrets(text) == text


def test_redaction_knows_names_and_keeps_types():
    given = {"headers": {"authorization": "abc"}, "token": "the", "pages": [Page("postgres://me:pw123@host/db")]}
    kept = redacted(pack(given), redact_secrets)
    back = unpack(kept)
    assert back["headers"] == {"authorization": "[redacted]"} and back["token"] == "the"
    assert back["pages"][0] == Page("postgres://me:[redacted]@host/db")
    assert given["headers"]["authorization"] == "abc"


def test_packing_imports_no_numpy():
    code = (
        "import sys; from intarsia.prompting.tracing import pack, step; pack({'a': [1, (2,)]});"
        "print({'numpy', 'torch', 'pydantic'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "numpy" not in done.stdout and "torch" not in done.stdout
