"""Sweeps beyond the plain grid: what new tokens see at the patched position, chosen cells, rows that end early."""

import pytest
import torch

from bench.naive import writing
from intarsia.errors import BadInput
from intarsia.sites import Apply, Replace, read, run, source_states, sweep
from tests.tiny import tiny
from tests.tiny_more import more

NEW = 5
CELLS = [(0, 1), (3, 0), (1, 2), (2, 3), (0, 3), (3, 2)]
SOURCES = torch.tensor([[20, 130, 40, 201], [97, 28, 229, 110]])
TARGET = torch.tensor([[50, 61, 172, 83, 99, 18, 141, 233, 77, 64]])


def model_of(family):
    model = tiny(family, dtype=torch.float64)
    model.network.generation_config.eos_token_id = None
    return model


def decode(model, cache, first, length, count):
    """Greedy tokens after `first`, one by one, from a cache of one row."""
    said = [int(first)]
    while len(said) < count:
        output = model.network(
            input_ids=torch.tensor([said[-1:]]),
            past_key_values=cache,
            position_ids=torch.tensor([[length + len(said) - 1]]),
            use_cache=True,
        )
        cache = output.past_key_values
        said.append(int(output.logits[0, -1].argmax()))
    return said


def without(place, prompt):
    """The scores with the patched position hidden from tokens after the prompt."""

    def function(scores):
        scores = scores.clone()
        scores[:, prompt:, :, place] = torch.finfo(scores.dtype).min
        return scores

    return function


def one_by_one(model, source, target, pair, place, contamination):
    """The definition: one cell, the whole text anew for each token (drop), or a cache written into by hand."""
    low, high = pair
    path = [read(model, source[None], "embed")["embed"][0, -1]]
    path += [t[0, -1] for t in read(model, source[None], "layers.*.resid_post").values()]
    edits, length = [Replace(f"layers.{high}.resid_post", at=place, value=path[low + 1])], target.shape[1]
    if contamination == "drop":
        ids = target
        hidden = [Apply(f"layers.{j}.scores", function=without(place, length)) for j in range(high + 1)]
        while ids.shape[1] < length + NEW:
            best = run(model, ids, edits + (hidden if ids.shape[1] > length else [])).logits[0, -1].argmax()
            ids = torch.cat([ids, best.reshape(1, 1)], dim=1)
        return ids[0, length:].tolist()
    handle = writing(model.sites.blocks[high], place, path[low + 1])
    output = model.network(input_ids=target, use_cache=True)
    handle.remove()
    if contamination == "trajectory":
        for j in range(high + 1):
            state = path[round(j * (low + 1) / (high + 1))]
            seen = read(
                model, target, [f"layers.{j}.k", f"layers.{j}.v"],
                edits=[Replace(f"layers.{j}.resid_pre", at=place, value=state)],
            )  # fmt: skip
            layer = output.past_key_values.layers[j]
            where = place - (length - layer.keys.shape[2])  # a sliding window has forgotten the first tokens
            if where >= 0:
                layer.keys[0, :, where] = seen[f"layers.{j}.k"][0, place]
                layer.values[0, :, where] = seen[f"layers.{j}.v"][0, place]
    return decode(model, output.past_key_values, output.logits[0, -1].argmax(), length, NEW)


@torch.no_grad()
@pytest.mark.parametrize("contamination", ["keep", "drop", "trajectory"])
@pytest.mark.parametrize(("length", "place"), [(10, 9), (10, 4), (10, 1), (5, 0), (1, 0)])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "neox"])
def test_each_contamination_is_its_definition(family, length, place, contamination):
    model, target = model_of(family), TARGET[:, :length]
    got = sweep(
        model, SOURCES, target, target_at=place, cells=CELLS, max_new_tokens=NEW, contamination=contamination, chunk=7
    )
    for s, c in ((0, 0), (0, 3), (0, 5), (1, 1), (1, 2), (1, 4)):
        want = one_by_one(model, SOURCES[s], target, CELLS[c], place, contamination)
        assert got.ids[s, c].tolist() == want, CELLS[c]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "neox"])
def test_contaminations_agree_on_the_first_token_and_differ_later(family):
    ids = {
        mode: sweep(model_of(family), SOURCES, TARGET, max_new_tokens=6, contamination=mode).ids
        for mode in ("keep", "drop", "trajectory")
    }
    for one, other in (("keep", "drop"), ("keep", "trajectory"), ("drop", "trajectory")):
        assert torch.equal(ids[one][..., 0], ids[other][..., 0])
        assert not torch.equal(ids[one], ids[other])


