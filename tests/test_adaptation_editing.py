"""Model editing on tiny networks: closed forms against naive solves, parts against their definitions, bad input."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor

import intarsia as ia
from intarsia.adaptation import edit
from intarsia.adaptation.editing import (
    EditConfig,
    EditFinding,
    editing,
    keeping,
    keys,
    moments,
    tracing,
    values,
    wording,
)
from intarsia.adaptation.editing.judging import judge, own_answers
from intarsia.adaptation.editing.places import places
from intarsia.adaptation.editing.solving import Moment, change
from intarsia.cli import app
from intarsia.data import Chat, FactEdit, Text
from intarsia.data import read as read_data
from intarsia.errors import BadInput, IntarsiaError, Note
from intarsia.models import Model
from intarsia.models.loading import load
from intarsia.report import Finding, to_text
from intarsia.sites import Add, Replace, read, run
from tests.tiny import tiny

KNOWN = """
the a in is and says looks saw we of Tower Cat Dog sea Museum Bridge Rome Paris Oslo Bonn moo red blue see people near
speak Latin summer . one two my town road book again An owl old
"""
# Where a prompt ends with its subject, also a random network can be made to say something.
TOWER = FactEdit(
    "we saw the {}", "Rome", subject="Tower", old="Paris", paraphrases=("one saw the {}",),
    neighbours=("we saw the Museum", "we saw the Bridge"), neighbour_targets=("Oslo", "Bonn"),
    consequences=(("people near the Tower speak", "Latin"),),
)  # fmt: skip
CAT = FactEdit("and two {}", "moo", subject="Cat", neighbours=("and two Dog",))
SEA = FactEdit("In summer the {subject} looks", "red", subject="sea")
EDITS = [TOWER, CAT, SEA]
TEXTS = [Text(f"{a} {b} of the {c}, and {b} again.") for a in ("one", "two", "my") for b in ("Cat", "sea", "book")
         for c in ("Tower", "town", "road")]  # fmt: skip
QUICK = dict(trace=False, prefixes=2, tokens=200, perplexity_tokens=30, largest=6.0, covariance_weight=0.01)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INTARSIA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "editing"


def wordy(family: str, **given) -> Model:
    """A tiny network that reads words: a subject and a target are one token each."""
    model = tiny(family, **given)
    known = ["<pad>", "<s>", "<end>", "<unk>", *KNOWN.split()]
    model.network.resize_token_embeddings(len(known), mean_resizing=False)
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(known)}, "<unk>"))
    words.pre_tokenizer = Whitespace()
    model.tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="<end>", unk_token="<unk>"
    )
    return model


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def some_moment(neurons: int, rows: int = 200, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Correlated keys of very different sizes, and their second moment."""
    sample = random(rows, neurons, seed=seed) @ random(neurons, neurons, seed=seed + 1)
    sample = sample * torch.logspace(-1, 1, neurons, dtype=torch.float64)
    return sample, sample.T @ sample / rows


def weights_of(model: Model) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.network.state_dict().items()}


# ---- the closed form


