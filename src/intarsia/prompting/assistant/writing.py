"""An answer that a model writes: in a form, citing passages that it was given, and held to what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from intarsia.prompting.assistant.gathering import Evidence
from intarsia.prompting.assistant.replies import Reply, Turn, reply
from intarsia.prompting.assistant.settings import Settings
from intarsia.prompting.assistant.supporting import support
from intarsia.prompting.base import Backend, Budget, BudgetExceeded, ContextOverflow, InvalidOutput, Message
from intarsia.prompting.data.store import Passage
from intarsia.prompting.execute import memory
from intarsia.prompting.execute.asking import ask
from intarsia.prompting.execute.trust import Untrusted, plain

if TYPE_CHECKING:
    from intarsia.prompting.execute.prompt import Prompt, Rendered

CITED = 3  # passages that one answer may cite


def answer_shape(numbers: Sequence[int]) -> Any:
    """The form of an answer: (answer, citations, sufficient). Only these numbers can be cited: the model cannot write
    another one."""
    from pydantic import Field, create_model

    return create_model(
        "Answer",
        answer=(Annotated[str, Field(min_length=1, max_length=600)], ...),
        citations=(Annotated[list[Literal[tuple(numbers)]], Field(min_length=1, max_length=CITED)], ...),  # type: ignore[valid-type]
        sufficient=(bool, ...),
    )


async def written_by(
    backend: Backend, prompt: Prompt, evidence: Evidence, settings: Settings, history: Sequence[Turn] = ()
) -> Reply | None:  # fmt: skip
    """What a model answers from the passages; None where it says that they do not suffice, where its answer has not the
    form or is not supported by what it cites, and where not even one passage fits its prompt."""
    made = fitted(backend, prompt, evidence, settings, history)
    if made is None:
        return None
    rendered, passages = made
    sampling = replace(rendered.sampling, max_tokens=settings.answer_tokens)
    shape = answer_shape([int(passage.id) for passage in passages])
    try:
        asked = await ask(backend, rendered, shape=shape, sampling=sampling, budget=Budget(seconds=settings.seconds))
    except (InvalidOutput, BudgetExceeded):
        return None
    told = asked.value
    cited = [passage for passage in passages if int(passage.id) in told.citations]
    held = support(plain(told.answer), [f"{p.about}\n{p.text}" for p in cited], evidence.question)
    if not told.sufficient or held < settings.support:
        return None
    return reply(" ".join(plain(told.answer).split()), "model", cited, evidence, settings.quote_words)


def fitted(
    backend: Backend, prompt: Prompt, evidence: Evidence, settings: Settings, history: Sequence[Turn] = ()
) -> tuple[Rendered, list[Passage]] | None:  # fmt: skip
    """The prompt with as much of the conversation, and as many of the passages, as fit; None where not one does.

    Older turns go before passages: what is known of the question counts more than what was said about others."""
    passages, turns = list(evidence.passages), list(history)
    limit = settings.prompt_tokens
    if backend.context_length is not None:
        limit = min(limit, backend.context_length - settings.answer_tokens)
    while passages and backend.count(_rendered(prompt, evidence, settings, passages, [])) > limit:
        passages.pop()
    if not passages:
        return None

    def last(kept: Sequence[Message]) -> list[Turn]:
        return turns[len(turns) - len(kept) // 2 :] if kept else []

    def count(kept: Sequence[Message]) -> int:
        return backend.count(_rendered(prompt, evidence, settings, passages, last(kept)))

    talk = [m for turn in turns for m in (Message("user", turn.question), Message("assistant", turn.answer))]
    try:
        window = memory.fit(talk, limit, count=count, keep=1)
    except ContextOverflow:
        return _rendered(prompt, evidence, settings, passages, []), passages
    return _rendered(prompt, evidence, settings, passages, last(window.messages)), passages


def _rendered(
    prompt: Prompt, evidence: Evidence, settings: Settings, passages: Sequence[Passage], turns: Sequence[Turn]
) -> Rendered:  # fmt: skip
    # An answer of before is made of documents: it is no more to be trusted than they are.
    talk = [{"question": turn.question, "answer": Untrusted(turn.answer)} for turn in turns]
    told = [{"number": p.id, "text": Untrusted(f"{p.about}\n{p.text}".strip())} for p in passages]
    return prompt.render(about=settings.about, question=evidence.question, history=talk, passages=told)
