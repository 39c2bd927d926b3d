"""The patchscope operator against one patched run a cell, and where prompts begin and positions lie."""

from __future__ import annotations

import pytest
import torch

from intarsia.errors import BadInput
from intarsia.interpretation.patchscopes import Source, Target, identity_log_probs, patch
from intarsia.interpretation.patchscopes.operator import own_layer, read_states
from intarsia.interpretation.patchscopes.prompts import _ends, encode, encode_target, place, positions, token_at
from intarsia.models import wrap
from intarsia.sites import Replace, generate, read, run, unembed
from tests.tiny import tiny, tokenizer

TARGET = "cat -> cat ?"
PROMPTS = ["Alexander the Great was king", "a tower in Paris"]
AT = ["Great", 5]


def naive(model, ids: list[int], at: int, target: list[int], target_at: int, layer: int, to: int) -> torch.Tensor:
    """Next-token logits of one patched run, all by itself."""
    state = read(model, [ids], f"layers.{layer}.resid_post")[f"layers.{layer}.resid_post"][0, at]
    edits = [Replace(f"layers.{to}.resid_post", at=target_at, value=state)]
    return run(model, [target], edits=edits).logits[0, -1]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "neox"])
def test_every_cell_is_a_run_with_one_patch(family: str) -> None:
    model = tiny(family, dtype=torch.float64)
    found = patch(Source(model, PROMPTS, AT), Target(model, TARGET, "->"), keep_logits=True)
    goal = encode(model, TARGET, start=False)
    assert found.logits.shape == (2, 4, 4, 300) and found.target_position == place(goal, "->") == 5
    for row, (text, at) in enumerate(zip(PROMPTS, AT, strict=True)):
        prompt = encode(model, text)
        for a in range(4):
            for b in range(4):
                wanted = naive(model, list(prompt.ids), place(prompt, at), list(goal.ids), 5, a, b)
                assert torch.allclose(found.logits[row, a, b], wanted, atol=1e-9), (row, a, b)
                assert int(found.top[row, a, b]) == int(wanted.argmax())


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_generation_after_a_patch_is_that_of_the_edited_model(family: str) -> None:
    model = tiny(family)
    found = patch(Source(model, PROMPTS, AT), Target(model, TARGET), max_new_tokens=5)
    goal = encode(model, TARGET, start=False)
    for row, (text, at) in enumerate(zip(PROMPTS, AT, strict=True)):
        prompt = encode(model, text)
        acts = read(model, [list(prompt.ids)], "layers.*.resid_post")
        for a, b in [(0, 0), (1, 3), (3, 1), (2, 2)]:
            state = acts[f"layers.{a}.resid_post"][0, place(prompt, at)]
            edit = Replace(f"layers.{b}.resid_post", at=len(goal) - 1, value=state)
            alone = generate(model, [list(goal.ids)], edits=[edit], max_new_tokens=5)
            mine = found.ids[row, a, b]
            assert torch.equal(mine[: alone.ids.shape[1]], alone.ids[0]), (row, a, b)
            assert found.texts[row][a][b] == alone.texts[0]


def test_the_same_layer_is_the_diagonal_and_rows_do_not_depend_on_each_other() -> None:
    model = tiny("llama")
    whole = patch(Source(model, PROMPTS, AT), Target(model, TARGET), keep_logits=True, max_new_tokens=4)
    same = patch(Source(model, PROMPTS, AT), Target(model, TARGET, layers="same"), keep_logits=True, max_new_tokens=4)
    assert same.target_layers == [[0], [1], [2], [3]] and same.logits.shape == (2, 4, 1, 300)
    for layer in range(4):
        assert torch.allclose(same.logits[:, layer, 0], whole.logits[:, layer, layer], atol=1e-5)
        assert [row[layer][0] for row in same.texts] == [row[layer][layer] for row in whole.texts]
    one = patch(Source(model, PROMPTS[1], AT[1], layers=[2]), Target(model, TARGET, layers=[1, 3]), keep_logits=True)
    assert torch.allclose(one.logits[0, 0], whole.logits[1, 2, [1, 3]], atol=1e-5)


