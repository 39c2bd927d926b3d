"""Encoders in 8 bits for ONNX Runtime: the float file is the network, the whole numbers are those of the formula."""

import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
import transformers as tf

import intarsia as ia
from intarsia.compression import ExportConfig, export, quantize
from intarsia.data import Text
from intarsia.errors import BadInput, Note
from intarsia.models import wrap
from intarsia.models.embedding import embed
from intarsia.models.runtime import Runtime, open_runtime
from tests.tiny import tiny, tokenizer

onnx = pytest.importorskip("onnx", reason="the extra 'export' is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed")

SIZES = dict(
    vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    max_position_embeddings=64, pad_token_id=0,
)  # fmt: skip
TEXTS = ["one", "a text that is longer than the others by far", "something between"]
CALIBRATION = [Text(f"Line {i}: the quick brown fox jumps over {i} lazy dogs, and then?") for i in range(30)]


def network(kind):
    match kind:
        case "bert":
            return tf.BertModel(tf.BertConfig(**SIZES))
        case "distilbert":
            return tf.DistilBertModel(
                tf.DistilBertConfig(
                    vocab_size=300,
                    dim=32,
                    hidden_dim=48,
                    n_layers=2,
                    n_heads=4,
                    max_position_embeddings=64,
                    pad_token_id=0,
                )
            )
        case "roberta":  # with a head, which is left out
            return tf.RobertaForSequenceClassification(tf.RobertaConfig(**SIZES, type_vocab_size=1))
        case "albert":  # one block's weights, used again and again
            return tf.AlbertModel(tf.AlbertConfig(**SIZES, embedding_size=16))
    raise ValueError(kind)


KINDS = ["bert", "distilbert", "roberta", "albert"]


def encoder(kind):
    torch.manual_seed(0)
    made = network(kind).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return wrap(made, tokenizer())


@pytest.fixture(scope="module", params=KINDS)
def trio(request):
    """A network, its float export, and its export in 8 bits."""
    model = encoder(request.param)
    plain = export(model, engine="onnx", mode="float")
    small = export(model, engine="onnx", calibration=CALIBRATION, tokens=512)
    return model, plain, small


@pytest.fixture(scope="module")
def bert():
    return encoder("bert")


def opened(model):
    return open_runtime(model.exports["onnx"], threads=1)


def states(model, batch):
    with torch.no_grad():
        return model.network.base_model(**batch).last_hidden_state.numpy()


def batch_of(model, texts=TEXTS):
    batch = model.encode(texts)
    return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}


def test_float_export_is_the_network(trio):
    model, plain, _ = trio
    batch = batch_of(model)
    real = batch["attention_mask"].bool().numpy()
    found = opened(plain).states(*(value.numpy() for value in batch.values()))
    np.testing.assert_allclose(found[real], states(model, batch)[real], atol=1e-4)
    np.testing.assert_allclose(opened(plain).embed(TEXTS), embed(model, TEXTS), atol=1e-4)