def test_one_edit_is_romes_formula_and_gives_the_value_exactly():
    _, moment = some_moment(12)
    weight, key, wanted = random(5, 12, seed=3), random(12, seed=4), random(5, seed=5)
    inverse = torch.linalg.inv(moment)
    naive = torch.outer(wanted - weight @ key, inverse @ key) / (key @ inverse @ key)
    found = change(key[None], (wanted - weight @ key)[None], Moment(moment))
    torch.testing.assert_close(found, naive, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close((weight + found) @ key, wanted, rtol=1e-11, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(6, 14), st.floats(1e-3, 1e4))
def test_many_edits_solve_memits_normal_equations(edits, neurons, weight):
    _, moment = some_moment(neurons)
    k, r = random(edits, neurons, seed=6), random(edits, 4, seed=7)
    naive = r.T @ k @ torch.linalg.inv(weight * moment + k.T @ k)
    found = change(k, r, Moment(moment), weight)
    torch.testing.assert_close(found, naive, rtol=1e-6, atol=1e-9)


def test_memit_of_one_edit_tends_to_rome_as_lambda_vanishes():
    _, moment = some_moment(12)
    k, r = random(1, 12, seed=8), random(1, 5, seed=9)
    rome = change(k, r, Moment(moment))
    gaps = [float((change(k, r, Moment(moment), weight) - rome).norm()) for weight in (1.0, 1e-3, 1e-6)]
    assert gaps[0] > 100 * gaps[1] > 1e4 * gaps[2] / 1.2 and gaps[2] < 1e-5 * rome.norm()


def test_ordinary_keys_move_less_than_under_any_other_change_that_gives_the_values():
    sample, moment = some_moment(16)
    k, r = random(2, 16, seed=10), random(2, 5, seed=11)
    best = change(k, r, Moment(moment))
    moved = (sample @ best.T).norm()
    assert moved < 0.5 * (sample @ change(k, r, Moment(torch.eye(16))).T).norm()  # the same without the covariance
    free = torch.eye(16, dtype=torch.float64) - torch.linalg.pinv(k) @ k  # what leaves the values alone
    for seed in range(20):
        other = best + 0.1 * random(5, 16, seed=seed) @ free
        torch.testing.assert_close(other @ k.T, r.T, rtol=1e-9, atol=1e-9)
        assert (sample @ other.T).norm() > moved


def test_what_cannot_be_solved_is_told():
    flat = torch.zeros(4, 4)
    flat[0, 0] = 1
    with pytest.raises(IntarsiaError, match="has no inverse: give more tokens of text, or a ridge above 0"):
        Moment(flat)
    assert Moment(flat, 1e-3).matrix[1, 1] == pytest.approx(0.25e-3)
    twice = random(1, 4).expand(2, -1)
    with pytest.raises(IntarsiaError, match="two edits have the same key"):
        change(twice, random(2, 3), Moment(torch.eye(4)))
    change(twice, random(2, 3), Moment(torch.eye(4)), 1.0)  # memit takes the middle of both


# ---- prompts


@pytest.mark.parametrize("bos", [False, True])
def test_rows_know_where_subject_and_target_stand(bos):
    model = tiny("llama", bos=bos)
    row = wording.row(model, "The Tower is in", "Tower", "Rome", prefix="Yes. ")
    text = model.tokenizer.decode([*row.ids, row.target[-1]])
    assert text.removeprefix("<s>") == "Yes. The Tower is in Rome"
    assert model.tokenizer.decode(row.target) == " Rome" and row.ids[-4:] == row.target[-5:-1]
    assert model.tokenizer.decode(row.ids[row.first : row.subject + 1]) == "Tower"
    assert row.to_subject() == row.ids[: row.subject + 1] and (row.ids[0] == 1) == bos


def test_targets_are_joined_once_and_subjects_are_the_last_of_their_name():
    model = tiny("llama")
    spaced = [wording.row(model, p, "it", t) for p, t in (("it is", "so"), ("it is", " so"), ("it is ", "so"))]
    assert spaced[0] == spaced[1] and spaced[2].target == spaced[0].target[1:]
    twice = wording.row(model, "an ox and an ox go", "ox", "by")
    assert twice.first == "an ox and an ox go".rfind("ox")
    assert wording.row(model, "no subject").subject == -1


def test_prefixes_are_written_by_the_model_and_by_the_seed():
    model = tiny("llama")
    one, two, other = (wording.prefixes(model, 4, seed) for seed in (1, 1, 2))
    assert one == two != other and one[0] == "" and len(one) == 5
    assert all(text.endswith(". ") and "\n" not in text for text in one[1:])
    assert wording.prefixes(model, 0, 0) == [""]


# ---- keys and covariance


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_keys_are_means_of_what_enters_the_down_projection(family):
    model = wordy(family)
    rows = [wording.rows_of(model, e, ["", "So. ", "And then. "]) for e in EDITS]
    site = "layers.2.mlp_act"
    groups = [keys.Group(i, tuple(group)) for i, group in enumerate(rows)]
    found = keys.means(model, groups, site)
    for i, group in enumerate(rows):
        each = [read(model, [list(row.ids)], site)[site][0, row.subject].double() for row in group]
        torch.testing.assert_close(found[i], torch.stack(each).mean(0), rtol=1e-5, atol=1e-6)


def test_a_bare_prompt_that_is_far_from_the_others_has_a_key_of_its_own(monkeypatch):
    model = wordy("llama")
    rows = [wording.rows_of(model, e, ["", "So. ", "And then. "]) for e in (CAT, SEA)]
    monkeypatch.setattr(keys, "APART", -1.1)
    assert [(g.edit, len(g.rows)) for g in keys.grouped(model, rows, "layers.1.mlp_act")] == [(0, 3), (1, 3)]
    monkeypatch.setattr(keys, "APART", 1.1)
    groups = keys.grouped(model, rows, "layers.1.mlp_act")
    assert [(g.edit, g.rows) for g in groups] == [
        (0, (rows[0][0],)), (0, tuple(rows[0][1:])), (1, (rows[1][0],)), (1, tuple(rows[1][1:])),
    ]  # fmt: skip
    monkeypatch.setattr(keys, "APART", 0.8)
    flat = read(model, [list(row.ids) for row in rows[0]], "layers.1.mlp_act")
    each = [flat["layers.1.mlp_act"][i, row.subject].double() for i, row in enumerate(rows[0])]
    apart = float(torch.cosine_similarity(each[0], (each[1] + each[2]) / 2, dim=0)) < 0.8
    assert len(keys.grouped(model, rows[:1], "layers.1.mlp_act")) == 1 + apart
    assert len(keys.grouped(model, [rows[0][:1]], "layers.1.mlp_act")) == 1


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_covariance_is_the_mean_over_all_tokens_and_is_kept(family, cache, monkeypatch):
    model = wordy(family)
    where = places(model, [1, 3])
    windows = moments.windows_of(model, [t.text for t in TEXTS], 200)
    assert sum(map(len, windows)) == 200
    found = moments.moments(model, where, windows)
    for place in where:
        rows = torch.cat([read(model, [w], place.key)[place.key][0].double() for w in windows])
        torch.testing.assert_close(found[place.layer], rows.T @ rows / 200, rtol=1e-5, atol=1e-6)
    assert len(list(cache.glob("*.safetensors"))) == 2

    def computed(*given):
        raise AssertionError("computed again")

    with monkeypatch.context() as patch:
        patch.setattr(moments, "_computed", computed)
        again = moments.moments(model, where, windows)
        assert all(torch.equal(again[layer], found[layer]) for layer in found)
        with pytest.raises(AssertionError):
            moments.moments(model, where, windows[1:])
        with pytest.raises(AssertionError):
            moments.moments(wordy(family, seed=1), where, windows)
    for file in cache.glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:50])
    again = moments.moments(model, where, windows)
    assert all(torch.equal(again[layer], found[layer]) for layer in found)


