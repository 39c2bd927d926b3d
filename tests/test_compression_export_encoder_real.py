"""A real encoder in 8 bits, against the promise of the benchmark."""

import numpy as np
import pytest

import intarsia as ia
from intarsia.compression import export
from intarsia.data import Text
from intarsia.models.embedding import embed
from intarsia.models.runtime import open_runtime

TEXTS = [
    "A cat sleeps on the sofa.", "A kitten naps on the couch.", "The stock market fell sharply today.",
    "Shares dropped on Tuesday.", "How do I boil an egg?", "What is the capital of France?", "Oh my God, no!",
    "She plays the violin beautifully.", "The train to London leaves at nine.", "I told you so, didn't I?",
    "Photosynthesis turns light into sugar.", "He was late again, as usual.",
]  # fmt: skip


@pytest.mark.real
def test_minilm_keeps_its_vectors():
    pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed")
    model = ia.load("minilm")
    text = " ".join(f"{a} {b}" for a in TEXTS[::-1] for b in TEXTS[::3])  # calibrated on other orders, same words
    small = export(model, engine="onnx", calibration=[Text(text)], tokens=1024)
    engine = open_runtime(small.exports["onnx"], threads=1)
    wanted, found = embed(model, TEXTS), engine.embed(TEXTS)
    cosine = (wanted * found).sum(1)
    assert cosine.mean() >= 0.99 and cosine.min() >= 0.98
    alike = [np.where(np.eye(len(v), dtype=bool), -1, v @ v.T).argmax(1) for v in (wanted, found)]
    assert (alike[0] == alike[1]).mean() >= 0.9
    assert small.extras["compression.export"]["bytes"] < 25e6
