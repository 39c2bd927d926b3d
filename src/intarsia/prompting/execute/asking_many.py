"""`ask_many`: many prompts of one kind to a model, several in one request where that is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from intarsia.errors import BadInput, IntarsiaError
from intarsia.prompting.base.backend import Backend
from intarsia.prompting.base.errors import BudgetExceeded, ContextOverflow
from intarsia.prompting.base.many import FailedPrompt, each_or_failed, score_many
from intarsia.prompting.base.messages import Input, Message
from intarsia.prompting.base.replies import Sampling, Usage
from intarsia.prompting.execute.asking import Answer, ask, asked_for, chosen, hash_of, run_now, scorable, within
from intarsia.prompting.execute.shape import Shape
from intarsia.prompting.execute.together import MARK, Answers, put_together, schema_of
from intarsia.prompting.execute.trust import Untrusted, is_untrusted, taint

if TYPE_CHECKING:
    from intarsia.prompting.base.budget import Budget

AROUND = 4  # tokens of an answer in a list beside its own: a comma, quotes


async def ask_many(
    backend: Backend,
    prompts: Sequence[Input | Any],
    *,
    shape: Any = None,
    together: int = 1,
    mark: str = MARK,
    sampling: Sampling | None = None,
    budget: Budget | None = None,
    at_once: int = 8,
    keep_going: bool = False,
    task: str = "asking",
) -> list[Any]:
    """An `Answer` to each prompt, in their order.

    - prompts: as of `ask`. Those that share a request are conversations that differ in their last message alone
      (`Prompt.render_many`), and what is sent is what `put_together(prompts, mark)` gives.
    - shape: of each answer; default: the first prompt's own, which holds for all.
    - together: prompts in a request, at most. 1: each by itself, as `ask` does it. With more, the model is held to a
      list of just so many answers. Choices are scored, each prompt being read by itself, where the model runs here or
      the server is Intarsia's: then nothing of what follows concerns them, and answers are those of one by one.
    - sampling: `max_tokens` is of each answer. keep_going, at_once, task: as of `generate_many`.

    Requests are fewer, and what the prompts share is sent once. It may cost quality: a model that reads several texts
    mixes them up, the more of them and the smaller it is; measure it on your own set (`intarsia eval --together`).
    And a text from outside can sway the answers to its neighbours: put together only what may stand together.

    Where a request would not fit the model's context, or what is left of the budget, it is halved, and again. Where one
    has not the form, or a server refuses it, its prompts are asked by themselves. In a trace that is gone on with, and
    with a cache, what was asked is not asked again, as long as the same prompts are given in the same order.

    `usage` of an answer is its share of the request's: they add up to what all took. Raises as `ask`, in a
    `FailedPrompt`; with `keep_going` errors stand in their prompts' places. `BadInput` for prompts that cannot be put
    together, and for a grammar."""
    if together < 1:
        raise BadInput(f"together is {together}: give at least 1")
    if not prompts:
        return []
    wanted, sampling = asked_for(prompts[0], shape, sampling)
    if together > 1:
        schema_of(wanted)
        if not scorable(wanted):
            put_together(prompts, mark)
    work = _Many(within(backend, budget), list(prompts), wanted, mark, sampling, keep_going)
    groups = [range(start, min(start + together, len(prompts))) for start in range(0, len(prompts), together)]
    await each_or_failed(len(groups), lambda number: work.ask(groups[number]), at_once, task)
    return work.answers


def ask_many_now(backend: Backend, prompts: Sequence[Input | Any], **options: Any) -> list[Any]:
    """`ask_many`, for where no event loop runs."""
    return run_now(ask_many(backend, prompts, **options), "ask_many_now", "ask_many")


class _Many:
    def __init__(
        self, backend: Backend, prompts: list[Any], shape: Shape | None, mark: str, sampling: Sampling,
        keep_going: bool,
    ):  # fmt: skip
        self.backend, self.prompts, self.shape, self.mark = backend, prompts, shape, mark
        self.sampling, self.keep_going = sampling, keep_going
        self.answers: list[Any] = [None] * len(prompts)

    async def ask(self, numbers: range, lost: Usage = Usage(calls=0)) -> None:
        """Answers to some prompts. lost: what was used for them already, and came to nothing."""
        if len(numbers) == 1:
            await self._ask_alone(numbers[0], lost)
            return
        prompts = [self.prompts[number] for number in numbers]
        if await self._scored(numbers, prompts, lost):
            return
        said = put_together(prompts, self.mark)
        sampling = replace(self.sampling, max_tokens=self._most() * len(numbers))
        length = self.backend.context_length
        if length is not None and self.backend.count(said) + sampling.max_tokens > length:
            await self._ask_halves(numbers, lost)
            return
        form = Answers(self.shape, len(numbers))
        try:
            reply = await self.backend.generate(said, sampling, constraint=form.constraint)
            lost += reply.usage
            found = form.read(reply.text)
        except (ContextOverflow, BudgetExceeded):
            await self._ask_halves(numbers, lost)
            return
        except IntarsiaError as error:
            if getattr(error, "retryable", False):  # nobody answers: more requests would not help
                for number in numbers:
                    self._failed(number, error)
                return
            for place, number in enumerate(numbers):
                await self._ask_alone(number, share(lost, place, len(numbers)))
            return
        outside = is_untrusted(said)
        messages = (*said, Message("assistant", Untrusted(reply.text) if outside else reply.text))
        for place, (number, (value, text)) in enumerate(zip(numbers, found, strict=True)):
            if outside and (self.shape is None or self.shape.kind != "choice"):
                value, text = taint(value), Untrusted(text)
            usage = share(lost, place, len(numbers))
            self.answers[number] = Answer(value, text, reply, usage, hash_of(said), messages=messages)

    async def _scored(self, numbers: range, prompts: Sequence[Any], lost: Usage) -> bool:
        """Choices, by the probabilities of their texts; False where these cannot be told of many at once."""
        if not scorable(self.shape):
            return False
        assert self.shape is not None
        try:
            found = await score_many(self.backend, prompts, list(self.shape.choices))
        except NotImplementedError:
            return False
        except IntarsiaError as error:
            if isinstance(error, BadInput) and not isinstance(error, ContextOverflow):
                return False
            for number in numbers:  # one of them, perhaps, and not the others
                await self._ask_alone(number, Usage(calls=0))
            return True
        for place, (number, prompt, scores) in enumerate(zip(numbers, prompts, found, strict=True)):
            answer = chosen(self.backend, prompt, self.shape, self.sampling, scores)
            self.answers[number] = replace(answer, usage=answer.usage + share(lost, place, len(numbers)))
        return True

    async def _ask_halves(self, numbers: range, lost: Usage) -> None:
        middle = len(numbers) // 2
        await self.ask(numbers[:middle], lost)
        await self.ask(numbers[middle:])

    async def _ask_alone(self, number: int, lost: Usage) -> None:
        try:
            answer = await ask(self.backend, self.prompts[number], shape=self.shape, sampling=self.sampling)
        except IntarsiaError as error:
            self._failed(number, error)
            return
        self.answers[number] = replace(answer, usage=answer.usage + lost)

    def _failed(self, number: int, error: IntarsiaError) -> None:
        if not self.keep_going:
            raise FailedPrompt(number, error) from error
        self.answers[number] = error

    def _most(self) -> int:
        """Tokens of an answer in a list, at most."""
        most = self.sampling.max_tokens
        if self.shape is not None and self.shape.kind == "choice":
            most = min(most, max(map(self.backend.count, self.shape.choices)))
        return most + AROUND


def share(usage: Usage, place: int, of: int) -> Usage:
    """One of so many equal parts of what was used; the parts add up to it."""

    def part(value: Any) -> Any:
        return value / of if isinstance(value, float) else value * (place + 1) // of - value * place // of

    return Usage(*(part(getattr(usage, field.name)) for field in fields(Usage)))