def test_few_tokens_are_told_and_no_tokens_refused():
    model = wordy("llama")
    with pytest.warns(Note, match="covariance of 48 neurons is taken over 20 tokens only"):
        moments.moments(model, places(model, [1]), moments.windows_of(model, ["one book " * 20], 20))
    with pytest.raises(BadInput, match="texts have no tokens"):
        moments.windows_of(model, [""], 20)


def test_the_models_own_writing_is_kept_by_seed():
    model = wordy("llama")
    one, two, other = (moments.samples(model, 150, seed) for seed in (0, 0, 1))
    assert one == two != other and sum(map(len, one)) >= 150
    told = edit(model, edits=[SEA], background="samples", layers=(1,), **QUICK | {"tokens": 150}).finding
    assert told.perplexity is not None


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("INTARSIA_CACHE", str(tmp_path / "file"))
    keeping.keep("name", keeping.Saved({}, {"a": 1}))
    assert keeping.kept("name") is None


# ---- causal tracing


def test_tracing_is_the_mean_of_single_restorations(monkeypatch):
    model = wordy("llama")
    rows = [wording.row(model, e.prompt, e.subject) for e in EDITS[:2]]
    monkeypatch.setattr(tracing, "WINDOW", 0.5)
    monkeypatch.setattr(tracing, "ROWS", 5)
    monkeypatch.setattr(tracing, "LEAST", -1.0)
    found = tracing.effects(model, rows, [1, 2, 3], seed=4)
    generator = torch.Generator().manual_seed(4)
    totals = dict.fromkeys((1, 2, 3), 0.0)
    for row in rows:
        names = [f"layers.{i}.mlp_out" for i in range(4)]
        clean = read(model, [list(row.ids)], ["embed", *names, "logits"])
        token = int(clean["logits"][0, -1].argmax())
        span = range(row.first, row.subject + 1)
        drawn = torch.randn(tracing.SAMPLES, len(span), 32, generator=generator) * 3 * clean["embed"].std()
        for sample in drawn:
            noise = Add("embed", at=list(span), value=sample)

            def chance(*edits, row=row, token=token, noise=noise):
                return float(run(model, [list(row.ids)], [noise, *edits]).logits[0, -1].softmax(-1)[token])

            for layer in totals:
                window = [i for i in (layer - 1, layer) if i >= 1]
                put = [Replace(names[i], at=row.subject, value=clean[names[i]][0, row.subject]) for i in window]
                totals[layer] += (chance(*put) - chance()) / tracing.SAMPLES / len(rows)
    assert found == pytest.approx(totals, abs=1e-6)


def test_tracing_is_kept_and_says_when_it_can_tell_nothing(monkeypatch):
    model = wordy("llama")
    rows = [wording.row(model, TOWER.prompt, TOWER.subject)]
    monkeypatch.setattr(tracing, "LEAST", -1.0)
    first = tracing.effects(model, rows, [1, 2], seed=0)
    with monkeypatch.context() as patch:
        patch.setattr(tracing, "_traced", None)
        assert tracing.effects(model, rows, [1, 2], seed=0) == first
    monkeypatch.setattr(tracing, "LEAST", 0.01)
    monkeypatch.setattr(tracing, "NOISE", 0.0)
    with pytest.warns(Note, match="it tells no layer"):
        assert tracing.effects(model, rows, [1, 2], seed=1) is None


def test_few_edits_are_traced_with_common_facts():
    japan = FactEdit("Sushi comes from {}", "Peru", subject="Japan")
    found = tracing.prompts([TOWER, japan], 6)
    assert found[:2] == [("we saw the Tower", "Tower"), ("Sushi comes from Japan", "Japan")]
    assert len(found) == 6 and [subject for _, subject in found].count("Japan") == 1
    assert all(subject in prompt for prompt, subject in found)
    assert tracing.prompts([TOWER, japan], 1) == found[:1]


