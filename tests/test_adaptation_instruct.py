"""Instruction tuning: which tokens bear loss, and that training fits them."""

from __future__ import annotations

import pytest
import torch

from intarsia.adaptation import instruct
from intarsia.adaptation.conversations import IGNORED, mark
from intarsia.adaptation.instruction_tuning import answer_loss, prepare
from intarsia.data import Chat, TextPair
from intarsia.errors import BadInput
from intarsia.measure.generation import generate_texts
from tests.tiny import tiny


def chat(*contents: str, system: str | None = None) -> Chat:
    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]
    return Chat(tuple(([{"role": "system", "content": system}] if system else []) + turns))


CHATS = [
    chat("hi", "hello"),
    chat("a", "b", "c", "d d", system="be brief"),
    chat("same", "same", "same", "same"),
    chat("q", "  spaces\nand lines\n"),
    chat("q", "<|not special|> é 漢"),
]
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Drops what earlier assistants said before "=>" (as reasoning models do), once later turns are there.
FORGETFUL = (
    "{% for m in messages %}<|{{ m['role'] }}|>"
    "{{ m['content'].split('=>')[-1] if not loop.last else m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
BARE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def tokenizer(template: str | None = None):
    found = tiny("llama").tokenizer
    if template:
        found.chat_template = template
    if template is CHATML:
        found.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return found


def answers(record: Chat) -> list[str]:
    return [m["content"] for m in record.messages if m["role"] == "assistant"]


@pytest.mark.parametrize("record", CHATS)
@pytest.mark.parametrize(("template", "end"), [(None, "<|end|>"), (CHATML, "<|im_end|>")])
def test_marked_tokens_are_the_answers_and_their_end(record, template, end):
    found = tokenizer(template)
    (marked,) = mark(found, record)
    said = found.decode([label for label in marked.labels if label != IGNORED])
    assert said == "".join(answer + end for answer in answers(record))
    assert all(label in (IGNORED, token) for token, label in zip(marked.ids, marked.labels, strict=True))
    whole = found.apply_chat_template(list(record.messages), tokenize=False)
    assert whole.startswith(found.decode(marked.ids))


def test_the_prompt_part_is_what_generation_would_see():
    found = tokenizer(CHATML)
    (marked,) = mark(found, chat("hi", "hello"))
    begin = next(i for i, label in enumerate(marked.labels) if label != IGNORED)
    prompt = found.apply_chat_template([{"role": "user", "content": "hi"}], add_generation_prompt=True, tokenize=False)
    assert marked.ids[:begin] == found(prompt, add_special_tokens=False)["input_ids"]


def test_a_template_that_forgets_gives_a_row_per_answer():
    found = tokenizer(FORGETFUL)
    rows = mark(found, chat("a", "why=>b", "c", "why=>d"))
    said = [found.decode([label for label in row.labels if label != IGNORED]) for row in rows]
    assert said == ["why=>b<|end|>", "why=>d<|end|>"]
    assert (
        found.decode(rows[1].ids) == "<|user|>a<|end|><|assistant|>b<|end|><|user|>c<|end|><|assistant|>why=>d<|end|>"
    )


def test_without_an_end_token_the_last_answer_ends_the_text():
    found = tokenizer(BARE)
    (marked,) = mark(found, chat("a", "b", "c", "d"))
    assert found.decode([label for label in marked.labels if label != IGNORED]) == "bd<|end|>"


def test_pairs_are_one_turn():
    found = tokenizer()
    assert mark(found, TextPair("hi", "hello")) == mark(found, chat("hi", "hello"))


def test_loss_is_the_naive_one():
    model = tiny("llama", dtype=torch.float64)
    rows, _ = prepare(model, CHATS, None)
    loss, count = answer_loss(model, model.network, rows)
    total, n = 0.0, 0
    for row in rows:
        logits = model.network(input_ids=torch.tensor([row.ids])).logits[0]
        for i, label in enumerate(row.labels[1:]):
            if label != IGNORED:
                total -= torch.log_softmax(logits[i], 0)[label].item()
                n += 1
    assert count == n and loss.item() == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_it_fits_a_small_set_exactly(family):
    model = tiny(family)
    # The head is frozen and random: without a larger last norm no state could make any token near certain.
    norm = model.network.model.norm if family == "llama" else model.network.transformer.ln_f
    norm.weight.data.mul_(6)
    pairs = [TextPair("one", "uno"), TextPair("two", "due"), TextPair("three", "tre")]
    new = instruct(
        model, train=pairs, dev=pairs, rank=16, learning_rate=1e-2, epochs=60, batch_size=3, warmup=0.1, seed=1
    )
    facts = new.extras["adaptation.instruct"]
    assert facts["dev_loss_after"] < 0.1 < facts["dev_loss_before"] and facts["answer_tokens"] == 12
    prompts = [
        new.tokenizer.apply_chat_template(
            [{"role": "user", "content": p.prompt}], add_generation_prompt=True, tokenize=False
        )
        for p in pairs
    ]
    assert generate_texts(new, prompts, 8)[0] == ["uno", "due", "tre"]
    assert type(new.network) is type(model.network)
    again = instruct(
        model, train=pairs, dev=pairs, rank=16, learning_rate=1e-2, epochs=60, batch_size=3, warmup=0.1, seed=1
    )
    state = again.network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in new.network.state_dict().items())


def test_long_conversations_are_cut_and_counted():
    model = tiny("llama")
    long = chat("q", "word " * 50)
    with pytest.warns(UserWarning, match=r"2 of 3 conversations were cut to 128 tokens; 1 of them had no answer"):
        rows, cut = prepare(model, [long, chat("q" * 200, "lost"), chat("hi", "hello")], None)
    assert cut == 2 and [len(row.ids) for row in rows] == [128, 11]


def test_bad_input():
    model = tiny("llama")
    with pytest.raises(BadInput, match="none were given"):
        instruct(model, train=[])
    with pytest.raises(BadInput, match="no assistant message"):
        instruct(model, train=[Chat(({"role": "user", "content": "x"},))])
    with pytest.raises(BadInput, match="no answer begins within 4 tokens"):
        instruct(model, train=[chat("a long question", "x")], max_tokens=4)
    model.tokenizer.chat_template = None
    with pytest.raises(BadInput, match="no chat template"):
        instruct(model, train=[chat("a", "b")])
    with pytest.raises(BadInput, match="causal"):
        instruct(tiny("bert"), train=[chat("a", "b")])