@pytest.mark.parametrize("mode", ["keep", "drop", "trajectory"])
def test_states_that_are_given_are_as_good_as_those_that_are_read(mode: str) -> None:
    model = tiny("llama")
    target = Target(model, TARGET, layers=[1, 2])
    read_ = patch(Source(model, PROMPTS, AT, layers=[0, 3]), target, max_new_tokens=4, contamination=mode)
    assert read_.states.shape == (2, 5 if mode == "trajectory" else 2, 32)
    given = patch(Source(model, "", layers=[0, 3], states=read_.states), target, max_new_tokens=4, contamination=mode)
    assert torch.equal(given.ids, read_.ids) and given.source_positions == []


def test_the_last_layer_is_the_logit_lens_and_the_target_prompt_does_not_matter() -> None:
    model = tiny("gpt2")
    for prompt in (TARGET, "something else"):
        found = patch(Source(model, PROMPTS, AT), Target(model, prompt, layers=3), keep_logits=True)
        assert torch.allclose(found.logits[:, :, 0], unembed(model, found.states), atol=1e-5)


def test_a_mapping_takes_states_into_a_model_of_another_width_and_depth() -> None:
    source, target = tiny("llama"), tiny("bert", seed=2)
    assert [own_layer(layer, source, target) for layer in range(4)] == [0, 1, 1, 2]
    narrow = tiny("llama")
    maps = {layer: torch.randn(32, 32, generator=torch.Generator().manual_seed(layer)) for layer in range(4)}

    def mapping(states: torch.Tensor, layer: int, to: int) -> torch.Tensor:
        return states @ maps[layer] + to

    found = patch(Source(source, PROMPTS, AT), Target(narrow, TARGET), mapping=mapping, keep_logits=True)
    prompt, goal = encode(source, PROMPTS[0]), encode(narrow, TARGET, start=False)
    state = read(source, [list(prompt.ids)], "layers.2.resid_post")["layers.2.resid_post"][0, place(prompt, "Great")]
    edit = Replace("layers.1.resid_post", at=len(goal) - 1, value=state @ maps[2] + 1)
    wanted = run(narrow, [list(goal.ids)], edits=[edit]).logits[0, -1]
    assert torch.allclose(found.logits[0, 2, 1], wanted, atol=1e-4)


def test_states_of_many_prompts_are_those_of_each_one() -> None:
    model = tiny("llama")
    texts = [f"prompt {'long ' * (i % 4)}{i}" for i in range(20)]
    rows = [encode(model, text) for text in texts for _ in range(2)]
    places = [index for row in rows[::2] for index in (1, len(row) - 1)]
    together = read_states(model, rows, places, None)
    assert together.shape == (40, 5, 32)
    for n in (0, 7, 38, 39):
        acts = read(model, [list(rows[n].ids)], ["embed", "layers.*.resid_post"])
        alone = torch.stack([acts[name][0, places[n]] for name in acts.sites])
        assert torch.allclose(together[n], alone, atol=1e-5)


def test_identity_log_probabilities_are_normalised_patches_at_the_last_token() -> None:
    model = tiny("llama")
    states = torch.randn(3, 2, 32, generator=torch.Generator().manual_seed(0))
    found = identity_log_probs(model, states, [1, 3], prompt="paper")
    assert found.shape == (3, 2, 300) and torch.allclose(found.exp().sum(-1), torch.ones(3, 2), atol=1e-5)
    ids = encode(model, "cat -> cat\n1135 -> 1135\nhello -> hello\n?", start=False).ids
    for n, layer in enumerate([1, 3]):
        edit = Replace(f"layers.{layer}.resid_post", at=len(ids) - 1, value=states[2, n])
        wanted = run(model, [list(ids)], edits=[edit]).logits[0, -1].log_softmax(-1)
        assert torch.allclose(found[2, n], wanted, atol=1e-5)
    # Behind the start token alone the placeholder's own identity has no effect.
    assert torch.allclose(
        identity_log_probs(model, states, [1, 3], prompt="sink"),
        identity_log_probs(model, states, [1, 3], prompt="x"),
        atol=1e-5,
    )


def test_prompts_begin_with_a_fixed_token_once() -> None:
    plain, own = tiny("llama"), tiny("llama", bos=True)
    for model, added in ((plain, 1), (own, 0)):
        prompt = encode(model, "Paris")
        assert prompt.ids[0] == 1 and prompt.ids[1:] == tuple(plain.tokenizer("Paris")["input_ids"])
        assert prompt.own == added and prompt.ends == (0, 1, 2, 3, 4, 5)
        assert positions(prompt) == [1, 2, 3, 4, 5] and positions(prompt, 2) == [4, 5]
    # Numbers count the tokenizer's own tokens, and where it gives the start token that one cannot be read.
    assert place(encode(plain, "Paris"), 0) == 1 and place(encode(own, "Paris"), 1) == 1
    with pytest.raises(BadInput, match="attention sink"):
        place(encode(own, "Paris"), 0)
    assert encode(plain, [5, 6, 7]).ids == (5, 6, 7)