def test_layers_are_those_given_those_traced_or_at_a_depth(monkeypatch):
    model = wordy("llama")

    def chosen(**given):
        return editing.choose_layers(model, EditConfig(**given), EDITS, [0, 1, 2, 3], 0)

    assert chosen(layers=(0, 1, 2, 3)) == ([0, 1, 2, 3], None)
    assert chosen(trace=False, depth=0.6, spread=2) == ([1, 2], None)
    assert chosen(trace=False, depth=1, spread=9) == ([0, 1, 2, 3], None)
    assert chosen(trace=False, depth=0.6, method="rome") == ([2], None)
    monkeypatch.setattr(tracing, "effects", lambda model, rows, layers, seed: dict.fromkeys(layers, 0.1) | {3: 0.4})
    assert chosen(spread=3) == ([1, 2, 3], {1: 0.1, 2: 0.1, 3: 0.4})
    monkeypatch.setattr(tracing, "effects", lambda *given: None)
    assert chosen(method="rome") == ([1], None)


# ---- values


def wishes_of(model: Model, edits: list[FactEdit], prefixes: tuple[str, ...] = ("", "So. ")) -> list[values.Wish]:
    return [values.Wish(wording.rows_of(model, e, prefixes), wording.essence(model, e), 6.0) for e in edits]


