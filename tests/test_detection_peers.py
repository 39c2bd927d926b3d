"""Published methods that ask further models: DetectGPT, NPR, DNA-GPT, RAIDAR."""

import copy
import math
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
import transformers as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from intarsia.data import Document
from intarsia.detection.methods import Engines, find_method, methods
from intarsia.detection.peers import perturbing
from intarsia.detection.peers.detectgpt import Perturbed, detectgpt, npr, perturbed_texts, whole_words
from intarsia.detection.peers.dna_gpt import Regenerated, dna_gpt, dna_gpt_black, regenerate, white_box
from intarsia.detection.peers.drawing import drawn, unkept
from intarsia.detection.peers.overlapping import overlap_score, overlaps, words_of
from intarsia.detection.peers.perturbing import filled, masked, matching_fills, perturb, place_gaps
from intarsia.detection.peers.raidar import PROMPTS, feature_names, left_of, rewriting_features, word_ratio
from intarsia.detection.statistics import Kept
from intarsia.detection.writing import LocalWriter
from intarsia.errors import BadInput
from intarsia.models import wrap
from tests.tiny import tiny, tokenizer

WORDS = "a bc d ef g hi j kl m no p qr s tu v wx y za b cd e fg h ij k lm n op q rs"  # 30 words, 74 letters
FILLS = [f"{letter}{n}" for n in range(24) for letter in "xy"]


def documents(*texts):
    return [Document(text) for text in texts]


# --- fillers whose answers are known ---------------------------------------------------------------------------------


