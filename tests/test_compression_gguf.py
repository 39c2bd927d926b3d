"""GGUF files: the model's own codes bit for bit, everything else rounded as said, and read back by transformers."""

import math
import warnings

import numpy as np
import pytest
import torch
import transformers as tf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn

import intarsia as ia
from intarsia import compression
from intarsia.compression import ExportConfig
from intarsia.compression.exporting.gguf import blocks, checking, export, export_gguf, tokens
from intarsia.compression.exporting.gguf.tensors import paired_rows
from intarsia.compression.quantization.grids import Grid
from intarsia.compression.quantization.modules import QuantEmbedding, QuantLinear
from intarsia.errors import BadInput, IntarsiaError
from intarsia.models import cache, wrap
from intarsia.models.gguf_header import read_header
from intarsia.models.runtime import Runtime, open_runtime
from tests.failing import fails
from tests.tiny import CHAT, tiny

gguf = pytest.importorskip("gguf")

SPECIAL = ["<pad>", "<s>", "<|end|>", "<unk>", "<|user|>"]
TEXTS = ["the theme of the thesis is that there are 12 of them", "don't the other 345 brothers   think so?"] * 3
VOCAB = 300
SPLIT_OF = {name: pattern for pattern, name in tokens.SPLITS.items()}


def split_step(pattern):
    return [
        pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]


def tokenizer(pre="gpt-2", bos=False, **settings):
    backend = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    steps = {"gpt-2": [level], "smollm": [pre_tokenizers.Digits(individual_digits=True), level]}.get(pre)
    steps = steps or split_step(SPLIT_OF[pre])
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learning = trainers.BpeTrainer(
        vocab_size=VOCAB - 10, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(TEXTS, learning)
    if bos:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    backend.add_tokens([AddedToken("<think>", normalized=False)])
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="<|end|>",
        unk_token="<unk>",
        chat_template=CHAT,
        **settings,
    )


def small(kind="Llama", tied=False, pre="gpt-2", dtype=torch.float32, **settings):
    torch.manual_seed(0)
    config = getattr(tf, f"{kind}Config")(
        **dict(
            vocab_size=VOCAB,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            tie_word_embeddings=tied,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
        | settings
    )
    network = getattr(tf, f"{kind}ForCausalLM")(config).to(dtype).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.15)
    return wrap(network, tokenizer(pre), name=f"small-{kind.lower()}")


def quantized(model, **settings):
    return compression.quantize(model, kernel="reference", **settings)


def logits(model, ids=None):
    ids = torch.arange(20, 60)[None] if ids is None else ids
    with torch.no_grad():
        return model.network(input_ids=ids).logits


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INTARSIA_CACHE", str(tmp_path / "cache"))