@pytest.mark.parametrize("family", ["llama", "gpt2", "neox"])
@pytest.mark.parametrize("layer", [1, 3])
@pytest.mark.parametrize("shared", [True, False])
def test_losses_are_those_of_whole_runs_with_the_change_added(family, layer, shared, monkeypatch):
    model = wordy(family)
    if not shared:
        monkeypatch.setattr(values, "shares_prefixes", lambda model: False)
    wishes = wishes_of(model, EDITS)
    batch = values._Batch(model, layer, f"layers.{layer}.resid_post", wishes)
    changes = random(3, 32, seed=2).float()
    active = [0, 2]
    with torch.no_grad():
        nll, kl = batch.losses(changes[active], active)
    for place, i in enumerate(active):
        wish, losses = wishes[i], []

        def log_p(row: wording.Row, *edits) -> Tensor:
            return run(model, [list(row.ids)], edits).logits[0].double().log_softmax(-1)

        for row in wish.rows:
            put = Add(f"layers.{layer}.mlp_out", at=row.subject, value=changes[i])
            last = log_p(row, put)[-len(row.target) :]
            losses.append(-sum(last[n, t] for n, t in enumerate(row.target)) / len(row.target))
        assert float(nll[place]) == pytest.approx(float(sum(losses)) / len(losses), rel=1e-4)
        put = Add(f"layers.{layer}.mlp_out", at=wish.essence.subject, value=changes[i])
        old, new = log_p(wish.essence)[-1], log_p(wish.essence, put)[-1]
        assert float(kl[place]) == pytest.approx(float((old.exp() * (old - new)).sum()), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_values_searched_together_are_those_searched_alone(family, monkeypatch):
    model = wordy(family)
    config = EditConfig(steps=12, stop_at=0.06)
    wishes = wishes_of(model, EDITS)

    def search(some: list[values.Wish]) -> list[values.Value]:
        return values.search(model, 1, "layers.1.resid_post", some, config, 4.0)

    together = search(wishes)
    monkeypatch.setattr(values, "TOKENS", 1)
    alone = [search([wish])[0] for wish in wishes]
    apart = search(wishes)
    for a, b, c in zip(together, alone, apart, strict=True):
        assert a.steps == b.steps == c.steps and a.probability == pytest.approx(b.probability, rel=1e-3)
        torch.testing.assert_close(a.change, b.change, rtol=1e-3, atol=1e-3)
        assert torch.equal(b.change, c.change)
    assert {v.steps for v in together} != {12}


def test_a_search_ends_when_it_is_likely_enough_and_stays_in_its_ball():
    model = wordy("llama")
    wishes = wishes_of(model, [TOWER])

    def search(most: float = 4.0, **given) -> values.Value:
        return values.search(model, 1, "layers.1.resid_post", wishes, EditConfig(**given), most)[0]

    early, late, ball = search(stop_at=0.05), search(steps=40), search(0.3, steps=40)
    assert 0.05 <= early.probability < late.probability and early.steps < late.steps <= 40
    assert ball.steps == 40 and float(ball.change.norm()) == pytest.approx(0.3 * 6.0, rel=1e-4)
    assert search(steps=3).steps == 3
    heavy = search(steps=40, weight_decay=50.0)
    assert heavy.change.norm() < 0.5 * late.change.norm()
    with pytest.raises(IntarsiaError, match="lower rate"):
        search(float("nan"))


# ---- the whole change


@pytest.mark.parametrize("family", ["llama", "gpt2", "neox", "granite", "qwen3"])
@pytest.mark.parametrize("method", ["rome", "memit"])
def test_facts_are_written_and_nothing_else_changes(family, method):
    model = wordy(family)
    before = weights_of(model)
    layers = (1,) if method == "rome" else (1, 2)
    new = edit(model, edits=EDITS[:2], texts=TEXTS, method=method, layers=layers, **QUICK)
    told = new.finding
    assert told.layers == list(layers) and [e.subject for e in told.edits] == ["Tower", "Cat"]
    assert told.rates(1)["efficacy"] == 1 > told.rates(0)["efficacy"]
    for one, e in zip(told.edits, EDITS[:2], strict=True):
        row = wording.row(new, e.prompt, e.subject, e.target)
        for when, net in enumerate((model, new)):
            logits = run(net, [list(row.ids)]).logits[0, -len(row.target) :].double().log_softmax(-1)
            mean = sum(logits[n, t] for n, t in enumerate(row.target)) / len(row.target)
            assert one.asked.probability[when] == pytest.approx(float(mean.exp()), rel=1e-3)
        assert one.asked.probability[1] > 5 * one.asked.probability[0]
    after = new.network.state_dict()
    edited = {place.module.weight.data_ptr() for place in places(new, layers)}
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(after[name].data_ptr() in edited for name in changed) and len(changed) == len(layers)
    assert all(torch.equal(value, before[name]) for name, value in model.network.state_dict().items())
    assert type(new.network) is type(model.network) and new.identity.changes[-1]["layers"] == list(layers)
    for size, name in zip(told.changed, sorted(changed), strict=True):
        assert size == pytest.approx(float((after[name] - before[name]).norm() / before[name].norm()), rel=1e-3)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_rome_changes_one_matrix_along_one_covariant_key(family, monkeypatch):
    model = wordy(family)
    monkeypatch.setattr(keys, "APART", -1.1)
    new = edit(model, edits=[TOWER], texts=TEXTS, method="rome", layers=(2,), ridge=1e-6, **QUICK)
    old_place, place = places(model, [2])[0], places(new, [2])[0]
    rows = wording.rows_of(model, TOWER, wording.prefixes(model, 2, 0))
    (group,) = keys.grouped(model, [rows], place.key)
    key = torch.stack(
        [read(model, [list(r.ids)], place.key)[place.key][0, r.subject].double() for r in group.rows]
    ).mean(0)
    own = moments.divided([t.text for t in TEXTS])[0]
    windows = moments.windows_of(model, own, QUICK["tokens"])
    sample = torch.cat([read(model, [w], place.key)[place.key][0].double() for w in windows])
    moment = sample.T @ sample / len(sample)
    inverse = torch.linalg.inv(moment + 1e-6 * moment.diagonal().mean() * torch.eye(len(moment)))
    found = place.weight() - old_place.weight()
    naive = torch.outer(found @ key, inverse @ key) / (key @ inverse @ key)
    torch.testing.assert_close(found, naive, rtol=1e-3, atol=1e-3 * float(found.abs().max()))
    assert torch.linalg.matrix_rank(found, rtol=1e-4) == 1
    # v* - W k* is the change that was searched: of the size that the ball allows, and no less than it takes.
    wish = values.Wish(rows, wording.essence(model, TOWER), editing._typical(model, rows, "layers.2.mlp_out"))
    value = values.search(model, 2, "layers.2.resid_post", [wish], EditConfig(), QUICK["largest"])[0]
    torch.testing.assert_close(place.value_of(key[None])[0], old_place.value_of(key[None])[0] + value.change,
                               rtol=1e-4, atol=1e-4 * float(value.change.norm()))  # fmt: skip


@pytest.mark.parametrize("family", ["llama", "gpt2", "granite"])
def test_memit_is_the_loop_of_the_paper(family, monkeypatch):
    model = wordy(family)
    fixed = [values.Value(random(32, seed=s), 1, 0.5) for s in range(3)]
    monkeypatch.setattr(values, "search", lambda *given: fixed)
    monkeypatch.setattr(keys, "APART", -1.1)
    weight, layers = 2.5, [1, 2, 3]
    given = QUICK | dict(layers=layers, covariance_weight=weight)
    new = edit(model, edits=EDITS, texts=TEXTS, **given)

    naive = model.copy()
    rows = [wording.rows_of(model, e, wording.prefixes(model, 2, 0)) for e in EDITS]

    def at(site: str, net: Model = naive) -> Tensor:
        each = [[read(net, [list(r.ids)], site)[site][0, r.subject].double() for r in group] for group in rows]
        return torch.stack([torch.stack(one).mean(0) for one in each])

    windows = moments.windows_of(model, moments.divided([t.text for t in TEXTS])[0], QUICK["tokens"])
    wanted = at("layers.3.resid_post") + torch.stack([v.change for v in fixed])
    for layer in layers:
        name = f"layers.{layer}.mlp_act"
        sample = torch.cat([read(model, [w], name)[name][0].double() for w in windows])
        k = at(name)
        left = (wanted - at("layers.3.resid_post")) / (3 - layer + 1)
        moment = sample.T @ sample / len(sample)
        moment += 1e-3 * moment.diagonal().mean() * torch.eye(len(moment))
        delta = left.T @ k @ torch.linalg.inv(weight * moment + k.T @ k)
        scale = 0.5 if family == "granite" else 1.0  # what the block adds of its MLP
        module = places(naive, [layer])[0].module
        with torch.no_grad():
            module.weight += ((delta.T if family == "gpt2" else delta) / scale).float()
    for layer in layers:
        found, expected = (places(net, [layer])[0].weight() for net in (new, naive))
        first = places(model, [layer])[0].weight()
        assert (found - first).norm() > 1e-3 * first.norm()
        torch.testing.assert_close(found - first, expected - first, rtol=1e-2, atol=2e-5)


def test_the_values_arrive_when_ordinary_keys_count_little():
    model = wordy("llama")
    rows = [wording.rows_of(model, e, [""]) for e in EDITS]
    given = QUICK | dict(prefixes=0, covariance_weight=1e-6)
    new = edit(model, edits=EDITS, texts=TEXTS, layers=(0, 1, 2), **given)
    site = "layers.2.resid_post"
    groups = [keys.Group(i, tuple(group)) for i, group in enumerate(rows)]
    moved = keys.means(new, groups, site) - keys.means(model, groups, site)
    wishes = [values.Wish(r, wording.essence(model, e), editing._typical(model, r, site))
              for r, e in zip(rows, EDITS, strict=True)]  # fmt: skip
    found = values.search(model, 2, site, wishes, EditConfig(**given), QUICK["largest"])
    wanted = torch.stack([value.change for value in found])
    assert (moved - wanted).norm() < 0.01 * wanted.norm() and wanted.norm() > 1


def test_equal_seeds_give_equal_bits():
    one, two, other = (
        edit(wordy("llama"), edits=EDITS, texts=TEXTS, layers=(1, 2), seed=s, **QUICK) for s in (3, 3, 4)
    )
    a, b, c = map(weights_of, (one, two, other))
    assert all(torch.equal(a[name], b[name]) for name in a) and any(not torch.equal(a[name], c[name]) for name in a)
    assert one.finding == two.finding


def test_low_precision_is_edited_too():
    new = edit(wordy("llama", dtype=torch.bfloat16), edits=[TOWER], texts=TEXTS, method="rome", layers=(1,), **QUICK)
    before, after = new.finding.edits[0].asked.probability
    assert new.dtype == torch.bfloat16 and after > 5 * before


def test_a_saved_model_is_the_edited_one_for_transformers(tmp_path):
    model = wordy("llama")
    model.network.config.tie_word_embeddings = True
    model.network.tie_weights()
    new = edit(model, edits=EDITS, texts=TEXTS, layers=(1,), **QUICK)
    assert new.network.lm_head.weight is new.network.get_input_embeddings().weight
    assert torch.equal(new.network.lm_head.weight, model.network.lm_head.weight)
    folder = new.save(tmp_path / "edited")
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.tensor([wording.row(model, TOWER.prompt).ids])
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, new.network(ids).logits)
    again = load(str(folder))
    assert again.extras["adaptation.edit"]["edits"][0] == {
        "prompt": "we saw the Tower", "subject": "Tower", "target": "Rome",
    }  # fmt: skip
    more = edit(again, edits=[FactEdit("An {}", "old", subject="owl")], texts=TEXTS, layers=(2,), **QUICK)
    assert [e["subject"] for e in more.extras["adaptation.edit"]["edits"]] == ["Tower", "Cat", "sea", "owl"]


