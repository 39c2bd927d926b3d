"""A person's word in the middle of a flow: asked now, or waited for until the flow is gone on with."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from intarsia.errors import BadInput
from intarsia.prompting.base.errors import PromptingError
from intarsia.prompting.tracing import Trace, current
from intarsia.prompting.tracing import step as recording

Asker = Callable[[str], "str | Awaitable[str | None] | None"]
"""Asks a person; None: nobody is there."""

NAME = "person"
_YES, _NO = {"y", "yes", "true", "ok", "1"}, {"n", "no", "false", "0"}


class Waiting(PromptingError):
    """A flow cannot go on without a person. question: what is asked; trace, id: where the answer belongs."""

    exit_code = 4

    def __init__(self, question: str, trace: str = "", id: str = ""):
        how = (
            f"; answer with `intarsia flow resume {trace[:12]} --answer ...`"
            if trace
            else "; nobody is there to answer: give a default, or record the flow, so that it can be gone on with"
        )
        super().__init__(f"waiting for an answer to: {question}{how}")
        self.question, self.trace, self.id = question, trace, id


@dataclass(frozen=True)
class Answers:
    """What people have said. given: by id of the question; asker: who is asked for the rest."""

    given: Mapping[str, str]
    asker: Asker | None = None


_answers: ContextVar[Answers | None] = ContextVar("intarsia_answers", default=None)


@contextmanager
def answering(asker: Asker | None = None, given: Mapping[str, str] | None = None) -> Iterator[None]:
    """Who answers the questions of flows inside the block; what is not given here holds as outside of it."""
    outer = _answers.get() or Answers({})
    token = _answers.set(Answers({**outer.given, **(given or {})}, asker or outer.asker))
    try:
        yield
    finally:
        _answers.reset(token)


async def ask_person(question: str, default: str | None = None) -> str:
    """A person's answer, as text. It is recorded, so that nobody is asked twice.

    Raises `Waiting` where nobody can answer and there is no default."""
    return await _asked(question, default, lambda text: text)


async def approve(question: str, default: bool | None = None) -> bool:
    """Whether a person agrees: yes or no. Raises `Waiting` as `ask_person`, `BadInput` for another answer."""
    return await _asked(question, default, _agreed)


async def _asked(question: str, default: Any, read: Callable[[str], Any]) -> Any:
    with recording("step", NAME, {"question": question}, code=read.__name__) as s:
        if s.replayed:
            return s.output
        answers = _answers.get() or Answers({})
        text: Any = answers.given.get(s.id)
        if text is None and answers.asker is not None:
            text = answers.asker(question)
            text = await text if inspect.isawaitable(text) else text
        if text is None:
            if default is None:
                held = current()
                raise Waiting(question, held.id if held is not None else "", s.id)
            s.output = default
            s.facts["by"] = "default"
            return default
        s.output = value = read(text)
        s.facts["by"] = "person"
        return value


def _agreed(text: str) -> bool:
    word = text.strip().lower()
    if word not in _YES | _NO:
        raise BadInput(f"'{text}' is no answer here: say yes or no")
    return word in _YES


def questions(trace: Trace) -> dict[str, str]:
    """What a trace waits for: id -> question."""
    return {
        e.id: e.input["question"]
        for e in trace.events()
        if e.kind == "step" and e.name == NAME and e.state == "waiting"
    }


def answers_to(trace: Trace, given: list[str]) -> dict[str, str]:
    """Answers by the id of their question, out of `TEXT` (where one question waits) or `ID=TEXT`.

    Raises `BadInput` where it is not plain which question is answered."""
    if not given:
        return {}
    waiting = questions(trace)
    if not waiting:
        raise BadInput(f"trace {trace.id[:12]} waits for no answer: leave --answer out")
    out: dict[str, str] = {}
    for text in given:
        begin, mark, rest = text.partition("=")
        found = [id for id in waiting if begin and id.startswith(begin)] if mark else []
        if len(found) == 1:
            out[found[0]] = rest
        elif len(waiting) == 1:
            out[next(iter(waiting))] = text
        else:
            told = "; ".join(f"{id[:6]}: {question}" for id, question in waiting.items())
            raise BadInput(f"several answers are waited for: give ID=TEXT for each ({told})")
    return out