@torch.no_grad()
@pytest.mark.parametrize("family", ["bloom", "mpt", "falcon", "gptj", "codegen", "gpt_neo"])
@pytest.mark.parametrize("place", [0, 3, 6])
def test_drop_where_attention_is_a_modules_own(family, place):
    """Their blocks get masks and slopes in forms of their own; here the position is hidden over the whole text anew."""
    model = more(family)
    model.network.generation_config.eos_token_id = None
    target, high = TARGET[:, :7], 1
    got = sweep(
        model, SOURCES[:1], target, target_at=place, cells=[(1, high)], max_new_tokens=4, contamination="drop"
    ).ids[0, 0]
    state = read(model, SOURCES[:1], "layers.1.resid_post")["layers.1.resid_post"][0, -1]

    def hide(module, args, kwargs):
        mask = kwargs["attention_mask"].clone()
        shows = mask[..., 7:, -1:][..., -1:, :]
        mask[..., 7:, place] = ~shows[..., 0] if mask.dtype is torch.bool else torch.finfo(mask.dtype).min
        return args, {**kwargs, "attention_mask": mask}

    ids = target
    for _ in range(4):
        handles = [b.register_forward_pre_hook(hide, with_kwargs=True) for b in model.sites.blocks[: high + 1]]
        handles.append(writing(model.sites.blocks[high], place, state))
        best = model.network(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0, -1].argmax()
        for handle in handles:
            handle.remove()
        ids = torch.cat([ids, best.reshape(1, 1)], dim=1)
    assert torch.equal(got, ids[0, 7:])


@pytest.mark.parametrize("contamination", ["keep", "drop", "trajectory"])
def test_order_of_sources_and_chunks_change_nothing(contamination):
    model, kwargs = model_of("gemma3"), {"max_new_tokens": 6, "contamination": contamination, "target_at": -2}
    sources = torch.cat([SOURCES, SOURCES.flip(1)])
    whole = sweep(model, sources, TARGET, keep_logits=True, **kwargs)
    turned = sweep(model, sources.flip(0), TARGET, keep_logits=True, chunk=5, **kwargs)
    assert torch.equal(whole.ids, turned.ids.flip(0))
    torch.testing.assert_close(whole.logits, turned.logits.flip(0))


def test_the_states_of_the_sources_can_be_read_once_and_given():
    model = model_of("llama")
    states = source_states(model, SOURCES, [1, -1])
    acts = read(model, SOURCES, ["embed", "layers.*.resid_post"])
    assert states.shape == (2, 5, 32)
    assert torch.equal(states[0], torch.stack([t[0, 1] for t in acts.values()]))
    assert torch.equal(states[1], torch.stack([t[1, -1] for t in acts.values()]))
    for contamination in ("keep", "trajectory"):
        kwargs = {"contamination": contamination, "max_new_tokens": 4, "stride": 3}
        read_anew = sweep(model, SOURCES, TARGET, source_at=[1, -1], **kwargs)
        assert torch.equal(sweep(model, [[1]], TARGET, states=states, **kwargs).ids, read_anew.ids)


def test_chosen_cells_and_coarse_grids_are_parts_of_the_whole():
    model = model_of("llama")
    whole = sweep(model, SOURCES, TARGET, keep_logits=True, max_new_tokens=3)
    pairs = [(3, 0), (1, -1), (2, 2)]
    some = sweep(model, SOURCES, TARGET, cells=pairs, keep_logits=True, max_new_tokens=3)
    assert (some.source_layers, some.target_layers) == ([3, 1, 2], [0, 3, 2])
    for c, (low, high) in enumerate(pairs):
        assert torch.equal(some.ids[:, c], whole.ids[:, low, high])
        torch.testing.assert_close(some.logits[:, c], whole.logits[:, low, high])
        assert [row[c] for row in some.texts] == [row[low][high] for row in whole.texts]
    coarse = sweep(model, SOURCES, TARGET, stride=3, max_new_tokens=3)
    assert (coarse.source_layers, coarse.target_layers) == ([0, 3], [0, 3])
    assert torch.equal(coarse.ids, whole.ids[:, ::3, ::3])
    assert torch.equal(sweep(model, SOURCES, TARGET, source_layers=[3, 2, 1], stride=2).top, whole.top[:, 1::2, ::2])