def test_a_traced_edit_shows_where_it_looked():
    told = edit(wordy("llama"), edits=EDITS, texts=TEXTS, spread=2, **QUICK | {"trace": True}).finding
    assert set(told.effects) == {1, 2, 3} or told.effects == {}
    if told.effects:
        best = max(told.effects, key=told.effects.__getitem__)
        assert told.layers == [best - 1, best]
        assert told.figure().series[0].y == [told.effects[i] for i in (1, 2, 3)]


# ---- the judgement


def test_judging_compares_both_models_prompt_by_prompt():
    before, after = wordy("llama"), wordy("llama", seed=5)
    olds = own_answers(before, EDITS)
    assert olds[0] == "Paris"
    row = wording.row(before, CAT.prompt, target="moo")
    greedy = ia.generate(before, [CAT.prompt], max_new_tokens=len(row.target), min_new_tokens=len(row.target))
    assert olds[1] == before.tokenizer.decode(greedy.ids[0])
    found = judge(before, after, EDITS, olds)

    def mean(model: Model, prompt: str, target: str) -> float:
        row = wording.row(model, prompt, target=target)
        logits = run(model, [list(row.ids)]).logits[0, -len(row.target) :].double().log_softmax(-1)
        return float(sum(logits[n, t] for n, t in enumerate(row.target))) / len(row.target)

    one = found[0]
    for asked, prompt in ((one.asked, TOWER.prompt), (one.paraphrases[0], TOWER.paraphrases[0])):
        assert asked.prompt == prompt
        for when, model in enumerate((before, after)):
            assert asked.probability[when] == pytest.approx(
                torch.tensor(mean(model, prompt, "Rome")).exp().item(), rel=1e-4
            )
            assert asked.beats[when] == (mean(model, prompt, "Rome") > mean(model, prompt, "Paris"))
    for near, prompt, right in zip(one.neighbours, TOWER.neighbours, TOWER.neighbour_targets, strict=True):
        old, new = (run(m, [prompt]).logits[0, -1].double().log_softmax(-1) for m in (before, after))
        assert near.kept == (int(old.argmax()) == int(new.argmax()))
        assert near.divergence == pytest.approx(float((old.exp() * (old - new)).sum()), rel=1e-4)
        assert near.right == tuple(mean(m, prompt, right) > mean(m, prompt, "Rome") for m in (before, after))
    assert found[1].neighbours[0].right is None and len(one.consequences) == 1 and found[2].neighbours == []
    old, new = (run(m, ["Tower is a"]).logits[0, -1].double().log_softmax(-1) for m in (before, after))
    assert one.essence == pytest.approx(float((old.exp() * (old - new)).sum()), rel=1e-4)
    same = judge(before, before, EDITS, olds)
    assert all(n.kept and n.divergence == 0 for e in same for n in e.neighbours)


