"""The logit lens against a naive one made of transformers' own hidden states."""

from __future__ import annotations

import pytest
import torch

from intarsia.errors import BadInput
from intarsia.interpretation import Lens, lens
from intarsia.report import Finding
from tests.tiny import tiny

TEXTS = ["Return the sum of the start value and an iterable.", "def f(x): pass", "Stop when the file ends."]


def test_lens_matches_the_naive_one() -> None:
    model = tiny("llama")
    found = lens(model, texts=TEXTS, batch_size=3, max_tokens=64, method="logit")
    sums: dict[str, list[float]] = {}
    settled = [0] * 4
    count = 0
    for text in TEXTS:
        ids = model.encode([text])["input_ids"]
        with torch.no_grad():
            out = model.network(ids, output_hidden_states=True)
            # The last hidden state of transformers is already normed, so the last layer is the logits themselves.
            rows = [model.network.lm_head(model.network.model.norm(h))[0] for h in out.hidden_states[1:-1]]
        rows = [row.double().log_softmax(-1) for row in [*rows, out.logits[0]]]
        for t in range(1, ids.shape[1]):
            count += 1
            final = rows[-1][t]
            tops = [int(row[t].argmax()) for row in rows]
            for i in range(4):
                settled[i] += all(top == tops[-1] for top in tops[i:])
                p = rows[i][t]
                values = {
                    "agreement": float(tops[i] == tops[-1]),
                    "surprisal": -float(final[tops[i]]),
                    "kl": float((final.exp() * (final - p)).sum()),
                    "entropy": -float((p.exp() * p).sum()),
                    "rank": 1.0 + int((p > p[tops[-1]]).sum()),
                }
                for name, value in values.items():
                    sums.setdefault(name, [0.0] * 4)[i] += value
    assert found.positions == count
    for name, total in sums.items():
        mine = [getattr(row, name) for row in found.layers]
        assert mine == pytest.approx([value / count for value in total], rel=1e-4, abs=1e-5), name
    assert found.settled == pytest.approx([n / count for n in settled])
    last = found.layers[-1]
    assert (last.agreement, last.kl, last.rank) == (1, 0, 1) and found.settled[-1] == 1


def test_next_token_measures_leave_out_the_texts_ends() -> None:
    model = tiny("gpt2")
    found = lens(model, texts=TEXTS[:1], max_tokens=64)
    ids = model.encode(TEXTS[:1])["input_ids"]
    with torch.no_grad():
        logits = model.network(ids).logits[0, 1:-1]
    ranks = (logits > logits.gather(-1, ids[0, 2:, None])).sum(-1) + 1
    assert found.layers[-1].next_rank == pytest.approx(ranks.double().mean().item())
    assert found.layers[-1].next_agreement == pytest.approx((ranks == 1).double().mean().item())


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "neox", "granite", "mixtral", "bert"])
def test_the_last_layer_is_the_network_itself(family: str) -> None:
    model = tiny(family)
    found = lens(model, texts=TEXTS, max_tokens=64, pictures=1, picture_tokens=6)
    with torch.no_grad():
        logits = model.network(**model.encode(TEXTS[:1])).logits[0, :6]
    assert found.pictures[0].probability[-1] == pytest.approx(logits.softmax(-1).max(-1).values.tolist(), rel=1e-4)
    decoded = [model.tokenizer.decode([int(i)]) or f"[{int(i)}]" for i in logits.argmax(-1)]
    assert found.pictures[0].top[-1] == decoded
    assert (found.layers[0].next_rank is None) == (family == "bert")


def test_padded_batches_equal_one_by_one_and_the_stride_keeps_the_last() -> None:
    model = tiny("llama")
    one, many = lens(model, texts=TEXTS, batch_size=1, stride=3), lens(model, texts=TEXTS, batch_size=3, stride=3)
    assert [row.layer for row in one.layers] == [0, 3]
    for a, b in zip(one.layers, many.layers, strict=True):
        assert a.model_dump() == pytest.approx(b.model_dump(), rel=1e-3, abs=1e-5)
    assert one.pictures[1].top == many.pictures[1].top


def test_the_finding_draws_and_survives_json() -> None:
    found = lens(tiny("llama"), texts=TEXTS)
    again = Finding.from_json(found.to_json())
    assert isinstance(again, Lens) and again == found
    picture = again.picture_figures()[0]
    assert picture.row_names[0] == "layer 3" and len(picture.matrix) == len(picture.texts) == 4
    assert len(picture.column_names) == len(picture.texts[0]) == 20
    assert "layer" in found.summary and found.table().rows[-1][1] == 1


def test_clear_errors() -> None:
    with pytest.raises(BadInput, match="no head"):
        lens(tiny("bert-encoder"), texts=TEXTS)
    with pytest.raises(BadInput, match="no text"):
        lens(tiny("llama"), texts=[])
    with pytest.raises(BadInput, match="two tokens"):
        lens(tiny("llama"), texts=["a"])
