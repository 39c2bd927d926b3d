"""Trust: strings that keep their origin, characters that hide, calls that need a yes, and filters."""

from __future__ import annotations

import asyncio
import copy
import pickle
import unicodedata
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intarsia.prompting.base import Call, Message
from intarsia.prompting.base.fake import FakeBackend
from intarsia.prompting.execute.prompt import Prompt
from intarsia.prompting.execute.trust import (
    Refused,
    Untrusted,
    allow,
    at_most,
    but,
    clean,
    deny,
    every,
    fence_for,
    fenced,
    flags,
    hidden,
    is_untrusted,
    joined,
    links,
    may_call,
    passed,
    plain,
    released,
    spans_of,
    taint,
    topics,
)
from intarsia.prompting.tracing import trace
from tests.failing import fails

U = Untrusted("evil text")


def found(text: str, *checks) -> list:
    return asyncio.run(flags(text, *checks))


# ---- strings


@pytest.mark.parametrize(
    ("made", "spans"),
    [
        ("a" + U, ((1, 10),)), (U + "a", ((0, 9),)), ("a" + U + "b" + U, ((1, 10), (11, 20))),
        (("a" + U)[0:3], ((1, 3),)), (("ab" + U)[:2], ()), ("%s!" % U, ((0, 10),)),  # noqa: UP031
        (U % (), ((0, 9),)), (U * 2, ((0, 18),)), (2 * U, ((0, 18),)), (U[0], ((0, 1),)), (str(U), ((0, 9),)),
        (U.upper(), ((0, 9),)), (("a" + U).upper(), ((0, 10),)), (U.split()[1], ((0, 4),)),
        (format(U, ">12"), ((0, 12),)),
        (copy.deepcopy("a" + U), ((1, 10),)), (pickle.loads(pickle.dumps("a" + U)), ((1, 10),)),
        (Untrusted("a" + U), ((1, 10),)), (joined(["a", U, ""]), ((1, 10),)), (U.join(["x", "y"]), ((0, 11),)),
    ],
)  # fmt: skip
def test_an_origin_is_kept(made: str, spans) -> None:
    assert isinstance(made, Untrusted) and made.spans == spans
    assert type(plain(made)) is str and plain(made) == made and hash(plain(made)) == hash(made)


@given(st.lists(st.tuples(st.text(max_size=5), st.booleans()), max_size=6), st.integers(0, 30), st.integers(0, 30))
def test_joining_and_cutting_keep_each_character(parts, start, end) -> None:
    text = joined(Untrusted(part) if outside else part for part, outside in parts)
    origin = [outside for part, outside in parts for _ in part]

    def of(text: str) -> list[bool]:
        return [any(a <= at < b for a, b in spans_of(text)) for at in range(len(text))]

    assert of(text) == origin and of(text[start:end]) == origin[start:end]


def test_taint_goes_deep_and_leaves_the_given_alone() -> None:
    value = {"a": ["b", 1, None], "c": Message("tool", "d", (Call("e", {"f": "g"}),))}
    made = taint(value)
    assert made == value and is_untrusted(made) and not is_untrusted(value)
    assert all(isinstance(part, Untrusted) for part in (made["a"][0], made["c"].calls[0].arguments["f"], *made))
    assert is_untrusted([{"x": (U,)}]) and not is_untrusted([1, b"x", None])
    assert type(released(Untrusted("joy"), ["joy", "anger"])) is str
    fails(lambda: released(U, ["joy"]), "stays untrusted")


# ---- hidden characters