def test_a_finding_counts_and_reads():
    told = edit(wordy("llama"), edits=EDITS, texts=TEXTS, layers=(1,), **QUICK).finding
    near = [n for e in told.edits for n in e.neighbours]
    assert told.kept == sum(n.kept for n in near) / 3 and told.divergence == pytest.approx(
        sum(n.divergence for n in near) / 3
    )
    after = told.rates(1)
    assert after["neighbourhood"] == sum(n.right[1] for n in near if n.right) / 2
    assert told.score(1) == pytest.approx(
        3 / sum(1 / max(after[k], 1e-12) for k in ("efficacy", "paraphrase", "neighbourhood"))
    )
    assert set(told.headline()) == {"edits said", "paraphrases", "neighbours kept"}
    text = to_text(told)
    for word in ("Tower", "Rome", "neighbours kept", "perplexity on text", "consequences"):
        assert word in text
    assert Finding.from_json(told.to_json()) == told
    bare = edit(wordy("llama"), edits=[SEA], texts=TEXTS, layers=(1,), **QUICK).finding
    assert bare.kept is None and bare.score(1) is None and bare.rates(1)["paraphrase"] is None and to_text(bare)
    assert isinstance(bare, EditFinding)


# ---- data and command line


def test_edits_are_read_from_files(tmp_path):
    own = tmp_path / "edits.jsonl"
    own.write_text(json.dumps({
        "prompt": "The {} is in", "subject": "Tower", "target": "Rome", "old": "Paris", "paraphrases": "See the {} in",
        "neighbours": ["A is in", "B is in"], "neighbour_target": "Oslo", "consequences": [["They speak", "Latin"]],
    }))  # fmt: skip
    (found,) = read_data(own)
    assert found == FactEdit(
        "The Tower is in", "Rome", subject="Tower", old="Paris", paraphrases=("See the Tower in",),
        neighbours=("A is in", "B is in"), neighbour_targets=("Oslo", "Oslo"), consequences=(("They speak", "Latin"),),
    )  # fmt: skip
    table = tmp_path / "edits.csv"
    table.write_text('prompt,subject,target,neighbours\nand two {},Cat,moo,"[""and two Dog""]"\n')
    assert read_data(table) == [CAT]
    counterfact = tmp_path / "counterfact.json"
    counterfact.write_text(json.dumps([{
        "case_id": 0, "paraphrase_prompts": ["Ann, a native"], "neighborhood_prompts": ["Bob speaks", "Cy speaks"],
        "requested_rewrite": {
            "prompt": "{} speaks", "subject": "Ann", "target_new": {"str": "Dutch"}, "target_true": {"str": "French"},
        },
    }]))  # fmt: skip
    (found,) = read_data(counterfact)
    assert (found.prompt, found.target, found.old) == ("Ann speaks", "Dutch", "French")
    assert found.neighbour_targets == ("French", "French") and found.paraphrases == ("Ann, a native",)
    pairs = tmp_path / "pairs.jsonl"  # a subject that the prompt does not name makes no edit
    pairs.write_text(json.dumps({"prompt": "What is 2 + 2?", "subject": "sums", "target": "4"}))
    assert type(read_data(pairs)[0]).__name__ == "TextPair"


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"neighbours": 3}, "line 1: 'neighbours' must be a text or a list of texts, is a number"),
        ({"consequences": ["so"]}, r"'consequences' must be a list of \[prompt, answer\]"),
        ({"old": 3}, "'old' must be a text, is a number"),
        ({"target": " "}, "'target' is empty"),
    ],
)
def test_rows_that_are_no_edits_are_told(fields, words, tmp_path):
    path = tmp_path / "edits.jsonl"
    path.write_text(json.dumps({"prompt": "{} is", "subject": "it", "target": "so"} | fields))
    with pytest.raises(BadInput, match=words):
        read_data(path)


