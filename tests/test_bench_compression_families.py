"""Points of the compression benchmark that are more than rounded: each does what it says, opens, and is judged."""

from __future__ import annotations

import math

import pytest
import torch

import intarsia as ia
from bench.common import Timing
from bench.compression import families, peers
from bench.compression.contenders import Source, contenders
from bench.compression.engines import ENGINES
from bench.compression.quality import Judge, by_text
from intarsia import compression
from intarsia.compression.linears import linears
from intarsia.compression.searching.judging import texts_of
from intarsia.data import Text
from intarsia.measure.size import count_parameters
from tests.test_bench_compression import OURS, row
from tests.test_compression_gguf import small

TEXTS = [
    Text(f"the theme of thesis number {i} is that there are {i * 7 % 13} of them, don't the other brothers think so?")
    for i in range(24)
]
ROWS = 280
IDS = list(range(20, 60))


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Source:
    model = small(
        tied=True, hidden_size=160, intermediate_size=160, num_hidden_layers=5, num_attention_heads=5,
        num_key_value_heads=1, head_dim=32,
    )  # fmt: skip
    return Source(model, tmp_path_factory.mktemp("families"), TEXTS, 512)


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    monkeypatch.setattr(families, "ROWS", ROWS)
    monkeypatch.setattr(families, "FOUR", families.EIGHT)  # a network of chance is another one in 4 bits
    monkeypatch.setitem(families.STEPS, "blocks", families._less("blocks", 0.2))
    monkeypatch.setattr(families, "LESSON", {"tokens": 256, "window": 64, "batch_size": 1})
    monkeypatch.setenv("INTARSIA_CACHE", str(tmp_path / "cache"))


def point(words):
    """The one whose name begins so."""
    found = [c for c in families.families() if c.name.startswith(f"ours: {words}")]
    return min(found, key=lambda c: len(c.name))


def test_names_are_their_own_and_engines_there_are():
    every = [*contenders(), *families.families()]
    assert len({peers.plain(c.name) for c in every}) == len(every)
    assert all(c.ours and c.engine in ENGINES for c in families.families())
    assert {c.smaller for c in families.families()} == {True, False}
    # Whatever drops tokens has a tokenizer of its own.
    assert all(c.own_tokens == ("vocabulary" in c.name or "fit" in c.name) for c in families.families())


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("neurons (body -20 %), GGUF", "neurons"),
        ("3 blocks", "blocks"),
        ("width 522", "width"),
        ("neurons (body -20 %), recovered", "neurons, recovered"),
        ("vocabulary 16,384, GGUF", "vocabulary"),
        ("2:4 by Wanda", "wanda"),
        ("2:4 by SparseGPT", "sparsegpt"),
        ("factors (body -20 %), torch", "factors"),
        ("factors (body -20 %)", "factors"),
    ],
)
def test_a_point_opens_and_answers_as_the_network_that_was_cut(words, name, source):
    contender = point(words)
    if contender.engine == "gguf":
        pytest.importorskip("ik_llama_cpp", reason="the extra 'llama' is not installed")
    if "recovered" in name:
        pytest.importorskip("peft", reason="the extra 'adapt' is not installed")
    engine = ENGINES[contender.engine](peers.made(contender, source), 1)
    cut = families.cut(source, name)
    wanted = ia.run(cut, torch.tensor([IDS])).logits[0]
    given = torch.from_numpy(engine.logits(IDS)).float()
    assert given.shape == wanted.shape
    # Rounded: the same network, not another one.
    assert torch.nn.functional.cosine_similarity(given, wanted).mean() > 0.98
    assert (count_parameters(cut.network)[0] < count_parameters(source.dense.network)[0]) == contender.smaller
    whole = source.dense.network.config
    left = cut.network.config
    if name == "blocks":
        assert left.num_hidden_layers == 4
    elif name == "width":
        assert left.hidden_size < 160
    elif name == "vocabulary":
        assert left.vocab_size == given.shape[1] == ROWS
    elif name in ("wanda", "sparsegpt"):
        for layer in linears(cut):
            assert int((layer.weight.unflatten(1, (-1, 4)) != 0).sum(-1).max()) <= 2
        # No smaller for it: as large as the whole network in this type.
        dense = compression.quantize(source.dense, **families.EIGHT)
        file = source.folder / f"whole-{name}.gguf"
        from intarsia.compression.exporting.gguf import export_gguf

        export_gguf(dense, file, {"model.embed_tokens": "Q8_0"}, check_again=False)
        assert file.stat().st_size == engine.bytes
    elif name.startswith("neurons"):
        assert left.intermediate_size == 128 < whole.intermediate_size


