"""A budget is read as it is written, whatever is written."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intarsia.compression.searching.budgets import ALIASES, METRICS, parse_budget
from intarsia.errors import BadInput
from tests.failing import fails


def test_a_budget_as_people_write_it():
    budget = parse_budget(" size < 90MB, decode>=4x,quality > 95%, latency<250 ms, params<0.1B ")
    size, decode, quality, latency, params = budget.bounds
    assert (size.metric.name, size.value, size.relative, size.strict) == ("bytes", 90e6, False, True)
    assert (decode.value, decode.relative, decode.strict) == (4, True, False)
    assert (quality.value, quality.relative) == (0.95, True)
    assert latency.value == 0.25 and params.value == 1e8
    assert budget.text == "size<90MB, decode>=4x, quality>95%, latency<250ms, params<0.1B"
    assert parse_budget("quality>0.9").bounds == parse_budget("quality>0.9").bounds
    assert parse_budget("quality>0.9").bounds[0].relative  # a share of the base's, with x or without
    assert parse_budget("ram<1GiB").bounds[0].value == 2**30


def test_bounds_hold_on_their_side():
    size, decode = parse_budget("bytes<100MB, decode>=4x").bounds
    assert size.holds(99e6) and not size.holds(100e6)
    assert decode.holds(4.0) and not decode.holds(3.99)
    assert size.excess(110e6) == pytest.approx(math.log(1.1)) and decode.excess(8) < 0
    assert size.limit(None) == 100e6 and decode.limit(12.0) == 48.0
    fails(lambda: decode.limit(None), "decode>=4x", "absolute")
    budget = parse_budget("bytes<100MB, decode>=4x, ram<1GB")
    found = budget.broken({"bytes": 2e8, "decode": 50}, {"bytes": 0.4, "decode": 5})
    assert [(b.text, excess) for b, excess in found] == [("bytes<100MB", pytest.approx(math.log(2)))]


@pytest.mark.parametrize(
    ("text", "objective"),
    [
        ("bytes<90MB", "quality"), ("bytes<90MB, decode>4x", "quality"), ("quality>0.95x", "bytes"),
        ("ppl<20", "bytes"), ("kl<0.1, size<90MB", "decode"), ("bytes<90MB, decode>4x, quality>0.9x", "quality"),
    ],
)  # fmt: skip
def test_what_nothing_bounds_becomes_the_objective(text, objective):
    assert parse_budget(text).objective == objective


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["the budget is empty"]),
        ("bytes<90MB,,decode>4x", ["nothing between two commas"]),
        ("byte<90MB", ["no metric 'byte'", "did you mean bytes"]),
        ("speed>4x", ["no metric 'speed'"]),
        ("<90MB", ["names no metric"]),
        ("bytes 90MB", ["one of <, <=, >, >=", "bytes<0.9x"]),
        ("decode=4x", ["one of <, <=, >, >=", "decode>0.9x"]),
        ("decode=>4x", ["one of <, <=, >, >="]),
        ("bytes<", ["no number after bytes"]),
        ("bytes<MB", ["no number after bytes"]),
        ("bytes<-1MB", ["above 0"]),
        ("bytes<0MB", ["above 0"]),
        ("bytes<1e999", ["above 0"]),
        ("bytes<90MG", ["no unit 'MG'"]),
        ("latency<90MB", ["no unit 'MB'", "ms, s, x"]),
        ("kl<0.9x", ["has no 'x'", "nats"]),
        ("bytes>90MB", ["bounded from above, <"]),
        ("quality<0.9x", ["bounded from below, >"]),
        ("bytes<90MB, size<80MB", ["bytes<90MB and size<80MB bound the same"]),
        ("ppl<0.3x", ["halves"]),
        ("quality>3x", ["doubles"]),
    ],
)
def test_what_is_no_budget_is_said_in_one_line(text, words):
    fails(lambda: parse_budget(text), *words)


NUMBERS = st.floats(1e-3, 1.9, allow_nan=False).map(lambda v: float(f"{v:.4g}"))


@given(st.data())
def test_what_is_written_comes_back(data):
    name = data.draw(st.sampled_from([*METRICS, *ALIASES]))
    metric = METRICS[ALIASES.get(name, name)]
    units = [*metric.units, ""] + (["x", "%"] if metric.relative else [])
    unit, number = data.draw(st.sampled_from(units)), data.draw(NUMBERS)
    if metric.name == "ppl" and unit in ("x", "%"):
        number += 60.0 if unit == "%" else 0.6
    space = data.draw(st.sampled_from(["", " ", "  "]))
    op = {"lower": "<", "higher": ">"}[metric.better] + data.draw(st.sampled_from(["", "="]))
    (bound,) = parse_budget(f"{space}{name.upper()}{space}{op}{space}{number!r}{space}{unit}").bounds
    factor = {"x": 1.0, "%": 0.01, "": 1.0}.get(unit) or metric.units[unit]
    assert bound.metric is metric and bound.value == pytest.approx(number * factor)
    assert bound.relative == (unit in ("x", "%") or (metric.name == "quality" and not unit))
    assert parse_budget(bound.text).bounds[0].value == pytest.approx(bound.value)


@given(st.text(alphabet="bytes<>=,.0123456789xMGB% kldcoqu-+eE", max_size=30))
def test_any_text_is_a_budget_or_an_error_of_one_line(text):
    try:
        budget = parse_budget(text)
    except BadInput as error:
        assert "\n" not in str(error)
    else:
        assert budget.bounds and budget.objective in ("quality", "bytes", "decode")