def by_formula(data, kind, width):
    """Weights [rows, width] of the bytes of a type, one number at a time."""
    spec = blocks.BLOCKS[kind]
    size = 2 + 2 * spec.minimum + {4: 16, 5: 20, 8: 32}[spec.bits]
    rows = []
    for line in data:
        row = []
        for at in range(0, len(line), size):
            block = bytes(line[at : at + size])
            d, rest = float(np.frombuffer(block[:2], "<f2")[0]), block[2:]
            m = 0.0
            if spec.minimum:
                m, rest = float(np.frombuffer(rest[:2], "<f2")[0]), rest[2:]
            high = 0
            if spec.bits == 5:
                high, rest = int.from_bytes(rest[:4], "little"), rest[4:]
            for i in range(32):
                if spec.bits == 8:
                    row.append(d * int.from_bytes(rest[i : i + 1], "little", signed=True))
                    continue
                code = (rest[i % 16] >> 4 * (i // 16)) & 15 | (high >> i & 1) << 4
                row.append(d * (code if spec.minimum else code - 2 ** (spec.bits - 1)) + m)
        rows.append(row)
    assert len(rows[0]) == width
    return np.array(rows)


@pytest.mark.parametrize(
    ("grid", "width", "kind", "exact"),
    [
        (Grid(4, 32, True), 192, "Q4_0", True),
        (Grid(4, 64, True), 192, "Q4_0", True),
        (Grid(3, 32, False), 192, "Q4_0", True),
        (Grid(4, 32, False), 384, "Q4_1", False),
        (Grid(4, 96, False), 384, "Q4_1", False),
        (Grid(5, 32, False), 384, "Q5_1", False),
        # Rows that 128 does not divide have no type with a minimum.
        (Grid(4, 32, False), 192, "Q5_0", True),
        (Grid(4, 96, False), 192, "Q5_0", True),
        (Grid(5, 32, False), 192, "Q8_0", True),
        (Grid(8, 32, True), 192, "Q8_0", True),
        (Grid(8, None, True), 192, "Q8_0", False),
    ],
)
def test_own_codes_bit_for_bit(grid, width, kind, exact):
    torch.manual_seed(0)
    layer = QuantLinear(width, 16, grid)
    layer.fill(torch.randn(16, width))
    assert blocks.own_type(layer) == kind
    stored = blocks.store(layer, layer.weight, kind)
    assert stored.own
    weights = by_formula(stored.data, kind, width)
    # The same whole numbers, by the formula of the grid in double precision.
    codes, scales, zeros = layer.unpacked()
    zeros = torch.full_like(scales, grid.middle) if zeros is None else zeros
    per = width // scales.shape[1]
    numbers = codes.double() - zeros.double().repeat_interleave(per, 1)
    steps = scales.double().repeat_interleave(per, 1)
    np.testing.assert_array_equal(np.round(weights / steps.numpy()), numbers.numpy())
    error = np.abs(weights - (numbers * steps).numpy())
    assert (error.max() == 0) == exact == (stored.deviation == 0)
    assert error.max() == pytest.approx(stored.deviation, rel=1e-3, abs=1e-9)
    # Half precision moves d, or m = -z d, by at most 2^-11 of itself.
    share = zeros.double().repeat_interleave(per, 1) if blocks.BLOCKS[kind].minimum else numbers.abs()
    assert (error <= (share * steps).numpy() * 2.0**-11 * 1.001).all()


def test_a_grid_goes_into_every_type_that_holds_it():
    torch.manual_seed(0)
    layer = QuantLinear(64, 16, Grid(4, 32, False))
    layer.fill(torch.randn(16, 64))
    # 4 bits with any zero point are numbers of -15 .. 15: five signed bits hold them without a minimum to round.
    for kind, own in (("Q4_0", False), ("Q4_1", True), ("Q5_0", True), ("Q5_1", True), ("Q8_0", True)):
        stored = blocks.store(layer, layer.weight, kind)
        assert stored.own == own
        weights = by_formula(stored.data, kind, 64)
        assert np.abs(weights - layer.weight.double().numpy()).max() == pytest.approx(stored.deviation, abs=1e-7)
        assert (stored.deviation == 0) == (kind in ("Q5_0", "Q8_0"))
    # Positive weights have their zero point at the end of the grid: no type with eight signed bits holds these codes.
    wide = QuantLinear(64, 16, Grid(8, 32, False))
    wide.fill(torch.rand(16, 64))
    assert blocks.own_type(wide) is None
    odd = QuantLinear(48, 16, Grid(4, 24, False))
    odd.fill(torch.randn(16, 48))
    assert blocks.own_type(odd) is None and blocks.own_type(nn.Linear(4, 4)) is None


@pytest.mark.parametrize("kind", [*blocks.BLOCKS, "F16", "BF16", "F32"])
def test_rounding_is_within_half_a_step(kind):
    torch.manual_seed(0)
    weight = torch.randn(16, 64)
    stored = blocks.store(nn.Linear(64, 16), weight, kind)
    assert not stored.own
    wide = weight.double().view(16, 2, 32)
    span = wide.amax(-1) - wide.amin(-1)
    top = wide.abs().amax(-1)
    most = {
        "Q4_0": top / 8, "Q5_0": top / 16, "Q8_0": top / 127 * 0.57, "Q4_1": span / 15 * 0.51, "Q5_1": span / 31 * 0.52,
        "F16": top * 2**-11, "BF16": top * 2**-8, "F32": 0 * top,
    }[kind]  # fmt: skip
    kept = gguf.dequantize(stored.data, gguf.GGMLQuantizationType[kind])
    if kind in blocks.BLOCKS:
        np.testing.assert_allclose(by_formula(stored.data, kind, 64), kept, atol=1e-7)
    error = np.abs(kept - weight.double().numpy()).reshape(16, 2, 32).max(-1)
    assert (error <= most.numpy() * 1.001).all()
    assert error.max() == pytest.approx(stored.deviation, abs=1e-9)


def test_rows_in_pairs():
    # Per head of 4 rows: 0 with 2, 1 with 3.
    assert paired_rows(np.arange(8), 2).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    matrix = torch.randn(8, 3)
    assert torch.equal(paired_rows(matrix, 2)[:, 1], paired_rows(matrix[:, 1], 2))


@pytest.mark.parametrize(
    ("kind", "tied", "dtype"),
    [
        ("Llama", False, torch.float32),
        ("Llama", True, torch.bfloat16),
        ("Mistral", False, torch.float16),
        ("Qwen2", True, torch.float32),
    ],
)
def test_floats_come_back_as_they_were(kind, tied, dtype, tmp_path):
    settings = {"sliding_window": None} if kind == "Mistral" else {}
    model = small(kind, tied=tied, dtype=dtype, **settings)
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    facts = export_gguf(model, tmp_path / "m.gguf")
    assert facts["check"] == {"tensors": len(read_header(tmp_path / "m.gguf").tensors), "largest_difference": 0.0,
                              "same_tokens": True}  # fmt: skip
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.network.state_dict().items())
    # Matrices in their own dtype, vectors in single precision.
    name = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}[dtype]
    assert set(facts["types"]) == {name, "F32"}
    again = ia.load(tmp_path / "m.gguf")
    assert ("output.weight" in read_header(tmp_path / "m.gguf").tensors) == (not tied)
    assert again.config.tie_word_embeddings == tied
    plain = small(kind, tied=tied, **settings)
    plain.network.load_state_dict(before)
    torch.testing.assert_close(logits(again), logits(plain), rtol=1e-5, atol=1e-5)
    prompt = again.encode(["the thesis of 12"])["input_ids"]
    wanted, got = (
        m.network.generate(prompt, max_new_tokens=8, do_sample=False, pad_token_id=0).tolist() for m in (plain, again)
    )
    assert wanted == got


