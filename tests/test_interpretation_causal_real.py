"""Causal methods on a small real model: three ways of asking name the same head."""

from __future__ import annotations

import pytest

import intarsia as ia
from intarsia.interpretation import attribution_patching, direct_logit_attribution
from intarsia.interpretation.causal.activation_patching import IOI


@pytest.mark.real
def test_the_head_that_writes_the_name_is_the_one_that_carries_it() -> None:
    try:
        model = ia.load("smollm2-135m")
    except ia.IntarsiaError as error:
        pytest.skip(f"smollm2-135m is not available: {error}")
    written = direct_logit_attribution(model, prompt=IOI["prompt"], answer="Mary", foil="John")
    assert written.logit > 3 and abs(written.error) < 1e-3
    assert written.answer == " Mary"
    best = max(range(30 * 9), key=lambda i: written.heads[i // 9][i % 9])

    carried = attribution_patching(model, **IOI, kinds=["z"], check=9)
    assert carried.contrast.clean > 3 and carried.contrast.corrupted < -3
    assert carried.maps[0].ranked()[0] == divmod(best, 9)
    assert carried.agreement["z"] > 0.8