def chain(follows):
    """A T5 whose every next token hangs on the last one alone: `follows` maps a token to those that may come next, all
    as probable. It reads nothing; its one feed-forward is a table from the last token to the next."""
    marks = [f"<extra_id_{n}>" for n in range(30)]
    vocabulary = {token: i for i, token in enumerate(["<pad>", "</s>", "<unk>", *marks, *FILLS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = tf.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=marks,
    )
    size = len(vocabulary)
    config = tf.T5Config(
        vocab_size=size, d_model=2 * size, d_kv=4, d_ff=size, num_layers=1, num_decoder_layers=1, num_heads=1,
        pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
    )  # fmt: skip
    network = tf.T5ForConditionalGeneration(config).eval()
    table = torch.zeros(size, size)
    for token, after in follows.items():
        for one in after:
            table[vocabulary[token], vocabulary[one]] = 100
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.fill_(1 if "norm" in name else 0)
        # The stream holds the last token twice: the first half is read, and the second written over and spoken.
        network.shared.weight.copy_(torch.eye(size).repeat(1, 2))
        feed = network.decoder.block[0].layer[-1].DenseReluDense
        feed.wi.weight[:, :size] = torch.eye(size)
        feed.wo.weight[size:] = table.T
        network.decoder.final_layer_norm.weight.copy_(torch.tensor([0.0, 1000.0]).repeat_interleave(size))
    return wrap(network, made, name="chain")


def filling(wrong=False):
    """Fills gap n with `xn` or `xn yn`; a `wrong` one ends too early every second time."""
    follows = {"<pad>": ["<extra_id_0>"]}
    for n in range(24):
        follows[f"<extra_id_{n}>"] = [f"x{n}"]
        follows[f"x{n}"] = [f"y{n}", f"<extra_id_{n + 1}>"]
        follows[f"y{n}"] = [f"<extra_id_{n + 1}>"]
    if wrong:
        follows["x0"] = ["</s>", "<extra_id_1>"]
    return chain(follows)


@pytest.fixture(scope="module")
def filler():
    return filling()


@pytest.fixture(scope="module")
def random_filler():
    """A T5 of random weights: its answers match no gaps."""
    model = tiny("t5")
    model.tokenizer.add_tokens([f"<extra_id_{n}>" for n in range(30)], special_tokens=True)
    return model


@pytest.fixture(scope="module")
def llama():
    return tiny("llama")


@pytest.fixture(scope="module")
def kept(llama):
    return Kept(llama, path=None)


# --- gaps ------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 120), st.integers(0, 2**31), st.integers(1, 4), st.integers(0, 3), st.floats(0, 1))
def test_gaps_lie_within_the_text_and_apart(words, seed, span, buffer, share):
    starts = place_gaps(words, np.random.default_rng(seed), span=span, buffer=buffer, share=share)
    assert starts == sorted(starts)
    assert all(start in range(words - span + 1) for start in starts)
    assert all(b - (a + span) >= buffer for a, b in pairwise(starts))
    assert len(starts) <= int(share * words / (span + 2 * buffer))


def test_the_number_of_gaps():
    rng = np.random.default_rng(0)
    assert [len(place_gaps(words, rng)) for words in (0, 1, 2, 13, 14, 26, 27, 100)] == [0, 0, 0, 0, 1, 1, 2, 7]


def test_placing_ends_where_no_gap_fits_any_more():
    # Six words hold two gaps of two at most, and one where the first lies badly; four are asked for.
    for seed in range(30):
        starts = place_gaps(6, np.random.default_rng(seed), span=2, buffer=1, share=3.0)
        assert 1 <= len(starts) <= 2
    assert place_gaps(1, np.random.default_rng(0), span=2, buffer=0, share=9.0) == []
    assert place_gaps(2, np.random.default_rng(0), span=2, buffer=0, share=9.0) == [0]


def test_gaps_are_as_even_as_by_trial():
    """Drawing from what is left is drawing until it fits."""

    def by_trial(rng):
        starts = []
        while len(starts) < 2:
            start = int(rng.integers(0, 9))
            if all(start >= s + 3 or start + 3 <= s for s in starts):
                starts.append(start)
        return tuple(sorted(starts))

    rng = np.random.default_rng(0)
    ours = Counter(tuple(place_gaps(10, rng, share=0.8)) for _ in range(8000))
    theirs = Counter(by_trial(rng) for _ in range(8000))
    assert set(ours) == set(theirs)
    assert all(abs(ours[key] - theirs[key]) < 5 * math.sqrt(ours[key] + theirs[key]) for key in ours)


def test_masks_and_fills():
    words = ["one", "two", "three", "", "four\nfive", "six"]
    assert masked(words, [1, 4]) == "one <extra_id_0>  <extra_id_1>"
    assert filled(words, [1, 4], ["2 3", "end"]) == "one 2 3  end"
    assert filled(words, [0], [""]) == "three  four\nfive six"
    assert filled(words, [], []) == "one two three  four\nfive six"


@pytest.mark.parametrize(
    ("answer", "fills"),
    [
        ([10, 1, 11, 2, 3, 12], ["1", "2 3"]),
        ([7, 10, 1, 11, 2, 12, 5, 0, 0], ["1", "2"]),  # what stands before and after counts for nothing
        ([10, 11, 12], ["", ""]),
        ([10, 1, 11, 2], None),  # the end is missing
        ([10, 1, 12, 2, 11], None),  # out of order
        ([11, 1, 12], None),
        ([], None),
    ],
)
def test_answers_match_or_do_not(answer, fills):
    assert matching_fills(answer, [10, 11, 12], lambda ids: " ".join(map(str, ids)) + " ") == fills


# --- perturbations ---------------------------------------------------------------------------------------------------


def test_perturbations_are_the_words_with_fills_in_gaps(filler):
    words = WORDS.split(" ")
    made = perturb(filler, WORDS, 40, seed=1)
    assert len(made) == 40 and len(set(made)) > 35
    lengths = set()
    for text in made:
        out = text.split(" ")
        at = 0
        for n in range(2):  # int(0.3 * 30 / 4)
            start = out.index(f"x{n}")
            assert out[at:start] == words[: start - at] and start >= at
            words = words[start - at + 2 :]
            at = start + 1 + (f"y{n}" in out)
        assert out[at:] == words
        words = WORDS.split(" ")
        lengths.add(len(out))
    assert lengths == {28, 29, 30}  # fills of one word and of two


def test_perturbations_depend_on_text_and_seed_alone(filler):
    assert perturb(filler, WORDS, 5, seed=1) == perturb(filler, WORDS, 5, seed=1)
    assert perturb(filler, WORDS, 5, seed=1) != perturb(filler, WORDS, 5, seed=2)
    assert perturb(filler, WORDS, 5, seed=1) != perturb(filler, WORDS + " rs", 5, seed=1)


def test_top_p_reaches_the_filler():
    follows = {"<pad>": ["<extra_id_0>"], "<extra_id_0>": ["x0", "x1", "x2", "x3"]}
    model = chain(follows | {f"x{n}": ["<extra_id_1>"] for n in range(4)})
    text = " ".join("abcdefghijklmnop")
    assert len({set(one.split()).intersection(FILLS).pop() for one in perturb(model, text, 40)}) == 4
    assert len({set(one.split()).intersection(FILLS).pop() for one in perturb(model, text, 40, top_p=0.2)}) == 1


def test_answers_that_do_not_match_are_drawn_again():
    text = " ".join("abcdefghijklmnop")
    made = perturb(filling(wrong=True), text, 30, seed=0)
    assert len(made) == 30  # each fails with one half: 2^-10 that one is left
    assert all("x0" in one.split() for one in made)


def test_fills_that_never_match_end(random_filler, kept, monkeypatch):
    monkeypatch.setattr(perturbing, "TRIES", 2)
    made = perturb(random_filler, WORDS, 3)
    assert made == []
    engines = Engines(kept=kept, filler=random_filler, perturbations=3)
    assert np.isnan(detectgpt(documents(WORDS), engines)).all()
    assert np.isnan(npr(documents(WORDS), engines)).all()


def test_a_perturbation_whose_one_piece_never_matches_is_left_out(monkeypatch, filler):
    monkeypatch.setattr(perturbing, "PIECE", 20)
    monkeypatch.setattr(perturbing, "TRIES", 1)
    found = perturb(filling(wrong=True), " ".join(["w"] * 60), 40, seed=0)
    assert 0 < len(found) < 20  # three pieces, each with one half
    assert all(one.split().count("x0") == 3 for one in found)


def test_long_texts_are_filled_in_pieces(monkeypatch, filler):
    monkeypatch.setattr(perturbing, "PIECE", 30)
    text = " ".join(f"w{n}" for n in range(100))  # four pieces of 25 words, each with one gap
    made = perturb(filler, text, 3)
    for one in made:
        assert one.split().count("x0") == 4
        left = [word for word in one.split() if word.startswith("w")]
        assert len(left) == 92 and left == sorted(left, key=lambda word: int(word[1:]))


def test_line_breaks_and_double_spaces_stay(filler):
    text = "\n".join([WORDS, WORDS]) + "  " + WORDS
    for one in perturb(filler, text, 5):
        assert one.count("\n") + one.count("  ") >= 1
        assert sum(one.count(word) for word in FILLS) == 0 or "x0" in one


def test_signs_without_blanks_are_words():
    text = "这是一个没有空格的句子吗"
    (made,) = regenerate([text], Engines(writer=Scripted("有" * 9), regenerations=1), "dna_gpt")
    assert made.first == text[:6] and made.rest == text[6:]


@pytest.mark.parametrize("text", ["", "one", "one two", " ".join(["w"] * 13), "这是一个没有空格的句子"])
def test_texts_too_short_for_a_gap(filler, kept, text):
    assert perturb(filler, text, 3) == []
    engines = Engines(kept=kept, filler=filler, perturbations=3)
    assert np.isnan(detectgpt(documents(text), engines)).all()
    assert np.isnan(npr(documents(text), engines)).all()


def test_a_filler_that_is_none(llama, kept):
    with pytest.raises(BadInput, match="is no encoder-decoder"):
        perturb(llama, WORDS, 2)
    with pytest.raises(BadInput, match="is no encoder-decoder"):
        perturb(wrap(tiny("t5").network), WORDS, 2)
    with pytest.raises(BadInput, match="has no token <extra_id_0>"):
        perturb(tiny("t5"), WORDS, 2)
    with pytest.raises(BadInput, match="detectgpt needs a scoring model"):
        detectgpt(documents(WORDS), Engines())
    with pytest.raises(BadInput, match="npr needs a model that fills gaps"):
        npr(documents(WORDS), Engines(kept=kept))


# --- DetectGPT and NPR -----------------------------------------------------------------------------------------------


def naive(model, text, after=0):
    """Log-probabilities and ranks of the tokens of a text that begin at a character or later, one by one."""
    ids = model.tokenizer(text)["input_ids"]
    with torch.no_grad():
        logits = model.network(torch.tensor([ids])).logits[0].double()
    values, ranks, at = [], [], len(model.tokenizer.decode(ids[:1]))
    for i in range(1, len(ids)):
        row = logits[i - 1].log_softmax(-1)
        if at >= after:
            values.append(float(row[ids[i]]))
            ranks.append(1 + int((row > row[ids[i]]).sum()))
        at = len(model.tokenizer.decode(ids[: i + 1]))
    return values, ranks


def test_scores_are_those_of_a_naive_loop(llama, kept, filler):
    texts = [WORDS, WORDS[::-1], WORDS.upper()]
    engines = Engines(kept=kept, filler=filler, perturbations=6, seed=3)
    wanted, ratios = [], []
    for text in texts:
        own, own_ranks = naive(llama, text)
        others = [naive(llama, one) for one in perturb(filler, text, 6, seed=3)]
        means = [sum(values) / len(values) for values, _ in others]
        mean = sum(means) / 6
        deviation = math.sqrt(sum((m - mean) ** 2 for m in means) / 6)
        wanted.append((sum(own) / len(own) - mean) / deviation)
        ranks = [sum(math.log(r) for r in ranks) / len(ranks) for _, ranks in others]
        ratios.append(sum(ranks) / 6 / (sum(math.log(r) for r in own_ranks) / len(own_ranks)))
    np.testing.assert_allclose(detectgpt(documents(*texts), engines), wanted, rtol=1e-3)
    np.testing.assert_allclose(npr(documents(*texts), engines), ratios, rtol=1e-5)


def test_a_document_has_its_score_whatever_else_is_scored(kept, filler):
    texts = [WORDS, "one", WORDS[::-1], WORDS]
    engines = Engines(kept=kept, filler=filler, perturbations=4)
    together = detectgpt(documents(*texts), engines)
    assert together[0] == together[3] and np.isnan(together[1])
    alone = [detectgpt(documents(t), Engines(kept=kept, filler=filler, perturbations=4))[0] for t in texts]
    np.testing.assert_allclose(together, alone, rtol=1e-4)


def test_only_the_scored_part_counts(llama, kept, filler):
    engines = Engines(kept=kept, filler=filler, perturbations=4, tokens=52)
    cut = llama.tokenizer.decode(llama.tokenizer(WORDS)["input_ids"][:53]).rsplit(" ", 1)[0]
    more = Engines(kept=kept, filler=filler, perturbations=4, tokens=None)
    np.testing.assert_allclose(
        detectgpt(documents(WORDS, WORDS + " tail"), engines), [detectgpt(documents(cut), more)[0]] * 2, rtol=1e-4
    )


@pytest.mark.parametrize(
    ("text", "end", "cut"),
    [
        ("one two", 7, "one two"),
        ("one two", 3, "one"),
        ("one two", 5, "one"),
        ("one two", 4, "one"),
        ("one\ntwo three", 8, "one\ntwo"),
        ("oneword", 3, "one"),
        ("", 0, ""),
    ],
)
def test_whole_words(text, end, cut):
    assert whole_words(text, end) == cut


def test_both_methods_share_their_perturbations(kept, filler, monkeypatch):
    calls = []
    monkeypatch.setattr("intarsia.detection.peers.detectgpt.perturb", lambda *a, **k: calls.append(a) or [WORDS])
    engines = Engines(kept=kept, filler=filler)
    detectgpt(documents(WORDS, WORDS), engines)
    npr(documents(WORDS), engines)
    assert len(calls) == 1
    engines.seed = 1
    npr(documents(WORDS), engines)
    engines.filler = copy.copy(filler)
    npr(documents(WORDS), engines)
    assert len(calls) == 3
    npr(documents(WORDS), Engines(kept=kept, filler=filler))
    assert len(calls) == 4


def test_perturbations_by_hand():
    one = Perturbed(-2.0, 0.5, 10, np.array([-3.0, -5.0]), np.array([1.0, 2.0]))
    assert one.discrepancy == 2.0  # (-2 + 4) / 1
    assert one.rank_ratio == 3.0
    assert (
        Perturbed(-2.0, 0.5, 10, np.array([-3.0]), np.array([1.0])).discrepancy == 1.0
    )  # a deviation of 0 counts as 1
    sure = Perturbed(0.0, 0.0, 10, np.array([-1.0]), np.array([0.5]))
    assert sure.rank_ratio == pytest.approx(0.5 / (math.log(2) / 10))
    none = Perturbed(-2.0, 0.5, 10, np.empty(0), np.empty(0))
    assert math.isnan(none.discrepancy) and math.isnan(none.rank_ratio)


def test_nothing_drawn_is_written_to_the_file(llama, filler, tmp_path):
    import sqlite3

    kept = Kept(llama, path=tmp_path / "kept.sqlite")
    detectgpt(documents(WORDS), Engines(kept=kept, filler=filler, perturbations=3))
    with sqlite3.connect(kept.path) as file:
        assert file.execute("select count(*) from kept").fetchone() == (1,)
    assert unkept(kept).path is None and kept.path is not None


def test_numbers_that_make_no_sense(kept, filler):
    with pytest.raises(BadInput, match="perturbations is 0"):
        perturbed_texts([WORDS], Engines(kept=kept, filler=filler, perturbations=0), "npr")
    assert perturbed_texts([], Engines(kept=kept, filler=filler), "npr") == []


def test_what_is_drawn_holds_its_sources():
    """An object that is gone leaves its id to the next one, which must not get what was drawn from it."""
    engines = Engines()
    for n in range(50):
        source = object()
        assert drawn(engines, (source,), "same", lambda n=n: n) == n
        del source


# --- DNA-GPT ---------------------------------------------------------------------------------------------------------


class Scripted:
    """Writes what it was told to, in turn, and remembers what it was asked."""

    name = "scripted"

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def write(self, prompts, *, most_tokens, temperature=1.0, top_p=1.0, seed=0, chat=True):
        self.asked.append((list(prompts), most_tokens, temperature, top_p, seed, chat))
        return [self.answers.pop(0) for _ in prompts]


def test_texts_are_cut_in_their_middle_and_continued():
    text = "one two  three\nfour five six seven eight nine"
    writer = Scripted(" A b c d e", " F g h i j", " K l m n o")
    (made,) = regenerate([text], Engines(writer=writer, regenerations=3, seed=1), "dna_gpt")
    assert (made.first, made.rest) == ("one two  three\nfour", " five six seven eight nine")
    assert made.continuations == (" A b c d e", " F g h i j", " K l m n o")
    ((prompts, most, temperature, top_p, _, chat),) = writer.asked
    assert prompts == ["one two  three\nfour"] * 3
    assert (most, temperature, top_p, chat) == (26, 1.0, 1.0, False)


def test_continuations_that_are_too_short_are_drawn_again():
    text = " ".join(["w"] * 20)
    long, short = " a" * 10, " b" * 9
    writer = Scripted(short, long, short, "", "", "", " ")
    engines = Engines(writer=writer, regenerations=3)
    (made,) = regenerate([text], engines, "dna_gpt")
    assert made.continuations == (short, long, short)  # the longest that there was
    assert [len(prompts) for prompts, *_ in writer.asked] == [3, 2, 2]
    assert len({seed for *_, seed, _ in writer.asked}) == 3
    assert regenerate([text], engines, "dna_gpt_black")[0] is made  # drawn once for both
    silent = Engines(writer=Scripted(*[""] * 6), regenerations=2)
    (none,) = regenerate([text], silent, "dna_gpt")
    assert none.continuations == ()
    assert np.isnan(dna_gpt_black(documents(text), silent)).all()


def test_at_least_55_words_and_at_most_200_tokens():
    enough = " a" * 5  # 50 of the first half and 5
    writer = Scripted(enough)
    engines = Engines(writer=writer, regenerations=1, tokens=None)
    regenerate([" ".join(["w"] * 100)], engines, "dna_gpt")
    assert [most for _, most, *_ in writer.asked] == [116]
    writer.answers = [enough]
    regenerate([" ".join(["w"] * 400)], engines, "dna_gpt")
    assert writer.asked[-1][1] == 200


def test_of_a_long_text_its_beginning_counts():
    writer = Scripted(" a" * 60)
    text = " ".join(f"w{n}" for n in range(300))
    (made,) = regenerate([text], Engines(writer=writer, regenerations=1, tokens=128), "dna_gpt")
    assert len(made.text.split()) == 96 and len(made.first.split()) == 48


def test_a_text_without_blanks_is_halved_by_its_signs():
    text = "这是一个没有空格的句子吗"
    (made,) = regenerate([text], Engines(writer=Scripted("有" * 9), regenerations=1), "dna_gpt")
    assert made.first == text[:6] and made.rest == text[6:]


@pytest.mark.parametrize("text", ["", "one", "one two three four five six seven", "这是没有空格的"])
def test_texts_too_short_to_be_cut(kept, text):
    writer = Scripted()
    engines = Engines(kept=kept, writer=writer)
    assert np.isnan(dna_gpt(documents(text), engines)).all()
    assert np.isnan(dna_gpt_black(documents(text), engines)).all()
    assert writer.asked == []


def test_the_white_box_is_a_naive_loop(llama, kept):
    made = Regenerated("a b c d e f g h", 7, (" i j k l", " m n", " o p q r s t"))
    wanted = np.mean(naive(llama, made.text, after=7)[0])
    others = ["a b c d i j k l", "a b c d m n", "a b c d o p q r"]  # the last as long as the second half
    wanted -= np.mean([np.mean(naive(llama, one, after=7)[0]) for one in others])
    assert white_box(made, kept) == pytest.approx(wanted, rel=1e-4)
    whole = np.mean(naive(llama, made.text)[0]) - np.mean([np.mean(naive(llama, one)[0]) for one in others])
    assert white_box(made, kept, whole=True) == pytest.approx(whole, rel=1e-4)
    assert math.isnan(white_box(Regenerated("a b", 1, ()), kept))


def test_the_white_box_as_a_method(llama, kept):
    """By the scoring model itself, drawn ones are as probable as they are: a text that is none of its own is less."""
    engines = Engines(kept=kept, writer=LocalWriter(llama), regenerations=4)
    text = "Some words that a person wrote, as far as anybody knows."
    found = dna_gpt(documents(text, "too short", text), engines)
    (made,) = regenerate([text], engines, "dna_gpt")
    assert found[0] == found[2] == white_box(made, kept) and np.isnan(found[1])
    assert found[0] < 0
    again = Engines(kept=kept, writer=LocalWriter(llama), regenerations=4)
    assert dna_gpt(documents(text), again)[0] == found[0]
    again = Engines(kept=kept, writer=LocalWriter(llama), regenerations=4, seed=1)
    assert dna_gpt(documents(text), again)[0] != found[0]


def test_engines_that_are_missing(kept):
    with pytest.raises(BadInput, match="dna_gpt needs a scoring model"):
        dna_gpt(documents(WORDS), Engines(writer=Scripted()))
    with pytest.raises(BadInput, match="dna_gpt needs a model that writes"):
        dna_gpt(documents(WORDS), Engines(kept=kept))
    with pytest.raises(BadInput, match="dna_gpt_black needs a model that writes"):
        dna_gpt_black(documents(WORDS), Engines())
    with pytest.raises(BadInput, match="regenerations is 0"):
        dna_gpt_black(documents(WORDS), Engines(writer=Scripted(), regenerations=0))


# --- shared words ----------------------------------------------------------------------------------------------------


def test_the_black_box_by_hand():
    # One 5-gram and both 4-grams of the rest are in the first continuation of 7 words; one 4-gram in the second of 4.
    rest, others = "A b, c d e!", ["z A B C D E z", "b c d e"]
    first = (5 * math.log(5) * 1 / 1 + 4 * math.log(4) * 2 / 2) / 7
    second = 4 * math.log(4) * 1 / 2 / 4
    assert overlap_score(rest, others) == pytest.approx((first + second) / 2)
    assert overlap_score(rest, ["nothing of it here at all"]) == 0


def test_the_form_of_the_code_by_hand():
    # Words of the rest: a b c d a b c d e (9), of the other: a b c d x a b c d e (10).
    rest, other = "a b c d. A b c d e", "a B c d x a b c d e"
    # 4-grams of the rest: abcd, bcda, cdab, dabc, abcd, bcde; shared with their counts: abcd twice, bcde: 3 of 6.
    # 5-grams: 1 of 5 (abcde). Nothing longer; what is shorter weighs nothing.
    wanted = (4 * math.log(4) * 3 / 6 + 5 * math.log(5) * 1 / 5) / 10 / (4 + 5 + 1e-8)
    assert overlap_score(rest, [other], "code") == pytest.approx(wanted, rel=1e-12)
    # With two entries for every n, 2 counts as 3 and weighs nothing, 3 as 5, 4 as 7, 5 as 9. 3-grams: of 7, abc twice,
    # bcd twice, cde once.
    weights = {n: (2 * n - 1) * math.log(2 * n - 1) for n in (3, 4, 5)}
    wanted = (weights[3] * 5 / 7 + weights[4] * 3 / 6 + weights[5] * 1 / 5) / 10 / (5 + 7 + 9 + 1e-8)
    assert overlap_score(rest, [other], "code", entries=2) == pytest.approx(wanted, rel=1e-12)
    assert overlap_score(rest, [other, "x", "..."], "code") == pytest.approx(
        overlap_score(rest, [other], "code") / 2  # one without a match, and one without words, which does not count
    )


def test_the_forms_differ_in_what_a_word_is():
    rest = "größe über alles ist naïve"
    assert overlap_score(rest, [rest.upper()]) > 0
    assert overlap_score("walking the dogs slowly", ["walks the dog slow"], "code") == 0
    stemmed = overlap_score("walking the dogs slowly", ["walks the dog slow"], "code", stem=lambda word: word[:3])
    assert stemmed > 0


def test_n_grams_end_at_25_words():
    rest = " ".join(f"w{n}" for n in range(40))
    wanted = sum(n * math.log(n) for n in range(4, 26)) / 40
    assert overlap_score(rest, [rest]) == pytest.approx(wanted)
    code = sum(n * math.log(n) for n in range(4, 25)) / 40 / (sum(range(4, 25)) + 1e-8)
    assert overlap_score(rest, [rest], "code") == pytest.approx(code)


@pytest.mark.parametrize("form", ["paper", "code"])
def test_overlap_of_nothing(form):
    assert math.isnan(overlap_score("a b c", ["a b c d"], form))
    assert math.isnan(overlap_score("a b c d", [], form))
    assert math.isnan(overlap_score("a b c d", ["", " ..."], form))
    with pytest.raises(BadInput, match="no form"):
        overlap_score("a", ["b"], "other")


def test_shared_words_are_found_where_they_stand():
    text = "Yes: the quick, brown fox jumps. And then the lazy dog sleeps well"
    others = ["see THE QUICK BROWN FOX jumps", "quick brown fox jumps and then THE LAZY DOG", "nothing"]
    found = overlaps(text, others)
    assert [(one.text, one.words, one.continuations) for one in found] == [
        ("the quick, brown fox jumps", 5, 1),
        ("quick, brown fox jumps. And then the lazy dog", 9, 1),
    ]
    assert all(text[one.start : one.end] == one.text for one in found)
    assert overlaps(text, others, shortest=10) == []
    assert overlaps("", others) == overlaps(text, []) == overlaps(text, [""]) == []
    with pytest.raises(BadInput, match="shortest is 0"):
        overlaps(text, others, shortest=0)


@settings(deadline=None, max_examples=150)
@given(st.text("ab ", max_size=30), st.lists(st.text("ab ", max_size=30), max_size=3), st.integers(1, 4))
def test_shared_words_are_all_the_longest_ones(text, others, shortest):
    """Against every stretch of the text, tried one by one."""
    words, all_words = words_of(text), [words_of(other) for other in others]

    def shared(a, b):
        runs = (other[i : i + b - a] for other in all_words for i in range(len(other)))
        return any(run == words[a:b] for run in runs)

    runs = [(a, b) for a in range(len(words)) for b in range(a + 1, len(words) + 1) if shared(a, b)]
    longest = [r for r in runs if not any(o != r and o[0] <= r[0] and r[1] <= o[1] for o in runs)]
    places = [(a, b) for a, b in sorted(longest) if b - a >= shortest]
    found = overlaps(text, others, shortest)
    assert [one.words for one in found] == [b - a for a, b in places]
    assert [words_of(text[: one.start]) for one in found] == [words[:a] for a, _ in places]
    assert all(one.continuations >= 1 for one in found)


# --- RAIDAR ----------------------------------------------------------------------------------------------------------


def test_what_rewriting_leaves_by_hand():
    found = left_of("The cat sat on the mat", "the cat sat on a mat")
    # words: the cat sat on mat (5 different), all shared; pairs: the-cat cat-sat sat-on of 5; triples: 2 of 4; fours: 1
    # of 3.
    np.testing.assert_allclose(found[:4], [1.0, 3 / 5, 2 / 4, 1 / 3])
    # 15 letters before the change (with the space), 4 after it, of 22 and 20.
    assert found[4] == pytest.approx(2 * 19 / 42)
    assert found[5] == 1.0  # every different word of the text is in the rewriting
    np.testing.assert_allclose(left_of("a b c d e", "A b c d E"), 1)
    np.testing.assert_allclose(left_of("a b c d", ""), 0)
    np.testing.assert_allclose(left_of("one", "one"), 1)  # no pairs to share, and nothing changed
    np.testing.assert_allclose(left_of("one", "two")[:4], 0)


def test_the_ratio_of_words_does_not_mind_their_order():
    assert word_ratio(["a", "b", "c"], ["c", "a", "b"]) == 1
    assert word_ratio(["ab"], ["xy"]) == word_ratio(["ab"], []) == 0
    assert word_ratio(["new", "york"], ["york", "new", "city"]) == 1
    assert 0 < word_ratio(["abc", "def"], ["abd", "xyz"]) < 1


def test_features_of_rewritings():
    class Half:
        name = "half"

        def __init__(self):
            self.asked = []

        def write(self, prompts, *, most_tokens, temperature=1.0, top_p=1.0, seed=0, chat=True):
            self.asked.append((prompts, most_tokens, seed))
            return [prompt.rsplit("\n\n", 1)[1][: 10 + i] for i, prompt in enumerate(prompts)]

    writer = Half()
    texts = ["one two three four {prompt}", " ", "five six seven eight"]
    found = rewriting_features(texts, writer, seed=4)
    assert found.shape == (3, 42) and len(feature_names()) == 42
    assert feature_names()[0] == "rewrite.shared_1" and feature_names()[-1] == "improve.word_ratio"
    assert np.isnan(found[1]).all() and not np.isnan(found[[0, 2]]).any()
    np.testing.assert_allclose(found[0, 6:12], left_of(texts[0], texts[0][:11]))
    assert ((found[[0, 2]] >= 0) & (found[[0, 2]] <= 1)).all()
    (prompts, most, seed), (_, _, other) = writer.asked
    assert len(PROMPTS) == len(set(prompts)) == 7 and most == 42 and seed != other
    assert all(prompt.endswith(texts[0]) for prompt in prompts)
    with pytest.raises(BadInput, match="no texts to rewrite"):
        rewriting_features([], writer)


def test_features_are_repeatable_with_a_model_on_this_machine():
    llama = tiny("llama")
    llama.config.max_position_embeddings = 512  # its prompts are long for one token a letter
    first, second = (rewriting_features(["a b c"], LocalWriter(llama), seed=1) for _ in range(2))
    np.testing.assert_array_equal(first, second)


# --- the register ----------------------------------------------------------------------------------------------------


def test_peers_are_registered_without_heavy_libraries():
    assert {"detectgpt", "npr", "dna_gpt", "dna_gpt_black"} <= set(methods())
    assert find_method("detectgpt") is detectgpt
    code = (
        "import sys; from intarsia.detection.methods import methods; methods(); import intarsia.detection.writing; "
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_tiny_filler_takes_what_a_tokenizer_makes_of_gaps(random_filler):
    ids = random_filler.tokenizer("a <extra_id_0> b")["input_ids"]
    assert perturbing._marks(random_filler, 1)[0] in ids
    assert len(tokenizer()) < random_filler.config.vocab_size - 29
