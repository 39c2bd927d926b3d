"""The statements of `bench.prompting.support` are made as they say, and its figures are counts of them."""

from __future__ import annotations

import numpy as np
import pytest

from bench.prompting import support
from bench.prompting.claims import FALSE, TRUE, Claim, claims
from tests.store_help import manual_of

TEXT = (
    "The {0} is closed by the caller, who has 3 days for it. The {0} does not raise TypeError where all has gone. "
    "Values that are missing (or gone) in {0} cannot be counted, and so they are left out. Use other_name where "
    "ValueError is raised by the {0} itself. Wait for 7 days in all other cases that {0} has."
)


@pytest.fixture
def found():
    documents = [
        *manual_of({f"pile.{name}": TEXT.format(name) for name in ("push", "pop", "peek")}, "pile")(),
        *manual_of({f"heap.{name}": TEXT.format(name) for name in ("sift", "grow", "trim")}, "heap")(),
    ]
    return claims(documents, 100)


def test_claims_are_made_by_their_rules(found):
    assert {claim.kind for claim in found} <= {*TRUE, *FALSE} and len({claim.kind for claim in found}) >= 8
    by = {kind: [claim for claim in found if claim.kind == kind] for kind in (*TRUE, *FALSE)}
    for claim in found:
        assert claim.true == (claim.kind in TRUE) and claim.group in claim.passage
    assert all(claim.text in claim.passage for claim in by["same"])
    assert all(claim.text[:-1] in claim.passage for claim in by["clause"])
    for kind in ("negated", "number", "name", "other"):
        assert all(claim.text not in claim.passage for claim in by[kind])
    for claim in by["negated"]:
        assert claim.text.replace(" not ", " ", 1) in claim.passage
    assert all(" not " not in claim.text for claim in by["unnegated"])


def test_no_more_than_asked_for(found):
    documents = list(manual_of({f"pile.{name}": TEXT.format(name) for name in ("push", "pop", "peek")}, "pile")())
    few = claims(documents, 2)
    assert max(sum(claim.kind == kind for claim in few) for kind in TRUE) == 2
    assert few == claims(documents, 2) and not [claim for claim in few if claim.kind == "other"]


def test_shares_and_areas(monkeypatch, capsys):
    made = [
        Claim("same", "The lid is closed by hand.", "a > b\nThe lid is closed by hand. Or not.", "a"),
        Claim("negated", "The lid is not closed by hand.", "a > b\nThe lid is closed by hand. Or not.", "a"),
        Claim("other", "Bread is baked in ovens.", "a > b\nThe lid is closed by hand. Or not.", "b"),
    ]
    assert support.refused(made, support.support).tolist() == [False, True, True]
    assert support.refused(made, support.words_held).tolist() == [False, False, True]
    assert support._above(np.array([2.0, 1.0]), np.array([1.0, 0.0])) == pytest.approx(0.875)