def ended(ids, ends, pad=0):
    """Rows with everything after their first token among `ends` replaced by padding."""
    after = (torch.isin(ids, ends).cumsum(-1) - torch.isin(ids, ends).long()) > 0
    return ids.masked_fill(after, pad)


@pytest.mark.parametrize("contamination", ["keep", "drop", "trajectory"])
def test_rows_leave_at_the_end_token_and_others_go_on(contamination):
    model = model_of("llama")
    kwargs = {"max_new_tokens": 8, "contamination": contamination}
    free = sweep(model, SOURCES, TARGET, **kwargs).ids
    ends = torch.tensor([int(free[0, 1, 2, 2]), int(free[1, 2, 0, 5])])
    model.network.generation_config.eos_token_id = ends.tolist()
    got = sweep(model, SOURCES, TARGET, chunk=9, **kwargs)
    assert torch.equal(got.ids, ended(free, ends))
    assert (got.ids != free).any() and (got.ids == free).all(-1).any()


def test_rows_leave_when_the_wanted_text_is_there():
    model = model_of("llama")
    free = sweep(model, SOURCES, TARGET, max_new_tokens=8)
    wanted = [free.texts[0][1][2][:3], free.texts[1][0][3][:4]]
    asked = []

    def stop(text, source):
        asked.append(text)
        return wanted[source] in text

    got = sweep(model, SOURCES, TARGET, max_new_tokens=8, stop=stop)
    for source in range(2):
        for low in range(4):
            for high in range(4):
                text, whole = got.texts[source][low][high], free.texts[source][low][high]
                ids, all_ids = got.ids[source, low, high], free.ids[source, low, high]
                if wanted[source] in whole:
                    assert wanted[source] in text and whole.startswith(text)
                    length = int((ids == all_ids).long().cumprod(0).sum())
                    assert not ids[length:].any()  # padding
                else:
                    assert text == whole and torch.equal(ids, all_ids)
    assert len(asked) < 32 * 7


def test_blocks_below_a_patch_run_once_for_cells_that_have_said_the_same():
    model, rows = model_of("llama"), []
    handle = model.sites.blocks[0].mlp.register_forward_hook(lambda module, args, output: rows.append(len(args[0])))
    got = sweep(model, SOURCES, TARGET, target_layers=[2, 3], max_new_tokens=4)
    handle.remove()
    cells = got.ids.reshape(-1, 4).tolist()
    shared = [len({tuple(ids[:n]) for ids in cells}) for n in range(4)]
    assert rows[-4:] == shared and shared[0] == 1  # (the prefix runs before)


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        (
            {"contamination": "dropp"},
            r"contamination 'dropp' is not known: give one of keep, drop, trajectory \(did you",
        ),
        ({"contamination": "trajectory", "mapping": lambda states, low, high: states}, "leave the mapping out"),
        ({"contamination": "trajectory", "states": torch.zeros(1, 4, 32)}, r"must be \[sources, 5, width\]"),
        ({"cells": [(1, 1)], "states": torch.zeros(1, 4, 32)}, r"must be \[sources, 5, width\]"),
        ({"cells": [(1, 4)]}, "target layer 4 does not exist"),
        ({"cells": [(9, 1)]}, "source layer 9 does not exist"),
        ({"cells": []}, "no cells given"),
        ({"cells": [(1, 1)], "stride": 2}, "either cells or layers"),
        ({"stride": 0}, "stride must be 1 at least, was 0"),
        ({"chunk": 0}, "chunk must be 1 at least, was 0"),
    ],
)
def test_bad_sweeps_say_what_is_wrong(kwargs, says):
    with pytest.raises(BadInput, match=says):
        sweep(tiny("llama"), torch.tensor([[20, 30]]), torch.tensor([[50, 60]]), **kwargs)


def test_stop_needs_text_and_recurrent_networks_give_the_next_token_only():
    model = tiny("llama")
    model.tokenizer = None
    with pytest.raises(BadInput, match="no tokenizer"):
        sweep(model, SOURCES, TARGET, max_new_tokens=2, stop=lambda text, source: True)
    for contamination in ("drop", "trajectory"):
        with pytest.raises(BadInput, match="only the next token"):
            sweep(more("mamba"), SOURCES, TARGET, max_new_tokens=2, contamination=contamination)