def test_steps_follow_one_another_and_each_is_made_once(source):
    pytest.importorskip("peft", reason="the extra 'adapt' is not installed")
    name = "vocabulary, neurons, recovered"
    cut = families.cut(source, name)
    assert cut.network.config.vocab_size == ROWS and cut.network.config.intermediate_size == 128
    folders = {folder.name: folder.stat().st_mtime_ns for folder in source.folder.glob("cut-vocabulary*")}
    assert set(folders) == {"cut-vocabulary", "cut-vocabulary, neurons", f"cut-{name}"}
    families.cut(source, name)
    assert folders == {folder.name: folder.stat().st_mtime_ns for folder in source.folder.glob("cut-vocabulary*")}
    # What it learned made it another network than the one that was cut.
    before = families.cut(source, "vocabulary, neurons")
    ids = torch.tensor([IDS])
    assert not torch.equal(ia.run(before, ids).logits, ia.run(cut, ids).logits)


def test_what_a_search_chose_is_opened_in_its_engine(tmp_path, monkeypatch):
    source = Source(small(tied=True, intermediate_size=128, num_hidden_layers=2), tmp_path, TEXTS, 512)
    pytest.importorskip("ik_llama_cpp", reason="the extra 'llama' is not installed")
    monkeypatch.setattr(families, "BUDGET", "bytes<0.3x")
    monkeypatch.setattr(families, "SEARCH", dict(
        tokens=256, quality_tokens=128, first_tokens=64, repeats=1, prompt_tokens=16, new_tokens=4, candidates=1,
        families=(), engines=("gguf",),
    ))  # fmt: skip
    contender = point("compression.fit")
    folder = peers.made(contender, source)
    assert (folder / "engine").read_text() == "gguf"
    engine = ENGINES["fitted"](folder, 1)
    assert engine.bytes == (folder / "bundle" / "export" / "gguf" / "model.gguf").stat().st_size
    bundle = ia.load(str(folder / "bundle"))
    wanted = ia.run(bundle, torch.tensor([IDS])).logits[0]
    given = torch.from_numpy(engine.logits(IDS)).float()
    assert torch.nn.functional.cosine_similarity(given, wanted).mean() > 0.99
    # With the vocabulary it had it is judged as all others are.
    windows = [IDS, IDS[::-1]]
    tokenizer = peers.tokenizer_of(contender, source)
    judge = Judge(source.dense, windows)
    texts = by_text(source.dense, tokenizer, judge, lambda ids: torch.from_numpy(engine.logits(ids)).float())
    assert texts["kl"] is not None and "kl_shared" not in texts


# ---- judging what has other tokens


@pytest.fixture(scope="module")
def windows(source) -> list[list[int]]:
    ids = [i for text in TEXTS for i in source.dense.tokenizer(f"{text.text}\n\n")["input_ids"]]
    return [ids[0:60], ids[60:120]]


def logits(model):
    return lambda ids: ia.run(model, torch.tensor([ids])).logits[0].float()


def test_the_same_tokens_are_judged_alike_as_text_and_as_ids(source, windows):
    other = compression.quantize(source.dense, bits=4)
    # Windows that are read back as they were cut.
    again = [source.dense.tokenizer(text)["input_ids"] for text in texts_of(source.dense, windows)]
    assert again == windows
    with torch.no_grad():
        judge = Judge(source.dense, windows)
        plain = judge(other)
        found = by_text(source.dense, other.tokenizer, judge, logits(other))
        # A window that would be cut otherwise is read anew, not taken for what is known of other tokens.
        judge.windows[0] = [*source.dense.tokenizer("t")["input_ids"], *source.dense.tokenizer("he")["input_ids"] * 4]
        judge.dense[0] = torch.full_like(judge.dense[0], float("nan"))
        assert math.isfinite(by_text(source.dense, other.tokenizer, judge, logits(other))["kl"])
    assert found["tokens"] == plain["tokens"] and "kl_shared" not in found
    for key in ("kl", "perplexity", "top1"):
        assert found[key] == pytest.approx(plain[key], rel=2e-3, abs=1e-3)


