"""Answers held to a form at the logits."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from intarsia.errors import BadInput
from intarsia.prompting.base import Constraint
from intarsia.prompting.base.masking import MaskingProcessor, Matcher, check_constraint
from intarsia.prompting.base.token_bytes import end_tokens, lexicon, token_bytes
from tests.prompting_shapes_help import KINDS, WHOLE
from tests.tiny import tiny

ANY_TEXT = Constraint("regex", r"(?s:.*)")
MADE = {kind: make() for kind, make in KINDS.items()}


def spelt(tokenizer, ids: list[int]) -> bytes:
    return b"".join(token_bytes(tokenizer)[i] for i in ids)


def random_answer(matcher: Matcher, seed: int, forced: bool, most: int = 400) -> list[int]:
    """Ids drawn evenly from what is allowed; ends as soon as a coin says so where it may."""
    random, ids = np.random.default_rng(seed), []
    while not matcher.done and len(ids) < most:
        if forced and (some := matcher.forced()):
            assert matcher.accept_many(some) == len(some)
            ids += some
            continue
        allowed = matcher.allowed()
        assert all(allowed[i] for i in matcher.end) == matcher.may_end
        choices = [i for i in np.flatnonzero(allowed) if i not in matcher.end]
        if matcher.may_end and (not choices or random.random() < 0.3):
            matcher.accept(matcher.end[0])
            break
        ids.append(int(random.choice(choices)))
        matcher.accept(ids[-1])
    return ids


@pytest.mark.parametrize("kind", KINDS)
def test_the_ids_of_a_text_are_allowed(kind):
    tokenizer = MADE[kind]
    for text in ("the cat sat on the mat", "9 things", '{"the": [1]}', "a\tb\n\n c"):
        ids = tokenizer.encode(text, add_special_tokens=False)
        if tokenizer.unk_token_id in ids and kind not in WHOLE:
            continue
        assert Matcher(tokenizer, ANY_TEXT).accept_many(ids) == len(ids)


@pytest.mark.parametrize("kind", WHOLE)
@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<>"), max_size=30))
def test_any_text_goes_round(kind, text):
    """Every id of every text is allowed by the form of any text, and the bytes are those of the text."""
    tokenizer = MADE[kind]
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert Matcher(tokenizer, ANY_TEXT).accept_many(ids) == len(ids)
    written = lexicon(tokenizer).decode_bytes(ids)
    assert written.removeprefix(b" ") == text.encode().removeprefix(b" ") or text.encode() in written
    assert written == spelt(tokenizer, ids)  # our table and llguidance's agree


@pytest.mark.parametrize("kind", WHOLE)
def test_forced_tokens_are_the_masked_ones(kind):
    """Where one token alone is allowed, forcing it makes the same text; the form decides nothing else."""
    tokenizer = MADE[kind]
    schema = {
        "type": "object",
        "properties": {"name": {"enum": ["the hat", "the mat"]}, "n": {"type": "integer", "minimum": 3, "maximum": 5}},
        "required": ["name", "n"],
        "additionalProperties": False,
    }
    constraint = Constraint("json", json.dumps(schema))
    wanted = {json.dumps({"name": a, "n": b}) for a in ("the hat", "the mat") for b in (3, 4, 5)}
    for seed in range(12):
        for forced in (True, False):
            ids = random_answer(Matcher(tokenizer, constraint), seed, forced)
            assert spelt(tokenizer, ids).decode() in wanted
    plain = Matcher(tokenizer, constraint)
    some = plain.forced()
    assert spelt(tokenizer, some).decode().startswith('{"name": "the')
    for i in some:  # each is allowed by the mask in its place
        assert plain.allowed()[i]
        plain.accept(i)


def test_one_token_a_byte_forces_exactly_what_the_mask_leaves():
    tokenizer = MADE["one-a-byte"]
    for seed in range(20):
        a = random_answer(Matcher(tokenizer, Constraint("regex", "[ab]{1,3}-{4}(x|yz)+")), seed, False)
        matcher = Matcher(tokenizer, Constraint("regex", "[ab]{1,3}-{4}(x|yz)+"))
        at = 0
        while at < len(a):
            some = matcher.forced()
            assert some == a[at : at + len(some)]
            if some:
                assert np.flatnonzero(matcher.allowed()).tolist() == some[:1]
            else:
                assert matcher.allowed().sum() > 1
            step = some or [a[at]]
            assert matcher.accept_many(step) == len(step)
            at += len(step)


def test_rows_without_a_token_are_never_allowed():
    tokenizer = MADE["byte-level"]
    matcher = Matcher(tokenizer, ANY_TEXT, vocabulary=len(tokenizer) + 17)
    assert matcher.allowed().shape == (len(tokenizer) + 17,)
    assert not matcher.allowed()[len(tokenizer) :].any()
    logits = torch.randn(len(tokenizer) + 17)
    before = logits.clone()
    matcher.apply(logits)
    allowed = torch.from_numpy(matcher.allowed())
    assert torch.equal(logits[allowed], before[allowed]) and (logits[~allowed] == -torch.inf).all()
    row = before.numpy().copy()
    matcher.apply(row)
    assert np.array_equal(row, logits.numpy())


def test_special_tokens_are_not_text():
    tokenizer = MADE["one-a-byte"]
    allowed = Matcher(tokenizer, ANY_TEXT).allowed()
    ends = tokenizer.eos_token_id
    assert [i for i in tokenizer.all_special_ids if allowed[i]] == [ends]


def test_a_complement_does_not_let_special_tokens_in():
    tokenizer = MADE["one-a-byte"]
    matcher = Matcher(tokenizer, Constraint("grammar", "start: TEXT\nTEXT: ~/(?s:.*)no(?s:.*)/"))
    allowed = matcher.allowed()
    assert [i for i in tokenizer.all_special_ids if allowed[i]] == [tokenizer.eos_token_id]
    assert matcher.accept_many(tokenizer.encode("yes")) == 3


def test_ends_are_allowed_when_the_form_is_complete():
    tokenizer = MADE["one-a-byte"]
    ids = tokenizer.encode("joy")
    matcher = Matcher(tokenizer, Constraint("choice", '["joy", "joyful"]'), end=[2, 9])
    for i in ids:
        assert not matcher.may_end and not matcher.allowed()[[2, 9]].any()
        matcher.accept(i)
    assert matcher.may_end and not matcher.done and matcher.allowed()[[2, 9]].all() and matcher.forced() == []
    other = matcher.fork()
    assert other.accept_many(tokenizer.encode("ful")) == 3 and other.done
    assert np.flatnonzero(other.allowed()).tolist() == [2, 9]
    assert not matcher.done  # a fork goes its own way
    matcher.accept(9)
    assert matcher.done and matcher.accept_many([ids[0]]) == 0
    with pytest.raises(BadInput, match="does not allow"):
        other.accept(ids[0])


def test_what_is_not_allowed_changes_nothing():
    tokenizer = MADE["one-a-byte"]
    matcher = Matcher(tokenizer, Constraint("choice", '["joy", "anger"]'))
    assert matcher.accept_many(tokenizer.encode("jaw")) == 1
    assert matcher.accept_many([999_999, -1]) == 0
    assert matcher.accept_many(tokenizer.encode("oy")) == 2 and matcher.done


@pytest.mark.parametrize(
    ("constraint", "said"),
    [
        (Constraint("regex", "(ab"), "unclosed group"),
        (Constraint("regex", "(?=a)b"), "look-ahead"),
        (Constraint("json", '{"type": "foo"}'), "Invalid type: foo"),
        (Constraint("json", '{"type": "integer", "minimum": 5, "maximum": 2}'), "minimum"),
        (Constraint("json", '{"not": {}}'), "not"),
        (Constraint("json", "{nothing"), "JSON schema"),
        (Constraint("grammar", "start: foo"), "unknown name"),
        (Constraint("choice", "[]"), "one text or more"),
        (Constraint("choice", "joy"), "one text or more"),
    ],
)
def test_forms_that_cannot_be_held(constraint, said):
    for ask in (lambda: check_constraint(constraint), lambda: Matcher(MADE["one-a-byte"], constraint)):
        with pytest.raises(BadInput) as error:
            ask()
        assert said in str(error.value) and "\n" not in str(error.value)


def test_a_choice_may_hold_any_text():
    tokenizer = MADE["one-a-byte"]
    texts = ["", "two\nlines", 'a "quote" \\', "é🎉", "/x/ | y"]
    for text in texts:
        matcher = Matcher(tokenizer, Constraint("choice", json.dumps(texts)))
        ids = tokenizer.encode(text)
        assert matcher.accept_many(ids) == len(ids) and matcher.may_end


def test_a_tokenizer_is_read_once():
    tokenizer = KINDS["byte-level"]()
    assert lexicon(tokenizer) is lexicon(tokenizer)
    assert lexicon(tokenizer) is not lexicon(tokenizer, 1)
    assert end_tokens(MADE["wordpiece"]) == (MADE["wordpiece"].sep_token_id,)


def test_transformers_own_generate_keeps_the_form():
    model = tiny("llama")
    form = Constraint("regex", "[0-9]{2,4}(-[a-z]{3})?")
    prompts = model.tokenizer(["ab", "once more"], padding=True, padding_side="left", return_tensors="pt")
    import re

    for settings_ in (
        dict(do_sample=False),
        dict(do_sample=False, num_beams=3),
        dict(do_sample=True, num_return_sequences=4),
    ):
        torch.manual_seed(0)
        made = model.network.generate(
            **prompts, max_new_tokens=20, logits_processor=[MaskingProcessor(model.tokenizer, form)], **settings_
        )
        for ids in made[:, prompts["input_ids"].shape[1] :]:
            text = model.tokenizer.decode(ids, skip_special_tokens=True)
            assert re.fullmatch(form.source, text), (settings_, text)