def test_a_target_prompt_gets_a_start_token_only_when_its_first_token_would_be_patched() -> None:
    model = tiny("llama")
    for text, at, ids, index in [("ab", -1, 2, 1), ("a", -1, 2, 1), ("ab", 0, 3, 1), ("ab", "a", 3, 1)]:
        prompt, place_ = encode_target(model, text, at)
        assert (len(prompt), place_) == (ids, index) and (prompt.ids[0] == 1) == (prompt.own == 1) == (ids > len(text))
    assert encode_target(tiny("llama", bos=True), "ab", 1)[0].own == 0
    with pytest.raises(BadInput, match="first token"):
        encode_target(model, [7, 8], 0)


def test_words_stand_for_the_last_token_of_their_last_occurrence() -> None:
    prompt = encode(tiny("llama"), "Rome, then Romé and more")
    ids = list(prompt.ids)
    tok = tokenizer()
    assert place(prompt, "Rome") == 4 and place(prompt, -1) == len(ids) - 1
    index = place(prompt, "Rom")  # the one of Romé
    assert tok.decode(ids[: index + 1]).endswith("then Rom")
    assert tok.decode(ids[: place(prompt, "Romé ") + 1]).endswith("Romé")
    assert token_at(prompt, 4) == 4


def test_a_tokenizer_without_offsets_gets_them_from_its_texts() -> None:
    model = tiny("llama", bos=True)
    prompt = encode(model, "the Great king")
    assert _ends(model.tokenizer, list(prompt.ids)) == list(prompt.ends)


@pytest.mark.parametrize(
    ("at", "words"),
    [(40, "outside the prompt, which has 28 tokens"), ("Caesar", "'Caesar' does not occur"), (" ", "empty"),
     (-29, "outside the prompt")],
)  # fmt: skip
def test_a_position_outside_the_prompt_says_so(at, words: str) -> None:
    model = tiny("llama")
    with pytest.raises(BadInput, match=words):
        patch(Source(model, PROMPTS[0], at), Target(model, TARGET))


def test_what_does_not_fit_says_so() -> None:
    model = tiny("llama")
    wide = tiny("llama", seed=1)
    import transformers

    config = transformers.LlamaConfig(**{**wide.network.config.to_dict(), "hidden_size": 64, "head_dim": 16})
    wide = wrap(transformers.LlamaForCausalLM(config), tokenizer())
    target = Target(model, TARGET)
    with pytest.raises(BadInput, match=r"64 wide and the target's 32: give a mapping"):
        patch(Source(wide, PROMPTS), target)
    with pytest.raises(BadInput, match="source layer 4 does not exist: this model has layers 0 to 3"):
        patch(Source(model, PROMPTS, layers=[4]), target)
    with pytest.raises(BadInput, match="target layer 9"):
        patch(Source(model, PROMPTS), Target(model, TARGET, layers=9))
    with pytest.raises(BadInput, match="first token"):
        patch(Source(model, PROMPTS), Target(model, [5, 6], at=0))
    with pytest.raises(BadInput, match="it is empty"):
        patch(Source(model, ""), target)
    with pytest.raises(BadInput, match="2 positions were given for 3 prompts"):
        patch(Source(model, ["a b", "c d", "e f"], [1, 2]), target)
    with pytest.raises(BadInput, match="states must be"):
        patch(Source(model, "", states=torch.zeros(1, 2, 32)), target)
    with pytest.raises(BadInput, match="contamination 'kept' is not known"):
        patch(Source(model, PROMPTS), target, contamination="kept")
    with pytest.raises(BadInput, match="context of 128"):
        patch(Source(model, PROMPTS), target, max_new_tokens=120)
    with pytest.raises(BadInput, match="trajectory is that of one model"):
        patch(Source(model, PROMPTS), target, mapping=lambda s, a, b: s, contamination="trajectory", max_new_tokens=2)
    with pytest.raises(BadInput, match="no tokenizer"):
        patch(Source(wrap(model.network), "text"), target)
    with pytest.raises(BadInput, match="given by words, and the prompt by token ids"):
        patch(Source(model, [4, 5, 6], "a"), target)
