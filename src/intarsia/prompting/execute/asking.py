"""`ask`: a prompt to a model, and a value of the wanted shape back."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import math
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from intarsia.errors import BadInput
from intarsia.prompting.base.backend import Backend
from intarsia.prompting.base.errors import ContextOverflow, InvalidOutput
from intarsia.prompting.base.messages import Input, Message
from intarsia.prompting.base.metered import Metered
from intarsia.prompting.base.replies import Reply, Sampling, Usage, taken_by
from intarsia.prompting.base.traced import Traced
from intarsia.prompting.base.wrapping import layers
from intarsia.prompting.execute.shape import Shape
from intarsia.prompting.execute.trust import Untrusted, is_untrusted, taint

if TYPE_CHECKING:
    from intarsia.prompting.base.budget import Budget
    from intarsia.prompting.execute.trust import Confirm

Reask = Callable[[InvalidOutput], "Input | Awaitable[Input]"]
"""What to say to a model whose answer has not the form: a text, or messages."""


@dataclass(frozen=True)
class Answer:
    """What came of asking.

    - value: of the shape's type; the text where none was asked for. text: as it was written. reply: the model's last.
    - usage: of all requests together. prompt_hash: sha256 of what was asked.
    - probabilities: of a choice that was scored: of each of its texts, they add up to one; empty for others.
    - messages: of the whole conversation, the answer included; empty where the prompt was a text.

    Where text from outside stood in the prompt, the texts in value and text are from outside too (`Untrusted`), but for
    a choice: that is one of a few known ones."""

    value: Any
    text: str
    reply: Reply
    usage: Usage
    prompt_hash: str
    probabilities: dict[str, float] = field(default_factory=dict)
    messages: tuple[Message, ...] = ()


async def ask(
    backend: Backend,
    prompt: Input | Any,
    *,
    shape: Any = None,
    tools: Sequence[Any] = (),
    sampling: Sampling | None = None,
    budget: Budget | None = None,
    reask: Reask | Any = None,
    reasks: int = 1,
    confirm: Confirm | None = None,
) -> Answer:
    """Ask a model.

    - prompt: what `Prompt.render` gave (its shape and sampling hold where none are given here), messages, or a text
      that is gone on with.
    - shape: see `Shape.of`. A choice is scored, all its texts in one pass, where the backend can (temperature 0 takes
      the likeliest, else one is drawn by its probability); other shapes hold the model at the logits, or are checked.
    - tools: what the model may call before it answers: see `agent`, which does that; confirm: who is asked then.
    - budget: what this may use, within what the backend allows.
    - reask: what to say where the answer has not the form; without it that is an error at once. A function of the
      `InvalidOutput`, or a `Prompt` with the inputs `raw` and `errors`. Asked again at most `reasks` times.

    Raises `InvalidOutput`, and as `Backend.generate`."""
    if tools:
        from intarsia.prompting.execute.agents import agent

        if reask is not None:
            raise BadInput("reask is for answers without tools: leave one of them out")
        done = await agent(
            backend, tools, prompt, shape=shape, sampling=sampling, budget=budget, confirm=confirm, strict=True
        )
        return Answer(done.answer, done.text, done.reply, done.usage, hash_of(prompt), messages=done.messages)
    wanted, sampling = asked_for(prompt, shape, sampling)
    asking = within(backend, budget)
    if wanted is not None and wanted.kind == "choice" and (scored := await _scored(asking, prompt, wanted, sampling)):
        return scored
    said: Input = prompt
    used = Usage(calls=0)
    for turn in range(reasks + 1 if reask is not None else 1):
        try:
            reply = await asking.generate(said, sampling, constraint=wanted.constraint if wanted is not None else None)
            used += reply.usage
            value = read(wanted, reply)
        except InvalidOutput as error:
            if reask is None or turn == reasks:
                raise
            said = await _again(said, error, reask)
            continue
        outside = is_untrusted(said) or _has_untrusted(said)
        if outside and (wanted is None or wanted.kind != "choice"):
            value = taint(value)
        text = Untrusted(reply.text) if outside else reply.text
        talk = () if isinstance(said, str) or not _is_talk(said) else (*said, Message("assistant", text))
        return Answer(value, text, reply, used, hash_of(prompt), messages=talk)
    raise AssertionError("an answer or an error")


def ask_now(backend: Backend, prompt: Input | Any, **options: Any) -> Answer:
    """`ask`, for where no event loop runs."""
    return run_now(ask(backend, prompt, **options), "ask_now", "ask")


def run_now(work: Any, name: str, other: str) -> Any:
    """Run a coroutine to its end. Raises `BadInput` inside an event loop: there, it is awaited."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    work.close()
    raise BadInput(f"{name} is for where no event loop runs; here, write `await {other}(...)`")