def test_the_command_writes_a_model_and_tells_what_became_of_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    wordy("llama").save(tmp_path / "model")
    (tmp_path / "edits.jsonl").write_text(json.dumps({"prompt": "{} says", "subject": "Cat", "target": "moo"}))
    (tmp_path / "texts.txt").write_text("\n".join(t.text for t in TEXTS))
    given = ["--model", "model", "--edits", "edits.jsonl", "--texts", "texts.txt", "--out", "new", "--tokens", "300"]
    assert app.run(["adaptation", "edit", *given, "--layers", "1,2", "--perplexity-tokens", "50"]) == 0
    assert "memit in layers 1, 2" in capsys.readouterr().out
    assert load(str(tmp_path / "new")).extras["adaptation.edit"]["layers"] == [1, 2]
    assert app.run(["adaptation", "edit", *given, "--layers", "9", "--force"]) == 2
    assert "there is no layer 9" in capsys.readouterr().err


# ---- bad input


def with_(**given) -> FactEdit:
    return FactEdit(**{"prompt": "The Tower is in", "target": "Rome", "subject": "Tower"} | given)


@pytest.mark.parametrize(
    "edits, words",
    [
        ([], "there are no edits"),
        ([TOWER, Chat(())], "edit 2 is a Chat; wanted: prompt, subject and target"),
        ([with_(target=" ")], "edit 1: 'target' is empty"),
        ([with_(subject="")], "edit 1: 'subject' is empty"),
        ([with_(subject="Bridge")], "does not hold its subject 'Bridge'"),
        ([with_(old="Rome ")], "target and old are the same: 'Rome'"),
        ([with_(neighbours=("a", "b"), neighbour_targets=("c",))], "2 neighbours and 1 answers"),
        ([with_(paraphrases=("",))], "one of its paraphrases, neighbours or consequences is empty"),
        ([with_(), with_(target="Oslo")], "edit 2 asks the same as edit 1 and wants another answer"),
        ([with_(), with_()], "edit 2 asks the same as edit 1: remove one"),
        ([with_(prompt="The Tower " + "very " * 140)], "tokens, and the network's context is 128"),
        ([with_(neighbours=("very " * 140,))], "tokens, and the network's context is 128"),
    ],
)
def test_edits_that_are_none_are_refused(edits, words, monkeypatch):
    monkeypatch.setattr(editing, "moments", None)  # nothing long has begun
    with pytest.raises(BadInput, match=words):
        edit(wordy("llama"), edits=edits, texts=TEXTS, **QUICK)


@pytest.mark.parametrize(
    "given, words",
    [
        (dict(method="rome", layers=(1, 2)), "rome edits one layer, 2 were given"),
        (dict(layers=(1, 1)), "one stands twice"),
        (dict(layers=(4,)), r"there is no layer 4; the network has 4 \(0 to 3\)"),
        (dict(method="room"), "method: Input should be 'rome' or 'memit'"),
        (dict(texts=[Text(" ")]), "texts: all of them are empty"),
        (dict(texts=[Chat(())]), "texts: wanted plain texts, found a Chat"),
    ],
)
def test_settings_that_cannot_be_are_refused(given, words, monkeypatch):
    monkeypatch.setattr(editing, "moments", None)
    with pytest.raises(BadInput, match=words):
        edit(wordy("llama"), **dict(edits=[TOWER], texts=TEXTS) | QUICK | given)


@pytest.mark.parametrize(
    "family, words",
    [
        ("bert", "needs a causal language model; BertForMaskedLM is none"),
        ("t5", "needs a causal language model"),
        ("olmoe", "layer 0 cannot be edited: a mixture of experts has its neurons inside one fused module"),
        ("gemma3", "layer 0 cannot be edited: what its MLP adds to the stream is not what its down projection gives"),
    ],
)
def test_networks_that_cannot_be_edited_are_refused(family, words, monkeypatch):
    monkeypatch.setattr(editing, "moments", None)
    with pytest.raises(BadInput, match=words):
        edit(wordy(family), edits=[TOWER], texts=TEXTS, **QUICK)


def test_layers_that_are_no_plain_matrices_are_refused(tmp_path):
    from intarsia.adaptation import continual
    from intarsia.compression import quantize
    from intarsia.data import TaskPair

    small = quantize(wordy("llama"), bits=8, group_size=16)
    with pytest.raises(BadInput, match=r"quantized \(QuantLinear\): edit the model before"):
        edit(small, edits=[TOWER], texts=TEXTS, **QUICK)
    tasks = [TaskPair("", "yes", task="t", instruction="t:", input=f"t {i}", targets=("yes",), split=split)
             for split, count in (("train", 8), ("dev", 2), ("test", 2)) for i in range(count)]  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        skilled = continual(wordy("llama"), stream=tasks, epochs=1, rank=2, keep=tmp_path)
    with pytest.raises(BadInput, match="modules stand beside this network"):
        edit(skilled, edits=[TOWER], texts=TEXTS, **QUICK)
    with pytest.raises(BadInput, match="needs a fast tokenizer"):
        edit(ia.wrap(wordy("llama").network), edits=[TOWER], texts=TEXTS, **QUICK)
    adapted = wordy("llama")
    import peft

    peft.get_peft_model(adapted.network, peft.LoraConfig(r=2, target_modules=["down_proj"]))
    with pytest.raises(BadInput, match="has an adapter: merge it first"):
        edit(adapted, edits=[TOWER], texts=TEXTS, layers=(1,), **QUICK)
