"""Trimmed vocabularies: texts of kept tokens are cut as before, their logits are the original's, nothing is lost."""

import json
import random
from collections import Counter
from itertools import pairwise

import pytest
import torch
import transformers as tf
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

import intarsia as ia
from intarsia import compression
from intarsia.compression.bpe import merges_of
from intarsia.compression.vocabulary import rewriting, trimming
from intarsia.compression.vocabulary.choosing import Merges, choose
from intarsia.compression.vocabulary.technique import NAME, TrimVocabularyConfig, trim_vocabulary
from intarsia.data import Text
from intarsia.errors import IntarsiaError
from intarsia.models import wrap
from tests.failing import fails
from tests.tiny import CHAT

SPECIAL = ["<pad>", "<s>", "<|end|>", "<unk>", "<|user|>", "<|system|>", "<|assistant|>"]
GENERAL = [
    "the weather in the mountains is changing through the morning and the evening",
    "a theory of another kind of thinking, with nothing therein that is other than this",
    "numbers like 1234567 and 2024, dates, and the end of the things themselves",
    "der Himmel über der Stadt war grau und die Leute gingen schneller nach Hause",
] * 4
DOMAIN = ["the other morning the weather is nothing", "the end of the evening, and another thing", "in the mountains"]
HELD = ["the weather of the evening", "¿qué? 漢字 🎉\n\t the mountains' end, 2024", "der Himmel über the thing"]


def learned(size=600, bos=False, whole_words=False, added_last=True):
    backend = Tokenizer(models.BPE(ignore_merges=whole_words))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        GENERAL,
        trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=SPECIAL,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    if added_last:
        backend.add_tokens([AddedToken("<think>", normalized=False)])
    if bos:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="<|end|>",
        unk_token="<unk>",
        chat_template=CHAT,
        model_max_length=64,
    )


def network_of(family, rows, tied=False):
    torch.manual_seed(0)
    sizes = dict(
        vocab_size=rows, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    match family:
        case "llama":
            network = tf.LlamaForCausalLM(tf.LlamaConfig(**sizes, num_key_value_heads=2, tie_word_embeddings=tied))
        case "gpt2":
            config = tf.GPT2Config(
                vocab_size=rows, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2
            )
            network = tf.GPT2LMHeadModel(config)
        case "phi":  # a head with a bias
            network = tf.PhiForCausalLM(tf.PhiConfig(**sizes))
        case "gemma3":  # an embedding that scales its rows
            config = tf.Gemma3TextConfig(**sizes, num_key_value_heads=2, head_dim=8, query_pre_attn_scalar=8)
            network = tf.Gemma3ForCausalLM(config)
        case "encoder":
            network = tf.RobertaModel(tf.RobertaConfig(**sizes))
        case "masked":
            network = tf.RobertaForMaskedLM(tf.RobertaConfig(**sizes))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "norm" not in name.lower() and "ln_" not in name:
                parameter.normal_(0, 0.2)
    return network.eval()


def model_of(family="llama", tied=False, extra_rows=0, **settings):
    tokenizer = learned(**settings)
    return wrap(network_of(family, len(tokenizer) + extra_rows, tied), tokenizer, name="small")


def records(texts):
    return [Text(text) for text in texts]


def encode(tokenizer, text):
    return tokenizer(text, add_special_tokens=False).input_ids


def by_hand(ranks, word):
    """Byte-pair encoding of one word, by its definition."""
    parts = list(word)
    while True:
        ranked = [(ranks[p], i) for i, p in enumerate(pairwise(parts)) if p in ranks]
        if not ranked:
            return parts
        _, i = min(ranked)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


@pytest.mark.parametrize(
    ("family", "tied"),
    [
        ("llama", False),
        ("llama", True),
        ("gpt2", True),
        ("phi", False),
        ("gemma3", True),
        ("encoder", False),
        ("masked", True),
    ],
)
def test_logits_of_kept_tokens_are_the_originals(family, tied, tmp_path):
    model = model_of(family, tied, extra_rows=5)
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    words = model.tokenizer.get_vocab()
    small = trim_vocabulary(model, train=records(DOMAIN))
    # What was given is as it was.
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.network.state_dict().items())
    assert model.tokenizer.get_vocab() == words and model.config.vocab_size == len(words) + 5
    kept = small.tokenizer.get_vocab()
    assert len(kept) == small.config.vocab_size == small.network.get_input_embeddings().num_embeddings < len(words)
    # Ids are renumbered in their old order, and each row is the old row of its token.
    order = sorted(kept, key=kept.get)
    assert order == sorted(kept, key=words.get)
    index = torch.tensor([words[token] for token in order])
    table, old_table = small.network.get_input_embeddings(), model.network.get_input_embeddings()
    assert torch.equal(table.weight, old_table.weight[index])
    if small.network.get_output_embeddings() is not None:
        shared = small.network.get_output_embeddings().weight is table.weight
        assert shared == (model.network.get_output_embeddings().weight is old_table.weight)
    # Texts of kept tokens are the same tokens, and give the same numbers.
    for text in DOMAIN:
        new, old = encode(small.tokenizer, text), encode(model.tokenizer, text)
        assert [order[i] for i in new] == model.tokenizer.convert_ids_to_tokens(old)
        with torch.no_grad():
            got = small.network(torch.tensor([new]))[0]
            wanted = model.network(torch.tensor([old]))[0]
        wanted = wanted if family == "encoder" else wanted[..., index]
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    # Plain transformers reads it.
    small.network.save_pretrained(tmp_path / "m")
    small.tokenizer.save_pretrained(tmp_path / "m")
    again = type(small.network).from_pretrained(tmp_path / "m")
    assert all(torch.equal(t, small.network.state_dict()[name]) for name, t in again.state_dict().items())
    tokens = tf.AutoTokenizer.from_pretrained(tmp_path / "m")
    assert tokens.get_vocab() == kept and encode(tokens, HELD[1]) == encode(small.tokenizer, HELD[1])