def asked_for(prompt: Any, shape: Any, sampling: Sampling | None) -> tuple[Shape | None, Sampling]:
    """The shape and the sampling: those given, else those of the prompt."""
    shape = shape if shape is not None else getattr(prompt, "shape", None)
    sampling = sampling or getattr(prompt, "sampling", None) or Sampling()
    return (None if shape is None else Shape.of(shape)), sampling


def within(backend: Backend, budget: Budget | None) -> Backend:
    """The backend, within a budget, writing to the trace that is open."""
    if budget is not None:
        backend = Metered(backend, budget)
    return backend if any(isinstance(layer, Traced) for layer in layers(backend)) else Traced(backend)


def read(shape: Shape | None, reply: Reply) -> Any:
    """The value of a reply. An answer that was cut says so."""
    if shape is None:
        return reply.text
    try:
        return shape.parse(reply.text)
    except InvalidOutput as error:
        if reply.finish != "length":
            raise
        cut = "it was cut when all tokens it may have were made: give more (Sampling.max_tokens)"
        raise InvalidOutput(error.raw, [*error.errors, cut]) from None


def hash_of(prompt: Any) -> str:
    """sha256 of what is asked, in hex."""
    if (known := getattr(prompt, "hash", None)) and isinstance(known, str):
        return known
    if _is_talk(prompt):
        from intarsia.prompting.execute.prompt.rendered import hash_of as of_messages

        return of_messages(prompt)
    text = prompt if isinstance(prompt, str) else " ".join(map(str, prompt))
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


async def _scored(backend: Backend, prompt: Input, shape: Shape, sampling: Sampling) -> Answer | None:
    """A choice by its texts' probabilities; None where it cannot be scored (`scorable`), or the backend does not."""
    if not scorable(shape):
        return None
    try:
        scores = await backend.score(prompt, list(shape.choices))
    except (BadInput, NotImplementedError) as error:
        if isinstance(error, ContextOverflow):
            raise
        return None
    return chosen(backend, prompt, shape, sampling, scores)


def scorable(shape: Shape | None) -> bool:
    """Whether it is a choice, none of whose texts begins another: the longer can never be likelier, whatever the model
    means."""
    texts = list(shape.choices) if shape is not None and shape.kind == "choice" else []
    return bool(texts) and not any(a != b and b.startswith(a) for a in texts for b in texts)


def chosen(backend: Backend, prompt: Input, shape: Shape, sampling: Sampling, scores: Sequence[float]) -> Answer:
    """The answer that log probabilities of a choice's texts make: the likeliest; above temperature 0, one drawn."""
    texts = list(shape.choices)
    best = max(scores)
    weights = [math.exp(one - best) for one in scores]
    shares = {text: weight / sum(weights) for text, weight in zip(texts, weights, strict=True)}
    text = max(shares, key=lambda text: shares[text])
    if sampling.temperature > 0:
        heated = [math.exp((one - best) / sampling.temperature) for one in scores]
        text = random.Random(sampling.seed).choices(texts, heated)[0]
    usage = taken_by(scores) or Usage(prompt=backend.count(prompt))
    talk = (*prompt, Message("assistant", text)) if _is_talk(prompt) else ()
    return Answer(shape.choices[text], text, Reply(text, usage=usage), usage, hash_of(prompt), shares, messages=talk)


async def _again(said: Input, error: InvalidOutput, reask: Any) -> Input:
    """The prompt, the answer it got, and what is said to that."""
    if hasattr(reask, "render"):
        new: Any = reask.render(raw=error.raw, errors=error.errors)
    else:
        new = reask(error)
        new = await new if inspect.isawaitable(new) else new
    if isinstance(said, str):
        if not isinstance(new, str):
            raise BadInput("the prompt is a text: what is said to a wrong answer must be a text too")
        return said + error.raw + new
    if not _is_talk(said):
        raise BadInput("a prompt of token ids cannot be asked again: give a text or messages")
    answer = Untrusted(error.raw) if _has_untrusted(said) else error.raw
    more = (Message("user", new),) if isinstance(new, str) else tuple(new)
    return (*said, Message("assistant", answer), *more)


def _is_talk(prompt: Any) -> bool:
    return not isinstance(prompt, str) and all(isinstance(message, Message) for message in prompt)


def _has_untrusted(prompt: Any) -> bool:
    return bool(getattr(prompt, "untrusted", ())) or (_is_talk(prompt) and any(map(is_untrusted, prompt)))
