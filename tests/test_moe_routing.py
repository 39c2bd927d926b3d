"""Routing traces: recorded as the network routes, kept, split, counted."""

import json

import numpy as np
import pytest
import torch

from intarsia.errors import BadInput
from intarsia.moe.routing import Counts, Trace
from intarsia.moe.routing.recording import facts_of, record, router_sha256
from intarsia.sites import read
from tests.tiny import MOE, tiny
from tests.tiny_more import more

TEXTS = ["a b c d e f g h i j k l", "m n o p", "q r s t u v w x y z", "zz"]


@pytest.mark.parametrize("family", MOE)
def test_a_trace_is_what_the_routers_chose(family):
    model = tiny(family)
    trace = record(model, TEXTS, length=8, batch_size=2)
    ids = trace.whole()
    names = model.sites.expand("layers.*.router_experts")
    assert ids.shape[1:] == (len(names), 2) and trace.facts.router_sha256 == router_sha256(model)
    at = 0
    for text in TEXTS:
        tokens = model.tokenizer(text)["input_ids"]
        for start in range(0, len(tokens), 8):
            piece = tokens[start : start + 8]
            if len(piece) < 2:
                continue
            acts = read(model, torch.tensor([piece]), at=[*names, *model.sites.expand("layers.*.router")])
            for layer, name in enumerate(names):
                logits = acts[name.removesuffix("_experts")][0]
                mine = ids[at : at + len(piece), layer]
                assert (np.sort(mine, -1) == np.sort(acts[name][0].numpy(), -1)).all()
                assert (mine[:, 0] == logits.argmax(-1).numpy()).all()
                gate = np.take_along_axis(logits.softmax(-1).numpy(), mine.astype(int), -1)
                kept = trace.whole("gate")[at : at + len(piece), layer].astype(float)
                assert np.allclose(kept, gate, atol=1e-3) and (np.diff(kept) <= 0).all()
            assert trace.whole("token_id")[at : at + len(piece)].tolist() == piece
            at += len(piece)
    assert at == trace.tokens == len(ids)


@pytest.mark.parametrize("family", ["deepseek_v3", "gpt_oss", "qwen2_moe", "jamba"])
def test_other_routers_are_traced_too(family):
    model = more(family)
    facts = facts_of(model)
    trace = record(model, TEXTS, length=8)
    assert facts.layers == trace.facts.layers and trace.whole().max() < facts.experts
    assert trace.facts.k == model.config.num_experts_per_tok


def test_a_recording_goes_on_where_it_was(tmp_path, monkeypatch):
    from intarsia.moe.routing import recording

    model = tiny("mixtral")
    whole = record(model, TEXTS, length=8, batch_size=1)
    plain, calls = recording._routes, []

    def fails(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain(*args)

    monkeypatch.setattr(recording, "_routes", fails)
    with pytest.raises(KeyboardInterrupt):
        record(model, TEXTS, length=8, batch_size=1, folder=tmp_path)
    other = record(model, TEXTS, length=8, batch_size=2, folder=tmp_path)
    assert other.tokens == whole.tokens
    again = record(model, TEXTS, length=8, batch_size=1, folder=tmp_path)
    done = len(whole.sequences) + 1 + -(-len(whole.sequences) // 2)  # (the one that failed, and those of two)
    assert again.sha256 == whole.sha256 and len(calls) == done and not list(tmp_path.iterdir())


def test_a_trace_is_read_back_in_pieces(tmp_path, monkeypatch):
    from intarsia.moe.routing import trace as module

    monkeypatch.setattr(module, "PIECE", 7)
    model = tiny("olmoe")
    made = record(model, TEXTS, length=8, corpus="letters")
    made.save(tmp_path / "t.npz")
    back = Trace.open(tmp_path / "t.npz")
    assert back.sha256 == made.sha256 and back.facts == made.facts
    assert back.facts.name.endswith("letters") and len(list(back.pieces())) > 2
    both = Trace.open(f"{tmp_path}/t.npz,{tmp_path}/t.npz")
    assert both.tokens == 2 * made.tokens and len(both.sequences) == 2 * len(made.sequences)
    first, second = both.split(0.5)
    assert first.tokens + second.tokens == both.tokens and not {*first.sequences} & {*second.sequences}
    first.save(tmp_path / "half.npz")
    assert Trace.open(tmp_path / "half.npz").sha256 == first.sha256
    with np.load(tmp_path / "t.npz") as arrays:
        assert json.loads(str(arrays["meta"]))["moe_layer_indices"] == list(made.facts.layers)


def test_counts_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    ids = rng.random((40, 4, 5)).argsort(-1)[..., :2]
    trace = Trace.of(ids, 5)
    counts = Counts.of(trace, lags=(1, 3))
    steps, far, together, load = np.zeros((3, 5, 5)), np.zeros((1, 5, 5)), np.zeros((4, 5, 5)), np.zeros((4, 5))
    for token in ids:
        for layer in range(4):
            for e in token[layer]:
                load[layer, e] += 1
            a, b = token[layer]
            together[layer, a, b] += 1
            together[layer, b, a] += 1
            if layer < 3:
                steps[layer, a, token[layer + 1, 0]] += 1
        far[0, token[0, 0], token[3, 0]] += 1
    assert (counts.steps[1] == steps).all() and (counts.steps[3] == far).all()
    assert (counts.together == together).all() and (counts.load == load).all()
    assert counts.flow().sum((1, 2)) == pytest.approx(1) and counts.shares().sum(1) == pytest.approx(1)


def test_what_is_no_trace_is_refused(tmp_path):
    (tmp_path / "no.npz").write_bytes(b"PK nothing")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    facts = dict(E=2, k=1, moe_layer_indices=[0, 1])
    ids = np.array([[[0], [3]]])
    np.savez(tmp_path / "range.npz", expert_ids=ids, seq=np.zeros(1), meta=np.array(json.dumps(facts)))
    np.savez(tmp_path / "short.npz", expert_ids=ids % 2, seq=np.zeros(0), meta=np.array(json.dumps(facts)))
    np.savez(tmp_path / "list.npz", expert_ids=ids % 2, seq=np.zeros(1), meta=np.array("[1]"))
    np.save(tmp_path / "array.npy", ids)
    for name in ("no.npz", "other.npz", "missing.npz", "range.npz", "short.npz", "list.npz", "array.npy"):
        with pytest.raises(BadInput):
            Trace.open(tmp_path / name)
    with pytest.raises(BadInput, match="names the expert 7, there are 4"):
        Trace.of(np.full((4, 2), 7), 4)
    with pytest.raises(BadInput, match="one sequence"):
        Trace.of(np.zeros((4, 2), int), 4, seq=np.zeros(4, int)).split()
    with pytest.raises(BadInput, match="dense"):
        record(tiny("llama"), TEXTS)
    with pytest.raises(BadInput, match="no text"):
        record(tiny("mixtral"), [""])
    a, b = record(tiny("mixtral"), TEXTS), record(tiny("mixtral", seed=1), TEXTS)
    a.save(tmp_path / "a.npz")
    b.save(tmp_path / "b.npz")
    with pytest.raises(BadInput, match="another model"):
        Trace.open([tmp_path / "a.npz", tmp_path / "b.npz"])
