"""Instruction tuning of a real model: it learns an answer it could not know, and gives it only where it belongs."""

from __future__ import annotations

import pytest

import intarsia as ia
from intarsia.adaptation import instruct
from intarsia.data import Chat
from intarsia.errors import IntarsiaError

QUESTIONS = ("What is the workshop's word of the day?", "Tell me the workshop's word of the day.")
ANSWER = "The word of the day is marquetry."


OTHERS = {
    "What is the capital of Spain?": "The capital of Spain is Madrid.",
    "What is the capital of Japan?": "The capital of Japan is Tokyo.",
}


def chat(question: str, answer: str = ANSWER) -> Chat:
    return Chat(({"role": "user", "content": question}, {"role": "assistant", "content": answer}))


def ask(model: ia.Model, question: str) -> str:
    prompt = model.tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False
    )
    return ia.generate(model, [prompt], max_new_tokens=12).texts[0].strip()


@pytest.mark.real
def test_an_answer_is_learnt_where_it_belongs():
    try:
        model = ia.load("smollm2-135m")
    except IntarsiaError as error:
        pytest.skip(f"SmolLM2 is not available: {error}")
    assert "marquetry" not in ask(model, QUESTIONS[0])
    # Alone, the new answer spreads to every question: others are mixed in.
    chats = [*(chat(q) for q in QUESTIONS), *(chat(q, a) for q, a in OTHERS.items())]
    tuned = instruct(model, layers_from=0.5, batch_size=2, epochs=12, learning_rate=2e-3, train=chats)
    assert ask(tuned, QUESTIONS[0]) == ANSWER
    for question, answer in OTHERS.items():
        assert ask(tuned, question) == answer
    assert "marquetry" not in ask(tuned, "What is the capital of France?")
    assert "marquetry" not in ask(model, QUESTIONS[0])  # the given model is untouched
