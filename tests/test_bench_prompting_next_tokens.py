"""What `bench.prompting.next_tokens` chooses by, and its figures, on a tiny network and made-up documentation."""

from __future__ import annotations

import numpy as np
import pytest

from bench.prompting import next_tokens
from intarsia.prompting.data.next_tokens import Judged
from tests.store_help import manual_of
from tests.tiny import tiny


def test_the_best_of_the_grid_is_chosen():
    # The nearest of two entries is always right, and the model nearly never: all of the memory, and sharply.
    distances = np.tile([0.01, 0.02], (5, 1))
    judged = Judged(np.log(np.full(5, 0.01)), distances, np.tile([True, False], (5, 1)))
    assert next_tokens.best(judged)[:2] == (0.4, 0.01)
    assert next_tokens.nearest(judged, 1).perplexity(0.4, 0.2) == pytest.approx(1 / (0.6 * 0.01 + 0.4))
    never = Judged(np.log(np.full(5, 0.5)), distances, np.zeros((5, 2), bool))
    assert next_tokens.best(never)[0] == min(next_tokens.SHARES)


def test_figures_are_of_modules_that_are_in_no_memory(monkeypatch, capsys):
    def manual():
        for name in ("known", "other"):
            texts = {f"{name}.f{i}": f"Return {name} number {i} of all that there are." for i in range(8)}
            yield from manual_of(texts, name)()

    monkeypatch.setattr(next_tokens, "python_manual", manual)
    monkeypatch.setattr(next_tokens, "drawn_modules", lambda *_: {"known"})
    monkeypatch.setattr(next_tokens.ia, "load", lambda _: tiny("llama"))
    known, others = next_tokens.texts()
    assert {group for group, _ in known} == {"known"} and {group for group, _ in others} == {"other"}
    model = tiny("llama")
    size = len(model.tokenizer(known[0][1])["input_ids"])
    assert len(next_tokens.taken(known, model, size + 1)) == 2
    figures = next_tokens.run("tiny", 3 * size)
    assert figures["perplexity_ratio"] == pytest.approx(figures["with_memory.perplexity"] / figures["model.perplexity"])
    assert figures["perplexity_ratio"] < 1  # a random network learns most of it from what it has seen
    assert "ratio" in capsys.readouterr().out
