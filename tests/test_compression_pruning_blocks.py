"""Removing blocks: the ranking is measured, the shorter network is plain, and its cache works."""

import warnings

import pytest
import torch
import transformers as tf

from intarsia.compression import drop_blocks
from intarsia.compression.calibration import calibration_windows
from intarsia.compression.pruning import BlocksFinding
from intarsia.compression.pruning.dropping import fewer, shorter
from intarsia.compression.pruning.ranking import divergence, kl, worth
from intarsia.compression.pruning.rebuilding import prove, said
from intarsia.compression.statistics import batches
from intarsia.data import Text
from intarsia.models import load, wrap
from intarsia.report import Finding
from tests.failing import fails
from tests.tiny import CAUSAL, FAMILIES, inputs, tiny

TEXTS = [Text("the quick brown fox jumps over the lazy dog, and " * 8)]


def dropped(model, **given):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return drop_blocks(model, calibration=TEXTS, **given)


def logits(model, ids):
    with torch.no_grad():
        return model.network(ids).logits


class Through(torch.nn.Module):
    """In a block's place: gives what it is given."""

    def __init__(self, block, returned):
        super().__init__()
        self.beside = (None,) * (returned - 1)
        if hasattr(block, "attention_type"):
            self.attention_type = block.attention_type

    def forward(self, hidden_states, *args, **kwargs):
        return (hidden_states, *self.beside) if self.beside else hidden_states


def around(model, blocks):
    """The model with some of its blocks doing nothing."""
    copy = model.copy()
    returned = model.sites.wiring[model.sites.main.name][0].tuple_output
    stack = copy.network.get_submodule(copy.sites.main.path)
    for block in blocks:
        stack[block] = Through(stack[block], returned)
    return copy


def naive_divergence(model, blocks, text):
    """Mean KL of the next token when the stream goes round some blocks, in float64."""
    total, tokens = 0.0, 0
    with torch.no_grad():
        for batch in text:
            nets = (model.network, around(model, blocks).network)
            p, q = (n(**batch.kwargs).logits.double().log_softmax(-1)[batch.mask] for n in nets)
            total += float((p.exp() * (p - q)).sum())
            tokens += len(p)
    return total / tokens


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "t5"])
def test_every_family(family, tmp_path):
    model = tiny(family)
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    short = dropped(model, blocks=(2, 0))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.network.state_dict().items())
    count = len(model.sites.blocks)
    assert len(short.sites.blocks) == count - 2 == short.config.get_text_config().num_hidden_layers
    assert short.extras["compression.drop_blocks"] == {"removed": [2, 0], "blocks": count - 2}
    given = inputs(family)
    with torch.no_grad():
        wanted = around(model, (0, 2)).network(**given)[0]
        out = short.network(**given)[0]
        torch.testing.assert_close(out, wanted, rtol=1e-5, atol=1e-5)
        short.network.save_pretrained(tmp_path)
        again = type(short.network).from_pretrained(tmp_path)
        assert torch.equal(again(**given)[0], out)
    # It has tensors of its own.
    next(short.network.parameters()).data.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.network.state_dict().items())


@pytest.mark.parametrize("family", CAUSAL)
def test_generation_with_cache_equals_without(family):
    short = dropped(tiny(family), blocks=(1,))
    numbers = [m.layer_idx for m in short.network.modules() if hasattr(m, "layer_idx")]
    assert sorted(set(numbers)) == [0, 1, 2]
    prompt = torch.tensor([[20, 30, 40, 50]])
    ids = prompt
    for _ in range(12):  # longer than Gemma's window of 8
        ids = torch.cat((ids, logits(short, ids)[:, -1:].argmax(-1)), 1)
    made = short.network.generate(
        prompt, max_new_tokens=12, min_new_tokens=12, do_sample=False, use_cache=True, eos_token_id=None, pad_token_id=0
    )
    assert torch.equal(made, ids)


