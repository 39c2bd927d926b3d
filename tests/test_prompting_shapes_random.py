"""Random JSON schemas, and a model that was never trained: every answer is valid."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator, FormatChecker

from bench.prompting.schemas import schema
from intarsia.prompting.base import Constraint, PromptingError
from intarsia.prompting.base.masking import Matcher
from intarsia.prompting.execute.shape import Shape
from tests.prompting_shapes_help import byte_level, one_a_byte
from tests.test_prompting_shapes_masking import random_answer, spelt
from tests.tiny import tiny

FORMATS = FormatChecker(["uuid", "ipv4", "email"])
MOST = 3000


def validator(given: dict) -> Draft202012Validator:
    Draft202012Validator.check_schema(given)
    return Draft202012Validator(given, format_checker=FORMATS)


def test_schemas_are_the_same_for_a_seed_and_differ():
    assert schema(3) == schema(3)
    assert len({json.dumps(schema(seed)) for seed in range(50)}) > 40


@pytest.mark.parametrize("make", [one_a_byte, byte_level])
def test_whatever_is_drawn_is_valid(make):
    tokenizer, done = make(), 0
    for seed in range(70):
        given = schema(seed)
        check = validator(given)
        matcher = Matcher(tokenizer, Constraint("json", json.dumps(given)))
        for draw in range(2):
            at = matcher.fork()
            ids = random_answer(at, seed * 10 + draw, forced=draw == 0, most=MOST)
            assert at.may_end, (seed, spelt(tokenizer, ids))
            value = json.loads(spelt(tokenizer, ids))
            check.validate(value)
            done += 1
    assert done == 140


def greedy(model, matcher: Matcher, forced: bool, most: int, noise: np.random.Generator) -> tuple[list[int], int]:
    """An answer of a network, each token the likeliest that is allowed; and how many forward passes it took. A little
    noise, the same for both ways, since what was never trained says the same for ever."""
    ids, passes, cache = [1], 0, None
    new = [1]
    bias = torch.from_numpy(noise.gumbel(size=(most, model.network.config.vocab_size))).float()
    with torch.no_grad():
        while not matcher.done and len(ids) < most:
            if forced and (some := matcher.forced()):
                matcher.accept_many(some)
                ids += some
                new = new + some
                continue
            out = model.network(input_ids=torch.tensor([new]), past_key_values=cache, use_cache=True)
            cache, passes = out.past_key_values, passes + 1
            logits = out.logits[0, -1] + bias[len(ids)]
            matcher.apply(logits)
            chosen = int(logits.argmax())
            matcher.accept(chosen)
            if chosen in matcher.end:
                break
            ids.append(chosen)
            new = [chosen]
    return ids[1:], passes


def test_an_untrained_model_is_always_valid_and_forcing_changes_nothing():
    """Forced tokens make the very answer that masks alone make, with fewer passes through the network."""
    model = tiny("llama")
    saved = 0
    for seed in range(8):
        given = schema(1000 + seed, depth=2)
        constraint = Constraint("json", json.dumps(given))
        answers = []
        for forced in (False, True):
            matcher = Matcher(model.tokenizer, constraint, vocabulary=model.network.config.vocab_size)
            ids, passes = greedy(model, matcher, forced, 600, np.random.default_rng(seed))
            assert matcher.may_end
            answers.append(ids)
            saved += passes if not forced else -passes
        assert answers[0] == answers[1]
        text = model.tokenizer.decode(answers[0])
        validator(given).validate(json.loads(text))
        assert Shape.of(given).parse(text) == json.loads(text)
    assert saved > 50


def test_a_form_without_an_end_is_told():
    given = {
        "$ref": "#/$defs/a",
        "$defs": {"a": {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "required": ["a"]}},
    }
    matcher = Matcher(one_a_byte(), Constraint("json", json.dumps(given)))
    with pytest.raises(PromptingError, match="too large to follow"):
        for _ in range(1000):
            matcher.accept_many(matcher.forced())


def test_the_benchmark_counts_valid_answers():
    from bench.prompting.shapes import Ours, forcing, measure, untrained, valid

    tokenizer = byte_level()
    found = measure(Ours(tokenizer, 330), tokenizer, untrained(330), 4, 1)
    assert found["valid_share"] == 1.0 and found["refused_share"] == found["endless_share"] == 0.0
    assert found["tokens"] > 4 and found["mask_us"] > 0
    assert 0 < forcing(tokenizer, 4) < 1
    assert valid('{"a": 1}', {"required": ["a"]}) and not valid("{}", {"required": ["a"]}) and not valid("{", {})