@pytest.mark.parametrize("whole_words", [False, True])
def test_any_text_can_be_written_and_kept_tokens_are_cut_as_before(whole_words):
    model = model_of(whole_words=whole_words)
    small = trim_vocabulary(model, train=records(DOMAIN))
    kept, words = small.tokenizer.get_vocab(), model.tokenizer.get_vocab()
    drawing = random.Random(0)
    common = [t for t in kept if t not in SPECIAL and t != "<think>"]
    same = 0
    for _ in range(300):
        # Random joints of kept tokens: many are cut into other tokens than they were joined from.
        ids = [words[token] for token in drawing.choices(common, k=drawing.randint(1, 6))]
        text = model.tokenizer.decode(ids)
        old = model.tokenizer.convert_ids_to_tokens(encode(model.tokenizer, text))
        new = small.tokenizer.convert_ids_to_tokens(encode(small.tokenizer, text))
        assert small.tokenizer.decode(encode(small.tokenizer, text)) == text
        if set(old) <= set(kept):
            assert new == old
            same += 1
    assert same > 100
    for text in HELD:
        assert small.tokenizer.decode(encode(small.tokenizer, text)) == text


def test_path_is_what_the_encoding_meets():
    said = rewriting.read(learned())
    pairs = merges_of(said)
    merges = Merges(pairs)
    for token in said["model"]["vocab"]:
        if token in SPECIAL:
            continue
        path = merges.path(token)
        assert token in path and {*token} <= path
        # With only these tokens, the merges among them lead to the token.
        ranks = {p: i for i, p in enumerate(pairs) if {*p, "".join(p)} <= path}
        assert by_hand(ranks, token) == [token]
    # Without any one of them, nothing does.
    path = merges.path("Ġmountains")
    assert len(path) > len(set("Ġmountains")) + 1
    for gone in path - {"Ġmountains"}:
        ranks = {p: i for i, p in enumerate(pairs) if {*p, "".join(p)} <= path - {gone}}
        assert by_hand(ranks, "Ġmountains") != ["Ġmountains"]
    # A token that merges do not lead to is in use only where whole words are taken first.
    odd = [("a", "b"), ("b", "c")]
    assert Merges(odd).path("abc") == set() and Merges(odd, whole_words=True).path("abc") == {"abc"}


def test_choosing():
    vocabulary = {token: i for i, token in enumerate(["a", "b", "c", "ab", "abc", "ca", "bc", "cab"])}
    merges = Merges([("a", "b"), ("ab", "c"), ("c", "a"), ("b", "c"), ("c", "ab")])
    counts = Counter({4: 10, 5: 6, 0: 4})
    always = {0, 1, 2}

    def kept(**settings):
        return choose(counts, always, vocabulary, merges, **settings)

    seen = kept()
    assert seen.kept == (0, 1, 2, 3, 4, 5)  # ab stands between a, b and abc
    assert (seen.always, seen.counted, seen.between, seen.filled, seen.coverage) == (3, 2, 1, 0, 1.0)
    half = kept(coverage=0.7)
    assert half.kept == (0, 1, 2, 3, 4) and half.coverage == 14 / 20
    # abc needs two places; where there is one, the next commonest has it.
    assert kept(size=4).kept == (0, 1, 2, 5)
    assert kept(size=5).kept == (0, 1, 2, 3, 4)
    full = kept(size=7)
    assert full.kept == (0, 1, 2, 3, 4, 5, 6) and full.filled == 1
    assert kept(size=7, coverage=1.0).kept == seen.kept
    fails(lambda: kept(size=2), "size 2", "3 tokens")


