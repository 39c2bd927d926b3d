"""Exported engines give the numbers of the quantized network, the same bytes every time, and clear errors."""

import hashlib
import json
import sys

import numpy as np
import pytest
import torch
import transformers as tf

from intarsia import compression
from intarsia.errors import BadInput, MissingExtra
from intarsia.models import wrap
from intarsia.models.runtime import Runtime, open_runtime
from tests.tiny import tiny, tokenizer

IDS = list(range(20, 50))


def llama():
    """The smallest Llama the builder takes: every row is an even number of blocks of 16."""
    torch.manual_seed(0)
    config = tf.LlamaConfig(
        vocab_size=300, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, head_dim=16,
        num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        tie_word_embeddings=True, rope_parameters={"rope_theta": 500.0, "rope_type": "default"},
    )  # fmt: skip
    network = tf.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return wrap(network, tokenizer())


@pytest.fixture(scope="module")
def exported():
    for package in ("onnxruntime_genai", "onnx", "onnx_ir"):
        pytest.importorskip(package, reason="the extra 'export' is not installed")
    model = llama()
    return model, compression.export(model, group_size=16, activations="float32")


def test_engine_gives_the_quantized_networks_numbers(exported):
    model, small = exported
    runtime = open_runtime(small.exports["onnx-genai"], threads=1)
    assert isinstance(runtime, Runtime) and runtime.name == "onnx-genai" and runtime.threads == 1
    logits = runtime.logits(IDS)
    assert logits.shape == (len(IDS), 300) and logits.dtype == np.float32
    with torch.no_grad():
        wanted = small.network(torch.tensor([IDS])).logits[0].numpy()
        base = model.network(torch.tensor([IDS])).logits[0].numpy()
    np.testing.assert_allclose(logits, wanted, atol=2e-5 * np.abs(wanted).max())
    assert np.abs(logits - base).max() > 1e-3 * np.abs(base).max()  # it is really quantized
    greedy = small.network.generate(torch.tensor([IDS]), max_new_tokens=6, do_sample=False)[0, len(IDS) :].tolist()
    assert runtime.generate(IDS, 6) == greedy
    assert runtime.bytes == small.extras["compression.export"]["bytes"]


@pytest.mark.parametrize("embed", ["int8", "int4"])
def test_symmetric_codes_need_no_zero_points(exported, embed):
    """The file is smaller by them, and gives the network's numbers as before."""
    model, asymmetric = exported
    small = compression.quantize(model, bits=4, group_size=16, scheme="symmetric", kernel="reference")
    small = compression.export(small, group_size=16, activations="float32", embed=embed)
    runtime = open_runtime(small.exports["onnx-genai"], threads=1)
    assert runtime.bytes < open_runtime(asymmetric.exports["onnx-genai"], threads=1).bytes
    logits = runtime.logits(IDS)
    with torch.no_grad():
        wanted = small.network(torch.tensor([IDS])).logits[0].numpy()
    if embed == "int8":
        np.testing.assert_allclose(logits, wanted, atol=2e-5 * np.abs(wanted).max())
    else:  # the network keeps 8 bits there
        assert np.corrcoef(logits.ravel(), wanted.ravel())[0, 1] > 0.95
        assert np.abs(logits - wanted).max() > 1e-3 * np.abs(wanted).max()


def test_exporting_twice_gives_the_same_bytes(exported, tmp_path):
    from intarsia.compression.exporting.onnx_genai import export_onnx_genai

    _, small = exported
    # From the quantized model, and into another folder: nothing of the way there is in the files.
    again = export_onnx_genai(small, tmp_path / "again", group_size=16, activations="float32")
    first = small.exports["onnx-genai"]
    assert {f.name for f in again.iterdir()} == {f.name for f in first.iterdir()}
    for file in again.iterdir():
        digests = [hashlib.sha256(f.read_bytes()).hexdigest() for f in (file, first / file.name)]
        assert digests[0] == digests[1], file.name
    # Nothing of the directory the builder ran in is in the file (it likes to add a git revision).
    import onnx

    version = onnx.load(again / "model.onnx", load_external_data=False).producer_version
    assert version and "+" not in version


def test_exports_travel_with_a_saved_model(exported, tmp_path):
    import intarsia

    _, small = exported
    again = intarsia.load(str(small.save(tmp_path / "saved")))
    ours, theirs = (open_runtime(m.exports["onnx-genai"], threads=1).logits(IDS) for m in (again, small))
    assert np.array_equal(ours, theirs)


def test_wrong_tokens(exported):
    runtime = open_runtime(exported[1].exports["onnx-genai"], threads=1)
    for ids, message in (([], "no tokens"), ([400], "not below the vocabulary's 300"), ([5] * 65, "context of 64")):
        with pytest.raises(BadInput, match=message):
            runtime.logits(ids)
    with pytest.raises(BadInput, match="context of 64"):
        runtime.generate([5] * 60, 5)


def test_what_cannot_be_exported(tmp_path):
    pytest.importorskip("onnxruntime_genai", reason="the extra 'export' is not installed")
    pytest.importorskip("onnx_ir", reason="the extra 'export' is not installed")
    from intarsia.compression.exporting.onnx_genai import export_onnx_genai

    with pytest.raises(BadInput, match="no export to onnx-genai for GPT2LMHeadModel; supported: LlamaForCausalLM"):
        compression.export(tiny("gpt2"))
    with pytest.raises(BadInput, match="wants a tokenizer"):
        compression.export(wrap(llama().network))
    with pytest.raises(BadInput, match="rows of 96 into an odd number of blocks; take 16"):
        compression.export(llama(), group_size=32)
    with pytest.raises(BadInput, match="exists; give a new folder"):
        export_onnx_genai(llama(), tmp_path, group_size=16)


def test_folders_that_hold_no_engine(tmp_path):
    with pytest.raises(BadInput, match="no folder"):
        open_runtime(tmp_path / "none")
    with pytest.raises(BadInput, match="holds no exported model"):
        open_runtime(tmp_path)


def test_missing_engine(tmp_path, monkeypatch):
    (tmp_path / "genai_config.json").write_text(json.dumps({"model": {"context_length": 8, "vocab_size": 9}}))
    monkeypatch.setitem(sys.modules, "onnxruntime_genai", None)
    with pytest.raises(MissingExtra, match=r"intarsia\[export\]"):
        open_runtime(tmp_path)