def test_kinds_of_blocks_go_along():
    model = tiny("gemma3")
    kinds = model.config.layer_types = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
    model = wrap(tf.Gemma3ForCausalLM(model.config).eval(), model.tokenizer)
    short = dropped(model, blocks=(0, 3))
    assert short.config.layer_types == kinds[1:3] == ["full_attention", "sliding_attention"]
    config = tf.Qwen3MoeConfig(num_hidden_layers=4, mlp_only_layers=[1, 3])
    assert fewer(config, [0, 2, 3], 4)["mlp_only_layers"] == [2]


def test_what_a_block_is_worth():
    model = tiny("llama", seed=3)
    (batch,) = text = batches(model, [[*range(20, 60)], [*range(90, 110)]])  # the second is padded
    found = worth(model, model, text, divergence=True)
    mask = batch.mask
    with torch.no_grad():
        states = model.network(**batch.kwargs, output_hidden_states=True).hidden_states
    for block in range(4):
        assert found.divergence[block] == pytest.approx(naive_divergence(model, (block,), text), rel=1e-3)
        if block < 3:  # the last hidden state of transformers is normed
            below, above = (s.double()[mask] for s in states[block : block + 2])
            turned = 1 - (below * above).sum(-1) / below.norm(dim=-1) / above.norm(dim=-1)
            assert found.influence[block] == pytest.approx(float(turned.mean()), rel=1e-4)
    both = divergence(shorter(model, [0, 3]), model, text)
    assert both == pytest.approx(naive_divergence(model, (1, 2), text), rel=1e-3)
    assert divergence(model, model, text) == pytest.approx(0, abs=1e-6)
    rows = torch.randn(300, 7)
    p, q = rows.double().log_softmax(-1), rows.flip(1).double().log_softmax(-1)
    assert kl(rows, rows.flip(1)) == pytest.approx(float((p.exp() * (p - q)).sum()), rel=1e-4)


def test_greedy_takes_the_least_needed_each_time():
    model = tiny("llama", seed=5)
    with torch.no_grad():
        for block, size in ((1, 1e-3), (2, 0.3)):
            for name in ("self_attn.o_proj", "mlp.down_proj"):
                model.network.model.layers[block].get_submodule(name).weight *= size
    short = dropped(model, count=2)
    found = short.finding
    ranked = sorted(found.ranking, key=lambda one: one.divergence)
    assert found.removed[0] == ranked[0].block == 1
    assert found.divergences[0] == pytest.approx(ranked[0].divergence)
    # The second: of all that could go with it, the one that costs least together.
    text = batches(model, calibration_windows(model, TEXTS, 512))
    costs = {b: naive_divergence(model, (1, b), text) for b in (0, 2, 3)}
    assert found.removed[1] == min(costs, key=costs.get)
    assert found.divergence == found.divergences[1] == pytest.approx(min(costs.values()), rel=1e-3)
    # One ranking, and the sum is measured.
    once = dropped(model, count=2, greedy=False).finding
    assert set(once.removed) == {one.block for one in ranked[:2]} and not once.divergences
    assert once.divergence == pytest.approx(naive_divergence(model, once.removed, text), rel=1e-3)


def test_influence_is_enough_for_an_encoder():
    short = dropped(tiny("bert-encoder"), rank="influence", count=1)
    found = short.finding
    assert found.removed == [min(found.ranking, key=lambda one: one.influence).block]
    assert found.divergence is None and [c.name for c in found.table().columns] == ["block", "influence", "removed"]
    assert not found.figures() and not found.headline()


def test_finding_reads_and_travels():
    short = dropped(tiny("gpt2"), count=2)
    found = short.finding
    assert isinstance(Finding.from_json(found.to_json()), BlocksFinding)
    table = found.table()
    values = [row[1] for row in table.rows]
    assert values == sorted(values) and len(values) == 4
    assert [row[3] for row in table.rows].count("yes") == 2
    assert f"{found.divergence:.3f}" in found.summary
    assert found.divergence == short.extras["compression.drop_blocks"]["divergence"]
    assert [row[1] for row in found.tables()[1].rows] == found.removed
    assert "divergence" in str(found)
    assert found.provenance["settings"]["count"] == 2 and len(found.provenance["data"]) == 64


