"""OpenVINO and CTranslate2 hold the codes of the network that is exported, and answer as it does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers as tf

import intarsia as ia
from intarsia import compression
from intarsia.errors import BadInput, MissingExtra
from intarsia.models import wrap
from intarsia.models.runtime import open_runtime
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