def test_other_tokens_have_no_divergence_over_the_whole_vocabulary(source, windows):
    trimmed = compression.trim_vocabulary(source.dense, coverage=1.0, train=TEXTS)
    rows = trimmed.network.config.vocab_size
    assert rows < source.dense.network.config.vocab_size
    with torch.no_grad():
        found = by_text(source.dense, trimmed.tokenizer, Judge(source.dense, windows), logits(trimmed))
        # Naively: the text has no token that went, so all there is to lose is what the others' logits add up to.
        loss = count = 0
        for ids in windows:
            own = trimmed.tokenizer(source.dense.tokenizer.decode(ids))["input_ids"]
            assert len(own) == len(ids)
            logs = ia.run(trimmed, torch.tensor([own])).logits[0].double().log_softmax(-1)
            loss -= float(logs[:-1].gather(1, torch.tensor(own)[1:, None]).sum())
            count += len(ids) - 1
    assert found["kl"] is None and abs(found["kl_shared"]) < 1e-3 and found["top1"] == 1.0
    assert found["tokens"] == count and found["perplexity"] == pytest.approx(math.exp(loss / count), rel=1e-3)


def test_the_prompt_is_as_long_in_its_own_tokens(source, windows, monkeypatch):
    monkeypatch.setattr(peers, "PREFILL", 32)
    contender = point("vocabulary 16,384, GGUF")
    folder = source.folder / peers.plain(contender.name)
    if not folder.is_dir():
        folder.mkdir()
        families.cut(source, "vocabulary").tokenizer.save_pretrained(folder / "tokenizer")
    judge = Judge(source.dense, windows[:1])
    own = peers.prompt_of(contender, source, judge)
    assert len(own) == 32 and max(own) < ROWS
    text = peers.tokenizer_of(contender, source).decode(own)
    assert source.dense.tokenizer.decode(windows[0]).startswith(text)
    assert peers.prompt_of(point("3 blocks"), source, judge) == windows[0][:32]


# ---- the table


def test_a_smaller_vocabulary_is_on_no_front_and_a_smaller_network_is_no_engine():
    gone = row(0.0, 10, 500, True) | {"smaller": True}
    for quality in gone["texts"].values():
        quality |= {"kl": None, "kl_shared": 0.02}
    cut = row(0.5, 90, 400, True) | {"smaller": True}
    theirs = {"c": row(0.09, 20, 20)}
    ours = {**OURS, "gone": gone, "cut": cut}
    # It covers no peer, however small and quick it is.
    assert peers.beyond(theirs, ours) == peers.beyond(theirs, OURS) == ["c"]
    seconds = {"a": 1.0, "4.1 bits in the mean": 1.25, "gone": 0.1, "cut": 0.125, "c": 2.0}
    decode = {name: Timing((s, s)) for name, s in seconds.items()}
    assert peers.figures({**ours, **theirs}, decode)["decode_over_fastest_peer"] == 2.0
    every = {**ours, **theirs}
    for one in every.values():
        one |= {"version": "1", "peak": 1e6, "prefill_a_cpu_second": 1, "prefill_a_second": 1, "decode_a_second": 1}
        for quality in one["texts"].values():
            quality |= {"perplexity": 2.0, "top1": 0.5}
    lines = {line[0]: line for line in peers.table(every)}
    assert lines["gone"][2:5] == ["(0.0200)", "2.00", "(50.0%)"] and lines["gone"][-1] == ""
    assert lines["cut"][2] == "0.5000" and lines["cut"][-1] == "o" and lines["c"][-1] == "o+"