@pytest.mark.parametrize("tied", [True, False])
def test_quantized_network(tied, tmp_path):
    model = quantized(small(tied=tied, hidden_size=128, intermediate_size=256), bits=4)
    path = tmp_path / "m.gguf"
    facts = export_gguf(model, path)
    matrices = 2 * 7
    heads = 1 if tied else 2
    assert facts["types"]["Q4_1"]["own_codes"] == facts["types"]["Q4_1"]["tensors"] == matrices
    assert facts["types"]["Q8_0"]["own_codes"] == facts["types"]["Q8_0"]["tensors"] == heads
    assert facts["types"]["F32"]["exact"] == facts["types"]["F32"]["tensors"] == 5
    assert facts["bytes"] == path.stat().st_size
    # A minimum of 15 scales at most, rounded to 11 bits.
    steps = max(
        float(m.scales.max()) for m in model.network.modules() if isinstance(m, QuantLinear) and m.grid.bits == 4
    )
    assert 0 < facts["types"]["Q4_1"]["deviation"] < 15 * steps * 2**-11
    assert facts["check"]["largest_difference"] == max(t["deviation"] for t in facts["types"].values())
    header = read_header(path).fields
    assert header["general.file_type"] == gguf.LlamaFileType.MOSTLY_Q4_1
    # The logits are those of the stored weights, bit for bit put into a plain network by hand.
    again = ia.load(path)
    torch.testing.assert_close(logits(again), logits(model), rtol=0, atol=0.05)
    exact = export_gguf(model, tmp_path / "exact.gguf", {"*_proj": "Q5_0"})
    assert exact["types"]["Q5_0"] == {"tensors": 14, "own_codes": 14, "exact": 14, "deviation": 0.0}


def test_symmetric_quantization_is_exact(tmp_path):
    model = quantized(small(), bits=4, scheme="symmetric", embed="keep")
    facts = export_gguf(model, tmp_path / "m.gguf")
    assert facts["types"]["Q4_0"] == {"tensors": 14, "own_codes": 14, "exact": 14, "deviation": 0.0}
    again = ia.load(tmp_path / "m.gguf")
    torch.testing.assert_close(logits(again), logits(model), rtol=1e-5, atol=1e-5)
    eight = quantized(small(), bits=8, group_size=32, embed="keep")
    assert export_gguf(eight, tmp_path / "8.gguf")["types"]["Q8_0"]["exact"] == 14