def test_size_and_coverage():
    model = model_of()
    seen = trim_vocabulary(model, train=records(DOMAIN)).extras[NAME]
    assert seen["coverage"] == 1.0 and seen["inflation"] == 0 and seen["measured_on"] == "train"
    base = seen["why"]["always"]
    sizes = []
    for size in (base, base + 20, len(model.tokenizer) - 10):
        facts = trim_vocabulary(model, TrimVocabularyConfig(size=size), train=records(DOMAIN)).extras[NAME]
        assert facts["tokens"] == size
        sizes.append(facts["inflation"])
    assert sizes[0] > sizes[1] > sizes[2] == 0
    less = trim_vocabulary(model, train=records(DOMAIN), coverage=0.8).extras[NAME]
    assert 0.8 <= less["coverage"] < 1 and less["tokens"] < seen["tokens"]


def test_facts_and_a_warning():
    model = model_of()
    with pytest.warns(UserWarning, match="texts take .* more tokens"):
        small = trim_vocabulary(model, train=records(DOMAIN), test=records(HELD))
    facts = small.extras[NAME]
    assert facts["measured_on"] == "test"
    old = sum(len(encode(model.tokenizer, text)) for text in HELD)
    new = sum(len(encode(small.tokenizer, text)) for text in HELD)
    assert (facts["text_tokens_before"], facts["text_tokens"]) == (old, new)
    assert facts["inflation"] == new / old - 1 > 0.02
    assert facts["tokens_before"] == model.config.vocab_size and facts["tokens"] == small.config.vocab_size
    assert sum(facts["why"].values()) == facts["tokens"]
    gone = facts["tokens_before"] - facts["tokens"]
    assert facts["parameters_before"] - facts["parameters"] == 2 * 32 * gone
    assert facts["logit_difference"] < 1e-4
    assert small.identity.changes[-1] == {"technique": NAME, "config": {"size": None, "coverage": None}}
    json.dumps(facts)


def lost(model):
    small = trim_vocabulary(model, train=records(DOMAIN))
    return sorted(model.tokenizer.get_vocab().keys() - small.tokenizer.get_vocab().keys())


def test_special_tokens_and_settings_follow():
    # Added behind everything else, so that it gets another number.
    model = model_of(bos=True)
    network = model.network
    think = model.tokenizer.convert_tokens_to_ids("<think>")
    gone = model.tokenizer.get_vocab()[next(iter(lost(model)))]
    network.generation_config.eos_token_id = [2, think]
    network.generation_config.suppress_tokens = [3, gone, think]
    network.config.eos_token_id = think
    network.model.embed_tokens.padding_idx = 0
    small = trim_vocabulary(model, train=records(DOMAIN))
    new = small.tokenizer.convert_tokens_to_ids("<think>")
    assert new == small.config.vocab_size - 1 < think
    assert small.config.eos_token_id == new and small.network.generation_config.eos_token_id == [2, new]
    assert small.network.generation_config.suppress_tokens == [3, new]
    assert network.config.eos_token_id == think and network.generation_config.eos_token_id == [2, think]
    ids = small.tokenizer("<|user|>the <think><|end|>").input_ids
    assert ids[:2] == [1, 4] and ids[-2:] == [new, 2]
    for name in ("bos", "eos", "pad", "unk"):
        token = getattr(model.tokenizer, f"{name}_token")
        assert getattr(small.tokenizer, f"{name}_token") == token
        assert getattr(small.tokenizer, f"{name}_token_id") == small.tokenizer.get_vocab()[token]
    talk = [{"role": "user", "content": "the weather"}]
    texts = [m.tokenizer.apply_chat_template(talk, tokenize=False) for m in (model, small)]
    assert texts[0] == texts[1]
    assert small.tokenizer.chat_template == CHAT and small.tokenizer.model_max_length == 64
    out = small.network.generate(torch.tensor([ids]), max_new_tokens=5, do_sample=True)
    assert out.max() < small.config.vocab_size