def test_eight_bits_are_near_and_small_and_eight_bits(trio):
    model, _, small = trio
    facts = small.extras["compression.export"]
    ours, wanted = opened(small).embed(TEXTS), embed(model, TEXTS)
    assert (ours * wanted).sum(1).min() > 0.999
    assert np.abs(ours - wanted).max() > 1e-4  # it is really rounded
    assert facts["smoothed"] == facts["products"] >= 6 and facts["tables"] >= 2 and facts["skipped"] == []
    assert facts["bytes"] == opened(small).bytes and 0 < facts["error"] < 0.05
    proto = onnx.load(small.exports["onnx"] / "model.onnx")
    kinds = [node.op_type for node in proto.graph.node]
    assert kinds.count("MatMulInteger") == facts["products"] and {n.domain for n in proto.graph.node} == {""}
    onnx.checker.check_model(proto)
    floats = [onnx.numpy_helper.to_array(t) for t in proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    # No matrix is left in float: only tables of a few rows, and rows.
    assert max(array.size for array in floats) <= 300
    stored = {t.name for t in proto.graph.initializer}
    assert stored <= {name for node in proto.graph.node for name in node.input}


def formula(x, weight, scale, ranges):
    """The product of x [token, in] and `weight` [in, out] in 8 bits, written naively."""
    x, weight = x / scale, weight * scale[:, None]
    steps = np.maximum(np.abs(weight).max(0) / 127, 1e-9)
    codes = np.round(weight / steps)
    out = np.zeros((len(x), weight.shape[1]))
    if ranges == "token":
        for i, row in enumerate(x):
            step = (row.max() - row.min()) / 255
            out[i] = ((np.round((row - row.min()) / step) * step + row.min()) @ codes) * steps
        return out
    most = np.abs(x).max(1, keepdims=True)
    even = x / most
    low, high = min(even.min(), 0), max(even.max(), 0)
    step = (high - low) / 255
    zero = np.clip(np.round(-low / step), 0, 255)
    rounded = (np.clip(np.round(even / step) + zero, 0, 255) - zero) * step
    return (rounded @ codes) * steps * most


@pytest.mark.parametrize("ranges", ["token", "batch"])
@pytest.mark.parametrize("weights", ["int8", "uint8"])
@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_graph_equals_the_formula(ranges, weights, alpha):
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    from intarsia.compression.exporting.onnx_graph import key_of, rewrite

    rng = np.random.default_rng(0)
    first, second = (
        rng.normal(size=(24, n)).astype(np.float32) * rng.uniform(0.2, 3, n).astype(np.float32) for n in (5, 7)
    )
    bias = rng.normal(size=7).astype(np.float32)
    # Not even: between -1 and 1 the code of zero would be 127.5, and rounding it a matter of the last bit.
    x = (np.abs(rng.normal(size=(9, 24)) * np.exp(rng.normal(size=24))) - 0.2).astype(np.float32)
    constants = {"a": first, "b": np.ascontiguousarray(second.T), "bias": bias}
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["y"], name="one"),
        helper.make_node("Gemm", ["x", "b", "bias"], ["z"], name="two", transB=1),
    ]
    graph = helper.make_graph(
        nodes, "two products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["token", 24])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["token", None]) for name in "yz"],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    proto.ir_version = 8
    most = np.abs(x).max(0)
    done = rewrite(proto, {key_of(w): most for w in (first, second)}, alpha, ranges=ranges, weights=weights)
    assert (done.products, done.smoothed) == (2, 2 if alpha else 0)
    found = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": x})
    # Both products read one input: SmoothQuant's scale is one for both (eq. 4, over all columns).
    columns = np.maximum(np.abs(first).max(1), np.abs(second).max(1))
    scale = np.sqrt(most / columns) if alpha else np.ones(24)
    for got, weight, shift in zip(found, (first, second), (0, bias), strict=True):
        wanted = formula(x.astype(np.float64), weight.astype(np.float64), scale, ranges) + shift
        plain = x @ weight + shift
        # A code or two may fall on the other side of a half in single precision.
        off = np.abs(got - wanted)
        assert np.median(off) < 1e-5 * np.abs(plain).max() and off.max() < 5e-3 * np.abs(plain).max()
        assert np.abs(wanted - plain).max() > 1e-3 * np.abs(plain).max()


def test_scaling_moves_outliers_to_the_weights():
    """With one input a hundred times the others, the scaled product is nearer to the float one."""
    from intarsia.compression.exporting.onnx_graph import smoothing

    rng = np.random.default_rng(1)
    weight, x = rng.normal(size=(64, 16)), rng.normal(size=(32, 64))
    x[:, 3] *= 100
    scale = smoothing(np.abs(x).max(0), [weight], 0.5)
    off = [np.linalg.norm(formula(x, weight, s, "token") - x @ weight) for s in (scale, np.ones(64))]
    assert off[0] < 0.5 * off[1]
    assert smoothing(np.array([0.0, 1.0]), [np.ones((2, 2))], 0.5).tolist() == [1, 1]


def test_what_stands_beside_a_text_does_not_matter(trio):
    """Ranges of tokens are their own: padding and neighbours change nothing but the order of sums."""
    model, _, small = trio
    engine = opened(small)
    together = batch_of(model)
    found = engine.states(together["input_ids"], together["attention_mask"])
    for i, text in enumerate(TEXTS):
        alone = batch_of(model, [text])
        tokens = alone["input_ids"].shape[1]
        # What is left are sums in another order: they may tip a code, and no more.
        off = np.abs(found[i, :tokens] - engine.states(alone["input_ids"])[0])
        assert np.median(off) < 1e-4 and off.max() < 0.05
    padded = {k: torch.nn.functional.pad(v, (0, 9)) for k, v in together.items()}
    again = engine.states(padded["input_ids"], padded["attention_mask"])[:, : found.shape[1]]
    real = together["attention_mask"].bool().numpy()
    assert np.median(np.abs(again - found)[real]) < 1e-4
    # Other ids under the mask are not seen.
    padded["input_ids"][:, -9:] = 77
    np.testing.assert_allclose(
        engine.states(padded["input_ids"], padded["attention_mask"])[:, : found.shape[1]][real], again[real], atol=1e-5
    )


@pytest.mark.parametrize("settings", [{"ranges": "batch"}, {"weights": "uint8"}, {"weights": "int7"}, {"smooth": 0}])
def test_other_forms_are_near_too(bert, settings):
    with warnings.catch_warnings():
        warnings.simplefilter("error", Note)  # without SmoothQuant no text is read, and none is missed
        given = {} if settings == {"smooth": 0} else {"calibration": CALIBRATION}
        small = export(bert, engine="onnx", tokens=512, **settings, **given)
    wanted = embed(bert, TEXTS)
    assert (opened(small).embed(TEXTS) * wanted).sum(1).min() > 0.998
    proto = onnx.load(small.exports["onnx"] / "model.onnx")
    codes = [onnx.numpy_helper.to_array(t) for t in proto.graph.initializer if t.name.endswith("/codes")]
    most = max(int(np.abs(c.astype(int) - (128 if c.dtype == np.uint8 else 0)).max()) for c in codes)
    assert most == (63 if settings == {"weights": "int7"} else 127)
    assert (codes[0].dtype == np.uint8) == (settings == {"weights": "uint8"})
    assert any(n.op_type == "DynamicQuantizeLinear" for n in proto.graph.node) == (settings == {"ranges": "batch"})


def test_layer_used_again_is_stored_once():
    small = export(encoder("albert"), engine="onnx", smooth=0)
    proto = onnx.load(small.exports["onnx"] / "model.onnx")
    codes = {t.name for t in proto.graph.initializer if t.name.endswith("/codes")}
    facts = small.extras["compression.export"]
    products = sum(node.op_type == "MatMulInteger" for node in proto.graph.node)
    assert len(codes) == 7 and products == facts["products"] == 13  # 6 in the block that runs twice, 1 before


def test_two_exports_are_the_same_bytes(bert):
    files = [
        export(bert, engine="onnx", calibration=CALIBRATION, tokens=512).exports["onnx"] / "model.onnx"
        for _ in range(2)
    ]
    assert files[0].read_bytes() == files[1].read_bytes()


FRESH = """
import json, sys
import numpy as np
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
ids = np.array(json.loads(sys.argv[2]), np.int64)
given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
names = [i.name for i in session.get_inputs()]
(out,) = session.run(None, {name: given[name] for name in names})
assert not any(name.split(".")[0] in ("intarsia", "torch", "transformers") for name in sys.modules)
print(json.dumps([names, [o.name for o in session.get_outputs()], out.tolist()]))
"""


def test_saved_and_run_by_onnx_runtime_alone(bert, tmp_path):
    small = export(bert, engine="onnx", calibration=CALIBRATION, tokens=512)
    again = ia.load(str(small.save(tmp_path / "saved")))
    assert again.exports["onnx"] == tmp_path / "saved" / "export" / "onnx"
    np.testing.assert_array_equal(opened(again).embed(TEXTS), opened(small).embed(TEXTS))
    np.testing.assert_allclose(embed(again, TEXTS), embed(bert, TEXTS), atol=1e-6)  # the network is as it was
    ids = [[5, 40, 60, 200], [7, 8, 9, 10]]
    done = subprocess.run(
        [sys.executable, "-c", FRESH, str(again.exports["onnx"] / "model.onnx"), json.dumps(ids)],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names, outputs, found = json.loads(done.stdout)
    assert names == ["input_ids", "attention_mask", "token_type_ids"] and outputs == ["last_hidden_state"]
    np.testing.assert_allclose(found, opened(again).states(ids), atol=1e-5)


def test_runtime_says_what_it_wants(trio, tmp_path):
    _, plain, _ = trio
    engine = opened(plain)
    assert engine.name == "onnx" and engine.threads == 1 and engine.width == 32 and not isinstance(engine, Runtime)
    assert engine.states([[5, 6]]).shape == (1, 2, 32) and engine.embed([]).shape == (0, 32)
    room = engine.context_length
    for ids, mask, message in (
        ([5, 6], None, r"\[text, token\]"),
        ([[5, 6]], [[1]], r"\[text, token\]"),
        ([[5, 300]], None, "vocabulary's 300"),
        ([[5] * (room + 1)], None, f"context of {room}"),
    ):
        with pytest.raises(BadInput, match=message):
            engine.states(ids, mask)
    assert engine.states([[5] * room]).shape == (1, room, 32)
    (tmp_path / "encoder.json").write_text("{}")
    with pytest.raises(BadInput, match="no whole exported encoder"):
        open_runtime(tmp_path)


def test_what_cannot_be_exported(bert, tmp_path):
    def refused(make, message):
        with pytest.raises(BadInput, match=message) as error:
            make()
        assert "\n" not in str(error.value)

    for family in ("gpt2", "llama"):
        refused(lambda family=family: export(tiny(family), engine="onnx"), "is a decoder")
    refused(lambda: export(tiny("t5"), engine="onnx"), "encoder-decoder")
    refused(lambda: export(tiny("clip"), engine="onnx"), "gives no states of a text")
    refused(lambda: export(quantize(bert, bits=8), engine="onnx"), "is quantized")
    refused(lambda: export(bert, engine="onnx", bits=4), "engine onnx has 8 bits, not 4")
    refused(lambda: export(bert, engine="gguf", bits=8), "engine gguf has 4 bits, not 8")
    refused(lambda: export(bert, bits=8), "engine onnx-genai has 4 bits, not 8")
    refused(lambda: export(bert, mode="float"), "mode float is of engine onnx")
    refused(lambda: export(wrap(bert.network), engine="onnx"), "no tokenizer")
    refused(lambda: export(bert, engine="onnx", smooth=2), "smooth")
    refused(lambda: export(bert, engine="onnx", calibration=[]), "no tokens")
    (tmp_path / "there").mkdir()
    from intarsia.compression.exporting.onnx_encoder import export_onnx_encoder

    refused(lambda: export_onnx_encoder(bert, tmp_path / "there"), "exists")


def test_settings_of_the_other_engines_are_as_they_were():
    assert ExportConfig().bits == ExportConfig(engine="gguf").bits == 4
    assert ExportConfig(engine="onnx").bits == 8 and ExportConfig(engine="onnx", bits=4).bits == 4


def test_without_a_tokenizer_ids_are_taken(bert):
    plain = export(wrap(bert.network), engine="onnx", smooth=0)
    assert opened(plain).states([[5, 6, 7]]).shape == (1, 3, 32)
    with pytest.raises(BadInput, match="no tokenizer"):
        opened(plain).embed(["text"])


def test_cost_and_quality_leave_an_encoder_alone(bert):
    from intarsia.measure import cost

    small = export(bert, engine="onnx", smooth=0)
    found = cost(small, prompt_tokens=8, new_tokens=1, repeats=1, memory=False)
    assert found.bytes_on_disk["onnx"] > 0
    assert any("onnx was not timed" in note for note in found.notes)
