"""OpenVINO and CTranslate2 hold the codes of the network that is exported, and answer as it does."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch
import transformers as tf

import intarsia as ia
from intarsia import compression
from intarsia.errors import BadInput, IntarsiaError, MissingExtra
from intarsia.models import wrap
from intarsia.models.runtime import open_runtime
from intarsia.models.runtime.session import Session, Step, greedy, until_end
from intarsia.prompting.base import Message, Sampling
from intarsia.prompting.base.local import open_local
from tests.test_compression_gguf import small

IDS = list(range(20, 50))


def exported(engine, model, **settings):
    for package in {"openvino": ("openvino", "openvino_genai", "gguf"), "ctranslate2": ("ctranslate2",)}[engine]:
        pytest.importorskip(package, reason=f"the extra '{engine}' is not installed")
    return compression.export(model, engine=engine, **settings)


@pytest.mark.parametrize(
    ("engine", "settings"),
    [("openvino", {}), ("openvino", {"bits": 8}), ("openvino", {"embed": "int4"}), ("ctranslate2", {})],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())) or "default",
)
def test_an_engine_answers_as_the_network_whose_codes_it_holds(engine, settings, tmp_path):
    model = small(tied=True)
    made = exported(engine, model, **settings)
    again = ia.load(str(made.save(tmp_path / "saved")))
    runtime = open_runtime(again.exports[engine], threads=1)
    assert runtime.name == engine and runtime.threads == 1 and runtime.context_length == model.context_length
    assert runtime.bytes == made.extras["compression.export"]["bytes"]
    found = runtime.logits(IDS)
    with torch.no_grad():
        wanted = made.network(torch.tensor([IDS])).logits[0].numpy()
        dense = model.network(torch.tensor([IDS])).logits[0].numpy()
    assert found.shape == wanted.shape and found.dtype == np.float32
    # Engines round activations: the numbers are near, and nearer to the rounded network than to the one before.
    assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.995
    if not settings.get("bits") and engine == "openvino":
        assert np.abs(found - wanted).mean() < np.abs(found - dense).mean()
    tokens = list(runtime.tokens(IDS[:10], 5))
    assert len(tokens) == 5
    rows = runtime.logits(IDS[:10] + tokens[:-1])[9:]
    for row, token in zip(rows, tokens, strict=True):  # step by step is reading what was made
        assert row[token] >= row.max() - 0.05 * np.abs(row).max()
    assert runtime.generate(IDS[:10], 5) == tokens[: len(runtime.generate(IDS[:10], 5))]


def test_what_these_engines_cannot_hold(tmp_path):
    model = small(tied=True)
    five = compression.quantize(model, bits=5, group_size=32, scheme="symmetric")
    with pytest.raises((BadInput, MissingExtra), match=r"it does not read Q5_0|extra 'openvino'"):
        compression.export(five, engine="openvino")
    with pytest.raises((BadInput, MissingExtra), match=r"8 bits with a scale a row|extra 'ctranslate2'"):
        compression.export(five, engine="ctranslate2")
    with pytest.raises(BadInput, match=r"engine ctranslate2 has 8 bits, not 4"):
        compression.export(model, engine="ctranslate2", bits=4)
    with pytest.raises((BadInput, MissingExtra), match=r"wants a tokenizer|extra"):
        compression.export(wrap(model.network), engine="openvino")
    config = tf.MambaConfig(vocab_size=300, hidden_size=32, num_hidden_layers=1, state_size=4)
    with pytest.raises((BadInput, MissingExtra), match=r"no export to ctranslate2 for MambaForCausalLM|extra"):
        compression.export(wrap(tf.MambaForCausalLM(config), model.tokenizer), engine="ctranslate2")


def near(found, wanted):
    """Whether logits are the same but for what an engine rounds: keys and values are kept in few bits."""
    return np.abs(found - wanted).max() < 0.06 * np.abs(wanted).max()


def test_rows_of_openvino_keep_go_back_and_share(tmp_path):
    made = exported("openvino", small(tied=True), bits=8)
    runtime = open_runtime(made.exports["openvino"], threads=1)
    whole, other = runtime.logits(IDS), runtime.logits(IDS[::-1])
    session = runtime.session(3)
    assert isinstance(session, Session) and session.rows == 3 and session.vocabulary == whole.shape[1]
    (first,) = session.read([Step(0, IDS[:20], 0)], every=True)
    assert near(first, whole[:20])
    # Two rows in turns, each with its own past; the last token's logits alone.
    one, two = session.read([Step(0, IDS[20:], 20), Step(2, IDS[::-1], 0)])
    assert one.shape == (1, whole.shape[1]) and near(one, whole[-1:]) and near(two, other[-1:])
    # Back to the tenth token, and on with others: what came after is forgotten.
    changed = [*IDS[:10], *IDS[:5]]
    (back,) = session.read([Step(0, IDS[:5], 10)], every=True)
    assert near(back, runtime.logits(changed)[10:]) and not near(back, whole[10:15])
    # A row that shares a beginning with another, which stays as it was.
    session.copy(0, 1, 10)
    shared, kept = session.read([Step(1, IDS[10:], 10), Step(0, [7], 15)])
    assert near(shared, whole[-1:]) and near(kept, runtime.logits([*changed, 7])[-1:])
    with pytest.raises(IntarsiaError, match="row 1 holds 30 tokens, not 40"):
        session.read([Step(1, [1], 40)])


def test_openvino_answers_many_at_once_as_alone(tmp_path):
    made = exported("openvino", small(tied=True), bits=8)
    folder = made.save(tmp_path / "saved")
    asked = [IDS[:12], IDS[3:9], IDS[:20]]

    async def answers():
        backend = open_local(folder, threads=1, engine="openvino", max_batch=3)
        found = await asyncio.gather(*(backend.generate(ids, Sampling(max_tokens=5)) for ids in asked))
        again = await backend.generate([*IDS[:20], *found[2].tokens, 30], Sampling(max_tokens=3))
        talk = await backend.generate([Message("user", "hi")], Sampling(max_tokens=2))
        await backend.close()
        return backend, found, again, talk

    backend, found, again, talk = asyncio.run(answers())
    assert backend.runs_on == "openvino" and open_local(folder / "export" / "openvino", threads=1).runs_on == "openvino"
    runtime = open_runtime(folder / "export" / "openvino", threads=1)
    for ids, reply in zip(asked, found, strict=True):
        rows = runtime.logits([*ids, *reply.tokens])[len(ids) - 1 : -1]
        for row, token in zip(rows, reply.tokens, strict=True):
            assert row[token] >= row.max() - 0.06 * np.abs(row).max()
    assert again.usage.cached >= 20 and talk.usage.completion >= 1


def test_ctranslate2_says_why_it_cannot_be_asked_step_by_step(tmp_path):
    why = (
        r"ctranslate2 cannot be asked step by step \(it gives logits of whole texts alone.*gguf, onnx-genai or openvino"
    )
    with pytest.raises(BadInput, match=why):
        open_local(small(tied=True), engine="ctranslate2")
    for name in ("model.bin", "vocabulary.json", "config.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(BadInput, match=why):
        open_local(tmp_path)


class Counted:
    """A session that always says the same, and counts its reads."""

    reads = 0

    def read(self, steps, *, every=False):
        self.reads += 1
        return [np.eye(1, 9, 4, dtype=np.float32)]


def test_no_token_is_read_that_nobody_asks_for():
    session = Counted()
    assert list(greedy(session, [1, 2], 3)) == [4, 4, 4] and session.reads == 3
    assert until_end(greedy(session, [1], 5), (4,)) == [4] and session.reads == 4
    assert list(greedy(session, [1], 0)) == [] and session.reads == 4