def test_bad_input():
    model = tiny("llama")
    fails(lambda: dropped(model, blocks=(4,)), "no block 4", "0 to 3")
    fails(lambda: dropped(model, blocks=(1, 1)), "removed once")
    fails(lambda: dropped(model, count=4), "4 of 4 blocks would leave none", "3 at most")
    fails(lambda: dropped(tiny("bert-encoder")), "no logits", "rank influence")
    fails(lambda: dropped(tiny("t5")), "do not follow its config")
    fails(lambda: dropped(tiny("clip"), rank="influence"), "does not run on a text alone")


def test_what_was_learnt_from_the_blocks_is_told():
    model = tiny("llama")
    model.parts["adaptation.dialogue"] = None
    with pytest.warns(UserWarning, match="adaptation.dialogue: learnt from the states of all blocks"):
        drop_blocks(model, blocks=(1,))


def test_a_block_that_depends_on_its_number_is_refused():
    config = tf.GPT2Config(
        vocab_size=300, n_embd=32, n_layer=4, n_head=4, n_positions=64, scale_attn_by_inverse_layer_idx=True,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = wrap(tf.GPT2LMHeadModel(config).eval())
    fails(lambda: dropped(model, blocks=(1,)), "becomes block 1 depends on its number", "scaling")
    dropped(model, blocks=(3,))
    fails(
        lambda: prove(said(tiny("llama").network), tiny("llama", seed=1).network, "w"), "w: LlamaForCausalLM computes"
    )
    # Dense blocks by their numbers, and one expert block in two.
    config = tf.Qwen3MoeConfig(
        vocab_size=300, hidden_size=32, intermediate_size=48, moe_intermediate_size=24, num_hidden_layers=4, head_dim=8,
        num_attention_heads=4, num_key_value_heads=2, num_experts=4, num_experts_per_tok=2, decoder_sparse_step=2,
    )  # fmt: skip
    moe = wrap(tf.Qwen3MoeForCausalLM(config).eval())
    fails(lambda: dropped(moe, blocks=(1,)), "num_hidden_layers 3 is built otherwise", "mlp")


def test_kinds_that_stand_in_no_list_of_the_config():
    config = tf.GPTNeoConfig(
        vocab_size=300, hidden_size=32, num_layers=4, num_heads=4, attention_types=[[["global", "local"], 2]],
        max_position_embeddings=64, window_size=4, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = wrap(tf.GPTNeoForCausalLM(config).eval())
    short = dropped(model, blocks=(1,))
    assert [b.attn.attention_type for b in short.network.transformer.h] == ["global", "global", "local"]
    ids = torch.arange(20, 40)[None]
    torch.testing.assert_close(logits(short, ids), logits(around(model, (1,)), ids))


def test_save_and_load(tmp_path):
    assert dropped(tiny("qwen3", dtype=torch.bfloat16), blocks=(1,)).dtype == torch.bfloat16
    short = dropped(tiny("qwen3"), blocks=(1,))
    again = load(str(short.save(tmp_path / "m")))
    ids = inputs("qwen3")["input_ids"]
    assert torch.equal(logits(again, ids), logits(short, ids))
    assert again.identity.changes[-1]["blocks"] == [1]


@pytest.mark.real
def test_real_blocks_that_influence_does_not_see():
    import intarsia
    from intarsia.data import load_data

    try:
        model = intarsia.load("smollm2-135m")
    except intarsia.IntarsiaError as error:
        pytest.skip(f"SmolLM2 is not available: {error}")
    texts = [record.text for record in load_data("python-docs")["text"][:3]]
    ids = model.encode(["\n\n".join(texts)], max_length=64)["input_ids"].tolist()
    found = worth(model, model, batches(model, ids), divergence=True)
    needed = sorted(range(30), key=found.divergence.__getitem__)
    assert {0, 1, 11, 29} <= set(needed[-6:])
    # Block 11 hardly turns the stream.
    assert found.influence[11] < sorted(found.influence)[20]