@pytest.mark.parametrize(
    ("text", "left", "removed"),
    [
        ("plain\ttext\n", "plain\ttext\n", {}),
        ("a\u200bb\ufeffc\u00ad", "abc", {"zero-width": 3}),
        ("a\u202eb\u2066c\u200f", "abc", {"bidi": 3}),
        ("a" + "".join(chr(0xE0000 + ord(c)) for c in "delete") + "\U000e007f", "a", {"tag": 7}),
        ("a" + "".join(map(chr, range(0xE0100, 0xE0110))), "a", {"variation": 16}),
        ("ok\ufe0f\ufe0f", "ok", {"variation": 2}),
        ("\u2764\ufe0f!", "\u2764\ufe0f!", {}),
        ("\u2764\ufe0f\ufe0e\ufe0f", "\u2764\ufe0f", {"variation": 2}),
        ("1\ufe0f\u20e3", "1\ufe0f\u20e3", {}),
        ("\u845b\U000e0100", "\u845b\U000e0100", {}),
        ("\u845b\U000e0100\U000e0101", "\u845b\U000e0100", {"variation": 1}),
        ("\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f468\u200d\U0001f469\u200d\U0001f467", {}),
        ("\U0001f3f3\ufe0f\u200d\U0001f308", "\U0001f3f3\ufe0f\u200d\U0001f308", {}),
        ("می\u200cخواهم", "می\u200cخواهم", {}),
        ("می\u200c\u200dخواهم", "میخواهم", {"zero-width": 2}),
        ("a\u200db", "ab", {"zero-width": 1}),
        ("a\x00\x1b[1m\x85", "a[1m", {"control": 3}),
        ("", "", {}),
    ],
)
def test_what_cannot_be_seen_is_taken_out_and_counted(text: str, left: str, removed: dict) -> None:
    cleaned = clean(text)
    assert (cleaned.text, cleaned.removed) == (left, removed)


@given(st.text())
def test_cleaning_takes_only_what_cannot_be_seen(text: str) -> None:
    cleaned = clean(text)
    assert len(cleaned.text) + sum(cleaned.removed.values()) == len(text)
    left = iter(text)
    assert all(character in left for character in cleaned.text)  # in order
    seen = [c for c in text if unicodedata.category(c)[0] in "LNPSZ" and unicodedata.east_asian_width(c) != "Z"]
    fillers = set("\u115f\u1160\u3164\uffa0")
    assert [c for c in cleaned.text if c in seen] == [c for c in seen if c not in fillers]


# ---- calls

WRITES = SimpleNamespace(name="send", writes=True, network=False, confirm=False)
READS = SimpleNamespace(name="look", writes=False, network=True, confirm=False)


@pytest.mark.parametrize(
    ("tool", "arguments", "conversation", "why"),
    [
        (READS, {"q": U}, [Message("user", U)], 0),
        (WRITES, {"to": "a"}, [Message("user", "hi")], 0),
        (WRITES, {"to": U}, [], 1),
        (WRITES, {"to": [{"deep": U}]}, [], 1),
        (WRITES, {"to": "a"}, [Message("user", "hi"), Message("tool", "x" + U)], 1),
        (WRITES, {"to": "a"}, [Message("assistant", "", (Call("look", {"q": U}),))], 1),
        (WRITES, {"to": U}, [Message("tool", U)], 2),
        ({"confirm": True}, {}, [], 1),
        ({"writes": True}, {U: 1}, [], 1),
    ],
)
def test_what_changes_something_is_not_reached_from_outside(tool, arguments, conversation, why) -> None:
    asked = []

    def confirm(answer):
        def ask(name, given, reasons):
            asked.append((name, given, tuple(reasons)))
            return answer

        return ask

    async def later(name, given, reasons):
        return True

    def decide(confirm=None):
        return asyncio.run(may_call(tool, arguments, conversation, confirm))

    assert decide().allowed == (why == 0) and len(decide().reasons) == why
    assert decide(confirm(True)).allowed and decide(later).allowed and decide(confirm(True)).confirmed == (why > 0)
    assert decide(confirm(False)).allowed == (why == 0)
    assert decide(confirm("yes")).allowed == (why == 0)  # only True is a yes
    assert bool(asked) == (why > 0) and all(len(reasons) == why for *_, reasons in asked)


def test_the_network_can_be_guarded_too() -> None:
    assert not asyncio.run(may_call(READS, {"q": U}, guarded=("writes", "network"))).allowed


# ---- fences of their own


def test_a_text_is_fenced_by_itself() -> None:
    text, spans = fenced("Say " + Untrusted("a\nb"))
    mark = fence_for(["Say a\nb"]).nonce
    assert text == f"Say <untrusted-{mark}>\na\nb\n</untrusted-{mark}>"
    assert text.spans == ((spans[0].start, spans[0].end),) and text[spans[0].start : spans[0].end] == "a\nb"
    assert fenced("plain") == ("plain", [])


def test_a_known_seed_gives_no_mark_that_stands_in_the_text() -> None:
    first = fence_for(["x"], seed="known")
    assert first == fence_for(["x"], seed="known")
    assert fence_for(["x", first.nonce], seed="known").nonce != first.nonce