def test_a_type_for_each_pattern(tmp_path):
    model = small()
    facts = export_gguf(model, tmp_path / "m.gguf", {"*.1.mlp.down_proj": "Q8_0", "*_proj": "Q4_0", "lm_head": "F16"})
    assert {name: said["tensors"] for name, said in facts["types"].items()} == {
        "Q4_0": 13, "Q8_0": 1, "F16": 1, "F32": 6,
    }  # fmt: skip
    by_name = {t.name: t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    assert by_name["blk.1.ffn_down.weight"] == "Q8_0" and by_name["blk.0.ffn_down.weight"] == "Q4_0"
    assert by_name["token_embd.weight"] == "F32" and by_name["output.weight"] == "F16"
    # Twice the same bytes.
    export_gguf(model, tmp_path / "n.gguf", {"*.1.mlp.down_proj": "Q8_0", "*_proj": "Q4_0", "lm_head": "F16"})
    assert (tmp_path / "m.gguf").read_bytes() == (tmp_path / "n.gguf").read_bytes()


def test_rows_that_32_does_not_divide(tmp_path):
    model = small(intermediate_size=80)
    with pytest.warns(UserWarning, match="2 matrices become F16: 32 does not divide their rows .*down_proj, 80"):
        facts = export_gguf(model, tmp_path / "m.gguf", {"*": "Q4_0"})
    assert facts["types"]["F16"]["tensors"] == 2
    with pytest.warns(UserWarning, match="Q4_1 with rows that 128 does not divide .*embed_tokens, 64.*take Q5_0"):
        export_gguf(small(), tmp_path / "n.gguf", {"*": "Q4_1"}, check_again=False)


def test_rows_that_the_engine_misreads_in_halves_are_written_in_single_precision(tmp_path):
    pytest.importorskip("ik_llama_cpp", reason="the extra 'llama' is not installed")
    odd = dict(hidden_size=130, num_attention_heads=2, num_key_value_heads=1, head_dim=32)
    model = small(**odd)
    with pytest.warns(UserWarning, match="become F32: 32 does not divide their rows .*embed_tokens, 130"):
        facts = export_gguf(model, tmp_path / "m.gguf", {"*": "Q8_0"}, check_again=False)
    assert set(facts["types"]) == {"F32", "Q8_0"}  # down and o have rows of 96 and 64
    ids = list(range(20, 60))
    given = torch.from_numpy(np.asarray(open_runtime(tmp_path).logits(ids)))
    assert torch.nn.functional.cosine_similarity(given, ia.run(model, torch.tensor([ids])).logits[0]).mean() > 0.99
    # So is what has halves already, unless they are asked for.
    halves = export_gguf(small(dtype=torch.float16, **odd), tmp_path / "h.gguf", check_again=False)
    assert halves["types"]["F16"]["tensors"] == 4 and halves["types"]["F32"]["deviation"] == 0
    with pytest.warns(UserWarning, match="F16 with rows that 4 does not divide .*130.*take F32"):
        export_gguf(model, tmp_path / "n.gguf", {"*": "F16"}, check_again=False)
    assert [blocks.loose_type(width) for width in (130, 132, 136)] == ["F32", "F16", "F16"]
    assert blocks.wants("BF16", 132) == 8 and blocks.wants("BF16", 136) is blocks.wants("F32", 1) is None


def test_what_the_file_says(tmp_path):
    model = small(head_dim=32, rope_parameters={"rope_type": "default", "rope_theta": 5e5}, rms_norm_eps=1e-5)
    model.network.generation_config.eos_token_id = [2, 4]
    export_gguf(model, tmp_path / "m.gguf")
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    said = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    wanted = {
        "general.architecture": "llama", "general.name": "small-llama", "general.file_type": 0,
        "general.quantization_version": 2, "llama.vocab_size": VOCAB, "llama.context_length": 128,
        "llama.embedding_length": 64, "llama.block_count": 2, "llama.feed_forward_length": 96,
        "llama.attention.head_count": 4, "llama.attention.head_count_kv": 2, "llama.attention.key_length": 32,
        "llama.attention.value_length": 32, "llama.rope.dimension_count": 32, "llama.rope.freq_base": 5e5,
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.padding_token_id": 0, "tokenizer.ggml.unknown_token_id": 3,
        "tokenizer.ggml.eot_token_id": 4, "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": False, "tokenizer.chat_template": CHAT,
    }  # fmt: skip
    assert {key: said.get(key) for key in wanted} == wanted
    assert said["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-5)
    words = said["tokenizer.ggml.tokens"]
    vocab = model.tokenizer.get_vocab()
    assert all(words[i] == token for token, i in vocab.items())
    assert words[len(vocab) :] == [f"[PAD{i}]" for i in range(len(vocab), VOCAB)]
    types = said["tokenizer.ggml.token_type"]
    assert types[:5] == [3] * 5 and types[5:260] == [1] * 255 and types[-1] == 5
    assert types[vocab["<think>"]] == 4
    assert "t h" in said["tokenizer.ggml.merges"]
    again = ia.load(tmp_path / "m.gguf")
    assert again.tokenizer.chat_template == CHAT
    assert again.config.rms_norm_eps == 1e-5 and again.config.rope_parameters["rope_theta"] == 5e5


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", *SPLIT_OF])
def test_texts_are_cut_as_before(pre, tmp_path):
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    model = small(pre=pre)
    assert export_gguf(model, tmp_path / "m.gguf")["check"]["same_tokens"]
    assert read_header(tmp_path / "m.gguf").fields["tokenizer.ggml.pre"] == pre
    if pre in SPLIT_OF:
        assert GGUF_PRE_TOKENIZER_SPLITS[pre] == SPLIT_OF[pre]
    again = ia.load(tmp_path / "m.gguf").tokenizer
    for text in (*TEXTS, *checking.SAMPLES, "<|user|>a <think>the\r\n\r\n  123456<|end|>"):
        assert again(text).input_ids == model.tokenizer(text).input_ids


def test_beginning_token(tmp_path):
    model = small()
    model.tokenizer = tokenizer(bos=True)
    assert export_gguf(model, tmp_path / "m.gguf")["check"]["same_tokens"]
    assert ia.load(tmp_path / "m.gguf").tokenizer("the").input_ids[0] == 1


def test_scaled_positions(tmp_path):
    rope = {
        "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }  # fmt: skip
    model = small(rope_parameters=rope, head_dim=32)
    facts = export_gguf(model, tmp_path / "m.gguf")
    assert "llama.cpp reads the scaling" in facts["rope"]
    tensors = {t.name: t for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    wanted = []
    for i in range(16):
        wave = 2 * math.pi * 10000 ** (2 * i / 32)
        smooth = (64 / wave - 1) / (4 - 1)
        wanted.append(1.0 if wave < 16 else 8.0 if wave > 64 else 1 / ((1 - smooth) / 8 + smooth))
    assert len({*wanted}) > 2
    np.testing.assert_allclose(tensors["rope_freqs.weight"].data, wanted, rtol=1e-5)
    model = small(rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0})
    export_gguf(model, tmp_path / "linear.gguf")
    fields = read_header(tmp_path / "linear.gguf").fields
    assert (fields["llama.rope.scaling.type"], fields["llama.rope.scaling.factor"]) == ("linear", 4.0)


def test_a_window_cuts_the_context(tmp_path):
    model = small("Mistral", sliding_window=32)
    with pytest.warns(UserWarning, match="the file's context is 32 tokens instead of 128"):
        export_gguf(model, tmp_path / "m.gguf")
    assert read_header(tmp_path / "m.gguf").fields["llama.context_length"] == 32


def test_technique(tmp_path):
    model = small(tied=True)
    exported = export(model, ExportConfig())
    folder = exported.exports["gguf"]
    assert [f.name for f in folder.iterdir()] == ["model.gguf"]
    facts = exported.extras["compression.export"]
    assert facts["engine"] == "gguf" and facts["types"]["Q5_0"]["own_codes"] == 14 and "Q8_0" in facts["types"]
    assert exported.identity.changes[-1]["technique"] == "compression.export"
    # What is quantized already stays as it is.
    mine = quantized(model, bits=8)
    assert "Q5_0" not in export(mine, ExportConfig()).extras["compression.export"]["types"]
    four = export(model, ExportConfig(embed="int4"))
    assert four.extras["compression.export"]["types"]["Q5_0"]["tensors"] == 15
    saved = exported.save(tmp_path / "saved")
    again = ia.load(saved / "export" / "gguf")
    torch.testing.assert_close(logits(again), logits(exported), rtol=0, atol=0.02)
    fails(lambda: export(model, ExportConfig(group_size=16)), "group_size 16", "multiple of 32")


def test_the_check_leaves_nothing_in_the_cache_and_sees_a_wrong_order(tmp_path, monkeypatch):
    model = small()
    export_gguf(model, tmp_path / "m.gguf")
    assert not [e for e in cache.entries() if e.name.startswith("gguf/")]
    ia.load(tmp_path / "m.gguf")
    export_gguf(model, tmp_path / "n.gguf")
    assert len(cache.entries()) == 1  # what was there before the check stays
    from intarsia.compression.exporting.gguf import writing

    monkeypatch.setattr(writing, "paired_rows", lambda data, heads: data)
    fails(lambda: export_gguf(model, tmp_path / "x.gguf"), "another model.layers.0.self_attn.", error=IntarsiaError)
    assert sorted(p.name for p in tmp_path.glob("*.gguf")) == ["m.gguf", "n.gguf"]
    assert not list(tmp_path.glob(".intarsia-gguf-*"))


def test_bad_input(tmp_path):
    model, path = small(), tmp_path / "m.gguf"
    fails(lambda: export_gguf(tiny("gpt2"), path), "no export to GGUF for GPT2LMHeadModel", "LlamaForCausalLM")
    fails(lambda: export_gguf(wrap(model.network), path), "wants a tokenizer")
    fails(lambda: export_gguf(tiny("llama"), path), "has no merges")
    fails(lambda: export_gguf(model, tmp_path / "m.bin"), "ends in .gguf")
    fails(lambda: export_gguf(model, path, {"*": "Q4_K"}), "no type 'Q4_K'", "Q4_0")
    fails(lambda: export_gguf(model, path, {"*.down_prj": "Q4_0"}), "no matrix is called '*.down_prj'")
    fails(lambda: export_gguf(small(attention_bias=True), path), "attention_bias", "drop these biases")
    fails(lambda: export_gguf(small(hidden_act="gelu"), path), "hidden_act 'gelu'")
    yarn = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0}
    fails(lambda: export_gguf(small(rope_parameters=yarn), path), "type 'yarn'", "known: default, linear, llama3")
    path.touch()
    fails(lambda: export_gguf(model, path), "exists")


def test_networks_that_the_format_cannot_hold(tmp_path):
    path = tmp_path / "m.gguf"
    narrow = small()
    layer = narrow.network.model.layers[1].mlp
    layer.up_proj = nn.Linear(64, 64, bias=False)
    fails(lambda: export_gguf(narrow, path), "layers.1.mlp.up_proj.weight is [64, 64]", "[96, 64]")
    odd = small()
    odd.network.model.layers[0].mlp.up_proj = nn.Sequential(nn.Linear(64, 4), nn.Linear(4, 96))
    fails(lambda: export_gguf(odd, path), "layers.0.mlp.up_proj.0", "merge or densify")
    other = small()
    other.network.model.layers[0].mlp.up_proj = nn.Bilinear(64, 64, 96)
    fails(lambda: export_gguf(other, path), "up_proj is a Bilinear", "merge or densify")
    biased = small()
    biased.network.model.layers[0].mlp.up_proj = nn.Linear(64, 96)
    fails(lambda: export_gguf(biased, path), "has a bias")
    broken = small()
    with torch.no_grad():
        broken.network.lm_head.weight[0, 0] = torch.nan
    fails(lambda: export_gguf(broken, path), "not finite")
    large = small()
    with torch.no_grad():
        large.network.lm_head.weight[0, 0] = 1e6
    fails(lambda: export_gguf(large, path, {"lm_head": "F16"}), "too large for F16")
    scaled = quantized(small(), bits=8)
    table = scaled.network.model.embed_tokens
    assert isinstance(table, QuantEmbedding)
    table.scale = 2.0
    fails(lambda: export_gguf(scaled, path), "multiplies its rows by 2.0")
    assert not path.exists()


def test_tokenizers_that_the_format_cannot_hold(tmp_path):
    path, model = tmp_path / "m.gguf", small()

    def with_change(change):
        model.tokenizer = tokenizer()
        change(model.tokenizer.backend_tokenizer)
        return lambda: export_gguf(model, path)

    def lower(backend):
        from tokenizers import normalizers

        backend.normalizer = normalizers.Lowercase()

    def prefix(backend):
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)

    def marked(backend):
        backend.post_processor = processors.TemplateProcessing(single="<pad> $A", special_tokens=[("<pad>", 0)])

    def large(backend):
        backend.add_tokens([f"<{i}>" for i in range(20)])

    def words(backend):
        backend.model = models.WordLevel({"a": 0}, unk_token="a")

    fails(with_change(lower), "Lowercase")
    fails(with_change(prefix), "none of llama.cpp's known here", "smollm")
    fails(with_change(marked), "adds ['<pad>'] to every text")
    fails(with_change(large), "has no row in the embedding (300 rows)")
    fails(with_change(words), "no byte-level BPE")
    assert not path.exists()


def test_what_gguf_cannot_say_of_a_tokenizer_is_told(tmp_path):
    from tokenizers import normalizers

    model = small()
    model.tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    model.tokenizer.backend_tokenizer.add_tokens([AddedToken("<wide>", rstrip=True)])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        export_gguf(model, tmp_path / "m.gguf", check_again=False)
    said = [str(w.message) for w in told]
    assert any("NFC" in text for text in said) and any("swallow spaces" in text for text in said)


@pytest.mark.parametrize("bits", [4, 5])
def test_the_engine_reads_long_prompts_as_torch_does(bits, tmp_path):
    """Rows of 192 weights, and 40 tokens at once: where types with a minimum go wrong in the engine."""
    pytest.importorskip("ik_llama_cpp", reason="the extra 'llama' is not installed")
    model = quantized(small(hidden_size=192, intermediate_size=192), bits=bits)
    facts = export_gguf(model, tmp_path / "m.gguf", check_again=False)
    assert not {"Q4_1", "Q5_1"} & set(facts["types"])
    wanted = logits(model)[0].numpy()
    runtime = open_runtime(tmp_path / "m.gguf", threads=1)
    found = runtime.logits(list(range(20, 60)))
    # Of such files it is known that any number of tokens is read right: none is tried.
    assert runtime.sure and runtime.stretch is None
    # The engine rounds activations to 8 bits: 0.04 of the logits' size here. Q4_1 and Q5_1 give 1.3.
    assert np.sqrt(((found - wanted) ** 2).mean()) < 0.1 * np.sqrt((wanted**2).mean())


def test_the_file_runs_in_its_engine(tmp_path):
    pytest.importorskip("ik_llama_cpp", reason="the extra 'llama' is not installed")
    model = small(tied=True)
    export_gguf(model, tmp_path / "small.gguf")
    runtime = open_runtime(tmp_path / "small.gguf", threads=1)
    assert isinstance(runtime, Runtime) and runtime.name == "gguf" and runtime.threads == 1
    assert runtime.bytes == (tmp_path / "small.gguf").stat().st_size
    ids = list(range(20, 45))
    wanted = ia.run(model, torch.tensor([ids])).logits[0]
    found = torch.from_numpy(runtime.logits(ids))
    assert found.shape == wanted.shape
    # The engine keeps keys and values in half precision.
    torch.testing.assert_close(found, wanted, rtol=0, atol=float(wanted.abs().max()) * 5e-3)
    made = runtime.generate(ids, 5)
    assert made[0] == int(found[-1].argmax()) and made == runtime.generate(ids, 5) and 1 <= len(made) <= 5
    again = open_runtime(tmp_path)  # a folder with one such file will do
    assert again.generate(ids, 5) == made
    for asked, said in (([], "no tokens"), ([VOCAB], "is not below"), ([1] * 3000, "more than the context")):
        with pytest.raises(BadInput, match=said):
            runtime.logits(asked)