def test_tokens_of_the_chat_template_stay():
    model = model_of()
    model.tokenizer.chat_template = "{% for m in messages %}Himmel {{ m['content'] }} mountains{% endfor %}"
    small = trim_vocabulary(model, train=records(["a"]))
    assert {"Himmel", "Ġmountains"} & set(model.tokenizer.get_vocab()) <= set(small.tokenizer.get_vocab())
    model.tokenizer.chat_template = "{{ raise_exception('no') }}"
    assert "Ġmountains" not in trim_vocabulary(model, train=records(["a"])).tokenizer.get_vocab()


def test_saves_and_goes_on_to_quantization(tmp_path):
    small = trim_vocabulary(model_of(tied=True), train=records(DOMAIN), size=350)
    again = ia.load(small.save(tmp_path / "m"))
    assert again.extras == small.extras and again.tokenizer.get_vocab() == small.tokenizer.get_vocab()
    assert again.network.lm_head.weight is again.network.model.embed_tokens.weight
    quantized = compression.quantize(again, bits=8)
    assert quantized.network.model.embed_tokens.num_embeddings == 350
    fails(lambda: trim_vocabulary(quantized, train=records(DOMAIN)), "quantized", "then quantize")


def test_post_processors():
    ids = {1: 10, 2: 20, 5: 50}
    step = {
        "type": "Sequence",
        "processors": [
            {"type": "ByteLevel"},
            {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1]},
            {"type": "TemplateProcessing", "special_tokens": {"<s>": {"id": "<s>", "ids": [1, 5], "tokens": ["<s>"]}}},
        ],
    }
    rewriting._renumber_processor(step, ids)
    _, roberta, template = step["processors"]
    assert roberta["sep"] == ["</s>", 20] and roberta["cls"] == ["<s>", 10]
    assert template["special_tokens"]["<s>"]["ids"] == [10, 50]
    fails(lambda: rewriting._renumber_processor({"type": "Odd"}, ids), "a step 'Odd'")


def test_bad_input():
    model = model_of()
    train = records(DOMAIN)
    fails(lambda: trim_vocabulary(model, train=[]), "no text")
    fails(lambda: trim_vocabulary(model, train=train, size=3), "size 3", "always stay")
    fails(lambda: trim_vocabulary(model, train=train, size=100_000), "give less to trim it")
    fails(lambda: trim_vocabulary(model, train=train, coverage=1.5), "coverage")
    fails(lambda: trim_vocabulary(wrap(model.network), train=train), "wants a fast tokenizer")
    seeing = wrap(model.network, model.tokenizer, processor=object())
    fails(lambda: trim_vocabulary(seeing, train=train), "has a processor", "text models")
    other = model_of()
    other.network.register_buffer("bias_of_tokens", torch.zeros(1, other.config.vocab_size))
    fails(lambda: trim_vocabulary(other, train=train), "bias_of_tokens", "seems to have a place")
    told = model_of()
    told.network.generation_config.bad_words_ids = [[5]]
    fails(lambda: trim_vocabulary(told, train=train), "bad_words_ids names tokens")

    def backend(change):
        odd = model_of()
        change(odd.tokenizer.backend_tokenizer)
        return lambda: trim_vocabulary(odd, train=train)

    def words(backend):
        backend.model = models.WordLevel({"a": 0}, unk_token="a")

    def characters(backend):
        backend.pre_tokenizer = pre_tokenizers.Metaspace()

    def dropout(backend):
        backend.model.dropout = 0.1

    fails(backend(words), "of type WordLevel")
    fails(backend(characters), "works on characters")
    fails(backend(dropout), "at random")


def test_a_wrong_row_and_a_lossy_tokenizer_are_found(monkeypatch):
    model = model_of()
    slice_network = trimming.slice_network
    monkeypatch.setattr(
        trimming, "slice_network", lambda network, kept, ids: slice_network(network, [*kept[1:], kept[0]], ids)
    )
    fails(lambda: trim_vocabulary(model, train=records(DOMAIN)), "gives other numbers", error=IntarsiaError)
    monkeypatch.undo()
    merges = Merges.path
    monkeypatch.setattr(trimming.pre_tokenizers.ByteLevel, "alphabet", lambda: ["t"])
    monkeypatch.setattr(Merges, "path", lambda self, token: merges(self, token) & {"t", token})
    fails(
        lambda: trim_vocabulary(model, train=records(DOMAIN), test=records(HELD)), "does not give back",
        error=IntarsiaError,
    )  # fmt: skip