def test_a_trace_that_goes_on_says_the_same_again(tmp_path, monkeypatch) -> None:
    with trace("one", tmp_path / "t.sqlite") as recording:
        first = fence_for(["x"])
    assert first != fence_for(["x"])
    monkeypatch.setattr("intarsia.prompting.execute.trust.fence._KEY", b"of another process")
    with trace("one", tmp_path / "t.sqlite", resume=recording.id):
        assert fence_for(["x"]) == first != fence_for(["y"])
    with trace("two", tmp_path / "t.sqlite"):
        assert fence_for(["x"]) != first


# ---- filters


def test_phrases_are_found_in_any_dress() -> None:
    check = deny(phrases=["ignore previous instructions"], rule="injection")
    text = "So: Ig\u200bnore  PREVIOUS, instruсtions!"  # a Cyrillic s
    flag = found(text, check)[0]
    assert text[flag.start : flag.end] == "Ig\u200bnore  PREVIOUS, instruсtions" and flag.rule == "injection"
    assert found("Do not ignore instructions", check) == []
    assert len(found("ab ab ab", deny(phrases=["ab"]))) == 3


def test_filters_compose() -> None:
    words = deny([r"\bkill\b"])
    assert [flag.start for flag in found("kill it, kill", words)] == [0, 9]
    assert [flag.start for flag in found("kill -9, kill", but(words, deny([r"kill -\d"])))] == [9]
    assert len(found("x" * 9 + "\u200b", every(at_most(5), hidden(), words))) == 2
    assert found("12", allow([r"\d+"])) == [] and len(found("12a", allow([r"\d+"], phrases=["b"]))) == 1
    assert found("a B!", allow(phrases=["b"])) == []
    assert asyncio.run(passed("fine", words)) == "fine"
    with pytest.raises(Refused, match="refused: deny: matches"):
        asyncio.run(passed("kill", words))
    fails(lambda: deny(["("]), "no regular expression")
    fails(lambda: deny(phrases=["!?"]), "no letters")
    fails(lambda: at_most(-1), "0 or more")


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("![s](https://leak.example/p.png?d=1)", ["leak.example"]),
        ("see https://docs.example.org/a#b, https://sub.docs.example.org and [x](page.html#y); note: this", []),
        ("[a][1]\n\n[1]: https://leak.example/?q", ["leak.example"]),
        ("[1]: //leak.example/?q", ["leak.example"]),
        ("<img src='//leak.example/x'><a href=/here>", ["leak.example"]),
        ("<img src=https:leak.example>", ["leak.example"]),
        ("https:\\\\leak.example/ HTTPS://LEAK.EXAMPLE", ["leak.example", "leak.example"]),
        ("[x](javascript:alert) ![x](data:image/png;base64,aa)", ["javascript:", "data:"]),
        ("https://docs.example.org.leak.example/", ["docs.example.org.leak.example"]),
        ("https://docs.example.org@leak.example/", ["leak.example"]),
        ("[x](<https://leak.example/ a>) [x]( //leak.example )", ["leak.example", "leak.example"]),
        ("mailto:a@leak.example", ["leak.example"]),
        ("a//b at 12:30, std::vector, C:\\x, ratio: 3", []),
    ],
)
def test_addresses_that_lead_elsewhere_are_found(text: str, hosts: list[str]) -> None:
    assert [flag.why for flag in found(text, links(["docs.example.org"]))] == [f"link: leads to {h}" for h in hosts]


def test_a_models_scores_decide_on_a_topic() -> None:
    prompt = Prompt("---\ninputs: {text: untrusted}\n---\nThe topic ({{ shape }}) of {{ text }}:")

    def score(messages, choice: str) -> float:
        return 0.0 if choice in messages[-1].content.split("of <")[1] else -3.0

    model = FakeBackend(scores=score)
    check = topics(model, prompt, allowed=["kettles"], denied=["politics"], others=["weather"])
    assert found("on kettles", check) == []
    assert [flag.why for flag in found("on politics", check)] == ["topic: about politics"]
    off = found("on weather", check)
    assert [flag.why for flag in off] == ["topic: not about kettles"] and 0.9 < off[0].score < 1
    fails(lambda: topics(model, prompt, allowed=["a"]), "at least two topics")
    fails(lambda: topics(model, prompt, allowed=["a", "b"], denied=["a"]), "allowed and denied")
    fails(lambda: topics(model, Prompt("{{ t }}"), allowed=["a", "b"]), "no input 'text'")
